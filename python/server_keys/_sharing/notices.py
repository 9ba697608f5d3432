"""What the log tells of a group: who joined, what was forged, whether the store can be reached."""

import logging

from server_keys._clock import boot_time
from server_keys._keys.pair_source import key_id
from server_keys._keys.retries import Retries
from server_keys._log import logger
from server_keys._sharing.epoch import Epoch
from server_keys._sharing.messages import Who
from server_keys._sharing.store import Store

# An alarm is repeated after this time if its cause goes on.
_QUIET_S = 60.0
_MOST_KNOWN = 4096


class Notices:
    """The log of one member.

    Args:
        store: the member's store.
        across_hosts: whether others than this host's processes can reach the store. Then a new member is an alarm.
    """

    def __init__(self, store: Store, *, across_hosts: bool) -> None:
        self._store = store
        self._joining_level = logging.WARNING if across_hosts else logging.INFO
        self._known: set[str] = set()
        self._alarmed_at: dict[str, float] = {}

    def made(self, epoch: Epoch, boxes: int, why: str) -> None:
        """Tell that this member made an epoch."""
        logger().debug(
            "made epoch %d of the group in %s, key %s, for %d others: %s",
            epoch.number,
            self._store.shown,
            key_id(epoch.pair),
            boxes,
            why,
        )

    def joined(self, who: Who) -> None:
        """Tell, once, that this member served a new one."""
        if who.member in self._known:
            return
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known.add(who.member)
        logger().log(self._joining_level, "a process joined the key group in %s: %s", self._store.shown, who)

    def shares(self, epoch: int, members: int | None) -> None:
        """Tell that this process has the group's keys."""
        logger().info(
            "shares its keys with a group in %s: epoch %d, %d members", self._store.shown, epoch, members or 1
        )

    def has_own_keys(self, why: str) -> None:
        """Tell that this process has keys of its own for now."""
        logger().warning(
            "cannot share keys through %s (%s): this process has keys of its own until it can, and requests that were "
            "sealed to another process's key are refused here (422)",
            self._store.shown,
            why,
        )

    def refresh_failed(self, retries: Retries, delay_s: float) -> None:
        """Tell that no pair could be made."""
        logger().warning(
            "key refresh failed (%d in a row), next try in %.1f s: %s",
            retries.in_a_row,
            delay_s,
            retries.last_error,
        )

    def forged_register(self) -> None:
        """Tell that the store's register is no member's."""
        self._alarm(
            "the register of the key group in %s was not made by a member. It is put right. Somebody else "
            "writes there: look who can"
        )

    def forged_box(self) -> None:
        """Tell that a box for this member is no member's."""
        self._alarm(
            "a delivery for this process in %s was not sealed by a member of its key group. It is ignored. Somebody "
            "else writes to the store: look who can"
        )

    def crowded_store(self) -> None:
        """Tell that the store has more asks than members can have made."""
        self._alarm(
            "%s holds more entries than a key group can have. They are removed, and members ask again. Somebody else "
            "writes to the store: look who can"
        )

    def no_replay_table(self, why: str) -> None:
        """Tell that the requests to an epoch cannot be remembered together with the other processes."""
        logger().warning(
            "the requests that are sealed to a key cannot be remembered in %s (%s): this process takes none of them",
            self._store.shown,
            why,
        )

    def lost_replay_table(self) -> None:
        """Tell that a file was removed or changed."""
        self._alarm(
            "somebody removed or changed a file in %s, in which processes remember the requests that were sealed to a "
            "key. The next key comes early, and this one is retired: find out who can write there"
        )

    def _alarm(self, message: str) -> None:
        now = boot_time()
        if now - self._alarmed_at.get(message, -_QUIET_S) >= _QUIET_S:
            self._alarmed_at[message] = now
            logger().warning(message, self._store.shown)
