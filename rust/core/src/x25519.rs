//! X25519 (RFC 7748), by the engine if it is in use, else by dalek.

use crate::batch_engine::BATCH_ENGINE;
use crate::engine::engine;
use crate::error::Error;
use crate::portable::Portable;
use crate::primitives::Primitives;
use crate::secret::Secret;

/// Returns the public key of a private key.
pub(crate) fn public_key(private_key: &[u8; 32]) -> [u8; 32] {
    match engine().assembly() {
        Some(assembly) => assembly.public_key(private_key),
        None => Portable.public_key(private_key),
    }
}

/// Says whether the public keys of private keys that were made together are computed eight in parallel.
pub(crate) fn computes_in_parallel() -> bool {
    BATCH_ENGINE.is_fast()
}

/// Returns the public keys of at most [`BATCH`](crate::batch::BATCH) private keys that were made together. Of keys that are
/// computed in parallel, the one with the number `lot` is checked.
pub(crate) fn public_keys(private_keys: &[Secret], lot: u8) -> Result<Vec<[u8; 32]>, Error> {
    if let Some(public_keys) = BATCH_ENGINE.public_keys(private_keys, lot)? {
        return Ok(public_keys[..private_keys.len()].to_vec());
    }
    match engine().assembly() {
        Some(assembly) => {
            private_keys.iter().map(|private_key| private_key.read(|scalar| assembly.public_key(scalar))).collect()
        }
        None => Portable.public_keys(private_keys),
    }
}

/// Writes the secret shared with the owner of `public_key`. On failure it writes nothing.
///
/// # Errors
/// [`Error::PublicKeySmallOrder`].
pub(crate) fn agree(private_key: &[u8; 32], public_key: &[u8; 32], shared_secret: &mut [u8; 32]) -> Result<(), Error> {
    let agreed = match engine().assembly() {
        Some(assembly) => assembly.agree(private_key, public_key, shared_secret),
        None => Portable.agree(private_key, public_key, shared_secret),
    };
    if agreed { Ok(()) } else { Err(Error::PublicKeySmallOrder) }
}
