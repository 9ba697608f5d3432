//! Boxes: private keys on their way from one member of a group to another, sealed with HPKE (RFC 9180, PSK mode).
//!
//! A box is sealed to a one-time key that its receiver made for it, and the receiver erases that key once it has opened
//! the box. So whoever records the box and later learns the group's secret opens nothing.

use std::borrow::Borrow;

use hpke::aead::{AeadTag, AesGcm256};
use hpke::inout::InOutBuf;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, HpkeError, Kem, OpModeR, OpModeS, PskBundle, Serializable};
use zeroize::Zeroizing;

use crate::box_contents::Delivery;
use crate::drawn_bytes::DrawnBytes;
use crate::error::Error;
use crate::group_keys::{GROUP_ID_BYTES, GroupKeys};
use crate::key_pair::{KeyPair, PUBLIC_KEY_BYTES};
use crate::no_trace::without_trace;
use crate::primitives::TAG_BYTES;
use crate::response_keys::ENCAPSULATED_KEY_BYTES;

/// The length of the longest box that is opened.
pub const MAX_BOX_BYTES: usize = 16 * 1024;

const LABEL: &[u8] = b"server-keys box v1";
/// After so many boxes (0.5 ms) other threads get a turn.
const BOXES_PER_TURN: usize = 8;

type EncapsulatedKey = <X25519HkdfSha256 as Kem>::EncappedKey;

/// Seals `delivery` to each of the one-time public keys. There is no box for a key that nothing can be sealed to: one of
/// another length than 32 bytes, or a point of small order.
///
/// # Errors
/// [`Error::EpochCount`]; [`Error::KeyErased`] if a private key was erased, or in a forked child; [`Error::Entropy`],
/// [`Error::OutOfMemory`].
pub fn seal_boxes<K: Borrow<KeyPair>>(
    group: &GroupKeys,
    one_time_keys: &[&[u8]],
    delivery: &Delivery<K>,
) -> Result<Vec<Option<Vec<u8>>>, Error> {
    let plaintext = delivery.to_bytes()?;
    let mut boxes = room_for(one_time_keys.len())?;
    for (index, one_time_key) in one_time_keys.iter().enumerate() {
        boxes.push(match <&[u8; PUBLIC_KEY_BYTES]>::try_from(*one_time_key) {
            Ok(one_time_key) => seal_box(group, one_time_key, &plaintext)?,
            Err(_) => None,
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
pub fn open_box(group: &GroupKeys, one_time_key: &KeyPair, sealed: &[u8]) -> Result<Delivery<KeyPair>, Error> {
    if sealed.len() > MAX_BOX_BYTES {
        return Err(Error::MalformedMessage);
    }
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
    without_trace(|| Delivery::from_bytes(&opened))
}

fn info(group_id: &[u8; GROUP_ID_BYTES], one_time_key: &[u8; PUBLIC_KEY_BYTES]) -> Vec<u8> {
    [LABEL, group_id, one_time_key].concat()
}

fn room_for<T>(count: usize) -> Result<Vec<T>, Error> {
    let mut room = Vec::new();
    room.try_reserve_exact(count).map_err(|_| Error::OutOfMemory)?;
    Ok(room)
}
