//! The table of seen requests, as Python sees it.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use server_keys_core as core;

use crate::bytes_like::BytesLike;
use crate::error::to_python;

// The signatures below write the number out, so that Python shows it.
const _: () = assert!(core::DEFAULT_REPLAY_TABLE_CAPACITY == 262_144);

/// The requests that were seen since a key pair was made. See `_native.pyi`.
#[pyclass(frozen, module = "server_keys._native")]
pub(crate) struct ReplayTable(core::ReplayTable);

#[pymethods]
impl ReplayTable {
    #[new]
    #[pyo3(signature = (capacity = 262144))]
    fn new(capacity: usize) -> PyResult<Self> {
        Ok(Self(core::ReplayTable::own(capacity).map_err(to_python)?))
    }

    /// Make a table in an empty file that several processes may open afterwards, off the GIL.
    #[staticmethod]
    #[pyo3(signature = (descriptor, capacity = 262144))]
    fn make_shared(py: Python<'_>, descriptor: i32, capacity: usize) -> PyResult<Self> {
        let file = file::of_descriptor(descriptor)?;
        Ok(Self(py.detach(|| file::make(file, capacity)).map_err(to_python)?))
    }

    /// Open the table that somebody made in a file, off the GIL.
    #[staticmethod]
    fn open_shared(py: Python<'_>, descriptor: i32) -> PyResult<Self> {
        let file = file::of_descriptor(descriptor)?;
        Ok(Self(py.detach(|| file::open(file)).map_err(to_python)?))
    }

    /// Add the id of a request. Return whether it is there for the first time.
    fn add(&self, request_id: BytesLike<'_>) -> PyResult<bool> {
        // It waits for nobody, and takes less than releasing the GIL does.
        let sight = self.0.add(request_id.as_bytes()).map_err(|fault| to_python(fault.into()))?;
        Ok(sight == core::Sight::First)
    }

    /// Check that the file is still what it was.
    fn require(&self) -> PyResult<()> {
        self.0.require().map_err(|fault| to_python(fault.into()))
    }

    /// How many ids it holds.
    #[getter]
    fn used(&self) -> usize {
        self.0.used()
    }

    /// How many ids it takes.
    #[getter]
    fn capacity(&self) -> usize {
        self.0.capacity()
    }

    fn __repr__(&self) -> String {
        format!("<ReplayTable {} of {}>", self.0.used(), self.0.capacity())
    }

    #[pyo3(signature = (_protocol, /))]
    fn __reduce_ex__(&self, _protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(PyTypeError::new_err("a ReplayTable cannot be pickled or copied: there would be two that know half each"))
    }
}

#[cfg(unix)]
mod file {
    use std::os::fd::{BorrowedFd, OwnedFd};

    use pyo3::prelude::*;
    use server_keys_core::{Error, ReplayTable};

    /// Returns a descriptor of our own for the file, so that the caller may close its own.
    pub(super) fn of_descriptor(descriptor: i32) -> PyResult<OwnedFd> {
        if descriptor < 0 {
            return Err(pyo3::exceptions::PyValueError::new_err(format!("{descriptor} is no file descriptor")));
        }
        // SAFETY: it is not -1. If it is not open, the system says so.
        Ok(unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()?)
    }

    pub(super) fn make(file: OwnedFd, capacity: usize) -> Result<ReplayTable, Error> {
        ReplayTable::make_shared(file, capacity)
    }

    pub(super) fn open(file: OwnedFd) -> Result<ReplayTable, Error> {
        ReplayTable::open_shared(file)
    }
}

#[cfg(not(unix))]
mod file {
    use pyo3::prelude::*;
    use server_keys_core::{Error, ReplayTable, ReplayTableFault};

    pub(super) struct NoFile;

    pub(super) fn of_descriptor(_descriptor: i32) -> PyResult<NoFile> {
        Ok(NoFile)
    }

    pub(super) fn make(_file: NoFile, _capacity: usize) -> Result<ReplayTable, Error> {
        Err(ReplayTableFault::NotShareable.into())
    }

    pub(super) fn open(_file: NoFile) -> Result<ReplayTable, Error> {
        Err(ReplayTableFault::NotShareable.into())
    }
}
