//! Key pairs that are erased on time although nobody calls `erase`.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::thread::sleep;
use std::time::{Duration, Instant};

use server_keys_core::{KeyPair, generate_key_pairs};

const SOON: Duration = Duration::from_millis(100);
const LATER: Duration = Duration::from_secs(3600);

fn wait_until(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(10), "it never came true");
        sleep(Duration::from_millis(1));
    }
}

/// Says whether this process has the thread that erases.
#[cfg(target_os = "linux")]
fn has_thread() -> bool {
    let tasks = std::path::Path::new("/proc/self/task").read_dir().unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.into_iter().any(|name| name == "key-eraser\n")
}

// One test: the thread that it looks for is one for the whole process.
#[test]
#[cfg(target_os = "linux")]
fn a_pair_is_erased_at_its_deadline_and_not_before_by_a_thread_that_exists_while_there_are_deadlines() {
    let peer = KeyPair::generate().unwrap();
    assert!(!has_thread());

    let (soon, later, never) =
        (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let began = Instant::now();
    later.erase_in(LATER).unwrap();
    soon.erase_in(SOON).unwrap();
    wait_until(has_thread);
    for pair in [&later, &never] {
        pair.exchange(peer.public_key(), &mut [0; 32]).unwrap();
    }
    wait_until(|| soon.is_erased());
    assert!(began.elapsed() >= SOON);
    assert!(!later.is_erased() && !never.is_erased());

    // Neither a later deadline nor the same call again moves the one that is set.
    let moved = KeyPair::generate().unwrap();
    for delay in [LATER, SOON, LATER, Duration::MAX] {
        moved.erase_in(delay).unwrap();
    }
    wait_until(|| moved.is_erased());

    // A secret that is erased or dropped before its deadline needs the thread no more.
    assert!(has_thread());
    later.erase();
    wait_until(|| !has_thread());
    later.erase_in(SOON).unwrap();
    assert!(!has_thread());

    // The thread comes again with the next deadline.
    let pairs = generate_key_pairs(1000).unwrap();
    for (index, pair) in pairs.iter().enumerate() {
        pair.erase_in(if index % 2 == 0 { SOON } else { LATER }).unwrap();
    }
    wait_until(|| pairs.iter().step_by(2).all(KeyPair::is_erased));
    assert!(pairs.iter().skip(1).step_by(2).all(|pair| !pair.is_erased()));
    drop(pairs);
    wait_until(|| !has_thread());
}
