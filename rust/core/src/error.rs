//! Everything that can go wrong in this crate, in one enum: the binding maps it to Python in one place.

use std::fmt;

/// Why an operation on keys failed. No variant carries key material.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A public key has this many bytes instead of 32.
    PublicKeyLength(usize),
    /// A public key is a point of small order: any exchange with it gives zeros (RFC 7748, section 6.1).
    PublicKeySmallOrder,
    /// A private key has this many bytes instead of 32.
    PrivateKeyLength(usize),
    /// The private key was erased, or the keys belong to the process that this one was forked from.
    KeyErased,
    /// The system's random source failed.
    Entropy(getrandom::Error),
    /// More key pairs were asked for than one call makes.
    TooManyKeyPairs(usize),
    /// A message cannot be opened. On purpose it does not say whether framing, a length or a tag was wrong.
    MalformedMessage,
    /// A frame announces this many bytes, more than the receiver takes.
    FrameTooLarge {
        /// What the frame announces.
        announced: usize,
        /// What the receiver takes at the most.
        limit: usize,
    },
    /// The first frame of a request opens under none of the keys that are accepted.
    KeyMismatch,
    /// A response was asked for before the request's first frame was opened.
    RequestNotOpened,
    /// The system has no memory for more private keys.
    OutOfMemory,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PublicKeyLength(length) => {
                write!(f, "an X25519 public key has 32 bytes, this one has {length}: pass the raw key, not PEM, DER or hex")
            }
            Self::PublicKeySmallOrder => f.write_str(
                "this public key is a point of small order, with which every exchange gives zeros: no honest peer sends it",
            ),
            Self::PrivateKeyLength(length) => {
                write!(f, "an X25519 private key has 32 bytes, this one has {length}: pass the raw key, not PEM, DER or hex")
            }
            Self::KeyErased => f.write_str(
                "this key pair's private key is gone: it was erased, or it belongs to the process that this one was forked from",
            ),
            Self::Entropy(source) => write!(f, "the system's random source failed: {source}"),
            Self::TooManyKeyPairs(count) => {
                let most = crate::MAX_KEY_PAIRS_PER_CALL;
                write!(f, "{count} key pairs are more than one call makes: ask for at most {most} at once")
            }
            Self::MalformedMessage => f.write_str("the sealed message is malformed, incomplete or not authentic"),
            Self::FrameTooLarge { announced, limit } => {
                write!(f, "a frame announces {announced} bytes, more than the limit of {limit}")
            }
            Self::KeyMismatch => f.write_str("the request opens under none of the accepted keys: fetch the key anew"),
            Self::RequestNotOpened => {
                f.write_str("no frame of the request is opened yet, so no key is agreed on to seal a response with")
            }
            Self::OutOfMemory => f.write_str("the system has no memory for more private keys: erase some, or raise its limit"),
        }
    }
}

impl std::error::Error for Error {}

impl From<getrandom::Error> for Error {
    fn from(source: getrandom::Error) -> Self {
        Self::Entropy(source)
    }
}
