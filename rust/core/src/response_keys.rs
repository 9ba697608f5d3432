//! The keys of a response. Both sides derive them from the request, as in RFC 9458, section 4.4.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::primitives::NONCE_BYTES;

/// The length of the key that a request carries in its header `Ehbp-Encapsulated-Key`.
pub const ENCAPSULATED_KEY_BYTES: usize = 32;
/// The length of the random nonce that a response carries in its header `Ehbp-Response-Nonce`.
pub const RESPONSE_NONCE_BYTES: usize = 32;
/// A key for AES-256-GCM, and the nonce of the first frame.
pub(crate) struct ResponseKeys {
    pub(crate) key: Zeroizing<[u8; 32]>,
    pub(crate) base_nonce: [u8; NONCE_BYTES],
}

impl ResponseKeys {
    /// Derives the keys of the response that carries `response_nonce` from the secret that the request exports. Call it
    /// in [`without_trace`](crate::no_trace::without_trace).
    pub(crate) fn derive(
        secret: &[u8; 32],
        encapsulated_key: &[u8],
        response_nonce: &[u8; RESPONSE_NONCE_BYTES],
    ) -> Result<Self, Error> {
        let salt = [encapsulated_key, response_nonce].concat();
        let pseudorandom_key = Hkdf::<Sha256>::new(Some(&salt), secret);
        let mut keys = Self { key: Zeroizing::default(), base_nonce: [0; NONCE_BYTES] };
        pseudorandom_key.expand(b"key", keys.key.as_mut_slice()).map_err(|_| Error::MalformedMessage)?;
        pseudorandom_key.expand(b"nonce", &mut keys.base_nonce).map_err(|_| Error::MalformedMessage)?;
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(first: u8) -> [u8; 32] {
        std::array::from_fn(|index| first + index as u8)
    }

    #[test]
    fn derives_the_keys_of_the_protocol() {
        let keys = ResponseKeys::derive(&sequence(0), &sequence(0x20), &sequence(0x40)).unwrap();
        let key = b"\x40\xec\x52\x88\x47\xcd\x4e\x92\x84\x49\xf2\xed\x1a\x70\xa7\xd1\
                    \xe8\xee\x31\x7d\x5e\x90\x04\x24\xfc\x1d\xd5\xb0\x47\x5b\x97\xf7";
        assert_eq!(keys.key.as_slice(), key);
        assert_eq!(keys.base_nonce, [0xf8, 0xb0, 0xce, 0x94, 0x66, 0xf2, 0x7a, 0xa6, 0x24, 0x3c, 0x65, 0xf9]);
    }
}
