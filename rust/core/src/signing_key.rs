//! Ed25519 keys (RFC 8032): the identity by which clients know a server whose key pairs live for minutes.

use std::path::Path;

use ed25519_dalek::{Signature, Signer, VerifyingKey};

use crate::error::Error;
use crate::new_secret_file;
use crate::no_trace::without_trace;
use crate::private_key_pem;
use crate::secret::Secret;
use crate::secret_file;
use crate::signing_key_fault::SigningKeyFault;

/// The length of an Ed25519 public key.
pub const SIGNING_PUBLIC_KEY_BYTES: usize = 32;
/// The length of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

/// An Ed25519 key. Its seed stays in the arena; erasing or dropping the key wipes it, and a forked child has none.
pub struct SigningKey {
    public_key: [u8; SIGNING_PUBLIC_KEY_BYTES],
    seed: Secret,
}

impl SigningKey {
    /// Reads a key from a file: PKCS#8 in PEM form. Nobody but the file's owner may be able to write it, and not every
    /// user to read it.
    ///
    /// # Errors
    /// [`Error::SigningKey`], [`Error::OutOfMemory`].
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let text = secret_file::read(path, private_key_pem::MAX_TEXT_BYTES)
            .map_err(|fault| Error::SigningKey(SigningKeyFault::File(fault)))?;
        let mut stated = None;
        let key = Self::with_seed(Secret::new(|seed| {
            stated = without_trace(|| private_key_pem::read(&text, seed)).map_err(Error::SigningKey)?;
            Ok(())
        })?)?;
        match stated {
            Some(stated) if stated != key.public_key => Err(Error::SigningKey(SigningKeyFault::OtherPublicKey)),
            _ => Ok(key),
        }
    }

    /// Makes a key from the system's random source and writes it to a file that does not exist yet, which its owner
    /// alone can read.
    ///
    /// # Errors
    /// [`Error::SigningKey`], [`Error::Entropy`], [`Error::OutOfMemory`]. Then there is no new file.
    pub fn new_file(path: &Path) -> Result<Self, Error> {
        let key = Self::with_seed(Secret::new(|seed| Ok(getrandom::fill(seed)?))?)?;
        let text = key.seed.read(|seed| without_trace(|| private_key_pem::write(seed)))?.map_err(Error::SigningKey)?;
        new_secret_file::write(path, text.as_bytes()).map_err(Error::SigningKey)?;
        Ok(key)
    }

    fn with_seed(seed: Secret) -> Result<Self, Error> {
        let public_key = seed.read(|seed| without_trace(|| expanded(seed).verifying_key().to_bytes()))?;
        Ok(Self { public_key, seed })
    }

    /// Returns the public key, as RFC 8032 encodes it.
    pub fn public_key(&self) -> &[u8; SIGNING_PUBLIC_KEY_BYTES] {
        &self.public_key
    }

    /// Returns the signature of a message. What is derived from the seed is derived for it, and wiped.
    ///
    /// # Errors
    /// [`Error::KeyErased`].
    pub fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_BYTES], Error> {
        self.seed.read(|seed| without_trace(|| expanded(seed).sign(message).to_bytes()))
    }

    /// Waits until no other thread uses the key, then wipes it. Every later use fails with [`Error::KeyErased`].
    pub fn erase(&self) {
        self.seed.erase();
    }

    /// Says whether the key is gone: erased, or left in the process that this one was forked from.
    pub fn is_erased(&self) -> bool {
        self.seed.is_erased()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, ..] = self.public_key;
        write!(f, "<SigningKey {a:02x}{b:02x}{c:02x}{d:02x}…{}>", if self.is_erased() { ", erased" } else { "" })
    }
}

/// Says whether `signature` is one of the owner of `public_key` over `message`.
///
/// It is strict: a public key or a signature whose point is of small order counts for nothing, nor does another encoding
/// of the same signature. Otherwise there would be signatures that fit many messages, or several for one.
pub fn is_signature(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(public_key), Ok(signature)) = (VerifyingKey::try_from(public_key), Signature::from_slice(signature)) else {
        return false;
    };
    public_key.verify_strict(message, &signature).is_ok()
}

/// Says whether there are 32 bytes that are a point of the curve, not of small order: what can sign.
pub fn is_signing_public_key(public_key: &[u8]) -> bool {
    VerifyingKey::try_from(public_key).is_ok_and(|public_key| !public_key.is_weak())
}

fn expanded(seed: &[u8; 32]) -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(seed)
}
