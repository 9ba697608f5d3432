//! What the members of a group share, as Python sees it: keys of the group, and private keys in sealed boxes.

use std::path::PathBuf;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use server_keys_core as core;

use crate::bytes_like::BytesLike;
use crate::error::{of_file_to_python, to_python};
use crate::key_pair::{AnyKeyPair, KeyPair, SharedKeyPair};
use crate::warnings::warn_of_news;
use crate::xwing_key_pair::{SharedXWingKeyPair, XWingKeyPair};

/// The keys that the members of a group derive from its secret. They stay in native memory. See `_native.pyi`.
#[pyclass(frozen, module = "server_keys._native")]
pub(crate) struct GroupKeys(core::GroupKeys);

#[pymethods]
impl GroupKeys {
    /// Derive the keys of a group on one host from its name.
    #[staticmethod]
    fn of_name(py: Python<'_>, name: BytesLike<'_>) -> PyResult<Self> {
        let keys = core::GroupKeys::of_name(name.as_bytes()).map_err(to_python)?;
        warn_of_news(py)?;
        Ok(Self(keys))
    }

    /// Derive the keys of each secret in a text.
    #[staticmethod]
    fn from_secret_text(py: Python<'_>, text: &Bound<'_, PyString>, label: BytesLike<'_>) -> PyResult<Vec<Self>> {
        // Python's own error would hold the text. It has a character that is no hex digit.
        let text = text.to_str().unwrap_or("?");
        let keys = core::GroupKeys::from_secret_text(text.as_bytes(), label.as_bytes()).map_err(to_python)?;
        warn_of_news(py)?;
        Ok(keys.into_iter().map(Self).collect())
    }

    /// Derive the keys of each secret in a file.
    #[staticmethod]
    fn from_secret_file(py: Python<'_>, path: PathBuf, label: BytesLike<'_>) -> PyResult<Vec<Self>> {
        let label = label.as_bytes();
        let keys = py
            .detach(|| core::GroupKeys::from_secret_file(&path, label))
            .map_err(|error| of_file_to_python(error, &path))?;
        warn_of_news(py)?;
        Ok(keys.into_iter().map(Self).collect())
    }

    /// The name of the group, which says nothing about its secret: 16 bytes.
    #[getter]
    fn group_id(&self) -> &[u8; core::GROUP_ID_BYTES] {
        self.0.id()
    }

    /// Return the tag by which members know that a member wrote this register.
    fn register_tag(&self, register: BytesLike<'_>) -> PyResult<[u8; core::TAG_BYTES]> {
        self.0.register_tag(register.as_bytes()).map_err(to_python)
    }

    /// Return whether a member wrote this register.
    fn is_register_tag(&self, register: BytesLike<'_>, tag: BytesLike<'_>) -> PyResult<bool> {
        self.0.is_register_tag(register.as_bytes(), tag.as_bytes()).map_err(to_python)
    }

    /// Return the tag by which members know that a member wrote this ask.
    fn ask_tag(&self, ask: BytesLike<'_>) -> PyResult<[u8; core::TAG_BYTES]> {
        self.0.ask_tag(ask.as_bytes()).map_err(to_python)
    }

    /// Return whether a member wrote this ask.
    fn is_ask_tag(&self, ask: BytesLike<'_>, tag: BytesLike<'_>) -> PyResult<bool> {
        self.0.is_ask_tag(ask.as_bytes(), tag.as_bytes()).map_err(to_python)
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
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

fn stays_here(done: &str) -> PyErr {
    PyTypeError::new_err(format!(
        "GroupKeys cannot be {done}: they never leave their place in this process; derive them again from the secret"
    ))
}

/// An epoch, as Python passes it: its number, its key pairs, when it is published and when it ends (milliseconds).
type Epoch = (u64, Py<KeyPair>, Option<Py<XWingKeyPair>>, i64, u64);

/// Seal epochs to the one-time key of each member, off the GIL. See `_native.pyi`.
#[pyfunction]
#[pyo3(signature = (group, one_time_keys, *, whole, as_of_ms, epochs))]
pub(crate) fn seal_boxes<'py>(
    py: Python<'py>,
    group: &Bound<'py, GroupKeys>,
    one_time_keys: Vec<BytesLike<'py>>,
    whole: bool,
    as_of_ms: u64,
    epochs: Vec<Epoch>,
) -> PyResult<Vec<Option<Bound<'py, PyBytes>>>> {
    let epochs = epochs.into_iter().map(|(number, key_pair, xwing_key_pair, publish_in_ms, ends_in_ms)| core::Epoch {
        number,
        key_pair: SharedKeyPair(key_pair),
        xwing_key_pair: xwing_key_pair.map(SharedXWingKeyPair),
        publish_in_ms,
        ends_in_ms,
    });
    let delivery = core::Delivery { whole, as_of_ms, epochs: epochs.collect() };
    let one_time_keys: Vec<_> = one_time_keys.iter().map(BytesLike::as_bytes).collect();
    let group = &group.get().0;
    let boxes = py.detach(|| core::seal_boxes(group, &one_time_keys, &delivery)).map_err(to_python)?;
    Ok(boxes.into_iter().map(|sealed| sealed.map(|sealed| PyBytes::new(py, &sealed))).collect())
}

/// An epoch, as Python gets it.
type OpenedEpoch = (u64, KeyPair, Option<XWingKeyPair>, i64, u64);

/// Open a box that a member of the group sealed to a one-time key, off the GIL. See `_native.pyi`.
#[pyfunction]
#[pyo3(signature = (group, one_time_key, r#box))]
pub(crate) fn open_box(
    py: Python<'_>,
    group: &Bound<'_, GroupKeys>,
    one_time_key: AnyKeyPair<'_>,
    r#box: BytesLike<'_>,
) -> PyResult<(bool, u64, Vec<OpenedEpoch>)> {
    let (group, sealed) = (&group.get().0, r#box.as_bytes());
    let one_time_key: core::OneTimeKey<'_> = match &one_time_key {
        AnyKeyPair::X25519(key_pair) => (&key_pair.get().0).into(),
        AnyKeyPair::XWing(key_pair) => (&key_pair.get().0).into(),
    };
    let delivery = py.detach(|| core::open_box(group, one_time_key, sealed)).map_err(to_python)?;
    warn_of_news(py)?;
    let epochs = delivery.epochs.into_iter().map(|epoch| {
        let key_pairs = (KeyPair(epoch.key_pair), epoch.xwing_key_pair.map(XWingKeyPair));
        (epoch.number, key_pairs.0, key_pairs.1, epoch.publish_in_ms, epoch.ends_in_ms)
    });
    Ok((delivery.whole, delivery.as_of_ms, epochs.collect()))
}
