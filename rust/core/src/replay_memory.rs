//! The memory of a table of seen requests: this process's own, or a file's that several processes have mapped.

use std::ptr::NonNull;
#[cfg(unix)]
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(unix)]
use std::time::Instant;

#[cfg(unix)]
use rustix::mm::MapFlags;

use crate::error::Error;
use crate::replay_table_fault::ReplayTableFault;

/// How long a look at the file counts. The system call takes longer than all else that a table does. No server takes a
/// request so often, so each request looks.
#[cfg(unix)]
const A_LOOK_COUNTS_NS: u64 = 50_000;

/// In the place of a time: the file was found to be resized.
#[cfg(unix)]
const LOST: u64 = u64::MAX;

/// A file behind memory, and when it was last looked at.
#[cfg(unix)]
#[derive(Debug)]
struct Backing {
    file: std::os::fd::OwnedFd,
    mapped_at: Instant,
    /// In nanoseconds after that. It never goes back from [`LOST`].
    looked_at_ns: AtomicU64,
}

/// Zeroed memory, or what a file holds. It is aligned to a page.
#[derive(Debug)]
pub(crate) struct ReplayMemory {
    start: NonNull<u8>,
    length: usize,
    #[cfg(unix)]
    backing: Option<Backing>,
}

// SAFETY: it is an address range, which no thread owns. The table reads and writes it by atomic operations only.
unsafe impl Send for ReplayMemory {}
// SAFETY: as above.
unsafe impl Sync for ReplayMemory {}

impl ReplayMemory {
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

#[cfg(unix)]
impl ReplayMemory {
    /// Maps zeroed memory of this process alone.
    pub(crate) fn own(length: usize) -> Result<Self, Error> {
        use rustix::mm::{ProtFlags, mmap_anonymous};
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, provided(MapFlags::PRIVATE));
        // SAFETY: a new private mapping, at an address that the system chooses, touches nothing that exists.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), length, protection, flags) };
        let start = start.map_err(|_| Error::OutOfMemory)?.cast::<u8>();
        Ok(Self { start: NonNull::new(start).ok_or(Error::OutOfMemory)?, length, backing: None })
    }

    /// Returns the length of a regular file.
    pub(crate) fn length_of(file: &std::os::fd::OwnedFd) -> Result<u64, ReplayTableFault> {
        use rustix::fs::{FileType, fstat};
        let found = fstat(file).map_err(refused)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(ReplayTableFault::NotATable);
        }
        u64::try_from(found.st_size).map_err(|_| ReplayTableFault::NotATable)
    }

    /// Maps a file whose length is `length`. All processes that map it see one memory.
    pub(crate) fn of_file(file: std::os::fd::OwnedFd, length: usize) -> Result<Self, ReplayTableFault> {
        use rustix::mm::{ProtFlags, mmap};
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, provided(MapFlags::SHARED));
        // SAFETY: a new mapping, at an address that the system chooses, touches nothing that exists. What others write
        // to the file shows in it, so it is read by atomic operations only.
        let start = unsafe { mmap(std::ptr::null_mut(), length, protection, flags, &file, 0) }.map_err(refused)?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(ReplayTableFault::NotATable)?;
        Ok(Self {
            start,
            length,
            backing: Some(Backing { file, mapped_at: Instant::now(), looked_at_ns: AtomicU64::new(0) }),
        })
    }

    /// Checks that the file, if there is one, still has its length. To touch memory behind the end of a file
    /// that was cut short would end the process (SIGBUS).
    pub(crate) fn require(&self) -> Result<(), ReplayTableFault> {
        let Some(Backing { file, looked_at_ns, .. }) = &self.backing else { return Ok(()) };
        let found = rustix::fs::fstat(file).map_err(refused)?;
        let is_whole = u64::try_from(found.st_size).is_ok_and(|size| size == self.length as u64);
        if is_whole && looked_at_ns.load(Ordering::Relaxed) != LOST {
            return Ok(());
        }
        looked_at_ns.store(LOST, Ordering::Relaxed);
        Err(ReplayTableFault::Lost)
    }

    /// Does the same unless it was done a moment ago.
    pub(crate) fn require_lately(&self) -> Result<(), ReplayTableFault> {
        let Some(Backing { mapped_at, looked_at_ns, .. }) = &self.backing else { return Ok(()) };
        let now_ns = u64::try_from(mapped_at.elapsed().as_nanos()).unwrap_or(LOST - 1);
        let looked_at = looked_at_ns.load(Ordering::Relaxed);
        if looked_at != LOST && now_ns.saturating_sub(looked_at) < A_LOOK_COUNTS_NS {
            return Ok(());
        }
        self.require()?;
        // Another thread may have found the file resized meanwhile.
        let _ = looked_at_ns.compare_exchange(looked_at, now_ns, Ordering::Relaxed, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(unix)]
impl Drop for ReplayMemory {
    fn drop(&mut self) {
        // SAFETY: this object mapped the range, and lends it to nobody beyond its own life.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Has the system provide all pages of a mapping at once, where it can. Else the first thousands of requests wait for one
/// page each, which takes longer than all else that a table does.
#[cfg(unix)]
fn provided(flags: MapFlags) -> MapFlags {
    #[cfg(target_os = "linux")]
    return flags | MapFlags::POPULATE;
    #[cfg(not(target_os = "linux"))]
    return flags;
}

#[cfg(unix)]
fn refused(error: rustix::io::Errno) -> ReplayTableFault {
    ReplayTableFault::Refused(error.raw_os_error())
}

#[cfg(not(unix))]
impl ReplayMemory {
    pub(crate) fn own(length: usize) -> Result<Self, Error> {
        use std::alloc::{GlobalAlloc, System};
        let layout = Self::layout(length).ok_or(Error::OutOfMemory)?;
        // SAFETY: no table is empty, so the layout is not of size zero.
        let start = NonNull::new(unsafe { System.alloc_zeroed(layout) }).ok_or(Error::OutOfMemory)?;
        Ok(Self { start, length })
    }

    pub(crate) fn require(&self) -> Result<(), ReplayTableFault> {
        Ok(())
    }

    pub(crate) fn require_lately(&self) -> Result<(), ReplayTableFault> {
        Ok(())
    }

    fn layout(length: usize) -> Option<std::alloc::Layout> {
        std::alloc::Layout::from_size_align(length, 4096).ok()
    }
}

#[cfg(not(unix))]
impl Drop for ReplayMemory {
    fn drop(&mut self) {
        use std::alloc::{GlobalAlloc, System};
        if let Some(layout) = Self::layout(self.length) {
            // SAFETY: `own` allocated it with this layout.
            unsafe { System.dealloc(self.start.as_ptr(), layout) };
        }
    }
}
