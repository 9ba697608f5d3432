"""Key answers that a server's identity signs: once for each epoch, and never one that is not signed."""

import asyncio
import concurrent.futures
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

from server_keys._clock import boot_time
from server_keys._keys.fork import renew_lock_after_fork
from server_keys._keys.identity_status import IdentityStatus
from server_keys._keys.retries import Retries
from server_keys._keys.ring import KeyRing
from server_keys._log import logger
from server_keys._native import KeyErasedError, SigningKey
from server_keys._sealing.answers import Answer
from server_keys._sealing.identity import identity_of
from server_keys._sealing.key_signature import KeySignature, identity_hash, signed_message, with_signature
from server_keys._sealing.published_key import content_of, key_page
from server_keys._sealing.signer import Signer, SigningFailedError
from server_keys.errors import IdentityFileError, KeysUnavailableError

# How often the task that signs looks whether the ring has a new key.
_LONGEST_SLEEP_S = 1.0
# If the wall clock was set by more than this since a signature was made, it is made anew.
_MOST_CLOCK_CHANGE_S = 10.0
# A signer that is away for long must not fill the log.
_QUIET_S = 60.0


class NotSignedError(RuntimeError):
    """There is no signed key answer to publish. The message says why."""

    def __init__(self, why: str, *, retry_in_s: float) -> None:
        super().__init__(why)
        self.retry_in_s = retry_in_s


class _Current(NamedTuple):
    """What is to be published, not signed, and the seconds for which its keys are accepted, at least and at most."""

    content: bytes
    accepted_for_s: float
    ends_in_s: float

    @classmethod
    def of(cls, ring: KeyRing) -> Self:
        while True:
            pairs = ring.current_pairs
            current = cls(content_of(pairs), ring.current_accepted_for_s, ring.current_ends_in_s)
            if ring.current_pairs.x25519 is pairs.x25519:  # no rotation came between
                return current


@dataclass(slots=True)
class _Signed:
    """A signed answer. `accepted_until` is when its keys end at the earliest, on the boot clock."""

    content: bytes
    signed: bytes
    created: int
    expires: int
    signed_at: float
    accepted_until: float


class SignedAnswers:
    """Signs a ring's key answers, and keeps the newest.

    A signature lasts as long as its keys are accepted at most, so a recorded answer is worth nothing after that. Safe
    under threads, and on several event loops.

    Args:
        identity: the path of a key's file, or what signs elsewhere.
        clock: tells the time in seconds; it must never go backwards.
        wall_clock: tells the time in seconds since 1970.
    """

    def __init__(
        self,
        identity: str | Signer,
        *,
        clock: Callable[[], float] = boot_time,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = identity
        self._clock = clock
        self._wall_clock = wall_clock
        # Reentrant: a signal handler may read the status.
        self._lock = threading.RLock()
        self._key: SigningKey | None = None
        self._public_key = identity.public_key if isinstance(identity, Signer) else None
        self._users = 0
        self._newest: _Signed | None = None
        self._is_current = False
        self._retries = Retries()
        self._under_way: concurrent.futures.Future[None] | None = None
        self._under_way_until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._quiet_until = 0.0
        renew_lock_after_fork(self)

    # Ray Serve pickles an app with all that is around it, and locks cannot be pickled. The copy reads the file itself.
    def __reduce__(self) -> tuple[type["SignedAnswers"], tuple[str | Signer]]:
        return SignedAnswers, (self._source,)

    def open(self) -> None:
        """Read the key, at the start of a lifespan. Each call needs one of `close`.

        Raises:
            IdentityFileError: the file cannot be used; the message names it.
            MemoryError: the system has no memory for the key.
        """
        with self._lock:
            if not isinstance(self._source, Signer):
                self._opened_key(self._source)
            self._users += 1

    def close(self) -> None:
        """Erase the key when the last user closes."""
        with self._lock:
            self._users -= 1
            if self._users <= 0 and self._key is not None:
                self._key.erase()
                self._key = None

    def tell(self) -> IdentityStatus:
        """Return the state, for health checks and metrics."""
        with self._lock:
            newest, now = self._newest, self._clock()
            return IdentityStatus(
                identity=None if self._public_key is None else identity_of(self._public_key),
                is_published=newest is not None
                and (self._is_current or now < newest.accepted_until)
                and self._holds(newest),
                age_s=None if newest is None else now - newest.signed_at,
                expires_in_s=None if newest is None else newest.expires - self._wall_clock(),
                failures=self._retries.total,
                last_error=self._retries.last_error,
            )

    async def keep_signed(self, ring: KeyRing) -> None:
        """Sign each new key of `ring` soon after it is made, until cancelled."""
        while True:
            try:
                await self.answer(ring)
            except NotSignedError:
                pass  # logged, and tried again
            except KeysUnavailableError:
                if ring.status.closed:
                    return
            await asyncio.sleep(min(_LONGEST_SLEEP_S, ring.period_s / 4))

    async def answer(self, ring: KeyRing) -> Answer:
        """Return the signed answer that publishes the current keys, or the ones before while those are being signed.

        Raises:
            KeysUnavailableError: the ring has no keys.
            NotSignedError: there is no signed answer whose keys are still accepted.
        """
        current = _Current.of(ring)
        page = self._page_of(current)
        if page is None:
            signing = self._sign(current)
            page = self._page_of(current) or self._page_before(ring)
            if page is None and signing is not None:
                await asyncio.wait([asyncio.wrap_future(signing)], timeout=self._patience_s())
                page = self._page_of(_Current.of(ring)) or self._page_before(ring)
        if page is None:
            with self._lock:
                why = self._retries.last_error or "the signature is not there yet"
                raise NotSignedError(why, retry_in_s=max(self._retries.not_before - self._clock(), 0.0))
        return page

    def _page_of(self, current: _Current) -> Answer | None:
        """Return the answer with the current keys, if it is signed."""
        with self._lock:
            newest = self._newest
            self._is_current = newest is not None and newest.content == current.content
            if newest is None or not self._is_current or not self._holds(newest):
                return None
            newest.accepted_until = self._clock() + current.accepted_for_s
            return key_page(newest.signed, current.accepted_for_s)

    def _page_before(self, ring: KeyRing) -> Answer | None:
        """Return the answer that was signed last, if its keys are still accepted, though newer ones are there."""
        accepted = [content_of(pairs) for pairs in ring.accepted_pairs]
        with self._lock:
            newest = self._newest
            if newest is None or newest.content not in accepted or not self._holds(newest):
                return None
            accepted_for_s = newest.accepted_until - self._clock()
            return key_page(newest.signed, accepted_for_s) if accepted_for_s > 0 else None

    def _holds(self, signed: _Signed) -> bool:
        """Return whether a signature is one that clients take: not over, and made when the clock was right."""
        now = self._wall_clock()
        clock_change_s = abs((now - signed.created) - (self._clock() - signed.signed_at))
        # Both times are whole seconds.
        return now < signed.expires + 1 and clock_change_s < _MOST_CLOCK_CHANGE_S

    def _sign(self, current: _Current) -> concurrent.futures.Future[None] | None:
        """Sign at once with a key of this process. Return what ends when a signer elsewhere has answered.

        It is None where there is nothing to wait for, also because a try has failed just now.
        """
        with self._lock:
            now = self._clock()
            # One that takes longer than a signer may was left behind by a loop that was closed, or by a fork.
            if self._under_way is not None and not self._under_way.done() and now < self._under_way_until:
                return self._under_way
            if now < self._retries.allowed_at(now):
                return None
            created = int(self._wall_clock())
            # Not after the keys' acceptance: clients would seal to keys that are gone.
            expires = max(int(self._wall_clock() + current.ends_in_s), created)
            draft = _Signed(current.content, b"", created, expires, now, now + current.accepted_for_s)
            if isinstance(self._source, Signer):
                return self._sign_elsewhere(self._source, draft)
            try:
                key = self._opened_key(self._source)
                self._take(draft, key.public_key, key.sign(signed_message(current.content, created, expires)))
            except (IdentityFileError, KeyErasedError, MemoryError) as error:
                self._note_failure(error)
            return None

    def _sign_elsewhere(self, signer: Signer, draft: _Signed) -> concurrent.futures.Future[None]:
        under_way: concurrent.futures.Future[None] = concurrent.futures.Future()

        async def sign() -> None:
            try:
                message = signed_message(draft.content, draft.created, draft.expires)
                self._take(draft, signer.public_key, await signer.signature(message))
            except SigningFailedError as error:
                self._note_failure(error)
            finally:
                under_way.set_result(None)

        task = asyncio.get_running_loop().create_task(sign(), name="server_keys signing")
        # The loop itself keeps no task alive.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._under_way, self._under_way_until = under_way, draft.signed_at + self._patience_s()
        return under_way

    def _take(self, draft: _Signed, public_key: bytes, signature: bytes) -> None:
        entry = KeySignature(identity_hash(public_key), draft.created, draft.expires, signature)
        draft.signed = with_signature(draft.content, entry)
        with self._lock:
            self._public_key = public_key
            self._newest, self._is_current = draft, True
            if self._retries.in_a_row:
                logger().info("the server's keys are signed again, after %d tries that failed", self._retries.in_a_row)
            self._retries.succeeded()
            self._quiet_until = 0.0

    def _note_failure(self, error: Exception) -> None:
        with self._lock:
            now = self._clock()
            delay_s = self._retries.failed(error, now)
            if isinstance(error, SigningFailedError):
                self._retries.last_error = str(error)
            if now < self._quiet_until:
                return
            self._quiet_until = now + _QUIET_S
        logger().error(
            "the server's new keys cannot be signed (%d tries in a row), so they are not published: %s. Next try in "
            "%.1f s. The last signed ones are published until their time is over",
            self._retries.in_a_row,
            self._retries.last_error,
            delay_s,
        )

    def _opened_key(self, path: str) -> SigningKey:
        """Return the key of the file, read if it was not, or if a fork has taken it away."""
        if self._key is None or self._key.erased:
            self._key = SigningKey.from_file(path)
            self._public_key = self._key.public_key
        return self._key

    def _patience_s(self) -> float:
        return self._source.timeout_s + 1 if isinstance(self._source, Signer) else 0.0


def seconds_to_wait(error: NotSignedError) -> int:
    """Return the whole seconds after which a client may ask again."""
    return max(math.ceil(error.retry_in_s), 1)
