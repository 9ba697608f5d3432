//! What can be wrong with the file of a signing key.

use std::fmt;
use std::io;
use std::path::Path;

use crate::file_fault::FileFault;

/// Why the file of a signing key cannot be used or written. It never shows a part of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SigningKeyFault {
    /// The file cannot be used, whatever is in it.
    File(FileFault),
    /// There is nothing in it.
    Empty,
    /// It is no PEM text.
    NoPem,
    /// It is PEM text of something else than a private key in PKCS#8 form.
    NoPkcs8,
    /// The private key is encrypted.
    Encrypted,
    /// It holds a public key.
    PublicKey,
    /// The private key is no Ed25519 key.
    OtherKind,
    /// The private key's encoding is broken.
    Broken,
    /// The public key beside the private key belongs to another one.
    OtherPublicKey,
    /// A new key was to be written, and something is there already.
    Exists,
    /// A new key cannot be written.
    Unwritable(io::ErrorKind),
}

impl SigningKeyFault {
    /// Returns the fault of the file at `path` as a message that says what to do.
    pub fn in_file(self, path: &Path) -> impl fmt::Display {
        InFile { fault: self, path }
    }

    fn needs_less_access(self) -> bool {
        matches!(self, Self::File(fault) if fault.needs_less_access())
    }

    /// Says what to do where a new key in the same place would not help.
    fn cure(self) -> Option<&'static str> {
        match self {
            Self::File(fault) if fault.needs_more_access() => Some("name a file that this user can read"),
            Self::File(FileFault::NoRegularFile) => Some("name a file that holds the key"),
            Self::Encrypted => Some("write it unencrypted with openssl pkey"),
            Self::PublicKey => Some("name the file of the private key"),
            Self::Exists => Some("nothing is overwritten; name another file"),
            Self::Unwritable(_) => Some("name a file in a folder that this user can write to"),
            _ => None,
        }
    }
}

impl fmt::Display for SigningKeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(fault) => write!(f, "{fault}"),
            Self::Empty => f.write_str("is empty"),
            Self::NoPem => f.write_str("holds no key in PEM form"),
            Self::NoPkcs8 => f.write_str("holds no private key in PKCS#8 form (BEGIN PRIVATE KEY)"),
            Self::Encrypted => f.write_str("holds an encrypted key"),
            Self::PublicKey => f.write_str("holds a public key"),
            Self::OtherKind => f.write_str("holds a key of another kind than Ed25519"),
            Self::Broken => f.write_str("holds a private key that is broken"),
            Self::OtherPublicKey => f.write_str("holds a private key and the public key of another one"),
            Self::Exists => f.write_str("exists already"),
            Self::Unwritable(kind) => write!(f, "cannot be written ({kind})"),
        }
    }
}

struct InFile<'a> {
    fault: SigningKeyFault,
    path: &'a Path,
}

impl fmt::Display for InFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, path } = self;
        write!(f, "the identity file {path:?} {fault}: ")?;
        match fault.cure() {
            Some(cure) => f.write_str(cure),
            None if fault.needs_less_access() => f.write_str(&FileFault::closing(path)),
            None => f.write_str("make a key with server-keys identity new, which writes a new file"),
        }
    }
}
