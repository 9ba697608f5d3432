"""A sealed request is served once by all workers of a server together: real servers, real time."""

import asyncio
import contextlib
import http.client
import itertools
import os
import re
import shutil
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from server_keys._native import ReplayTable, ReplayTableFullError, RequestSealer, RequestSealerV1
from server_keys._sealing.key_entries import PublishedKeys, key_id_of, keys_of
from server_keys._sealing.wire_v1 import RequestHead, RequestHeader, request_head, request_header
from tests.helpers.many_calls import async_cached_key, cached_key, calls_meanwhile
from tests.helpers.prepared_requests import prepared, wires_to_each
from tests.helpers.server_processes import free_port, has_nginx, nginx
from tests.helpers.trials import Keys, Trial, trial

WORKERS = 4
REQUESTS = 10_000
LANES = 8
"""How many requests are on their way at the same time, each to two workers."""
LONG = Keys(period_s=300.0)
KEY_PATH = "/.well-known/hpke-keys"
Sealed = tuple[str, bytes]
"""The value of the header, and the body."""


def exchange(server: Trial, method: str, path: str, body: bytes = b"", key: str | None = None) -> tuple[int, bytes]:
    """Send a request over a connection of its own, and return the status and the body of the answer."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    try:
        connection.request(method, path, body, {"Ehbp-Encapsulated-Key": key} if key else {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def seal(server: Trial, text: bytes = b"0", *, v1: bool = False) -> Sealed:
    """Seal a request for `/block`, which answers with the number of the process."""
    return sealed_by(keys_of(exchange(server, "GET", KEY_PATH)[1]), "/block", text, v1=v1)


def sealed_by(keys: PublishedKeys, path: str, text: bytes, *, v1: bool) -> Sealed:
    if not v1:
        plain = RequestSealer(keys.x25519)
        return plain.encapsulated_key.hex(), plain.seal(text)
    assert keys.xwing is not None
    sealer = RequestSealerV1(keys.xwing.public_key)
    head = sealer.seal_head(request_head(RequestHead(b"POST", path.encode(), True)))
    header = RequestHeader(key_id_of(keys.xwing.public_key), sealer.encapsulated_key, head)
    return request_header(header), sealer.seal(text) + sealer.seal_end()


def send(server: Trial, sealed: Sealed) -> int:
    key, body = sealed
    return exchange(server, "POST", "/block", body, key)[0]


def send_at_the_same_time(server: Trial, sealed: Sealed, times: int) -> Counter[int]:
    """Send a request so many times at once, and return how often there was which status."""
    statuses, start = list[int](), threading.Barrier(times)

    def send_one() -> None:
        start.wait()
        statuses.append(send(server, sealed))

    threads = [threading.Thread(target=send_one) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Counter(statuses)


def serving_pids(server: Trial, calls: int) -> set[int]:
    """Return which workers answer calls that come at the same time, of which each takes a while."""
    pids, lock = set[int](), threading.Lock()

    def call() -> None:
        status, answer = exchange(server, "POST", "/block", b"0.05")
        assert status == 200
        with lock:
            pids.add(int(answer))

    threads = [threading.Thread(target=call) for _ in range(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return pids


@pytest.mark.parametrize("v1", [False, True])
def test_a_request_is_refused_by_every_worker_that_another_one_has_served(tmp_path: Path, v1: bool) -> None:
    with trial(tmp_path, LONG, workers=WORKERS) as server:
        pids = server.workers(WORKERS)
        server.wait_for_one_ring(pids)
        assert len(serving_pids(server, 40)) > 1, "one worker takes all connections"
        sealed = seal(server, v1=v1)
        assert send(server, sealed) == 200
        assert [send(server, sealed) for _ in range(40)] == [409] * 40
        assert send_at_the_same_time(server, sealed, 40) == {409: 40}
        assert send(server, seal(server, v1=v1)) == 200


def test_of_all_workers_at_once_exactly_one_serves_a_request(tmp_path: Path) -> None:
    with trial(tmp_path, LONG, workers=WORKERS) as server:
        server.wait_for_one_ring(server.workers(WORKERS))
        for _ in range(30):
            # It takes the worker a while, so that the others get some.
            assert send_at_the_same_time(server, seal(server, b"0.02"), 12) == {200: 1, 409: 11}


def test_of_10_000_requests_that_come_twice_at_the_same_time_each_is_served_once(tmp_path: Path) -> None:
    with trial(tmp_path, LONG, workers=2) as server:
        pids = server.workers(2)
        server.wait_for_one_ring(pids)
        (path,) = Path(server.state(pids[0]).more["store"]).glob("seen-*")
        keys = keys_of(exchange(server, "GET", KEY_PATH)[1])
        requests = []
        for number in range(REQUESTS):
            key, body = sealed_by(keys, "/note", b"%d" % number, v1=number % 2 == 1)
            requests.append(prepared("/note", body, key))
        first_by = asyncio.run(send_each_twice(server.port, pids, requests[:1_000]))
        resident = [resident_mib(pid) for pid in pids]
        first_by += asyncio.run(send_each_twice(server.port, pids, requests[1_000:]))
        assert sorted(map(int, (tmp_path / "notes").read_bytes().split())) == list(range(REQUESTS))
        assert first_by.keys() == set(pids), "one worker was always faster"
        grown = [resident_mib(pid) - before for pid, before in zip(pids, resident, strict=True)]
        assert max(grown) < 4, f"by {grown} MiB"
        assert opened_table(path).used == REQUESTS
        assert path.stat().st_blocks * 512 < 5 * 2**20
        assert serving_pids(server, 10) <= set(pids), "a worker ended"


async def send_each_twice(port: int, pids: Sequence[int], requests: Sequence[bytes]) -> Counter[int]:
    """Send each request to both workers at the same time, and return how often it was served by which of them."""
    wires, served = await wires_to_each(port, pids, LANES), Counter[int]()
    orders = (tuple(pids), tuple(reversed(pids)))
    waiting = iter(enumerate(requests))

    async def send_some(lane: int) -> None:
        for number, request in waiting:
            # Each of them gets every other request first.
            order = orders[number % 2]
            for pid in order:
                wires[pid][lane].send(request)
            statuses = {(await wires[pid][lane].answer())[0]: pid for pid in order}
            assert statuses.keys() == {200, 409}
            served[statuses[200]] += 1

    try:
        await asyncio.gather(*(send_some(lane) for lane in range(LANES)))
    finally:
        for wire in itertools.chain.from_iterable(wires.values()):
            await wire.close()
    return served


def resident_mib(pid: int) -> float:
    (kib,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(kib) / 1024


def test_a_worker_that_comes_later_knows_what_others_have_seen_also_if_they_were_killed(tmp_path: Path) -> None:
    with trial(tmp_path, LONG, workers=2) as server:
        pids = server.workers(2)
        server.wait_for_one_ring(pids)
        seen = [seal(server) for _ in range(20)]
        assert [send(server, sealed) for sealed in seen] == [200] * 20
        for pid in pids:
            since = server.now()
            os.kill(pid, signal.SIGKILL)
            (newcomer,) = server.workers(1, since=since)
            server.wait_for_one_ring([newcomer])
        assert not set(pids) & serving_pids(server, 20)
        assert [send(server, sealed) for sealed in seen] == [409] * 20
        assert send(server, seal(server)) == 200


def test_no_call_is_taken_for_a_replay_while_keys_rotate_and_clients_try_again(tmp_path: Path) -> None:
    with trial(tmp_path, Keys(), workers=2) as server:
        server.wait_for_one_ring(server.workers(2))
        with calls_meanwhile(server.url, (cached_key, async_cached_key)) as calls:
            server.wait_for_keys(5)
        assert calls.tally.statuses.keys() == {200}
        assert not calls.tally.failed


def wait_for_another_key(server: Trial, pids: Sequence[int], published: Sequence[str]) -> None:
    """Wait until all workers publish the same key, which is none of these."""

    def have_another() -> bool:
        return server.is_one_ring(pids) and server.state(pids[0]).more["current"] not in published

    since = server.now()
    server.wait_for(have_another, "another key")
    print(f"another key is published everywhere after {server.now() - since:.1f} s")


@pytest.mark.parametrize("what", ["files", "folder"])
def test_when_the_tables_go_their_keys_are_retired_and_no_call_is_lost(tmp_path: Path, what: str) -> None:
    with trial(tmp_path, LONG, workers=2) as server:
        pids = server.workers(2)
        server.wait_for_one_ring(pids)
        folder = Path(server.state(pids[0]).more["store"])
        with calls_meanwhile(server.url, (cached_key, async_cached_key)) as calls:
            sealed, unsent = seal(server), seal(server)
            assert send(server, sealed) == 200
            published = server.published()
            if what == "files":
                for path in folder.glob("seen-*"):
                    path.unlink()
            else:
                folder.rename(gone := folder.with_name(f"{folder.name}-gone"))
                assert list(gone.glob("seen-*"))
                shutil.rmtree(gone)
            until = server.now() + 30
            while server.published() == published:
                # Until there is another key, all workers know it. Then they take nothing that is sealed to this one.
                assert send(server, sealed) in (409, 422)
                assert server.now() < until
            wait_for_another_key(server, pids, published)
            assert send(server, sealed) in (409, 422)
            server.wait_for(lambda: {send(server, sealed) for _ in range(20)} == {422}, "the end of the old key")
            assert {send(server, unsent) for _ in range(20)} == {422}
            before = calls.tally.calls
            server.wait_for(lambda: calls.tally.calls > before + 20, "calls with the next key")
        assert (calls.tally.failed, calls.tally.cut) == ([], 0)
        assert server.logged("removed or changed", level="WARNING")
        assert send(server, seal(server)) == 200


def test_a_table_that_is_cut_short_kills_no_worker_and_serves_nothing_twice(tmp_path: Path) -> None:
    with trial(tmp_path, LONG, workers=2) as server:
        pids = server.workers(2)
        server.wait_for_one_ring(pids)
        folder = Path(server.state(pids[0]).more["store"])
        published, sealed = server.published(), seal(server)
        assert send(server, sealed) == 200
        for path in folder.glob("seen-*"):
            os.truncate(path, 0)
        assert {send(server, sealed) for _ in range(20)} <= {422, 503}
        wait_for_another_key(server, pids, published)
        assert {send(server, sealed) for _ in range(20)} == {422}
        assert serving_pids(server, 20) <= set(pids), "a worker ended"


def test_a_key_whose_room_is_half_full_is_replaced_early_in_all_workers(tmp_path: Path) -> None:
    with trial(tmp_path, LONG, workers=2) as server:
        pids = server.workers(2)
        server.wait_for_one_ring(pids)
        folder = Path(server.state(pids[0]).more["store"])
        published, sealed = server.published(), seal(server)
        assert send(server, sealed) == 200
        (path,) = folder.glob("seen-*")
        fill(path, 2**17)
        assert send(server, seal(server)) == 200
        wait_for_another_key(server, pids, published)
        assert server.logged("comes early", level="INFO")
        assert send(server, sealed) == 409
        assert send(server, seal(server)) == 200


def test_beyond_its_room_a_key_takes_nothing_until_the_next_one_is_published(tmp_path: Path) -> None:
    with trial(tmp_path, LONG, workers=2) as server:
        pids = server.workers(2)
        server.wait_for_one_ring(pids)
        folder = Path(server.state(pids[0]).more["store"])
        seen, published = seal(server), server.published()
        assert send(server, seen) == 200
        (path,) = folder.glob("seen-*")
        fill(path, 2**18)
        unsent = seal(server)
        assert send(server, unsent) == 503
        assert send(server, seen) == 409
        server.wait_for(lambda: send(server, unsent) == 422, "the next key")
        wait_for_another_key(server, pids, published)
        with calls_meanwhile(server.url, (cached_key, async_cached_key)) as calls:
            server.wait_for(lambda: calls.tally.calls > 20, "calls with the next key")
        assert not calls.tally.failed


@contextlib.contextmanager
def losing_answers(target: int) -> Iterator[int]:
    """Run a server that passes one request on, and ends the connection instead of passing the answer back."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client, socket.create_connection(("127.0.0.1", target)) as server:
                request = b""
                while not (found := re.search(rb"(?is)content-length: (\d+).*?\r\n\r\n", request)) or (
                    len(request) < found.end() + int(found[1])
                ):
                    request += client.recv(65536)
                server.sendall(request)
                assert server.recv(65536).startswith(b"HTTP/1.1 200")

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


@pytest.mark.skipif(not has_nginx(), reason="nginx is missing")
@pytest.mark.parametrize(("tries_again", "status"), [("error timeout", 502), ("error timeout non_idempotent", 409)])
def test_a_proxy_that_sends_a_request_again_is_told_so(tmp_path: Path, tries_again: str, status: int) -> None:
    with trial(tmp_path, LONG, workers=1) as server, losing_answers(server.port) as loser:
        server.workers(1)
        port = free_port()
        configuration = (
            f"upstream servers {{ server 127.0.0.1:{loser} max_fails=0; server 127.0.0.1:{server.port} backup; }}\n"
            f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://servers; proxy_http_version 1.1; "
            f'proxy_set_header Connection ""; proxy_next_upstream {tries_again}; }} }}'
        )
        key, body = seal(server)
        (folder := tmp_path / "nginx").mkdir()
        with nginx(folder, configuration, port):
            proxied = Trial(server.process, server.folder, port)
            assert send(proxied, (key, body)) == status
        assert send(server, (key, body)) == 409, "the first server has served it"


def opened_table(path: Path) -> ReplayTable:
    descriptor = os.open(path, os.O_RDWR)
    try:
        return ReplayTable.open_shared(descriptor)
    finally:
        os.close(descriptor)


def fill(path: Path, count: int) -> None:
    """Do as somebody does who sends very many requests: add so many to the table of the current key."""
    table = opened_table(path)
    try:
        for number in range(count):
            table.add(number.to_bytes(9, "big"))
    except ReplayTableFullError:
        assert count == 2**18
