"""The table of seen requests: each id is new once, and neither a file nor a kill can make it forget one."""

import copy
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from server_keys._native import ReplayTable, ReplayTableError, ReplayTableFullError
from tests.helpers.scripts import run_script

IDS = 1_000_000
OPENED = os.O_RDWR | os.O_CLOEXEC


def new_file(path: Path) -> int:
    return os.open(path, OPENED | os.O_CREAT | os.O_EXCL, 0o600)


def shared_table(path: Path, capacity: int = 1000) -> ReplayTable:
    descriptor = new_file(path)
    try:
        return ReplayTable.make_shared(descriptor, capacity)
    finally:
        os.close(descriptor)


def open_table(path: Path) -> ReplayTable:
    descriptor = os.open(path, OPENED)
    try:
        return ReplayTable.open_shared(descriptor)
    finally:
        os.close(descriptor)


def id_of(number: int) -> bytes:
    return number.to_bytes(8, "little")


def test_an_id_is_new_once() -> None:
    table = ReplayTable()
    assert table.capacity == 2**18
    for request_id in (bytes(8), bytes(32), os.urandom(8), os.urandom(32)):
        assert table.add(request_id)
        assert not table.add(request_id)
    assert table.used == 4
    assert repr(table) == "<ReplayTable 4 of 262144>"


def test_a_full_table_says_so_and_still_knows_what_it_has_seen() -> None:
    table = ReplayTable(3)
    assert [table.add(id_of(number)) for number in range(3)] == [True] * 3
    with pytest.raises(ReplayTableFullError, match="replace the key pair"):
        table.add(id_of(3))
    assert [table.add(id_of(number)) for number in range(3)] == [False] * 3


@pytest.mark.parametrize("capacity", [0, 2**28 + 1])
def test_a_capacity_out_of_range_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match=rf"1 to 268435456 ids, not {capacity}"):
        ReplayTable(capacity)


@pytest.mark.parametrize("length", [0, 7, 33])
def test_an_id_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=rf"8 to 32 bytes, not {length}"):
        ReplayTable(1).add(bytes(length))


def test_a_table_is_neither_copied_nor_pickled() -> None:
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="two that know half each"):
            duplicate(ReplayTable(1))


def test_of_8_threads_that_add_an_id_exactly_one_is_the_first() -> None:
    table, start = ReplayTable(100_000), threading.Barrier(8)
    firsts: list[list[int]] = [[] for _ in range(8)]

    def add_all(thread: int) -> None:
        start.wait()
        numbers = range(100_000) if thread % 2 else reversed(range(100_000))
        firsts[thread] += [number for number in numbers if table.add(id_of(number))]

    threads = [threading.Thread(target=add_all, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for some in firsts for number in some) == list(range(100_000))


def test_of_4_processes_that_add_an_id_exactly_one_is_the_first(tmp_path: Path) -> None:
    table = shared_table(tmp_path / "table", IDS)
    run_script(
        """
        import os, signal, sys
        from server_keys._native import ReplayTable

        path, ids = sys.argv[1], int(sys.argv[2])

        def add_all(process):
            table = ReplayTable.open_shared(os.open(path, os.O_RDWR))
            signal.sigwait({signal.SIGUSR1})
            firsts = bytearray(ids)
            for number in range(ids) if process % 2 else reversed(range(ids)):
                firsts[number] = table.add(number.to_bytes(8, "little"))
            with open(f"{path}-{process}", "wb") as file:
                file.write(firsts)

        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        children = []
        for process in range(4):
            children.append(os.fork())
            if not children[-1]:
                add_all(process)
                os._exit(0)
        for child in children:
            os.kill(child, signal.SIGUSR1)
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        """,
        str(tmp_path / "table"),
        str(IDS),
        timeout_s=120,
    )
    firsts = [int.from_bytes((tmp_path / f"table-{process}").read_bytes(), "little") for process in range(4)]
    assert sum(firsts) == int.from_bytes(b"\1" * IDS, "little")
    assert sum(first > 0 for first in firsts) > 1, "the processes did not run at the same time"
    assert table.used == IDS


def test_processes_that_are_killed_leave_nothing_torn(tmp_path: Path) -> None:
    # Each child tells in a map of its own how far it is. What it has said to be in the table must be there, and of all
    # else at most the one id that it was adding. The table's file has nothing but whole entries of those.
    printed = run_script(
        """
        import mmap, os, random, signal, struct, sys, time
        from server_keys._native import ReplayTable

        descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        table = ReplayTable.make_shared(descriptor, 4_000_000)
        told = mmap.mmap(-1, 8)
        uncounted = next_id = 0
        for _ in range(200):
            told[:] = struct.pack("<Q", next_id)
            child = os.fork()
            if not child:
                for number in range(next_id, 4_000_000):
                    table.add(number.to_bytes(8, "little"))
                    told[:] = struct.pack("<Q", number + 1)
                os._exit(0)
            time.sleep(random.uniform(0.001, 0.01))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            next_id = struct.unpack("<Q", told[:])[0] + 1
        added = 0
        for number in range(next_id):
            added += not table.add(number.to_bytes(8, "little"))
        print(next_id, added, table.used)
        """,
        str(tmp_path / "table"),
        timeout_s=120,
    )
    offered, added, used = map(int, printed.split())
    assert offered > 10_000, "the children were killed before they had begun"
    # A child may have been killed before it added the id after the last that it told of, or before it counted one.
    assert offered - 200 <= added <= offered
    assert offered - 200 <= used <= offered
    # What an empty table of the same secret holds when the same ids are added by somebody whom nobody kills.
    content = (tmp_path / "table").read_bytes()
    (tmp_path / "other").write_bytes(content[:64] + bytes(len(content) - 64))
    other = open_table(tmp_path / "other")
    assert all(other.add(id_of(number)) for number in range(offered))
    assert slots(tmp_path / "table") == slots(tmp_path / "other")


def slots(path: Path) -> set[int]:
    """Return what a table holds."""
    return {slot for slot in memoryview(path.read_bytes()[128:]).cast("Q") if slot}


@pytest.mark.parametrize(
    "change",
    [
        "os.truncate(path, 0)",
        "os.truncate(path, 4096)",
        "os.truncate(path, os.stat(path).st_size - 1)",
        "os.truncate(path, os.stat(path).st_size + 1)",
        "size = os.stat(path).st_size; os.truncate(path, 0); os.truncate(path, size)",
        "os.pwrite(os.open(path, os.O_WRONLY), bytes(128), 0)",
    ],
)
def test_a_table_whose_file_is_changed_is_lost(change: str, tmp_path: Path) -> None:
    # In a process of its own, which a signal (SIGBUS) would end.
    run_script(
        f"""
        import os, sys
        from server_keys._native import ReplayTable, ReplayTableLostError

        path = sys.argv[1]
        table = ReplayTable.make_shared(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        other = ReplayTable.open_shared(os.open(path, os.O_RDWR))
        assert table.add(bytes(8)) and not other.add(bytes(8))
        table.require()
        {change}
        for lost in (table, other):
            for use in (lost.require, lambda: lost.add(bytes(8)), lambda: lost.add(bytes(9))):
                try:
                    use()
                except ReplayTableLostError:
                    continue
                raise AssertionError("it goes on with a table that has forgotten")
        """,
        str(tmp_path / "table"),
    )


def test_what_is_no_table_is_not_opened(tmp_path: Path) -> None:
    shared_table(tmp_path / "table")
    table = (tmp_path / "table").read_bytes()
    others = {
        "empty": b"",
        "shorter": table[:-1],
        "longer": table + b"\0",
        "header alone": table[:128],
        "of another kind": b"x" + table[1:],
        "of another version": table[:8] + b"\2" + table[9:],
        "of another capacity": table[:16] + b"\1" + table[17:],
        "with a count that cannot be": table[:64] + b"\xff" * 8 + table[72:],
        "zeros": bytes(len(table)),
    }
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ReplayTableError, match="no replay table, or one of another version"):
            open_table(tmp_path / name)
    with pytest.raises(ReplayTableError, match="no replay table"):
        ReplayTable.open_shared(os.open("/dev/null", OPENED))
    assert open_table(tmp_path / "table").add(bytes(8))


def test_a_table_is_made_in_an_empty_file_only(tmp_path: Path) -> None:
    shared_table(tmp_path / "table")
    with pytest.raises(ReplayTableError, match=r"empty file, not in one of 16128 bytes"):
        ReplayTable.make_shared(os.open(tmp_path / "table", OPENED))
    read_only = os.open(new_path := tmp_path / "read only", os.O_RDONLY | os.O_CREAT)
    with pytest.raises(ReplayTableError, match="refused the replay table its memory"):
        ReplayTable.make_shared(read_only)
    assert new_path.stat().st_size == 0
    for descriptor in (-1, 1_000_000):
        with pytest.raises((ValueError, OSError)):
            ReplayTable.make_shared(descriptor)


def test_a_full_file_system_is_an_error_and_no_signal(tmp_path: Path) -> None:
    namespace = ["unshare", "--mount", "--", "sh", "-c"]
    mount = f'mount -t tmpfs -o size=1m none "{tmp_path}"'
    if subprocess.run([*namespace, mount], check=False, capture_output=True).returncode != 0:
        pytest.skip("this user, or this container, may not mount a small file system")
    script = """
import os
from server_keys._native import ReplayTable, ReplayTableError
descriptor = os.open("table", os.O_RDWR | os.O_CREAT)
try:
    ReplayTable.make_shared(descriptor)
except ReplayTableError as error:
    print(error)
os.ftruncate(descriptor, 0)
print(ReplayTable.make_shared(descriptor, 60_000).add(bytes(8)))
"""
    python = f'cd \'{tmp_path}\' && exec "$0" -c "$1"'
    command = [*namespace, f"{mount} && {python}", sys.executable, script]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    refused, smaller = done.stdout.splitlines()
    assert "refused the replay table its memory: No space left on device" in refused
    assert smaller == "True"


@pytest.mark.parametrize("replaced", [False, True])
def test_those_who_have_a_table_open_share_it_also_without_its_name(tmp_path: Path, replaced: bool) -> None:
    made, opened = shared_table(tmp_path / "table"), open_table(tmp_path / "table")
    if replaced:
        (tmp_path / "other").touch()
        os.rename(tmp_path / "other", tmp_path / "table")
    else:
        os.unlink(tmp_path / "table")
    for table, other in ((made, opened), (opened, made)):
        request_id = os.urandom(8)
        assert table.add(request_id)
        assert not other.add(request_id)
        table.require()


def test_a_shared_table_has_room_for_as_many_as_it_says_in_every_process(tmp_path: Path) -> None:
    made, opened = shared_table(tmp_path / "table", 10), open_table(tmp_path / "table")
    assert opened.capacity == 10
    for number in range(10):
        assert (made if number % 2 else opened).add(id_of(number))
    for table in (made, opened):
        assert table.used == 10
        with pytest.raises(ReplayTableFullError):
            table.add(id_of(10))
