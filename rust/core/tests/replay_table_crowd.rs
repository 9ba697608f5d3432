//! Ten million requests, and as many replays, to one table of threads and processes, of which one is killed.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use std::{env, ptr, slice, thread};

use server_keys_core::{ReplayTable, Sight};

const IDS: usize = 10_000_000;
/// All of them offer all ids, each in an order of its own. Even ones go up, odd ones go down.
const CHILD_ORDER: usize = 0;
const THREAD_ORDERS: [usize; 2] = [1, 2];
const VICTIM_ORDER: usize = 4;
/// The variable that tells a child the descriptors of the table and of the tally, and its order.
const TOLD: &str = "SERVER_KEYS_TEST_CHILD";

/// How often each id was new to somebody. All processes see one memory.
struct Tally(&'static [AtomicU8]);

impl Tally {
    fn of(file: &OwnedFd) -> Self {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping of a file of this length, which stays until the process ends. It is read and written by
        // atomic operations only.
        let counts = unsafe {
            let start = mmap(ptr::null_mut(), IDS, protection, MapFlags::SHARED, file, 0).unwrap();
            slice::from_raw_parts(start.cast::<AtomicU8>(), IDS)
        };
        Self(counts)
    }

    fn with(&self, count: u8) -> usize {
        self.0.iter().filter(|found| found.load(Ordering::Relaxed) == count).count()
    }
}

/// Offers all ids. Each order begins somewhere else.
fn offer_all(table: &ReplayTable, tally: &Tally, order: usize) {
    let begin = order * (IDS / 5);
    for step in 0..IDS {
        let id = if order.is_multiple_of(2) { begin + step } else { begin + IDS - step } % IDS;
        if table.add(&(id as u64).to_le_bytes()) == Ok(Sight::First) {
            tally.0[id].fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn memory_file(name: &str) -> OwnedFd {
    // Without CLOEXEC, so that children have it.
    rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::empty()).unwrap()
}

fn start_child(table: &OwnedFd, tally: &OwnedFd, order: usize) -> Child {
    Command::new(env::current_exe().unwrap())
        .env(TOLD, format!("{} {} {order}", table.as_raw_fd(), tally.as_raw_fd()))
        .spawn()
        .unwrap()
}

fn run_child(told: &str) {
    let told: Vec<usize> = told.split(' ').map(|number| number.parse().unwrap()).collect();
    let [table, tally] = [told[0], told[1]].map(|descriptor| {
        // SAFETY: the parent has left this descriptor open for its child, who has no other use for it.
        unsafe { OwnedFd::from_raw_fd(RawFd::try_from(descriptor).unwrap()) }
    });
    offer_all(&ReplayTable::open_shared(table).unwrap(), &Tally::of(&tally), told[2]);
}

/// Returns how much memory this process has in pages that are its own: those of files are not among them.
fn own_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn of_threads_and_processes_exactly_one_is_the_first_with_each_id_also_if_one_is_killed() {
    if let Ok(told) = env::var(TOLD) {
        return run_child(&told);
    }
    let (file, counts) = (memory_file("table"), memory_file("tally"));
    File::from(counts.try_clone().unwrap()).set_len(IDS as u64).unwrap();
    let table = ReplayTable::make_shared(file.try_clone().unwrap(), IDS).unwrap();
    let (tally, length) = (Tally::of(&counts), File::from(file.try_clone().unwrap()).metadata().unwrap().len());
    let before = own_bytes();

    thread::scope(|scope| {
        let mut victim = start_child(&file, &counts, VICTIM_ORDER);
        let mut child = start_child(&file, &counts, CHILD_ORDER);
        for order in THREAD_ORDERS {
            let (table, tally) = (&table, &tally);
            scope.spawn(move || offer_all(table, tally, order));
        }
        // It begins where nobody else does.
        let of_victim = &tally.0[VICTIM_ORDER * (IDS / 5)..];
        while of_victim[100_000].load(Ordering::Relaxed) == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        victim.kill().unwrap();
        assert_eq!(victim.wait().unwrap().signal(), Some(libc::SIGKILL), "it had ended already");
        assert!(child.wait().unwrap().success());
    });

    // Whoever was killed may have been about to say that one was new, or about to count it.
    assert!(tally.with(1) >= IDS - 1 && tally.with(1) + tally.with(0) == IDS);
    assert!((IDS - 1..=IDS).contains(&table.used()));
    for id in 0..IDS as u64 {
        assert_eq!(table.add(&id.to_le_bytes()), Ok(Sight::Again));
    }
    assert!(own_bytes() < before + (8 << 20), "adding takes memory");
    assert_eq!(File::from(file).metadata().unwrap().len(), length);
}
