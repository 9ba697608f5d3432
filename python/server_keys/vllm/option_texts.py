"""What an option's text means. Each function gets the option's or the variable's name, for its message.

Raises:
    SettingsError: the text is not what it should be.
"""

from server_keys._checks import (
    PERIOD_RANGE,
    PLACES,
    REPLAYS,
    STORE_AWAYS,
    Place,
    Replay,
    StoreAway,
    checked_max_buffered_bytes,
    checked_open_paths,
    overlap_seconds,
    period_seconds,
)
from server_keys._sealing.protocol import DEFAULT_MAX_FRAME_BYTES
from server_keys._sealing.signer import checked_identity
from server_keys._sharing.share import checked_share
from server_keys.errors import SettingsError
from server_keys.vllm.options import DEFAULT_REFRESH_TIME_S, GROUP_SECRET_FILE, IDENTITY, PLACE, REPLAY, STORE_AWAY

NOBODY = "none"
"""The text that stands for keys of each process' own."""


def refresh_time_of(name: str, text: str) -> float:
    """Return seconds between refreshes."""
    try:
        return period_seconds(name, float(text))
    except ValueError:
        raise SettingsError(f"{name} must be {PERIOD_RANGE}, not {text!r}") from None


def overlap_of(name: str, text: str, refresh_time_s: float) -> float:
    """Return seconds for which a replaced key is still accepted."""
    try:
        return overlap_seconds(name, float(text), refresh_time_s)
    except ValueError:
        raise SettingsError(
            f"{name} must be a number of seconds from 0 to the refresh time ({refresh_time_s:g}), not {text!r}"
        ) from None


def switch_of(name: str, text: str) -> bool:
    """Return whether a variable switches something on."""
    if text not in ("0", "1"):
        raise SettingsError(f"{name} must be 1 (on) or 0 (off), not {text!r}")
    return text == "1"


def identity_file_of(name: str, text: str) -> str | None:
    """Return the path of an identity's file; None for a variable that is empty."""
    if not text and name == IDENTITY.variable:
        return None  # as if it were not set
    try:
        return str(checked_identity(text))
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from None


def place_of(name: str, text: str) -> Place:
    """Return what a path is held to."""
    for place in PLACES:
        if text == place:
            return place
    raise SettingsError(f"{name} must be {PLACE.value}, not {text!r}")


def replay_of(name: str, text: str) -> Replay:
    """Return what happens to a request that was received before."""
    for replay in REPLAYS:
        if text == replay:
            return replay
    raise SettingsError(f"{name} must be {REPLAY.value}, not {text!r}")


def store_away_of(name: str, text: str) -> StoreAway:
    """Return what happens while the store is away."""
    for store_away in STORE_AWAYS:
        if text == store_away:
            return store_away
    raise SettingsError(f"{name} must be {STORE_AWAY.value}, not {text!r}")


def open_paths_of(name: str, text: str) -> tuple[str, ...]:
    """Return paths that are separated by commas."""
    try:
        return checked_open_paths([path.strip() for path in text.split(",")] if text.strip() else [])
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from None


def max_buffered_bytes_of(name: str, text: str) -> int:
    """Return a number of bytes."""
    smallest = 4 * DEFAULT_MAX_FRAME_BYTES
    try:
        return checked_max_buffered_bytes(int(text), DEFAULT_MAX_FRAME_BYTES)
    except ValueError:
        raise SettingsError(f"{name} must be a whole number of bytes, {smallest} or more, not {text!r}") from None


def share_of(name: str, text: str) -> str | None:
    """Return what to share by. Whether the keys live long enough, and a secret is there, matters only if it counts."""
    share = None if text.lower() == NOBODY else text
    try:
        checked_share(
            share,
            period_s=DEFAULT_REFRESH_TIME_S,
            overlap_s=DEFAULT_REFRESH_TIME_S,
            environment={GROUP_SECRET_FILE.variable: "any"},
        )
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from None
    return share


def path_of(name: str, text: str) -> str | None:
    """Return a path; None for a variable that is empty."""
    if text:
        return text
    if name == GROUP_SECRET_FILE.variable:
        return None  # as if it were not set
    raise SettingsError(f"{name} must be {GROUP_SECRET_FILE.value}, not {text!r}")
