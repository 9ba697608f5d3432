//! EHBP responses: AES-256-GCM under the keys that both sides derive from the request.

use std::mem::MaybeUninit;

use crate::arena::HomeProcess;
use crate::counting_cipher::CountingCipher;
use crate::error::Error;
use crate::frame::{DEFAULT_MAX_FRAME_BYTES, FrameReader, open_frame, seal_frames, sealed_bytes};
use crate::no_trace::boxed_without_trace;
use crate::request_context::RequestContext;
use crate::response_keys::{ENCAPSULATED_KEY_BYTES, RESPONSE_NONCE_BYTES, ResponseKeys};
use crate::writer::filled;

/// Makes the cipher of the response that carries `response_nonce`.
pub(crate) fn derive_cipher(
    context: &RequestContext,
    encapsulated_key: &[u8],
    response_nonce: &[u8; RESPONSE_NONCE_BYTES],
) -> Result<Box<CountingCipher>, Error> {
    let home = HomeProcess::current()?;
    boxed_without_trace(|| {
        let secret = context.response_secret()?;
        let keys = ResponseKeys::derive(&secret, encapsulated_key, response_nonce)?;
        Ok(CountingCipher::new(home, &keys.key, keys.base_nonce))
    })
}

/// Seals one response on the server.
pub struct ResponseSealer {
    response_nonce: [u8; RESPONSE_NONCE_BYTES],
    cipher: Box<CountingCipher>,
}

impl ResponseSealer {
    pub(crate) fn new(
        context: &RequestContext,
        encapsulated_key: &[u8; ENCAPSULATED_KEY_BYTES],
    ) -> Result<Self, Error> {
        let mut response_nonce = [0; RESPONSE_NONCE_BYTES];
        getrandom::fill(&mut response_nonce)?;
        let cipher = derive_cipher(context, encapsulated_key, &response_nonce)?;
        Ok(Self { response_nonce, cipher })
    }

    /// Returns the value of the response's header `Ehbp-Response-Nonce`.
    pub fn response_nonce(&self) -> &[u8; RESPONSE_NONCE_BYTES] {
        &self.response_nonce
    }

    /// Returns the length of what [`seal_into`](Self::seal_into) makes of `plaintext_bytes` bytes.
    pub fn sealed_bytes(plaintext_bytes: usize, max_frame_bytes: usize) -> usize {
        sealed_bytes(plaintext_bytes, max_frame_bytes)
    }

    /// Seals the next piece of the body.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::KeyErased`] in a forked child.
    pub fn seal(&mut self, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        let max_frame_bytes = DEFAULT_MAX_FRAME_BYTES;
        filled(sealed_bytes(plaintext.len(), max_frame_bytes), |sealed| {
            self.seal_into(plaintext, max_frame_bytes, sealed)
        })
    }

    /// Seals the next piece of the body in frames of at most `max_frame_bytes`, tag included (from 17 bytes to 16 MiB; others
    /// count as the nearest), into `sealed`, whose length [`sealed_bytes`](Self::sealed_bytes) tells. Returns it, all of it
    /// written.
    ///
    /// # Errors
    /// [`Error::BufferLength`]; [`Error::KeyErased`] in a forked child.
    pub fn seal_into<'a>(
        &mut self,
        plaintext: &[u8],
        max_frame_bytes: usize,
        sealed: &'a mut [MaybeUninit<u8>],
    ) -> Result<&'a mut [u8], Error> {
        seal_frames(&mut self.cipher, plaintext, max_frame_bytes, sealed)
    }
}

/// Opens one response on the client.
pub struct ResponseOpener {
    cipher: Box<CountingCipher>,
    frames: FrameReader,
}

impl ResponseOpener {
    pub(crate) fn new(
        context: &RequestContext,
        encapsulated_key: &[u8; ENCAPSULATED_KEY_BYTES],
        response_nonce: &[u8],
        max_frame_bytes: usize,
    ) -> Result<Self, Error> {
        let response_nonce = response_nonce.try_into().map_err(|_| Error::MalformedMessage)?;
        let cipher = derive_cipher(context, encapsulated_key, response_nonce)?;
        Ok(Self { cipher, frames: FrameReader::new(max_frame_bytes) })
    }

    /// Returns how many bytes [`feed`](Self::feed) would open, at most, of a next piece of this length: none where it
    /// completes no frame.
    pub fn bytes_to_open(&self, piece_bytes: usize) -> usize {
        self.frames.bytes_to_open(piece_bytes)
    }

    /// Returns the length of what [`feed`](Self::feed) makes of the next piece.
    pub fn plaintext_bytes(&self, piece: &[u8]) -> usize {
        self.frames.plaintext_bytes(piece)
    }

    /// Takes the next piece of the sealed body and returns the plaintext of the frames that it completes.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`], [`Error::FrameTooLarge`], [`Error::OutOfMemory`]; [`Error::KeyErased`] in a forked
    /// child. Do not read the body further then.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Vec<u8>, Error> {
        filled(self.plaintext_bytes(piece), |plaintext| self.feed_into(piece, plaintext))
    }

    /// Does the same to `plaintext`, whose length [`plaintext_bytes`](Self::plaintext_bytes) tells. Returns it, all of it
    /// written. On failure it keeps nothing that was decrypted.
    ///
    /// # Errors
    /// As [`feed`](Self::feed); [`Error::BufferLength`], and then the piece is not taken.
    pub fn feed_into<'a>(&mut self, piece: &[u8], plaintext: &'a mut [MaybeUninit<u8>]) -> Result<&'a mut [u8], Error> {
        let Self { cipher, frames } = self;
        frames.feed_into(piece, plaintext, |frame, plaintext| open_frame(cipher, frame, plaintext))
    }

    /// Checks that the body may end here.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`] inside a frame.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.frames.finish()
    }
}
