//! `server_keys._native`: the part of `server-keys-core` that Python sees.

mod asgi;
mod base64url;
mod bytes_like;
mod engine;
mod error;
mod exclusive;
mod key_pair;
mod new_bytes;
mod replay;
mod sealing;
mod sealing_v1;
mod sharing;
mod signing;
mod warnings;
mod xwing_key_pair;

use server_keys_core::WipingAllocator;

#[global_allocator]
static HEAP: WipingAllocator = WipingAllocator;

#[pyo3::pymodule(gil_used = false)]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::base64url::{decode_base64url, encode_base64url};
    #[pymodule_export]
    use crate::engine::{Engine, engine};
    #[pymodule_export]
    use crate::error::{
        EntropyError, FrameTooLargeError, GroupSecretError, IdentityFileError, InvalidPublicKeyError, KeyErasedError,
        KeyMismatchError, MalformedMessageError, MissingEndError, ReplayTableError, ReplayTableFullError,
        ReplayTableLostError,
    };
    #[pymodule_export]
    use crate::key_pair::{KeyPair, erase_in, generate_key_pairs};
    #[pymodule_export]
    use crate::replay::ReplayTable;
    #[pymodule_export]
    use crate::sealing::{RequestOpener, RequestSealer, ResponseOpener, ResponseSealer};
    #[pymodule_export]
    use crate::sealing_v1::{RequestOpenerV1, RequestSealerV1, ResponseOpenerV1, ResponseSealerV1};
    #[pymodule_export]
    use crate::sharing::{GroupKeys, open_box, seal_boxes};
    #[pymodule_export]
    use crate::signing::{SigningKey, is_signature, is_signing_public_key};

    #[pymodule_export]
    use crate::xwing_key_pair::{XWingKeyPair, XWingPublicKey};

    /// Chooses what computes now, and not in some thread at the first key.
    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        server_keys_core::engine();
        Ok(())
    }
}
