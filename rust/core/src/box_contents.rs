//! What a box holds, as bytes: the epochs of a group that live, each with its private keys.
//!
//! The seed of an X-Wing pair goes into boxes only that are sealed with X-Wing. Who recorded another one and can undo X25519
//! later would have the seed, and with it all that was sealed to the pair.

use std::borrow::Borrow;

use zeroize::Zeroizing;

use crate::arena::SECRET_BYTES;
use crate::error::Error;
use crate::key_pair::KeyPair;
use crate::no_trace::without_trace;
use crate::secret::Secret;
use crate::xwing_key_pair::XWingKeyPair;

/// The largest number of epochs in a box.
pub const MAX_EPOCHS_PER_BOX: usize = 8;
const MAX_KEYS_PER_EPOCH: usize = 4;

const VERSION: u8 = 1;
/// The kind of a private key: its number in the registry of HPKE's KEMs.
const X25519: u16 = 0x0020;
const XWING: u16 = 0x647a;

/// The version, the flag, the time and the number of epochs.
const HEAD_BYTES: usize = 1 + 1 + 8 + 1;
/// The number, two durations, the number of keys, and two keys, each with its kind and its length.
const MAX_EPOCH_BYTES: usize = 8 + 8 + 8 + 1 + 2 * (2 + 2 + SECRET_BYTES);

/// The KEM that a box is sealed with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SealedWith {
    X25519,
    XWing,
}

/// The key pairs of a group's epoch, with its place in the order of the group's epochs, and how long it lives.
#[derive(Debug)]
pub struct Epoch<K, X> {
    /// Its place in the order.
    pub number: u64,
    /// Its X25519 key pair.
    pub key_pair: K,
    /// Its X-Wing key pair, if it has one.
    pub xwing_key_pair: Option<X>,
    /// The time from [`Delivery::as_of_ms`] to its publication, in milliseconds. It is negative after the publication.
    pub publish_in_ms: i64,
    /// The time from [`Delivery::as_of_ms`] to its end, in milliseconds.
    pub ends_in_ms: u64,
}

/// What one member delivers to another.
#[derive(Debug)]
pub struct Delivery<K, X> {
    /// Whether these are all epochs of the group that live.
    pub whole: bool,
    /// The time of the store from which the durations count, in milliseconds.
    pub as_of_ms: u64,
    /// The epochs.
    pub epochs: Vec<Epoch<K, X>>,
}

impl<K: Borrow<KeyPair>, X: Borrow<XWingKeyPair>> Delivery<K, X> {
    /// Writes everything that a box which is sealed so may hold, into a buffer that is wiped when it is dropped.
    pub(crate) fn to_bytes(&self, sealed_with: SealedWith) -> Result<Zeroizing<Vec<u8>>, Error> {
        let count = match u8::try_from(self.epochs.len()) {
            Ok(count @ 1..) if usize::from(count) <= MAX_EPOCHS_PER_BOX => count,
            _ => return Err(Error::EpochCount { asked: self.epochs.len(), limit: MAX_EPOCHS_PER_BOX }),
        };
        // As long as it can get: a buffer that grows would leave copies.
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEAD_BYTES + MAX_EPOCH_BYTES * self.epochs.len()));
        bytes.extend([VERSION, u8::from(self.whole)]);
        bytes.extend(self.as_of_ms.to_be_bytes());
        bytes.push(count);
        for epoch in &self.epochs {
            bytes.extend(epoch.number.to_be_bytes());
            bytes.extend(epoch.publish_in_ms.to_be_bytes());
            bytes.extend(epoch.ends_in_ms.to_be_bytes());
            let xwing_key_pair = epoch.xwing_key_pair.as_ref().filter(|_| sealed_with == SealedWith::XWing);
            bytes.push(1 + u8::from(xwing_key_pair.is_some()));
            append(&mut bytes, X25519, epoch.key_pair.borrow().private_key())?;
            if let Some(key_pair) = xwing_key_pair {
                append(&mut bytes, XWING, key_pair.borrow().seed())?;
            }
        }
        Ok(bytes)
    }
}

/// Writes a key with its kind and its length.
fn append(bytes: &mut Vec<u8>, kind: u16, secret: &Secret) -> Result<(), Error> {
    bytes.extend(kind.to_be_bytes());
    bytes.extend((SECRET_BYTES as u16).to_be_bytes());
    secret.read(|secret| without_trace(|| bytes.extend_from_slice(secret)))
}

impl Delivery<KeyPair, XWingKeyPair> {
    /// Reads what [`to_bytes`](Self::to_bytes) wrote, or a later version of it that has more kinds of keys.
    pub(crate) fn from_bytes(bytes: &[u8], sealed_with: SealedWith) -> Result<Self, Error> {
        let mut rest = Rest(bytes);
        if rest.number()? != [VERSION] {
            return Err(Error::MalformedMessage);
        }
        let whole = match rest.number()? {
            [0] => false,
            [1] => true,
            _ => return Err(Error::MalformedMessage),
        };
        let as_of_ms = u64::from_be_bytes(rest.number()?);
        let [count] = rest.number()?;
        if !(1..=MAX_EPOCHS_PER_BOX).contains(&usize::from(count)) {
            return Err(Error::MalformedMessage);
        }
        let epochs = (0..count).map(|_| Epoch::read(&mut rest, sealed_with)).collect::<Result<_, _>>()?;
        if rest.0.is_empty() { Ok(Self { whole, as_of_ms, epochs }) } else { Err(Error::MalformedMessage) }
    }
}

impl Epoch<KeyPair, XWingKeyPair> {
    fn read(rest: &mut Rest<'_>, sealed_with: SealedWith) -> Result<Self, Error> {
        let number = u64::from_be_bytes(rest.number()?);
        let publish_in_ms = i64::from_be_bytes(rest.number()?);
        let ends_in_ms = u64::from_be_bytes(rest.number()?);
        let [count] = rest.number()?;
        if usize::from(count) > MAX_KEYS_PER_EPOCH {
            return Err(Error::MalformedMessage);
        }
        let (mut key_pair, mut xwing_key_pair) = (None, None);
        for _ in 0..count {
            let kind = u16::from_be_bytes(rest.number()?);
            let length = u16::from_be_bytes(rest.number()?);
            let secret = rest.take(usize::from(length))?;
            let is_wrong = secret.len() != SECRET_BYTES;
            match (kind, sealed_with) {
                (X25519, _) if is_wrong || key_pair.is_some() => return Err(Error::MalformedMessage),
                (X25519, _) => key_pair = Some(KeyPair::from_private_key(secret)?),
                (XWING, SealedWith::XWing) if is_wrong || xwing_key_pair.is_some() => {
                    return Err(Error::MalformedMessage);
                }
                (XWING, SealedWith::XWing) => xwing_key_pair = Some(XWingKeyPair::from_seed(secret)?),
                _ => {}
            }
        }
        let key_pair = key_pair.ok_or(Error::MalformedMessage)?;
        Ok(Self { number, key_pair, xwing_key_pair, publish_in_ms, ends_in_ms })
    }
}

/// The part of a message that is not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Error::MalformedMessage)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Takes the big-endian bytes of a number.
    fn number<const BYTES: usize>(&mut self) -> Result<[u8; BYTES], Error> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Error::MalformedMessage)?;
        self.0 = rest;
        Ok(*taken)
    }
}
