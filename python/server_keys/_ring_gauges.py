"""What a scrape tells of key rings: the gauges, and how each has one value for several rings and processes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from server_keys._keys.ring import KeyRing
from server_keys._keys.ring_status import KeyRingStatus

_NONE_YET = float("inf")

# How prometheus_client combines the values of processes, and the same for rings of one process.
_COMBINE: dict[str, Callable[[list[float]], float]] = {"livemin": min, "livemax": max, "livesum": sum}


@dataclass(frozen=True)
class RingGauge:
    """A gauge of rings: how one value comes from the values of several rings, and of several processes."""

    name: str
    documentation: str
    combined: Literal["livemin", "livemax", "livesum"]
    value_of: Callable[[KeyRing, KeyRingStatus, float], float | None]

    @property
    def of_no_ring(self) -> float:
        """The value that leaves those of other processes as they are."""
        return _NONE_YET if self.combined == "livemin" else 0.0

    def value(self, rings: list[tuple[KeyRing, KeyRingStatus]], now: float) -> float:
        """Return the value of some rings."""
        values = [value for ring, status in rings if (value := self.value_of(ring, status, now)) is not None]
        return _COMBINE[self.combined](values) if values else self.of_no_ring


def _ago(now: float, seconds: float | None) -> float | None:
    # Whole milliseconds: the two clocks are not read at the same moment, and a time that stands shall stand still.
    return None if seconds is None else round(now - seconds, 3)


def _until(seconds: float | None) -> float | None:
    return None if seconds is None else -seconds


RING_GAUGES = (
    RingGauge(
        "server_keys_available_rings",
        "Key rings that have a key at the moment: one a process.",
        "livesum",
        lambda ring, status, now: status.key_id is not None,
    ),
    RingGauge(
        "server_keys_shared_rings",
        "Key rings whose key is their group's at the moment.",
        "livesum",
        lambda ring, status, now: status.sharing.shared,
    ),
    RingGauge(
        "server_keys_key_created_timestamp_seconds",
        "When the current key was published, as a Unix time: the oldest one's. +Inf if there is none.",
        "livemin",
        lambda ring, status, now: _ago(now, status.age_s),
    ),
    RingGauge(
        "server_keys_next_refresh_timestamp_seconds",
        "When the next refresh is due, or the next try after a failed one, as a Unix time: the earliest.",
        "livemin",
        lambda ring, status, now: _ago(now, None if status.next_refresh_in_s is None else -status.next_refresh_in_s),
    ),
    RingGauge(
        "server_keys_refresh_period_seconds",
        "Seconds after which a key is to be replaced.",
        "livemax",
        lambda ring, status, now: ring.period_s,
    ),
    RingGauge(
        "server_keys_overlap_seconds",
        "Seconds for which a replaced key is still accepted.",
        "livemax",
        lambda ring, status, now: ring.overlap_s,
    ),
    RingGauge(
        "server_keys_group_members",
        "Processes that share the ring. 0 for one that joined no group.",
        "livemax",
        lambda ring, status, now: status.sharing.members,
    ),
    RingGauge(
        "server_keys_group_epoch",
        "The number of the newest epoch of the group. 0 for a process that joined no group.",
        "livemax",
        lambda ring, status, now: status.sharing.epoch,
    ),
    RingGauge(
        "server_keys_group_contact_timestamp_seconds",
        "When the store of the group was last reached, as a Unix time: the longest ago. +Inf where there is no group.",
        "livemin",
        lambda ring, status, now: _ago(now, status.sharing.last_contact_s),
    ),
    RingGauge(
        "server_keys_unsigned_rings",
        "Key rings that publish no key, because their identity has not signed one.",
        "livesum",
        lambda ring, status, now: status.identity is not None and not status.identity.is_published,
    ),
    RingGauge(
        "server_keys_signature_created_timestamp_seconds",
        "When the published keys were signed, as a Unix time: the longest ago. +Inf where nothing is signed.",
        "livemin",
        lambda ring, status, now: _ago(now, status.identity.age_s if status.identity else None),
    ),
    RingGauge(
        "server_keys_signature_expires_timestamp_seconds",
        "When the signature of the published keys ends, as a Unix time: the earliest. +Inf where nothing is signed.",
        "livemin",
        lambda ring, status, now: _ago(now, _until(status.identity.expires_in_s if status.identity else None)),
    ),
    RingGauge(
        "server_keys_buffered_bytes",
        "Memory that the unfinished sealed requests of a process hold together: those of the process that holds most.",
        "livemax",
        lambda ring, status, now: status.buffers.held_bytes if status.buffers else None,
    ),
    RingGauge(
        "server_keys_max_buffered_bytes",
        "How much memory the unfinished sealed requests of a process may hold together.",
        "livemax",
        lambda ring, status, now: status.buffers.most_bytes if status.buffers else None,
    ),
)
