//! Boxes: private keys on their way from one member of a group to another, sealed with HPKE (RFC 9180, PSK mode).
//!
//! A box is sealed to a one-time key that its receiver made for it, and the receiver erases that key once it has opened
//! the box. So whoever records the box and later learns the group's secret opens nothing. The one-time key's kind decides on
//! the KEM of the box, X25519 or X-Wing, and on which keys it may hold.

use std::borrow::Borrow;

use hpke::aead::{AeadTag, AesGcm256};
use hpke::inout::InOutBuf;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, HpkeError, Kem, OpModeR, OpModeS, PskBundle, Serializable};
use zeroize::Zeroizing;

use crate::box_contents::{Delivery, SealedWith};
use crate::drawn_bytes::DrawnBytes;
use crate::error::Error;
use crate::group_keys::{GROUP_ID_BYTES, GroupKeys};
use crate::key_pair::{KeyPair, PUBLIC_KEY_BYTES};
use crate::no_trace::without_trace;
use crate::primitives::TAG_BYTES;
use crate::response_keys::ENCAPSULATED_KEY_BYTES;
use crate::xwing::XWING_PUBLIC_KEY_BYTES;
use crate::xwing_box;
use crate::xwing_key_pair::XWingKeyPair;

/// The length of the longest box that is opened.
pub const MAX_BOX_BYTES: usize = 16 * 1024;

const LABEL: &[u8] = b"server-keys box v1";
/// After so many boxes (0.5 ms, with X-Wing 0.6) other threads get a turn.
const BOXES_PER_TURN: usize = 8;

type EncapsulatedKey = <X25519HkdfSha256 as Kem>::EncappedKey;

/// The key pair that a box is sealed to.
pub enum OneTimeKey<'a> {
    /// Its box has X25519 pairs only.
    X25519(&'a KeyPair),
    /// Its box has both.
    XWing(&'a XWingKeyPair),
}

impl<'a> From<&'a KeyPair> for OneTimeKey<'a> {
    fn from(key_pair: &'a KeyPair) -> Self {
        Self::X25519(key_pair)
    }
}

impl<'a> From<&'a XWingKeyPair> for OneTimeKey<'a> {
    fn from(key_pair: &'a XWingKeyPair) -> Self {
        Self::XWing(key_pair)
    }
}

/// Seals `delivery` to each of the one-time public keys: with X25519 to one of 32 bytes, without the X-Wing pairs, and with
/// X-Wing to one of 1,216 bytes. There is no box for a key that nothing can be sealed to: one of another length, one with a
/// point of small order, or one that ML-KEM refuses.
///
/// # Errors
/// [`Error::EpochCount`]; [`Error::KeyErased`] if a private key was erased, or in a forked child; [`Error::Entropy`],
/// [`Error::OutOfMemory`].
pub fn seal_boxes<K: Borrow<KeyPair>, X: Borrow<XWingKeyPair>>(
    group: &GroupKeys,
    one_time_keys: &[&[u8]],
    delivery: &Delivery<K, X>,
) -> Result<Vec<Option<Vec<u8>>>, Error> {
    let without_xwing = delivery.to_bytes(SealedWith::X25519)?;
    let is_xwing = |one_time_key: &&[u8]| one_time_key.len() == XWING_PUBLIC_KEY_BYTES;
    let with_xwing = match one_time_keys.iter().any(is_xwing) {
        true => delivery.to_bytes(SealedWith::XWing)?,
        false => Zeroizing::default(),
    };
    let mut boxes = room_for(one_time_keys.len())?;
    for (index, &one_time_key) in one_time_keys.iter().enumerate() {
        boxes.push(if let Ok(one_time_key) = <&[u8; PUBLIC_KEY_BYTES]>::try_from(one_time_key) {
            seal_box(group, one_time_key, &without_xwing)?
        } else if let Ok(one_time_key) = <&[u8; XWING_PUBLIC_KEY_BYTES]>::try_from(one_time_key) {
            xwing_box::seal(group, one_time_key, &with_xwing)?
        } else {
            None
        });
        if index % BOXES_PER_TURN == BOXES_PER_TURN - 1 {
            std::thread::yield_now();
        }
    }
    Ok(boxes)
}

fn seal_box(
    group: &GroupKeys,
    one_time_key: &[u8; PUBLIC_KEY_BYTES],
    plaintext: &[u8],
) -> Result<Option<Vec<u8>>, Error> {
    let mut key_material = DrawnBytes::none_yet();
    key_material.draw()?;
    let mut sealed = Zeroizing::new(room_for(ENCAPSULATED_KEY_BYTES + plaintext.len() + TAG_BYTES)?);
    sealed.resize(ENCAPSULATED_KEY_BYTES, 0);
    let outcome = group.pre_shared_key().read(|pre_shared_key| {
        without_trace(|| {
            sealed.extend_from_slice(plaintext);
            let (encapsulated_key, plaintext_to_ciphertext) = sealed.split_at_mut(ENCAPSULATED_KEY_BYTES);
            let (encapsulated, tag): (EncapsulatedKey, AeadTag<AesGcm256>) =
                hpke::single_shot_seal_inout_detached_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
                    &OpModeS::Psk(PskBundle::new(pre_shared_key, group.id())?),
                    &Deserializable::from_bytes(one_time_key)?,
                    &info(group.id(), one_time_key),
                    InOutBuf::from(plaintext_to_ciphertext),
                    &[],
                    &mut key_material,
                )?;
            encapsulated.write_exact(encapsulated_key);
            sealed.extend_from_slice(&tag.to_bytes());
            Ok::<_, HpkeError>(())
        })
    })?;
    // The one-time key is a point of small order: nothing else makes it fail.
    Ok(outcome.is_ok().then(|| std::mem::take(&mut *sealed)))
}

/// Opens a box that a member of the group sealed to `one_time_key`.
///
/// # Errors
/// [`Error::MalformedMessage`] for whatever is wrong with the box; [`Error::KeyErased`] if the one-time key was erased,
/// or in a forked child; [`Error::OutOfMemory`].
pub fn open_box<'a>(
    group: &GroupKeys,
    one_time_key: impl Into<OneTimeKey<'a>>,
    sealed: &[u8],
) -> Result<Delivery<KeyPair, XWingKeyPair>, Error> {
    if sealed.len() > MAX_BOX_BYTES {
        return Err(Error::MalformedMessage);
    }
    let (opened, sealed_with) = match one_time_key.into() {
        OneTimeKey::X25519(one_time_key) => (open_x25519(group, one_time_key, sealed)?, SealedWith::X25519),
        OneTimeKey::XWing(one_time_key) => (xwing_box::open(group, one_time_key, sealed)?, SealedWith::XWing),
    };
    without_trace(|| Delivery::from_bytes(&opened, sealed_with))
}

fn open_x25519(group: &GroupKeys, one_time_key: &KeyPair, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (encapsulated_key, rest) =
        sealed.split_first_chunk::<ENCAPSULATED_KEY_BYTES>().ok_or(Error::MalformedMessage)?;
    let (ciphertext, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(Error::MalformedMessage)?;
    let mut opened = Zeroizing::new(room_for(ciphertext.len())?);
    opened.extend_from_slice(ciphertext);
    let outcome = group.pre_shared_key().read(|pre_shared_key| {
        one_time_key.private_key().read(|private_key| {
            without_trace(|| {
                hpke::single_shot_open_inout_detached::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
                    &OpModeR::Psk(PskBundle::new(pre_shared_key, group.id())?),
                    &Deserializable::from_bytes(private_key)?,
                    &Deserializable::from_bytes(encapsulated_key)?,
                    &info(group.id(), one_time_key.public_key()),
                    InOutBuf::from(opened.as_mut_slice()),
                    &[],
                    &AeadTag::from_bytes(tag)?,
                )
            })
        })
    })??;
    outcome.map_err(|_| Error::MalformedMessage)?;
    Ok(opened)
}

fn info(group_id: &[u8; GROUP_ID_BYTES], one_time_key: &[u8; PUBLIC_KEY_BYTES]) -> Vec<u8> {
    [LABEL, group_id, one_time_key].concat()
}

fn room_for<T>(count: usize) -> Result<Vec<T>, Error> {
    let mut room = Vec::new();
    room.try_reserve_exact(count).map_err(|_| Error::OutOfMemory)?;
    Ok(room)
}
