//! X-Wing key pairs, as Python sees them.

use std::borrow::Borrow;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use server_keys_core as core;

use crate::bytes_like::BytesLike;
use crate::error::to_python;
use crate::key_pair::with_32_bytes_of;
use crate::warnings::warn_of_news;

/// An X-Wing key pair (ML-KEM-768 and X25519, KEM 0x647a of HPKE) whose seed stays in native memory. See `_native.pyi`.
#[pyclass(frozen, module = "server_keys._native")]
pub(crate) struct XWingKeyPair(pub(crate) core::XWingKeyPair);

#[pymethods]
impl XWingKeyPair {
    #[new]
    #[pyo3(signature = (*_arguments, **_keywords))]
    fn new(_arguments: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        Err(PyTypeError::new_err(
            "cannot create an XWingKeyPair by a call: write XWingKeyPair.generate(), or XWingKeyPair.from_seed(seed) for \
             a seed that exists already",
        ))
    }

    /// Make a key pair from the system's random source, off the GIL.
    #[staticmethod]
    fn generate(py: Python<'_>) -> PyResult<Self> {
        let key_pair = py.detach(core::XWingKeyPair::generate).map_err(to_python)?;
        warn_of_news(py)?;
        Ok(Self(key_pair))
    }

    /// Make the key pair of an existing seed, such as a test vector's.
    #[staticmethod]
    fn from_seed(py: Python<'_>, seed: &Bound<'_, PyAny>) -> PyResult<Self> {
        let key_pair = with_32_bytes_of(seed, "seed", core::Error::SeedLength, |bytes| {
            py.detach(|| core::XWingKeyPair::from_seed(bytes))
        })?
        .map_err(to_python)?;
        warn_of_news(py)?;
        Ok(Self(key_pair))
    }

    /// The public key: 1,216 bytes. It stays readable after `erase()`.
    #[getter]
    fn public_key(&self) -> &[u8; core::XWING_PUBLIC_KEY_BYTES] {
        self.0.public_key()
    }

    /// Whether the seed is gone: erased, or left in the process that this one was forked from.
    #[getter]
    fn erased(&self) -> bool {
        self.0.is_erased()
    }

    /// Wait for uses that have begun, then wipe the seed. Erasing twice is fine.
    pub(crate) fn erase(&self, py: Python<'_>) {
        py.detach(|| self.0.erase());
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| self.0.public_key() == other.get().0.public_key())
    }

    fn __hash__(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = *self.0.public_key();
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
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

/// An X-Wing public key that is ready for many messages. See `_native.pyi`.
#[pyclass(frozen, module = "server_keys._native")]
pub(crate) struct XWingPublicKey(pub(crate) core::XWingPublicKey);

#[pymethods]
impl XWingPublicKey {
    #[new]
    fn new(public_key: BytesLike<'_>) -> PyResult<Self> {
        core::XWingPublicKey::new(public_key.as_bytes()).map(Self).map_err(to_python)
    }
}

/// A Python object that the core uses without the GIL. It may, because an [`XWingKeyPair`] is frozen.
pub(crate) struct SharedXWingKeyPair(pub(crate) Py<XWingKeyPair>);

impl Borrow<core::XWingKeyPair> for SharedXWingKeyPair {
    fn borrow(&self) -> &core::XWingKeyPair {
        &self.0.get().0
    }
}

fn stays_here(done: &str) -> PyErr {
    PyTypeError::new_err(format!(
        "an XWingKeyPair cannot be {done}: its seed never leaves its place in this process; pass public_key instead"
    ))
}
