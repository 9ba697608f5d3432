"""Checks of the durations, limits and switches that users pass, made where they pass them."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Literal

# The longest frame that `server_keys.client` sends, tag included. A smaller limit would refuse its requests.
SMALLEST_MAX_FRAME_BYTES = 64 * 1024 + 16
LARGEST_MAX_FRAME_BYTES = 64 * 1024 * 1024

SHORTEST_PERIOD_S = 0.01
LONGEST_PERIOD_S = 366 * 24 * 60 * 60
_LONGEST_LABEL = 63

PERIOD_RANGE = f"a number of seconds from {SHORTEST_PERIOD_S} to {LONGEST_PERIOD_S} (366 days)"


Required = bool | Literal["v1"]
"""What a server insists on: nothing (False), sealed bodies (True), or version 1 of the wire."""
Place = Literal["exact", "suffix", "off"]
"""How strictly the place of a request is compared with the one that its client sealed."""
PLACES: tuple[Place, ...] = ("exact", "suffix", "off")
Replay = Literal["refuse", "refuse-everywhere", "allow"]
"""What happens to a sealed request that was received before: on this host, or on any that has the key."""
REPLAYS: tuple[Replay, ...] = ("refuse", "refuse-everywhere", "allow")
StoreAway = Literal["refuse", "allow"]
"""What happens to requests while the store cannot be asked whether another host received them."""
STORE_AWAYS: tuple[StoreAway, ...] = ("refuse", "allow")


def period_seconds(parameter: str, value: object) -> float:
    """Return `value` as a float if it is a number of seconds from 0.01 to 366 days: a time between refreshes.

    Raises:
        TypeError: `value` is not a number; a bool is not one here.
        ValueError: `value` is out of range or NaN. A shorter period would keep a core busy and outdate every key before
            a client can use it; a longer one would never end.
    """
    number = _number(parameter, value)
    if not SHORTEST_PERIOD_S <= number <= LONGEST_PERIOD_S:
        raise ValueError(f"{parameter} must be {PERIOD_RANGE}, not {_shown(value)}")
    return number


def overlap_seconds(parameter: str, value: object, period_s: float) -> float:
    """Return `value` as a float if it is a number of seconds from 0 to `period_s`; `period_s` for None.

    Raises:
        TypeError: `value` is neither a number nor None.
        ValueError: `value` is out of range. A longer overlap would need more than one previous key pair.
    """
    if value is None:
        return period_s
    number = _number(parameter, value)
    if not 0 <= number <= period_s:
        raise ValueError(
            f"{parameter} must be from 0 to the refresh time ({period_s:g}) in seconds, not {_shown(value)}"
        )
    return number


def checked_max_frame_bytes(value: int) -> int:
    """Return `value` if it can limit the length of frames.

    Raises:
        TypeError: it is not an int.
        ValueError: it is not from 64 KiB + 16 bytes to 64 MiB.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"max_frame_bytes must be an int, not {value!r} ({type(value).__name__})")
    if not SMALLEST_MAX_FRAME_BYTES <= value <= LARGEST_MAX_FRAME_BYTES:
        raise ValueError(
            f"max_frame_bytes must be from {SMALLEST_MAX_FRAME_BYTES} (the longest frame that server_keys.client "
            f"sends: 64 KiB and a tag) to {LARGEST_MAX_FRAME_BYTES} (64 MiB), not {value}"
        )
    return value


def checked_max_buffered_bytes(value: int, max_frame_bytes: int) -> int:
    """Return `value` if it can limit what requests hold together.

    Raises:
        TypeError: it is not an int.
        ValueError: it is below four times `max_frame_bytes`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"max_buffered_bytes must be an int, not {value!r} ({type(value).__name__})")
    # While a long frame is opened, memory holds what arrived, its plaintext, and a copy if the ring is shared.
    if value < 4 * max_frame_bytes:
        raise ValueError(
            f"max_buffered_bytes must be at least {4 * max_frame_bytes}, four times max_frame_bytes, not {value}"
        )
    return value


def checked_required(value: Required) -> Required:
    """Return `value`, which says what is required, if it is a bool or `"v1"`.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, bool) and value != "v1":
        raise TypeError(f'required must be True, False or "v1", not {value!r}')
    return value


def checked_place(value: Place) -> Place:
    """Return `value` if it is one of `PLACES`.

    Raises:
        TypeError: it is no str.
        ValueError: it is another str.
    """
    if not isinstance(value, str):
        raise TypeError(f'place must be "exact", "suffix" or "off", not {value!r}')
    if value not in PLACES:
        raise ValueError(f'place must be "exact", "suffix" or "off", not {value!r}')
    return value


def checked_replay(value: Replay, store_away: StoreAway | None) -> tuple[Replay, StoreAway | None]:
    """Return both if `value` is one of `REPLAYS`, and `store_away` is given where it is needed and nowhere else.

    Raises:
        TypeError: one of them is no str.
        ValueError: one of them has no known form, or `store_away` is missing, or is given in vain.
    """
    forms = 'replay must be "refuse", "refuse-everywhere" or "allow"'
    if not isinstance(value, str):
        raise TypeError(f"{forms}, not {value!r}")
    if value not in REPLAYS:
        raise ValueError(f"{forms}, not {value!r}")
    if store_away is not None and not isinstance(store_away, str):
        raise TypeError(f'store_away must be "refuse" or "allow", not {store_away!r}')
    if store_away is not None and store_away not in STORE_AWAYS:
        raise ValueError(f'store_away must be "refuse" or "allow", not {store_away!r}')
    if value == "refuse-everywhere" and store_away is None:
        raise ValueError(
            'replay="refuse-everywhere" needs store_away=: "refuse" serves nothing while the store is away, "allow" '
            "serves what this host did not receive"
        )
    if value != "refuse-everywhere" and store_away is not None:
        raise ValueError(f'store_away is for replay="refuse-everywhere", and replay is {value!r}: leave it out')
    return value, store_away


def checked_open_paths(value: Sequence[str]) -> tuple[str, ...]:
    """Return `value` as a tuple if it is a sequence of paths.

    Raises:
        TypeError: it is no sequence of str.
        ValueError: one of them does not begin with a slash, or has a query.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f'open_paths must be a list or a tuple of paths, such as ["/health"], not {value!r}')
    for path in value:
        if not isinstance(path, str):
            raise TypeError(f"open_paths must contain paths, not {path!r} ({type(path).__name__})")
        if not path.startswith("/") or "?" in path or "#" in path:
            raise ValueError(f"open_paths must contain paths that begin with a slash, without a query, not {path!r}")
    return tuple(value)


def _number(parameter: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{parameter} must be a number of seconds, not {value!r} ({type(value).__name__})")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _shown(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # Python prints no int of more than 4300 digits
        return "a number of thousands of digits"


def is_host(name: str) -> bool:
    """Return whether a URL may name a host so: by labels of 1 to 63 characters (RFC 1035), or an address."""
    return all(0 < len(label) <= _LONGEST_LABEL for label in name.removesuffix(".").split("."))
