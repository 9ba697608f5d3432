//! HPKE's derivations (RFC 9180) with HKDF-SHA256 and AES-256-GCM: for DHKEM(X25519, HKDF-SHA256) in base mode, and for
//! X-Wing in base and PSK mode.
//!
//! They are here and not the `hpke` crate's because that computes the receiver's public key anew in each decapsulation,
//! wants a copy of the private key, and decrypts to initialized memory only. The tests compare the two.

use hkdf::{Hkdf, HkdfExtract};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::primitives::NONCE_BYTES;
use crate::x25519;

/// The protocol and its version, which begins every label.
const VERSION: &[u8] = b"HPKE-v1";
/// "KEM", and the number of DHKEM(X25519, HKDF-SHA256).
const KEM_SUITE: Suite = Suite(b"KEM\x00\x20");
/// "HPKE", and the numbers of that KEM, of HKDF-SHA256 and of AES-256-GCM.
const X25519_SUITE: Suite = Suite(b"HPKE\x00\x20\x00\x01\x00\x02");
/// The same for X-Wing, whose number is 0x647a.
const XWING_SUITE: Suite = Suite(b"HPKE\x64\x7a\x00\x01\x00\x02");

/// What the labels of a KEM's messages have in common.
#[derive(Clone, Copy)]
struct Suite(&'static [u8]);

/// What the members of a group know, and which binds a message to them (section 5.1.2).
pub(crate) struct PreSharedKey<'a> {
    pub(crate) key: &'a [u8; 32],
    pub(crate) id: &'a [u8],
}

/// What the two sides of a message derive. Make and use it in [`without_trace`](crate::no_trace::without_trace).
pub(crate) struct MessageSecrets {
    pub(crate) key: Zeroizing<[u8; 32]>,
    pub(crate) base_nonce: [u8; NONCE_BYTES],
    pub(crate) exporter: Exporter,
}

/// What further secrets of a message are derived from (section 5.3).
#[derive(Clone)]
pub(crate) struct Exporter {
    suite: Suite,
    secret: Zeroizing<[u8; 32]>,
}

impl Exporter {
    /// Context.Export. Call it in [`without_trace`](crate::no_trace::without_trace).
    pub(crate) fn export(&self, context: &[u8], exported: &mut [u8]) -> Result<(), Error> {
        let key = Hkdf::from_prk(self.secret.as_slice()).map_err(|_| Error::MalformedMessage)?;
        labeled_expand(&key, self.suite, b"sec", [context, &[], &[]], exported)
    }
}

/// The public keys that a message's secrets are bound to.
pub(crate) struct Parties<'a> {
    pub(crate) encapsulated_key: &'a [u8; 32],
    pub(crate) receiver: &'a [u8; 32],
}

impl MessageSecrets {
    /// Agrees as the sender, whose ephemeral private key belongs to the encapsulated key (sections 4.1 and 5.1.1).
    ///
    /// # Errors
    /// [`Error::PublicKeySmallOrder`] if the receiver's key is a point of small order.
    pub(crate) fn of_sender(ephemeral: &[u8; 32], parties: &Parties<'_>, info: &[u8]) -> Result<Self, Error> {
        Self::agree(ephemeral, parties.receiver, parties, info)
    }

    /// Agrees as the receiver.
    ///
    /// # Errors
    /// [`Error::PublicKeySmallOrder`] if the encapsulated key is a point of small order.
    pub(crate) fn of_receiver(private_key: &[u8; 32], parties: &Parties<'_>, info: &[u8]) -> Result<Self, Error> {
        Self::agree(private_key, parties.encapsulated_key, parties, info)
    }

    fn agree(private_key: &[u8; 32], peer: &[u8; 32], parties: &Parties<'_>, info: &[u8]) -> Result<Self, Error> {
        let mut agreed = Zeroizing::new([0; 32]);
        x25519::agree(private_key, peer, &mut agreed)?;
        Self::derive(X25519_SUITE, &*shared_secret(&agreed, parties)?, info, None)
    }

    /// Derives from the secret that X-Wing gives both sides.
    pub(crate) fn of_xwing(
        shared_secret: &[u8; 32],
        info: &[u8],
        pre_shared_key: Option<PreSharedKey<'_>>,
    ) -> Result<Self, Error> {
        Self::derive(XWING_SUITE, shared_secret, info, pre_shared_key)
    }

    /// KeySchedule (section 5.1), in base mode or in PSK mode.
    fn derive(
        suite: Suite,
        shared_secret: &[u8; 32],
        info: &[u8],
        pre_shared_key: Option<PreSharedKey<'_>>,
    ) -> Result<Self, Error> {
        let (mode, psk, psk_id): (u8, &[u8], &[u8]) = match pre_shared_key {
            None => (0, &[], &[]),
            Some(PreSharedKey { key, id }) => (1, key, id),
        };
        let psk_id_hash = labeled_extract(suite, &[], b"psk_id_hash", psk_id).0;
        let info_hash = labeled_extract(suite, &[], b"info_hash", info).0;
        let context: [&[u8]; 3] = [&[mode], &psk_id_hash, &info_hash];
        let secret = labeled_extract(suite, shared_secret, b"secret", psk).1;
        let exporter = Exporter { suite, secret: Zeroizing::default() };
        let mut secrets = Self { key: Zeroizing::default(), base_nonce: [0; NONCE_BYTES], exporter };
        labeled_expand(&secret, suite, b"key", context, secrets.key.as_mut_slice())?;
        labeled_expand(&secret, suite, b"base_nonce", context, &mut secrets.base_nonce)?;
        labeled_expand(&secret, suite, b"exp", context, secrets.exporter.secret.as_mut_slice())?;
        Ok(secrets)
    }
}

/// ExtractAndExpand (section 4.1).
fn shared_secret(agreed: &[u8; 32], parties: &Parties<'_>) -> Result<Zeroizing<[u8; 32]>, Error> {
    let extracted = labeled_extract(KEM_SUITE, &[], b"eae_prk", agreed).1;
    let mut shared_secret = Zeroizing::new([0; 32]);
    let context: [&[u8]; 3] = [parties.encapsulated_key, parties.receiver, &[]];
    labeled_expand(&extracted, KEM_SUITE, b"shared_secret", context, shared_secret.as_mut_slice())?;
    Ok(shared_secret)
}

/// LabeledExtract (section 4). Returns the pseudorandom key, as bytes and ready for [`labeled_expand`].
fn labeled_extract(suite: Suite, salt: &[u8], label: &[u8], key_material: &[u8]) -> ([u8; 32], Hkdf<Sha256>) {
    let mut extract = HkdfExtract::<Sha256>::new(Some(salt));
    for part in [VERSION, suite.0, label, key_material] {
        extract.input_ikm(part);
    }
    let (bytes, key) = extract.finalize();
    (bytes.into(), key)
}

/// LabeledExpand (section 4), with the parts of `info` one after the other.
fn labeled_expand(
    key: &Hkdf<Sha256>,
    suite: Suite,
    label: &[u8],
    [first, second, third]: [&[u8]; 3],
    expanded: &mut [u8],
) -> Result<(), Error> {
    // No secret here has more than 32 bytes.
    let length = (expanded.len() as u16).to_be_bytes();
    key.expand_multi_info(&[&length, VERSION, suite.0, label, first, second, third], expanded)
        .map_err(|_| Error::MalformedMessage)
}

#[cfg(test)]
mod tests {
    use hpke::aead::AesGcm256;
    use hpke::kdf::HkdfSha256;
    use hpke::kem::X25519HkdfSha256;
    use hpke::{Deserializable, Kem, OpModeR};
    use serde::Deserialize;

    use super::*;
    use crate::portable::Portable;
    use crate::primitives::{Aes256Gcm, Primitives};
    use crate::writer::{Writer, filled};

    #[derive(Deserialize)]
    #[allow(non_snake_case)] // the names of RFC 9180
    struct Vector {
        info: String,
        skEm: String,
        skRm: String,
        pkRm: String,
        enc: String,
        key: String,
        base_nonce: String,
        exporter_secret: String,
        exports: Vec<Export>,
    }

    #[derive(Deserialize)]
    struct Export {
        exporter_context: String,
        exported_value: String,
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|index| u8::from_str_radix(&hex[index..index + 2], 16).unwrap()).collect()
    }

    fn key(hex: &str) -> [u8; 32] {
        bytes(hex).try_into().unwrap()
    }

    #[test]
    fn both_sides_derive_what_rfc_9180_says() {
        let vector = include_str!("../../../tests/vectors/hpke_x25519_sha256_aes256gcm.json");
        let vector: Vector = serde_json::from_str(vector).unwrap();
        let (encapsulated_key, receiver, info) = (key(&vector.enc), key(&vector.pkRm), bytes(&vector.info));
        let parties = Parties { encapsulated_key: &encapsulated_key, receiver: &receiver };
        let of_sender = MessageSecrets::of_sender(&key(&vector.skEm), &parties, &info).unwrap();
        let of_receiver = MessageSecrets::of_receiver(&key(&vector.skRm), &parties, &info).unwrap();
        assert_eq!(vector.exports.len(), 3);
        for secrets in [of_sender, of_receiver] {
            assert_eq!(*secrets.key, key(&vector.key));
            assert_eq!(secrets.base_nonce, *bytes(&vector.base_nonce));
            assert_eq!(*secrets.exporter.secret, key(&vector.exporter_secret));
            for Export { exporter_context, exported_value } in &vector.exports {
                let mut exported = [0; 32];
                secrets.exporter.export(&bytes(exporter_context), &mut exported).unwrap();
                assert_eq!(exported, key(exported_value));
            }
        }
    }

    #[test]
    fn the_hpke_crate_opens_what_is_sealed_with_these_secrets() {
        for _ in 0..100 {
            let mut drawn = [[0; 32]; 4];
            getrandom::fill(drawn.as_flattened_mut()).unwrap();
            let [ephemeral, private_key, message, info] = drawn;
            let (encapsulated_key, receiver) = (Portable.public_key(&ephemeral), Portable.public_key(&private_key));
            let parties = Parties { encapsulated_key: &encapsulated_key, receiver: &receiver };
            let secrets = MessageSecrets::of_sender(&ephemeral, &parties, &info).unwrap();

            type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;
            type Encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey;
            let mut theirs = hpke::setup_receiver::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
                &OpModeR::Base,
                &PrivateKey::from_bytes(&private_key).unwrap(),
                &Encapsulated::from_bytes(&encapsulated_key).unwrap(),
                &info,
            )
            .unwrap();
            let sealed = filled(48, |room| {
                let mut room = Writer::new(room);
                let cipher = Portable.aes_256_gcm(&secrets.key);
                let tag = room.put_with(32, |room| cipher.seal(&secrets.base_nonce, &message, room))?;
                room.put(&tag)?;
                room.finish()
            });
            assert_eq!(theirs.open(&sealed.unwrap(), &[]).unwrap(), message);
            let (mut their_export, mut our_export) = ([0; 32], [0; 32]);
            theirs.export(b"label", &mut their_export).unwrap();
            secrets.exporter.export(b"label", &mut our_export).unwrap();
            assert_eq!(our_export, their_export);
        }
    }

    #[test]
    fn no_secret_comes_of_a_point_of_small_order() {
        let parties = Parties { encapsulated_key: &[0; 32], receiver: &[9; 32] };
        assert_eq!(MessageSecrets::of_receiver(&[1; 32], &parties, b"").err(), Some(Error::PublicKeySmallOrder));
        let parties = Parties { encapsulated_key: &[9; 32], receiver: &[0; 32] };
        assert_eq!(MessageSecrets::of_sender(&[1; 32], &parties, b"").err(), Some(Error::PublicKeySmallOrder));
    }
}
