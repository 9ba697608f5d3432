//! Identities: known answers, what a strict check refuses, files. The Python tests read the same vectors.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::path::{Path, PathBuf};

use serde::Deserialize;
use server_keys_core::{Error, FileFault, SigningKey, SigningKeyFault, is_signature, is_signing_public_key};

#[derive(Deserialize)]
struct Vectors {
    signatures: Vec<Signed>,
    refused: Vec<Refused>,
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Signed {
    seed: String,
    public_key: String,
    message: String,
    signature: String,
}

#[derive(Deserialize)]
struct Refused {
    case: String,
    public_key: String,
    message: String,
    signature: String,
}

#[derive(Deserialize)]
struct Answer {
    case: String,
    seed: String,
    answer: String,
    created: u64,
    expires: u64,
    signed_answer: String,
}

fn vectors() -> Vectors {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/identity.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A folder that is gone when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("server-keys-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Writes a key of a known seed as OpenSSL would, and reads it.
fn key_of(folder: &Folder, seed: &str) -> SigningKey {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let der = [bytes("302e020100300506032b657004220420"), bytes(seed)].concat();
    let text: String = der
        .chunks(3)
        .flat_map(|three| {
            let word = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
            [18, 12, 6, 0].map(|shift| char::from(ALPHABET[(word >> shift & 63) as usize]))
        })
        .collect();
    let path = folder.file("known.pem");
    std::fs::write(&path, format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")).unwrap();
    restrict(&path, 0o600);
    SigningKey::from_file(&path).unwrap()
}

#[cfg(unix)]
fn restrict(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(not(unix))]
fn restrict(_path: &Path, _mode: u32) {}

#[test]
fn signatures_are_those_of_rfc_8032() {
    let folder = Folder::new("rfc8032");
    for Signed { seed, public_key, message, signature } in vectors().signatures {
        let key = key_of(&folder, &seed);
        assert_eq!(key.public_key().as_slice(), bytes(&public_key));
        assert_eq!(key.sign(&bytes(&message)).unwrap().as_slice(), bytes(&signature));
        assert!(is_signature(&bytes(&public_key), &bytes(&message), &bytes(&signature)));
    }
}

#[test]
fn signatures_of_key_answers_are_those_that_another_library_made() {
    let folder = Folder::new("answers");
    for Answer { case, seed, answer, created, expires, signed_answer } in vectors().answers {
        let times = [created.to_be_bytes(), expires.to_be_bytes()].concat();
        let message = [b"server-keys key configuration v1\0".to_vec(), times, bytes(&answer)].concat();
        let signature = key_of(&folder, &seed).sign(&message).unwrap();
        assert_eq!(bytes(&signed_answer)[bytes(&signed_answer).len() - 64..], signature, "{case}");
    }
}

#[test]
fn the_check_is_strict() {
    for Refused { case, public_key, message, signature } in vectors().refused {
        assert!(!is_signature(&bytes(&public_key), &bytes(&message), &bytes(&signature)), "{case}");
    }
    assert!(!is_signing_public_key(&bytes(&vectors().refused[1].public_key)));
}

#[test]
fn no_changed_bit_and_no_other_length_is_taken() {
    let Signed { public_key, message, signature, .. } = vectors().signatures.remove(2);
    let whole = [bytes(&public_key), bytes(&message), bytes(&signature)];
    for part in 0..3 {
        for bit in 0..whole[part].len() * 8 {
            let mut changed = whole.clone();
            changed[part][bit / 8] ^= 1 << (bit % 8);
            assert!(!is_signature(&changed[0], &changed[1], &changed[2]), "bit {bit} of part {part}");
        }
        let mut longer = whole.clone();
        longer[part].push(0);
        assert!(!is_signature(&longer[0], &longer[1], &longer[2]));
        let mut shorter = whole.clone();
        shorter[part].pop();
        assert!(!is_signature(&shorter[0], &shorter[1], &shorter[2]));
    }
}

#[test]
fn a_new_key_is_read_again_and_nothing_is_overwritten() {
    let folder = Folder::new("new");
    let path = folder.file("server.key");
    let key = SigningKey::new_file(&path).unwrap();
    let text = std::fs::read(&path).unwrap();
    let again = SigningKey::from_file(&path).unwrap();
    assert_eq!(again.public_key(), key.public_key());
    assert_eq!(again.sign(b"x"), key.sign(b"x"));
    assert_eq!(SigningKey::new_file(&path).err(), Some(Error::SigningKey(SigningKeyFault::Exists)));
    assert_eq!(std::fs::read(&path).unwrap(), text);
}

#[test]
fn an_erased_key_signs_nothing() {
    let folder = Folder::new("erased");
    let key = SigningKey::new_file(&folder.file("server.key")).unwrap();
    assert!(!key.is_erased());
    key.erase();
    key.erase();
    assert!(key.is_erased());
    assert_eq!(key.sign(b"x"), Err(Error::KeyErased));
}

#[test]
fn a_missing_file_is_a_fault_of_the_file() {
    let folder = Folder::new("missing");
    let fault = FileFault::Unreadable(std::io::ErrorKind::NotFound);
    let missing = SigningKey::from_file(&folder.file("server.key")).err();
    assert_eq!(missing, Some(Error::SigningKey(SigningKeyFault::File(fault))));
}
