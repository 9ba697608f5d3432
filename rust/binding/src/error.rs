//! The core's errors as Python exceptions. This is the only place that maps them.

use pyo3::PyErr;
use pyo3::exceptions::{PyMemoryError, PyRuntimeError, PyValueError};
use server_keys_core::Error;

pyo3::create_exception!(
    server_keys,
    InvalidPublicKeyError,
    PyValueError,
    "A peer's public key has the wrong length or is a point of small order."
);
pyo3::create_exception!(
    server_keys,
    KeyErasedError,
    PyRuntimeError,
    "The key is gone: erased, or left in the process that this one was forked from."
);
pyo3::create_exception!(server_keys, EntropyError, PyRuntimeError, "The system's random source failed.");
pyo3::create_exception!(
    server_keys,
    MalformedMessageError,
    PyValueError,
    "A sealed message is malformed, incomplete or not authentic. The error does not say which, on purpose."
);
pyo3::create_exception!(server_keys, FrameTooLargeError, PyValueError, "A frame announces more bytes than the limit.");
pyo3::create_exception!(
    server_keys._native,
    KeyMismatchError,
    PyValueError,
    "A sealed request opens under none of the accepted keys."
);

pub(crate) fn to_python(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::PublicKeyLength(_) | Error::PublicKeySmallOrder => InvalidPublicKeyError::new_err(message),
        Error::KeyErased => KeyErasedError::new_err(message),
        Error::Entropy(_) => EntropyError::new_err(message),
        Error::MalformedMessage => MalformedMessageError::new_err(message),
        Error::FrameTooLarge { .. } => FrameTooLargeError::new_err(message),
        Error::KeyMismatch => KeyMismatchError::new_err(message),
        Error::OutOfMemory => PyMemoryError::new_err(message),
        Error::PrivateKeyLength(_) | Error::TooManyKeyPairs { .. } => PyValueError::new_err(message),
        // RequestNotOpened, NoThread, and errors that a later core adds.
        _ => PyRuntimeError::new_err(message),
    }
}
