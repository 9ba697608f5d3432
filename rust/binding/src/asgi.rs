//! The message of ASGI that carries a piece of a streamed body. Every token passes here, so one call does all of it.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::bytes_like::BytesLike;

/// What both ends of this package seal as one frame, at most: `FRAME_PLAINTEXT_BYTES` in Python.
const MOST_BYTES: usize = 64 * 1024;

/// How many frames were sealed by messages, and how many bytes those have.
#[derive(Default)]
pub(crate) struct Streamed {
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl Streamed {
    pub(crate) fn frames_and_bytes(&self) -> (u64, u64) {
        (self.frames.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Returns a copy of `message` with its body sealed; None for a message that is no such piece.
    pub(crate) fn sealed_message<'py>(
        &self,
        message: &Bound<'py, PyAny>,
        seal: impl FnOnce(BytesLike<'py>) -> PyResult<Bound<'py, PyBytes>>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Ok(message) = message.cast_exact::<PyDict>() else { return Ok(None) };
        let py = message.py();
        if !is_of_a_body(message)? || !has_more(message)? {
            return Ok(None);
        }
        let Some(body) = message.get_item(intern!(py, "body"))? else { return Ok(None) };
        let body: BytesLike<'py> = body.extract()?;
        if body.as_bytes().len() > MOST_BYTES {
            return Ok(None);
        }
        let copy = message.copy()?;
        let sealed = seal(body)?;
        let sealed_bytes = sealed.as_bytes().len() as u64;
        copy.set_item(intern!(py, "body"), sealed)?;
        // An empty piece has no frame.
        self.frames.fetch_add(u64::from(sealed_bytes > 0), Ordering::Relaxed);
        self.bytes.fetch_add(sealed_bytes, Ordering::Relaxed);
        Ok(Some(copy))
    }
}

fn is_of_a_body(message: &Bound<'_, PyDict>) -> PyResult<bool> {
    let Some(kind) = message.get_item(intern!(message.py(), "type"))? else { return Ok(false) };
    Ok(kind.cast::<PyString>().is_ok_and(|kind| kind.to_str().is_ok_and(|kind| kind == "http.response.body")))
}

fn has_more(message: &Bound<'_, PyDict>) -> PyResult<bool> {
    message.get_item(intern!(message.py(), "more_body"))?.map_or(Ok(false), |more| more.is_truthy())
}
