//! EHBP responses: AES-256-GCM under keys that both sides derive from the request (as RFC 9458, section 4.4, does).

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::Error;
use crate::arena::HomeProcess;
use crate::frame::{FrameReader, OpenFrame, SealFrame, TAG_BYTES, open_frame, seal_frames, sealed_bytes};
use crate::no_trace::without_trace;
use crate::response_secret::ResponseSecret;

/// The length of the random nonce that a server sends with a response.
pub const RESPONSE_NONCE_BYTES: usize = 32;

const AEAD_NONCE_BYTES: usize = 12;

/// AES-256-GCM with a nonce that counts frames. Boxed: it is not moved, so it leaves no copies behind.
struct CountingCipher {
    home: HomeProcess,
    aead: Aes256Gcm,
    base_nonce: [u8; AEAD_NONCE_BYTES],
    frames: u64,
}

impl CountingCipher {
    fn derive(secret: &ResponseSecret, response_nonce: &[u8; RESPONSE_NONCE_BYTES]) -> Result<Box<Self>, Error> {
        let home = HomeProcess::current()?;
        let salt = [secret.encapsulated_key, *response_nonce].concat();
        without_trace(|| {
            let prk = Hkdf::<Sha256>::new(Some(&salt), secret.exported.as_slice());
            let mut key = Zeroizing::new([0; 32]);
            let mut base_nonce = [0; AEAD_NONCE_BYTES];
            prk.expand(b"key", key.as_mut_slice()).map_err(|_| Error::MalformedMessage)?;
            prk.expand(b"nonce", &mut base_nonce).map_err(|_| Error::MalformedMessage)?;
            let aead = Aes256Gcm::new_from_slice(key.as_slice()).map_err(|_| Error::MalformedMessage)?;
            Ok(Box::new(Self { home, aead, base_nonce, frames: 0 }))
        })
    }

    fn next_nonce(&mut self) -> Result<Nonce<aes_gcm::aead::consts::U12>, Error> {
        self.home.require()?;
        let mut nonce = self.base_nonce;
        for (byte, count) in nonce[AEAD_NONCE_BYTES - 8..].iter_mut().zip(self.frames.to_be_bytes()) {
            *byte ^= count;
        }
        // 2^64 frames are never reached.
        self.frames += 1;
        Ok(nonce.into())
    }
}

impl SealFrame for CountingCipher {
    fn seal(&mut self, plaintext_to_ciphertext: InOutBuf<'_, '_, u8>) -> Result<[u8; TAG_BYTES], Error> {
        let nonce = self.next_nonce()?;
        let tag = self.aead.encrypt_inout_detached(&nonce, &[], plaintext_to_ciphertext);
        Ok(tag.map_err(|_| Error::MalformedMessage)?.into())
    }
}

impl OpenFrame for CountingCipher {
    fn open(&mut self, ciphertext_to_plaintext: InOutBuf<'_, '_, u8>, tag: &[u8; TAG_BYTES]) -> Result<(), Error> {
        let nonce = self.next_nonce()?;
        self.aead
            .decrypt_inout_detached(&nonce, &[], ciphertext_to_plaintext, tag.into())
            .map_err(|_| Error::MalformedMessage)
    }
}

impl Drop for CountingCipher {
    fn drop(&mut self) {
        // The key wipes itself; what sealing frames left on this stack goes here, once, not after every frame.
        without_trace(|| ());
    }
}

/// Seals one response on the server.
pub struct ResponseSealer {
    response_nonce: [u8; RESPONSE_NONCE_BYTES],
    cipher: Box<CountingCipher>,
}

impl ResponseSealer {
    pub(crate) fn new(secret: &ResponseSecret) -> Result<Self, Error> {
        let mut response_nonce = [0; RESPONSE_NONCE_BYTES];
        getrandom::fill(&mut response_nonce)?;
        let cipher = CountingCipher::derive(secret, &response_nonce)?;
        Ok(Self { response_nonce, cipher })
    }

    /// What the response's header `Ehbp-Response-Nonce` carries.
    pub fn response_nonce(&self) -> &[u8; RESPONSE_NONCE_BYTES] {
        &self.response_nonce
    }

    /// The length of what [`seal`](Self::seal) makes of `plaintext_bytes` bytes.
    pub fn sealed_bytes(plaintext_bytes: usize) -> usize {
        sealed_bytes(plaintext_bytes)
    }

    /// Seals the next piece of the body into `sealed`, which has the length that [`sealed_bytes`](Self::sealed_bytes) says.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`] if `sealed` has another length.
    pub fn seal(&mut self, plaintext: &[u8], sealed: &mut [u8]) -> Result<(), Error> {
        seal_frames(self.cipher.as_mut(), plaintext, sealed)
    }
}

/// Opens one response on the client.
pub struct ResponseOpener {
    cipher: Box<CountingCipher>,
    frames: FrameReader,
}

impl ResponseOpener {
    pub(crate) fn new(secret: &ResponseSecret, response_nonce: &[u8], max_frame_bytes: usize) -> Result<Self, Error> {
        let response_nonce = response_nonce.try_into().map_err(|_| Error::MalformedMessage)?;
        let cipher = CountingCipher::derive(secret, response_nonce)?;
        Ok(Self { cipher, frames: FrameReader::new(max_frame_bytes) })
    }

    /// Takes the next piece of the sealed body and appends what it completes to `plaintext`.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`], [`Error::FrameTooLarge`]: the body is not to be read further.
    pub fn feed(&mut self, piece: &[u8], plaintext: &mut Vec<u8>) -> Result<(), Error> {
        let Self { cipher, frames } = self;
        frames.feed(piece, |frame| {
            let opened_before = plaintext.len();
            open_frame(cipher.as_mut(), frame, plaintext)?;
            Ok(plaintext.len() - opened_before)
        })
    }

    /// Says whether the body may end here.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`] inside a frame.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.frames.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derives_the_keys_of_the_protocol() {
        let sequence = |first: u8| -> [u8; 32] { std::array::from_fn(|index| first + index as u8) };
        let secret = ResponseSecret { exported: sequence(0).into(), encapsulated_key: sequence(0x20) };
        let mut derived = CountingCipher::derive(&secret, &sequence(0x40)).unwrap();
        assert_eq!(derived.base_nonce, [0xf8, 0xb0, 0xce, 0x94, 0x66, 0xf2, 0x7a, 0xa6, 0x24, 0x3c, 0x65, 0xf9]);
        let key = *b"\x40\xec\x52\x88\x47\xcd\x4e\x92\x84\x49\xf2\xed\x1a\x70\xa7\xd1\
                     \xe8\xee\x31\x7d\x5e\x90\x04\x24\xfc\x1d\xd5\xb0\x47\x5b\x97\xf7";
        let mut plain = CountingCipher {
            home: HomeProcess::current().unwrap(),
            aead: Aes256Gcm::new_from_slice(&key).unwrap(),
            base_nonce: derived.base_nonce,
            frames: 0,
        };
        for _ in 0..3 {
            let (mut sealed, mut expected) = ([0; 25], [0; 25]);
            seal_frames(derived.as_mut(), b"hello", &mut sealed).unwrap();
            seal_frames(&mut plain, b"hello", &mut expected).unwrap();
            assert_eq!(sealed, expected);
        }
    }
}
