"""The connection to the server that has the keys of a group, in a cluster, too.

valkey-py's own client for clusters is not used: it does not check host names, it repeats commands whose answer was
lost (a commit that happened would then seem to have failed), and it asks every node before it gives up. All keys of a
group are in one slot, so that following the cluster's redirections is enough.
"""

import os
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import valkey
from valkey.backoff import NoBackoff
from valkey.crc import key_slot
from valkey.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    ValkeyError,
)
from valkey.retry import Retry

from server_keys._sharing.store import StoreError, StoreRefusedError
from server_keys._sharing.valkey.scripts import Script
from server_keys._sharing.valkey_url import ValkeyUrl

_MOST_REDIRECTIONS = 3

_CODES = {BusyLoadingError: "LOADING", OutOfMemoryError: "OOM", ReadOnlyError: "READONLY", NoScriptError: "NOSCRIPT"}
"""The codes that valkey-py turns into classes, and cuts off."""
_LEAVE = {"CLUSTERDOWN", "MASTERDOWN", "READONLY"}
"""After these another node may be of more use, and another connection may lead to another server."""
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
"""What the codes of a server's errors mean. The rest of an error's text may repeat a password, and is shown nowhere."""


class WrongTypeError(StoreError):
    """A key is of another type than the scripts make it."""


class _MovedError(Exception):
    """Another node of the cluster has the keys."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address)
        self.address = address


class Connection:
    """Runs scripts where a key is, and says in its own words what went wrong.

    A failure closes the connection. The next call makes another one: to the server that the URL names, or to a node of
    its cluster that has the key or a copy of it, each in its turn.

    Args:
        url: the server's address and how to log in.
        key: one of the keys.
        timeout_s: seconds for connecting, and again for each command.

    Raises:
        ValueError: the URL names a file of certificates that cannot be read.
    """

    def __init__(self, url: ValkeyUrl, key: str, timeout_s: float) -> None:
        self._url = url
        self._slot = key_slot(key.encode())
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._client: valkey.Valkey | None = None
        self._is_closed = False
        # The URL's own address comes first.
        self._addresses = [(url.host, url.port)]
        self._at = self._addresses[0]
        if url.ca_file is not None:
            _check_ca_file(url.ca_file)

    @property
    def shown(self) -> str:
        """The URL without credentials."""
        return self._url.shown

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[bytes | int]) -> object:
        """Return what the script answers. It runs once, or, after an error, once or not at all.

        Raises:
            StoreRefusedError: the server does not let this user in, or not run a command of the script.
            WrongTypeError: a key is of another type.
            StoreError: any other failure.
        """
        with self._lock:
            if self._is_closed:
                raise StoreError(f"the connection to {self.shown} is closed")
            for _ in range(1 + _MOST_REDIRECTIONS):
                try:
                    return self._run_here(script, keys, arguments)
                except _MovedError as moved:
                    self._go_to(moved.address)
            raise StoreError(f"{self.shown} is in a cluster whose nodes do not agree where the group's keys are")

    def close(self) -> None:
        """Close the connection for good."""
        with self._lock:
            self._is_closed = True
            self._disconnect()

    def _run_here(self, script: Script, keys: Sequence[str], arguments: Sequence[bytes | int]) -> object:
        try:
            client = self._client or self._connect()
            try:
                return client.evalsha(script.sha, len(keys), *keys, *arguments)  # type: ignore[arg-type]
            except NoScriptError:
                return client.eval(script.text, len(keys), *keys, *arguments)  # type: ignore[arg-type]
        # ValueError: valkey-py could not read the answer. It is no Valkey then.
        except (ValkeyError, OSError, ValueError) as error:
            failure = self._failure(error)
        # Raised out here, it does not carry the library's error along, whose text may repeat a password.
        raise failure

    def _connect(self) -> valkey.Valkey:
        self._client = client = valkey.Valkey(**self._options())
        try:
            slots: object = client.execute_command("CLUSTER SLOTS")
        except ResponseError:  # it is in no cluster, or this user may not know
            slots = []
        nodes = _nodes(slots, self._slot, default_host=self._at[0])
        self._addresses = list(dict.fromkeys([(self._url.host, self._url.port), *nodes]))
        return client

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _go_to(self, address: tuple[str, int]) -> None:
        self._disconnect()
        self._at = address

    def _go_to_next(self) -> None:
        at = self._addresses.index(self._at) if self._at in self._addresses else -1
        self._go_to(self._addresses[(at + 1) % len(self._addresses)])

    def _options(self) -> dict[str, Any]:
        url = self._url
        host, port = self._at
        options: dict[str, Any] = {
            "db": url.database,
            "username": url.username,
            "password": url.password,
            "socket_timeout": self._timeout_s,
            "socket_connect_timeout": self._timeout_s,
            # A repeated commit would find the register that the first one wrote, and seem to have failed.
            "retry": Retry(NoBackoff(), 0),
            # Each would need a permission, and serves nothing here.
            "lib_name": None,
            "lib_version": None,
        }
        if not host:
            return options | {"unix_socket_path": url.path}
        options |= {"host": host, "port": port}
        if url.tls:
            options |= {
                "ssl": True,
                "ssl_cert_reqs": "required",
                "ssl_check_hostname": True,
                "ssl_ca_certs": url.ca_file,
            }
        return options

    def _failure(self, error: Exception) -> Exception:
        """Leave this node if it is of no use any more, and return the exception that tells about `error`."""
        code = _code(error)
        if code == "MOVED":
            return _MovedError(self._moved_to(str(error)))
        where = self.shown
        if self._at != self._addresses[0]:
            where += f" (node {self._at[0]}:{self._at[1]})"
        if not isinstance(error, ResponseError) or code in _LEAVE:
            self._go_to_next()
        refused = _refusal(error, self._url.database)
        if refused is not None:
            return StoreRefusedError(f"{where} {refused}")
        if code is None:
            return StoreError(f"{where} {_transport_failure(error, self._timeout_s)}")
        kind = WrongTypeError if code == "WRONGTYPE" else StoreError
        return kind(f"{where} {_MEANINGS.get(code, f'answered with an error ({code})')}")

    def _moved_to(self, text: str) -> tuple[str, int]:
        host, _, port = text.split(" ")[2].rpartition(":")
        return host or self._at[0], int(port)


def _nodes(slots: object, slot: int, default_host: str) -> Iterator[tuple[str, int]]:
    """Yield the nodes that have the slot, by the answer to CLUSTER SLOTS."""
    for part in slots if isinstance(slots, list) else []:
        match part:
            case [int() as first, int() as last, *nodes] if first <= slot <= last:
                for node in nodes:
                    match node:
                        case [bytes() | None as host, int() as port, *_]:
                            yield (host or b"").decode(errors="replace") or default_host, port


def _code(error: Exception) -> str | None:
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
        if isinstance(cause, (TimeoutError, valkey.exceptions.TimeoutError)):
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


def _check_ca_file(path: str) -> None:
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.errno else type(error).__name__
        raise ValueError(
            f"ssl_ca_certs must name a file of certificates that can be read, not {path!r}: {reason}"
        ) from None
