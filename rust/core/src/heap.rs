//! A heap that keeps nothing of what was freed.

use std::alloc::{GlobalAlloc, Layout, System};

use zeroize::Zeroize;

/// The system's allocator, with every block wiped before it is freed.
///
/// Libraries below this crate free heap buffers with intermediate values of secret computations unwiped; the batch
/// conversion of curve points does. As the final library's global allocator, this one wipes all of them.
#[derive(Debug)]
pub struct WipingAllocator;

// SAFETY: every block comes from `System` and goes back to it with its own layout. In between, this only writes to
// memory that its owner has given up. `realloc` is the trait's default: a new block, a copy, and `dealloc` of the old
// one.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is also `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller owns these `layout.size()` bytes and will not read them again. Bytes that were never
        // written are valid as `MaybeUninit`.
        unsafe { std::slice::from_raw_parts_mut(block.cast::<std::mem::MaybeUninit<u8>>(), layout.size()) }.zeroize();
        // SAFETY: the caller passes the block's own layout.
        unsafe { System.dealloc(block, layout) }
    }
}
