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

Every limit that a receiver can set takes them. A receiver keeps a frame until all of it has arrived; one of more than
128 KiB allocators get from the system and return to it each time, which takes longer than to decrypt it.
"""
_TAG_BYTES = 16
MAX_FRAME_BYTES = FRAME_PLAINTEXT_BYTES + _TAG_BYTES
"""The longest frame that both ends of this package make, tag included."""
AT_ONCE_BYTES = 2 * FRAME_PLAINTEXT_BYTES
"""How much of a long body that is at hand both ends seal at once, in full frames, and send together.

Handing a piece to the HTTP library or the server takes about as long as encrypting a frame, and wakes the receiver. Of
twice as much, less would be in the processor's cache when it is sent.
"""
_FRAME_OVERHEAD_BYTES = 4 + _TAG_BYTES

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
    return length + frames_of(length) * _FRAME_OVERHEAD_BYTES


def frames_of(length: int) -> int:
    """Return how many frames a body of `length` bytes has when all but the last are full."""
    return -(-length // FRAME_PLAINTEXT_BYTES)


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
