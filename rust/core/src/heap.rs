//! A heap that forgets.

use std::alloc::{GlobalAlloc, Layout, System};

use zeroize::Zeroize;

/// The system's allocator, except that it wipes every block before it gives it back.
///
/// Libraries below this crate keep intermediate values of secret computations in heap buffers that they free unwiped
/// (the batch conversion of curve points is one). Installed as the global allocator of the final library, this reaches
/// all of them.
#[derive(Debug)]
pub struct WipingAllocator;

// SAFETY: every block comes from `System` and goes back to it with the layout it came with; what happens in between is a
// write to memory that its owner has given up. `realloc` is the trait's own: a new block, a copy, and `dealloc` of the old.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `alloc`'s contract, which is `System`'s too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller owns these `layout.size()` bytes and will not read them again; `MaybeUninit` allows for
        // bytes that were never written.
        unsafe { std::slice::from_raw_parts_mut(block.cast::<std::mem::MaybeUninit<u8>>(), layout.size()) }.zeroize();
        // SAFETY: the caller passes the block's own layout.
        unsafe { System.dealloc(block, layout) }
    }
}
