//! The two primitives that more than one library computes here: X25519 (RFC 7748) and AES-256-GCM.

use std::mem::MaybeUninit;

use crate::error::Error;

pub(crate) const TAG_BYTES: usize = 16;
pub(crate) const NONCE_BYTES: usize = 12;

/// One implementation of both. Its functions run in constant time.
pub(crate) trait Primitives {
    type Aes256Gcm: Aes256Gcm + Send + Sync;

    /// Returns the public key of a private key.
    fn public_key(&self, private_key: &[u8; 32]) -> [u8; 32];

    /// Writes the secret shared with the owner of `public_key`. Returns false, and writes nothing, if that is a point of
    /// small order.
    #[must_use]
    fn agree(&self, private_key: &[u8; 32], public_key: &[u8; 32], shared_secret: &mut [u8; 32]) -> bool;

    /// Expands a key. The result keeps nothing on the heap, and wipes itself when it is dropped.
    fn aes_256_gcm(&self, key: &[u8; 32]) -> Self::Aes256Gcm;
}

/// AES-256-GCM under one key, without associated data. Inputs and outputs have one length, and do not overlap.
pub(crate) trait Aes256Gcm {
    /// Encrypts. Returns `ciphertext`, all of it written, and the tag.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`] if the lengths differ, or are more than AES-GCM allows.
    fn seal<'a>(
        &self,
        nonce: &[u8; NONCE_BYTES],
        plaintext: &[u8],
        ciphertext: &'a mut [MaybeUninit<u8>],
    ) -> Result<(&'a mut [u8], [u8; TAG_BYTES]), Error>;

    /// Decrypts. Returns `plaintext`, all of it written.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`] if the tag is wrong, or as in [`seal`](Self::seal). Then `plaintext` keeps nothing
    /// that was decrypted.
    fn open<'a>(
        &self,
        nonce: &[u8; NONCE_BYTES],
        ciphertext: &[u8],
        tag: &[u8; TAG_BYTES],
        plaintext: &'a mut [MaybeUninit<u8>],
    ) -> Result<&'a mut [u8], Error>;
}
