//! EHBP messages: the four ends of a request and its response.

use std::borrow::{Borrow, Cow};
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use server_keys_core as core;

use crate::error::to_python;
use crate::key_pair::KeyPair;

/// From here on releasing the GIL costs less than it frees: AES-GCM takes some microseconds for as many bytes. A token of
/// a streaming answer is far below.
const OFF_GIL_BYTES: usize = 16 * 1024;

// Written out in the signatures below, so that Python shows the number.
const _: () = assert!(core::DEFAULT_MAX_FRAME_BYTES == 16_777_216);

/// Locked only while computing, never while waiting for the GIL: so threads cannot wait for each other in a circle.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Borrowed from a `bytes`, which nobody changes meanwhile; copied from anything else with a buffer.
struct BytesLike<'py>(Cow<'py, [u8]>);

impl<'a, 'py> FromPyObject<'a, 'py> for BytesLike<'a> {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self(match object.extract() {
            Ok(bytes) => Cow::Borrowed(bytes),
            Err(_) => Cow::Owned(PyBuffer::get(&object)?.to_vec(object.py())?),
        }))
    }
}

impl Deref for BytesLike<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

fn maybe_off_gil<R: Send>(py: Python<'_>, bytes: usize, compute: impl FnOnce() -> R + Send) -> R {
    if bytes < OFF_GIL_BYTES { compute() } else { py.detach(compute) }
}

fn seal<'py>(
    py: Python<'py>,
    plaintext: &[u8],
    sealed_bytes: usize,
    seal_into: impl FnOnce(&mut [u8]) -> Result<(), core::Error> + Send,
) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, sealed_bytes, |sealed| {
        maybe_off_gil(py, plaintext.len(), || seal_into(sealed)).map_err(to_python)
    })
}

fn feed<'py>(
    py: Python<'py>,
    piece: &[u8],
    costly: bool,
    feed_into: impl FnOnce(&mut Vec<u8>) -> Result<(), core::Error> + Send,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut plaintext = Vec::new();
    let work = if costly { OFF_GIL_BYTES } else { piece.len() };
    maybe_off_gil(py, work, || feed_into(&mut plaintext)).map_err(to_python)?;
    Ok(PyBytes::new(py, &plaintext))
}

/// A reference to a Python object, which the core can use off the GIL because a [`KeyPair`] is frozen.
struct SharedKeyPair(Py<KeyPair>);

impl Borrow<core::KeyPair> for SharedKeyPair {
    fn borrow(&self) -> &core::KeyPair {
        &self.0.get().0
    }
}

/// Opens one request on the server. See `_native.pyi`.
#[pyclass(frozen, module = "server_keys._native")]
pub(crate) struct RequestOpener(Mutex<core::RequestOpener<SharedKeyPair>>);

#[pymethods]
impl RequestOpener {
    #[new]
    #[pyo3(signature = (encapsulated_key, key_pairs, *, max_frame_bytes = 16777216))]
    fn new(encapsulated_key: BytesLike<'_>, key_pairs: Vec<Py<KeyPair>>, max_frame_bytes: usize) -> PyResult<Self> {
        let accepted = key_pairs.into_iter().map(SharedKeyPair);
        let opener = core::RequestOpener::new(&encapsulated_key, accepted, max_frame_bytes).map_err(to_python)?;
        Ok(Self(Mutex::new(opener)))
    }

    /// Whether the first frame is opened.
    #[getter]
    fn opened(&self) -> bool {
        lock(&self.0).is_opened()
    }

    /// Take the next piece of the sealed body and return the plaintext of the frames that it completes.
    fn feed<'py>(&self, py: Python<'py>, piece: BytesLike<'_>) -> PyResult<Bound<'py, PyBytes>> {
        // The first frame takes a key agreement, or two.
        let costly = !self.opened();
        feed(py, &piece, costly, |plaintext| lock(&self.0).feed(&piece, plaintext))
    }

    /// Say that the body has ended.
    fn finish(&self) -> PyResult<()> {
        lock(&self.0).finish().map_err(to_python)
    }

    /// Make the sealer of the response to this request.
    fn response_sealer(&self) -> PyResult<ResponseSealer> {
        let sealer = lock(&self.0).response_sealer().map_err(to_python)?;
        Ok(ResponseSealer(Mutex::new(sealer)))
    }
}

/// Seals one response on the server. See `_native.pyi`.
#[pyclass(frozen, module = "server_keys._native")]
pub(crate) struct ResponseSealer(Mutex<core::ResponseSealer>);

#[pymethods]
impl ResponseSealer {
    /// What the header `Ehbp-Response-Nonce` carries: 32 bytes.
    #[getter]
    fn response_nonce(&self) -> [u8; core::RESPONSE_NONCE_BYTES] {
        *lock(&self.0).response_nonce()
    }

    /// Return the next piece of the body as one frame, 20 bytes longer.
    fn seal<'py>(&self, py: Python<'py>, plaintext: BytesLike<'_>) -> PyResult<Bound<'py, PyBytes>> {
        let sealed_bytes = core::ResponseSealer::sealed_bytes(plaintext.len());
        seal(py, &plaintext, sealed_bytes, |sealed| lock(&self.0).seal(&plaintext, sealed))
    }
}

/// Seals one request on the client. See `_native.pyi`.
#[pyclass(frozen, module = "server_keys._native")]
pub(crate) struct RequestSealer(Mutex<core::RequestSealer>);

#[pymethods]
impl RequestSealer {
    #[new]
    fn new(py: Python<'_>, public_key: BytesLike<'_>) -> PyResult<Self> {
        let sealer = py.detach(|| core::RequestSealer::new(&public_key)).map_err(to_python)?;
        Ok(Self(Mutex::new(sealer)))
    }

    /// What the header `Ehbp-Encapsulated-Key` carries: 32 bytes.
    #[getter]
    fn encapsulated_key(&self) -> [u8; core::ENCAPSULATED_KEY_BYTES] {
        *lock(&self.0).encapsulated_key()
    }

    /// Return the next piece of the body as one frame, 20 bytes longer.
    fn seal<'py>(&self, py: Python<'py>, plaintext: BytesLike<'_>) -> PyResult<Bound<'py, PyBytes>> {
        let sealed_bytes = core::RequestSealer::sealed_bytes(plaintext.len());
        seal(py, &plaintext, sealed_bytes, |sealed| lock(&self.0).seal(&plaintext, sealed))
    }

    /// Make the opener of the response whose header carried this nonce (32 bytes).
    #[pyo3(signature = (response_nonce, *, max_frame_bytes = 16777216))]
    fn response_opener(&self, response_nonce: BytesLike<'_>, max_frame_bytes: usize) -> PyResult<ResponseOpener> {
        let opener = lock(&self.0).response_opener(&response_nonce, max_frame_bytes).map_err(to_python)?;
        Ok(ResponseOpener(Mutex::new(opener)))
    }
}

/// Opens one response on the client. See `_native.pyi`.
#[pyclass(frozen, module = "server_keys._native")]
pub(crate) struct ResponseOpener(Mutex<core::ResponseOpener>);

#[pymethods]
impl ResponseOpener {
    /// Take the next piece of the sealed body and return the plaintext of the frames that it completes.
    fn feed<'py>(&self, py: Python<'py>, piece: BytesLike<'_>) -> PyResult<Bound<'py, PyBytes>> {
        feed(py, &piece, false, |plaintext| lock(&self.0).feed(&piece, plaintext))
    }

    /// Say that the body has ended.
    fn finish(&self) -> PyResult<()> {
        lock(&self.0).finish().map_err(to_python)
    }
}
