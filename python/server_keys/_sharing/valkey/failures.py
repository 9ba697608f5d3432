"""What it means that a call of valkey-py failed, in words of our own: a server's text may repeat a password."""

import os
import re
import socket
import ssl
from collections.abc import Iterator

from valkey.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from valkey.exceptions import TimeoutError as ValkeyTimeoutError

from server_keys._sharing.store import StoreError, StoreRefusedError

_CODES = {BusyLoadingError: "LOADING", OutOfMemoryError: "OOM", ReadOnlyError: "READONLY", NoScriptError: "NOSCRIPT"}
"""The codes that valkey-py turns into classes, and cuts off."""
_MEANINGS = {
    "ASK": "is moving the group's keys to another node",
    "BUSY": "is busy with a script",
    "CLUSTERDOWN": "is in a cluster that is down",
    "LOADING": "is still loading its data",
    "MASTERDOWN": "is a replica that has lost its primary",
    "MISCONF": "cannot write its data to disk, and takes no more",
    "NOREPLICAS": "has too few replicas, and takes no more",
    "OOM": "has no memory left",
    "READONLY": "is a replica",
    "TRYAGAIN": "is moving the group's keys to another node",
    "UNBLOCKED": "has become a replica",
    "WRONGTYPE": "held something else under the group's keys, which was removed",
}


class WrongTypeError(StoreError):
    """A key is of another type than the scripts make it."""


def store_error(error: Exception, where: str, *, database: int, timeout_s: float) -> StoreError:
    """Return what tells about `error`.

    Args:
        error: what a call of valkey-py raised.
        where: the server, without credentials.
        database: the number of the database that was asked for.
        timeout_s: seconds that the server had.
    """
    refused = _refusal(error, database)
    if refused is not None:
        return StoreRefusedError(f"{where} {refused}")
    code = code_of(error)
    if code is None:
        return StoreError(f"{where} {_transport_failure(error, timeout_s)}")
    kind = WrongTypeError if code == "WRONGTYPE" else StoreError
    return kind(f"{where} {_MEANINGS.get(code, f'answered with an error ({code})')}")


def code_of(error: Exception) -> str | None:
    """Return the code of an error that the server answered, None for another failure."""
    for known, code in _CODES.items():
        if isinstance(error, known):
            return code
    if not isinstance(error, ResponseError):
        return None
    word = str(error).partition(" ")[0]
    return word if re.fullmatch("[A-Z]{3,20}", word) else "ERR"


def _refusal(error: Exception, database: int) -> str | None:
    """Return what a server says who does not let this user do something. None if it says something else."""
    text = str(error)
    if isinstance(error, AuthenticationError):
        return "does not accept the user and the password, or wants some, or wants none"
    if isinstance(error, ResponseError):
        if "DB index is out of range" in text or "SELECT is not allowed" in text:
            return f"has no database {database}"
        if isinstance(error, NoPermissionError) and "key" in text.partition("'")[0]:
            return "does not allow this user the keys server-keys:*"
        if isinstance(error, NoPermissionError) or "ACL failure" in text or "user executing the script" in text:
            command = re.search(r"'([a-z|]{1,32})' command", text)
            return (
                f"does not allow this user {f'the command {command[1]}' if command else 'all commands that it needs'}"
            )
    return None


def _transport_failure(error: BaseException, timeout_s: float) -> str:
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"has a certificate that is not valid here: {cause.verify_message}"
        if isinstance(cause, (TimeoutError, ValkeyTimeoutError)):
            return f"did not answer within {timeout_s:g} s"
        if isinstance(cause, ssl.SSLError):
            return "does not speak TLS as it should"
        if isinstance(cause, socket.gaierror):
            return "has a host name that leads nowhere"
        if isinstance(cause, OSError) and cause.errno is not None:
            return f"cannot be reached: {os.strerror(cause.errno)}"
    if any(isinstance(cause, (InvalidResponse, ValueError)) for cause in causes):
        return "does not speak as Valkey does"
    return "closed the connection"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
