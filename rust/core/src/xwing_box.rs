//! What is in a box that is sealed with X-Wing: HPKE (RFC 9180, PSK mode), a single message.

use std::mem::MaybeUninit;

use zeroize::Zeroizing;

use crate::arena::HomeProcess;
use crate::counting_cipher::CountingCipher;
use crate::error::Error;
use crate::frame::open_frame;
use crate::group_keys::{GROUP_ID_BYTES, GroupKeys};
use crate::key_schedule::{MessageSecrets, PreSharedKey};
use crate::no_trace::without_deep_trace;
use crate::primitives::TAG_BYTES;
use crate::writer::{Writer, filled};
use crate::xwing::{RANDOMNESS_BYTES, XWING_ENCAPSULATED_KEY_BYTES, XWING_PUBLIC_KEY_BYTES, XWingPublicKey};
use crate::xwing_key_pair::XWingKeyPair;

const LABEL: &[u8] = b"server-keys x-wing box v1";

/// Seals `plaintext` to a one-time key; None if nothing can be sealed to it.
///
/// # Errors
/// [`Error::KeyErased`] in a forked child; [`Error::Entropy`], [`Error::OutOfMemory`].
pub(crate) fn seal(
    group: &GroupKeys,
    one_time_key: &[u8; XWING_PUBLIC_KEY_BYTES],
    plaintext: &[u8],
) -> Result<Option<Vec<u8>>, Error> {
    let box_bytes = XWING_ENCAPSULATED_KEY_BYTES + plaintext.len() + TAG_BYTES;
    let sealed = group.pre_shared_key().read(|pre_shared_key| {
        without_deep_trace(|| {
            filled(box_bytes, |sealed| {
                let mut randomness = Zeroizing::new([0; RANDOMNESS_BYTES]);
                getrandom::fill(randomness.as_mut_slice())?;
                let mut encapsulated_key = [0; XWING_ENCAPSULATED_KEY_BYTES];
                let mut shared_secret = Zeroizing::new([0; 32]);
                let receiver = XWingPublicKey::new(one_time_key)?;
                receiver.encapsulate(&randomness, &mut encapsulated_key, &mut shared_secret)?;
                let mut cipher = cipher(group.id(), one_time_key, &shared_secret, pre_shared_key)?;
                put_sealed(&mut cipher, &encapsulated_key, plaintext, sealed)
            })
        })
    })?;
    match sealed {
        Err(Error::PublicKeySmallOrder | Error::MlKemPublicKey) => Ok(None),
        sealed => sealed.map(Some),
    }
}

fn put_sealed<'a>(
    cipher: &mut CountingCipher,
    encapsulated_key: &[u8; XWING_ENCAPSULATED_KEY_BYTES],
    plaintext: &[u8],
    sealed: &'a mut [MaybeUninit<u8>],
) -> Result<&'a mut [u8], Error> {
    let mut sealed = Writer::new(sealed);
    sealed.put(encapsulated_key)?;
    let tag = sealed.put_with(plaintext.len(), |ciphertext| cipher.seal(plaintext, ciphertext))?;
    sealed.put(&tag)?;
    sealed.finish()
}

/// Opens a box that a member of the group sealed to a one-time key.
///
/// # Errors
/// [`Error::MalformedMessage`] for whatever is wrong with the box; [`Error::KeyErased`] if the one-time key was erased,
/// or in a forked child; [`Error::OutOfMemory`].
pub(crate) fn open(group: &GroupKeys, one_time_key: &XWingKeyPair, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (encapsulated_key, ciphertext) =
        sealed.split_first_chunk::<XWING_ENCAPSULATED_KEY_BYTES>().ok_or(Error::MalformedMessage)?;
    let plaintext_bytes = ciphertext.len().checked_sub(TAG_BYTES).ok_or(Error::MalformedMessage)?;
    let opened = group.pre_shared_key().read(|pre_shared_key| {
        one_time_key.seed().read(|seed| {
            without_deep_trace(|| {
                let mut shared_secret = Zeroizing::new([0; 32]);
                one_time_key.decapsulate(seed, encapsulated_key, &mut shared_secret)?;
                let public_key = one_time_key.public_key();
                let mut cipher = cipher(group.id(), public_key, &shared_secret, pre_shared_key)?;
                filled(plaintext_bytes, |plaintext| {
                    let mut plaintext = Writer::new(plaintext);
                    open_frame(&mut cipher, ciphertext, &mut plaintext)?;
                    plaintext.finish()
                })
            })
        })
    })??;
    opened.map(Zeroizing::new).map_err(|error| match error {
        Error::PublicKeySmallOrder => Error::MalformedMessage,
        other => other,
    })
}

fn cipher(
    group_id: &[u8; GROUP_ID_BYTES],
    one_time_key: &[u8; XWING_PUBLIC_KEY_BYTES],
    shared_secret: &[u8; 32],
    pre_shared_key: &[u8; 32],
) -> Result<CountingCipher, Error> {
    let info = [LABEL, group_id, one_time_key].concat();
    let pre_shared_key = PreSharedKey { key: pre_shared_key, id: group_id };
    let secrets = MessageSecrets::of_xwing(shared_secret, &info, Some(pre_shared_key))?;
    Ok(CountingCipher::new(HomeProcess::current()?, &secrets.key, secrets.base_nonce))
}
