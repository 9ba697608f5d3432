"""Every error that server_keys raises on its own behalf.

Key pairs, sealed messages and group secrets (raised by the native core):

- `ValueError`
    - `InvalidPublicKeyError`
    - `MalformedMessageError`
        - `MissingEndError`
    - `FrameTooLargeError`
    - `KeyMismatchError`
    - `GroupSecretError`
- `RuntimeError`
    - `KeyErasedError`
    - `EntropyError`

A server's key ring, and vLLM:

- `RuntimeError`
    - `KeysUnavailableError`
    - `UnsupportedVllmError`
- `ValueError`
    - `SettingsError`
    - `SharePlaceError`

The client's transports:

- `SealedTransportError`
    - `KeyConfigurationError`
        - `KeyNotPublishedError`
    - `KeyRejectedError`
    - `StatusMismatchError`
    - `UnsealedResponseError`

The transports' errors are no `TransportError` of the HTTP library, on purpose: code that repeats requests after network
errors must not mistake an unsealed answer for one. A sealed response that is malformed, cut off or not authentic raises
`MalformedMessageError` or `FrameTooLargeError` while it is read.
"""

from server_keys._native import (
    EntropyError,
    FrameTooLargeError,
    GroupSecretError,
    InvalidPublicKeyError,
    KeyErasedError,
    KeyMismatchError,
    MalformedMessageError,
    MissingEndError,
)

__all__ = [
    "EntropyError",
    "FrameTooLargeError",
    "GroupSecretError",
    "InvalidPublicKeyError",
    "KeyConfigurationError",
    "KeyErasedError",
    "KeyMismatchError",
    "KeyNotPublishedError",
    "KeyRejectedError",
    "KeysUnavailableError",
    "MalformedMessageError",
    "MissingEndError",
    "SealedTransportError",
    "SettingsError",
    "SharePlaceError",
    "StatusMismatchError",
    "UnsealedResponseError",
    "UnsupportedVllmError",
]


class KeysUnavailableError(RuntimeError):
    """There is no key pair to hand out: the app has no ring, or it is closed, or refreshes have failed for too long."""


class UnsupportedVllmError(RuntimeError):
    """The app that this vLLM serves comes from no `build_app` that server_keys knows."""


class SettingsError(ValueError):
    """An option or variable has a value that cannot be used, or contradicts another one. The message names it."""


class SharePlaceError(ValueError):
    """Keys cannot be shared through a folder. The message names it and says why."""


class SealedTransportError(Exception):
    """A request could not be sealed, or its response was not sealed."""


class KeyConfigurationError(SealedTransportError):
    """The server published no key that can be used. The message names the URL and what came instead."""


class KeyNotPublishedError(KeyConfigurationError):
    """There is no key where the server should publish it: the answer has another status or media type."""


class KeyRejectedError(SealedTransportError):
    """`verify_key` or `verify_answer` refused the server's key. Nothing was sealed to it."""


class StatusMismatchError(SealedTransportError):
    """The response arrived with another status than the server has sealed: something on the way has changed it."""


class UnsealedResponseError(SealedTransportError):
    """The answer to a sealed request is not sealed, and is no error that may pass.

    It is a success, a redirect of a body, a refusal that is too long to read, or has a header that the server did not
    make for this request. In version 1 of the wire everything counts as a success but errors and redirects. Anybody on
    the way may have sent it.
    """
