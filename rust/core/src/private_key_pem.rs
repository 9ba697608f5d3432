//! The text form of Ed25519 private keys: PKCS#8 (RFC 5958, RFC 8410) as PEM (RFC 7468).

use std::str;

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, Error, KeypairBytes, SecretDocument, spki};
use zeroize::Zeroizing;

use crate::arena::SECRET_BYTES;
use crate::signing_key_fault::SigningKeyFault;

/// The longest text: 40 times that of a key, for explanations before it.
pub(crate) const MAX_TEXT_BYTES: usize = 4096;

/// Writes the private key in `text` to `private_key`, and returns the public key if it stands beside it.
///
/// Call it in [`without_trace`](crate::no_trace::without_trace).
pub(crate) fn read(text: &[u8], private_key: &mut [u8; SECRET_BYTES]) -> Result<Option<[u8; 32]>, SigningKeyFault> {
    if text.trim_ascii().is_empty() {
        return Err(SigningKeyFault::Empty);
    }
    let text = str::from_utf8(text).map_err(|_| SigningKeyFault::NoPem)?;
    let (label, document) = SecretDocument::from_pem(without_rest(text)).map_err(|_| fault_of_text(text))?;
    match label {
        "PRIVATE KEY" => {}
        "ENCRYPTED PRIVATE KEY" => return Err(SigningKeyFault::Encrypted),
        "PUBLIC KEY" => return Err(SigningKeyFault::PublicKey),
        _ => return Err(SigningKeyFault::NoPkcs8),
    }
    let key = KeypairBytes::from_pkcs8_der(document.as_bytes()).map_err(fault_of_document)?;
    private_key.copy_from_slice(&key.secret_key);
    Ok(key.public_key.map(|public_key| public_key.to_bytes()))
}

/// Returns the text of a private key, with a line's end. Call it as [`read`].
pub(crate) fn write(private_key: &[u8; SECRET_BYTES]) -> Result<Zeroizing<String>, SigningKeyFault> {
    // Without the public key, which OpenSSL does not read from beside a private one.
    let key = KeypairBytes { secret_key: *private_key, public_key: None };
    key.to_pkcs8_pem(LineEnding::LF).map_err(|_| SigningKeyFault::Broken)
}

/// Returns the text without what does not belong to its one key: explanations behind it (RFC 7468, section 2), and the mark
/// with which some editors begin UTF-8. Of several keys nobody knows which is meant.
fn without_rest(text: &str) -> &str {
    const END: &str = "-----END PRIVATE KEY-----";
    let text = text.trim_start_matches('\u{feff}').trim_end();
    match text.split_once(END) {
        Some((key, rest)) if !rest.contains("-----BEGIN ") => &text[..key.len() + END.len()],
        _ => text,
    }
}

/// Tells PEM text that is broken, or has headers as OpenSSL's old forms do, from other text.
fn fault_of_text(text: &str) -> SigningKeyFault {
    let begins = |label| text.contains(label);
    if begins("-----BEGIN PRIVATE KEY-----") {
        SigningKeyFault::Broken
    } else if begins("-----BEGIN ") {
        SigningKeyFault::NoPkcs8
    } else {
        SigningKeyFault::NoPem
    }
}

fn fault_of_document(error: Error) -> SigningKeyFault {
    match error {
        Error::PublicKey(spki::Error::OidUnknown { .. }) => SigningKeyFault::OtherKind,
        _ => SigningKeyFault::Broken,
    }
}
