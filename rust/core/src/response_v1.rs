//! Responses of the wire's version 1: AES-256-GCM under keys of the request, a sealed head, and a body that shows when it is
//! cut.

use std::mem::MaybeUninit;

use zeroize::Zeroizing;

use crate::counting_cipher::CountingCipher;
use crate::error::Error;
use crate::frame::sealed_bytes;
use crate::request_context::RequestContext;
use crate::response::derive_cipher;
use crate::response_keys::RESPONSE_NONCE_BYTES;
use crate::whole_body::{Sealed, WholeBody, last_sealed_bytes, open_head};
use crate::writer::filled;

/// Seals one response on the server.
pub struct ResponseSealerV1 {
    response_nonce: [u8; RESPONSE_NONCE_BYTES],
    cipher: Box<CountingCipher>,
    sealed: Sealed,
}

impl ResponseSealerV1 {
    pub(crate) fn new(context: &RequestContext, encapsulated_key: &[u8]) -> Result<Self, Error> {
        let mut response_nonce = [0; RESPONSE_NONCE_BYTES];
        getrandom::fill(&mut response_nonce)?;
        let cipher = derive_cipher(context, encapsulated_key, &response_nonce)?;
        Ok(Self { response_nonce, cipher, sealed: Sealed::Nothing })
    }

    /// Returns the nonce that the client needs.
    pub fn response_nonce(&self) -> &[u8; RESPONSE_NONCE_BYTES] {
        &self.response_nonce
    }

    /// Seals the head, which comes first and once. It gets 16 bytes longer.
    ///
    /// # Errors
    /// [`Error::SealedOutOfOrder`], [`Error::OutOfMemory`]; [`Error::KeyErased`] in a forked child.
    pub fn seal_head(&mut self, head: &[u8]) -> Result<Vec<u8>, Error> {
        self.sealed.seal_head(&mut self.cipher, head)
    }

    /// Returns the length of what [`seal_into`](Self::seal_into) makes of `plaintext_bytes` bytes.
    pub fn sealed_bytes(plaintext_bytes: usize, max_frame_bytes: usize) -> usize {
        sealed_bytes(plaintext_bytes, max_frame_bytes)
    }

    /// Returns the length of what [`seal_last_into`](Self::seal_last_into) makes of `plaintext_bytes` bytes.
    pub fn last_sealed_bytes(plaintext_bytes: usize, max_frame_bytes: usize) -> usize {
        last_sealed_bytes(plaintext_bytes, max_frame_bytes)
    }

    /// Seals the next piece of the body. An empty piece has no frame.
    ///
    /// # Errors
    /// [`Error::SealedOutOfOrder`], [`Error::OutOfMemory`]; [`Error::KeyErased`] in a forked child.
    pub fn seal(&mut self, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        self.sealed.seal(&mut self.cipher, plaintext)
    }

    /// Seals the next piece of the body in frames of at most `max_frame_bytes`, tag included (from 17 bytes to 16 MiB; others
    /// count as the nearest), into `sealed`, whose length [`sealed_bytes`](Self::sealed_bytes) tells. Returns it, all of it
    /// written.
    ///
    /// # Errors
    /// [`Error::SealedOutOfOrder`], [`Error::BufferLength`]; [`Error::KeyErased`] in a forked child.
    pub fn seal_into<'a>(
        &mut self,
        plaintext: &[u8],
        max_frame_bytes: usize,
        sealed: &'a mut [MaybeUninit<u8>],
    ) -> Result<&'a mut [u8], Error> {
        self.sealed.seal_into(&mut self.cipher, plaintext, max_frame_bytes, sealed)
    }

    /// Does the same with the last piece of the body and its end frame, into as many bytes as
    /// [`last_sealed_bytes`](Self::last_sealed_bytes) tells.
    ///
    /// # Errors
    /// As [`seal_into`](Self::seal_into).
    pub fn seal_last_into<'a>(
        &mut self,
        plaintext: &[u8],
        max_frame_bytes: usize,
        sealed: &'a mut [MaybeUninit<u8>],
    ) -> Result<&'a mut [u8], Error> {
        self.sealed.seal_last_into(&mut self.cipher, plaintext, max_frame_bytes, sealed)
    }

    /// Seals the end frame of the body.
    ///
    /// # Errors
    /// [`Error::SealedOutOfOrder`], [`Error::OutOfMemory`]; [`Error::KeyErased`] in a forked child.
    pub fn seal_end(&mut self) -> Result<Vec<u8>, Error> {
        self.sealed.seal_end(&mut self.cipher)
    }
}

/// Opens one response on the client.
pub struct ResponseOpenerV1 {
    cipher: Box<CountingCipher>,
    head: Zeroizing<Vec<u8>>,
    body: WholeBody,
}

impl ResponseOpenerV1 {
    pub(crate) fn new(
        context: &RequestContext,
        encapsulated_key: &[u8],
        response_nonce: &[u8],
        sealed_head: &[u8],
        max_frame_bytes: usize,
    ) -> Result<Self, Error> {
        let response_nonce = response_nonce.try_into().map_err(|_| Error::MalformedMessage)?;
        let mut cipher = derive_cipher(context, encapsulated_key, response_nonce)?;
        let head = Zeroizing::new(open_head(&mut cipher, sealed_head)?);
        Ok(Self { cipher, head, body: WholeBody::new(max_frame_bytes) })
    }

    /// Returns what the server sealed as the head.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Says whether the end frame came, or [`expect_no_body`](Self::expect_no_body) was called.
    pub fn is_ended(&self) -> bool {
        self.body.is_ended()
    }

    /// Says that the head announces no body.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`] if some of one came already.
    pub fn expect_no_body(&mut self) -> Result<(), Error> {
        self.body.expect_none()
    }

    /// Returns how many bytes [`feed`](Self::feed) would open, at most, of a next piece of this length: none where it
    /// completes no frame.
    pub fn bytes_to_open(&self, piece_bytes: usize) -> usize {
        self.body.bytes_to_open(piece_bytes)
    }

    /// Returns the length of what [`feed`](Self::feed) makes of the next piece.
    pub fn plaintext_bytes(&self, piece: &[u8]) -> usize {
        self.body.plaintext_bytes(piece)
    }

    /// Takes the next piece of the sealed body and returns the plaintext of the frames that it completes.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`], also for any byte after the end; [`Error::FrameTooLarge`], [`Error::OutOfMemory`];
    /// [`Error::KeyErased`] in a forked child. Then the body is not whole, and nothing more of it is opened.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Vec<u8>, Error> {
        filled(self.plaintext_bytes(piece), |plaintext| self.feed_into(piece, plaintext))
    }

    /// Does the same to `plaintext`, whose length [`plaintext_bytes`](Self::plaintext_bytes) tells. Returns it, all of it
    /// written. On failure it keeps nothing that was decrypted.
    ///
    /// # Errors
    /// As [`feed`](Self::feed); [`Error::BufferLength`], and then the piece is not taken.
    pub fn feed_into<'a>(&mut self, piece: &[u8], plaintext: &'a mut [MaybeUninit<u8>]) -> Result<&'a mut [u8], Error> {
        self.body.feed_into(&mut self.cipher, piece, plaintext)
    }

    /// Checks that the body is whole.
    ///
    /// # Errors
    /// [`Error::MissingEnd`] if its end frame did not come; [`Error::MalformedMessage`] after a fault.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.body.finish()
    }
}
