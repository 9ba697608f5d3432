//! EHBP messages, as Python sees them: both ends of a request, and both ends of its response.

use std::mem::MaybeUninit;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use server_keys_core as core;

use crate::asgi::Streamed;
use crate::bytes_like::BytesLike;
use crate::error::to_python;
use crate::exclusive::Exclusive;
use crate::key_pair::{KeyPair, SharedKeyPair};
use crate::new_bytes::new_bytes;
use crate::warnings::warn_of_news;

/// Work on so many bytes releases the GIL. AES-GCM takes 2 to 5 us for them, of which the release adds a hundredth; but where
/// another thread waits for the GIL, it is back only after that thread's turn. A token of a streamed answer is far below.
const OFF_GIL_BYTES: usize = 16 * 1024;

// The signatures below write the number out, so that Python shows it.
const _: () = assert!(core::DEFAULT_MAX_FRAME_BYTES == 16_777_216);

fn maybe_off_gil<R: Send>(py: Python<'_>, bytes: usize, compute: impl FnOnce() -> R + Send) -> R {
    if bytes < OFF_GIL_BYTES { compute() } else { py.detach(compute) }
}

pub(crate) fn seal<'py>(
    py: Python<'py>,
    plaintext: &[u8],
    sealed_bytes: usize,
    seal_into: impl for<'b> FnOnce(&'b mut [MaybeUninit<u8>]) -> Result<&'b mut [u8], core::Error> + Send,
) -> PyResult<Bound<'py, PyBytes>> {
    new_bytes(py, sealed_bytes, |sealed| maybe_off_gil(py, plaintext.len(), || seal_into(sealed)).map_err(to_python))
}

/// One end of a message that opens frames.
pub(crate) trait Feed: Send {
    fn plaintext_bytes(&self, piece: &[u8]) -> usize;

    fn feed_into<'b>(
        &mut self,
        piece: &[u8],
        plaintext: &'b mut [MaybeUninit<u8>],
    ) -> Result<&'b mut [u8], core::Error>;
}

impl Feed for core::RequestOpener<SharedKeyPair> {
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

impl Feed for core::ResponseOpener {
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

pub(crate) fn feed<'py>(
    py: Python<'py>,
    opener: &Exclusive<impl Feed>,
    piece: &[u8],
    work: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    loop {
        let plaintext_bytes = opener.lend(|opener| Ok(opener.plaintext_bytes(piece))).map_err(to_python)?;
        let mut overtaken = false;
        let plaintext = new_bytes(py, plaintext_bytes, |plaintext| {
            let opened = maybe_off_gil(py, work, || opener.lend(|opener| opener.feed_into(piece, plaintext)));
            overtaken = opened == Err(core::Error::BufferLength);
            opened.map_err(to_python)
        });
        // Another thread fed the opener after it told the length, and this piece is not taken yet.
        if !overtaken {
            return plaintext;
        }
    }
}

/// Opens one request on the server. See `_native.pyi`.
#[pyclass(frozen, module = "server_keys._native")]
pub(crate) struct RequestOpener(Exclusive<core::RequestOpener<SharedKeyPair>>);

#[pymethods]
impl RequestOpener {
    #[new]
    #[pyo3(signature = (encapsulated_key, key_pairs, *, max_frame_bytes = 16777216))]
    fn new(encapsulated_key: BytesLike<'_>, key_pairs: Vec<Py<KeyPair>>, max_frame_bytes: usize) -> PyResult<Self> {
        let accepted = key_pairs.into_iter().map(SharedKeyPair);
        let opener =
            core::RequestOpener::new(encapsulated_key.as_bytes(), accepted, max_frame_bytes).map_err(to_python)?;
        Ok(Self(Exclusive::new(opener)?))
    }

    /// Whether the first frame is opened.
    #[getter]
    fn opened(&self) -> PyResult<bool> {
        self.0.lend(|opener| Ok(opener.is_opened())).map_err(to_python)
    }

    /// Which of the key pairs opened the first frame.
    #[getter]
    fn opened_by(&self) -> PyResult<Option<usize>> {
        self.0.lend(|opener| Ok(opener.opened_by())).map_err(to_python)
    }

    /// Take the next piece of the sealed body and return the plaintext of the frames that it completes.
    fn feed<'py>(&self, py: Python<'py>, piece: BytesLike<'_>) -> PyResult<Bound<'py, PyBytes>> {
        let piece = piece.as_bytes();
        // The first frame takes one key agreement, or two.
        let work = if self.opened()? { piece.len().max(self.bytes_to_open(piece.len())?) } else { OFF_GIL_BYTES };
        feed(py, &self.0, piece, work)
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

    /// Say that there is no body at all.
    fn finish_without_body(&self) -> PyResult<()> {
        self.0.lend(|opener| opener.finish_without_body()).map_err(to_python)
    }

    /// Make the sealer of the response to this request.
    fn response_sealer(&self) -> PyResult<ResponseSealer> {
        let sealer = self.0.lend(|opener| opener.response_sealer()).map_err(to_python)?;
        Ok(ResponseSealer(Exclusive::new(sealer)?, Streamed::default()))
    }

    /// Wait for other threads that use it, then wipe its keys and buffers. Erasing twice is fine.
    fn erase(&self, py: Python<'_>) {
        self.0.erase(py);
    }
}

/// Seals one response on the server. See `_native.pyi`.
#[pyclass(frozen, module = "server_keys._native")]
pub(crate) struct ResponseSealer(Exclusive<core::ResponseSealer>, Streamed);

#[pymethods]
impl ResponseSealer {
    /// The value of the header `Ehbp-Response-Nonce`, 32 bytes.
    #[getter]
    fn response_nonce(&self) -> PyResult<[u8; core::RESPONSE_NONCE_BYTES]> {
        self.0.lend(|sealer| Ok(*sealer.response_nonce())).map_err(to_python)
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
        let sealed_bytes = core::ResponseSealer::sealed_bytes(plaintext.len(), max_frame_bytes);
        seal(py, plaintext, sealed_bytes, |sealed| {
            self.0.lend(|sealer| sealer.seal_into(plaintext, max_frame_bytes, sealed))
        })
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
pub(crate) struct RequestSealer(Exclusive<core::RequestSealer>);

#[pymethods]
impl RequestSealer {
    #[new]
    fn new(py: Python<'_>, public_key: BytesLike<'_>) -> PyResult<Self> {
        let public_key = public_key.as_bytes();
        let sealer = py.detach(|| core::RequestSealer::new(public_key)).map_err(to_python)?;
        warn_of_news(py)?;
        Ok(Self(Exclusive::new(sealer)?))
    }

    /// The value of the header `Ehbp-Encapsulated-Key`, 32 bytes.
    #[getter]
    fn encapsulated_key(&self) -> PyResult<[u8; core::ENCAPSULATED_KEY_BYTES]> {
        self.0.lend(|sealer| Ok(*sealer.encapsulated_key())).map_err(to_python)
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
        let sealed_bytes = core::RequestSealer::sealed_bytes(plaintext.len(), max_frame_bytes);
        seal(py, plaintext, sealed_bytes, |sealed| {
            self.0.lend(|sealer| sealer.seal_into(plaintext, max_frame_bytes, sealed))
        })
    }

    /// Make the opener of the response whose header carried this nonce (32 bytes).
    #[pyo3(signature = (response_nonce, *, max_frame_bytes = 16777216))]
    fn response_opener(&self, response_nonce: BytesLike<'_>, max_frame_bytes: usize) -> PyResult<ResponseOpener> {
        let response_nonce = response_nonce.as_bytes();
        let opener =
            self.0.lend(|sealer| sealer.response_opener(response_nonce, max_frame_bytes)).map_err(to_python)?;
        Ok(ResponseOpener(Exclusive::new(opener)?))
    }

    /// Wait for other threads that use it, then wipe its keys and buffers. Erasing twice is fine.
    fn erase(&self, py: Python<'_>) {
        self.0.erase(py);
    }
}

/// Opens one response on the client. See `_native.pyi`.
#[pyclass(frozen, module = "server_keys._native")]
pub(crate) struct ResponseOpener(Exclusive<core::ResponseOpener>);

#[pymethods]
impl ResponseOpener {
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
