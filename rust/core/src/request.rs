//! EHBP requests: bodies sealed with HPKE (RFC 9180, base mode) to a key that the server publishes.

use std::borrow::Borrow;

use curve25519_dalek::MontgomeryPoint;
use hpke::aead::{AeadCtxR, AeadCtxS, AeadTag, AesGcm256};
use hpke::inout::InOutBuf;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};

use crate::arena::HomeProcess;
use crate::drawn_bytes::DrawnBytes;
use crate::error::Error;
use crate::frame::{FrameReader, OpenFrame, SealFrame, TAG_BYTES, open_frame, seal_frames, sealed_bytes};
use crate::key_pair::{KeyPair, PUBLIC_KEY_BYTES};
use crate::no_trace::{TracesWiped, boxed_without_trace};
use crate::response::{ResponseOpener, ResponseSealer};
use crate::response_keys::{ENCAPSULATED_KEY_BYTES, ExportSecret};

const INFO: &[u8] = b"ehbp request";

type Receiver = AeadCtxR<AesGcm256, HkdfSha256, X25519HkdfSha256>;
type Sender = AeadCtxS<AesGcm256, HkdfSha256, X25519HkdfSha256>;
type EncapsulatedKey = <X25519HkdfSha256 as Kem>::EncappedKey;

impl SealFrame for Sender {
    fn seal(&mut self, plaintext_to_ciphertext: InOutBuf<'_, '_, u8>) -> Result<[u8; TAG_BYTES], Error> {
        let tag = self.seal_inout_detached(plaintext_to_ciphertext, &[]).map_err(|_| Error::MalformedMessage)?;
        let mut tag_bytes = [0; TAG_BYTES];
        tag.write_exact(&mut tag_bytes);
        Ok(tag_bytes)
    }
}

impl OpenFrame for Receiver {
    fn open(&mut self, ciphertext_to_plaintext: InOutBuf<'_, '_, u8>, tag: &[u8; TAG_BYTES]) -> Result<(), Error> {
        let tag = AeadTag::from_bytes(tag).map_err(|_| Error::MalformedMessage)?;
        self.open_inout_detached(ciphertext_to_plaintext, &[], &tag).map_err(|_| Error::MalformedMessage)
    }
}

impl ExportSecret for Sender {
    fn export(&self, label: &[u8], secret: &mut [u8]) -> Result<(), Error> {
        AeadCtxS::export(self, label, secret).map_err(|_| Error::MalformedMessage)
    }
}

impl ExportSecret for Receiver {
    fn export(&self, label: &[u8], secret: &mut [u8]) -> Result<(), Error> {
        AeadCtxR::export(self, label, secret).map_err(|_| Error::MalformedMessage)
    }
}

/// Opens one request on the server.
///
/// The first frame tells which of the accepted keys the request is sealed to. After it no private key is needed, so
/// erasing one cannot hurt a request in flight.
pub struct RequestOpener<K> {
    home: HomeProcess,
    encapsulated_key: [u8; ENCAPSULATED_KEY_BYTES],
    accepted: Vec<K>,
    receiver: Option<Box<Receiver>>,
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
            receiver: None,
            frames: FrameReader::new(max_frame_bytes),
            _traces: TracesWiped,
        })
    }

    /// Says whether the first frame is opened: then the request is authentic so far, and a response can be sealed.
    pub fn is_opened(&self) -> bool {
        self.receiver.is_some()
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
    /// [`Error::KeyMismatch`] if the first frame opens under no accepted key; [`Error::MalformedMessage`],
    /// [`Error::FrameTooLarge`]; [`Error::KeyErased`] in a forked child. Do not read the body further then.
    pub fn feed(&mut self, piece: &[u8], plaintext: &mut Vec<u8>) -> Result<(), Error> {
        let Self { home, encapsulated_key, accepted, receiver, frames, .. } = self;
        home.require()?;
        frames.feed(piece, |frame| {
            let opened_before = plaintext.len();
            match receiver {
                Some(receiver) => open_frame(receiver.as_mut(), frame, plaintext)?,
                None => {
                    *receiver = Some(open_first_frame(encapsulated_key, accepted, frame, plaintext)?);
                    accepted.clear();
                }
            }
            Ok(plaintext.len() - opened_before)
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
        let receiver = self.receiver.as_deref().ok_or(Error::RequestNotOpened)?;
        ResponseSealer::new(receiver, &self.encapsulated_key)
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
    plaintext: &mut Vec<u8>,
) -> Result<Box<Receiver>, Error> {
    if frame.len() < TAG_BYTES {
        return Err(Error::MalformedMessage);
    }
    let encapsulated_key = EncapsulatedKey::from_bytes(encapsulated_key).map_err(|_| Error::MalformedMessage)?;
    for key_pair in accepted {
        let receiver = key_pair.borrow().private_key().read(|scalar| {
            boxed_without_trace(|| {
                let private_key = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(scalar)?;
                hpke::setup_receiver(&OpModeR::Base, &private_key, &encapsulated_key, INFO)
            })
        });
        match receiver {
            Ok(Ok(mut receiver)) => {
                if open_frame(receiver.as_mut(), frame, plaintext).is_ok() {
                    return Ok(receiver);
                }
            }
            // The encapsulated key is a point of small order. It fails with every key.
            Ok(Err(_)) => return Err(Error::MalformedMessage),
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
    sender: Box<Sender>,
    _traces: TracesWiped,
}

impl RequestSealer {
    /// Agrees on keys with the owner of `public_key`.
    ///
    /// # Errors
    /// [`Error::PublicKeyLength`], [`Error::PublicKeySmallOrder`], [`Error::Entropy`].
    pub fn new(public_key: &[u8]) -> Result<Self, Error> {
        if public_key.len() != PUBLIC_KEY_BYTES {
            return Err(Error::PublicKeyLength(public_key.len()));
        }
        let home = HomeProcess::current()?;
        let mut key_material = DrawnBytes::none_yet();
        key_material.draw()?;
        let mut encapsulated_key = [0; ENCAPSULATED_KEY_BYTES];
        let sender = boxed_without_trace(|| {
            let public_key = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(public_key)?;
            let (encapsulated, sender): (EncapsulatedKey, Sender) =
                hpke::setup_sender_with_rng(&OpModeS::Base, &public_key, INFO, &mut key_material)?;
            encapsulated.write_exact(&mut encapsulated_key);
            Ok::<_, hpke::HpkeError>(sender)
        })
        .map_err(|_| Error::PublicKeySmallOrder)?;
        Ok(Self { home, encapsulated_key, sender, _traces: TracesWiped })
    }

    /// Returns the value of the request's header `Ehbp-Encapsulated-Key`.
    pub fn encapsulated_key(&self) -> &[u8; ENCAPSULATED_KEY_BYTES] {
        &self.encapsulated_key
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
        self.home.require()?;
        seal_frames(self.sender.as_mut(), plaintext, sealed)
    }

    /// Makes the opener of the response whose header carried `response_nonce`.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`] unless the nonce has 32 bytes.
    pub fn response_opener(&self, response_nonce: &[u8], max_frame_bytes: usize) -> Result<ResponseOpener, Error> {
        self.home.require()?;
        ResponseOpener::new(self.sender.as_ref(), &self.encapsulated_key, response_nonce, max_frame_bytes)
    }
}
