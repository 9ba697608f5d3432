//! What the members of a group have in common: its public id, and keys that they derive from its secret.

use std::path::Path;

use hkdf::Hkdf;
use hkdf::hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::error::Error;
use crate::group_secret;
use crate::group_secret_fault::GroupSecretFault;
use crate::no_trace::without_trace;
use crate::secret::Secret;
use crate::secret_file;

/// The length of a group's id.
pub const GROUP_ID_BYTES: usize = 16;
/// The length of the tag of an ask or a register.
pub const TAG_BYTES: usize = 32;

/// Two kinds of groups. The same bytes as a name and as a secret give other ids, and so other keys.
const OF_NAME: &[u8] = b"server-keys group id of name v1";
const OF_SECRET: &[u8] = b"server-keys group id of secret v1";

const ASK_KEY: &[u8] = b"server-keys ask key v1";
const REGISTER_KEY: &[u8] = b"server-keys register key v1";
const PRE_SHARED_KEY: &[u8] = b"server-keys box key v1";

/// The keys of a group. They stay in the arena; dropping them wipes them, and a forked child has none.
pub struct GroupKeys {
    id: [u8; GROUP_ID_BYTES],
    ask_key: Secret,
    register_key: Secret,
    pre_shared_key: Secret,
}

impl GroupKeys {
    /// Derives the keys of a group on one host from its name. Whoever knows the name knows them, so something else must
    /// keep strangers from the group's messages.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn of_name(name: &[u8]) -> Result<Self, Error> {
        without_trace(|| Self::derive(name, OF_NAME, &[]))
    }

    /// Derives the keys of each secret in `text`: one or two secrets of 64 or more hex digits, separated by white space
    /// or commas. The label tells apart groups that have the same secret.
    ///
    /// # Errors
    /// [`Error::GroupSecret`], [`Error::OutOfMemory`].
    pub fn from_secret_text(text: &[u8], label: &[u8]) -> Result<Vec<Self>, Error> {
        without_trace(|| {
            let secrets = group_secret::parse(text)?;
            secrets.iter().map(|secret| Self::derive(secret, OF_SECRET, label)).collect()
        })
    }

    /// Does the same with the content of a file. Nobody but the file's owner may be able to write it, and not every user
    /// to read it.
    ///
    /// # Errors
    /// [`Error::GroupSecret`], [`Error::OutOfMemory`].
    pub fn from_secret_file(path: &Path, label: &[u8]) -> Result<Vec<Self>, Error> {
        let read = secret_file::read(path, group_secret::MAX_TEXT_BYTES);
        let text = read.map_err(|fault| Error::GroupSecret(GroupSecretFault::File(fault)))?;
        Self::from_secret_text(&text, label)
    }

    fn derive(secret: &[u8], kind: &[u8], label: &[u8]) -> Result<Self, Error> {
        let mut id = [0; GROUP_ID_BYTES];
        expand(&Hkdf::new(Some(kind), secret), label, &mut id)?;
        let pseudorandom_key = Hkdf::new(Some(&id), secret);
        let derived = |label| Secret::new(|bytes| expand(&pseudorandom_key, label, bytes));
        Ok(Self {
            id,
            ask_key: derived(ASK_KEY)?,
            register_key: derived(REGISTER_KEY)?,
            pre_shared_key: derived(PRE_SHARED_KEY)?,
        })
    }

    /// Returns the name of the group, which says nothing about its secret.
    pub fn id(&self) -> &[u8; GROUP_ID_BYTES] {
        &self.id
    }

    /// Returns the tag by which members know that a member wrote this register.
    ///
    /// # Errors
    /// [`Error::KeyErased`] in a forked child.
    pub fn register_tag(&self, register: &[u8]) -> Result<[u8; TAG_BYTES], Error> {
        tag(&self.register_key, register)
    }

    /// Says whether a member wrote this register, in a time that does not depend on the tag's bytes.
    ///
    /// # Errors
    /// [`Error::KeyErased`] in a forked child.
    pub fn is_register_tag(&self, register: &[u8], tag: &[u8]) -> Result<bool, Error> {
        is_tag(&self.register_key, register, tag)
    }

    /// Returns the tag by which members know that a member wrote this ask.
    ///
    /// # Errors
    /// [`Error::KeyErased`] in a forked child.
    pub fn ask_tag(&self, ask: &[u8]) -> Result<[u8; TAG_BYTES], Error> {
        tag(&self.ask_key, ask)
    }

    /// Says whether a member wrote this ask, in a time that does not depend on the tag's bytes.
    ///
    /// # Errors
    /// [`Error::KeyErased`] in a forked child.
    pub fn is_ask_tag(&self, ask: &[u8], tag: &[u8]) -> Result<bool, Error> {
        is_tag(&self.ask_key, ask, tag)
    }

    pub(crate) fn pre_shared_key(&self) -> &Secret {
        &self.pre_shared_key
    }
}

impl std::fmt::Debug for GroupKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<GroupKeys ")?;
        self.id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(">")
    }
}

fn expand(pseudorandom_key: &Hkdf<Sha256>, label: &[u8], bytes: &mut [u8]) -> Result<(), Error> {
    // It fails only for more than 8,160 bytes.
    pseudorandom_key.expand(label, bytes).map_err(|_| Error::MalformedMessage)
}

fn tag(key: &Secret, message: &[u8]) -> Result<[u8; TAG_BYTES], Error> {
    key.read(|key| without_trace(|| mac(key, message).finalize().into_bytes().into()))
}

fn is_tag(key: &Secret, message: &[u8], tag: &[u8]) -> Result<bool, Error> {
    key.read(|key| without_trace(|| mac(key, message).verify_slice(tag).is_ok()))
}

fn mac(key: &[u8; TAG_BYTES], message: &[u8]) -> Hmac<Sha256> {
    // A key of one block, the short one filled with zeros: what HMAC makes of it anyway, and it cannot fail.
    let mut block = zeroize::Zeroizing::new([0; 64]);
    block[..key.len()].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    mac.update(message);
    mac
}
