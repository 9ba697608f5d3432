"""The operator's own checks of a server's keys: whatever they raise, clients get an answer that says so."""

import inspect
from collections.abc import Awaitable, Callable

import httpx2

from server_keys._log import logger
from server_keys.errors import KeyRejectedError, SealedTransportError
from server_keys.proxy.failures import UncheckedKeyError


def refusing(name: str, check: object) -> object:
    """Return `check` in a form whose exceptions refuse the keys as any other fault of theirs does.

    Args:
        name: what the operator calls it.
        check: a function, or a coroutine function. Anything else is returned as it is, for the transport to refuse.
    """
    return _refusing(name, check) if callable(check) else check


def _refusing(name: str, check: Callable[..., object]) -> Callable[..., Awaitable[object]]:
    async def checked(*arguments: object) -> object:
        try:
            verdict = check(*arguments)
            return await verdict if inspect.isawaitable(verdict) else verdict
        except SealedTransportError:
            raise
        except httpx2.TransportError as error:
            raise UncheckedKeyError(
                f"{name} could ask nobody about the server's keys: it raised {type(error).__name__}"
            ) from None
        except Exception as error:  # noqa: BLE001 - told to the operator, and raised in another form
            # Its words are for the operator alone.
            logger().warning("%s refused a server's keys: %s: %s", name, type(error).__name__, error)
            raise KeyRejectedError(f"{name} refused the server's keys: it raised {type(error).__name__}") from None

    return checked
