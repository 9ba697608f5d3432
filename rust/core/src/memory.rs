//! Memory for private keys, protected as far as the system can.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::Error;

/// The size of one region: a multiple of every page size of Linux, and within the smallest usual limit of locked memory
/// (`RLIMIT_MEMLOCK`), 64 KiB.
pub(crate) const REGION_BYTES: usize = 64 * 1024;

/// A protection that the system refused. Its `Display` tells the operator what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedProtection {
    /// `mlock` failed.
    Lock,
    /// `madvise(MADV_DONTDUMP)` failed.
    CoreDumpExclusion,
}

impl RefusedProtection {
    const ALL: [Self; 2] = [Self::Lock, Self::CoreDumpExclusion];

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl std::fmt::Display for RefusedProtection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Lock => {
                "the system refused to lock private keys in memory (mlock), so they may reach the swap space: \
                 raise the limit of locked memory (ulimit -l, LimitMEMLOCK=) or switch swap off"
            }
            Self::CoreDumpExclusion => {
                "the system refused to leave private keys out of core dumps (MADV_DONTDUMP): switch core dumps off \
                 (ulimit -c 0, LimitCORE=0)"
            }
        })
    }
}

static REFUSED: AtomicU8 = AtomicU8::new(0);
static REPORTED: AtomicU8 = AtomicU8::new(0);

/// Returns a refusal that no earlier call in this process has returned.
pub fn unreported_refusal() -> Option<RefusedProtection> {
    let unreported = REFUSED.load(Ordering::Relaxed) & !REPORTED.load(Ordering::Relaxed);
    RefusedProtection::ALL
        .into_iter()
        .filter(|refusal| unreported & refusal.bit() != 0)
        .find(|refusal| REPORTED.fetch_or(refusal.bit(), Ordering::Relaxed) & refusal.bit() == 0)
}

fn note_refusal(refusal: RefusedProtection) {
    REFUSED.fetch_or(refusal.bit(), Ordering::Relaxed);
}

/// Zeroed memory that stays mapped. On Unix an inaccessible page lies before it and another behind it.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) start: NonNull<u8>,
    /// Whether a forked child finds zeros there.
    pub(crate) wiped_on_fork: bool,
}

// SAFETY: a region is an address range, which no thread owns. Code that shares one synchronizes access to its contents.
unsafe impl Send for Region {}

#[cfg(unix)]
impl Region {
    pub(crate) fn map() -> Result<Self, Error> {
        use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mlock, mmap_anonymous, mprotect};

        let guard_bytes = rustix::param::page_size();
        let mapped_bytes = guard_bytes + REGION_BYTES + guard_bytes;
        // SAFETY: a new private mapping, at an address that the system chooses, touches nothing that exists.
        let mapping =
            unsafe { mmap_anonymous(std::ptr::null_mut(), mapped_bytes, ProtFlags::empty(), MapFlags::PRIVATE) };
        let mapping = mapping.map_err(|_| Error::OutOfMemory)?.cast::<u8>();
        // SAFETY: `guard_bytes` is inside the mapping of `mapped_bytes`.
        let start = unsafe { mapping.add(guard_bytes) };
        // SAFETY: the range is aligned to pages and inside the new mapping, and nobody else knows of it.
        let opened = unsafe { mprotect(start.cast(), REGION_BYTES, MprotectFlags::READ | MprotectFlags::WRITE) };
        if opened.is_err() {
            // SAFETY: nobody else knows of the mapping.
            let _ = unsafe { rustix::mm::munmap(mapping.cast(), mapped_bytes) };
            return Err(Error::OutOfMemory);
        }
        let wiped_on_fork = Self::advise(start);
        // SAFETY: the range is mapped and readable.
        if unsafe { mlock(start.cast(), REGION_BYTES) }.is_err() {
            note_refusal(RefusedProtection::Lock);
        }
        let start = NonNull::new(start).ok_or(Error::OutOfMemory)?;
        Ok(Self { start, wiped_on_fork })
    }

    /// Gives the memory back. No part of it may be in use.
    pub(crate) fn unmap(self) {
        let guard_bytes = rustix::param::page_size();
        let mapping = self.start.as_ptr().wrapping_sub(guard_bytes);
        // SAFETY: `map` mapped this range, and no part of it is in use.
        let _ = unsafe { rustix::mm::munmap(mapping.cast(), guard_bytes + REGION_BYTES + guard_bytes) };
    }

    /// Keeps the region out of core dumps and forked children. Returns whether the latter succeeded.
    #[cfg(target_os = "linux")]
    fn advise(start: *mut u8) -> bool {
        use rustix::mm::{Advice, madvise};
        // SAFETY: this advice changes core dumps, and nothing in this process.
        if unsafe { madvise(start.cast(), REGION_BYTES, Advice::LinuxDontDump) }.is_err() {
            note_refusal(RefusedProtection::CoreDumpExclusion);
        }
        // SAFETY: this advice changes forked children, and nothing in this process.
        unsafe { madvise(start.cast(), REGION_BYTES, Advice::LinuxWipeOnFork) }.is_ok()
    }

    #[cfg(not(target_os = "linux"))]
    fn advise(_start: *mut u8) -> bool {
        false
    }
}

#[cfg(not(unix))]
impl Region {
    pub(crate) fn map() -> Result<Self, Error> {
        use std::alloc::{GlobalAlloc, Layout, System};

        let Ok(layout) = Layout::from_size_align(REGION_BYTES, 4096) else { return Err(Error::OutOfMemory) };
        // SAFETY: the layout is not of size zero.
        let start = NonNull::new(unsafe { System.alloc_zeroed(layout) }).ok_or(Error::OutOfMemory)?;
        Ok(Self { start, wiped_on_fork: false })
    }

    /// Does nothing: on these systems the memory stays allocated.
    pub(crate) fn unmap(self) {}
}

/// Checks that the process can map `bytes` more now, by mapping them.
///
/// Call it before work whose allocations would end the process if they failed, as near a limit like RLIMIT_AS.
#[cfg(unix)]
pub(crate) fn require_headroom(bytes: usize) -> Result<(), Error> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
    // SAFETY: a new private mapping, at an address that the system chooses, touches nothing that exists.
    let mapping = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::empty(), MapFlags::PRIVATE) };
    // SAFETY: nobody else knows of the mapping.
    let _ = unsafe { munmap(mapping.map_err(|_| Error::OutOfMemory)?, bytes) };
    Ok(())
}

/// Checks nothing on this system.
#[cfg(not(unix))]
pub(crate) fn require_headroom(_bytes: usize) -> Result<(), Error> {
    Ok(())
}
