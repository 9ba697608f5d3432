//! What an operator should know, as a `RuntimeWarning`, once in a process.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyRuntimeWarning;
use pyo3::prelude::*;
use server_keys_core as core;

/// Warns of what this process has not heard of yet: a protection that the system refused to private keys, an engine that
/// should compute and does not, or one that computed wrongly.
pub(crate) fn warn_of_news(py: Python<'_>) -> PyResult<()> {
    static ENGINE_REPORTED: AtomicBool = AtomicBool::new(false);
    while let Some(refusal) = core::unreported_refusal() {
        warn(py, refusal.to_string())?;
    }
    if core::engine().unused().is_some_and(core::Unused::is_unexpected)
        && !ENGINE_REPORTED.swap(true, Ordering::Relaxed)
    {
        warn(py, core::engine().to_string())?;
    }
    while let Some(fault) = core::unreported_engine_fault() {
        warn(py, fault.to_string())?;
    }
    Ok(())
}

fn warn(py: Python<'_>, message: String) -> PyResult<()> {
    PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &CString::new(message)?, 1)
}
