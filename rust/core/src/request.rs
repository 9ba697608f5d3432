//! EHBP requests: bodies sealed with HPKE (RFC 9180, base mode) to a key that the server publishes.

use std::borrow::Borrow;
use std::mem::MaybeUninit;

use curve25519_dalek::MontgomeryPoint;

use crate::arena::HomeProcess;
use crate::error::Error;
use crate::frame::{DEFAULT_MAX_FRAME_BYTES, FrameReader, open_frame, seal_frames, sealed_bytes};
use crate::key_pair::{KeyPair, PUBLIC_KEY_BYTES};
use crate::key_schedule::{MessageSecrets, Parties};
use crate::no_trace::{TracesWiped, boxed_without_trace};
use crate::primitives::TAG_BYTES;
use crate::request_context::RequestContext;
use crate::response::{ResponseOpener, ResponseSealer};
use crate::response_keys::ENCAPSULATED_KEY_BYTES;
use crate::writer::{Writer, filled};

const INFO: &[u8] = b"ehbp request";
const RESPONSE_LABEL: &[u8] = b"ehbp response";

/// Opens one request on the server.
///
/// The first frame tells which of the accepted keys the request is sealed to. After it no private key is needed, so
/// erasing one cannot hurt a request in flight.
pub struct RequestOpener<K> {
    home: HomeProcess,
    encapsulated_key: [u8; ENCAPSULATED_KEY_BYTES],
    accepted: Vec<K>,
    context: Option<Box<RequestContext>>,
    opened_by: Option<usize>,
    frames: FrameReader,
    _traces: TracesWiped,
}

impl<K: Borrow<KeyPair>> RequestOpener<K> {
    /// Prepares for a request whose header carried `encapsulated_key`. The keys in `accepted` are tried in their order.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`] unless the encapsulated key has 32 bytes.
    pub fn new(
        encapsulated_key: &[u8],
        accepted: impl IntoIterator<Item = K>,
        max_frame_bytes: usize,
    ) -> Result<Self, Error> {
        Ok(Self {
            home: HomeProcess::current()?,
            encapsulated_key: encapsulated_key.try_into().map_err(|_| Error::MalformedMessage)?,
            accepted: accepted.into_iter().collect(),
            context: None,
            opened_by: None,
            frames: FrameReader::new(max_frame_bytes),
            _traces: TracesWiped,
        })
    }

    /// Says whether the first frame is opened: then the request is authentic so far, and a response can be sealed.
    pub fn is_opened(&self) -> bool {
        self.context.is_some()
    }

    /// Returns which of the accepted keys the request is sealed to, from 0 on, once its first frame is opened.
    pub fn opened_by(&self) -> Option<usize> {
        self.opened_by
    }

    /// Returns how many bytes [`feed`](Self::feed) would open, at most, of a next piece of this length: none where it
    /// completes no frame.
    pub fn bytes_to_open(&self, piece_bytes: usize) -> usize {
        self.frames.bytes_to_open(piece_bytes)
    }

    /// Returns how much memory is taken for the part of a frame that has arrived, or kept for those that follow.
    pub fn held_bytes(&self) -> usize {
        self.frames.held_bytes()
    }

    /// Returns the length of what [`feed`](Self::feed) makes of the next piece.
    pub fn plaintext_bytes(&self, piece: &[u8]) -> usize {
        self.frames.plaintext_bytes(piece)
    }

    /// Takes the next piece of the sealed body and returns the plaintext of the frames that it completes.
    ///
    /// # Errors
    /// [`Error::KeyMismatch`] if the first frame opens under no accepted key; [`Error::MalformedMessage`],
    /// [`Error::FrameTooLarge`], [`Error::OutOfMemory`]; [`Error::KeyErased`] in a forked child. Do not read the body
    /// further then.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Vec<u8>, Error> {
        filled(self.plaintext_bytes(piece), |plaintext| self.feed_into(piece, plaintext))
    }

    /// Does the same to `plaintext`, whose length [`plaintext_bytes`](Self::plaintext_bytes) tells. Returns it, all of it
    /// written. On failure it keeps nothing that was decrypted.
    ///
    /// # Errors
    /// As [`feed`](Self::feed); [`Error::BufferLength`], and then the piece is not taken.
    pub fn feed_into<'a>(&mut self, piece: &[u8], plaintext: &'a mut [MaybeUninit<u8>]) -> Result<&'a mut [u8], Error> {
        let Self { home, encapsulated_key, accepted, context, opened_by, frames, .. } = self;
        home.require()?;
        frames.feed_into(piece, plaintext, |frame, plaintext| match context {
            Some(context) => open_frame(&mut context.cipher, frame, plaintext),
            None => {
                let (index, opened, content_bytes) = open_first_frame(encapsulated_key, accepted, frame, plaintext)?;
                (*opened_by, *context) = (Some(index), Some(opened));
                accepted.clear();
                Ok(content_bytes)
            }
        })
    }

    /// Checks that the request may have no body at all.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`] if the encapsulated key is a point of small order; no frame came that would show it.
    pub fn finish_without_body(&self) -> Result<(), Error> {
        if is_of_small_order(&self.encapsulated_key) { Err(Error::MalformedMessage) } else { Ok(()) }
    }

    /// Checks that the body may end here.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`] inside a frame, or before the first one.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.frames.finish()?;
        if self.is_opened() { Ok(()) } else { Err(Error::MalformedMessage) }
    }

    /// Makes the sealer of the response to this request.
    ///
    /// # Errors
    /// [`Error::RequestNotOpened`] before the first frame; [`Error::Entropy`].
    pub fn response_sealer(&self) -> Result<ResponseSealer, Error> {
        self.home.require()?;
        let context = self.context.as_deref().ok_or(Error::RequestNotOpened)?;
        ResponseSealer::new(context, &self.encapsulated_key)
    }
}

/// Says whether 8, the cofactor, times the point is the identity. Every exchange with such a point gives zeros.
fn is_of_small_order(public_key: &[u8; ENCAPSULATED_KEY_BYTES]) -> bool {
    MontgomeryPoint(*public_key).mul_bits_be([true, false, false, false].into_iter()) == MontgomeryPoint([0; 32])
}

fn open_first_frame(
    encapsulated_key: &[u8; ENCAPSULATED_KEY_BYTES],
    accepted: &[impl Borrow<KeyPair>],
    frame: &[u8],
    plaintext: &mut Writer<'_>,
) -> Result<(usize, Box<RequestContext>, usize), Error> {
    if frame.len() < TAG_BYTES {
        return Err(Error::MalformedMessage);
    }
    for (index, key_pair) in accepted.iter().map(Borrow::borrow).enumerate() {
        let parties = Parties { encapsulated_key, receiver: key_pair.public_key() };
        let context = key_pair.private_key().read(|scalar| {
            boxed_without_trace(|| {
                let secrets = MessageSecrets::of_receiver(scalar, &parties, INFO)?;
                RequestContext::new(&secrets, RESPONSE_LABEL)
            })
        });
        match context {
            Ok(Ok(mut context)) => {
                if let Ok(content_bytes) = open_frame(&mut context.cipher, frame, plaintext) {
                    return Ok((index, context, content_bytes));
                }
            }
            // The encapsulated key is a point of small order. It fails with every key.
            Ok(Err(Error::PublicKeySmallOrder)) => return Err(Error::MalformedMessage),
            Ok(Err(error)) => return Err(error),
            // The key was erased after the request began, so it is no longer accepted.
            Err(_) => {}
        }
    }
    Err(Error::KeyMismatch)
}

/// Seals one request on the client, and opens the response to it.
pub struct RequestSealer {
    home: HomeProcess,
    encapsulated_key: [u8; ENCAPSULATED_KEY_BYTES],
    context: Box<RequestContext>,
    _traces: TracesWiped,
}

impl RequestSealer {
    /// Agrees on keys with the owner of `public_key`.
    ///
    /// # Errors
    /// [`Error::PublicKeyLength`], [`Error::PublicKeySmallOrder`], [`Error::Entropy`], [`Error::OutOfMemory`].
    pub fn new(public_key: &[u8]) -> Result<Self, Error> {
        let receiver: &[u8; PUBLIC_KEY_BYTES] =
            public_key.try_into().map_err(|_| Error::PublicKeyLength(public_key.len()))?;
        let home = HomeProcess::current()?;
        let ephemeral = KeyPair::generate()?;
        let encapsulated_key = *ephemeral.public_key();
        let parties = Parties { encapsulated_key: &encapsulated_key, receiver };
        let context = ephemeral.private_key().read(|scalar| {
            boxed_without_trace(|| {
                let secrets = MessageSecrets::of_sender(scalar, &parties, INFO)?;
                RequestContext::new(&secrets, RESPONSE_LABEL)
            })
        })??;
        Ok(Self { home, encapsulated_key, context, _traces: TracesWiped })
    }

    /// Returns the value of the request's header `Ehbp-Encapsulated-Key`.
    pub fn encapsulated_key(&self) -> &[u8; ENCAPSULATED_KEY_BYTES] {
        &self.encapsulated_key
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
        self.home.require()?;
        seal_frames(&mut self.context.cipher, plaintext, max_frame_bytes, sealed)
    }

    /// Makes the opener of the response whose header carried `response_nonce`.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`] unless the nonce has 32 bytes.
    pub fn response_opener(&self, response_nonce: &[u8], max_frame_bytes: usize) -> Result<ResponseOpener, Error> {
        self.home.require()?;
        ResponseOpener::new(&self.context, &self.encapsulated_key, response_nonce, max_frame_bytes)
    }
}
