//! What the two sides of a request derive the keys of its response from.

use zeroize::Zeroizing;

/// The length of the key that a request carries in its header `Ehbp-Encapsulated-Key`.
pub const ENCAPSULATED_KEY_BYTES: usize = 32;

/// HPKE's exported secret, and the encapsulated key that it belongs to.
pub(crate) struct ResponseSecret {
    pub(crate) exported: Zeroizing<[u8; 32]>,
    pub(crate) encapsulated_key: [u8; ENCAPSULATED_KEY_BYTES],
}
