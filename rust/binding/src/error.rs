//! The core's errors as Python exceptions. This is the only place that maps them.

use std::path::Path;

use pyo3::PyErr;
use pyo3::exceptions::{PyMemoryError, PyRuntimeError, PyValueError};
use server_keys_core::{Error, ReplayTableFault};

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
pyo3::create_exception!(
    server_keys,
    MissingEndError,
    MalformedMessageError,
    "A sealed message ended before its end frame came: it was cut on its way, or its sender gave up."
);
pyo3::create_exception!(server_keys, FrameTooLargeError, PyValueError, "A frame announces more bytes than the limit.");
pyo3::create_exception!(
    server_keys._native,
    KeyMismatchError,
    PyValueError,
    "A sealed request opens under none of the accepted keys."
);
pyo3::create_exception!(
    server_keys._native,
    GroupSecretError,
    PyValueError,
    "A group secret, or the file that holds it, cannot be used. The message says why, without the secret."
);
pyo3::create_exception!(
    server_keys._native,
    IdentityFileError,
    PyValueError,
    "The file of an identity cannot be used or written. The message names it and says why, without the key."
);
pyo3::create_exception!(
    server_keys._native,
    ReplayTableError,
    PyRuntimeError,
    "A table of seen requests cannot be made, opened or used."
);
pyo3::create_exception!(
    server_keys._native,
    ReplayTableFullError,
    ReplayTableError,
    "A table of seen requests has no room for one more."
);
pyo3::create_exception!(
    server_keys._native,
    ReplayTableLostError,
    ReplayTableError,
    "The file of a table of seen requests was resized or overwritten."
);

pub(crate) fn to_python(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::PublicKeyLength(_)
        | Error::PublicKeySmallOrder
        | Error::XWingPublicKeyLength(_)
        | Error::MlKemPublicKey => InvalidPublicKeyError::new_err(message),
        Error::KeyErased => KeyErasedError::new_err(message),
        Error::Entropy(_) => EntropyError::new_err(message),
        Error::MalformedMessage => MalformedMessageError::new_err(message),
        Error::MissingEnd => MissingEndError::new_err(message),
        Error::FrameTooLarge { .. } => FrameTooLargeError::new_err(message),
        Error::KeyMismatch => KeyMismatchError::new_err(message),
        Error::OutOfMemory => PyMemoryError::new_err(message),
        Error::GroupSecret(_) => GroupSecretError::new_err(message),
        Error::SigningKey(_) => IdentityFileError::new_err(message),
        Error::ReplayTable(ReplayTableFault::Full) => ReplayTableFullError::new_err(message),
        Error::ReplayTable(ReplayTableFault::Lost) => ReplayTableLostError::new_err(message),
        Error::ReplayTable(ReplayTableFault::Capacity { .. } | ReplayTableFault::IdLength { .. }) => {
            PyValueError::new_err(message)
        }
        Error::ReplayTable(_) => ReplayTableError::new_err(message),
        Error::PrivateKeyLength(_)
        | Error::SeedLength(_)
        | Error::TooManyKeyPairs { .. }
        | Error::EpochCount { .. } => PyValueError::new_err(message),
        // RequestNotOpened, SealedOutOfOrder, NoThread, and errors that a later core adds.
        _ => PyRuntimeError::new_err(message),
    }
}

/// The same for what reads a group secret or a signing key from the file at `path`: the message names it.
pub(crate) fn of_file_to_python(error: Error, path: &Path) -> PyErr {
    match error {
        Error::GroupSecret(fault) => GroupSecretError::new_err(fault.in_file(path).to_string()),
        Error::SigningKey(fault) => IdentityFileError::new_err(fault.in_file(path).to_string()),
        _ => to_python(error),
    }
}
