//! What computes, as Python sees it.

use pyo3::prelude::*;
use server_keys_core as core;

use crate::warnings::warn_of_news;

/// What computes in this process, from `engine()`. Its text is a sentence.
#[pyclass(frozen, module = "server_keys")]
pub(crate) struct Engine(&'static core::Engine);

#[pymethods]
impl Engine {
    /// What computes the public keys of single key pairs: `s2n-bignum` or `dalek`.
    #[getter]
    fn keys(&self) -> &'static str {
        self.0.keys()
    }

    /// What computes shared secrets: `s2n-bignum` or `dalek`.
    #[getter]
    fn exchanges(&self) -> &'static str {
        self.0.exchanges()
    }

    /// What computes the public keys of pairs that are made together.
    ///
    /// Where the processor has AVX-512 IFMA: eight in parallel. Elsewhere s2n-bignum or dalek, one after the other.
    #[getter]
    fn batches(&self) -> &'static str {
        self.0.batches()
    }

    /// What computes AES-256-GCM: `AWS-LC` or `RustCrypto`.
    #[getter]
    fn aes_gcm(&self) -> &'static str {
        self.0.aes_gcm()
    }

    /// Why dalek and RustCrypto compute, or None where AWS-LC does.
    #[getter]
    fn why_not(&self) -> Option<String> {
        self.0.unused().map(ToString::to_string)
    }

    fn __repr__(&self) -> String {
        self.0.to_string()
    }
}

/// Return what computes X25519 keys, exchanges, batches of keys, and AES-256-GCM in this process.
///
/// AWS-LC does where the build has it and it passed a comparison with dalek and RustCrypto, which compute elsewhere.
/// `SERVER_KEYS_ENGINE=dalek` in the environment switches it off.
///
/// Warns:
///     RuntimeWarning: it failed that comparison, or the environment variable has another value. It comes once in a
///         process, from here or from what makes the first key.
#[pyfunction]
pub(crate) fn engine(py: Python<'_>) -> PyResult<Engine> {
    warn_of_news(py)?;
    Ok(Engine(core::engine()))
}
