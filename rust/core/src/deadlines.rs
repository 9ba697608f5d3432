//! Erases secrets at their deadlines, by a thread of its own that waits for no event loop and no interpreter.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crate::error::Error;

/// The clock by which a thread waits stands still while the machine sleeps. So the thread wakes at least this often and
/// looks at the clock of the deadlines, which goes on.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Enough, although the thread-local variables of all libraries in the process take room from it.
const STACK_BYTES: usize = 256 * 1024;
/// The fewest entries that are searched for those whose secret is erased already.
const FEWEST_TO_SWEEP: usize = 64;

/// A secret that a deadline can erase.
pub(crate) trait Erase: Send + Sync {
    fn erase(&self);
    fn is_erased(&self) -> bool;
}

/// The secrets of one process that have a deadline. There is a thread for them while there are any.
pub(crate) struct Deadlines {
    queue: Mutex<Queue>,
    first_changed: Condvar,
}

struct Queue {
    entries: BinaryHeap<Reverse<Entry>>,
    sweep_at: usize,
    has_thread: bool,
}

struct Entry {
    at: Duration,
    secret: Weak<dyn Erase>,
}

impl Deadlines {
    pub(crate) fn new() -> Self {
        let queue = Queue { entries: BinaryHeap::new(), sweep_at: FEWEST_TO_SWEEP, has_thread: false };
        Self { queue: Mutex::new(queue), first_changed: Condvar::new() }
    }

    /// Has `secret` erased after `delay`, unless it is erased before.
    ///
    /// # Errors
    /// [`Error::NoThread`]; then nothing is erased.
    pub(crate) fn add(&'static self, delay: Duration, secret: Weak<dyn Erase>) -> Result<(), Error> {
        let at = boot_time().saturating_add(delay);
        let mut queue = self.lock();
        if !queue.has_thread {
            let builder = thread::Builder::new().name("key-eraser".to_owned()).stack_size(STACK_BYTES);
            builder.spawn(|| self.erase_on_time()).map_err(|_| Error::NoThread)?;
            queue.has_thread = true;
        }
        queue.sweep_when_full();
        let is_first = queue.entries.peek().is_none_or(|Reverse(first)| at < first.at);
        queue.entries.push(Reverse(Entry { at, secret }));
        if is_first {
            self.first_changed.notify_one();
        }
        Ok(())
    }

    fn erase_on_time(&self) {
        leave_signals_to_other_threads();
        let mut queue = self.lock();
        while let Some(at) = queue.next_deadline() {
            let now = boot_time();
            if now < at {
                let wait = LONGEST_WAIT.min(at - now);
                queue = self.first_changed.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let due = queue.entries.pop();
            // Erase unlocked: it waits for the readers of the secret.
            drop(queue);
            if let Some(secret) = due.and_then(|Reverse(entry)| entry.secret.upgrade()) {
                secret.erase();
            }
            queue = self.lock();
        }
        queue.has_thread = false;
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Returns the first deadline of a secret that is not erased yet.
    fn next_deadline(&mut self) -> Option<Duration> {
        while let Some(Reverse(entry)) = self.entries.peek() {
            if entry.is_open() {
                return Some(entry.at);
            }
            self.entries.pop();
        }
        None
    }

    /// Removes the entries of erased secrets, once there are twice as many entries as the last removal left.
    fn sweep_when_full(&mut self) {
        if self.entries.len() >= self.sweep_at {
            self.entries.retain(|Reverse(entry)| entry.is_open());
            self.sweep_at = FEWEST_TO_SWEEP.max(2 * self.entries.len());
        }
    }
}

impl Entry {
    fn is_open(&self) -> bool {
        self.secret.upgrade().is_some_and(|secret| !secret.is_erased())
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// Returns the time since the system started, on a clock that goes on while the machine sleeps if there is one.
#[cfg(unix)]
fn boot_time() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let now = clock_gettime(CLOCK);
    // Neither is negative on this clock.
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[cfg(not(unix))]
fn boot_time() -> Duration {
    static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    START.elapsed()
}

/// Blocks all signals in this thread, so that they interrupt a thread of the program that waits for them.
#[cfg(unix)]
fn leave_signals_to_other_threads() {
    let mut all = std::mem::MaybeUninit::uninit();
    // SAFETY: `sigfillset` initializes the set, and the mask is this thread's own.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
    }
}

#[cfg(not(unix))]
fn leave_signals_to_other_threads() {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, mpsc};

    use super::*;

    #[derive(Default)]
    struct Flag(AtomicBool);

    impl Erase for Flag {
        fn erase(&self) {
            self.0.store(true, Ordering::Release);
        }

        fn is_erased(&self) -> bool {
            self.0.load(Ordering::Acquire)
        }
    }

    #[test]
    fn what_is_erased_before_its_deadline_is_not_kept_until_then() {
        const IN_A_DAY: Duration = Duration::from_secs(24 * 3600);
        let deadlines: &Deadlines = Box::leak(Box::new(Deadlines::new()));
        let kept: Vec<_> = (0..10).map(|_| Arc::new(Flag::default())).collect();
        for secret in &kept {
            deadlines.add(IN_A_DAY, Arc::downgrade(secret) as Weak<dyn Erase>).unwrap();
        }
        for round in 0..10_000 {
            let secret = Arc::new(Flag::default());
            deadlines.add(IN_A_DAY, Arc::downgrade(&secret) as Weak<dyn Erase>).unwrap();
            if round % 2 == 0 {
                secret.erase();
            }
        }
        let mut queue = deadlines.lock();
        assert!(queue.entries.len() <= FEWEST_TO_SWEEP);
        queue.entries.retain(|Reverse(entry)| entry.is_open());
        assert_eq!(queue.entries.len(), kept.len());
    }

    struct Noted(usize, Mutex<mpsc::Sender<usize>>);

    impl Erase for Noted {
        fn erase(&self) {
            self.1.lock().unwrap().send(self.0).unwrap();
        }

        fn is_erased(&self) -> bool {
            false
        }
    }

    #[test]
    fn what_is_due_first_is_erased_first_whatever_the_order_in_which_it_came() {
        let deadlines: &Deadlines = Box::leak(Box::new(Deadlines::new()));
        let (sender, erased) = mpsc::channel();
        let kept: Vec<_> = (0..20)
            .map(|index| {
                let turn = 7 * index % 20;
                let secret = Arc::new(Noted(turn, Mutex::new(sender.clone())));
                let delay = Duration::from_millis(200 + 5 * turn as u64);
                deadlines.add(delay, Arc::downgrade(&secret) as Weak<dyn Erase>).unwrap();
                secret
            })
            .collect();
        let order: Vec<_> = erased.iter().take(kept.len()).collect();
        assert_eq!(order, (0..20).collect::<Vec<_>>());
    }
}
