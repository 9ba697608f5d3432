//! Room for all of a file, taken before anybody maps it.

use std::os::fd::OwnedFd;

use crate::replay_table_fault::ReplayTableFault;

/// Gives an empty file its length, and the memory or the blocks for all of it: a file system that is full says so now,
/// and not by a signal (SIGBUS) when a page is first written.
#[cfg(target_os = "linux")]
pub(crate) fn allocate(file: &OwnedFd, length: usize) -> Result<(), ReplayTableFault> {
    use std::os::fd::AsRawFd;
    let bytes = libc::off_t::try_from(length).map_err(|_| ReplayTableFault::Refused(libc::EFBIG))?;
    loop {
        // A signal lets tmpfs give back all that it has allocated, but on the newest kernels. A profiler's timer may come
        // before it has all, each time.
        // SAFETY: the call reads and writes no memory of this process, and the descriptor is open.
        match without_signals(|| unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes) }) {
            0 => return Ok(()),
            libc::EINTR => {}
            // musl says so where the file system does not know the call, as old ZFS. glibc writes zeros by itself then.
            libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS => return write_zeros(file, length),
            number => return Err(ReplayTableFault::Refused(number)),
        }
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) fn allocate(_file: &OwnedFd, _length: usize) -> Result<(), ReplayTableFault> {
    Err(ReplayTableFault::NotShareable)
}

#[cfg(target_os = "linux")]
fn write_zeros(file: &OwnedFd, length: usize) -> Result<(), ReplayTableFault> {
    use rustix::io::{Errno, pwrite};
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    let mut written = 0;
    while written < length {
        match pwrite(file, &ZEROS[..ZEROS.len().min(length - written)], written as u64) {
            Ok(0) => return Err(ReplayTableFault::Refused(libc::ENOSPC)),
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(ReplayTableFault::Refused(error.raw_os_error())),
        }
    }
    Ok(())
}

/// Calls `work` while this thread takes no signals. Other threads do, or this one afterwards.
#[cfg(target_os = "linux")]
fn without_signals<T>(work: impl FnOnce() -> T) -> T {
    use std::mem::MaybeUninit;
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: `sigfillset` initializes the one set and `pthread_sigmask` the other; it cannot fail with these arguments. The
    // mask is this thread's own.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let done = work();
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    done
}
