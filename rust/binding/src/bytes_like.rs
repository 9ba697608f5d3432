//! Bytes that Python passes in.

use std::slice;

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

/// Bytes that never change: a `bytes`, a part of one, or a copy of any other object with a buffer.
pub(crate) enum BytesLike<'py> {
    Whole(Bound<'py, PyBytes>),
    /// A contiguous `memoryview` of a `bytes`: whoever seals a long body in pieces need not copy them.
    Part(PyBuffer<u8>),
}

impl<'py> FromPyObject<'_, 'py> for BytesLike<'py> {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Self::Whole(bytes.to_owned()));
        }
        let view = PyMemoryView::from(&object)?;
        if view.getattr("obj")?.is_instance_of::<PyBytes>()
            && let Ok(part) = PyBuffer::<u8>::get(&view)
            && part.is_c_contiguous()
        {
            return Ok(Self::Part(part));
        }
        Ok(Self::Whole(view.call_method0("tobytes")?.cast_into::<PyBytes>()?))
    }
}

impl BytesLike<'_> {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) => bytes.as_bytes(),
            Self::Part(part) if part.len_bytes() == 0 => &[],
            // SAFETY: the buffer has so many bytes side by side. They are of a `bytes`, which never changes, and which
            // the buffer keeps alive.
            Self::Part(part) => unsafe { slice::from_raw_parts(part.buf_ptr().cast::<u8>(), part.len_bytes()) },
        }
    }
}
