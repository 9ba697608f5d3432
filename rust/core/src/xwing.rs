//! X-Wing, a KEM of ML-KEM-768 and X25519 (draft-connolly-cfrg-xwing-kem): it holds while one of the two does.
//!
//! ML-KEM's private key is expanded from the seed in each call, because a slot of the arena has room for a seed only. Call
//! what takes or gives a secret in [`without_deep_trace`](crate::no_trace::without_deep_trace).

use libcrux_sha3::{sha256_ema, shake256_ema};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::ml_kem;
use crate::x25519;

/// The length of an X-Wing public key.
pub const XWING_PUBLIC_KEY_BYTES: usize = ml_kem::PUBLIC_KEY_BYTES + 32;
/// The length of what X-Wing sends to the receiver of a message.
pub const XWING_ENCAPSULATED_KEY_BYTES: usize = ml_kem::CIPHERTEXT_BYTES + 32;
/// The length of the randomness of one encapsulation.
pub(crate) const RANDOMNESS_BYTES: usize = 64;

const LABEL: &[u8; 6] = br"\.//^\";

/// A public key that is ready for many messages: its matrix takes as long to make as the rest of one.
pub struct XWingPublicKey {
    ml_kem: ml_kem::PublicKey,
    x25519: [u8; 32],
}

impl XWingPublicKey {
    /// Reads a public key.
    ///
    /// # Errors
    /// [`Error::XWingPublicKeyLength`]; [`Error::MlKemPublicKey`] if a number of it is not reduced.
    pub fn new(bytes: &[u8]) -> Result<Self, Error> {
        let bytes: &[u8; XWING_PUBLIC_KEY_BYTES] =
            bytes.try_into().map_err(|_| Error::XWingPublicKeyLength(bytes.len()))?;
        let (ml_kem, x25519) = halves(bytes)?;
        Ok(Self { ml_kem: ml_kem::PublicKey::expanded(ml_kem).ok_or(Error::MlKemPublicKey)?, x25519: *x25519 })
    }

    /// Writes a secret, and the encapsulated key that brings it to the owner of this key.
    ///
    /// # Errors
    /// [`Error::PublicKeySmallOrder`].
    pub(crate) fn encapsulate(
        &self,
        randomness: &[u8; RANDOMNESS_BYTES],
        encapsulated_key: &mut [u8; XWING_ENCAPSULATED_KEY_BYTES],
        shared_secret: &mut [u8; 32],
    ) -> Result<(), Error> {
        let (ml_kem_randomness, ephemeral_private_key) = halves::<32>(randomness)?;
        let mut agreed = Zeroizing::new([0; 32]);
        x25519::agree(ephemeral_private_key, &self.x25519, &mut agreed)?;
        let ephemeral = x25519::public_key(ephemeral_private_key);
        let (ciphertext, ml_kem_secret) = self.ml_kem.encapsulate(ml_kem_randomness);
        let ml_kem_secret = Zeroizing::new(ml_kem_secret);
        combine(&ml_kem_secret, &agreed, &ephemeral, &self.x25519, shared_secret);
        let (first, second) = encapsulated_key.split_at_mut(ml_kem::CIPHERTEXT_BYTES);
        first.copy_from_slice(&ciphertext);
        second.copy_from_slice(&ephemeral);
        Ok(())
    }
}

/// Returns the public key of a seed.
pub(crate) fn public_key(seed: &[u8; 32]) -> [u8; XWING_PUBLIC_KEY_BYTES] {
    let (ml_kem_seed, x25519_private_key) = expand(seed);
    let mut public_key = [0; XWING_PUBLIC_KEY_BYTES];
    let (ml_kem_half, x25519_half) = public_key.split_at_mut(ml_kem::PUBLIC_KEY_BYTES);
    ml_kem_half.copy_from_slice(&ml_kem::public_key(&ml_kem_seed));
    x25519_half.copy_from_slice(&x25519::public_key(&x25519_private_key));
    public_key
}

/// Writes the secret that an encapsulated key brings to the owner of a seed, whose public key it takes, too.
///
/// An encapsulated key that was made for another public key, or changed, gives another secret.
///
/// # Errors
/// [`Error::PublicKeySmallOrder`] if the X25519 half of the encapsulated key is a point of small order.
pub(crate) fn decapsulate(
    seed: &[u8; 32],
    public_key: &[u8; XWING_PUBLIC_KEY_BYTES],
    encapsulated_key: &[u8; XWING_ENCAPSULATED_KEY_BYTES],
    shared_secret: &mut [u8; 32],
) -> Result<(), Error> {
    let (ml_kem_ciphertext, ephemeral) = halves(encapsulated_key)?;
    let (_, x25519_public_key) = halves::<{ ml_kem::PUBLIC_KEY_BYTES }>(public_key)?;
    let (ml_kem_seed, x25519_private_key) = expand(seed);
    let mut agreed = Zeroizing::new([0; 32]);
    x25519::agree(&x25519_private_key, ephemeral, &mut agreed)?;
    let ml_kem_secret = Zeroizing::new(ml_kem::decapsulate(&ml_kem_seed, ml_kem_ciphertext));
    combine(&ml_kem_secret, &agreed, ephemeral, x25519_public_key, shared_secret);
    Ok(())
}

/// Makes the seed of ML-KEM's key pair, and X25519's private key, of a seed.
fn expand(seed: &[u8; 32]) -> (Zeroizing<[u8; ml_kem::SEED_BYTES]>, Zeroizing<[u8; 32]>) {
    let mut expanded = Zeroizing::new([0; ml_kem::SEED_BYTES + 32]);
    shake256_ema(expanded.as_mut_slice(), seed);
    let mut parts = (Zeroizing::new([0; ml_kem::SEED_BYTES]), Zeroizing::new([0; 32]));
    let (ml_kem_seed, x25519_private_key) = expanded.split_at(ml_kem::SEED_BYTES);
    parts.0.copy_from_slice(ml_kem_seed);
    parts.1.copy_from_slice(x25519_private_key);
    parts
}

fn combine(
    ml_kem_secret: &[u8; 32],
    agreed: &[u8; 32],
    ephemeral: &[u8; 32],
    x25519_public_key: &[u8; 32],
    shared_secret: &mut [u8; 32],
) {
    let mut hashed = Zeroizing::new([0; 4 * 32 + LABEL.len()]);
    let parts: [&[u8]; 5] = [ml_kem_secret, agreed, ephemeral, x25519_public_key, LABEL];
    for (place, byte) in hashed.iter_mut().zip(parts.into_iter().flatten()) {
        *place = *byte;
    }
    sha256_ema(shared_secret, hashed.as_slice());
}

/// Splits bytes into the first `FIRST` and 32 others.
fn halves<const FIRST: usize>(bytes: &[u8]) -> Result<(&[u8; FIRST], &[u8; 32]), Error> {
    let (first, second) = bytes.split_first_chunk().ok_or(Error::MalformedMessage)?;
    Ok((first, second.try_into().map_err(|_| Error::MalformedMessage)?))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Vectors {
        vectors: Vec<Vector>,
    }

    #[derive(Deserialize)]
    struct Vector {
        seed: String,
        eseed: String,
        pk: String,
        ct: String,
        ss: String,
    }

    fn bytes<const LENGTH: usize>(hex: &str) -> [u8; LENGTH] {
        assert_eq!(hex.len(), 2 * LENGTH);
        std::array::from_fn(|index| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap())
    }

    fn drawn<const LENGTH: usize>() -> [u8; LENGTH] {
        let mut drawn = [0; LENGTH];
        getrandom::fill(&mut drawn).unwrap();
        drawn
    }

    #[test]
    fn both_sides_get_what_the_draft_says() {
        let vectors: Vectors = serde_json::from_str(include_str!("../../../tests/vectors/xwing.json")).unwrap();
        assert_eq!(vectors.vectors.len(), 3);
        for Vector { seed, eseed, pk, ct, ss } in vectors.vectors {
            let (seed, known_public_key) = (bytes(&seed), bytes(&pk));
            assert_eq!(public_key(&seed), known_public_key);
            let (mut encapsulated_key, mut shared_secret) = ([0; XWING_ENCAPSULATED_KEY_BYTES], [0; 32]);
            let receiver = XWingPublicKey::new(&known_public_key).unwrap();
            receiver.encapsulate(&bytes(&eseed), &mut encapsulated_key, &mut shared_secret).unwrap();
            assert_eq!((encapsulated_key, shared_secret), (bytes(&ct), bytes(&ss)));
            shared_secret = [0; 32];
            decapsulate(&seed, &known_public_key, &encapsulated_key, &mut shared_secret).unwrap();
            assert_eq!(shared_secret, bytes(&ss));
        }
    }

    #[test]
    fn both_sides_agree_and_a_changed_key_gives_another_secret() {
        for round in 0..200 {
            let seed = drawn();
            let public_key = public_key(&seed);
            let (mut encapsulated_key, mut sent) = ([0; XWING_ENCAPSULATED_KEY_BYTES], [0; 32]);
            let receiver = XWingPublicKey::new(&public_key).unwrap();
            receiver.encapsulate(&drawn(), &mut encapsulated_key, &mut sent).unwrap();
            let mut received = [0; 32];
            decapsulate(&seed, &public_key, &encapsulated_key, &mut received).unwrap();
            assert_eq!(sent, received);
            encapsulated_key[round * 997 % XWING_ENCAPSULATED_KEY_BYTES] ^= 1;
            decapsulate(&seed, &public_key, &encapsulated_key, &mut received).unwrap();
            assert_ne!(sent, received);
        }
    }

    #[test]
    fn an_x25519_half_of_small_order_is_refused_by_both_sides() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/vectors/small_order_points.json")).unwrap();
        let seed = drawn();
        let public_key = public_key(&seed);
        let points = file["points"].as_array().unwrap();
        assert_eq!(points.len(), 14);
        for point in points {
            let point: [u8; 32] = bytes(point["public_key"].as_str().unwrap());
            let (mut encapsulated_key, mut shared_secret) = ([0; XWING_ENCAPSULATED_KEY_BYTES], [0xa5; 32]);
            let mut weak = public_key;
            weak[ml_kem::PUBLIC_KEY_BYTES..].copy_from_slice(&point);
            let weak = XWingPublicKey::new(&weak).unwrap();
            let refused = weak.encapsulate(&drawn(), &mut encapsulated_key, &mut shared_secret);
            assert_eq!(refused, Err(Error::PublicKeySmallOrder));
            let receiver = XWingPublicKey::new(&public_key).unwrap();
            receiver.encapsulate(&drawn(), &mut encapsulated_key, &mut [0; 32]).unwrap();
            encapsulated_key[ml_kem::CIPHERTEXT_BYTES..].copy_from_slice(&point);
            let refused = decapsulate(&seed, &public_key, &encapsulated_key, &mut shared_secret);
            assert_eq!(refused, Err(Error::PublicKeySmallOrder));
            assert_eq!(shared_secret, [0xa5; 32], "a refusal writes nothing");
        }
    }

    #[test]
    fn a_number_that_is_not_reduced_is_refused() {
        let public_key = public_key(&drawn());
        let encapsulated = |public_key: &[u8; XWING_PUBLIC_KEY_BYTES]| {
            XWingPublicKey::new(public_key)?.encapsulate(&drawn(), &mut [0; XWING_ENCAPSULATED_KEY_BYTES], &mut [0; 32])
        };
        // Three polynomials of 256 numbers, two of which are in each three bytes, of 12 bits. The prime is 3329.
        for index in 0..3 * 128 {
            for number in [3329_u16, 4095] {
                let mut wrong = public_key;
                wrong[3 * index] = number as u8;
                wrong[3 * index + 1] = wrong[3 * index + 1] & 0xf0 | (number >> 8) as u8;
                assert_eq!(encapsulated(&wrong), Err(Error::MlKemPublicKey));
            }
            let mut largest = public_key;
            largest[3 * index] = 3328_u16 as u8;
            largest[3 * index + 1] = largest[3 * index + 1] & 0xf0 | (3328_u16 >> 8) as u8;
            assert_eq!(encapsulated(&largest), Ok(()));
        }
    }
}
