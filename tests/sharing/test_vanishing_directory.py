"""A group's directory goes and comes under running members, and somebody else may be quicker to come."""

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from server_keys._sharing.directory_store import DirectoryStore
from server_keys._sharing.places import Place
from server_keys._sharing.store import StoreError
from tests.helpers.held_time import HeldTime
from tests.sharing.store_battery import LONG_S, NEXT, REGISTER, new_name

NAME = new_name()


def move_away(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


def remove_files_only(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


GOES = pytest.mark.parametrize("let_it_go", [shutil.rmtree, move_away, remove_files_only])


def put_something(store: DirectoryStore) -> None:
    store.ask(NAME, b"ask", waits=True, keep_s=LONG_S)
    assert store.commit(b"", REGISTER, {NAME: b"box"}, LONG_S)
    store.ask(NAME, b"ask", waits=True, keep_s=LONG_S)


@GOES
def test_a_directory_that_vanished_is_an_empty_store(
    store: DirectoryStore, folder: Path, let_it_go: Callable[[Path], None]
) -> None:
    operations: list[Callable[[], object]] = [
        lambda: store.look(NAME)[:4] == (b"", 0, 0, False),
        lambda: store.asks() == {},
        lambda: store.waiting() == {},
        lambda: store.take(NAME) is None,
        lambda: store.commit(REGISTER, NEXT, {NAME: b"box"}, LONG_S) is False,
        lambda: store.commit(b"", NEXT, {NAME: b"box"}, LONG_S),
        lambda: store.restore(REGISTER, NEXT, LONG_S) is False,
        lambda: store.restore(b"", REGISTER, LONG_S),
        lambda: store.serve(NAME, b"box", LONG_S),
        lambda: store.ask(NAME, b"ask", waits=True, keep_s=LONG_S) is None,
        lambda: store.forget_asks() is None,
        lambda: store.leave(NAME) is None,
    ]
    for operation in operations:
        if folder.exists():
            shutil.rmtree(folder)
        put_something(store)
        let_it_go(folder)
        assert operation()
        shutil.rmtree(folder.with_name("moved"), ignore_errors=True)


@GOES
def test_members_meet_again_in_the_new_directory(
    place: Place, handles: ExitStack, folder: Path, let_it_go: Callable[[Path], None]
) -> None:
    one, other = (handles.enter_context(closing(DirectoryStore(place))) for _ in range(2))
    put_something(one)
    assert other.look(NAME).register == REGISTER
    let_it_go(folder)
    assert one.restore(b"", REGISTER, LONG_S)
    other.ask(NAME, b"ask", waits=True, keep_s=LONG_S)
    assert one.look(NAME)[:4] == other.look(NAME)[:4] == (REGISTER, 1, 1, True)


@pytest.mark.parametrize("let_it_go", [shutil.rmtree, move_away])
@pytest.mark.parametrize("call", ["open", "write", "link", "replace", "scandir"])
def test_it_may_vanish_in_the_middle_of_anything(
    store: DirectoryStore,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    let_it_go: Callable[[Path], None],
    call: str,
) -> None:
    def register_and_boxes() -> tuple[bytes, bool]:
        return store.look(NAME).register, store.take(NAME) is not None

    def commit() -> None:
        assert store.commit(b"", NEXT, {NAME: b"box"}, LONG_S)
        assert register_and_boxes() == (NEXT, True)

    def restore() -> None:
        assert store.restore(b"", NEXT, LONG_S)
        assert register_and_boxes() == (NEXT, False)

    def serve() -> None:
        store.serve(NAME, b"box", LONG_S)
        store.forget_asks()

    def ask_until_it_is_there() -> None:
        for _ in range(2):
            store.ask(NAME, b"ask", waits=True, keep_s=LONG_S)
        assert store.look(NAME)[1:4] == (1, 1, True)

    def leave() -> None:
        store.leave(NAME)
        assert store.look(NAME).asks == 0

    really = getattr(os, call)

    def let_it_go_first(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(os, call, really)
        let_it_go(folder)
        return really(*arguments, **options)

    for operation in (commit, restore, serve, ask_until_it_is_there, leave):
        for path in (folder, folder.with_name("moved")):
            shutil.rmtree(path, ignore_errors=True)
        store.look(NAME)
        monkeypatch.setattr(os, call, let_it_go_first)
        operation()
        monkeypatch.setattr(os, call, really)


def file_in_its_place(path: Path) -> None:
    path.touch()


def fifo_in_its_place(path: Path) -> None:
    os.mkfifo(path)


def symlink_in_its_place(path: Path) -> None:
    target = path.with_name("target")
    target.mkdir(mode=0o700, exist_ok=True)
    path.symlink_to(target)


def group_may_read_it(path: Path) -> None:
    path.mkdir()
    path.chmod(0o750)


def others_may_enter_it(path: Path) -> None:
    path.mkdir()
    path.chmod(0o701)


SQUATS = pytest.mark.parametrize(
    "squat",
    [file_in_its_place, fifo_in_its_place, symlink_in_its_place, group_may_read_it, others_may_enter_it],
)


@SQUATS
def test_what_somebody_put_in_its_place_is_never_used(
    store: DirectoryStore, folder: Path, squat: Callable[[Path], None]
) -> None:
    put_something(store)
    shutil.rmtree(folder)
    squat(folder)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"group.*cannot be shared"):
            store.look(NAME)
        with pytest.raises(StoreError, match=r"group.*cannot be shared"):
            store.ask(NAME, b"ask", waits=True, keep_s=LONG_S)
    assert folder.is_fifo() or folder.is_file() or not list(folder.iterdir())
    shutil.rmtree(folder) if folder.is_dir() and not folder.is_symlink() else folder.unlink()
    assert store.look(NAME).register == b""


def test_a_directory_that_is_opened_to_others_is_used_no_longer(store: DirectoryStore, folder: Path) -> None:
    put_something(store)
    folder.chmod(0o770)
    with pytest.raises(StoreError, match="its mode is 0770"):
        store.look(NAME)
    folder.chmod(0o700)
    assert store.look(NAME).register == REGISTER


def test_a_directory_that_is_given_to_another_user_is_used_no_longer(store: DirectoryStore, folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    put_something(store)
    os.chown(folder, 65534, -1)
    with pytest.raises(StoreError, match="it belongs to user 65534"):
        store.look(NAME)


@pytest.fixture
def two_places(tmp_path: Path) -> Place:
    """A place with a second one behind it."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    return Place(tuple(str(tmp_path / name / "group") for name in ("first", "second")), is_removed_at_the_end=True)


@SQUATS
def test_all_members_go_on_to_the_next_place_and_come_back(
    two_places: Place, handles: ExitStack, held: HeldTime, squat: Callable[[Path], None]
) -> None:
    first, second = map(Path, two_places.candidates)
    one, other = (handles.enter_context(closing(DirectoryStore(two_places))) for _ in range(2))
    put_something(one)
    assert other.look(NAME).register == REGISTER
    shutil.rmtree(first)
    squat(first)
    assert other.look(NAME).register == b""
    put_something(other)
    assert one.look(NAME).register == REGISTER
    newcomer = handles.enter_context(closing(DirectoryStore(two_places)))
    assert newcomer.look(NAME).register == REGISTER
    assert {store.shown for store in (one, other, newcomer)} == {str(second)}

    shutil.rmtree(first) if first.is_dir() and not first.is_symlink() else first.unlink()
    newest = handles.enter_context(closing(DirectoryStore(two_places)))
    assert newest.restore(b"", NEXT, LONG_S)
    held.pass_s(1.0)
    assert {store.look(NAME).register for store in (one, other, newcomer)} == {NEXT}
    assert {store.shown for store in (one, other, newcomer)} == {str(first)}


def test_the_last_who_leaves_removes_the_directory(two_places: Place, handles: ExitStack) -> None:
    stores = [handles.enter_context(closing(DirectoryStore(two_places))) for _ in range(3)]
    names = [new_name() for _ in stores]
    for store, name in zip(stores, names, strict=True):
        store.ask(name, b"ask", waits=True, keep_s=LONG_S)
    assert stores[0].commit(b"", REGISTER, dict.fromkeys(names, b"box"), LONG_S)
    folder = Path(stores[0].shown)
    for store, name in zip(stores, names, strict=True):
        assert folder.exists()
        store.leave(name)
    assert not list(folder.parent.iterdir())


def test_who_joins_while_the_last_one_leaves_is_not_lost(
    two_places: Place, handles: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaves, joins = (handles.enter_context(closing(DirectoryStore(two_places))) for _ in range(2))
    leaves.ask(NAME, b"ask", waits=False, keep_s=LONG_S)
    newcomer = new_name()
    really_rename = os.rename

    def join_first(source: str, target: str) -> None:
        joins.ask(newcomer, b"ask", waits=True, keep_s=LONG_S)
        really_rename(source, target)

    monkeypatch.setattr(os, "rename", join_first)
    leaves.leave(NAME)
    assert not joins.look(newcomer).has_mine
    joins.ask(newcomer, b"ask", waits=True, keep_s=LONG_S)
    assert joins.look(newcomer)[1:4] == (1, 1, True)
    assert list(Path(joins.shown).parent.iterdir()) == [Path(joins.shown)]


def test_the_last_who_leaves_a_named_directory_empties_it_and_lets_it_stay(
    store: DirectoryStore, place: Place, handles: ExitStack, folder: Path
) -> None:
    inode = folder.stat().st_ino
    put_something(store)
    assert store.serve(new_name(), b"box", LONG_S)
    store.leave(NAME)
    assert folder.stat().st_ino == inode
    assert store.look(NAME)[:4] == (b"", 0, 0, False)
    assert {path.name.partition("-")[0] for path in folder.iterdir()} == {"register"}
    newcomer = handles.enter_context(closing(DirectoryStore(place)))
    assert newcomer.commit(b"", NEXT, {}, LONG_S)
