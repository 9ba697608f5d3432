//! What can be wrong with a group secret.

use std::fmt;
use std::path::Path;

use crate::file_fault::FileFault;

/// Why a group secret cannot be used. It never shows a part of the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupSecretFault {
    /// The file cannot be used, whatever is in it.
    File(FileFault),
    /// There are more bytes than this.
    TooLong(usize),
    /// There is nothing, or only separators.
    Empty,
    /// A character is no hex digit and no separator.
    NoHexDigit,
    /// A secret has an odd number of hex digits.
    OddDigits,
    /// A secret has fewer hex digits than this.
    TooShort(usize),
    /// There are more secrets than this.
    TooMany(usize),
    /// There are two secrets, and they are the same.
    Repeated,
}

impl GroupSecretFault {
    /// Returns the fault of the file at `path` as a message that says what to do.
    pub fn in_file(self, path: &Path) -> impl fmt::Display {
        InFile { fault: self, path }
    }

    fn write(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(fault) => write!(f, "{fault}"),
            Self::TooLong(most) => write!(f, "has more than {most} bytes"),
            Self::Empty => f.write_str("is empty"),
            Self::NoHexDigit => f.write_str("has characters that are no hex digits"),
            Self::OddDigits => f.write_str("has an odd number of hex digits"),
            Self::TooShort(fewest) => write!(f, "has fewer than {fewest} hex digits"),
            Self::TooMany(most) => write!(f, "has more than {most} secrets"),
            Self::Repeated => f.write_str("has the same secret twice"),
        }
    }

    fn needs_less_access(self) -> bool {
        matches!(self, Self::File(fault) if fault.needs_less_access())
    }

    /// Says what to do where another secret in the same place would not help.
    fn cure(self) -> Option<&'static str> {
        match self {
            Self::File(fault) if fault.needs_more_access() => Some("name a file that this user can read"),
            Self::File(FileFault::NoRegularFile) => Some("name a file that holds the secret"),
            Self::TooMany(_) => Some("keep the new one, and after it the one that it replaces"),
            Self::Repeated => Some("keep it once"),
            _ => None,
        }
    }
}

impl fmt::Display for GroupSecretFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the group secret ")?;
        self.write(f)?;
        match self.cure() {
            Some(cure) => write!(f, ": {cure}"),
            None => f.write_str(": make one with openssl rand -hex 32"),
        }
    }
}

struct InFile<'a> {
    fault: GroupSecretFault,
    path: &'a Path,
}

impl fmt::Display for InFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, path } = self;
        write!(f, "the group secret file {path:?} ")?;
        fault.write(f)?;
        match fault.cure() {
            Some(cure) => write!(f, ": {cure}"),
            None if fault.needs_less_access() => write!(f, ": {}", FileFault::closing(path)),
            None => write!(f, ": openssl rand -hex 32 > {path:?}; chmod 600 {path:?}"),
        }
    }
}
