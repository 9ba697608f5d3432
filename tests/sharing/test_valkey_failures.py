"""What the store says and does while its server is away, stopped, full, replaced or no Valkey at all."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import valkey

from server_keys._sharing.store import StoreError, StoreRefusedError
from server_keys._sharing.valkey import ValkeyStore
from server_keys._sharing.valkey_url import ValkeyUrl
from tests.helpers.server_processes import free_port
from tests.helpers.valkey import KINDS, StoreKind, StoreServer, store_server, wait_until

GROUP = bytes(range(16))
TAG = "server-keys:{0001020304050607}"
ME, YOU = b"\x00" * 32, b"\xff" * 32
KEEP_S = 60.0

Opens = Callable[..., ValkeyStore]


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> StoreKind:
    found: StoreKind = request.param
    return found


@pytest.fixture
def server(kind: StoreKind, tmp_path: Path) -> Iterator[StoreServer]:
    with store_server(kind, tmp_path) as server:
        yield server


@pytest.fixture
def opens() -> Iterator[Opens]:
    """Return what opens a store, which is closed after the test."""
    with contextlib.ExitStack() as stack:

        def open_store(url: str, timeout_s: float = 0.25) -> ValkeyStore:
            store = ValkeyStore(ValkeyUrl.parse(url), GROUP, timeout_s=timeout_s)
            stack.callback(store.close)
            return store

        yield open_store


# On a busy machine the servers of a test may be late, too.
LATE = "did not answer within 0.25 s"


def failure(call: Callable[[], object], within_s: float = 2) -> str:
    """Return what the error of `call` says, which comes soon and carries nothing of the library along."""
    began = time.monotonic()
    with pytest.raises(StoreError) as caught:
        call()
    assert time.monotonic() - began < within_s
    assert not isinstance(caught.value, StoreRefusedError)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_a_killed_server_is_missed_and_its_successor_is_found(server: StoreServer, opens: Opens) -> None:
    store = opens(server.url)
    assert store.commit(b"", b"one", {ME: b"box"}, KEEP_S)
    server.kill()
    for _ in range(3):
        assert failure(lambda: store.look(ME)).startswith(f"{server.url}/0 ")
    assert failure(lambda: store.look(ME)) == f"{server.url}/0 cannot be reached: Connection refused"
    server.start()
    assert store.look(ME).register == b""
    server.restart()
    # The old connection is seen to be dead before anything is sent on it.
    assert store.commit(b"", b"two", {}, KEEP_S)


def test_a_server_with_an_old_snapshot_has_the_old_register(server: StoreServer, opens: Opens) -> None:
    store = opens(server.url)
    assert store.commit(b"", b"one", {ME: b"box"}, KEEP_S)
    server.run("SAVE")
    assert store.commit(b"one", b"two", {}, KEEP_S)
    server.restart(from_snapshot=True)
    assert store.look(ME).register == b"one"
    assert not store.restore(b"two", b"two", KEEP_S)
    assert store.restore(b"one", b"two", KEEP_S)
    assert store.take(ME) is not None


def test_what_a_snapshot_holds_goes_by_itself_also_after_a_restart(server: StoreServer, opens: Opens) -> None:
    store = opens(server.url)
    assert store.commit(b"", b"one", {ME: b"box"}, 0.3)
    server.run("SAVE")
    server.restart(from_snapshot=True)
    wait_until(lambda: store.look(ME).register == b"", "the register stayed")
    assert store.take(ME) is None


def test_a_stopped_server_costs_one_timeout_a_call(server: StoreServer, opens: Opens) -> None:
    store = opens(server.url)
    store.look(ME)
    with server.stopped():
        for _ in range(3):
            # Also a new connection is accepted, by the system on the server's behalf.
            # Two timeouts would take 0.5 s by themselves.
            assert failure(lambda: store.look(ME), within_s=0.49) == f"{server.url}/0 did not answer within 0.25 s"
    assert store.look(ME).register == b""


def test_a_commit_that_waits_in_a_stopped_server_happens_later_and_only_once(server: StoreServer, opens: Opens) -> None:
    store = opens(server.url)
    store.commit(b"", b"one", {}, KEEP_S)
    with server.stopped():
        failure(lambda: store.commit(b"one", b"two", {YOU: b"box"}, KEEP_S))
        failure(lambda: store.commit(b"one", b"two", {YOU: b"another"}, KEEP_S))
    wait_until(lambda: store.look(ME).register == b"two", "the commit did not happen")
    assert not store.commit(b"one", b"two", {YOU: b"another"}, KEEP_S)
    taken = store.take(YOU)
    assert taken is not None
    assert taken.box == b"box"


def test_an_answer_that_comes_too_late_is_no_answer_to_the_next_call(server: StoreServer, opens: Opens) -> None:
    store = opens(server.url)
    store.ask(ME, b"ask", waits=False, keep_s=KEEP_S)
    with server.stopped():
        failure(store.asks)
    assert store.look(ME)[:4] == (b"", 1, 0, True)


def test_a_full_server_takes_no_commit_and_half_of_none(server: StoreServer, opens: Opens) -> None:
    store = opens(server.url)
    assert store.commit(b"", b"one", {ME: b"box"}, KEEP_S)
    store.ask(YOU, b"ask", waits=True, keep_s=KEEP_S)
    server.run("CONFIG", "SET", "maxmemory", "1mb")
    full = f"{server.url}/0 has no memory left"
    assert failure(lambda: store.commit(b"one", b"two", {YOU: b"box"}, KEEP_S)) == full
    assert failure(lambda: store.restore(b"one", b"two", KEEP_S)) == full
    assert failure(lambda: store.ask(ME, b"ask", waits=True, keep_s=KEEP_S)) == full
    assert failure(lambda: store.serve(YOU, b"box", KEEP_S)) == full
    # What needs no memory goes on.
    assert store.look(YOU)[:4] == (b"one", 1, 1, True)
    assert store.waiting() == {YOU: b"ask"}
    assert store.take(ME) is not None
    store.leave(YOU)
    store.forget_asks()
    server.run("CONFIG", "SET", "maxmemory", "0")
    assert store.commit(b"one", b"two", {}, KEEP_S)


def test_a_server_that_became_a_replica_is_not_even_read(kind: StoreKind, tmp_path: Path, opens: Opens) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    at_once = ("--repl-diskless-sync-delay", "0")
    with store_server(kind, tmp_path / "old") as old, store_server(kind, tmp_path / "new", *at_once) as new:
        store = opens(old.url)
        assert store.commit(b"", b"one", {}, KEEP_S)
        old.run("REPLICAOF", "127.0.0.1", new.port)
        wait_until(lambda: old.run("INFO", "replication")["master_link_status"] == "up", "it did not become a replica")
        assert failure(lambda: store.look(ME)) == f"{old.url}/0 is a replica"
        assert failure(lambda: store.commit(b"", b"two", {}, KEEP_S)) == f"{old.url}/0 is a replica"
        old.run("REPLICAOF", "NO", "ONE")
        assert store.look(ME).register == b""


def test_a_server_that_is_busy_with_a_script_is_told_from_one_that_is_away(server: StoreServer, opens: Opens) -> None:
    store = opens(server.url, timeout_s=5)
    store.look(ME)
    server.run("CONFIG", "SET", "busy-reply-threshold", "10")

    def run_for_ever() -> None:
        with pytest.raises(valkey.ResponseError):
            server.run("EVAL", "while true do end", 0)

    busy = threading.Thread(target=run_for_ever)
    busy.start()
    time.sleep(0.2)
    try:
        assert failure(lambda: store.look(ME)) == f"{server.url}/0 is busy with a script"
    finally:
        with contextlib.closing(socket.create_connection(("127.0.0.1", server.port))) as client:
            client.sendall(b"SCRIPT KILL\r\n")
            assert client.recv(100) == b"+OK\r\n"
        busy.join()
    assert store.look(ME).register == b""


def test_a_server_that_cannot_save_takes_nothing(server: StoreServer, opens: Opens) -> None:
    store = opens(server.url)
    store.look(ME)
    server.snapshot.mkdir()  # where the file belongs
    server.run("CONFIG", "SET", "save", "1 1")
    server.run("SET", "x", "1")
    server.run("BGSAVE")
    wait_until(lambda: server.run("INFO", "persistence")["rdb_last_bgsave_status"] == "err", "it was saved")
    assert "cannot write its data to disk" in failure(lambda: store.commit(b"", b"one", {}, KEEP_S))
    server.run("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
    assert store.commit(b"", b"one", {}, KEEP_S)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "does not speak as Valkey does"),
        (b"$x\r\n", "does not speak as Valkey does"),
        (b"*99999999999999999999\r\n", LATE),
        (b"", "closed the connection"),
        (b"+OK\r\n", "answered with what none of the scripts returns"),
        (b"*2\r\n:1\r\n:2\r\n", "answered with what none of the scripts returns"),
        (b"*5\r\n$1\r\nx\r\n:1\r\n:1\r\n:1\r\n$1\r\nx\r\n", "answered with what none of the scripts returns"),
        (b"*1\r\n*3\r\n:0\r\n:16383\r\n$1\r\nx\r\n", "answered with what none of the scripts returns"),
        (b"-ERR unknown command 'AUTH', args: 'hunter2'\r\n", "answered with an error (ERR)"),
        (b"-hunter2\r\n", "answered with an error (ERR)"),
        (b"-MOVED hunter2\r\n", "answered with an error (MOVED)"),
        (b"-MOVED 1 host:hunter2\r\n", "answered with an error (MOVED)"),
        (b"-ASK 1 127.0.0.1:1\r\n", "is moving the group's keys to another node"),
        (b"-TRYAGAIN Multiple keys\r\n", "is moving the group's keys to another node"),
        (b"-LOADING loading\r\n", "is still loading its data"),
        (b"-CLUSTERDOWN Hash slot not served\r\n", "is in a cluster that is down"),
    ],
)
def test_a_server_that_answers_something_else_is_no_store(answer: bytes, reason: str, opens: Opens) -> None:
    with answering(answer) as port:
        store = opens(f"valkey://127.0.0.1:{port}")
        for _ in range(2):
            said = failure(lambda: store.look(ME))
            tries = 1
            while said.endswith(LATE) and reason != LATE and tries < 20:
                said, tries = failure(lambda: store.look(ME)), tries + 1
            assert said == f"valkey://127.0.0.1:{port}/0 {reason}"


def test_a_name_that_leads_nowhere_says_so(opens: Opens) -> None:
    store = opens("valkey://no-such-host.invalid")
    assert "has a host name that leads nowhere" in failure(lambda: store.look(ME), within_s=30)
    store = opens("unix:///no/such/socket")
    assert failure(lambda: store.look(ME)) == "unix:///no/such/socket cannot be reached: No such file or directory"


def test_a_closed_store_stays_closed(server: StoreServer, opens: Opens) -> None:
    store = opens(server.url)
    store.look(ME)
    clients = int(server.run("INFO", "clients")["connected_clients"])
    store.close()
    store.close()
    wait_until(
        lambda: int(server.run("INFO", "clients")["connected_clients"]) == clients - 1, "the connection is still there"
    )
    assert failure(lambda: store.look(ME)) == f"the connection to {server.url}/0 is closed"
    never_used = opens(f"valkey://127.0.0.1:{free_port()}")
    never_used.close()


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Answer everything with the same on a port of 127.0.0.1, and yield the port. Nothing: close the connection."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                threads.append(threading.Thread(target=talk, args=(connection,)))
                threads[-1].start()

    def talk(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while connection.recv(65536) and answer:
                connection.sendall(answer)

    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []
    threads = [threading.Thread(target=serve)]
    threads[0].start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        threads[0].join()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
