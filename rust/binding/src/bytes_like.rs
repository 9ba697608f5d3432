//! Bytes that Python passes in.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

/// A `bytes`, which never changes, or a copy of any other object with a buffer.
pub(crate) struct BytesLike<'py>(Bound<'py, PyBytes>);

impl<'py> FromPyObject<'_, 'py> for BytesLike<'py> {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self(match object.cast::<PyBytes>() {
            Ok(bytes) => bytes.to_owned(),
            Err(_) => PyMemoryView::from(&object)?.call_method0("tobytes")?.cast_into::<PyBytes>()?,
        }))
    }
}

impl BytesLike<'_> {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
