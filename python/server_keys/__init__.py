"""Ephemeral X25519 keys for FastAPI and vLLM servers.

They are generated in Rust off the GIL, rotated while the app runs, and wiped when their time is over.

Names are imported when they are first used (PEP 562), so `server_keys.client` needs no FastAPI.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server_keys import build_app as build_app
    from server_keys import errors as errors
    from server_keys import metrics as metrics
    from server_keys import middleware as middleware
    from server_keys import readiness as readiness
    from server_keys._keys.app_ring import EphemeralKeys, get_ephemeral_keys
    from server_keys._keys.buffer_status import BufferStatus
    from server_keys._keys.identity_status import IdentityStatus
    from server_keys._keys.lifespan import Lifespan, ephemeral_key_lifespan_factory, periodic_refresh
    from server_keys._keys.pair_source import SharingStatus
    from server_keys._keys.ring import KeyRing
    from server_keys._keys.ring_status import KeyRingStatus
    from server_keys._native import Engine, KeyPair, engine, generate_key_pairs
    from server_keys._sealing.signer import Signer
    from server_keys.build_app import inject_key_lifespan, inject_middleware, protect
    from server_keys.errors import (
        EntropyError,
        FrameTooLargeError,
        InvalidPublicKeyError,
        KeyErasedError,
        KeysUnavailableError,
        MalformedMessageError,
        MissingEndError,
    )
    from server_keys.middleware import BuildAppFunc, EncryptedBodyMiddleware

    __version__: str

__all__ = [
    "BufferStatus",
    "BuildAppFunc",
    "EncryptedBodyMiddleware",
    "Engine",
    "EntropyError",
    "EphemeralKeys",
    "FrameTooLargeError",
    "IdentityStatus",
    "InvalidPublicKeyError",
    "KeyErasedError",
    "KeyPair",
    "KeyRing",
    "KeyRingStatus",
    "KeysUnavailableError",
    "Lifespan",
    "MalformedMessageError",
    "MissingEndError",
    "SharingStatus",
    "Signer",
    "engine",
    "ephemeral_key_lifespan_factory",
    "generate_key_pairs",
    "get_ephemeral_keys",
    "inject_key_lifespan",
    "inject_middleware",
    "periodic_refresh",
    "protect",
]

_HOMES = {
    "_keys.app_ring": ("EphemeralKeys", "get_ephemeral_keys"),
    "_keys.buffer_status": ("BufferStatus",),
    "_keys.identity_status": ("IdentityStatus",),
    "_keys.lifespan": ("Lifespan", "ephemeral_key_lifespan_factory", "periodic_refresh"),
    "_keys.pair_source": ("SharingStatus",),
    "_keys.ring": ("KeyRing",),
    "_keys.ring_status": ("KeyRingStatus",),
    "_native": ("Engine", "KeyPair", "engine", "generate_key_pairs"),
    "_sealing.signer": ("Signer",),
    "build_app": ("inject_key_lifespan", "inject_middleware", "protect"),
    "errors": (
        "EntropyError",
        "FrameTooLargeError",
        "InvalidPublicKeyError",
        "KeyErasedError",
        "KeysUnavailableError",
        "MalformedMessageError",
        "MissingEndError",
    ),
    "middleware": ("BuildAppFunc", "EncryptedBodyMiddleware"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

# Type checkers would let a module with a `__getattr__` have every attribute.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in ("build_app", "errors", "metrics", "middleware", "readiness"):
            return importlib.import_module(f"{__name__}.{name}")
        if name == "__version__":
            return importlib.import_module("importlib.metadata").version("server-keys")
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
