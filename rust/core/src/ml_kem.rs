//! ML-KEM-768 (FIPS 203) with expanded keys: making the matrix of a public key takes two thirds of an encapsulation.
//!
//! libcrux chooses the instructions itself for keys that are bytes. For expanded ones it leaves that to the caller.

use libcrux_ml_kem::mlkem768::{MlKem768PublicKey, portable, validate_public_key};

#[cfg(target_arch = "x86_64")]
use libcrux_ml_kem::mlkem768::avx2 as vector;
#[cfg(target_arch = "aarch64")]
use libcrux_ml_kem::mlkem768::neon as vector;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use libcrux_ml_kem::mlkem768::portable as vector;

pub(crate) const PUBLIC_KEY_BYTES: usize = 1184;
pub(crate) const CIPHERTEXT_BYTES: usize = 1088;
/// FIPS 203's `d` and `z`.
pub(crate) const SEED_BYTES: usize = 64;

/// A public key with its matrix. Nothing of it is secret. It is on the heap because it has 6 KB.
pub(crate) enum PublicKey {
    Vector(Box<vector::unpacked::MlKem768PublicKeyUnpacked>),
    Portable(Box<portable::unpacked::MlKem768PublicKeyUnpacked>),
}

impl PublicKey {
    /// Expands a public key; None if one of its numbers is not reduced.
    pub(crate) fn expanded(bytes: &[u8; PUBLIC_KEY_BYTES]) -> Option<Self> {
        let public_key = MlKem768PublicKey::from(bytes);
        validate_public_key(&public_key)
            .then(|| if has_vectors() { Self::by_vectors(&public_key) } else { Self::portably(&public_key) })
    }

    fn by_vectors(public_key: &MlKem768PublicKey) -> Self {
        let mut expanded = Box::new(vector::unpacked::init_public_key());
        vector::unpacked::unpacked_public_key(public_key, &mut expanded);
        Self::Vector(expanded)
    }

    fn portably(public_key: &MlKem768PublicKey) -> Self {
        let mut expanded = Box::new(portable::unpacked::init_public_key());
        portable::unpacked::unpacked_public_key(public_key, &mut expanded);
        Self::Portable(expanded)
    }

    /// Returns the ciphertext and the secret that random bytes make. The caller must wipe the secret.
    pub(crate) fn encapsulate(&self, randomness: &[u8; 32]) -> ([u8; CIPHERTEXT_BYTES], [u8; 32]) {
        let (ciphertext, secret) = match self {
            Self::Vector(public_key) => vector::unpacked::encapsulate(public_key, *randomness),
            Self::Portable(public_key) => portable::unpacked::encapsulate(public_key, *randomness),
        };
        (*ciphertext.as_slice(), secret)
    }
}

/// Returns the public key of a seed.
pub(crate) fn public_key(seed: &[u8; SEED_BYTES]) -> [u8; PUBLIC_KEY_BYTES] {
    *libcrux_ml_kem::mlkem768::generate_key_pair(*seed).pk()
}

/// Returns the secret that a ciphertext brings to the owner of a seed. The caller must wipe it.
///
/// The key pair is used as it is made, with its matrix, which its bytes would not have.
pub(crate) fn decapsulate(seed: &[u8; SEED_BYTES], ciphertext: &[u8; CIPHERTEXT_BYTES]) -> [u8; 32] {
    if has_vectors() { decapsulate_by_vectors(seed, ciphertext) } else { decapsulate_portably(seed, ciphertext) }
}

fn decapsulate_by_vectors(seed: &[u8; SEED_BYTES], ciphertext: &[u8; CIPHERTEXT_BYTES]) -> [u8; 32] {
    let mut key_pair = vector::unpacked::init_key_pair();
    vector::unpacked::generate_key_pair_mut(*seed, &mut key_pair);
    vector::unpacked::decapsulate(&key_pair, &ciphertext.into())
}

fn decapsulate_portably(seed: &[u8; SEED_BYTES], ciphertext: &[u8; CIPHERTEXT_BYTES]) -> [u8; 32] {
    let mut key_pair = portable::unpacked::init_key_pair();
    portable::unpacked::generate_key_pair_mut(*seed, &mut key_pair);
    portable::unpacked::decapsulate(&key_pair, &ciphertext.into())
}

/// Says whether the processor has the instructions of `vector`. libcrux calls them without asking.
fn has_vectors() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return true;
}

#[cfg(test)]
mod tests {
    use libcrux_ml_kem::mlkem768;

    use super::*;

    fn drawn<const LENGTH: usize>() -> [u8; LENGTH] {
        let mut drawn = [0; LENGTH];
        getrandom::fill(&mut drawn).unwrap();
        drawn
    }

    /// The public key in each form that this processor can use.
    fn forms(bytes: &[u8; PUBLIC_KEY_BYTES]) -> Vec<PublicKey> {
        let public_key = MlKem768PublicKey::from(bytes);
        let mut forms = vec![PublicKey::portably(&public_key)];
        if has_vectors() {
            forms.push(PublicKey::by_vectors(&public_key));
        }
        forms
    }

    #[test]
    fn expanded_keys_do_what_their_bytes_do() {
        for round in 0..200 {
            let (seed, randomness) = (drawn(), drawn());
            let packed = mlkem768::generate_key_pair(seed);
            let bytes = public_key(&seed);
            assert_eq!(&bytes, packed.pk());
            let (expected, secret) = mlkem768::encapsulate(packed.public_key(), randomness);
            for form in forms(&bytes) {
                assert_eq!(form.encapsulate(&randomness), (*expected.as_slice(), secret));
            }
            let mut ciphertext = *expected.as_slice();
            for changed in [false, true] {
                // A changed ciphertext brings a secret that follows from the seed, and not an error.
                ciphertext[round * 5] ^= u8::from(changed);
                let expected = mlkem768::decapsulate(packed.private_key(), &(&ciphertext).into());
                assert_eq!(expected == secret, !changed);
                assert_eq!(decapsulate_portably(&seed, &ciphertext), expected);
                if has_vectors() {
                    assert_eq!(decapsulate_by_vectors(&seed, &ciphertext), expected);
                }
            }
        }
    }
}
