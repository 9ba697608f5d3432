//! The text form of group secrets: hex digits, one secret or two.

use zeroize::Zeroizing;

use crate::error::Error;
use crate::group_secret_fault::GroupSecretFault;

/// The longest text.
pub(crate) const MAX_TEXT_BYTES: usize = 4096;
const MIN_DIGITS: usize = 64;
/// The one in use, and the one that it replaces.
const MAX_SECRETS: usize = 2;

/// The bytes of a secret. They are wiped when it is dropped.
pub(crate) type GroupSecret = Zeroizing<Vec<u8>>;

/// Reads secrets that white space or commas separate. Call it in [`without_trace`](crate::no_trace::without_trace).
pub(crate) fn parse(text: &[u8]) -> Result<Vec<GroupSecret>, Error> {
    parse_text(text).map_err(Error::GroupSecret)
}

fn parse_text(text: &[u8]) -> Result<Vec<GroupSecret>, GroupSecretFault> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(GroupSecretFault::TooLong(MAX_TEXT_BYTES));
    }
    let mut secrets = Vec::with_capacity(MAX_SECRETS);
    let is_separator = |byte: &u8| byte.is_ascii_whitespace() || *byte == b',';
    for digits in text.split(is_separator).filter(|digits| !digits.is_empty()) {
        let secret = decode(digits)?;
        if secrets.contains(&secret) {
            return Err(GroupSecretFault::Repeated);
        }
        if secrets.len() == MAX_SECRETS {
            return Err(GroupSecretFault::TooMany(MAX_SECRETS));
        }
        secrets.push(secret);
    }
    if secrets.is_empty() { Err(GroupSecretFault::Empty) } else { Ok(secrets) }
}

fn decode(digits: &[u8]) -> Result<GroupSecret, GroupSecretFault> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(GroupSecretFault::NoHexDigit);
    }
    if digits.len() < MIN_DIGITS {
        return Err(GroupSecretFault::TooShort(MIN_DIGITS));
    }
    if !digits.len().is_multiple_of(2) {
        return Err(GroupSecretFault::OddDigits);
    }
    // Exactly as long as needed: a buffer that grows would leave copies.
    let mut secret = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
    secret.extend(digits.chunks_exact(2).map(|pair| value(pair[0]) << 4 | value(pair[1])));
    Ok(secret)
}

fn value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
