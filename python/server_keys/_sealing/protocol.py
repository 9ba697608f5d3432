"""The names and rules that both ends of the Encrypted HTTP Body Protocol (EHBP) share, apart from the cryptography."""

import re

ENCAPSULATED_KEY_HEADER = "Ehbp-Encapsulated-Key"
RESPONSE_NONCE_HEADER = "Ehbp-Response-Nonce"
KEY_CONFIG_PATH = "/.well-known/hpke-keys"
KEY_CONFIG_MEDIA_TYPE = "application/ohttp-keys"
PROBLEM_MEDIA_TYPE = "application/problem+json"
KEY_MISMATCH_PROBLEM = "urn:ietf:params:ehbp:error:key-config"

DEFAULT_MAX_FRAME_BYTES = 16 * 1024 * 1024
DEFAULT_MAX_BUFFERED_BYTES = 256 * 1024 * 1024
"""What unfinished requests of a process may hold together: right for 1 GiB of memory."""
FRAME_PLAINTEXT_BYTES = 64 * 1024
"""How much of a body both ends of this package seal as one frame, at most.

Frames are sealed and opened one at a time, so neither end holds more of a long body than this beside the body itself.
Every limit that a receiver can set takes them. Allocators serve so many bytes from memory that they have at hand; from
128 KiB on they return it to the system and get it again, which takes longer than to encrypt it.
"""
# The length of a frame, and the tag of AES-256-GCM.
_FRAME_OVERHEAD_BYTES = 4 + 16

# Callers and apps describe their plaintext in headers. On the way the body is a sealed one, and everybody acts on the
# headers all the same. So both ends keep one rule: a header that describes the bytes of the body is removed from the
# sealed message before it leaves, and from the opened message before it is handed over.
#
# | header | why |
# |---|---|
# | Content-Length, Transfer-Encoding | delimit the body; each hop sets them for the body that it sends |
# | Content-MD5, Digest, Content-Digest, Repr-Digest | give a short plaintext away; the seal protects better |
# | Range, If-Range, Accept-Ranges | a part of a sealed body cannot be opened, so nobody shall ask for one |
# | Accept-Encoding | becomes `identity`: nobody shall compress, because a compressed length tells of the content |
# | Content-Encoding | of a response: clients would decode the sealed body, so the server undoes it before it seals |
#
# Headers that describe the plaintext's meaning, or the resource, stay: Content-Type, Content-Language,
# Content-Disposition, ETag, Last-Modified, and the Content-Encoding of a request, which no server decodes by itself.
_OF_ANY_BODY = frozenset(
    {"content-length", "transfer-encoding", "content-md5", "digest", "content-digest", "repr-digest"}
)
NOT_OF_A_SEALED_REQUEST = _OF_ANY_BODY | {"range", "if-range", "accept-encoding"}
"""The headers, in lower case, that a client does not send with a sealed request, nor a server hand to its app."""
NOT_OF_A_SEALED_RESPONSE = _OF_ANY_BODY | {"accept-ranges", "content-encoding"}
"""The headers, in lower case, that a server does not send with a sealed response."""

# RFC 9458, section 3: key id 0, KEM DHKEM(X25519, HKDF-SHA256), then the key, then one suite of HKDF-SHA256 and
# AES-256-GCM.
_BEFORE_KEY = bytes.fromhex("00 0020")
_AFTER_KEY = bytes.fromhex("0004 0001 0002")
_PUBLIC_KEY_BYTES = 32

_HEX_OF_32_BYTES = re.compile("[0-9a-fA-F]{64}")


def sealed_length(length: int) -> int:
    """Return how many bytes a body of `length` bytes has when it is sealed, and all frames but the last are full."""
    frames = -(-length // FRAME_PLAINTEXT_BYTES)
    return length + frames * _FRAME_OVERHEAD_BYTES


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
