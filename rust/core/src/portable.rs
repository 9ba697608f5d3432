//! The primitives in plain Rust: X25519 by dalek, AES-256-GCM by RustCrypto. Every build and every machine has them.

use std::mem::MaybeUninit;

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use curve25519_dalek::edwards::EdwardsPoint;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroize;

use crate::error::Error;
use crate::primitives::{Aes256Gcm, NONCE_BYTES, Primitives, TAG_BYTES};
use crate::secret::Secret;

pub(crate) struct Portable;

impl Primitives for Portable {
    type Aes256Gcm = aes_gcm::Aes256Gcm;

    fn public_key(&self, private_key: &[u8; 32]) -> [u8; 32] {
        PublicKey::from(&StaticSecret::from(*private_key)).to_bytes()
    }

    fn agree(&self, private_key: &[u8; 32], public_key: &[u8; 32], shared_secret: &mut [u8; 32]) -> bool {
        let agreed = StaticSecret::from(*private_key).diffie_hellman(&PublicKey::from(*public_key));
        if agreed.was_contributory() {
            shared_secret.copy_from_slice(agreed.as_bytes());
            return true;
        }
        false
    }

    fn aes_256_gcm(&self, key: &[u8; 32]) -> Self::Aes256Gcm {
        aes_gcm::Aes256Gcm::new(key.into())
    }
}

impl Portable {
    /// Returns the public keys of many private keys, which share one field inversion: that takes a quarter of the time of
    /// a key made alone.
    pub(crate) fn public_keys(&self, private_keys: &[Secret]) -> Result<Vec<[u8; 32]>, Error> {
        let mut points = Vec::with_capacity(private_keys.len());
        for private_key in private_keys {
            points.push(private_key.read(|scalar| EdwardsPoint::mul_base_clamped(*scalar))?);
        }
        let public_keys = EdwardsPoint::to_montgomery_batch(&points);
        // The projective coordinates of a point tell more about its scalar than the public key does.
        points.zeroize();
        Ok(public_keys.into_iter().map(|public_key| public_key.to_bytes()).collect())
    }
}

impl Aes256Gcm for aes_gcm::Aes256Gcm {
    fn seal<'a>(
        &self,
        nonce: &[u8; NONCE_BYTES],
        plaintext: &[u8],
        ciphertext: &'a mut [MaybeUninit<u8>],
    ) -> Result<(&'a mut [u8], [u8; TAG_BYTES]), Error> {
        let ciphertext = zeroed(ciphertext);
        let in_out = InOutBuf::new(plaintext, ciphertext).map_err(|_| Error::MalformedMessage)?;
        let tag = self.encrypt_inout_detached(nonce.into(), &[], in_out).map_err(|_| Error::MalformedMessage)?;
        Ok((ciphertext, tag.into()))
    }

    fn open<'a>(
        &self,
        nonce: &[u8; NONCE_BYTES],
        ciphertext: &[u8],
        tag: &[u8; TAG_BYTES],
        plaintext: &'a mut [MaybeUninit<u8>],
    ) -> Result<&'a mut [u8], Error> {
        let plaintext = zeroed(plaintext);
        let in_out = InOutBuf::new(ciphertext, plaintext).map_err(|_| Error::MalformedMessage)?;
        let opened = self.decrypt_inout_detached(nonce.into(), &[], in_out, tag.into());
        if opened.is_err() {
            plaintext.zeroize();
            return Err(Error::MalformedMessage);
        }
        Ok(plaintext)
    }
}

fn zeroed(bytes: &mut [MaybeUninit<u8>]) -> &mut [u8] {
    bytes.fill(MaybeUninit::new(0));
    // SAFETY: every byte is written, and `u8` has the layout of `MaybeUninit<u8>`.
    unsafe { &mut *(std::ptr::from_mut(bytes) as *mut [u8]) }
}
