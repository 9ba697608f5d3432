"""The client's check of whose keys a key answer publishes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from server_keys._native import is_signature
from server_keys._sealing.identity import identity_of, public_key_of_identity
from server_keys._sealing.key_signature import KeySignature, identity_hash, signature_of, signed_message
from server_keys.errors import KeyRejectedError

CLOCK_TOLERANCE_S = 60.0
"""How far the clocks of client and server may be apart."""

# A list of identities is written by hand. More are a mistake, and each costs a little time.
_MOST_IDENTITIES = 16


class Identities:
    """The identities of which a client accepts keys.

    Args:
        identities: one identity (`ed25519:...`), or several while one replaces another.

    Raises:
        TypeError: it is neither a str nor several.
        ValueError: there are none, more than 16, or one that is no identity.
    """

    def __init__(self, identities: str | Iterable[str]) -> None:
        given = [identities] if isinstance(identities, str) else identities
        if isinstance(given, bytes | bytearray) or not isinstance(given, Iterable):
            raise TypeError(f"identity must be a str such as 'ed25519:...', or several, not {given!r}")
        self._public_keys = tuple(dict.fromkeys(public_key_of_identity(identity) for identity in given))
        if not self._public_keys:
            raise ValueError("identity is empty, so no server could have it: name one, or leave identity= out")
        if len(self._public_keys) > _MOST_IDENTITIES:
            raise ValueError(f"identity has {len(self._public_keys)} values: {_MOST_IDENTITIES} at most")

    def __repr__(self) -> str:
        return f"<{' or '.join(map(identity_of, self._public_keys))}>"

    def check(self, answer: bytes, url: str, now: float) -> float:
        """Check the signature of a key answer, which covers every byte before it.

        Args:
            answer: all bytes of the answer.
            url: where it came from, for messages.
            now: the time in seconds since 1970.

        Returns:
            For how many seconds the signature still holds, tolerance included: the keys must not be used for longer.

        Raises:
            KeyRejectedError: it is not signed by one of the identities, or not for this time.
        """
        try:
            signed, signature = _parts(answer)
            if signature is None:
                raise _RefusedError(
                    f"it is not signed, and identity= wants the signature of {self}. Give the server its identity "
                    "(identity=, --key-identity); if it has one, something in between removes the signature"
                )
            self._require_signer(signed, signature)
            return _seconds_left(signature, now)
        except _RefusedError as error:
            raise KeyRejectedError(f"the key answer of {url} is refused: {error}. Nothing was sealed to it") from None

    def _require_signer(self, signed: bytes, signature: KeySignature) -> None:
        """Raise an error unless one of the identities made the signature."""
        named = [key for key in self._public_keys if identity_hash(key) == signature.identity_hash]
        if not named:
            raise _RefusedError(
                f"another identity signed it (SHA-256 {signature.identity_hash.hex()}...), not {self}. If the service "
                "has changed its identity, get the new one from its operator, and name both meanwhile; otherwise this "
                "is not your server"
            )
        if signature.created <= signature.expires:
            message = signed_message(signed, signature.created, signature.expires)
            if any(is_signature(key, message, signature.signature) for key in named):
                return
        raise _RefusedError(
            f"its signature is wrong: {identity_of(named[0])} did not sign these bytes, so something in between "
            "changed them"
        )


class _RefusedError(Exception):
    """A key answer is not good. The message says why, as the rest of a sentence."""


def _parts(answer: bytes) -> tuple[bytes, KeySignature | None]:
    try:
        return signature_of(answer)
    except ValueError as error:
        raise _RefusedError(f"{error}. No server answers so: find out what in between does") from None


def _seconds_left(signature: KeySignature, now: float) -> float:
    """Return for how long a signature still holds."""
    times = (
        f"signed at {utc_time(signature.created)}, until {utc_time(signature.expires)}, and the clock here shows "
        f"{utc_time(now)}"
    )
    if now > signature.expires + CLOCK_TOLERANCE_S:
        raise _RefusedError(
            f"its signature has expired ({times}). A clock is wrong by more than {CLOCK_TOLERANCE_S:g} s, the server "
            "no longer signs, or something in between answers with a recording"
        )
    if now < signature.created - CLOCK_TOLERANCE_S:
        raise _RefusedError(
            f"its signature does not hold yet ({times}). A clock is wrong by more than {CLOCK_TOLERANCE_S:g} s: set it"
        )
    return signature.expires + CLOCK_TOLERANCE_S - now


def utc_time(time_s: float) -> str:
    """Return a time in seconds since 1970 as messages show it."""
    try:
        return datetime.fromtimestamp(int(time_s), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):  # after the year 9999
        return f"{time_s} s after 1970"
