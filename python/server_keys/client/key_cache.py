"""The servers' public keys, for as long as the servers allow."""

import math
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from server_keys._sealing.protocol import KEY_CONFIG_MEDIA_TYPE, public_key_of
from server_keys.errors import KeyConfigurationError

_DIRECTIVE = re.compile(r"([\w-]+)(?:=\"?([^\",]*)\"?)?")


@dataclass(frozen=True, slots=True)
class _Entry:
    public_key: bytes
    fresh_until: float
    ticket: int


class KeyCache:
    """Public keys by origin. Safe under threads.

    Each fetch draws a ticket before it begins. What it brings is kept only if no fetch that began later was kept
    before, used or refused: so a slow answer from before a rotation does not replace the one from after it.

    Args:
        clock: tells the time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._last_ticket = 0

    def get(self, origin: str) -> bytes | None:
        """Return the key of `origin` (32 bytes) while it may be used."""
        with self._lock:
            entry = self._entries.get(origin)
        return entry.public_key if entry is not None and self._clock() < entry.fresh_until else None

    def draw_ticket(self) -> tuple[int, float]:
        """Return a ticket for a fetch that begins now, and the time."""
        with self._lock:
            self._last_ticket += 1
            return self._last_ticket, self._clock()

    def put(self, origin: str, public_key: bytes, lifetime_s: float, ticket: tuple[int, float]) -> None:
        """Keep a key for `lifetime_s` seconds from when its fetch began."""
        number, began_at = ticket
        with self._lock:
            known = self._entries.get(origin)
            if known is None or known.ticket < number:
                self._entries[origin] = _Entry(public_key, began_at + lifetime_s, number)

    def discard(self, origin: str, public_key: bytes) -> None:
        """Use the key of `origin` no longer, if it is still this one."""
        with self._lock:
            entry = self._entries.get(origin)
            if entry is not None and entry.public_key == public_key:
                self._entries[origin] = replace(entry, fresh_until=-math.inf)


def key_in_response(url: str, status: int, content_type: str | None, body: bytes) -> bytes:
    """Return the public key (32 bytes) that a server published.

    Raises:
        KeyConfigurationError: the response is not a key configuration that can be used.
    """
    if status != 200:
        hint = (
            "it must be open to everybody, no credentials are sent there"
            if status in (401, 403)
            else "does it speak EHBP?"
        )
        raise KeyConfigurationError(f"{url} answered with status {status} instead of the server's key: {hint}")
    if content_type != KEY_CONFIG_MEDIA_TYPE:
        raise KeyConfigurationError(f"{url} answered with {content_type!r} instead of {KEY_CONFIG_MEDIA_TYPE!r}")
    try:
        return public_key_of(body)
    except ValueError as error:
        raise KeyConfigurationError(f"{url} published {error}") from None


def lifetime_s(cache_control: str | None, age: str | None) -> float:
    """Return for how long a fetched key may be used: its max-age, less the time for which caches have held it.

    Without a max-age the server says nothing of a rotation: the key is kept until the server refuses it.
    """
    directives = dict(_DIRECTIVE.findall((cache_control or "").lower()))
    if "no-store" in directives or "no-cache" in directives:
        return 0.0
    if "max-age" not in directives:
        return math.inf
    max_age = directives["max-age"].strip()
    if not max_age.isdecimal():
        # RFC 9111, section 4.2.1: not fresh.
        return 0.0
    held_s = _delta_seconds(age) if age is not None and age.isdecimal() else 0
    return float(max(_delta_seconds(max_age) - held_s, 0))


def _delta_seconds(digits: str) -> int:
    # RFC 9111, section 1.2.2: what is too large to represent counts as 2^31.
    return int(digits) if len(digits) <= 10 else 2**31
