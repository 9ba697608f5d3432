//! What can be wrong with the file of a secret.

use std::fmt;
use std::io;
use std::path::Path;

/// Why the file of a secret cannot be used. It never shows a part of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileFault {
    /// The file cannot be opened or read.
    Unreadable(io::ErrorKind),
    /// The path leads to a directory, a pipe, a socket or a device.
    NoRegularFile,
    /// Every user of the host can read or write the file. The number is its mode.
    OpenToOthers(u32),
    /// The group of the file can write it. The number is its mode.
    WritableByGroup(u32),
    /// There are more bytes than this.
    TooLong(usize),
}

impl FileFault {
    pub(crate) fn needs_less_access(self) -> bool {
        matches!(self, Self::OpenToOthers(_) | Self::WritableByGroup(_))
    }

    /// Says how to take access away from others, where there is a mode to change and where secrets are mounted.
    pub(crate) fn closing(path: &Path) -> String {
        format!("chmod 600 {path:?} (in a Kubernetes volume: defaultMode: 0440; of Swarm and Podman: mode=0440)")
    }

    /// Says whether there is a file, but this user cannot read it.
    pub(crate) fn needs_more_access(self) -> bool {
        matches!(self, Self::Unreadable(kind) if kind != io::ErrorKind::NotFound)
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(io::ErrorKind::NotFound) => f.write_str("does not exist"),
            Self::Unreadable(kind) => write!(f, "cannot be read ({kind})"),
            Self::NoRegularFile => f.write_str("is no regular file"),
            Self::OpenToOthers(mode) => write!(f, "can be read or written by every user (its mode is {mode:04o})"),
            Self::WritableByGroup(mode) => write!(f, "can be written by its group (its mode is {mode:04o})"),
            Self::TooLong(most) => write!(f, "has more than {most} bytes"),
        }
    }
}
