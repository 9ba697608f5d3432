//! The file of a secret, read into memory that is wiped.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use crate::file_fault::FileFault;

/// Reads a file that nobody but its owner can write and that not every user can read.
///
/// What is checked is the file that was opened, so nobody can exchange it in between. A symbolic link is followed:
/// Kubernetes mounts secrets as links.
pub(crate) fn read(path: &Path, most_bytes: usize) -> Result<Zeroizing<Vec<u8>>, FileFault> {
    let unreadable = |error: io::Error| FileFault::Unreadable(error.kind());
    let mut options = OpenOptions::new();
    options.read(true);
    open_at_once(&mut options);
    let mut file = options.open(path).map_err(|error| no_file_to_open(&error).unwrap_or_else(|| unreadable(error)))?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(FileFault::NoRegularFile);
    }
    require_little_access(&metadata)?;
    read_text(&mut file, most_bytes).map_err(unreadable)?.ok_or(FileFault::TooLong(most_bytes))
}

/// Reads all of the file; none if it is too long.
fn read_text(file: &mut File, most_bytes: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    // One byte more than allowed tells that there are more.
    let mut text = Zeroizing::new(vec![0; most_bytes + 1]);
    let mut length = 0;
    while length < text.len() {
        match file.read(&mut text[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if length > most_bytes {
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
fn no_file_to_open(error: &io::Error) -> Option<FileFault> {
    (error.raw_os_error() == Some(libc::ENXIO)).then_some(FileFault::NoRegularFile)
}

#[cfg(not(unix))]
fn no_file_to_open(_error: &io::Error) -> Option<FileFault> {
    None
}

#[cfg(unix)]
fn require_little_access(metadata: &std::fs::Metadata) -> Result<(), FileFault> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o006 != 0 {
        return Err(FileFault::OpenToOthers(mode));
    }
    if mode & 0o020 != 0 {
        return Err(FileFault::WritableByGroup(mode));
    }
    Ok(())
}

/// Checks nothing on this system.
#[cfg(not(unix))]
fn require_little_access(_metadata: &std::fs::Metadata) -> Result<(), FileFault> {
    Ok(())
}
