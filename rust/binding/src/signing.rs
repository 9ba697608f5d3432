//! Signing keys, as Python sees them.

use std::path::PathBuf;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use server_keys_core as core;

use crate::bytes_like::BytesLike;
use crate::error::{of_file_to_python, to_python};
use crate::warnings::warn_of_news;

/// An Ed25519 key (RFC 8032) whose seed stays in native memory. See `_native.pyi`.
#[pyclass(frozen, module = "server_keys._native")]
pub(crate) struct SigningKey(core::SigningKey);

#[pymethods]
impl SigningKey {
    #[new]
    #[pyo3(signature = (*_arguments, **_keywords))]
    fn new(_arguments: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        Err(PyTypeError::new_err(
            "cannot create a SigningKey by a call: write SigningKey.from_file(path), or SigningKey.new_file(path) for a \
             new one",
        ))
    }

    /// Read a key from a file, off the GIL. The content never becomes a Python object.
    #[staticmethod]
    fn from_file(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        Self::of_file(py, path, core::SigningKey::from_file)
    }

    /// Make a key and write it to a new file, off the GIL.
    #[staticmethod]
    fn new_file(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        Self::of_file(py, path, core::SigningKey::new_file)
    }

    /// The public key: 32 bytes, as RFC 8032 encodes it. It stays readable after `erase()`.
    #[getter]
    fn public_key(&self) -> &[u8; core::SIGNING_PUBLIC_KEY_BYTES] {
        self.0.public_key()
    }

    /// Whether the seed is gone: erased, or left in the process that this one was forked from.
    #[getter]
    fn erased(&self) -> bool {
        self.0.is_erased()
    }

    /// Return the signature of a message, off the GIL.
    fn sign(&self, py: Python<'_>, message: BytesLike<'_>) -> PyResult<[u8; core::SIGNATURE_BYTES]> {
        let message = message.as_bytes();
        py.detach(|| self.0.sign(message)).map_err(to_python)
    }

    /// Wait for signatures that have begun, then wipe the seed. Erasing twice is fine.
    fn erase(&self, py: Python<'_>) {
        py.detach(|| self.0.erase());
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(stays_here("copied"))
    }

    #[pyo3(signature = (_memo, /))]
    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(stays_here("copied"))
    }

    #[pyo3(signature = (_protocol, /))]
    fn __reduce_ex__(&self, _protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(stays_here("pickled"))
    }
}

impl SigningKey {
    fn of_file(
        py: Python<'_>,
        path: PathBuf,
        make: impl FnOnce(&std::path::Path) -> Result<core::SigningKey, core::Error> + Send,
    ) -> PyResult<Self> {
        let key = py.detach(|| make(&path)).map_err(|error| of_file_to_python(error, &path))?;
        warn_of_news(py)?;
        Ok(Self(key))
    }
}

fn stays_here(done: &str) -> PyErr {
    PyTypeError::new_err(format!(
        "a SigningKey cannot be {done}: its seed never leaves its place in this process; read it anew from its file"
    ))
}

/// Return whether a signature is one of the owner of a public key over a message (Ed25519, strict). See `_native.pyi`.
#[pyfunction]
pub(crate) fn is_signature(
    py: Python<'_>,
    public_key: BytesLike<'_>,
    message: BytesLike<'_>,
    signature: BytesLike<'_>,
) -> bool {
    let (public_key, message, signature) = (public_key.as_bytes(), message.as_bytes(), signature.as_bytes());
    py.detach(|| core::is_signature(public_key, message, signature))
}

/// Return whether 32 bytes are a public key that can sign. See `_native.pyi`.
#[pyfunction]
pub(crate) fn is_signing_public_key(public_key: BytesLike<'_>) -> bool {
    core::is_signing_public_key(public_key.as_bytes())
}
