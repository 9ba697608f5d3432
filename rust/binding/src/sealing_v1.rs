//! Messages of the wire's version 1, as Python sees them: both ends of a request, and both ends of its response.

use std::mem::MaybeUninit;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use server_keys_core as core;

use crate::asgi::Streamed;
use crate::bytes_like::BytesLike;
use crate::error::to_python;
use crate::exclusive::Exclusive;
use crate::sealing::{Feed, feed, seal};
use crate::warnings::warn_of_news;
use crate::xwing_key_pair::{XWingKeyPair, XWingPublicKey};

impl Feed for core::RequestOpenerV1 {
    fn plaintext_bytes(&self, piece: &[u8]) -> usize {
        self.plaintext_bytes(piece)
    }

    fn feed_into<'b>(
        &mut self,
        piece: &[u8],
        plaintext: &'b mut [MaybeUninit<u8>],
    ) -> Result<&'b mut [u8], core::Error> {
        self.feed_into(piece, plaintext)
    }
}

impl Feed for core::ResponseOpenerV1 {
    fn plaintext_bytes(&self, piece: &[u8]) -> usize {
        self.plaintext_bytes(piece)
    }

    fn feed_into<'b>(
        &mut self,
        piece: &[u8],
        plaintext: &'b mut [MaybeUninit<u8>],
    ) -> Result<&'b mut [u8], core::Error> {
        self.feed_into(piece, plaintext)
    }
}

/// Opens one request on the server. See `_native.pyi`.
#[pyclass(frozen, module = "server_keys._native")]
pub(crate) struct RequestOpenerV1(Exclusive<core::RequestOpenerV1>);

#[pymethods]
impl RequestOpenerV1 {
    #[new]
    #[pyo3(signature = (encapsulated_key, sealed_head, key_pair, *, max_frame_bytes = 16777216))]
    fn new(
        py: Python<'_>,
        encapsulated_key: BytesLike<'_>,
        sealed_head: BytesLike<'_>,
        key_pair: &Bound<'_, XWingKeyPair>,
        max_frame_bytes: usize,
    ) -> PyResult<Self> {
        let (encapsulated_key, sealed_head) = (encapsulated_key.as_bytes(), sealed_head.as_bytes());
        let key_pair = &key_pair.get().0;
        let opener = py
            .detach(|| core::RequestOpenerV1::new(encapsulated_key, sealed_head, key_pair, max_frame_bytes))
            .map_err(to_python)?;
        Ok(Self(Exclusive::new(opener)?))
    }

    /// What the client sealed as the head.
    #[getter]
    fn head<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let head = self.0.lend(|opener| Ok(opener.head().to_vec())).map_err(to_python)?;
        Ok(PyBytes::new(py, &head))
    }

    /// The number by which a server knows the request again, 8 bytes.
    #[getter]
    fn replay_id(&self) -> PyResult<[u8; core::REPLAY_ID_BYTES]> {
        self.0.lend(|opener| Ok(*opener.replay_id())).map_err(to_python)
    }

    /// Whether the body is at its end.
    #[getter]
    fn ended(&self) -> PyResult<bool> {
        self.0.lend(|opener| Ok(opener.is_ended())).map_err(to_python)
    }

    /// Say that the head announces no body.
    fn expect_no_body(&self) -> PyResult<()> {
        self.0.lend(|opener| opener.expect_no_body()).map_err(to_python)
    }

    /// Take the next piece of the sealed body and return the plaintext of the frames that it completes.
    fn feed<'py>(&self, py: Python<'py>, piece: BytesLike<'_>) -> PyResult<Bound<'py, PyBytes>> {
        let piece = piece.as_bytes();
        feed(py, &self.0, piece, piece.len().max(self.bytes_to_open(piece.len())?))
    }

    /// Return how many bytes `feed` would open, at most, of a next piece of this length.
    fn bytes_to_open(&self, piece_bytes: usize) -> PyResult<usize> {
        self.0.lend(|opener| Ok(opener.bytes_to_open(piece_bytes))).map_err(to_python)
    }

    /// How many bytes of memory the part of a frame takes that has arrived.
    #[getter]
    fn held_bytes(&self) -> PyResult<usize> {
        self.0.lend(|opener| Ok(opener.held_bytes())).map_err(to_python)
    }

    /// Say that the body has ended.
    fn finish(&self) -> PyResult<()> {
        self.0.lend(|opener| opener.finish()).map_err(to_python)
    }

    /// Make the sealer of the response to this request.
    fn response_sealer(&self) -> PyResult<ResponseSealerV1> {
        let sealer = self.0.lend(|opener| opener.response_sealer()).map_err(to_python)?;
        Ok(ResponseSealerV1(Exclusive::new(sealer)?, Streamed::default()))
    }

    /// Wait for other threads that use it, then wipe its keys and buffers. Erasing twice is fine.
    fn erase(&self, py: Python<'_>) {
        self.0.erase(py);
    }
}

/// Seals one response on the server. See `_native.pyi`.
#[pyclass(frozen, module = "server_keys._native")]
pub(crate) struct ResponseSealerV1(Exclusive<core::ResponseSealerV1>, Streamed);

#[pymethods]
impl ResponseSealerV1 {
    /// The nonce that the client needs, 32 bytes.
    #[getter]
    fn response_nonce(&self) -> PyResult<[u8; core::RESPONSE_NONCE_BYTES]> {
        self.0.lend(|sealer| Ok(*sealer.response_nonce())).map_err(to_python)
    }

    /// Seal the head.
    fn seal_head<'py>(&self, py: Python<'py>, head: BytesLike<'_>) -> PyResult<Bound<'py, PyBytes>> {
        let sealed = self.0.lend(|sealer| sealer.seal_head(head.as_bytes())).map_err(to_python)?;
        Ok(PyBytes::new(py, &sealed))
    }

    /// Return the next piece of the body, sealed in frames of this length at most.
    #[pyo3(signature = (plaintext, *, max_frame_bytes = 16777216))]
    fn seal<'py>(
        &self,
        py: Python<'py>,
        plaintext: BytesLike<'_>,
        max_frame_bytes: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let plaintext = plaintext.as_bytes();
        let sealed_bytes = core::ResponseSealerV1::sealed_bytes(plaintext.len(), max_frame_bytes);
        seal(py, plaintext, sealed_bytes, |sealed| {
            self.0.lend(|sealer| sealer.seal_into(plaintext, max_frame_bytes, sealed))
        })
    }

    /// Return the last piece of the body, sealed in frames of this length at most, and the frame that ends it.
    #[pyo3(signature = (plaintext, *, max_frame_bytes = 16777216))]
    fn seal_last<'py>(
        &self,
        py: Python<'py>,
        plaintext: BytesLike<'_>,
        max_frame_bytes: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let plaintext = plaintext.as_bytes();
        let sealed_bytes = core::ResponseSealerV1::last_sealed_bytes(plaintext.len(), max_frame_bytes);
        seal(py, plaintext, sealed_bytes, |sealed| {
            self.0.lend(|sealer| sealer.seal_last_into(plaintext, max_frame_bytes, sealed))
        })
    }

    /// Return the frame that ends the body, 20 bytes.
    fn seal_end<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let sealed = self.0.lend(|sealer| sealer.seal_end()).map_err(to_python)?;
        Ok(PyBytes::new(py, &sealed))
    }

    /// Return a copy of an ASGI message with its piece of the body sealed, or None.
    fn seal_message<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.1.sealed_message(message, |plaintext| self.seal(message.py(), plaintext, core::DEFAULT_MAX_FRAME_BYTES))
    }

    /// How many frames `seal_message` has made, and how many bytes those have.
    #[getter]
    fn streamed(&self) -> (u64, u64) {
        self.1.frames_and_bytes()
    }

    /// Wait for other threads that use it, then wipe its keys and buffers. Erasing twice is fine.
    fn erase(&self, py: Python<'_>) {
        self.0.erase(py);
    }
}

/// Seals one request on the client. See `_native.pyi`.
#[pyclass(frozen, module = "server_keys._native")]
pub(crate) struct RequestSealerV1(Exclusive<core::RequestSealerV1>);

#[pymethods]
impl RequestSealerV1 {
    #[new]
    fn new(py: Python<'_>, public_key: &Bound<'_, PyAny>) -> PyResult<Self> {
        let sealer = if let Ok(ready) = public_key.cast::<XWingPublicKey>() {
            let ready = &ready.get().0;
            py.detach(|| core::RequestSealerV1::to(ready))
        } else {
            let public_key: BytesLike<'_> = public_key.extract()?;
            let public_key = public_key.as_bytes();
            py.detach(|| core::RequestSealerV1::new(public_key))
        };
        let sealer = sealer.map_err(to_python)?;
        warn_of_news(py)?;
        Ok(Self(Exclusive::new(sealer)?))
    }

    /// What the server needs to agree on the same keys, 1,120 bytes.
    #[getter]
    fn encapsulated_key(&self) -> PyResult<[u8; core::XWING_ENCAPSULATED_KEY_BYTES]> {
        self.0.lend(|sealer| Ok(*sealer.encapsulated_key())).map_err(to_python)
    }

    /// Seal the head.
    fn seal_head<'py>(&self, py: Python<'py>, head: BytesLike<'_>) -> PyResult<Bound<'py, PyBytes>> {
        let sealed = self.0.lend(|sealer| sealer.seal_head(head.as_bytes())).map_err(to_python)?;
        Ok(PyBytes::new(py, &sealed))
    }

    /// Return the next piece of the body, sealed in frames of this length at most.
    #[pyo3(signature = (plaintext, *, max_frame_bytes = 16777216))]
    fn seal<'py>(
        &self,
        py: Python<'py>,
        plaintext: BytesLike<'_>,
        max_frame_bytes: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let plaintext = plaintext.as_bytes();
        let sealed_bytes = core::RequestSealerV1::sealed_bytes(plaintext.len(), max_frame_bytes);
        seal(py, plaintext, sealed_bytes, |sealed| {
            self.0.lend(|sealer| sealer.seal_into(plaintext, max_frame_bytes, sealed))
        })
    }

    /// Return the last piece of the body, sealed in frames of this length at most, and the frame that ends it.
    #[pyo3(signature = (plaintext, *, max_frame_bytes = 16777216))]
    fn seal_last<'py>(
        &self,
        py: Python<'py>,
        plaintext: BytesLike<'_>,
        max_frame_bytes: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let plaintext = plaintext.as_bytes();
        let sealed_bytes = core::RequestSealerV1::last_sealed_bytes(plaintext.len(), max_frame_bytes);
        seal(py, plaintext, sealed_bytes, |sealed| {
            self.0.lend(|sealer| sealer.seal_last_into(plaintext, max_frame_bytes, sealed))
        })
    }

    /// Return the frame that ends the body, 20 bytes.
    fn seal_end<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let sealed = self.0.lend(|sealer| sealer.seal_end()).map_err(to_python)?;
        Ok(PyBytes::new(py, &sealed))
    }

    /// Make the opener of the response with this nonce and head.
    #[pyo3(signature = (response_nonce, sealed_head, *, max_frame_bytes = 16777216))]
    fn response_opener(
        &self,
        response_nonce: BytesLike<'_>,
        sealed_head: BytesLike<'_>,
        max_frame_bytes: usize,
    ) -> PyResult<ResponseOpenerV1> {
        let (response_nonce, sealed_head) = (response_nonce.as_bytes(), sealed_head.as_bytes());
        let opener = self
            .0
            .lend(|sealer| sealer.response_opener(response_nonce, sealed_head, max_frame_bytes))
            .map_err(to_python)?;
        Ok(ResponseOpenerV1(Exclusive::new(opener)?))
    }

    /// Wait for other threads that use it, then wipe its keys and buffers. Erasing twice is fine.
    fn erase(&self, py: Python<'_>) {
        self.0.erase(py);
    }
}

/// Opens one response on the client. See `_native.pyi`.
#[pyclass(frozen, module = "server_keys._native")]
pub(crate) struct ResponseOpenerV1(Exclusive<core::ResponseOpenerV1>);

#[pymethods]
impl ResponseOpenerV1 {
    /// What the server sealed as the head.
    #[getter]
    fn head<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let head = self.0.lend(|opener| Ok(opener.head().to_vec())).map_err(to_python)?;
        Ok(PyBytes::new(py, &head))
    }

    /// Whether the body is at its end.
    #[getter]
    fn ended(&self) -> PyResult<bool> {
        self.0.lend(|opener| Ok(opener.is_ended())).map_err(to_python)
    }

    /// Say that the head announces no body.
    fn expect_no_body(&self) -> PyResult<()> {
        self.0.lend(|opener| opener.expect_no_body()).map_err(to_python)
    }

    /// Take the next piece of the sealed body and return the plaintext of the frames that it completes.
    fn feed<'py>(&self, py: Python<'py>, piece: BytesLike<'_>) -> PyResult<Bound<'py, PyBytes>> {
        let piece = piece.as_bytes();
        let to_open = self.0.lend(|opener| Ok(opener.bytes_to_open(piece.len()))).map_err(to_python)?;
        feed(py, &self.0, piece, piece.len().max(to_open))
    }

    /// Say that the body has ended.
    fn finish(&self) -> PyResult<()> {
        self.0.lend(|opener| opener.finish()).map_err(to_python)
    }

    /// Wait for other threads that use it, then wipe its keys and buffers. Erasing twice is fine.
    fn erase(&self, py: Python<'_>) {
        self.0.erase(py);
    }
}
