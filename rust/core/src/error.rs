//! Everything that can go wrong in this crate. The binding maps this one enum to Python in one place.

use std::fmt;

use crate::group_secret_fault::GroupSecretFault;
use crate::replay_table_fault::ReplayTableFault;
use crate::signing_key_fault::SigningKeyFault;

/// The reason why an operation on keys or messages failed. No variant carries key material.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A public key has this many bytes instead of 32.
    PublicKeyLength(usize),
    /// A public key is a point of small order: any exchange with it gives zeros (RFC 7748, section 6.1).
    PublicKeySmallOrder,
    /// An X-Wing public key has this many bytes instead of 1,216.
    XWingPublicKeyLength(usize),
    /// The ML-KEM half of a public key is none: a coefficient is not reduced (FIPS 203, section 7.2).
    MlKemPublicKey,
    /// A private key has this many bytes instead of 32.
    PrivateKeyLength(usize),
    /// The seed of an X-Wing key pair has this many bytes instead of 32.
    SeedLength(usize),
    /// A private key or the keys of a message were erased, or they belong to the process that this one was forked from.
    KeyErased,
    /// The system's random source failed.
    Entropy(getrandom::Error),
    /// More key pairs were asked for than one call makes.
    TooManyKeyPairs {
        /// The count that was asked for.
        asked: usize,
        /// The largest count.
        limit: usize,
    },
    /// A message cannot be opened. The error does not say whether its framing, a length or a tag was wrong, on purpose.
    MalformedMessage,
    /// A message ended before its end frame came: somebody cut it.
    MissingEnd,
    /// A part of a message was sealed out of order: it has one head, then the body, then one end.
    SealedOutOfOrder,
    /// A frame announces this many bytes, more than the receiver takes.
    FrameTooLarge {
        /// The length that the frame announces.
        announced: usize,
        /// The longest frame that the receiver takes.
        limit: usize,
    },
    /// A buffer has another length than what is to be written to it.
    BufferLength,
    /// The first frame of a request opens under none of the accepted keys.
    KeyMismatch,
    /// A response was asked for before the request's first frame was opened.
    RequestNotOpened,
    /// A box would hold this many epochs, none or more than it can.
    EpochCount {
        /// The count that was asked for.
        asked: usize,
        /// The largest count.
        limit: usize,
    },
    /// A group secret cannot be used.
    GroupSecret(GroupSecretFault),
    /// The file of a signing key cannot be used or written.
    SigningKey(SigningKeyFault),
    /// A table of seen requests cannot be used.
    ReplayTable(ReplayTableFault),
    /// The system has no memory for more private keys.
    OutOfMemory,
    /// The system refused the thread that erases private keys on time.
    NoThread,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PublicKeyLength(length) => write_wrong_length(f, "public", *length),
            Self::PublicKeySmallOrder => f.write_str(
                "the public key is a point of small order: every exchange with it gives zeros, no honest peer sends it",
            ),
            Self::XWingPublicKeyLength(length) => {
                write!(f, "an X-Wing public key has 1216 bytes, this one has {length}: pass the raw key")
            }
            Self::MlKemPublicKey => f.write_str(
                "the ML-KEM half of the public key has numbers that are not reduced (FIPS 203, section 7.2): no honest \
                 peer sends it",
            ),
            Self::PrivateKeyLength(length) => write_wrong_length(f, "private", *length),
            Self::SeedLength(length) => {
                write!(f, "the seed of an X-Wing key pair has 32 bytes, this one has {length}: pass the raw seed")
            }
            Self::KeyErased => f.write_str(
                "the key is gone: it was erased, or it belongs to the process that this one was forked from",
            ),
            Self::Entropy(source) => write!(f, "the system's random source failed: {source}"),
            Self::TooManyKeyPairs { asked, limit } => {
                write!(f, "one call makes at most {limit} key pairs, not {asked}: call it several times")
            }
            Self::MalformedMessage => f.write_str("the sealed message is malformed, incomplete or not authentic"),
            Self::MissingEnd => {
                f.write_str("the sealed message ended before its end frame came: it was cut on its way")
            }
            Self::SealedOutOfOrder => {
                f.write_str("a message is sealed in this order: its head once, then its body, then its end once")
            }
            Self::FrameTooLarge { announced, limit } => {
                write!(f, "a frame announces {announced} bytes, more than the limit of {limit}")
            }
            Self::BufferLength => f.write_str("the buffer has another length than what is to be written to it"),
            Self::KeyMismatch => f.write_str("the request opens under none of the accepted keys: fetch the key anew"),
            Self::RequestNotOpened => {
                f.write_str("no frame of the request is opened yet, so there is no key to seal a response with")
            }
            Self::EpochCount { asked, limit } => write!(f, "a box holds 1 to {limit} epochs, not {asked}"),
            Self::GroupSecret(fault) => write!(f, "{fault}"),
            Self::SigningKey(fault) => write!(f, "the identity file {fault}"),
            Self::ReplayTable(fault) => write!(f, "{fault}"),
            Self::OutOfMemory => {
                f.write_str("the system has no memory for more private keys: erase some, or raise its limit")
            }
            Self::NoThread => f.write_str(
                "the system refused a thread to erase private keys on time: raise its limit of threads (ulimit -u)",
            ),
        }
    }
}

fn write_wrong_length(f: &mut fmt::Formatter<'_>, half: &str, length: usize) -> fmt::Result {
    write!(f, "an X25519 {half} key has 32 bytes, this one has {length}: pass the raw key, not PEM, DER or hex")
}

impl std::error::Error for Error {}

impl From<getrandom::Error> for Error {
    fn from(source: getrandom::Error) -> Self {
        Self::Entropy(source)
    }
}

impl From<ReplayTableFault> for Error {
    fn from(fault: ReplayTableFault) -> Self {
        Self::ReplayTable(fault)
    }
}
