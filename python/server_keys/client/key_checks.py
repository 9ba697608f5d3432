"""What a server's key answer must pass before anything is sealed to its keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import NamedTuple

from server_keys._log import logger
from server_keys._sealing.key_entries import PublishedKeys
from server_keys.errors import KeyConfigurationError

VerifyKey = Callable[[bytes], object]
AsyncVerifyKey = Callable[[bytes], object | Awaitable[object]]
VerifyAnswer = Callable[[bytes, str], object]
AsyncVerifyAnswer = Callable[[bytes, str], object | Awaitable[object]]


class KeyAnswer(NamedTuple):
    """A server's key answer: each of its bytes, the URL that it came from, and the keys in it."""

    content: bytes
    url: str
    keys: PublishedKeys


class Check(NamedTuple):
    """A check of one key answer.

    `ask` returns the verdict, or an awaitable of it. `subject` says in a message what the verdict is on.
    """

    name: str
    ask: Callable[[], object]
    subject: str


class KeyChecks:
    """The user's checks of key answers.

    Nothing is sealed to a key that they have not seen. So version 1 of the wire is used where there are no checks, or
    one that sees the whole answer.

    Args:
        verify_key: gets the X25519 key (32 bytes) of an answer.
        verify_answer: gets all bytes of an answer, and its URL.
        require_v1: whether servers that do not offer version 1 are refused.

    Raises:
        TypeError: an argument has the wrong type, or `require_v1` contradicts `verify_key`.
    """

    def __init__(
        self, verify_key: AsyncVerifyKey | None, verify_answer: AsyncVerifyAnswer | None, *, require_v1: bool
    ) -> None:
        _require_function("verify_key", verify_key, "a public key")
        _require_function("verify_answer", verify_answer, "a key answer and its URL")
        if not isinstance(require_v1, bool):
            raise TypeError(f"require_v1 must be True or False, not {require_v1!r}")
        self.can_use_v1: bool = verify_key is None or verify_answer is not None
        if require_v1 and not self.can_use_v1:
            raise TypeError(
                "require_v1=True needs verify_answer= where there is verify_key=: version 1 seals to another key than "
                "the 32 bytes that verify_key gets"
            )
        self.require_v1 = require_v1
        self._verify_key = verify_key
        self._verify_answer = verify_answer
        self._has_warned = False

    @property
    def need_an_answer(self) -> bool:
        """Whether no request may leave, sealed or not, before the server has answered with its key."""
        return self.require_v1 or self._verify_answer is not None

    def usable(self, answer: KeyAnswer) -> PublishedKeys:
        """Return the keys of `answer` that may be used once all checks have passed it.

        Raises:
            KeyConfigurationError: it has no key for version 1, which is required.
        """
        if answer.keys.xwing is None:
            if self.require_v1:
                raise KeyConfigurationError(
                    f"{answer.url} publishes no X-Wing key, so the server speaks plain EHBP alone, which "
                    "require_v1=True refuses: update the server, or leave require_v1 out if X25519 is enough"
                )
        elif not self.can_use_v1:
            self._warn(answer.url)
            return answer.keys._replace(xwing=None)
        return answer.keys

    def of(self, answer: KeyAnswer) -> Iterator[Check]:
        """Yield the checks of `answer`."""
        if self._verify_answer is not None:
            ask = partial(self._verify_answer, answer.content, answer.url)
            yield Check("verify_answer", ask, f"the {len(answer.content)} bytes")
        if self._verify_key is not None:
            key = answer.keys.x25519
            yield Check("verify_key", partial(self._verify_key, key), f"the key {key.hex()}")

    def _warn(self, url: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger().warning(
                "%s offers version 1 of the wire, which outlasts quantum computers, but requests are sealed as plain "
                "EHBP: verify_key sees the X25519 key alone. Give the client verify_answer=, which sees every key.",
                url,
            )


def _require_function(name: str, value: object, takes: str) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function that takes {takes}, not {value!r}")
