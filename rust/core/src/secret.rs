//! A secret in the arena: used, erased, and erased on time.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::arena::{Arena, SECRET_BYTES, Slot};
use crate::deadlines::Erase;
use crate::error::Error;

/// 32 secret bytes in the arena. [`Secret::erase`] and dropping wipe them; in a forked child the kernel does.
pub(crate) struct Secret {
    arena: &'static Arena,
    /// Readers hold the lock while they compute, so no reader is left when an erasure returns.
    held: RwLock<Held>,
}

enum Held {
    Alone(Slot),
    /// The arena's deadlines hold it, too. Only these secrets need an `Arc`, which the heap may have no room for: the
    /// many keys of one call get none.
    WithDeadline(Arc<Shared>),
    Erased,
}

impl Secret {
    /// Makes a secret of the bytes that `fill` writes. If `fill` fails, they are wiped.
    pub(crate) fn new(fill: impl FnOnce(&mut [u8; SECRET_BYTES]) -> Result<(), Error>) -> Result<Self, Error> {
        let arena = Arena::current()?;
        let mut slot = arena.take()?;
        match fill(slot.bytes_mut()) {
            Ok(()) => Ok(Self { arena, held: RwLock::new(Held::Alone(slot)) }),
            Err(error) => {
                arena.give_back(slot);
                Err(error)
            }
        }
    }

    /// Lends the bytes to `compute`. An [`erase`](Self::erase) by another thread waits until it returns.
    pub(crate) fn read<R>(&self, compute: impl FnOnce(&[u8; SECRET_BYTES]) -> R) -> Result<R, Error> {
        // Check before locking: in a forked child a thread that does not exist may hold the lock for ever.
        if !self.arena.belongs_to_this_process() {
            return Err(Error::KeyErased);
        }
        match &*self.held.read().unwrap_or_else(PoisonError::into_inner) {
            Held::Alone(slot) => Ok(compute(slot.bytes())),
            Held::WithDeadline(shared) => shared.read(compute),
            Held::Erased => Err(Error::KeyErased),
        }
    }

    pub(crate) fn is_erased(&self) -> bool {
        self.read(|_| ()).is_err()
    }

    /// Wipes the bytes, once every reader has finished.
    pub(crate) fn erase(&self) {
        if !self.arena.belongs_to_this_process() {
            return;
        }
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *held, Held::Erased) {
            Held::Alone(slot) => self.arena.give_back(slot),
            Held::WithDeadline(shared) => shared.erase(),
            Held::Erased => {}
        }
    }

    /// Has the bytes wiped after some time, by a thread of the arena. The earliest of several calls counts.
    ///
    /// # Errors
    /// [`Error::NoThread`]; the bytes are as they were.
    pub(crate) fn erase_in(&self, delay: Duration) -> Result<(), Error> {
        let Some(shared) = self.share() else { return Ok(()) };
        let shared = Arc::downgrade(&shared);
        self.arena.deadlines.add(delay, shared)
    }

    fn share(&self) -> Option<Arc<Shared>> {
        if !self.arena.belongs_to_this_process() {
            return None;
        }
        // A secret that is shared already need not wait for its readers.
        if let Held::WithDeadline(shared) = &*self.held.read().unwrap_or_else(PoisonError::into_inner) {
            return Some(Arc::clone(shared));
        }
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let shared = match std::mem::replace(&mut *held, Held::Erased) {
            Held::Alone(slot) => Arc::new(Shared { arena: self.arena, slot: RwLock::new(Some(slot)) }),
            Held::WithDeadline(shared) => shared,
            Held::Erased => return None,
        };
        *held = Held::WithDeadline(Arc::clone(&shared));
        Some(shared)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.erase();
    }
}

/// The slot of a secret that has a deadline.
struct Shared {
    arena: &'static Arena,
    slot: RwLock<Option<Slot>>,
}

impl Shared {
    fn read<R>(&self, compute: impl FnOnce(&[u8; SECRET_BYTES]) -> R) -> Result<R, Error> {
        let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().map(|slot| compute(slot.bytes())).ok_or(Error::KeyErased)
    }
}

impl Erase for Shared {
    fn erase(&self) {
        if let Some(slot) = self.slot.write().unwrap_or_else(PoisonError::into_inner).take() {
            self.arena.give_back(slot);
        }
    }

    fn is_erased(&self) -> bool {
        self.read(|_| ()).is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::SLOTS_PER_REGION;

    fn filled_with(byte: u8) -> Secret {
        Secret::new(|bytes| {
            bytes.fill(byte);
            Ok(())
        })
        .unwrap()
    }

    #[test]
    fn an_erased_slot_is_zero_before_anyone_gets_it_again() {
        let secret = filled_with(0xa5);
        let place = secret.read(|bytes| bytes.as_ptr() as usize).unwrap();
        secret.erase();
        assert_eq!(secret.read(|_| ()), Err(Error::KeyErased));
        let mut kept = Vec::new();
        let reused = loop {
            let mut seen = [1; SECRET_BYTES];
            let other = Secret::new(|bytes| {
                seen = *bytes;
                Ok(())
            })
            .unwrap();
            if other.read(|bytes| bytes.as_ptr() as usize).unwrap() == place {
                break seen;
            }
            kept.push(other);
        };
        assert_eq!(reused, [0; SECRET_BYTES]);
    }

    #[test]
    fn a_failed_fill_leaves_no_secret() {
        let mut place = std::ptr::null();
        let failed = Secret::new(|bytes| {
            bytes.fill(0xa5);
            place = bytes.as_ptr();
            Err(Error::OutOfMemory)
        });
        assert_eq!(failed.err(), Some(Error::OutOfMemory));
        let secrets: Vec<_> = (0..SLOTS_PER_REGION)
            .map(|_| Secret::new(|bytes| if *bytes == [0; 32] { Ok(()) } else { Err(Error::KeyErased) }))
            .collect();
        assert!(secrets.iter().all(Result::is_ok));
    }

    #[test]
    fn secrets_of_several_regions_do_not_overlap() {
        let secrets: Vec<_> = (0..3 * SLOTS_PER_REGION).map(|index| filled_with(index as u8)).collect();
        for (index, secret) in secrets.iter().enumerate() {
            assert!(secret.read(|bytes| *bytes == [index as u8; SECRET_BYTES]).unwrap());
        }
    }

    #[test]
    fn an_erasure_waits_for_a_reader() {
        let secret = filled_with(0xa5);
        let (reading, started) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let secret = &secret;
            let reader = scope.spawn(move || {
                secret.read(|bytes| {
                    reading.send(()).unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(50));
                    *bytes
                })
            });
            started.recv().unwrap();
            secret.erase();
            assert_eq!(reader.join().unwrap(), Ok([0xa5; SECRET_BYTES]));
        });
        assert!(secret.is_erased());
    }
}
