//! The requests that were seen since a key pair was made: what refuses a sealed request that somebody sends again.
//!
//! A table of fixed size with open addressing. Nothing is ever taken out of it, so an insertion is one compare-and-swap
//! of one empty slot, and of all threads and processes that insert one id exactly one finds that it is new: they all walk
//! the same slots in the same order. Whoever is killed on the way leaves either nothing or a whole id there.
//!
//! Clients choose what identifies their requests. So each table has a secret of its own, and holds SipHash-2-4 of the id
//! under that secret: a PRF for whoever does not know it. Nobody can choose ids that lie side by side in the table, which
//! would make each look at it a long walk, or ids that the table takes for each other.
//!
//! What it holds has 64 bits. That two of 2^18 ids agree in them has a chance of 2^-29, and the second one would be refused.

use std::fmt;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use siphasher::sip::SipHasher24;

use crate::error::Error;
use crate::replay_memory::ReplayMemory;
use crate::replay_table_fault::ReplayTableFault;

/// The largest number of ids in one table: 4 GiB.
pub const MAX_REPLAY_TABLE_CAPACITY: usize = 1 << 28;
/// What [`ReplayTable::own`] is usually given: 4 MiB.
pub const DEFAULT_REPLAY_TABLE_CAPACITY: usize = 1 << 18;
/// The shortest id. A shorter one would be one that others have, too.
pub const SHORTEST_REQUEST_ID_BYTES: usize = 8;
/// The longest id: an X25519 public key.
pub const LONGEST_REQUEST_ID_BYTES: usize = 32;

const MAGIC: u64 = u64::from_le_bytes(*b"skreplay");
const VERSION: u64 = 1;
/// Half of the slots stay empty, so that the next empty one is two or three slots away on average.
const SLOTS_PER_ID: usize = 2;
const SLOT_BYTES: usize = size_of::<AtomicU64>();
const HEADER_BYTES: usize = size_of::<Header>();
const EMPTY: u64 = 0;

/// The beginning of a table. The count has a cache line of its own, because it changes.
#[repr(C, align(64))]
struct Header {
    magic: AtomicU64,
    version: AtomicU64,
    capacity: AtomicU64,
    secret: [AtomicU64; 2],
    _reserved: [AtomicU64; 3],
    used: AtomicU64,
    _rest: [AtomicU64; 7],
}

/// What a table says of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It was not there, and is now.
    First,
    /// It is there already.
    Again,
}

/// The ids of requests. Any number of threads may use it, and of processes, where it lies in a file.
pub struct ReplayTable {
    memory: ReplayMemory,
    capacity: usize,
    hasher: SipHasher24,
}

impl ReplayTable {
    /// Makes an empty table for at most `capacity` ids, in memory of this process. It takes all of it now.
    ///
    /// # Errors
    /// [`ReplayTableFault::Capacity`], [`Error::Entropy`], [`Error::OutOfMemory`].
    pub fn own(capacity: usize) -> Result<Self, Error> {
        let memory = ReplayMemory::own(bytes_for(capacity)?)?;
        Self::begin(memory, capacity)
    }

    /// Makes an empty table in an empty file. Nobody else may have opened the file yet.
    ///
    /// # Errors
    /// [`ReplayTableFault::Capacity`], [`ReplayTableFault::NotEmpty`]; [`ReplayTableFault::Refused`] if the file system
    /// has no room for all of it; [`ReplayTableFault::NotShareable`]; [`Error::Entropy`].
    #[cfg(unix)]
    pub fn make_shared(file: std::os::fd::OwnedFd, capacity: usize) -> Result<Self, Error> {
        let bytes = bytes_for(capacity)?;
        let length = ReplayMemory::length_of(&file)?;
        if length != 0 {
            return Err(ReplayTableFault::NotEmpty(length).into());
        }
        crate::file_room::allocate(&file, bytes)?;
        Self::begin(ReplayMemory::of_file(file, bytes)?, capacity)
    }

    /// Opens the table that another process, or this one, made in a file.
    ///
    /// # Errors
    /// [`ReplayTableFault::NotATable`], [`ReplayTableFault::Refused`].
    #[cfg(unix)]
    pub fn open_shared(file: std::os::fd::OwnedFd) -> Result<Self, Error> {
        let length = usize::try_from(ReplayMemory::length_of(&file)?).map_err(|_| ReplayTableFault::NotATable)?;
        let capacity = length.saturating_sub(HEADER_BYTES) / SLOT_BYTES / SLOTS_PER_ID;
        if bytes_for(capacity) != Ok(length) {
            return Err(ReplayTableFault::NotATable.into());
        }
        let mut table = Self { memory: ReplayMemory::of_file(file, length)?, capacity, hasher: SipHasher24::new() };
        let header = table.header();
        let is_table = header.magic.load(Ordering::Acquire) == MAGIC
            && header.version.load(Ordering::Relaxed) == VERSION
            && header.capacity.load(Ordering::Relaxed) == capacity as u64
            && header.used.load(Ordering::Relaxed) <= (capacity * SLOTS_PER_ID) as u64;
        if !is_table {
            return Err(ReplayTableFault::NotATable.into());
        }
        let [first, second] = [0, 1].map(|word| header.secret[word].load(Ordering::Relaxed));
        table.hasher = SipHasher24::new_with_keys(first, second);
        Ok(table)
    }

    /// Adds the id of a request, and says whether it is there for the first time.
    ///
    /// # Errors
    /// [`ReplayTableFault::Full`] if it is new and there is no room for it; [`ReplayTableFault::Lost`] if the table's file
    /// is no longer what it was; [`ReplayTableFault::IdLength`].
    pub fn add(&self, id: &[u8]) -> Result<Sight, ReplayTableFault> {
        let tag = self.tag_of(id)?;
        self.memory.require_lately()?;
        self.require_begun()?;
        let slots = self.slots();
        // The high bits of the product are uniform over the slots, whatever their number.
        let home = ((u128::from(tag) * slots.len() as u128) >> 64) as usize;
        let (before, from_home) = slots.split_at(home);
        for slot in from_home.iter().chain(before) {
            let mut found = slot.load(Ordering::Relaxed);
            if found == EMPTY && self.used() >= self.capacity {
                // Whoever added the last one may have added this one, here, a moment ago.
                found = slot.load(Ordering::Relaxed);
                if found == EMPTY {
                    return Err(ReplayTableFault::Full);
                }
            }
            if found == EMPTY {
                match slot.compare_exchange(EMPTY, tag, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        self.header().used.fetch_add(1, Ordering::Release);
                        return Ok(Sight::First);
                    }
                    // Another one was faster, perhaps with the same id.
                    Err(theirs) => found = theirs,
                }
            }
            if found == tag {
                return Ok(Sight::Again);
            }
        }
        Err(ReplayTableFault::Full)
    }

    /// Checks that what the table lies in is still what it was.
    ///
    /// # Errors
    /// [`ReplayTableFault::Lost`].
    pub fn require(&self) -> Result<(), ReplayTableFault> {
        self.memory.require()?;
        self.require_begun()
    }

    fn require_begun(&self) -> Result<(), ReplayTableFault> {
        // A file that was cut short and has its length again holds zeros.
        if self.header().magic.load(Ordering::Relaxed) == MAGIC { Ok(()) } else { Err(ReplayTableFault::Lost) }
    }

    /// Returns how many ids the table holds. Threads that add the last ones at the same time may go beyond the capacity,
    /// by one each. A process that is killed may leave one uncounted.
    pub fn used(&self) -> usize {
        usize::try_from(self.header().used.load(Ordering::Acquire)).unwrap_or(usize::MAX)
    }

    /// Returns how many ids the table takes.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    fn begin(memory: ReplayMemory, capacity: usize) -> Result<Self, Error> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret)?;
        let table = Self { memory, capacity, hasher: SipHasher24::new_with_key(&secret) };
        let header = table.header();
        for (word, bytes) in header.secret.iter().zip(secret.as_chunks::<8>().0) {
            word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        header.version.store(VERSION, Ordering::Relaxed);
        header.capacity.store(capacity as u64, Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Release);
        Ok(table)
    }

    /// Returns what the table holds for an id. It is never that of an empty slot.
    fn tag_of(&self, id: &[u8]) -> Result<u64, ReplayTableFault> {
        if !(SHORTEST_REQUEST_ID_BYTES..=LONGEST_REQUEST_ID_BYTES).contains(&id.len()) {
            let (shortest, longest) = (SHORTEST_REQUEST_ID_BYTES, LONGEST_REQUEST_ID_BYTES);
            return Err(ReplayTableFault::IdLength { length: id.len(), shortest, longest });
        }
        Ok(self.hasher.hash(id).max(EMPTY + 1))
    }

    fn header(&self) -> &Header {
        // SAFETY: the memory begins with a header, aligned to a page, and lives as long as this object. All of a header is
        // atomic, so that others may write it meanwhile.
        unsafe { self.memory.start().cast::<Header>().as_ref() }
    }

    fn slots(&self) -> &[AtomicU64] {
        // SAFETY: behind the header the memory has so many slots, and lives as long as this object. They are atomic.
        unsafe {
            let first = self.memory.start().add(HEADER_BYTES).cast::<AtomicU64>();
            slice::from_raw_parts(first.as_ptr(), self.capacity * SLOTS_PER_ID)
        }
    }
}

impl fmt::Debug for ReplayTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the secret.
        f.debug_struct("ReplayTable").field("used", &self.used()).field("capacity", &self.capacity).finish()
    }
}

/// Returns the length of a table for so many ids.
fn bytes_for(capacity: usize) -> Result<usize, ReplayTableFault> {
    if !(1..=MAX_REPLAY_TABLE_CAPACITY).contains(&capacity) {
        return Err(ReplayTableFault::Capacity { asked: capacity, limit: MAX_REPLAY_TABLE_CAPACITY });
    }
    Ok(HEADER_BYTES + capacity * SLOTS_PER_ID * SLOT_BYTES)
}
