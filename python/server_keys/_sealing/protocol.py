"""What the server and the client of the Encrypted HTTP Body Protocol (EHBP) agree on, apart from the cryptography."""

import re

ENCAPSULATED_KEY_HEADER = "Ehbp-Encapsulated-Key"
RESPONSE_NONCE_HEADER = "Ehbp-Response-Nonce"
KEY_CONFIG_PATH = "/.well-known/hpke-keys"
KEY_CONFIG_MEDIA_TYPE = "application/ohttp-keys"
PROBLEM_MEDIA_TYPE = "application/problem+json"
KEY_MISMATCH_PROBLEM = "urn:ietf:params:ehbp:error:key-config"

DEFAULT_MAX_FRAME_BYTES = 16 * 1024 * 1024

# RFC 9458, section 3: key id 0, KEM DHKEM(X25519, HKDF-SHA256), then the key, then one suite of HKDF-SHA256 and
# AES-256-GCM.
_BEFORE_KEY = bytes.fromhex("00 0020")
_AFTER_KEY = bytes.fromhex("0004 0001 0002")
_PUBLIC_KEY_BYTES = 32

_HEX_OF_32_BYTES = re.compile("[0-9a-fA-F]{64}")


def key_config(public_key: bytes) -> bytes:
    """Return the key configuration (41 bytes, RFC 9458 section 3) that publishes `public_key` (32 bytes)."""
    return _BEFORE_KEY + public_key + _AFTER_KEY


def public_key_of(config: bytes) -> bytes:
    """Return the public key (32 bytes) of the first key configuration in `config`.

    Raises:
        ValueError: it is not a configuration of the one suite that EHBP uses.
    """
    key_end = len(_BEFORE_KEY) + _PUBLIC_KEY_BYTES
    if not config.startswith(_BEFORE_KEY) or config[key_end : key_end + len(_AFTER_KEY)] != _AFTER_KEY:
        raise ValueError(
            f"not a key configuration of X25519, HKDF-SHA256 and AES-256-GCM (41 bytes): {len(config)} bytes, "
            f"beginning with {config[:8].hex()!r}"
        )
    return config[len(_BEFORE_KEY) : key_end]


def bytes_of_header(value: str) -> bytes:
    """Return the 32 bytes that an EHBP header carries as 64 hex digits.

    Raises:
        ValueError: the value is anything else.
    """
    if not _HEX_OF_32_BYTES.fullmatch(value):
        raise ValueError(f"the header must be 64 hex digits, not {len(value)} characters: {value[:80]!r}")
    return bytes.fromhex(value)
