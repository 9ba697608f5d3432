"""Ephemeral X25519 keys for FastAPI and vLLM servers.

Generated in Rust off the GIL, rotated while the app runs, wiped when their time is over.
"""

from server_keys._native import (
    EntropyError,
    FrameTooLargeError,
    InvalidPublicKeyError,
    KeyErasedError,
    KeyPair,
    MalformedMessageError,
    generate_key_pairs,
)
from server_keys.dependency import EphemeralKeys, get_ephemeral_keys
from server_keys.key_ring import KeyRing, KeyRingStatus, KeysUnavailableError
from server_keys.lifespan import Lifespan, ephemeral_key_lifespan_factory, inject_key_lifespan, periodic_refresh
from server_keys.middleware import BuildAppFunc, EncryptedBodyMiddleware, inject_middleware
from server_keys.protection import protect

__all__ = [
    "BuildAppFunc",
    "EncryptedBodyMiddleware",
    "EntropyError",
    "EphemeralKeys",
    "FrameTooLargeError",
    "InvalidPublicKeyError",
    "KeyErasedError",
    "KeyPair",
    "KeyRing",
    "KeyRingStatus",
    "KeysUnavailableError",
    "Lifespan",
    "MalformedMessageError",
    "ephemeral_key_lifespan_factory",
    "generate_key_pairs",
    "get_ephemeral_keys",
    "inject_key_lifespan",
    "inject_middleware",
    "periodic_refresh",
    "protect",
]
