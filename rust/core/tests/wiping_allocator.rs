//! Freed heap blocks keep nothing. The tests read them through /proc: reading them directly would be undefined
//! behaviour.
#![allow(clippy::unwrap_used)] // a test fails by panicking
#![cfg(target_os = "linux")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::os::unix::fs::FileExt;

use server_keys_core::WipingAllocator;

const PATTERN: [u8; 16] = *b"known and secret";
const BLOCK: Layout = match Layout::from_size_align(64 * 1024, 16) {
    Ok(layout) => layout,
    Err(_) => panic!("a power of two"),
};

/// Counts the pattern where a block was.
fn patterns_at(address: usize) -> usize {
    // Read to the stack: the heap would put a buffer where the block was.
    let mut memory = [0; BLOCK.size()];
    File::open("/proc/self/mem").unwrap().read_exact_at(&mut memory, address as u64).unwrap();
    memory.windows(PATTERN.len()).filter(|window| *window == PATTERN).count()
}

/// Allocates a block full of the pattern. It also allocates one behind it: then freeing the first leaves its pages
/// mapped.
fn full_block(heap: &impl GlobalAlloc) -> *mut u8 {
    // SAFETY: the layout is not of size zero.
    let (block, _barrier) = unsafe { (heap.alloc(BLOCK), heap.alloc(BLOCK)) };
    for offset in (0..BLOCK.size()).step_by(PATTERN.len()) {
        // SAFETY: inside the block, of which the pattern's length is a divisor.
        unsafe { block.add(offset).cast::<[u8; 16]>().write_volatile(PATTERN) };
    }
    block
}

#[test]
fn a_block_that_was_freed_or_moved_keeps_nothing() {
    let kept_by_system = full_block(&System);
    // SAFETY: allocated with this layout.
    unsafe { System.dealloc(kept_by_system, BLOCK) };
    assert!(
        patterns_at(kept_by_system.addr()) > 4000,
        "the system's allocator wipes by itself: this test proves nothing"
    );

    let freed = full_block(&WipingAllocator);
    assert_eq!(patterns_at(freed.addr()), 4096);
    // SAFETY: allocated with this layout.
    unsafe { WipingAllocator.dealloc(freed, BLOCK) };
    assert_eq!(patterns_at(freed.addr()), 0);

    let moved_from = full_block(&WipingAllocator);
    // SAFETY: allocated with this layout; the new size is not zero.
    let moved_to = unsafe { WipingAllocator.realloc(moved_from, BLOCK, 2 * BLOCK.size()) };
    assert_ne!(moved_from, moved_to);
    assert_eq!(patterns_at(moved_from.addr()), 0);
    assert_eq!(patterns_at(moved_to.addr()), 4096);
}
