//! X-Wing, a KEM of ML-KEM-768 and X25519 (draft-connolly-cfrg-xwing-kem): it holds while one of the two does.
//!
//! ML-KEM's private key is expanded from the seed in each call, because a slot of the arena has room for a seed only. Call
//! what takes or gives a secret in [`without_deep_trace`](crate::no_trace::without_deep_trace).

use libcrux_ml_kem::mlkem768::{
    MlKem768KeyPair, MlKem768PublicKey, decapsulate as decapsulate_ml_kem, encapsulate as encapsulate_ml_kem,
    generate_key_pair, validate_public_key,
};
use libcrux_sha3::{sha256_ema, shake256_ema};
use zeroize::{Zeroize, Zeroizing};

use crate::error::Error;
use crate::x25519;

/// The length of an X-Wing public key.
pub const XWING_PUBLIC_KEY_BYTES: usize = ML_KEM_PUBLIC_KEY_BYTES + 32;
/// The length of what X-Wing sends to the receiver of a message.
pub const XWING_ENCAPSULATED_KEY_BYTES: usize = ML_KEM_CIPHERTEXT_BYTES + 32;
/// The length of the randomness of one encapsulation.
pub(crate) const RANDOMNESS_BYTES: usize = 64;

const ML_KEM_PUBLIC_KEY_BYTES: usize = 1184;
const ML_KEM_CIPHERTEXT_BYTES: usize = 1088;
const LABEL: &[u8; 6] = br"\.//^\";

/// Returns the public key of a seed.
pub(crate) fn public_key(seed: &[u8; 32]) -> [u8; XWING_PUBLIC_KEY_BYTES] {
    let (ml_kem, x25519_private_key) = expand(seed);
    let mut public_key = [0; XWING_PUBLIC_KEY_BYTES];
    let (ml_kem_half, x25519_half) = public_key.split_at_mut(ML_KEM_PUBLIC_KEY_BYTES);
    ml_kem_half.copy_from_slice(ml_kem.pk());
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
    let (ml_kem_ciphertext, ephemeral) = halves::<ML_KEM_CIPHERTEXT_BYTES>(encapsulated_key)?;
    let (_, x25519_public_key) = halves::<ML_KEM_PUBLIC_KEY_BYTES>(public_key)?;
    let (ml_kem, x25519_private_key) = expand(seed);
    let mut agreed = Zeroizing::new([0; 32]);
    x25519::agree(&x25519_private_key, ephemeral, &mut agreed)?;
    let ml_kem_secret = Zeroizing::new(decapsulate_ml_kem(ml_kem.private_key(), &ml_kem_ciphertext.into()));
    combine(&ml_kem_secret, &agreed, ephemeral, x25519_public_key, shared_secret);
    Ok(())
}

/// Writes a secret, and the encapsulated key that brings it to the owner of `public_key`.
///
/// # Errors
/// [`Error::MlKemPublicKey`], [`Error::PublicKeySmallOrder`].
pub(crate) fn encapsulate(
    public_key: &[u8; XWING_PUBLIC_KEY_BYTES],
    randomness: &[u8; RANDOMNESS_BYTES],
    encapsulated_key: &mut [u8; XWING_ENCAPSULATED_KEY_BYTES],
    shared_secret: &mut [u8; 32],
) -> Result<(), Error> {
    let (ml_kem_public_key, x25519_public_key) = halves::<ML_KEM_PUBLIC_KEY_BYTES>(public_key)?;
    let ml_kem_public_key = MlKem768PublicKey::from(ml_kem_public_key);
    if !validate_public_key(&ml_kem_public_key) {
        return Err(Error::MlKemPublicKey);
    }
    let (ml_kem_randomness, ephemeral_private_key) = halves::<32>(randomness)?;
    let mut agreed = Zeroizing::new([0; 32]);
    x25519::agree(ephemeral_private_key, x25519_public_key, &mut agreed)?;
    let ephemeral = x25519::public_key(ephemeral_private_key);
    let (ciphertext, ml_kem_secret) = encapsulate_ml_kem(&ml_kem_public_key, *ml_kem_randomness);
    let ml_kem_secret = Zeroizing::new(ml_kem_secret);
    combine(&ml_kem_secret, &agreed, &ephemeral, x25519_public_key, shared_secret);
    let (first, second) = encapsulated_key.split_at_mut(ML_KEM_CIPHERTEXT_BYTES);
    first.copy_from_slice(ciphertext.as_slice());
    second.copy_from_slice(&ephemeral);
    Ok(())
}

/// Makes the two private keys of a seed.
fn expand(seed: &[u8; 32]) -> (MlKem768KeyPair, Zeroizing<[u8; 32]>) {
    let mut expanded = Zeroizing::new([0; 96]);
    shake256_ema(expanded.as_mut_slice(), seed);
    let (mut ml_kem_seed, mut x25519_private_key) = ([0; 64], Zeroizing::new([0; 32]));
    ml_kem_seed.copy_from_slice(&expanded[..64]);
    x25519_private_key.copy_from_slice(&expanded[64..]);
    let ml_kem = generate_key_pair(ml_kem_seed);
    ml_kem_seed.zeroize();
    (ml_kem, x25519_private_key)
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
