"""What a client hears when its request cannot be passed on, and the words for the operator's log."""

from typing import NamedTuple

import httpx2

from server_keys._native import FrameTooLargeError, MalformedMessageError
from server_keys._sealing.answers import Answer, problem
from server_keys.errors import SealedTransportError


class Failure(NamedTuple):
    """A request that got no answer from the upstream."""

    answer: Answer
    """What the client gets: a problem (RFC 9457) whose `message` the OpenAI SDK shows."""
    reason: str
    """What the log says. It contains nothing of the request."""


class CannotPassOnError(Exception):
    """The upstream's answer cannot be passed on. The message says why."""


class UncheckedKeyError(httpx2.TransportError):
    """A check of the operator's could ask nobody about a server's keys. Those that passed it before go on to serve."""


UPGRADE = problem(
    501,
    "this proxy passes on plain HTTP requests only, no upgrades (WebSocket, h2c): leave out the header Upgrade; Java's "
    "HttpClient does with version(HttpClient.Version.HTTP_1_1)",
)
UNKNOWN_CODING = problem(501, "this proxy knows no transfer coding but chunked: send the body without another one")
NOT_ORIGIN_FORM = problem(
    400, "the request line must have a path such as /v1/models and nothing before it: this is no forward proxy"
)
UNUSABLE_TARGET = problem(414, "the request target is longer than 64 KiB, or is no path")

BROKEN = (
    httpx2.HTTPError,
    httpx2.StreamError,
    SealedTransportError,
    FrameTooLargeError,
    MalformedMessageError,
    CannotPassOnError,
)
"""What ends an exchange with the upstream."""


def failure_of(error: Exception) -> Failure:
    """Return what to say after `error`, which is one of `BROKEN`."""
    match error:
        case UncheckedKeyError():
            return Failure(problem(502, str(error)), str(error))
        case httpx2.PoolTimeout():
            return _failure(503, "all connections of this proxy to its upstream are in use: try again later", error)
        case httpx2.TimeoutException():
            return _failure(504, "the upstream of this proxy did not answer in time", error)
        case httpx2.ConnectError():
            return _failure(502, "the upstream of this proxy takes no connection: is it running?", error)
        case httpx2.LocalProtocolError():
            return _failure(400, "this request cannot be passed on", error)
        case SealedTransportError():
            # It names the server and what was wrong with it, and nothing of the request.
            return Failure(problem(502, str(error)), str(error))
        case CannotPassOnError():
            return Failure(problem(502, f"the upstream's answer cannot be passed on: {error}"), str(error))
        case _:
            return _failure(502, "the upstream of this proxy broke off, or did not speak HTTP", error)


def _failure(status: int, title: str, error: Exception) -> Failure:
    # Not the error's own words: a parser's may quote what it read.
    return Failure(problem(status, title), f"{title} ({type(error).__name__})")
