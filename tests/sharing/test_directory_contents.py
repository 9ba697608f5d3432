"""What is in the directory of a group: files of its members, of the operator, and of an attacker."""

import os
import socket
import stat
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from server_keys._sharing.directory_store import DirectoryStore
from server_keys._sharing.places import Place
from server_keys._sharing.store import MOST_ASKS, CrowdedStoreError, StoreError
from tests.helpers.held_time import HeldTime
from tests.helpers.scripts import run_script
from tests.sharing.store_battery import LONG_S, NEXT, REGISTER, new_name


def symlink(path: Path) -> None:
    target = path.parent.parent / "target"
    target.write_bytes(bytes(8) + b"\xff" * 8 + b"never read")
    path.symlink_to(target)


def dangling_symlink(path: Path) -> None:
    path.symlink_to(path.parent.parent / "nothing")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder_in_its_place(path: Path) -> None:
    path.mkdir()


def folder_with_a_file(path: Path) -> None:
    path.mkdir()
    (path / "file").touch()


def socket_in_its_place(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # an address has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(before)


def huge_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def short_file(path: Path) -> None:
    path.write_bytes(b"short")


def empty_file(path: Path) -> None:
    path.touch()


JUNK = pytest.mark.parametrize(
    "put_junk",
    [
        symlink,
        dangling_symlink,
        fifo,
        folder_in_its_place,
        folder_with_a_file,
        socket_in_its_place,
        huge_file,
        short_file,
        empty_file,
    ],
)


@JUNK
def test_an_ask_that_is_none_is_passed_over(
    store: DirectoryStore, folder: Path, put_junk: Callable[[Path], None]
) -> None:
    name = new_name()
    store.ask(name, b"ask", waits=True, keep_s=LONG_S)
    put_junk(folder / f"ask-{new_name().hex()}")
    assert store.asks() == {name: b"ask"}
    assert store.commit(b"", REGISTER, {}, LONG_S)
    assert store.asks() == {name: b"ask"}


@JUNK
def test_a_box_that_is_none_is_not_taken(store: DirectoryStore, folder: Path, put_junk: Callable[[Path], None]) -> None:
    name = new_name()
    assert store.commit(b"", REGISTER, {name: b"box"}, LONG_S)
    (box,) = folder.glob(f"box-*-{name.hex()}")
    box.unlink()
    put_junk(box)
    assert store.take(name) is None
    assert store.commit(REGISTER, NEXT, {name: b"next box"}, LONG_S)
    taken = store.take(name)
    assert taken is not None
    assert taken.box == b"next box"


@JUNK
def test_a_register_that_is_none_counts_as_absent_and_is_replaced(
    store: DirectoryStore, folder: Path, put_junk: Callable[[Path], None]
) -> None:
    name = new_name()
    assert store.commit(b"", REGISTER, {}, LONG_S)
    put_junk(folder / "register-00000000000000ff")
    assert store.look(name).register == b""
    assert store.restore(b"", REGISTER, LONG_S)
    assert store.commit(REGISTER, NEXT, {name: b"box"}, LONG_S)
    assert store.look(name).register == NEXT
    assert store.take(name) is not None


@pytest.mark.parametrize("number", ["7ffffffffffffffe", "7fffffffffffffff", "ffffffffffffffff", "no hex digits!!!"])
def test_a_register_of_any_number_is_got_over(store: DirectoryStore, folder: Path, number: str) -> None:
    assert store.commit(b"", REGISTER, {}, LONG_S)
    (folder / f"register-{number}").write_bytes(b"nonsense")
    for _ in range(3):
        try:
            if store.restore(store.look(new_name()).register, NEXT, LONG_S):
                break
        except StoreError:
            pass
    assert store.look(new_name()).register == NEXT


def test_junk_by_the_thousands_takes_little_memory_and_goes(
    store: DirectoryStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = new_name()
    assert store.commit(b"", REGISTER, {name: b"box"}, LONG_S)
    for _ in range(10_000):
        (folder / f"ask-{new_name().hex()}").touch()
        (folder / f"wait-{os.urandom(8).hex()}-{new_name().hex()}").touch()
    really_open = os.open
    opened: list[str] = []

    def open_and_tell(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        opened.append(path)
        return really_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_and_tell)
    tracemalloc.start()
    try:
        assert store.look(name).asks > MOST_ASKS
        assert store.look(name).register == REGISTER
        with pytest.raises(CrowdedStoreError):
            store.asks()
        with pytest.raises(CrowdedStoreError):
            store.ask(name, b"ask", waits=True, keep_s=LONG_S)
        assert not [path for path in opened if path.startswith("ask-")]
        store.forget_asks()
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert store.look(name)[:4] == (REGISTER, 0, 0, False)
    assert not list(folder.glob("wait-*"))
    assert store.take(name) is not None


def test_a_commit_removes_what_killed_members_left(
    store: DirectoryStore, folder: Path, held: HeldTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = new_name()
    store.ask(name, b"ask", waits=False, keep_s=LONG_S)
    with monkeypatch.context() as killed:
        # A killed member does not clean up.
        killed.setattr(os, "unlink", lambda *_, **__: None)
        killed.setattr(os, "rmdir", lambda *_, **__: None)
        killed.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(StoreError):
            store.commit(b"", REGISTER, {name: b"box", new_name(): b"box"}, LONG_S)
    assert len(list(folder.glob("box-*"))) == 2
    assert len(list(folder.glob("new-*"))) == 1
    assert store.take(name) is None
    assert store.commit(b"", REGISTER, {}, LONG_S)
    assert not list(folder.glob("box-*"))
    assert len(list(folder.glob("new-*"))) == 1, "its writer may live"
    held.pass_s(100)
    assert store.commit(b"", NEXT, {}, LONG_S)
    assert not list(folder.glob("new-*"))


def test_files_of_the_operator_stay(store: DirectoryStore, folder: Path) -> None:
    names = ["notes", "ask-list", "register-of-births", "box-", "new-plan", "wait-for-it", "-", "ask-" + "f" * 63]
    for name in names:
        (folder / name).write_text("mine")
    member = new_name()
    store.ask(member, b"ask", waits=True, keep_s=LONG_S)
    assert store.look(member).asks == 1
    assert store.commit(b"", REGISTER, {member: b"box"}, LONG_S)
    store.forget_asks()
    assert store.commit(REGISTER, NEXT, {}, LONG_S)
    store.leave(member)
    for name in names:
        assert (folder / name).read_text() == "mine"


def test_entries_from_before_the_machine_started_do_not_count(
    store: DirectoryStore, folder: Path, held: HeldTime
) -> None:
    name, other = new_name(), new_name()
    store.ask(name, b"ask", waits=True, keep_s=LONG_S)
    assert store.commit(b"", REGISTER, {name: b"box", other: b"box"}, LONG_S)
    store.ask(name, b"ask", waits=True, keep_s=LONG_S)
    held.boot_s = 10.0
    assert store.look(name).register == b""
    assert store.look(name).time_ms == 10_000
    assert store.take(other) is None
    assert store.asks() == store.waiting() == {}
    assert store.commit(b"", NEXT, {}, LONG_S)
    assert store.look(name)[:4] == (NEXT, 0, 0, False)
    assert len(list(folder.iterdir())) <= 2, "the register, and the one before it"


def test_time_goes_on_while_the_machine_sleeps(store: DirectoryStore, held: HeldTime) -> None:
    assert store.commit(b"", REGISTER, {}, keep_s=5.0)
    before = store.look(new_name()).time_ms
    held.sleep_s(4.0)
    look = store.look(new_name())
    assert (look.register, look.time_ms - before) == (REGISTER, 4000)
    held.sleep_s(1.0)
    assert store.look(new_name()).register == b""


def test_many_rotations_leave_nothing_behind(store: DirectoryStore, folder: Path) -> None:
    names = [new_name() for _ in range(3)]
    before = b""
    for turn in range(50):
        for name in names:
            store.ask(name, b"ask", waits=True, keep_s=LONG_S)
        assert store.commit(before, before := b"register %d" % turn, dict.fromkeys(names, b"box"), LONG_S)
        assert store.serve(new_name(), b"box", LONG_S)
    assert len(list(folder.iterdir())) <= 2 + len(names) * 2 + 1


def test_only_its_user_may_read_the_files(place: Place, handles: ExitStack, folder: Path) -> None:
    before = os.umask(0)
    try:
        folder.rmdir()
        store = handles.enter_context(closing(DirectoryStore(place)))
        name = new_name()
        store.ask(name, b"ask", waits=True, keep_s=LONG_S)
        assert store.restore(b"", REGISTER, LONG_S)
        assert store.serve(name, b"box", LONG_S)
        store.ask(name, b"ask", waits=True, keep_s=LONG_S)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = list(folder.iterdir())
    assert {path.name.partition("-")[0] for path in files} == {"ask", "wait", "box", "register"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_one_descriptor_is_held_and_none_is_left(place: Place, folder: Path) -> None:
    def open_in_folder() -> list[str]:
        links = []
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            except FileNotFoundError:
                continue  # the listing's own
        return [link for link in links if link.startswith(str(folder))]

    store = DirectoryStore(place)
    name = new_name()
    for turn in range(3):
        store.ask(name, b"ask", waits=True, keep_s=LONG_S)
        assert store.commit(store.look(name).register, b"%d" % turn, {name: b"box"}, LONG_S)
        assert store.take(name) is not None
        folder.rename(folder.parent / f"gone {turn}")
    store.look(name)
    assert open_in_folder() == [str(folder)]
    store.close()
    assert open_in_folder() == []


def test_a_commit_that_cannot_be_written_changes_nothing(folder: Path) -> None:
    """A limit on the size of files cuts a write short, as a full disk does."""
    run_script(
        """
        import os, resource, sys
        from server_keys._sharing.directory_store import DirectoryStore
        from server_keys._sharing.places import named_directory
        from server_keys._sharing.store import StoreError

        store = DirectoryStore(named_directory(sys.argv[1]))
        names = [bytes([number]) * 32 for number in range(4)]
        assert store.commit(b"", b"register", {name: b"box" for name in names}, 60)
        before = sorted(os.listdir(sys.argv[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        boxes = {name: b"b" * (50 + 20 * name[0]) for name in names}
        for attempt in (
            lambda: store.commit(b"register", b"next", boxes, 60),
            lambda: store.commit(b"register", b"n" * 100, {}, 60),
            lambda: store.restore(b"register", b"n" * 100, 60),
            lambda: store.ask(names[0], b"a" * 100, waits=True, keep_s=60),
            lambda: store.serve(b"5" * 32, b"b" * 100, 60),
        ):
            try:
                attempt()
            except StoreError as error:
                assert sys.argv[1] in str(error), error
            else:
                raise AssertionError("it was written")
            assert sorted(os.listdir(sys.argv[1])) == before
        assert store.look(names[0]).register == b"register"
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert all(store.take(name).box == b"box" for name in names)
        assert store.commit(b"register", b"next", boxes, 60)
        """,
        str(folder),
    )
