"""The connection to the server that has the keys of a group, in a cluster, too.

valkey-py's own client for clusters is not used: it does not check host names, it repeats commands whose answer was
lost (a commit that happened would then seem to have failed), and it asks every node before it gives up. All keys of a
group are in one slot, so that following the cluster's redirections is enough.
"""

import contextlib
import math
import re
import ssl
import threading
from collections.abc import Sequence
from typing import Any, cast

import valkey
from valkey.backoff import NoBackoff
from valkey.crc import key_slot
from valkey.exceptions import NoPermissionError, NoScriptError, ResponseError, ValkeyError
from valkey.retry import Retry

from server_keys._clock import boot_time
from server_keys._sharing.store import StoreError
from server_keys._sharing.valkey.failures import code_of, store_error
from server_keys._sharing.valkey.scripts import Script
from server_keys._sharing.valkey_url import ValkeyUrl

_MOST_REDIRECTIONS = 3
_MOST_ADDRESSES = 16
_LEARN_NODES_EVERY_S = 30.0
_LEAVE_AFTER = {"CLUSTERDOWN", "MASTERDOWN", "READONLY"}
"""After these another node may be of more use, and another connection may lead to another server."""


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
        connecting_s: seconds for connecting, where they differ.

    Raises:
        ValueError: the URL names a file of certificates that cannot be read.
    """

    def __init__(self, url: ValkeyUrl, key: str, timeout_s: float, *, connecting_s: float | None = None) -> None:
        self._url = url
        self._slot = key_slot(key.encode())
        self._timeout_s = timeout_s
        self._connecting_s = timeout_s if connecting_s is None else connecting_s
        self._lock = threading.Lock()
        self._client: valkey.Valkey | None = None
        self._is_closed = False
        self._may_ask_for_memory = True
        # The URL's own address comes first.
        self._addresses = [(url.host, url.port)]
        self._at = self._addresses[0]
        self._learn_nodes_at = -math.inf
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

    def eviction_policy(self) -> str | None:
        """Return by which rule the server forgets keys when its memory is full. None if it keeps them, or does not say.

        Users who may not ask (`+info`) ask once: a server keeps a list of what it denies.
        """
        with self._lock:
            if self._client is None or not self._may_ask_for_memory:
                return None
            try:
                memory = cast("dict[str, Any]", self._client.info("memory"))
            except NoPermissionError:
                self._may_ask_for_memory = False
                return None
            except (ValkeyError, OSError, ValueError):
                return None
        policy = memory.get("maxmemory_policy")
        return str(policy) if memory.get("maxmemory") and policy not in (None, "noeviction") else None

    def close(self) -> None:
        """Close the connection for good."""
        with self._lock:
            self._is_closed = True
            self._disconnect()

    def _run_here(self, script: Script, keys: Sequence[str], arguments: Sequence[bytes | int]) -> object:
        try:
            client = self._connected()
            try:
                return client.evalsha(script.sha, len(keys), *keys, *arguments)  # type: ignore[arg-type]
            except NoScriptError:
                return client.eval(script.text, len(keys), *keys, *arguments)  # type: ignore[arg-type]
        # ValueError: valkey-py could not read the answer. It is no Valkey then.
        except (ValkeyError, OSError, ValueError) as error:
            failure = self._failure(error)
        # Raised out here, it does not carry the library's error along, whose text may repeat a password.
        raise failure

    def _connected(self) -> valkey.Valkey:
        if self._client is None:
            self._client = valkey.Valkey(**self._options())
            self._learn_nodes_at = -math.inf
        if boot_time() >= self._learn_nodes_at:
            self._learn_nodes(self._client)
        return self._client

    def _learn_nodes(self, client: valkey.Valkey) -> None:
        nodes: list[tuple[str, int]] = []
        self._learn_nodes_at = math.inf
        with contextlib.suppress(ResponseError):  # it is in no cluster, or this user may not know
            nodes = _nodes(client.execute_command("CLUSTER SLOTS"), self._slot, default_host=self._at[0])
            self._learn_nodes_at = boot_time() + _LEARN_NODES_EVERY_S
        self._addresses = list(dict.fromkeys([(self._url.host, self._url.port), *nodes]))[:_MOST_ADDRESSES]

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
            "socket_connect_timeout": self._connecting_s,
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
        code = code_of(error)
        moved = re.fullmatch(r"MOVED [0-9]+ (.*):([0-9]{1,5})", str(error)) if code == "MOVED" else None
        if moved:
            # A node that does not know the other's host means that it is the same.
            return _MovedError((moved[1] or self._at[0], int(moved[2])))
        where = self.shown if self._at == self._addresses[0] else f"{self.shown} (node {self._at[0]}:{self._at[1]})"
        if not isinstance(error, ResponseError) or code in _LEAVE_AFTER:
            self._go_to_next()
        return store_error(error, where, database=self._url.database, timeout_s=self._timeout_s)


def _nodes(slots: object, slot: int, default_host: str) -> list[tuple[str, int]]:
    """Return the nodes in the answer to CLUSTER SLOTS, those first that have the slot."""
    having: list[tuple[str, int]] = []
    others: list[tuple[str, int]] = []
    for part in slots if isinstance(slots, list) else []:
        match part:
            case [int() as first, int() as last, *nodes]:
                found = having if first <= slot <= last else others
                for node in nodes:
                    match node:
                        case [bytes() | None as host, int() as port, *_]:
                            found.append(((host or b"").decode(errors="replace") or default_host, port))
    return [*having, *others]


def _check_ca_file(path: str) -> None:
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.errno else type(error).__name__
        raise ValueError(
            f"ssl_ca_certs must name a file of certificates that can be read, not {path!r}: {reason}"
        ) from None
