//! AES-256-GCM with a nonce that counts frames (RFC 9180, section 5.2), by the engine if it is in use, else by RustCrypto.

use std::mem::MaybeUninit;

use crate::arena::HomeProcess;
use crate::engine::engine;
use crate::error::Error;
use crate::no_trace::TracesWiped;
use crate::portable::Portable;
use crate::primitives::{Aes256Gcm, NONCE_BYTES, Primitives, TAG_BYTES};

/// Seals the frames of one direction of a message, or opens them. It stays in its box, because a move would leave a copy
/// of the key behind.
pub(crate) struct CountingCipher {
    home: HomeProcess,
    cipher: Box<dyn Aes256Gcm + Send + Sync>,
    base_nonce: [u8; NONCE_BYTES],
    frames: u64,
    _traces: TracesWiped,
}

impl CountingCipher {
    /// Makes a cipher for this process. Call it in [`boxed_without_trace`](crate::no_trace::boxed_without_trace).
    pub(crate) fn new(home: HomeProcess, key: &[u8; 32], base_nonce: [u8; NONCE_BYTES]) -> Self {
        let cipher: Box<dyn Aes256Gcm + Send + Sync> = match engine().assembly() {
            Some(assembly) => Box::new(assembly.aes_256_gcm(key)),
            None => Box::new(Portable.aes_256_gcm(key)),
        };
        Self { home, cipher, base_nonce, frames: 0, _traces: TracesWiped }
    }

    /// Encrypts the next frame. Returns `ciphertext`, which is as long as `plaintext`, and the tag.
    ///
    /// # Errors
    /// [`Error::KeyErased`] in a forked child; [`Error::MalformedMessage`] if the lengths differ.
    pub(crate) fn seal<'a>(
        &mut self,
        plaintext: &[u8],
        ciphertext: &'a mut [MaybeUninit<u8>],
    ) -> Result<(&'a mut [u8], [u8; TAG_BYTES]), Error> {
        let nonce = self.next_nonce()?;
        self.cipher.seal(&nonce, plaintext, ciphertext)
    }

    /// Decrypts the next frame. Returns `plaintext`, which is as long as `ciphertext`.
    ///
    /// # Errors
    /// [`Error::KeyErased`] in a forked child; [`Error::MalformedMessage`] if the lengths differ or the tag is wrong. Then
    /// `plaintext` keeps nothing that was decrypted, and no later frame opens.
    pub(crate) fn open<'a>(
        &mut self,
        ciphertext: &[u8],
        tag: &[u8; TAG_BYTES],
        plaintext: &'a mut [MaybeUninit<u8>],
    ) -> Result<&'a mut [u8], Error> {
        let nonce = self.next_nonce()?;
        self.cipher.open(&nonce, ciphertext, tag, plaintext)
    }

    fn next_nonce(&mut self) -> Result<[u8; NONCE_BYTES], Error> {
        self.home.require()?;
        let mut nonce = self.base_nonce;
        for (byte, count) in nonce[NONCE_BYTES - 8..].iter_mut().zip(self.frames.to_be_bytes()) {
            *byte ^= count;
        }
        // No message reaches 2^64 frames.
        self.frames += 1;
        Ok(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_frame_is_sealed_under_the_base_nonce_with_its_number_in_the_last_bytes() {
        let (key, base_nonce) = ([0x11; 32], [0x22; NONCE_BYTES]);
        let mut counting = CountingCipher::new(HomeProcess::current().unwrap(), &key, base_nonce);
        let plain = Portable.aes_256_gcm(&key);
        for number in 0..300_u16 {
            let mut nonce = base_nonce;
            for (byte, count) in nonce[10..].iter_mut().zip(number.to_be_bytes()) {
                *byte ^= count;
            }
            let (mut expected, mut sealed) = ([MaybeUninit::uninit(); 5], [MaybeUninit::uninit(); 5]);
            let expected = plain.seal(&nonce, b"hello", &mut expected).unwrap();
            assert_eq!(counting.seal(b"hello", &mut sealed).unwrap(), expected);
        }
    }

    #[test]
    fn a_frame_that_is_not_authentic_leaves_nothing_in_its_place() {
        let seal_and_open = || {
            let home = || HomeProcess::current().unwrap();
            let cipher = || CountingCipher::new(home(), &[0x11; 32], [0x22; NONCE_BYTES]);
            let mut sealed = [MaybeUninit::uninit(); 1000];
            let (sealed, mut tag) = cipher().seal(&[7; 1000], &mut sealed).unwrap();
            tag[3] ^= 1;
            let mut opened = [MaybeUninit::new(0xa5); 1000];
            assert_eq!(cipher().open(sealed, &tag, &mut opened), Err(Error::MalformedMessage));
            // SAFETY: all of it was written when it was made.
            opened.map(|byte| unsafe { byte.assume_init() })
        };
        assert_eq!(seal_and_open(), [0; 1000]);
    }
}
