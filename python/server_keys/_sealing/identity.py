"""The public form of an identity: one short string, `ed25519:` and the 32 bytes of a public key in base64url."""

from server_keys._native import decode_base64url, encode_base64url, is_signing_public_key

PREFIX = "ed25519:"
# 32 bytes in base64url without padding.
_CHARACTERS = 43
_HOW = "pass what `server-keys identity show` prints: ed25519: and 43 characters"


def identity_of(public_key: bytes) -> str:
    """Return the string that stands for an Ed25519 public key (32 bytes)."""
    return PREFIX + encode_base64url(public_key)


def public_key_of_identity(identity: str) -> bytes:
    """Return the Ed25519 public key (32 bytes) that an identity stands for.

    Each key has one string. Another one is refused, even if a lenient decoder would read the same bytes.

    Raises:
        TypeError: it is no str.
        ValueError: it is no identity, or one that cannot sign. The message says why.
    """
    if not isinstance(identity, str):
        raise TypeError(f"an identity is a str, not {type(identity).__name__}: {_HOW}")
    shown = repr(identity[:80])
    if not identity.startswith(PREFIX):
        raise ValueError(f"an identity begins with {PREFIX!r}, this one does not: {shown}; {_HOW}")
    text = identity.removeprefix(PREFIX)
    if len(text) != _CHARACTERS:
        raise ValueError(f"an identity has {_CHARACTERS} characters after {PREFIX!r}, not {len(text)}: {shown}; {_HOW}")
    try:
        public_key = decode_base64url(text)
    except ValueError:
        raise ValueError(
            f"an identity is base64url (letters, digits, - and _), this one is not: {shown}; {_HOW}"
        ) from None
    if not is_signing_public_key(public_key):
        raise ValueError(f"the identity is no Ed25519 key that can sign: {shown}; {_HOW}")
    return public_key
