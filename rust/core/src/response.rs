//! EHBP responses: AES-256-GCM under the keys that both sides derive from the request.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};

use crate::arena::HomeProcess;
use crate::error::Error;
use crate::frame::{FrameReader, OpenFrame, SealFrame, TAG_BYTES, open_frame, seal_frames, sealed_bytes};
use crate::no_trace::{TracesWiped, boxed_without_trace};
use crate::response_keys::{
    AEAD_NONCE_BYTES, ENCAPSULATED_KEY_BYTES, ExportSecret, RESPONSE_NONCE_BYTES, ResponseKeys,
};

/// AES-256-GCM with a nonce that counts frames. It stays in its box, because a move would leave a copy behind.
struct CountingCipher {
    home: HomeProcess,
    aead: Aes256Gcm,
    base_nonce: [u8; AEAD_NONCE_BYTES],
    frames: u64,
    _traces: TracesWiped,
}

impl CountingCipher {
    fn derive(
        context: &impl ExportSecret,
        encapsulated_key: &[u8; ENCAPSULATED_KEY_BYTES],
        response_nonce: &[u8; RESPONSE_NONCE_BYTES],
    ) -> Result<Box<Self>, Error> {
        let home = HomeProcess::current()?;
        boxed_without_trace(|| {
            let keys = ResponseKeys::derive(context, encapsulated_key, response_nonce)?;
            let aead = Aes256Gcm::new_from_slice(keys.key.as_slice()).map_err(|_| Error::MalformedMessage)?;
            Ok(Self { home, aead, base_nonce: keys.base_nonce, frames: 0, _traces: TracesWiped })
        })
    }

    fn next_nonce(&mut self) -> Result<Nonce<aes_gcm::aead::consts::U12>, Error> {
        self.home.require()?;
        let mut nonce = self.base_nonce;
        for (byte, count) in nonce[AEAD_NONCE_BYTES - 8..].iter_mut().zip(self.frames.to_be_bytes()) {
            *byte ^= count;
        }
        // No message reaches 2^64 frames.
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

/// Seals one response on the server.
pub struct ResponseSealer {
    response_nonce: [u8; RESPONSE_NONCE_BYTES],
    cipher: Box<CountingCipher>,
}

impl ResponseSealer {
    pub(crate) fn new(
        context: &impl ExportSecret,
        encapsulated_key: &[u8; ENCAPSULATED_KEY_BYTES],
    ) -> Result<Self, Error> {
        let mut response_nonce = [0; RESPONSE_NONCE_BYTES];
        getrandom::fill(&mut response_nonce)?;
        let cipher = CountingCipher::derive(context, encapsulated_key, &response_nonce)?;
        Ok(Self { response_nonce, cipher })
    }

    /// Returns the value of the response's header `Ehbp-Response-Nonce`.
    pub fn response_nonce(&self) -> &[u8; RESPONSE_NONCE_BYTES] {
        &self.response_nonce
    }

    /// Returns the length of what [`seal`](Self::seal) makes of `plaintext_bytes` bytes.
    pub fn sealed_bytes(plaintext_bytes: usize) -> usize {
        sealed_bytes(plaintext_bytes)
    }

    /// Seals the next piece of the body into `sealed`, whose length [`sealed_bytes`](Self::sealed_bytes) tells.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`] if `sealed` has another length; [`Error::KeyErased`] in a forked child.
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
    pub(crate) fn new(
        context: &impl ExportSecret,
        encapsulated_key: &[u8; ENCAPSULATED_KEY_BYTES],
        response_nonce: &[u8],
        max_frame_bytes: usize,
    ) -> Result<Self, Error> {
        let response_nonce = response_nonce.try_into().map_err(|_| Error::MalformedMessage)?;
        let cipher = CountingCipher::derive(context, encapsulated_key, response_nonce)?;
        Ok(Self { cipher, frames: FrameReader::new(max_frame_bytes) })
    }

    /// Returns how many bytes [`feed`](Self::feed) would open, at most, of a next piece of this length: none where it
    /// completes no frame.
    pub fn bytes_to_open(&self, piece_bytes: usize) -> usize {
        self.frames.bytes_to_open(piece_bytes)
    }

    /// Takes the next piece of the sealed body and appends the plaintext of the frames that it completes to
    /// `plaintext`.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`], [`Error::FrameTooLarge`]; [`Error::KeyErased`] in a forked child. Do not read the
    /// body further then.
    pub fn feed(&mut self, piece: &[u8], plaintext: &mut Vec<u8>) -> Result<(), Error> {
        let Self { cipher, frames } = self;
        frames.feed(piece, |frame| {
            let opened_before = plaintext.len();
            open_frame(cipher.as_mut(), frame, plaintext)?;
            Ok(plaintext.len() - opened_before)
        })
    }

    /// Checks that the body may end here.
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

    struct KnownSecret;

    impl ExportSecret for KnownSecret {
        fn export(&self, _label: &[u8], secret: &mut [u8]) -> Result<(), Error> {
            secret.fill(0x11);
            Ok(())
        }
    }

    #[test]
    fn each_frame_is_sealed_under_the_base_nonce_with_its_number_in_the_last_bytes() {
        let (encapsulated_key, response_nonce) = ([0x22; 32], [0x33; 32]);
        let mut counting = CountingCipher::derive(&KnownSecret, &encapsulated_key, &response_nonce).unwrap();
        let keys = ResponseKeys::derive(&KnownSecret, &encapsulated_key, &response_nonce).unwrap();
        let plain = Aes256Gcm::new_from_slice(keys.key.as_slice()).unwrap();
        for number in 0..300_u16 {
            let mut nonce = keys.base_nonce;
            for (byte, count) in nonce[10..].iter_mut().zip(number.to_be_bytes()) {
                *byte ^= count;
            }
            let mut expected = *b"hello";
            let tag = plain.encrypt_inout_detached(&nonce.into(), &[], expected.as_mut_slice().into()).unwrap();
            let mut sealed = [0; 25];
            seal_frames(counting.as_mut(), b"hello", &mut sealed).unwrap();
            assert_eq!(sealed, [[0, 0, 0, 21].as_slice(), &expected, &tag].concat()[..]);
        }
    }
}
