//! The one place of a process where private keys live.
//!
//! Protecting memory key by key costs more than making a key, so keys share regions that are protected once. An arena
//! belongs to the process that made it. A forked child finds it wiped and starts one of its own. The child touches no
//! lock of the old one: a thread that does not exist in the child may have held it at the fork.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zeroize::Zeroize;

use crate::deadlines::Deadlines;
use crate::error::Error;
use crate::memory::{REGION_BYTES, Region};

pub(crate) const SECRET_BYTES: usize = 32;
pub(crate) const SLOTS_PER_REGION: usize = REGION_BYTES / SECRET_BYTES;

/// The first word of an arena's memory holds this until the kernel wipes it in a forked child.
const CANARY: u64 = 0x5ec2_e7a1_1fe0_c0de;

static CURRENT: AtomicPtr<Arena> = AtomicPtr::new(std::ptr::null_mut());

/// The place of one secret. Only the owner of a slot may touch the memory behind it.
pub(crate) struct Slot(NonNull<[u8; SECRET_BYTES]>);

// SAFETY: a slot is exclusive access to memory that is never unmapped; it may move between threads.
unsafe impl Send for Slot {}
// SAFETY: a shared slot lends only shared access to its bytes.
unsafe impl Sync for Slot {}

impl Slot {
    pub(crate) fn bytes(&self) -> &[u8; SECRET_BYTES] {
        // SAFETY: the memory stays mapped for as long as the process lives, and the kernel zeroed it at first. A writer
        // would hold `&mut self`.
        unsafe { self.0.as_ref() }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; SECRET_BYTES] {
        // SAFETY: as in `bytes`; `&mut self` is the only access.
        unsafe { self.0.as_mut() }
    }
}

pub(crate) struct Arena {
    /// The first word of the first region, which no slot covers.
    canary: NonNull<AtomicU64>,
    wiped_on_fork: bool,
    owner_pid: u32,
    free: Mutex<Vec<Slot>>,
    /// When some of its secrets are erased.
    pub(crate) deadlines: Deadlines,
}

// SAFETY: the canary is an atomic in memory that is never unmapped; the other fields are `Send` and `Sync`.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Returns this process's arena.
    pub(crate) fn current() -> Result<&'static Self, Error> {
        loop {
            let seen = CURRENT.load(Ordering::Acquire);
            // SAFETY: a published arena is never freed.
            match unsafe { seen.as_ref() } {
                Some(arena) if arena.belongs_to_this_process() => return Ok(arena),
                _ => {}
            }
            let new = Box::into_raw(Box::new(Self::new()?));
            if CURRENT.compare_exchange(seen, new, Ordering::AcqRel, Ordering::Acquire).is_err() {
                // SAFETY: another thread published its arena first, so nobody has seen this one. Its region stays
                // mapped: 64 KiB, at most once for each thread in the race.
                drop(unsafe { Box::from_raw(new) });
            }
        }
    }

    fn new() -> Result<Self, Error> {
        let region = Region::map()?;
        let mut free = Vec::new();
        // The canary lies where the first slot would be.
        add_slots(&mut free, std::slice::from_ref(&region), 1)?;
        let canary = region.start.cast::<AtomicU64>();
        // SAFETY: the region is zeroed and aligned to a page, and nobody else knows of it yet.
        unsafe { canary.as_ref() }.store(CANARY, Ordering::Relaxed);
        Ok(Self {
            canary,
            wiped_on_fork: region.wiped_on_fork,
            owner_pid: std::process::id(),
            free: Mutex::new(free),
            deadlines: Deadlines::new(),
        })
    }

    pub(crate) fn belongs_to_this_process(&self) -> bool {
        if self.wiped_on_fork {
            // SAFETY: the canary's memory is never unmapped.
            unsafe { self.canary.as_ref() }.load(Ordering::Relaxed) == CANARY
        } else {
            self.owner_pid == std::process::id()
        }
    }

    pub(crate) fn take(&self) -> Result<Slot, Error> {
        let mut free = self.lock_free_slots();
        if free.is_empty() {
            add_regions(&mut free, 1)?;
        }
        free.pop().ok_or(Error::OutOfMemory)
    }

    pub(crate) fn give_back(&self, mut slot: Slot) {
        slot.bytes_mut().zeroize();
        // This never reallocates: `add_slots` reserved room for every slot.
        self.lock_free_slots().push(slot);
    }

    fn lock_free_slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Maps enough memory for `count` more secrets. On failure nothing changes.
pub(crate) fn reserve_secrets(count: usize) -> Result<(), Error> {
    let mut free = Arena::current()?.lock_free_slots();
    let missing = count.saturating_sub(free.len());
    add_regions(&mut free, missing.div_ceil(SLOTS_PER_REGION))
}

/// Maps `count` regions and adds their slots to the free ones. On failure nothing changes.
fn add_regions(free: &mut Vec<Slot>, count: usize) -> Result<(), Error> {
    let mut regions = Vec::new();
    regions.try_reserve_exact(count).map_err(|_| Error::OutOfMemory)?;
    let added = (0..count)
        .try_for_each(|_| Region::map().map(|region| regions.push(region)))
        .and_then(|()| add_slots(free, &regions, 0));
    if added.is_err() {
        regions.into_iter().for_each(Region::unmap);
    }
    added
}

/// Adds the regions' slots to the free ones, except the first `reserved` of each.
///
/// The list gets room for every slot that exists, so that giving one back never allocates. On failure nothing changes.
fn add_slots(free: &mut Vec<Slot>, regions: &[Region], reserved: usize) -> Result<(), Error> {
    let all_slots = free.capacity() + regions.len() * SLOTS_PER_REGION;
    free.try_reserve_exact(all_slots - free.len()).map_err(|_| Error::OutOfMemory)?;
    for region in regions {
        let first = region.start.cast::<[u8; SECRET_BYTES]>();
        // SAFETY: every offset is inside the region.
        free.extend((reserved..SLOTS_PER_REGION).rev().map(|index| Slot(unsafe { first.add(index) })));
    }
    Ok(())
}

/// The process that made something of which a forked child would get a copy: message keys, a counter of nonces, a lock.
pub struct HomeProcess(&'static Arena);

impl HomeProcess {
    /// Names this process.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn current() -> Result<Self, Error> {
        Ok(Self(Arena::current()?))
    }

    /// Checks that this is still the process.
    ///
    /// # Errors
    /// [`Error::KeyErased`] in a forked child: it would seal other messages under the same nonces.
    pub fn require(&self) -> Result<(), Error> {
        if self.0.belongs_to_this_process() { Ok(()) } else { Err(Error::KeyErased) }
    }
}
