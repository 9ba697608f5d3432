"""The directory of a running group goes, or belongs to somebody else: before the start, and under running members."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx2
import pytest

from server_keys.client.httpx2 import SealedTransport
from tests.helpers.lost_folders import let_go, take_place
from tests.helpers.many_calls import async_cached_key, cached_key, calls_meanwhile
from tests.helpers.trials import Keys, Trial, started, trial

CLIENTS = (cached_key, async_cached_key)


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """The folder for temporary files of the servers: a place that no other test uses."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """The folder that systemd would make for the servers, which is the first place."""
    folder = tmp_path / "service"
    folder.mkdir()
    return folder


def environment(service: Path, temporary: Path) -> dict[str, str]:
    return {"RUNTIME_DIRECTORY": str(service), "TMPDIR": str(temporary)}


def put_folder_of_another(path: Path) -> None:
    """Put a directory there that other users may use, and that is another user's if this one can make such."""
    path.mkdir()
    path.chmod(0o777)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)


def put_symlink(path: Path) -> None:
    target = path.with_name("target")
    target.mkdir(mode=0o700, exist_ok=True)
    path.symlink_to(target)


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def folder_of(server: Trial, pid: int) -> Path:
    return Path(server.state(pid).more["store"])


@pytest.mark.parametrize("take", [None, put_folder_of_another, put_symlink])
def test_no_call_is_lost_when_the_directory_goes(
    tmp_path: Path, service: Path, temporary: Path, take: Callable[[Path], None] | None
) -> None:
    with trial(tmp_path, Keys(), environment=environment(service, temporary)) as server:
        pids = server.workers(2)
        server.wait_for_one_ring(pids)
        folder = folder_of(server, pids[0])
        assert folder.parent == service
        with calls_meanwhile(server.url, CLIENTS) as calls:
            for _ in range(1 if take else 2):
                published = len(server.published())
                let_go(folder)
                if take is not None:
                    take_place(take, folder)
                server.wait_for_keys(published + 2)
        print(f"the directory went, {take}: {calls.tally}")
        # With the directory go the tables of seen requests, so its keys are retired. Clients fetch the next one.
        assert (calls.tally.failed, calls.tally.cut) == ([], 0)
        assert calls.tally.statuses.keys() <= {200, 422}
        assert all(event.is_shared for event in server.of("keys"))
        if take is not None:
            # They met at the next place, and come back when they can.
            assert {folder_of(server, pid).parent for pid in pids} == {Path("/dev/shm")}
            remove(folder)
            server.wait_for(lambda: {folder_of(server, pid).parent for pid in pids} == {service}, "the first place")
            server.wait_for_one_ring(pids)


def test_without_any_place_each_has_own_keys_for_as_long(tmp_path: Path) -> None:
    folder = tmp_path / "ring"
    with trial(tmp_path, Keys(share=f"file://{folder}")) as server:
        pids = server.workers(2)
        server.wait_for_one_ring(pids)
        with calls_meanwhile(server.url, CLIENTS) as calls:
            take_place(put_symlink, folder)
            server.wait_for(lambda: not any(server.state(pid).is_shared for pid in pids), "own keys")
            before = calls.tally
            own = [server.state(pid) for pid in pids]
            assert len({state.more["current"] for state in own}) == 2
            assert all("it is a symlink" in state.more["why_not"] for state in own)
            server.wait_for(lambda: calls.tally.calls > before.calls + 20, "calls meanwhile")
            apart = calls.tally
            folder.unlink()
            began = time.monotonic()
            server.wait_for_one_ring(pids)
            print(f"one ring again after {time.monotonic() - began:.2f} s")
            # Clients hold own keys still, for which another process answers 422; then they fetch the group's.
            server.wait_for_keys(len(server.published()) + 4)
            after = calls.tally
            server.wait_for(lambda: calls.tally.calls > after.calls + 20, "calls afterwards")
        made, refused = apart.calls - before.calls, apart.refusals - before.refusals
        print(f"apart: {made} calls, {refused} refusals of a key, {len(apart.failed) - len(before.failed)} failed")
        assert refused > 0
        assert calls.tally.refusals == after.refusals
        assert len(calls.tally.failed) == len(after.failed)
        assert os.listdir(tmp_path / "target") == [], "nothing was ever put where the symlink led"
        warnings = server.logged("cannot share keys", level="WARNING")
        assert sorted(event.pid for event in warnings) == sorted(pids), "one a process"
        again = server.logged("shares its keys with a group", level="INFO", since=warnings[-1].at)
        assert {event.pid for event in again} == set(pids)


@contextlib.contextmanager
def squatted(tmp_path: Path, service: Path, temporary: Path, folders: list[str]) -> Iterator[Trial]:
    keys = Keys(squatted=folders)
    with trial(tmp_path, keys, environment=environment(service, temporary)) as server:
        yield server
        paths = {event.more["path"] for event in server.of("squatted")}
    for path in paths:
        assert Path(path).is_dir(), "what is another user's stays"
        os.rmdir(path)


def test_who_was_quicker_in_one_place_only_moves_the_group_on(tmp_path: Path, service: Path, temporary: Path) -> None:
    with squatted(tmp_path, service, temporary, [str(service), "/dev/shm"]) as server:
        pids = server.workers(2)
        server.wait_for_one_ring(pids)
        assert {folder_of(server, pid).parent for pid in pids} == {temporary}
        assert not server.logged("", level="WARNING")


def test_nobody_keeps_a_server_from_starting(tmp_path: Path, service: Path, temporary: Path) -> None:
    with squatted(tmp_path, service, temporary, [str(service), "/dev/shm", str(temporary)]) as server:
        pids = server.workers(2)
        states = [server.state(pid) for pid in pids]
        assert not any(state.is_shared for state in states)
        warnings = server.logged("keys of its own", level="WARNING")
        assert sorted(event.pid for event in warnings) == sorted(pids), "one a process"
        assert all(str(service) in event.more["message"] for event in warnings)
        assert len(server.logged("", level="WARNING")) == 2


def make_symlink(path: Path) -> str:
    put_symlink(path)
    return "it is a symlink"


def make_open_to_the_group(path: Path) -> str:
    path.mkdir()
    path.chmod(0o770)
    return "other users may use it (its mode is 0770, and has to be 0700)"


def make_of_another_user(path: Path) -> str:
    path.mkdir(mode=0o700)
    os.chown(path, 65534, -1)
    return "it belongs to user 65534, and this process is user 0"


def make_file(path: Path) -> str:
    path.touch()
    return "Not a directory"


def remove_its_parent(path: Path) -> str:
    path.parent.rmdir()
    return "No such file or directory"


def test_a_named_place_that_is_not_ours_alone_ends_the_start(tmp_path: Path) -> None:
    faults = [make_symlink, make_open_to_the_group, make_file, remove_its_parent]
    if os.geteuid() == 0:  # nobody else can give a directory away
        faults.append(make_of_another_user)
    whys, shares = [], []
    for make in faults:
        path = tmp_path / make.__name__ / "parent" / "ring"
        path.parent.mkdir(parents=True)
        whys.append(f"the app has no keys: '{path}' cannot be shared: {make(path)}")
        shares.append(Keys(share=f"file://{path}"))
    for why, log in zip(whys, logs_of_failed_starts(tmp_path, shares), strict=True):
        assert why in log
        assert "Traceback" not in log
        assert len(log.splitlines()) == 2, "why, and uvicorn's own last word"


def test_a_share_that_makes_no_sense_ends_the_start(tmp_path: Path) -> None:
    plans = {
        "must be of the form file:///a/folder": Keys(share="file://relative"),
        "needs a refresh time and an overlap of at least 0.5 s": Keys(share="file:///tmp/ring", overlap_s=0.4),
    }
    for why, log in zip(plans, logs_of_failed_starts(tmp_path, list(plans.values())), strict=True):
        assert why in log.splitlines()[-1]


def logs_of_failed_starts(tmp_path: Path, plans: Sequence[Keys]) -> list[str]:
    """Start servers at the same time, wait until all of them have failed, and return what they printed."""
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(started(tmp_path / f"server-{number}", keys, workers=1))
            for number, keys in enumerate(plans)
        ]
        assert all(server.process.wait(60) != 0 for server in servers)
        return [server.log for server in servers]


def test_servers_that_name_one_place_have_one_ring_also_while_a_rollout_changes_the_refresh_time(
    tmp_path: Path,
) -> None:
    share = f"file://{tmp_path / 'ring'}"
    old, new = Keys(period_s=3.0, overlap_s=1.0, share=share), Keys(period_s=1.0, share=share)
    with (
        trial(tmp_path / "old", old, workers=1) as first,
        trial(tmp_path / "new", new, workers=2) as second,
    ):
        pids = [*first.workers(1), *second.workers(2)]
        second.wait_for_one_ring(pids[1:])
        assert first.logged("a process joined the key group", level="INFO")
        began = second.state(pids[1]).at
        refused = failed = calls = 0
        # Each fetches its key from one server, and calls the other one.
        with sealed_client(first, second) as to_first, sealed_client(second, first) as to_second:
            while len(second.published(since=began)) < 6:
                for client in (to_first, to_second):
                    response = client.post("/echo", content="x")
                    failed += response.status_code != 200
                    calls += 1
        refused = sum(server.log.count(" 422 ") for server in (first, second))
        print(f"two servers: {calls} calls, {failed} failed, {refused} refusals of a key")
        assert failed == 0
        assert refused == 0
        assert set(first.published(since=began)) <= set(second.published())
        # The shorter one takes its turn first: a key a second, at both.
        assert len(first.published(since=began)) >= 4
        # Each caps what it accepts at its own limits.
        assert second.longest_acceptance_s() <= 0.5 + 1.0 + 1.0
        # Its neighbours are gone, and it goes on alone.
    assert {path.name.partition("-")[0] for path in (tmp_path / "ring").iterdir()} <= {"register"}


def sealed_client(of_key: Trial, to: Trial) -> httpx2.Client:
    limits = httpx2.Limits(max_keepalive_connections=0)
    transport = SealedTransport(httpx2.HTTPTransport(limits=limits), key_url=f"{of_key.url}/.well-known/hpke-keys")
    return httpx2.Client(base_url=to.url, transport=transport)
