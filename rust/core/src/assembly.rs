//! The primitives by AWS-LC: X25519 is s2n-bignum's assembly, and AES-256-GCM the assembly that suits the processor.
//!
//! AWS-LC chooses among its variants at run time. Its functions take raw pointers, so a private key is read in its slot
//! of the arena. They allocate nothing, except for a thread's list of errors, which says where in AWS-LC one arose.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ptr;

use aws_lc_sys::{
    EVP_AEAD_CTX, EVP_AEAD_CTX_init, EVP_AEAD_CTX_open_gather, EVP_AEAD_CTX_seal_scatter, EVP_aead_aes_256_gcm, X25519,
    X25519_public_from_private,
};
use zeroize::{Zeroize, Zeroizing};

use crate::error::Error;
use crate::primitives::{Aes256Gcm, NONCE_BYTES, Primitives, TAG_BYTES};

pub(crate) const VERSION: &str = match CStr::from_bytes_with_nul(aws_lc_sys::AWSLC_VERSION_NUMBER_STRING) {
    Ok(version) => match version.to_str() {
        Ok(version) => version,
        Err(_) => panic!("a version is ASCII"),
    },
    Err(_) => panic!("a C string ends with a zero"),
};

pub(crate) struct Assembly(());

impl Assembly {
    /// Returns the engine, which this build has.
    pub(crate) fn new() -> Option<Self> {
        Some(Self(()))
    }
}

impl Primitives for Assembly {
    type Aes256Gcm = Context;

    fn public_key(&self, private_key: &[u8; 32]) -> [u8; 32] {
        let mut public_key = [0; 32];
        // SAFETY: it reads 32 bytes and writes 32 others, and keeps no pointer to them.
        unsafe { X25519_public_from_private(public_key.as_mut_ptr(), private_key.as_ptr()) };
        public_key
    }

    fn agree(&self, private_key: &[u8; 32], public_key: &[u8; 32], shared_secret: &mut [u8; 32]) -> bool {
        // Not into `shared_secret`: AWS-LC writes zeros where it fails.
        let mut agreed = Zeroizing::new([0; 32]);
        // SAFETY: it reads 32 bytes from two places, writes 32 to a third, and keeps no pointer to them.
        if unsafe { X25519(agreed.as_mut_ptr(), private_key.as_ptr(), public_key.as_ptr()) } != 1 {
            return false;
        }
        shared_secret.copy_from_slice(agreed.as_slice());
        true
    }

    fn aes_256_gcm(&self, key: &[u8; 32]) -> Context {
        let mut context = MaybeUninit::<EVP_AEAD_CTX>::zeroed();
        // SAFETY: the context is zeroed, as AWS-LC asks, and the key has the 32 bytes that it reads. AWS-LC keeps no
        // pointer to either, and its state for AES-GCM holds none to itself, so it may be moved.
        let made = unsafe {
            EVP_AEAD_CTX_init(
                context.as_mut_ptr(),
                EVP_aead_aes_256_gcm(),
                key.as_ptr(),
                key.len(),
                TAG_BYTES,
                ptr::null_mut(),
            )
        };
        assert_eq!(made, 1, "AES-256-GCM takes every key of 32 bytes and a tag of 16");
        // SAFETY: all of it was zeroed, which is a valid value for each of its fields, and since then initialized.
        Context(unsafe { context.assume_init() })
    }
}

/// An expanded key.
pub(crate) struct Context(EVP_AEAD_CTX);

// SAFETY: the context holds no pointer but that to AWS-LC's constant table of AES-GCM's functions.
unsafe impl Send for Context {}
// SAFETY: sealing and opening take the context as const, and AWS-LC lets threads share it for them.
unsafe impl Sync for Context {}

impl Aes256Gcm for Context {
    fn seal<'a>(
        &self,
        nonce: &[u8; NONCE_BYTES],
        plaintext: &[u8],
        ciphertext: &'a mut [MaybeUninit<u8>],
    ) -> Result<(&'a mut [u8], [u8; TAG_BYTES]), Error> {
        if plaintext.len() != ciphertext.len() {
            return Err(Error::MalformedMessage);
        }
        let mut tag = [0; TAG_BYTES];
        let mut tag_bytes = 0;
        // SAFETY: the pointers are those of slices that do not overlap, each with its length; `ciphertext` is as long as
        // `plaintext`. There is neither further input nor associated data, for which AWS-LC allows null.
        let sealed = unsafe {
            EVP_AEAD_CTX_seal_scatter(
                &raw const self.0,
                ciphertext.as_mut_ptr().cast(),
                tag.as_mut_ptr(),
                &raw mut tag_bytes,
                TAG_BYTES,
                nonce.as_ptr(),
                NONCE_BYTES,
                plaintext.as_ptr(),
                plaintext.len(),
                ptr::null(),
                0,
                ptr::null(),
                0,
            )
        };
        if sealed != 1 || tag_bytes != TAG_BYTES {
            return Err(Error::MalformedMessage);
        }
        // SAFETY: AWS-LC has written as many bytes as it read.
        Ok((unsafe { written(ciphertext) }, tag))
    }

    fn open<'a>(
        &self,
        nonce: &[u8; NONCE_BYTES],
        ciphertext: &[u8],
        tag: &[u8; TAG_BYTES],
        plaintext: &'a mut [MaybeUninit<u8>],
    ) -> Result<&'a mut [u8], Error> {
        if plaintext.len() != ciphertext.len() {
            return Err(Error::MalformedMessage);
        }
        // SAFETY: as in `seal`.
        let opened = unsafe {
            EVP_AEAD_CTX_open_gather(
                &raw const self.0,
                plaintext.as_mut_ptr().cast(),
                nonce.as_ptr(),
                NONCE_BYTES,
                ciphertext.as_ptr(),
                ciphertext.len(),
                tag.as_ptr(),
                TAG_BYTES,
                ptr::null(),
                0,
            )
        };
        if opened != 1 {
            // AWS-LC has decrypted before it compared the tag. It wipes, too, but by a memset that nothing forces.
            plaintext.zeroize();
            return Err(Error::MalformedMessage);
        }
        // SAFETY: as in `seal`.
        Ok(unsafe { written(plaintext) })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the slice covers the context, which nobody reads any more. For AES-GCM it owns nothing that
        // `EVP_AEAD_CTX_cleanup` would free, and that would leave the key in place.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut((&raw mut self.0).cast::<MaybeUninit<u8>>(), size_of::<EVP_AEAD_CTX>())
        };
        bytes.zeroize();
    }
}

/// # Safety
/// Every byte must have been written.
unsafe fn written(bytes: &mut [MaybeUninit<u8>]) -> &mut [u8] {
    // SAFETY: the caller promises it; `u8` has the layout of `MaybeUninit<u8>`.
    unsafe { &mut *(ptr::from_mut(bytes) as *mut [u8]) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::portable::Portable;

    fn drawn<const N: usize>() -> [u8; N] {
        let mut bytes = [0; N];
        getrandom::fill(&mut bytes).unwrap();
        bytes
    }

    fn agreed(primitives: &impl Primitives, private_key: &[u8; 32], public_key: &[u8; 32]) -> Option<[u8; 32]> {
        let mut shared_secret = [0xa5; 32];
        let agreed = primitives.agree(private_key, public_key, &mut shared_secret);
        assert!(agreed || shared_secret == [0xa5; 32], "a refusal writes nothing");
        agreed.then_some(shared_secret)
    }

    fn compare_public_keys(private_key: &[u8; 32]) {
        assert_eq!(
            Assembly(()).public_key(private_key),
            Portable.public_key(private_key),
            "the public key of {private_key:02x?}"
        );
    }

    fn compare_shared_secrets(private_key: &[u8; 32], public_key: &[u8; 32]) {
        assert_eq!(
            agreed(&Assembly(()), private_key, public_key),
            agreed(&Portable, private_key, public_key),
            "the secret shared by {private_key:02x?} and {public_key:02x?}"
        );
    }

    /// Compares with dalek in as many random cases, of which one half has points of the curve's twist.
    fn compare_randomly(cases: usize) {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(move || {
                    for _ in 0..cases / threads {
                        let private_key = drawn();
                        compare_public_keys(&private_key);
                        compare_shared_secrets(&private_key, &drawn());
                    }
                });
            }
        });
    }

    #[test]
    fn random_keys_agree_with_dalek() {
        compare_randomly(20_000);
    }

    #[test]
    #[ignore = "takes minutes: cargo test --release -- --ignored"]
    fn a_million_random_keys_agree_with_dalek() {
        compare_randomly(1_000_000);
    }

    fn scalars_at_edges() -> Vec<[u8; 32]> {
        let mut scalars = vec![[0; 32], [0xff; 32], [0x55; 32], [0xaa; 32]];
        for bit in 0..256 {
            let mut one = [0; 32];
            one[bit / 8] = 1 << (bit % 8);
            scalars.extend([one, one.map(|byte| !byte)]);
        }
        scalars
    }

    /// Points by their encodings: near 0 and near the prime, below and above it, in both with the highest bit set, too.
    /// Among them are points of small order and of the twist.
    fn points_at_edges() -> Vec<[u8; 32]> {
        let mut points = vec![];
        for small in 0..40 {
            let (mut near_zero, mut near_prime) = ([0; 32], [0xff; 32]);
            near_zero[0] = small;
            // The prime's lowest byte is 0xed.
            near_prime[0] = 0xd8 + small;
            near_prime[31] = 0x7f;
            points.extend([near_zero, near_prime]);
        }
        let file: HashMap<String, serde_json::Value> =
            serde_json::from_str(include_str!("../../../tests/vectors/small_order_points.json")).unwrap();
        for point in file["points"].as_array().unwrap() {
            let hex = point["public_key"].as_str().unwrap();
            points.push(std::array::from_fn(|index| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap()));
        }
        for index in 0..points.len() {
            let mut highest_bit = points[index];
            highest_bit[31] ^= 0x80;
            points.push(highest_bit);
        }
        points
    }

    #[test]
    fn scalars_at_the_edges_agree_with_dalek() {
        for scalar in scalars_at_edges() {
            compare_public_keys(&scalar);
            compare_shared_secrets(&scalar, &drawn());
        }
    }

    #[test]
    fn points_at_the_edges_agree_with_dalek() {
        let points = points_at_edges();
        for point in &points {
            for scalar in [[0; 32], [0xff; 32], drawn()] {
                compare_shared_secrets(&scalar, point);
            }
        }
        let refused: std::collections::HashSet<_> =
            points.into_iter().filter(|point| agreed(&Assembly(()), &drawn(), point).is_none()).collect();
        // Of 0, 1 and p - 1 the encodings below and above the prime, of the points of order 8 the one; each with and
        // without the highest bit.
        assert_eq!(refused.len(), 14);
    }

    #[test]
    fn aes_gcm_agrees_with_rustcrypto_at_every_length_and_opens_nothing_that_was_changed() {
        let text: Vec<u8> = (0..5000).map(|index| index as u8).collect();
        let mut buffers = [0; 4].map(|_| vec![MaybeUninit::uninit(); text.len()]);
        for length in (0..600).chain([1023, 1024, 1025, 4096, 5000]) {
            let [ours, theirs, opened, refused] = &mut buffers;
            let (key, nonce, text) = (drawn(), drawn(), &text[..length]);
            let (assembly, portable) = (Assembly(()).aes_256_gcm(&key), Portable.aes_256_gcm(&key));
            let (sealed, tag) = assembly.seal(&nonce, text, &mut ours[..length]).unwrap();
            let expected = portable.seal(&nonce, text, &mut theirs[..length]).unwrap();
            assert!((&*sealed, tag) == (&*expected.0, expected.1), "{length} bytes");
            assert!(assembly.open(&nonce, sealed, &tag, &mut opened[..length]).unwrap() == text, "{length} bytes");

            let mut changed_tag = tag;
            changed_tag[length % TAG_BYTES] ^= 1 << (length % 8);
            assert_eq!(
                assembly.open(&nonce, sealed, &changed_tag, &mut refused[..length]),
                Err(Error::MalformedMessage)
            );
            if length > 0 {
                sealed[length / 2] ^= 0x10;
                assert_eq!(assembly.open(&nonce, sealed, &tag, &mut refused[..length]), Err(Error::MalformedMessage));
            }
        }
    }

    #[test]
    fn lengths_that_differ_are_refused() {
        let cipher = Assembly(()).aes_256_gcm(&[1; 32]);
        for length in [0, 9, 11] {
            let mut room = vec![MaybeUninit::uninit(); length];
            assert_eq!(cipher.seal(&[0; NONCE_BYTES], &[7; 10], &mut room).err(), Some(Error::MalformedMessage));
            assert_eq!(
                cipher.open(&[0; NONCE_BYTES], &[7; 10], &[0; TAG_BYTES], &mut room).err(),
                Some(Error::MalformedMessage)
            );
        }
    }

    #[test]
    fn a_dropped_context_keeps_no_key() {
        let mut context = std::mem::ManuallyDrop::new(Assembly(()).aes_256_gcm(&[0x5a; 32]));
        // SAFETY: its bytes are written: it was zeroed.
        let expanded = unsafe { context.0.state.opaque };
        assert!(expanded.windows(32).any(|bytes| bytes == [0x5a; 32]), "round keys begin with the key");
        // SAFETY: this is its only drop, and its memory stays.
        unsafe { std::mem::ManuallyDrop::drop(&mut context) };
        // SAFETY: as above; it was zeroed again.
        let left = unsafe { context.0.state.opaque };
        assert!(left.iter().all(|byte| *byte == 0));
    }
}
