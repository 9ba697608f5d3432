"""Whether a group has seen a request: this process, the others of its host, and those of other hosts.

Each of the three has its own memory: this process (`OwnReplays`), the host (`HostReplays`), and the store that all
hosts ask (`Everywhere`).
"""

import asyncio
from typing import Protocol

from server_keys._clock import boot_time
from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._keys.replays import OwnReplays, SeenRequests
from server_keys._native import ReplayTableLostError
from server_keys._sharing.epoch import Epoch
from server_keys._sharing.host_replays import HostReplays
from server_keys._sharing.member import Member

# How long an app that starts waits for the connections to the store that all hosts ask.
_CONNECTING_S = 1.0
# By how much longer another host may take an epoch to live.
_OTHERS_END_LATER_S = 60.0
# How long after the publication of an epoch its table may still be made. A group's first epoch is published when it is
# made, and its table comes right afterwards. All others have theirs before that.
_MAKING_TABLE_S = 5.0


class Everywhere(Protocol):
    """A store that all hosts of a group ask."""

    async def is_first(self, public_key: bytes, request_id: bytes, keep_s: float) -> bool:
        """Remember a request. Return whether it is the first one of its id."""

    def connect(self) -> None:
        """Make the connections, so that no request has to wait for them. Never raises."""

    def look_after(self) -> None:
        """Find out whether a store answers again that was away."""

    def close(self) -> None:
        """Let go of it."""


class GroupReplays:
    """The requests that are sealed to a member's epochs, and who has seen them. Safe under threads.

    Args:
        member: the member.
        host: what this process and others of its host have seen together. None: it is the only one of its host.
        everywhere: what all hosts of the group have seen together. None: they are one.
    """

    def __init__(
        self,
        member: Member,
        *,
        host: HostReplays | None = None,
        everywhere: Everywhere | None = None,
    ) -> None:
        self._member = member
        self._own = OwnReplays()
        self._host = host
        self._everywhere = everywhere
        # The loop itself keeps no task alive.
        self._connecting: asyncio.Task[None] | None = None

    def of(self, pairs: EpochPairs) -> SeenRequests:
        """Return the requests that are sealed to an epoch: in this process, or in all of the host that hold it."""
        if self._host is None or self._is_own(pairs):
            return self._own.of(pairs)
        return self._host.of(pairs, self._is_new)

    async def is_first_everywhere(self, pairs: EpochPairs, request_id: bytes) -> bool:
        """Return whether no other host of the group saw the request.

        Raises:
            StoreAwayError: the store could not be asked.
            ReplayTableLostError: the epoch has ended.
        """
        if self._everywhere is None or self._is_own(pairs):
            return True
        held = self._held(pairs)
        if held is None:
            raise ReplayTableLostError("the key has ended, and other hosts may have seen requests to it")
        # Others may let it end a little later.
        keep_s = held.ends_at - boot_time() + _OTHERS_END_LATER_S
        return await self._everywhere.is_first(pairs.x25519.public_key, request_id, keep_s)

    async def connect_everywhere(self) -> None:
        """Connect to the store that all hosts ask, so that no request waits for that. Never raises."""
        if self._everywhere is not None:
            # A name server may take much longer than a connection. Requests find the store away then.
            self._connecting = asyncio.create_task(asyncio.to_thread(self._everywhere.connect))
            await asyncio.wait([self._connecting], timeout=_CONNECTING_S)

    def look_after(self) -> None:
        """Keep up with the member's epochs, and with the store. To be called by the thread that looks."""
        self._own.forget_erased()
        if self._host is not None:
            epochs = [epoch.pairs for epoch in self._member.epochs.held]
            if self._host.keep_up(epochs, self._is_new):
                self._member.bring_forward()
        if self._everywhere is not None:
            self._everywhere.look_after()

    def close(self) -> None:
        """Forget the requests. To be called when the member's pairs are erased."""
        self._own.forget_erased()
        for replays in (self._host, self._everywhere):
            if replays is not None:
                replays.close()

    def _is_own(self, pairs: EpochPairs) -> bool:
        """Tell whether nobody else has an epoch, because this member made it while it could not reach the group."""
        return any(epoch.pair == pairs.x25519 for epoch in self._member.own)

    def _is_new(self, pairs: EpochPairs) -> bool:
        """Tell whether no member can have seen a request yet that is sealed to an epoch."""
        held = self._held(pairs)
        return held is not None and boot_time() < held.publish_at + _MAKING_TABLE_S

    def _held(self, pairs: EpochPairs) -> Epoch | None:
        return next((epoch for epoch in self._member.epochs.held if epoch.pair == pairs.x25519), None)
