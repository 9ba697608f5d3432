//! Key pairs, as Python sees them.

use std::borrow::Borrow;
use std::time::Duration;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyInt, PyList, PyTuple};
use server_keys_core as core;

use crate::error::to_python;
use crate::warnings::warn_of_news;
use crate::xwing_key_pair::XWingKeyPair;

/// An X25519 key pair (RFC 7748) whose private key stays in native memory.
///
/// The private key is locked in memory, left out of core dumps, wiped in a forked child, by `erase()` and when the last
/// reference goes. Nothing in Python can read, copy or pickle it. Two pairs are equal when their public keys are.
#[pyclass(frozen, module = "server_keys")]
pub(crate) struct KeyPair(pub(crate) core::KeyPair);

#[pymethods]
impl KeyPair {
    #[new]
    #[pyo3(signature = (*_arguments, **_keywords))]
    fn new(_arguments: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        Err(PyTypeError::new_err(
            "cannot create a KeyPair by a call: write KeyPair.generate(), or KeyPair.from_private_key(private_key) for \
             a private key that exists already",
        ))
    }

    /// Make a key pair from the system's random source, off the GIL.
    ///
    /// Raises:
    ///     EntropyError: the random source failed.
    ///     MemoryError: the system has no memory for the private key.
    #[staticmethod]
    fn generate(py: Python<'_>) -> PyResult<Self> {
        let key_pair = py.detach(core::KeyPair::generate).map_err(to_python)?;
        warn_of_news(py)?;
        Ok(Self(key_pair))
    }

    /// Make the key pair of an existing private key, such as a test vector's.
    ///
    /// Args:
    ///     private_key: 32 bytes, as in RFC 7748. The caller must wipe its own copy.
    ///
    /// Raises:
    ///     TypeError: `private_key` is not bytes-like.
    ///     ValueError: it has another length than 32 bytes.
    #[staticmethod]
    fn from_private_key(py: Python<'_>, private_key: &Bound<'_, PyAny>) -> PyResult<Self> {
        let key_pair = with_32_bytes_of(private_key, "private_key", core::Error::PrivateKeyLength, |bytes| {
            py.detach(|| core::KeyPair::from_private_key(bytes))
        })?
        .map_err(to_python)?;
        warn_of_news(py)?;
        Ok(Self(key_pair))
    }

    /// The public key: 32 bytes, as RFC 7748 encodes it. It stays readable after `erase()`.
    #[getter]
    fn public_key(&self) -> &[u8; core::PUBLIC_KEY_BYTES] {
        self.0.public_key()
    }

    /// Whether the private key is gone: erased, or left in the process that this one was forked from.
    #[getter]
    fn erased(&self) -> bool {
        self.0.is_erased()
    }

    /// Agree on a secret with the owner of a public key (X25519, RFC 7748 section 6.1), off the GIL.
    ///
    /// Args:
    ///     peer_public_key: the peer's raw public key, 32 bytes.
    ///
    /// Returns:
    ///     The shared secret, 32 bytes. Derive keys from it (HKDF); do not use it as a key itself.
    ///
    /// Raises:
    ///     InvalidPublicKeyError: the key has another length than 32 bytes, or is a point of small order.
    ///     KeyErasedError: the private key is gone.
    ///     TypeError: `peer_public_key` is not bytes-like.
    fn exchange<'py>(&self, py: Python<'py>, peer_public_key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        with_32_bytes_of(peer_public_key, "peer_public_key", core::Error::PublicKeyLength, |peer| {
            // Straight into the object that Python gets: no other copy of the shared secret is made.
            PyBytes::new_with(py, core::SHARED_SECRET_BYTES, |shared_secret| {
                let shared_secret = shared_secret.try_into()?;
                py.detach(|| self.0.exchange(peer, shared_secret)).map_err(to_python)
            })
        })?
    }

    /// Wait for exchanges that have begun, then wipe the private key. Erasing twice is fine.
    pub(crate) fn erase(&self, py: Python<'_>) {
        // Release the GIL while waiting for exchanges that other threads have begun.
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

/// A Python object that the core uses without the GIL. It may, because a [`KeyPair`] is frozen.
pub(crate) struct SharedKeyPair(pub(crate) Py<KeyPair>);

impl Borrow<core::KeyPair> for SharedKeyPair {
    fn borrow(&self) -> &core::KeyPair {
        &self.0.get().0
    }
}

fn stays_here(done: &str) -> PyErr {
    PyTypeError::new_err(format!(
        "a KeyPair cannot be {done}: its private key never leaves its place in this process; pass public_key instead"
    ))
}

/// A key pair of either kind.
#[derive(FromPyObject)]
pub(crate) enum AnyKeyPair<'py> {
    #[pyo3(annotation = "KeyPair")]
    X25519(Bound<'py, KeyPair>),
    #[pyo3(annotation = "XWingKeyPair")]
    XWing(Bound<'py, XWingKeyPair>),
}

/// How many pairs become Python objects before the GIL is released: an event loop waits about 0.2 ms for it at most.
const PAIRS_PER_GIL_HOLD: usize = 2_048;

/// Make many key pairs at once, off the GIL, on all processors where that is faster.
///
/// Args:
///     count: how many, from 0 to 1,048,576.
///
/// Raises:
///     EntropyError: the random source failed.
///     MemoryError: the system has no memory for so many.
///     TypeError: `count` is not an int, or is a bool.
///     ValueError: `count` is negative or above 1,048,576.
#[pyfunction]
pub(crate) fn generate_key_pairs<'py>(py: Python<'py>, count: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    // To Python a bool is an int, but nobody means one as a count.
    let exact_count = match count.cast::<PyInt>() {
        Ok(exact_count) if !count.is_instance_of::<PyBool>() => exact_count,
        _ => {
            let (kind, got) = (count.get_type().name()?, count.repr()?);
            return Err(PyTypeError::new_err(format!("count must be an int, not {kind}: {got}")));
        }
    };
    let count = match exact_count.extract::<usize>() {
        Ok(count) if count <= core::MAX_KEY_PAIRS_PER_CALL => count,
        _ => {
            // Python refuses to print ints of more than some thousand digits.
            let got = exact_count.repr().map_or_else(|_| "a huge int".to_owned(), |digits| digits.to_string());
            let most = core::MAX_KEY_PAIRS_PER_CALL;
            return Err(PyValueError::new_err(format!("count must be from 0 to {most}, not {got}")));
        }
    };
    let list = PyList::empty(py);
    while list.len() < count {
        let share = PAIRS_PER_GIL_HOLD.min(count - list.len());
        for key_pair in py.detach(|| core::generate_key_pairs(share)).map_err(to_python)? {
            list.append(Bound::new(py, KeyPair(key_pair))?)?;
        }
        py.check_signals()?;
    }
    warn_of_news(py)?;
    Ok(list)
}

/// Have a key pair's private key erased after some seconds by a thread that needs neither an event loop nor the GIL.
///
/// Of several calls the earliest deadline counts. Time goes on while the machine sleeps, where the system has a clock
/// that does. The thread exists while there are deadlines; it keeps no pair alive.
///
/// Args:
///     key_pair: the pair, of either kind.
///     delay_s: seconds; from zero down, it is erased at once.
///
/// Raises:
///     RuntimeError: the system refused the thread.
#[pyfunction]
pub(crate) fn erase_in(py: Python<'_>, key_pair: AnyKeyPair<'_>, delay_s: f64) -> PyResult<()> {
    if delay_s <= 0.0 {
        match key_pair {
            AnyKeyPair::X25519(key_pair) => key_pair.get().erase(py),
            AnyKeyPair::XWing(key_pair) => key_pair.get().erase(py),
        }
        return Ok(());
    }
    // Longer than a Duration can be: as good as never.
    let delay = Duration::try_from_secs_f64(delay_s).unwrap_or(Duration::MAX);
    // With the GIL: this waits for one use of the key at most, which takes less time than to get the GIL back.
    let armed = match key_pair {
        AnyKeyPair::X25519(key_pair) => key_pair.get().0.erase_in(delay),
        AnyKeyPair::XWing(key_pair) => key_pair.get().0.erase_in(delay),
    };
    armed.map_err(to_python)
}

/// Copies the 32 bytes of `value`, of any bytes-like type, lends the copy to `use_bytes`, then wipes it. The copy is
/// needed because another thread may change a `bytearray` meanwhile.
pub(crate) fn with_32_bytes_of<R>(
    value: &Bound<'_, PyAny>,
    name: &str,
    wrong_length: impl FnOnce(usize) -> core::Error,
    use_bytes: impl FnOnce(&[u8]) -> R,
) -> PyResult<R> {
    let Ok(buffer) = PyBuffer::<u8>::get(value) else {
        let got = value.get_type().name()?;
        return Err(PyTypeError::new_err(format!("{name} must be bytes-like (32 raw bytes), not {got}")));
    };
    // Check before copying: nobody may cause a copy of a gigabyte by passing it as a key.
    if buffer.item_count() != core::PUBLIC_KEY_BYTES {
        return Err(to_python(wrong_length(buffer.item_count())));
    }
    // The heap, a `WipingAllocator`, wipes the copy when it is freed.
    Ok(use_bytes(&buffer.to_vec(value.py())?))
}
