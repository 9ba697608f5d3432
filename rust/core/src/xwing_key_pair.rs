//! X-Wing key pairs.

use std::time::Duration;

use crate::arena::SECRET_BYTES;
use crate::error::Error;
use crate::no_trace::without_deep_trace;
use crate::secret::Secret;
use crate::xwing::{self, XWING_ENCAPSULATED_KEY_BYTES, XWING_PUBLIC_KEY_BYTES};

/// An X-Wing key pair (KEM 0x647a of HPKE: ML-KEM-768 and X25519). Its seed never leaves this process. Erasing or dropping
/// the pair wipes it.
pub struct XWingKeyPair {
    /// On the heap, so that moving a pair moves little.
    public_key: Box<[u8; XWING_PUBLIC_KEY_BYTES]>,
    seed: Secret,
}

impl XWingKeyPair {
    /// Makes a key pair from the system's random source.
    ///
    /// # Errors
    /// [`Error::Entropy`], [`Error::OutOfMemory`].
    pub fn generate() -> Result<Self, Error> {
        Self::with_seed(Secret::new(|bytes| Ok(getrandom::fill(bytes)?))?)
    }

    /// Makes the key pair of an existing seed. The caller must wipe its own copy.
    ///
    /// # Errors
    /// [`Error::SeedLength`] unless there are 32 bytes, [`Error::OutOfMemory`].
    pub fn from_seed(seed: &[u8]) -> Result<Self, Error> {
        if seed.len() != SECRET_BYTES {
            return Err(Error::SeedLength(seed.len()));
        }
        Self::with_seed(Secret::new(|bytes| {
            bytes.copy_from_slice(seed);
            Ok(())
        })?)
    }

    fn with_seed(seed: Secret) -> Result<Self, Error> {
        let public_key = seed.read(|seed| without_deep_trace(|| Box::new(xwing::public_key(seed))))?;
        Ok(Self { public_key, seed })
    }

    /// Returns the public key: ML-KEM's encapsulation key, then X25519's public key.
    pub fn public_key(&self) -> &[u8; XWING_PUBLIC_KEY_BYTES] {
        &self.public_key
    }

    pub(crate) fn seed(&self) -> &Secret {
        &self.seed
    }

    /// Writes the secret that an encapsulated key brings. Call it in
    /// [`without_deep_trace`](crate::no_trace::without_deep_trace), with the seed that [`seed`](Self::seed) lends.
    ///
    /// # Errors
    /// [`Error::PublicKeySmallOrder`].
    pub(crate) fn decapsulate(
        &self,
        seed: &[u8; SECRET_BYTES],
        encapsulated_key: &[u8; XWING_ENCAPSULATED_KEY_BYTES],
        shared_secret: &mut [u8; 32],
    ) -> Result<(), Error> {
        xwing::decapsulate(seed, &self.public_key, encapsulated_key, shared_secret)
    }

    /// Waits until no other thread uses the seed, then wipes it. Every later use fails with [`Error::KeyErased`].
    pub fn erase(&self) {
        self.seed.erase();
    }

    /// Has the seed erased after `delay`, as [`KeyPair::erase_in`](crate::KeyPair::erase_in) has a private key.
    ///
    /// # Errors
    /// [`Error::NoThread`]. Then the deadlines are as they were.
    pub fn erase_in(&self, delay: Duration) -> Result<(), Error> {
        self.seed.erase_in(delay)
    }

    /// Says whether the seed is gone: erased, or left in the process that this one was forked from.
    pub fn is_erased(&self) -> bool {
        self.seed.is_erased()
    }
}

impl std::fmt::Debug for XWingKeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, ..] = *self.public_key;
        write!(f, "<XWingKeyPair {a:02x}{b:02x}{c:02x}{d:02x}…{}>", if self.is_erased() { ", erased" } else { "" })
    }
}
