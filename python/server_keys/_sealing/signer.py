"""Who signs key answers: a key in a file, or something elsewhere, such as a KMS or an HSM."""

import asyncio
import inspect
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from server_keys._checks import period_seconds
from server_keys._native import is_signature, is_signing_public_key
from server_keys._sealing.identity import PREFIX, identity_of, public_key_of_identity

SignFunction = Callable[[bytes], "bytes | Awaitable[bytes]"]

# A call that hangs cannot be ended, so the tries that follow it may not pile up.
_MOST_HANGING_CALLS = 4


class SigningFailedError(Exception):
    """A key answer could not be signed. The message says why."""


class Signer:
    """An identity whose private key is elsewhere: in a KMS, an HSM, another process.

    `protect(app, identity=Signer(public_key, sign))`. Each new key of the server is signed once in each process, as
    soon as it is made. Until then, and when that fails, the key before it stays published for its time.

    Args:
        public_key: the Ed25519 public key: 32 bytes, or the string that stands for it (`ed25519:...`).
        sign: returns the Ed25519 signature (64 bytes) of a message (below 17 KiB): pure Ed25519, without a hash
            before it. It may be a coroutine function; any other runs in a thread, so it may block.
        timeout_s: seconds after which a signature counts as failed, from 0.01.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the public key cannot be one, or the time is out of its range.
    """

    def __init__(self, public_key: bytes | str, sign: SignFunction, timeout_s: float = 5.0) -> None:
        self.public_key: bytes = _checked_public_key(public_key)
        if not callable(sign):
            raise TypeError(f"sign must be a function that takes bytes and returns a signature, not {sign!r}")
        self._sign = sign
        self.timeout_s: float = period_seconds("timeout_s", timeout_s)
        self._calls: list[threading.Thread] = []

    @property
    def identity(self) -> str:
        """The string that stands for the public key, for clients."""
        return identity_of(self.public_key)

    async def signature(self, message: bytes) -> bytes:
        """Return the signature of a message, checked.

        Args:
            message: what is signed.

        Returns:
            64 bytes.

        Raises:
            SigningFailedError: there is none after `timeout_s`, the function failed, or returned something else.
        """
        task = asyncio.ensure_future(self._called(message))
        try:
            await asyncio.wait({task}, timeout=self.timeout_s)
        finally:
            # It may not let itself be cancelled: do not wait for that.
            task.cancel()
        if not task.done() or task.cancelled():
            raise SigningFailedError(f"sign did not answer within {self.timeout_s:g} s")
        try:
            signature = task.result()
        except SigningFailedError:
            raise
        except Exception as error:
            raise SigningFailedError(f"sign failed: {type(error).__name__}: {error}") from error
        if not isinstance(signature, bytes | bytearray | memoryview):
            raise SigningFailedError(f"sign returned {type(signature).__name__} instead of 64 bytes")
        signature = bytes(signature)
        if not is_signature(self.public_key, message, signature):
            raise SigningFailedError(
                f"sign returned {len(signature)} bytes that are no Ed25519 signature of the message by "
                f"{self.identity}: look for another key, another algorithm, or a hash that is made before"
            )
        return signature

    async def _called(self, message: bytes) -> Any:
        if inspect.iscoroutinefunction(self._sign) or inspect.iscoroutinefunction(type(self._sign).__call__):
            return await self._sign(message)  # type: ignore[misc]
        signature = await self._called_in_thread(message)
        return await signature if inspect.isawaitable(signature) else signature

    async def _called_in_thread(self, message: bytes) -> Any:
        """Call the function in a thread of its own. A pool would wait for one that hangs when the process ends."""
        # The threads tell: a loop that has ended is told of no end any more, and a forked child has none of them.
        self._calls = [thread for thread in self._calls if thread.is_alive()]
        if len(self._calls) >= _MOST_HANGING_CALLS:
            raise SigningFailedError(
                f"{len(self._calls)} calls of sign hang: no other is begun before one of them ends"
            )
        loop = asyncio.get_running_loop()
        called: asyncio.Future[Any] = loop.create_future()

        def end(result: Any, error: BaseException | None) -> None:
            if called.done():
                return
            if error is None:
                called.set_result(result)
            else:
                called.set_exception(error)

        def call() -> None:
            result, failure = None, None
            try:
                result = self._sign(message)
            except Exception as error:  # noqa: BLE001 - raised where the result is awaited
                failure = error
            except BaseException as error:  # noqa: BLE001 - a thread has nobody who ends the process for it
                failure = RuntimeError(f"{type(error).__name__}: {error}")
            with suppress(RuntimeError):  # the loop is closed, so nobody waits there any more
                loop.call_soon_threadsafe(end, result, failure)

        thread = threading.Thread(target=call, name="server_keys signing", daemon=True)
        thread.start()
        self._calls.append(thread)
        return await called

    def __repr__(self) -> str:
        return f"<Signer {self.identity}, timeout {self.timeout_s:g} s>"


def checked_identity(value: object) -> "str | Signer":
    """Return a server's identity: the path of a file, or a `Signer`. The file is not read yet.

    Raises:
        TypeError: it is something else.
        ValueError: it is the public half, or an empty path.
    """
    if isinstance(value, Signer):
        return value
    if isinstance(value, bytes) or not isinstance(value, str | os.PathLike):
        raise TypeError(f"identity must be the path of a file or a Signer, not {value!r}")
    path = os.fspath(value)
    if not isinstance(path, str):
        raise TypeError(f"identity must be a path of text, not {path!r}")
    if path.startswith(PREFIX):
        raise ValueError(
            f"identity is the public half, {path[:80]!r}, which is for clients: a server takes the file that "
            "`server-keys identity new` wrote"
        )
    if not path:
        raise ValueError("identity is an empty path: name the file that `server-keys identity new` wrote")
    # Before the process changes its folder.
    return str(Path(path).absolute())


def _checked_public_key(public_key: object) -> bytes:
    if isinstance(public_key, str):
        return public_key_of_identity(public_key)
    if not isinstance(public_key, bytes | bytearray | memoryview):
        raise TypeError(f"public_key must be 32 bytes or a str such as 'ed25519:...', not {type(public_key).__name__}")
    public_key = bytes(public_key)
    if not is_signing_public_key(public_key):
        raise ValueError(
            f"public_key must be an Ed25519 public key of 32 bytes, not these {len(public_key)}: "
            f"{public_key[:50].hex()}; the last 32 bytes of a DER form are the key"
        )
    return public_key
