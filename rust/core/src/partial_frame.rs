//! The part of a frame that has arrived.
//!
//! A long one lies in pages of its own, which go back to the system at once. From the heap, frames that grow beside each
//! other would leave holes between them: a thousand of them took twice the memory that they held, and it stayed taken.

use crate::error::Error;
use crate::primitives::TAG_BYTES;

/// So much memory is reserved at once for a frame that arrives in pieces, and kept for those that follow it. Getting a
/// frame's memory from the allocator each time can take longer than decrypting the frame. Most clients and servers make
/// frames of at most 64 KiB, or one of a whole body.
pub(crate) const RESERVED_AT_ONCE_BYTES: usize = 64 * 1024 + TAG_BYTES;

/// Long frames grow in such steps, and by a quarter, so that there are few.
const STEP_BYTES: usize = 64 * 1024;

/// Holds the part of a frame that has arrived.
pub(crate) enum PartialFrame {
    Short(Vec<u8>),
    Long(LongBuffer),
}

impl PartialFrame {
    /// Makes one that takes no memory.
    pub(crate) fn new() -> Self {
        Self::Short(Vec::new())
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short(bytes) => bytes,
            Self::Long(bytes) => bytes.as_slice(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how much memory it takes.
    pub(crate) fn capacity(&self) -> usize {
        match self {
            Self::Short(bytes) => bytes.capacity(),
            Self::Long(bytes) => bytes.capacity(),
        }
    }

    /// Adds what has arrived of a frame of `frame_bytes`. It gets room for as much as is reserved at once, and then for a
    /// quarter more than has arrived, but never beyond the frame.
    pub(crate) fn extend(&mut self, more: &[u8], frame_bytes: usize) -> Result<(), Error> {
        let needed = self.len() + more.len();
        if needed > RESERVED_AT_ONCE_BYTES {
            let roomy = (needed + needed / 4).next_multiple_of(STEP_BYTES).min(frame_bytes);
            return self.long(needed, roomy)?.extend(more);
        }
        let Self::Short(bytes) = self else { return Err(Error::BufferLength) };
        if needed > bytes.capacity() {
            let capacity = RESERVED_AT_ONCE_BYTES.min(frame_bytes);
            bytes.try_reserve_exact(capacity - bytes.len()).map_err(|_| Error::OutOfMemory)?;
        }
        bytes.extend_from_slice(more);
        Ok(())
    }

    /// Empties it. Frames that follow must not keep a large one's memory.
    pub(crate) fn clear(&mut self) {
        match self {
            Self::Short(bytes) => bytes.clear(),
            Self::Long(_) => *self = Self::new(),
        }
    }

    fn long(&mut self, needed: usize, roomy: usize) -> Result<&mut LongBuffer, Error> {
        if let Self::Short(bytes) = self {
            let mut long = LongBuffer::with_capacity(roomy)?;
            long.extend(bytes)?;
            *self = Self::Long(long);
        }
        let Self::Long(bytes) = self else { return Err(Error::BufferLength) };
        if needed > bytes.capacity() {
            bytes.grow(roomy)?;
        }
        Ok(bytes)
    }
}

#[cfg(target_os = "linux")]
pub(crate) use pages::LongBuffer;

#[cfg(not(target_os = "linux"))]
pub(crate) use heap::LongBuffer;

#[cfg(target_os = "linux")]
mod pages {
    use std::ptr::NonNull;

    use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap_anonymous, mremap, munmap};

    use crate::error::Error;

    /// Bytes in pages of their own. They grow without being copied.
    pub(crate) struct LongBuffer {
        start: NonNull<u8>,
        capacity: usize,
        length: usize,
    }

    // SAFETY: it owns its pages, as a `Vec` owns its block.
    unsafe impl Send for LongBuffer {}

    impl LongBuffer {
        pub(crate) fn with_capacity(capacity: usize) -> Result<Self, Error> {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a new private mapping, at an address that the system chooses, touches nothing that exists.
            let start = unsafe { mmap_anonymous(std::ptr::null_mut(), capacity, access, MapFlags::PRIVATE) };
            let start = NonNull::new(start.map_err(|_| Error::OutOfMemory)?.cast()).ok_or(Error::OutOfMemory)?;
            Ok(Self { start, capacity, length: 0 })
        }

        pub(crate) fn capacity(&self) -> usize {
            self.capacity
        }

        pub(crate) fn as_slice(&self) -> &[u8] {
            // SAFETY: so many bytes of the mapping were written, and `self` is borrowed as long as the slice lives.
            unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
        }

        pub(crate) fn grow(&mut self, capacity: usize) -> Result<(), Error> {
            // SAFETY: the mapping is this buffer's own, and nothing borrows from it now.
            let start = unsafe { mremap(self.start.as_ptr().cast(), self.capacity, capacity, MremapFlags::MAYMOVE) };
            self.start = NonNull::new(start.map_err(|_| Error::OutOfMemory)?.cast()).ok_or(Error::OutOfMemory)?;
            self.capacity = capacity;
            Ok(())
        }

        pub(crate) fn extend(&mut self, more: &[u8]) -> Result<(), Error> {
            if more.len() > self.capacity - self.length {
                return Err(Error::BufferLength);
            }
            // SAFETY: there is room for these bytes behind the first `length` ones, and `more` lies elsewhere: nobody
            // else writes to the mapping.
            unsafe { self.start.add(self.length).copy_from_nonoverlapping(NonNull::from(more).cast(), more.len()) };
            self.length += more.len();
            Ok(())
        }
    }

    impl Drop for LongBuffer {
        fn drop(&mut self) {
            // SAFETY: the mapping is this buffer's own, and nothing borrows from it any more. The system wipes pages
            // before it gives them to anybody else.
            let _ = unsafe { munmap(self.start.as_ptr().cast(), self.capacity) };
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod heap {
    use crate::error::Error;

    /// Bytes on the heap.
    pub(crate) struct LongBuffer(Vec<u8>);

    impl LongBuffer {
        pub(crate) fn with_capacity(capacity: usize) -> Result<Self, Error> {
            let mut bytes = Self(Vec::new());
            bytes.grow(capacity)?;
            Ok(bytes)
        }

        pub(crate) fn capacity(&self) -> usize {
            self.0.capacity()
        }

        pub(crate) fn as_slice(&self) -> &[u8] {
            &self.0
        }

        pub(crate) fn grow(&mut self, capacity: usize) -> Result<(), Error> {
            self.0.try_reserve_exact(capacity - self.0.len()).map_err(|_| Error::OutOfMemory)
        }

        pub(crate) fn extend(&mut self, more: &[u8]) -> Result<(), Error> {
            if more.len() > self.0.capacity() - self.0.len() {
                return Err(Error::BufferLength);
            }
            self.0.extend_from_slice(more);
            Ok(())
        }
    }
}
