//! Compares an engine with the plain Rust primitives before it computes anything that counts.
//!
//! This catches a miscompiled or mislinked library and a processor that does not do what it says. It takes about half a
//! millisecond, so it cannot replace the tests.

use std::fmt;
use std::hint::black_box;
use std::mem::MaybeUninit;

use zeroize::Zeroizing;

use crate::no_trace::without_trace;
use crate::portable::Portable;
use crate::primitives::{Aes256Gcm, NONCE_BYTES, Primitives};

// Known answers are read from memory, as `black_box` has it: a test alters them there.

/// A private key, a public key, and the secret that they share: RFC 7748, sections 5.2 and 6.1.
static SHARED_SECRETS: [[[u8; 32]; 3]; 3] = [
    [
        bytes(b"a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
        bytes(b"e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"),
        bytes(b"c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"),
    ],
    [
        bytes(b"4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d"),
        bytes(b"e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493"),
        bytes(b"95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957"),
    ],
    [
        bytes(b"77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"),
        bytes(b"de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"),
        bytes(b"4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"),
    ],
];
/// A private key and its public key: RFC 7748, section 6.1.
static PUBLIC_KEYS: [[[u8; 32]; 2]; 1] = [[
    bytes(b"77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"),
    bytes(b"8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"),
]];
/// Scalars of which the decoding (RFC 7748, section 5) leaves the least, the most, and every other bit.
static EDGE_SCALARS: [[u8; 32]; 3] = [[0; 32], [0xff; 32], [0xaa; 32]];
/// A point of order 8, and the identity's image.
static SMALL_ORDER: [[u8; 32]; 2] =
    [bytes(b"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"), [0; 32]];
/// The largest encoding: above the prime, with the bit set that is to be ignored.
static NOT_CANONICAL: [u8; 32] = [0xff; 32];

const RANDOM_KEYS: usize = 2;
/// Around one block, and long enough for the code that handles many blocks at once.
static MESSAGE_LENGTHS: [usize; 6] = [0, 1, 16, 17, 255, 1000];
const LONGEST_MESSAGE: usize = 1000;

/// What an engine got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// A public key.
    PublicKey,
    /// A shared secret.
    SharedSecret,
    /// It took a point of small order for a public key.
    SmallOrder,
    /// A message sealed with AES-256-GCM, or one that it opened although it was changed.
    AesGcm,
    /// Nothing: the system's random source failed, so there were no random keys to compare.
    NoRandomKeys,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PublicKey => "its public keys differ from dalek's",
            Self::SharedSecret => "its shared secrets differ from dalek's",
            Self::SmallOrder => "it takes points of small order for public keys",
            Self::AesGcm => "its AES-256-GCM differs from RustCrypto's",
            Self::NoRandomKeys => "the system's random source failed, so it could not be checked",
        })
    }
}

/// Checks an engine.
pub(crate) fn check(engine: &impl Primitives) -> Result<(), Mismatch> {
    let mut drawn = Zeroizing::new([[0; 32]; 2 * RANDOM_KEYS]);
    getrandom::fill(drawn.as_flattened_mut()).map_err(|_| Mismatch::NoRandomKeys)?;
    let (private_keys, points) = drawn.split_at(RANDOM_KEYS);
    without_trace(|| {
        check_public_keys(engine, private_keys)?;
        check_shared_secrets(engine, private_keys, points)?;
        check_aes_gcm(engine, &private_keys[0])
    })
}

fn check_public_keys(engine: &impl Primitives, random_keys: &[[u8; 32]]) -> Result<(), Mismatch> {
    let known = black_box(&PUBLIC_KEYS).iter().map(|[private_key, public_key]| (private_key, *public_key));
    let computed = EDGE_SCALARS.iter().chain(random_keys).map(|scalar| (scalar, Portable.public_key(scalar)));
    let mut both = known.chain(computed);
    require(both.all(|(private_key, expected)| engine.public_key(private_key) == expected), Mismatch::PublicKey)
}

fn check_shared_secrets(
    engine: &impl Primitives,
    private_keys: &[[u8; 32]],
    points: &[[u8; 32]],
) -> Result<(), Mismatch> {
    for [private_key, public_key, expected] in black_box(&SHARED_SECRETS) {
        require(agreed(engine, private_key, public_key).as_ref() == Some(expected), Mismatch::SharedSecret)?;
    }
    for public_key in &SMALL_ORDER {
        require(agreed(engine, &private_keys[0], public_key).is_none(), Mismatch::SmallOrder)?;
    }
    let random = private_keys.iter().zip(points);
    for (private_key, public_key) in random.chain([(&private_keys[0], &NOT_CANONICAL)]) {
        let expected = agreed(&Portable, private_key, public_key);
        require(agreed(engine, private_key, public_key) == expected, Mismatch::SharedSecret)?;
    }
    Ok(())
}

fn agreed(primitives: &impl Primitives, private_key: &[u8; 32], public_key: &[u8; 32]) -> Option<[u8; 32]> {
    let mut shared_secret = [0; 32];
    primitives.agree(private_key, public_key, &mut shared_secret).then_some(shared_secret)
}

fn check_aes_gcm(engine: &impl Primitives, key: &[u8; 32]) -> Result<(), Mismatch> {
    let (cipher, expected) = (engine.aes_256_gcm(key), Portable.aes_256_gcm(key));
    let message: [u8; LONGEST_MESSAGE] = std::array::from_fn(|index| index as u8);
    let nonce = [0x24; NONCE_BYTES];
    let (mut sealed, mut sealed_by_rust, mut opened) = (unwritten(), unwritten(), unwritten());
    for length in MESSAGE_LENGTHS {
        let message = &message[..length];
        let (Ok((sealed, mut tag)), Ok(expected)) = (
            cipher.seal(&nonce, message, &mut sealed[..length]),
            expected.seal(&nonce, message, &mut sealed_by_rust[..length]),
        ) else {
            return Err(Mismatch::AesGcm);
        };
        require((&*sealed, tag) == (&*expected.0, expected.1), Mismatch::AesGcm)?;
        let open = cipher.open(&nonce, sealed, &tag, &mut opened[..length]);
        require(open.is_ok_and(|opened| opened == message), Mismatch::AesGcm)?;
        tag[15] ^= 1;
        require(cipher.open(&nonce, sealed, &tag, &mut opened[..length]).is_err(), Mismatch::AesGcm)?;
    }
    Ok(())
}

fn unwritten() -> [MaybeUninit<u8>; LONGEST_MESSAGE] {
    [MaybeUninit::uninit(); LONGEST_MESSAGE]
}

fn require(holds: bool, otherwise: Mismatch) -> Result<(), Mismatch> {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// Decodes hexadecimal digits.
const fn bytes(hex: &[u8; 64]) -> [u8; 32] {
    const fn digit(character: u8) -> u8 {
        match character {
            b'0'..=b'9' => character - b'0',
            b'a'..=b'f' => character - b'a' + 10,
            _ => panic!("a hexadecimal digit"),
        }
    }
    let mut bytes = [0; 32];
    let mut index = 0;
    while index < 32 {
        bytes[index] = digit(hex[2 * index]) << 4 | digit(hex[2 * index + 1]);
        index += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::primitives::TAG_BYTES;

    /// An engine that is right but for one fault.
    struct Faulty(Option<Fault>);

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Fault {
        OnePublicKey([u8; 32]),
        EveryPublicKey,
        OneSharedSecret([u8; 32]),
        EverySharedSecret,
        TakesSmallOrder,
        SealsAnotherTag,
        SealsAnotherText,
        OpensAnything,
        OpensAnotherText,
    }

    impl Primitives for Faulty {
        type Aes256Gcm = FaultyCipher;

        fn public_key(&self, private_key: &[u8; 32]) -> [u8; 32] {
            let mut public_key = Portable.public_key(private_key);
            public_key[31] ^= match self.0 {
                Some(Fault::EveryPublicKey) => 1,
                Some(Fault::OnePublicKey(of)) if of == *private_key => 1,
                _ => 0,
            };
            public_key
        }

        fn agree(&self, private_key: &[u8; 32], public_key: &[u8; 32], shared_secret: &mut [u8; 32]) -> bool {
            let agreed = Portable.agree(private_key, public_key, shared_secret);
            shared_secret[0] ^= match self.0 {
                Some(Fault::EverySharedSecret) => 1,
                Some(Fault::OneSharedSecret(with)) if with == *public_key => 1,
                _ => 0,
            };
            agreed || self.0 == Some(Fault::TakesSmallOrder)
        }

        fn aes_256_gcm(&self, key: &[u8; 32]) -> FaultyCipher {
            FaultyCipher(self.0, Portable.aes_256_gcm(key))
        }
    }

    struct FaultyCipher(Option<Fault>, aes_gcm::Aes256Gcm);

    impl Aes256Gcm for FaultyCipher {
        fn seal<'a>(
            &self,
            nonce: &[u8; NONCE_BYTES],
            plaintext: &[u8],
            ciphertext: &'a mut [MaybeUninit<u8>],
        ) -> Result<(&'a mut [u8], [u8; TAG_BYTES]), Error> {
            let (sealed, mut tag) = self.1.seal(nonce, plaintext, ciphertext)?;
            match self.0 {
                Some(Fault::SealsAnotherTag) => tag[0] ^= 1,
                Some(Fault::SealsAnotherText) if plaintext.len() > 500 => sealed[500] ^= 1,
                _ => {}
            }
            Ok((sealed, tag))
        }

        fn open<'a>(
            &self,
            nonce: &[u8; NONCE_BYTES],
            ciphertext: &[u8],
            tag: &[u8; TAG_BYTES],
            plaintext: &'a mut [MaybeUninit<u8>],
        ) -> Result<&'a mut [u8], Error> {
            if self.0 == Some(Fault::OpensAnything) {
                return Ok(self.1.seal(nonce, ciphertext, plaintext)?.0);
            }
            let opened = self.1.open(nonce, ciphertext, tag, plaintext)?;
            if self.0 == Some(Fault::OpensAnotherText) && !opened.is_empty() {
                opened[0] ^= 1;
            }
            Ok(opened)
        }
    }

    #[test]
    fn an_engine_without_a_fault_passes() {
        assert_eq!(check(&Faulty(None)), Ok(()));
    }

    #[test]
    fn the_engine_of_this_build_passes() {
        let Some(assembly) = crate::assembly::Assembly::new() else { return };
        assert_eq!(check(&assembly), Ok(()));
    }

    #[test]
    fn every_fault_is_found() {
        let faults = [
            (Fault::EveryPublicKey, Mismatch::PublicKey),
            (Fault::OnePublicKey(PUBLIC_KEYS[0][0]), Mismatch::PublicKey),
            (Fault::EverySharedSecret, Mismatch::SharedSecret),
            (Fault::OneSharedSecret(NOT_CANONICAL), Mismatch::SharedSecret),
            (Fault::TakesSmallOrder, Mismatch::SmallOrder),
            (Fault::SealsAnotherTag, Mismatch::AesGcm),
            (Fault::SealsAnotherText, Mismatch::AesGcm),
            (Fault::OpensAnything, Mismatch::AesGcm),
            (Fault::OpensAnotherText, Mismatch::AesGcm),
        ];
        let edges = EDGE_SCALARS.map(|scalar| (Fault::OnePublicKey(scalar), Mismatch::PublicKey));
        let known = SHARED_SECRETS.map(|[_, with, _]| (Fault::OneSharedSecret(with), Mismatch::SharedSecret));
        for (fault, mismatch) in faults.into_iter().chain(edges).chain(known) {
            assert_eq!(check(&Faulty(Some(fault))), Err(mismatch), "{fault:?}");
        }
    }
}
