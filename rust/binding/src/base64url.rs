//! base64url without padding (RFC 4648, section 5), in which headers and identities carry bytes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::bytes_like::BytesLike;

/// Return the text that stands for bytes. See `_native.pyi`.
#[pyfunction]
pub(crate) fn encode_base64url(data: BytesLike<'_>) -> String {
    URL_SAFE_NO_PAD.encode(data.as_bytes())
}

/// Return the bytes that a text stands for. See `_native.pyi`.
#[pyfunction]
pub(crate) fn decode_base64url<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyBytes>> {
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(data) => Ok(PyBytes::new(py, &data)),
        // The decoder's own error quotes the text.
        Err(_) => Err(PyValueError::new_err("a field must be canonical base64url without padding")),
    }
}
