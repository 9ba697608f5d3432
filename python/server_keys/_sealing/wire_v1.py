"""Version 1 of the wire, apart from its cryptography: what the two headers carry, and what the sealed heads say.

Plain EHBP seals bodies. Version 1 seals with each message also its head, that is the method and the target of a request
and the status of a response, and closes each body with an end frame. Both ends use the headers of EHBP for it:

- `Ehbp-Encapsulated-Key: 1.<key id>.<encapsulated key>.<sealed head>`
- `Ehbp-Response-Nonce: 1.<nonce>.<sealed head>`

The key id is two hex digits, the rest is base64url without padding (RFC 4648, section 5).
"""

import hashlib
import re
from typing import NamedTuple

from server_keys._native import decode_base64url, encode_base64url

ENCAPSULATED_KEY_BYTES = 1120
"""An ML-KEM-768 ciphertext and an X25519 public key (X-Wing)."""
RESPONSE_NONCE_BYTES = 32
_TAG_BYTES = 16

_VERSION = "1"
# A longer target stands as its hash, so that the header passes nginx, which takes 8 KiB a line.
_MOST_TARGET_BYTES = 4096
_HASH_PREFIX = b"sha256-"
# A method of 32 characters, the longest target, and ` end`.
_MOST_HEAD_BYTES = 32 + 1 + _MOST_TARGET_BYTES + 4
_KEY_ID = re.compile("[0-9a-f]{2}")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_STATUS = re.compile(rb"[1-9][0-9]{2}")
_END = b" end"


class RequestHeader(NamedTuple):
    """What `Ehbp-Encapsulated-Key` carries."""

    key_id: int
    encapsulated_key: bytes
    sealed_head: bytes


class ResponseHeader(NamedTuple):
    """What `Ehbp-Response-Nonce` carries."""

    nonce: bytes
    sealed_head: bytes


class RequestHead(NamedTuple):
    """What a request's sealed head says. `target` is as `sealed_target` makes it."""

    method: bytes
    target: bytes
    has_body: bool


class ResponseHead(NamedTuple):
    """What a response's sealed head says."""

    status: int
    has_body: bool


def is_versioned(value: str) -> bool:
    """Return whether a header has the form of version 1 or of a later one: plain EHBP's hex digits have no dot."""
    return "." in value


def request_header(header: RequestHeader) -> str:
    """Return the value of `Ehbp-Encapsulated-Key`."""
    encapsulated_key, sealed_head = encode_base64url(header.encapsulated_key), encode_base64url(header.sealed_head)
    return f"{_VERSION}.{header.key_id:02x}.{encapsulated_key}.{sealed_head}"


def parsed_request_header(value: str) -> RequestHeader:
    """Return what a value of `Ehbp-Encapsulated-Key` carries.

    Raises:
        ValueError: it has another version or form. The message quotes nothing of it.
    """
    key_id, encapsulated_key, sealed_head = _fields(value, 3)
    if not _KEY_ID.fullmatch(key_id) or key_id == "00":
        raise ValueError("the key id must be two hex digits from 01 to ff")
    return RequestHeader(
        int(key_id, 16), _decoded(encapsulated_key, ENCAPSULATED_KEY_BYTES), _decoded_head(sealed_head)
    )


def response_header(header: ResponseHeader) -> str:
    """Return the value of `Ehbp-Response-Nonce`."""
    return f"{_VERSION}.{encode_base64url(header.nonce)}.{encode_base64url(header.sealed_head)}"


def parsed_response_header(value: str) -> ResponseHeader:
    """Return what a value of `Ehbp-Response-Nonce` carries.

    Raises:
        ValueError: it has another version or form. The message quotes nothing of it.
    """
    nonce, sealed_head = _fields(value, 2)
    return ResponseHeader(_decoded(nonce, RESPONSE_NONCE_BYTES), _decoded_head(sealed_head))


def sealed_target(target: bytes) -> bytes:
    """Return a target, which is normalised, in the form in which heads carry it: one above 4 KiB as its SHA-256."""
    if len(target) <= _MOST_TARGET_BYTES:
        return target
    return _HASH_PREFIX + encode_base64url(hashlib.sha256(target).digest()).encode()


def request_head(head: RequestHead) -> bytes:
    """Return the plaintext of a request's head."""
    return b"%s %s%s" % (head.method, head.target, b"" if head.has_body else _END)


def parsed_request_head(plaintext: bytes) -> RequestHead:
    """Return what a request's head says.

    Raises:
        ValueError: it has another form.
    """
    said, has_body = _without_end(plaintext)
    method, space, target = said.partition(b" ")
    if not _METHOD.fullmatch(method) or not space or not target or b" " in target:
        raise ValueError("a request's head must be a method and a target")
    return RequestHead(method, target, has_body)


def response_head(head: ResponseHead) -> bytes:
    """Return the plaintext of a response's head."""
    return b"%d%s" % (head.status, b"" if head.has_body else _END)


def parsed_response_head(plaintext: bytes) -> ResponseHead:
    """Return what a response's head says.

    Raises:
        ValueError: it has another form.
    """
    status, has_body = _without_end(plaintext)
    if not _STATUS.fullmatch(status):
        raise ValueError("a response's head must be a status")
    return ResponseHead(int(status), has_body)


def _without_end(plaintext: bytes) -> tuple[bytes, bool]:
    said = plaintext.removesuffix(_END)
    return said, said == plaintext


def _fields(value: str, count: int) -> list[str]:
    version, *fields = value.split(".")
    if version != _VERSION or len(fields) != count:
        raise ValueError(f"the header must have version {_VERSION} and {count} more fields")
    return fields


def _decoded(text: str, length: int) -> bytes:
    data = decode_base64url(text)
    if len(data) != length:
        raise ValueError(f"a field must have {length} bytes, not {len(data)}")
    return data


def _decoded_head(text: str) -> bytes:
    if len(text) * 3 // 4 > _MOST_HEAD_BYTES + _TAG_BYTES:
        raise ValueError(f"a sealed head must have {_MOST_HEAD_BYTES + _TAG_BYTES} bytes at most")
    return decode_base64url(text)
