"""The pairs of a ring that a group shares: the source that a thread keeps up with the group."""

import asyncio
import concurrent.futures
import contextlib
import threading
import time

from server_keys._clock import boot_time
from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._keys.fork import renew_lock_after_fork
from server_keys._keys.pair_source import SharingStatus, SourceStatus
from server_keys._keys.replays import SeenRequests
from server_keys._keys.schedule import Schedule
from server_keys._log import logger
from server_keys._native import KeyErasedError, KeyPair
from server_keys._sharing.epoch import Epoch
from server_keys._sharing.group_replays import GroupReplays
from server_keys._sharing.looking_thread import LookingThread
from server_keys._sharing.member import Member
from server_keys._sharing.notices import Notices
from server_keys._sharing.store import Store, StoreError
from server_keys.errors import KeysUnavailableError

# How long an app that shuts down waits for its member to leave the store.
_LEAVING_S = 1.0
# How long a request waits for the group's key, where this process has none, before it gets one of the process's own.
_PATIENCE_S = 1.0
# How often a task that refreshes the ring has to look at it.
_REFRESHED_EVERY_S = 1.0


class SharedPairs:
    """The pairs of a member, kept up by a thread that no blocked event loop holds up.

    Args:
        member: the member. Nobody else uses it, except for `replays`.
        schedule: how long pairs live.
        poll_s: the shortest time between two looks that were asked for.
        store: the member's store.
        notices: the log.
        replays: the requests that are sealed to the member's pairs.
    """

    is_shared = True

    def __init__(
        self,
        member: Member,
        schedule: Schedule,
        *,
        poll_s: float,
        store: Store,
        notices: Notices,
        replays: GroupReplays,
    ) -> None:
        self._member = member
        self._schedule = schedule
        self._poll_s = poll_s
        self._store = store
        self._notices = notices
        self._replays = replays
        self._lock = threading.RLock()
        renew_lock_after_fork(self)
        self._refreshes = 0
        self._last_current: KeyPair | None = None
        self._why_not: str | None = "it has not joined its group yet"
        self._was_shared: bool | None = None
        self._thread = LookingThread(self._keep_up, member.close, poll_s=poll_s)
        self._thread.start()

    @property
    def current(self) -> EpochPairs:
        """The pairs that are published."""
        return self._published().pairs

    @property
    def accepted(self) -> tuple[EpochPairs, ...]:
        """The current pairs, then the others, newest first: those before them, and those that are published next."""
        current = self._published()
        now = boot_time()
        others = [
            epoch.pairs
            for epoch in (*self._member.own, *self._member.epochs.held)
            if now < epoch.ends_at and not epoch.pairs.erased and epoch.pair is not current.pair
        ]
        return (current.pairs, *reversed(others))

    @property
    def current_accepted_for_s(self) -> float:
        """Seconds for which the current pair is accepted from now on, even if it is replaced at once."""
        return min(self._schedule.overlap_s, max(self._published().ends_at - boot_time(), 0.0))

    @property
    def current_ends_in_s(self) -> float:
        """Seconds after which nobody accepts the current pair any more, even if it is not replaced."""
        return max(self._published().ends_at - boot_time(), 0.0)

    def refresh(self) -> None:
        """Bring the group's next epoch forward."""
        self._require_open()
        self._member.bring_forward()
        self._thread.look_soon()

    def refresh_if_due(self, period_s: float | None = None) -> None:
        """Have the group make epochs after `period_s`, if that is sooner than its own period."""
        if period_s is not None:
            self._member.take_turns_every(period_s)

    def next_event_in_s(self, period_s: float | None = None) -> float | None:
        """Seconds until `refresh_if_due` is to be called again; None once closed."""
        return None if self._thread.is_ending else _REFRESHED_EVERY_S

    def seen_requests(self, pairs: EpochPairs) -> SeenRequests:
        """Return the requests that are sealed to an epoch: in this process, or in all of the host that hold it."""
        return self._replays.of(pairs)

    async def is_first_everywhere(self, pairs: EpochPairs, request_id: bytes) -> bool:
        """Return whether no other host of the group saw the request."""
        return await self._replays.is_first_everywhere(pairs, request_id)

    async def connect_everywhere(self) -> None:
        """Connect to the group's store, so that no request waits for that. Never raises."""
        await self._replays.connect_everywhere()

    async def ready(self) -> None:
        """Wait until there is a current pair: the group's, or one of its own if the group cannot be reached.

        Raises:
            KeysUnavailableError: no pair can be made.
        """
        while self._member.current(boot_time()) is None:
            looked = self._thread.look_soon()
            if looked is None or self._member.retries.in_a_row:
                self._published()
                return
            try:
                # Shielded: others wait for it, too.
                await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(looked)), _PATIENCE_S)
            except TimeoutError:
                self._member.cover_silence()

    async def has_news(self) -> bool:
        """Look into the store once, together with all that ask meanwhile. Return whether there was a pair to accept."""
        before = self._member.epochs.ranks
        if looked := self._thread.look_soon():
            await asyncio.shield(asyncio.wrap_future(looked))
        return bool(self._member.epochs.ranks - before)

    @property
    def status(self) -> SourceStatus:
        """The state, for health checks and metrics. Reading it changes nothing."""
        member, now = self._member, boot_time()
        current = member.current(now)
        self._note(current)
        previous = [epoch for epoch in (*member.own, *member.epochs.held) if epoch.publish_at <= now < epoch.ends_at]
        previous = [epoch for epoch in previous if current and epoch.publish_at < current.publish_at]
        newest = member.epochs.held[-1] if member.epochs.held else None
        next_at = newest.publish_at if newest and newest.publish_at > now else None
        if next_at is None and current:
            next_at = self._schedule.replaced_at(current.publish_at)
        is_shared = current is not None and current.number > 0
        return SourceStatus(
            current=current.pair if current else None,
            age_s=max(now - current.publish_at, 0.0) if current else None,
            next_refresh_in_s=max(next_at - now, 0.0) if next_at is not None and not self._thread.is_ending else None,
            previous=previous[-1].pair if previous else None,
            refreshes=self._refreshes,
            failures=member.retries.total,
            last_error=member.retries.last_error,
            closed=self._thread.is_ending,
            sharing=SharingStatus(
                shared=is_shared,
                why_not=None if is_shared else self._why_not,
                store=self._store.shown,
                epoch=newest.number if newest else None,
                members=member.members,
                last_contact_s=now - member.contact_at,
            ),
        )

    def close(self) -> None:
        """Leave the group and erase every pair."""
        if self._thread.end(_LEAVING_S):
            self._member.erase()
            self._replays.close()

    def _keep_up(self) -> float:
        """Keep up with the group. Return after how many seconds to do so again."""
        try:
            self._look()
            self._member.cover_silence()
            self._replays.look_after()
            self._tell_of_change()
            return self._member.next_look_in_s()
        except Exception as error:  # noqa: BLE001 - logged; a mistake of ours must not end the sharing
            logger().exception("a look into %s failed", self._store.shown)
            self._why_not = f"{type(error).__name__}: {error}"
            return self._poll_s

    def _look(self) -> None:
        """Look into the store, and note why this process cannot share if it cannot."""
        try:
            self._member.drop_ended()
            self._member.look()
            self._why_not = "the group has not served this process yet"
        except StoreError as error:
            self._why_not = str(error)
        except KeyErasedError:
            pass  # an epoch ended meanwhile

    def _tell_of_change(self) -> None:
        current = self._member.current(boot_time())
        if current is None or self._thread.is_ending:
            return
        self._note(current)
        is_shared = current.number > 0
        if is_shared and not self._was_shared:
            self._notices.shares(current.number, self._member.members)
        elif not is_shared and self._was_shared is not False:
            self._notices.has_own_keys(self._why_not or "the group cannot be reached")
        self._was_shared = is_shared

    def _published(self) -> Epoch:
        self._require_open()
        epoch = self._member.current(boot_time())
        if epoch is None:
            # If this process stood still for as long as its keys live, the group's newer ones are a look away.
            self._wait_for_group()
            self._member.cover_silence()
            epoch = self._member.current(boot_time())
        if epoch is None:
            raise KeysUnavailableError(self._why_unavailable())
        self._note(epoch)
        return epoch

    def _note(self, current: Epoch | None) -> None:
        """Count how often the current pair was replaced."""
        if current is None or current.pair is self._last_current:
            return
        with self._lock:
            if current.pair is not self._last_current:
                self._refreshes += self._last_current is not None
                self._last_current = current.pair

    def _wait_for_group(self) -> None:
        until = time.monotonic() + _PATIENCE_S
        while self._member.current(boot_time()) is None and not self._member.retries.in_a_row:
            looked, left_s = self._thread.look_soon(), until - time.monotonic()
            if looked is None or left_s <= 0:
                return
            with contextlib.suppress(concurrent.futures.TimeoutError):
                looked.result(left_s)

    def _require_open(self) -> None:
        if self._thread.is_ending:
            raise KeysUnavailableError("this key ring is closed and its keys are erased: its app has shut down")

    def _why_unavailable(self) -> str:
        retries = self._member.retries
        if retries.in_a_row:
            return f"no key pair could be made: {retries.in_a_row} tries failed, the last with {retries.last_error}"
        return f"this process has no key of its group in {self._store.shown} yet: {self._why_not}"
