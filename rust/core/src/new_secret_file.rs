//! A new file for a secret, which its owner alone can read.

use std::fs::{File, OpenOptions, remove_file};
use std::io::{self, Write};
use std::path::Path;

use crate::signing_key_fault::SigningKeyFault;

/// Writes `secret` to a file that did not exist, down to the disk. If that fails, there is no file.
pub(crate) fn write(path: &Path, secret: &[u8]) -> Result<(), SigningKeyFault> {
    let mut options = OpenOptions::new();
    // It follows no symbolic link, and never opens what somebody else made.
    options.write(true).create_new(true);
    for_the_owner_alone(&mut options);
    let file = options.open(path).map_err(fault_of)?;
    fill(file, secret).map_err(|error| {
        // The file is ours, and useless.
        let _ = remove_file(path);
        fault_of(error)
    })
}

fn fill(mut file: File, secret: &[u8]) -> io::Result<()> {
    file.write_all(secret)?;
    file.sync_all()
}

fn fault_of(error: io::Error) -> SigningKeyFault {
    match error.kind() {
        io::ErrorKind::AlreadyExists => SigningKeyFault::Exists,
        kind => SigningKeyFault::Unwritable(kind),
    }
}

#[cfg(unix)]
fn for_the_owner_alone(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

#[cfg(not(unix))]
fn for_the_owner_alone(_options: &mut OpenOptions) {}
