//! What a box holds, as bytes: the epochs of a group that live, each with its private keys.

use std::borrow::Borrow;

use zeroize::Zeroizing;

use crate::arena::SECRET_BYTES;
use crate::error::Error;
use crate::key_pair::KeyPair;
use crate::no_trace::without_trace;

/// The largest number of epochs in a box.
pub const MAX_EPOCHS_PER_BOX: usize = 8;
const MAX_KEYS_PER_EPOCH: usize = 4;

const VERSION: u8 = 1;
/// The kind of a private key: its number in the registry of HPKE's KEMs.
const X25519: u16 = 0x0020;

/// The version, the flag, the time and the number of epochs.
const HEAD_BYTES: usize = 1 + 1 + 8 + 1;
/// The number, two durations, the number of keys, and one key with its kind and its length.
const EPOCH_BYTES: usize = 8 + 8 + 8 + 1 + 2 + 2 + SECRET_BYTES;

/// A key pair of a group with its place in the order of the group's pairs, and how long it lives.
#[derive(Debug)]
pub struct Epoch<K> {
    /// Its place in the order.
    pub number: u64,
    /// Its key pair.
    pub key_pair: K,
    /// The time from [`Delivery::as_of_ms`] to its publication, in milliseconds. It is negative after the publication.
    pub publish_in_ms: i64,
    /// The time from [`Delivery::as_of_ms`] to its end, in milliseconds.
    pub ends_in_ms: u64,
}

/// What one member delivers to another.
#[derive(Debug)]
pub struct Delivery<K> {
    /// Whether these are all epochs of the group that live.
    pub whole: bool,
    /// The time of the store from which the durations count, in milliseconds.
    pub as_of_ms: u64,
    /// The epochs.
    pub epochs: Vec<Epoch<K>>,
}

impl<K: Borrow<KeyPair>> Delivery<K> {
    /// Writes everything into a buffer that is wiped when it is dropped.
    pub(crate) fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let count = match u8::try_from(self.epochs.len()) {
            Ok(count @ 1..) if usize::from(count) <= MAX_EPOCHS_PER_BOX => count,
            _ => return Err(Error::EpochCount { asked: self.epochs.len(), limit: MAX_EPOCHS_PER_BOX }),
        };
        // Exactly as long as needed: a buffer that grows would leave copies.
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEAD_BYTES + EPOCH_BYTES * self.epochs.len()));
        bytes.extend([VERSION, u8::from(self.whole)]);
        bytes.extend(self.as_of_ms.to_be_bytes());
        bytes.push(count);
        for epoch in &self.epochs {
            bytes.extend(epoch.number.to_be_bytes());
            bytes.extend(epoch.publish_in_ms.to_be_bytes());
            bytes.extend(epoch.ends_in_ms.to_be_bytes());
            bytes.push(1);
            bytes.extend(X25519.to_be_bytes());
            bytes.extend((SECRET_BYTES as u16).to_be_bytes());
            let private_key = epoch.key_pair.borrow().private_key();
            private_key.read(|private_key| without_trace(|| bytes.extend_from_slice(private_key)))?;
        }
        Ok(bytes)
    }
}

impl Delivery<KeyPair> {
    /// Reads what [`to_bytes`](Self::to_bytes) wrote, or a later version of it that has more kinds of keys.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
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
        let epochs = (0..count).map(|_| Epoch::read(&mut rest)).collect::<Result<_, _>>()?;
        if rest.0.is_empty() { Ok(Self { whole, as_of_ms, epochs }) } else { Err(Error::MalformedMessage) }
    }
}

impl Epoch<KeyPair> {
    fn read(rest: &mut Rest<'_>) -> Result<Self, Error> {
        let number = u64::from_be_bytes(rest.number()?);
        let publish_in_ms = i64::from_be_bytes(rest.number()?);
        let ends_in_ms = u64::from_be_bytes(rest.number()?);
        let [count] = rest.number()?;
        if usize::from(count) > MAX_KEYS_PER_EPOCH {
            return Err(Error::MalformedMessage);
        }
        let mut key_pair = None;
        for _ in 0..count {
            let kind = u16::from_be_bytes(rest.number()?);
            let length = u16::from_be_bytes(rest.number()?);
            let private_key = rest.take(usize::from(length))?;
            if kind != X25519 {
                continue;
            }
            if private_key.len() != SECRET_BYTES || key_pair.is_some() {
                return Err(Error::MalformedMessage);
            }
            key_pair = Some(KeyPair::from_private_key(private_key)?);
        }
        let key_pair = key_pair.ok_or(Error::MalformedMessage)?;
        Ok(Self { number, key_pair, publish_in_ms, ends_in_ms })
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
