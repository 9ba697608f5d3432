//! Stands in for `assembly.rs` in a build without the engine: nothing has its type.

use crate::primitives::Primitives;

pub(crate) use aes_gcm::Aes256Gcm as Context;

pub(crate) const VERSION: &str = "";

pub(crate) enum Assembly {}

impl Assembly {
    /// Returns no engine: this build has none.
    pub(crate) fn new() -> Option<Self> {
        None
    }
}

impl Primitives for Assembly {
    type Aes256Gcm = Context;

    fn public_key(&self, _private_key: &[u8; 32]) -> [u8; 32] {
        match *self {}
    }

    fn agree(&self, _private_key: &[u8; 32], _public_key: &[u8; 32], _shared_secret: &mut [u8; 32]) -> bool {
        match *self {}
    }

    fn aes_256_gcm(&self, _key: &[u8; 32]) -> Context {
        match *self {}
    }
}
