//! The file of a group secret, read into memory that is wiped.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::Error;
use crate::group_secret::MAX_TEXT_BYTES;
use crate::group_secret_fault::GroupSecretFault;

/// Reads a file that nobody but its owner can write and that not every user can read.
///
/// What is checked is the file that was opened, so nobody can exchange it in between. A symbolic link is followed:
/// Kubernetes mounts secrets as links.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    read_file(path).map_err(Error::GroupSecret)
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, GroupSecretFault> {
    let unreadable = |error: io::Error| GroupSecretFault::Unreadable(error.kind());
    let mut options = OpenOptions::new();
    options.read(true);
    open_at_once(&mut options);
    let mut file = options.open(path).map_err(|error| no_file_to_open(&error).unwrap_or_else(|| unreadable(error)))?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(GroupSecretFault::NoRegularFile);
    }
    require_little_access(&metadata)?;
    read_text(&mut file).map_err(unreadable)?.ok_or(GroupSecretFault::TooLong(MAX_TEXT_BYTES))
}

/// Reads all of the file; none if it is too long.
fn read_text(file: &mut File) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    // One byte more than allowed tells that there are more.
    let mut text = Zeroizing::new(vec![0; MAX_TEXT_BYTES + 1]);
    let mut length = 0;
    while length < text.len() {
        match file.read(&mut text[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if length > MAX_TEXT_BYTES {
        return Ok(None);
    }
    text.truncate(length);
    Ok(Some(text))
}

/// Has a pipe opened without waiting for its writer, and a terminal without making it this process's own.
#[cfg(unix)]
fn open_at_once(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
}

#[cfg(not(unix))]
fn open_at_once(_options: &mut OpenOptions) {}

/// Recognizes the error of opening a socket, or a device that is not there.
#[cfg(unix)]
fn no_file_to_open(error: &io::Error) -> Option<GroupSecretFault> {
    (error.raw_os_error() == Some(libc::ENXIO)).then_some(GroupSecretFault::NoRegularFile)
}

#[cfg(not(unix))]
fn no_file_to_open(_error: &io::Error) -> Option<GroupSecretFault> {
    None
}

#[cfg(unix)]
fn require_little_access(metadata: &std::fs::Metadata) -> Result<(), GroupSecretFault> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o006 != 0 {
        return Err(GroupSecretFault::OpenToOthers(mode));
    }
    if mode & 0o020 != 0 {
        return Err(GroupSecretFault::WritableByGroup(mode));
    }
    Ok(())
}

/// Checks nothing on this system.
#[cfg(not(unix))]
fn require_little_access(_metadata: &std::fs::Metadata) -> Result<(), GroupSecretFault> {
    Ok(())
}
