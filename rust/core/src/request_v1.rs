//! Requests of the wire's version 1: HPKE in base mode with X-Wing, a sealed head, and a body that shows when it is cut.

use std::mem::MaybeUninit;

use zeroize::Zeroizing;

use crate::arena::HomeProcess;
use crate::error::Error;
use crate::frame::sealed_bytes;
use crate::key_schedule::MessageSecrets;
use crate::no_trace::{TracesWiped, boxed_without_deep_trace, boxed_without_trace, without_trace};
use crate::primitives::TAG_BYTES;
use crate::request_context::RequestContext;
use crate::response_v1::{ResponseOpenerV1, ResponseSealerV1};
use crate::whole_body::{Sealed, WholeBody, last_sealed_bytes, open_head};
use crate::writer::filled;
use crate::xwing::{RANDOMNESS_BYTES, XWING_ENCAPSULATED_KEY_BYTES, XWingPublicKey};
use crate::xwing_key_pair::XWingKeyPair;

/// The length of the number by which a server knows a request again.
pub const REPLAY_ID_BYTES: usize = 8;

const INFO: &[u8] = b"server-keys request v1";
const RESPONSE_LABEL: &[u8] = b"server-keys response v1";
const REPLAY_LABEL: &[u8] = b"server-keys replay v1";

/// Opens one request on the server. Its head is opened at once; after that no private key is needed.
pub struct RequestOpenerV1 {
    home: HomeProcess,
    encapsulated_key: Box<[u8; XWING_ENCAPSULATED_KEY_BYTES]>,
    context: Box<RequestContext>,
    head: Zeroizing<Vec<u8>>,
    replay_id: [u8; REPLAY_ID_BYTES],
    body: WholeBody,
    _traces: TracesWiped,
}

impl RequestOpenerV1 {
    /// Opens the head of a request. It costs one trial, whoever sent it.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`] unless the encapsulated key has 1,120 bytes and the sealed head 16 or more, or if the
    /// X25519 half of the encapsulated key is a point of small order; [`Error::KeyMismatch`] if the head does not open
    /// under this key pair, or the pair was erased or belongs to the process that this one was forked from;
    /// [`Error::OutOfMemory`].
    pub fn new(
        encapsulated_key: &[u8],
        sealed_head: &[u8],
        key_pair: &XWingKeyPair,
        max_frame_bytes: usize,
    ) -> Result<Self, Error> {
        let home = HomeProcess::current()?;
        let encapsulated_key: Box<[u8; XWING_ENCAPSULATED_KEY_BYTES]> =
            Box::new(encapsulated_key.try_into().map_err(|_| Error::MalformedMessage)?);
        if sealed_head.len() < TAG_BYTES {
            return Err(Error::MalformedMessage);
        }
        let secrets = key_pair.seed().read(|seed| {
            boxed_without_deep_trace(|| {
                let mut shared_secret = Zeroizing::new([0; 32]);
                key_pair.decapsulate(seed, &encapsulated_key, &mut shared_secret)?;
                MessageSecrets::of_xwing(&shared_secret, INFO, None)
            })
        });
        let mut context = match secrets {
            Ok(Ok(secrets)) => context_of(&secrets)?,
            Ok(Err(Error::PublicKeySmallOrder)) => return Err(Error::MalformedMessage),
            Ok(Err(error)) => return Err(error),
            // The key pair was erased after the request arrived, so it is no longer accepted.
            Err(_) => return Err(Error::KeyMismatch),
        };
        let head = open_head(&mut context.cipher, sealed_head).map_err(|error| match error {
            Error::MalformedMessage => Error::KeyMismatch,
            other => other,
        })?;
        let mut replay_id = [0; REPLAY_ID_BYTES];
        without_trace(|| context.export(REPLAY_LABEL, &mut replay_id))?;
        let (head, body) = (Zeroizing::new(head), WholeBody::new(max_frame_bytes));
        Ok(Self { home, encapsulated_key, context, head, replay_id, body, _traces: TracesWiped })
    }

    /// Returns what the client sealed as the head.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Returns the number of this request: whoever sends it once more cannot change it.
    pub fn replay_id(&self) -> &[u8; REPLAY_ID_BYTES] {
        &self.replay_id
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

    /// Returns how much memory is taken for the part of a frame that has arrived, or kept for those that follow.
    pub fn held_bytes(&self) -> usize {
        self.body.held_bytes()
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
        self.home.require()?;
        self.body.feed_into(&mut self.context.cipher, piece, plaintext)
    }

    /// Checks that the body is whole.
    ///
    /// # Errors
    /// [`Error::MissingEnd`] if its end frame did not come; [`Error::MalformedMessage`] after a fault.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.body.finish()
    }

    /// Makes the sealer of the response to this request.
    ///
    /// # Errors
    /// [`Error::Entropy`], [`Error::OutOfMemory`]; [`Error::KeyErased`] in a forked child.
    pub fn response_sealer(&self) -> Result<ResponseSealerV1, Error> {
        self.home.require()?;
        ResponseSealerV1::new(&self.context, self.encapsulated_key.as_slice())
    }
}

/// Makes the context where no trace of the key pair is left on the stack. An expanded AES key has bytes that were never
/// written, and keeps in them what lay there.
fn context_of(secrets: &MessageSecrets) -> Result<Box<RequestContext>, Error> {
    boxed_without_trace(|| RequestContext::new(secrets, RESPONSE_LABEL))
}

/// Seals one request on the client, and opens the response to it.
pub struct RequestSealerV1 {
    home: HomeProcess,
    encapsulated_key: Box<[u8; XWING_ENCAPSULATED_KEY_BYTES]>,
    context: Box<RequestContext>,
    sealed: Sealed,
    _traces: TracesWiped,
}

impl RequestSealerV1 {
    /// Agrees on keys with the owner of `public_key`.
    ///
    /// # Errors
    /// Those of [`XWingPublicKey::new`] and of [`to`](Self::to).
    pub fn new(public_key: &[u8]) -> Result<Self, Error> {
        Self::to(&XWingPublicKey::new(public_key)?)
    }

    /// Agrees on keys with the owner of a public key that is ready for many messages.
    ///
    /// # Errors
    /// [`Error::PublicKeySmallOrder`], [`Error::Entropy`], [`Error::OutOfMemory`].
    pub fn to(public_key: &XWingPublicKey) -> Result<Self, Error> {
        let home = HomeProcess::current()?;
        let mut encapsulated_key = Box::new([0; XWING_ENCAPSULATED_KEY_BYTES]);
        let secrets = boxed_without_deep_trace(|| {
            let mut randomness = Zeroizing::new([0; RANDOMNESS_BYTES]);
            getrandom::fill(randomness.as_mut_slice())?;
            let mut shared_secret = Zeroizing::new([0; 32]);
            public_key.encapsulate(&randomness, &mut encapsulated_key, &mut shared_secret)?;
            MessageSecrets::of_xwing(&shared_secret, INFO, None)
        })?;
        let context = context_of(&secrets)?;
        Ok(Self { home, encapsulated_key, context, sealed: Sealed::Nothing, _traces: TracesWiped })
    }

    /// Returns what the server needs to agree on the same keys.
    pub fn encapsulated_key(&self) -> &[u8; XWING_ENCAPSULATED_KEY_BYTES] {
        &self.encapsulated_key
    }

    /// Seals the head, which comes first and once. It gets 16 bytes longer.
    ///
    /// # Errors
    /// [`Error::SealedOutOfOrder`], [`Error::OutOfMemory`]; [`Error::KeyErased`] in a forked child.
    pub fn seal_head(&mut self, head: &[u8]) -> Result<Vec<u8>, Error> {
        self.sealed.seal_head(&mut self.context.cipher, head)
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
        self.sealed.seal(&mut self.context.cipher, plaintext)
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
        self.sealed.seal_into(&mut self.context.cipher, plaintext, max_frame_bytes, sealed)
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
        self.sealed.seal_last_into(&mut self.context.cipher, plaintext, max_frame_bytes, sealed)
    }

    /// Seals the end frame of the body.
    ///
    /// # Errors
    /// [`Error::SealedOutOfOrder`], [`Error::OutOfMemory`]; [`Error::KeyErased`] in a forked child.
    pub fn seal_end(&mut self) -> Result<Vec<u8>, Error> {
        self.sealed.seal_end(&mut self.context.cipher)
    }

    /// Makes the opener of the response with this nonce and head.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`] unless the nonce has 32 bytes and the head opens; [`Error::OutOfMemory`];
    /// [`Error::KeyErased`] in a forked child.
    pub fn response_opener(
        &self,
        response_nonce: &[u8],
        sealed_head: &[u8],
        max_frame_bytes: usize,
    ) -> Result<ResponseOpenerV1, Error> {
        self.home.require()?;
        let encapsulated_key = self.encapsulated_key.as_slice();
        ResponseOpenerV1::new(&self.context, encapsulated_key, response_nonce, sealed_head, max_frame_bytes)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::response_v1::ResponseOpenerV1;

    #[derive(Deserialize)]
    struct Vectors {
        messages: Vec<Message>,
    }

    #[derive(Deserialize)]
    struct Message {
        seed: String,
        public_key: String,
        encapsulated_key: String,
        head: String,
        sealed_head: String,
        replay_id: String,
        pieces: Vec<String>,
        body: String,
        exported: String,
        response_nonce: String,
        response_head: String,
        sealed_response_head: String,
        response_pieces: Vec<String>,
        response_body: String,
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|index| u8::from_str_radix(&hex[index..index + 2], 16).unwrap()).collect()
    }

    fn check(vectors: &str, count: usize) {
        let Vectors { messages } = serde_json::from_str(vectors).unwrap();
        assert_eq!(messages.len(), count);
        for known in messages {
            let pair = XWingKeyPair::from_seed(&bytes(&known.seed)).unwrap();
            assert_eq!(pair.public_key().as_slice(), bytes(&known.public_key));
            let encapsulated_key = bytes(&known.encapsulated_key);
            let mut opener =
                RequestOpenerV1::new(&encapsulated_key, &bytes(&known.sealed_head), &pair, 100_000).unwrap();
            assert_eq!(opener.head(), bytes(&known.head));
            assert_eq!(opener.replay_id().as_slice(), bytes(&known.replay_id));
            assert_eq!(opener.feed(&bytes(&known.body)).unwrap(), bytes(&known.pieces.concat()));
            assert_eq!(opener.finish(), Ok(()));
            assert_eq!(opener.context.response_secret().unwrap().as_slice(), bytes(&known.exported));
            let (nonce, head) = (bytes(&known.response_nonce), bytes(&known.sealed_response_head));
            let mut response =
                ResponseOpenerV1::new(&opener.context, &encapsulated_key, &nonce, &head, 100_000).unwrap();
            assert_eq!(response.head(), bytes(&known.response_head));
            assert_eq!(response.feed(&bytes(&known.response_body)).unwrap(), bytes(&known.response_pieces.concat()));
            assert_eq!(response.finish(), Ok(()));
        }
    }

    #[test]
    fn messages_of_other_implementations_open() {
        check(include_str!("../../../tests/vectors/wire_v1.json"), 3);
        check(include_str!("../../../tests/vectors/wire_v1_go.json"), 2);
    }
}
