//! One end of a message: one thread uses it at a time, until it is erased.

use std::sync::{Mutex, PoisonError, TryLockError};

use pyo3::prelude::*;
use server_keys_core::{Error, HomeProcess};

use crate::error::to_python;

/// A value behind a lock, until it is erased.
pub(crate) struct Exclusive<T> {
    home: HomeProcess,
    /// None once erased.
    value: Mutex<Option<T>>,
}

impl<T: Send> Exclusive<T> {
    pub(crate) fn new(value: T) -> PyResult<Self> {
        Ok(Self { home: HomeProcess::current().map_err(to_python)?, value: Mutex::new(Some(value)) })
    }

    /// Lends the value to `work`, which must not wait for the GIL: another thread may wait for the lock and hold the
    /// GIL.
    pub(crate) fn lend<R>(&self, work: impl FnOnce(&mut T) -> Result<R, Error>) -> Result<R, Error> {
        // Check before locking: in a forked child a thread that does not exist may hold the lock for ever.
        self.home.require()?;
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        work(value.as_mut().ok_or(Error::KeyErased)?)
    }

    /// Waits until no other thread uses the value, then drops it, which wipes its keys and buffers.
    pub(crate) fn erase(&self, py: Python<'_>) {
        let erased = match self.value.try_lock() {
            Ok(mut value) => value.take(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().take(),
            // In a forked child nobody would ever release the lock.
            Err(TryLockError::WouldBlock) if self.home.require().is_err() => None,
            Err(TryLockError::WouldBlock) => {
                py.detach(|| self.value.lock().unwrap_or_else(PoisonError::into_inner).take())
            }
        };
        // Drop it here, where the GIL is held: it may refer to Python objects.
        drop(erased);
    }
}
