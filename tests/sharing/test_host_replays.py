"""What the processes of a host know of the requests that each of them saw: tables in the group's directory."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from server_keys._clock import boot_time
from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._native import KeyPair, ReplayTable, ReplayTableError, ReplayTableLostError
from server_keys._sharing.directory_store import DirectoryStore
from server_keys._sharing.host_replays import HostReplays
from server_keys._sharing.notices import Notices
from server_keys._sharing.places import Place
from server_keys._sharing.replay_files import ReplayFile, open_or_make, replay_file_name
from server_keys._sharing.store import StoreError
from tests.helpers.held_time import HeldTime
from tests.helpers.scripts import run_script

LIFE_S = 60.0
NewMember = Callable[..., HostReplays]


@pytest.fixture
def new_member(place: Place, handles: ExitStack) -> NewMember:
    """Make what one process of the group knows."""

    def new_member(clock: Callable[[], float] = boot_time, *, is_alone: bool = False) -> HostReplays:
        store = handles.enter_context(closing(DirectoryStore(place)))
        return HostReplays(store.directory, LIFE_S, Notices(store, across_hosts=False), clock=clock, is_alone=is_alone)

    return new_member


@pytest.fixture
def pairs() -> Iterator[EpochPairs]:
    """An epoch of the group."""
    pairs = EpochPairs(KeyPair.generate())
    yield pairs
    pairs.erase()


def path_of(folder: Path, pairs: EpochPairs) -> Path:
    return folder / replay_file_name(pairs.x25519.public_key)


def test_what_one_process_saw_is_known_to_all(new_member: NewMember, folder: Path, pairs: EpochPairs) -> None:
    members = [new_member() for _ in range(3)]
    for number, first in enumerate(members):
        request_id = bytes([number]) * 8
        assert first.of(pairs).add(request_id)
        assert not any(member.of(pairs).add(request_id) for member in members)
    assert [path.name for path in folder.iterdir()] == [path_of(folder, pairs).name]
    found = path_of(folder, pairs).stat()
    assert found.st_mode & 0o777 == 0o600
    assert found.st_size <= 20 * 2**18
    assert found.st_blocks * 512 >= found.st_size, "all of it is allocated"


def test_another_epoch_has_another_table(new_member: NewMember, pairs: EpochPairs) -> None:
    member, other = new_member(), EpochPairs(KeyPair.generate())
    assert member.of(pairs).add(bytes(8))
    assert member.of(other).add(bytes(8))


def test_all_who_begin_at_the_same_time_have_one_table(place: Place, handles: ExitStack) -> None:
    stores = [handles.enter_context(closing(DirectoryStore(place))) for _ in range(8)]
    start, files = threading.Barrier(len(stores)), list[ReplayFile]()

    def begin(store: DirectoryStore, name: str) -> None:
        start.wait()
        files.append(store.directory.run(lambda directory: open_or_make(directory, name)))

    for epoch in range(20):
        files.clear()
        name = replay_file_name(epoch.to_bytes(32, "big"))
        threads = [threading.Thread(target=begin, args=(store, name)) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({file.identity for file in files}) == 1
        assert [file.table.add(bytes(8)) for file in files].count(True) == 1


def remove_file(path: Path) -> None:
    path.unlink()


def remove_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("gone"))


def put_another_there(path: Path) -> None:
    other = path.with_name("other")
    descriptor = os.open(other, os.O_RDWR | os.O_CREAT)
    ReplayTable.make_shared(descriptor)
    os.close(descriptor)
    other.rename(path)


def put_nothing_there(path: Path) -> None:
    path.unlink()
    path.touch()


@pytest.mark.parametrize("let_it_go", [remove_file, remove_directory, put_nothing_there])
def test_an_epoch_is_retired_whose_table_is_gone_and_nobody_begins_anew(
    new_member: NewMember,
    folder: Path,
    pairs: EpochPairs,
    let_it_go: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, other = new_member(), new_member()
    assert not one.keep_up([pairs])
    assert not other.keep_up([pairs])
    assert one.of(pairs).add(bytes(8))
    let_it_go(path_of(folder, pairs))
    # Those who have it open go on until there is another key, and know all that was seen by any of them.
    assert not other.of(pairs).add(bytes(8))
    assert other.of(pairs).add(bytes(9))
    assert one.keep_up([pairs])
    assert one.of(pairs).is_retired
    assert other.keep_up([pairs])
    assert other.of(pairs).is_retired
    assert not one.of(pairs).add(bytes(9))
    assert not one.keep_up([pairs])
    assert not other.keep_up([pairs])
    # Who comes now takes nothing that is sealed to this key, and wants the next one soon.
    newcomer = new_member()
    assert newcomer.keep_up([pairs])
    assert not newcomer.keep_up([pairs])
    for request_id in (bytes(8), os.urandom(8)):
        with pytest.raises(ReplayTableLostError):
            newcomer.of(pairs).add(request_id)
    levels = {(record.levelno, "removed or changed" in record.message) for record in caplog.records}
    assert levels == {(logging.WARNING, True), (logging.WARNING, False)}
    following = EpochPairs(KeyPair.generate())
    members = (one, other, newcomer)
    assert not any(member.keep_up([pairs, following]) for member in members)
    assert [member.of(following).add(bytes(8)) for member in members] == [True, False, False]


def test_where_another_table_is_put_in_place_neither_is_used_any_more(
    new_member: NewMember, folder: Path, pairs: EpochPairs
) -> None:
    one, other = new_member(), new_member()
    for member in (one, other):
        member.keep_up([pairs])
    assert one.of(pairs).add(bytes(8))
    put_another_there(path_of(folder, pairs))
    newcomer = new_member()
    newcomer.keep_up([pairs])
    newcomer.of(pairs)  # It cannot know yet. From the first look of any other on it must serve nothing.
    members = (one, other, newcomer)
    for looks_first in (one, newcomer, other):
        assert looks_first.keep_up([pairs]), "the next epoch must come soon"
    for member in (*members, new_member()):
        for request_id in (bytes(8), os.urandom(8)):
            with pytest.raises(ReplayTableLostError):
                member.of(pairs).add(request_id)
    assert not any(member.keep_up([pairs]) for member in members)
    following = EpochPairs(KeyPair.generate())
    assert not any(member.keep_up([pairs, following]) for member in members)
    assert [member.of(following).add(bytes(8)) for member in members] == [True, False, False]


@pytest.mark.parametrize("let_it_go", [remove_file, remove_directory])
def test_who_comes_before_anybody_has_noticed_begins_no_table_anew(
    new_member: NewMember, folder: Path, pairs: EpochPairs, let_it_go: Callable[[Path], None]
) -> None:
    one, newcomer = new_member(), new_member()
    one.keep_up([pairs])
    assert one.of(pairs).add(bytes(8))
    let_it_go(path_of(folder, pairs))
    assert newcomer.keep_up([pairs], lambda _: False), "the next epoch must come soon"
    for request_id in (bytes(8), os.urandom(8)):
        with pytest.raises(ReplayTableLostError):
            newcomer.of(pairs, lambda _: False).add(request_id)
    assert one.keep_up([pairs])
    assert not one.of(pairs).add(bytes(8)), "who has it open knows what was seen"


def test_the_first_process_of_a_host_begins_a_table_for_a_key_that_other_hosts_have_used(
    new_member: NewMember, pairs: EpochPairs
) -> None:
    member = new_member(is_alone=True)
    assert not member.keep_up([pairs], lambda _: False)
    assert member.of(pairs).add(bytes(8))


def cut_short(path: Path) -> None:
    os.truncate(path, 4096)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(128))


@pytest.mark.parametrize("change", [cut_short, empty, lengthen, overwrite])
def test_a_table_that_was_changed_is_used_no_more(
    new_member: NewMember, folder: Path, pairs: EpochPairs, change: Callable[[Path], None]
) -> None:
    one, other = new_member(), new_member()
    for member in (one, other):
        member.keep_up([pairs])
    assert one.of(pairs).add(bytes(8))
    change(path_of(folder, pairs))
    assert one.keep_up([pairs])
    assert other.keep_up([pairs])
    for member in (one, other, new_member()):
        for request_id in (bytes(8), os.urandom(8)):
            with pytest.raises(ReplayTableLostError):
                member.of(pairs).add(request_id)
    assert not one.keep_up([pairs])


def symlink(path: Path) -> None:
    path.with_name("target").touch()
    path.symlink_to(path.with_name("target"))


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder_there(path: Path) -> None:
    path.mkdir()


def something_else(path: Path) -> None:
    path.write_bytes(b"something else")


@pytest.mark.parametrize("squat", [symlink, fifo, folder_there, something_else, Path.touch])
def test_what_is_no_table_is_not_used(
    new_member: NewMember, folder: Path, pairs: EpochPairs, squat: Callable[[Path], None]
) -> None:
    member = new_member()
    member.keep_up([])
    with contextlib.suppress(FileExistsError):
        folder.mkdir(0o700)
    squat(path_of(folder, pairs))
    assert member.keep_up([pairs])
    with pytest.raises(ReplayTableLostError):
        member.of(pairs).add(bytes(8))


def test_where_there_is_no_room_for_a_table_no_request_is_taken(tmp_path: Path) -> None:
    # The limit of a file's length stands for a full file system, which says so at the same call.
    printed = run_script(
        """
        import resource, sys
        from server_keys import KeyPair
        from server_keys._clock import boot_time
        from server_keys._keys.epoch_pairs import EpochPairs
        from server_keys._native import ReplayTableLostError
        from server_keys._sharing.directory_store import DirectoryStore
        from server_keys._sharing.notices import Notices
        from server_keys._sharing.places import named_directory
        from server_keys._sharing.host_replays import HostReplays
        import logging, os
        logging.basicConfig(stream=sys.stdout, format="%(message)s")

        store = DirectoryStore(named_directory(sys.argv[1]))
        member = HostReplays(store.directory, 60.0, Notices(store, across_hosts=False), clock=boot_time)
        pairs, following = EpochPairs(KeyPair.generate()), EpochPairs(KeyPair.generate())
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
        assert member.keep_up([pairs])
        for _ in range(3):
            try:
                member.of(pairs).add(bytes(8))
            except ReplayTableLostError:
                pass
            else:
                raise AssertionError
        assert os.listdir(sys.argv[1]) == []
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert not member.keep_up([pairs, following])
        assert member.of(following).add(bytes(8))
        """,
        str(tmp_path / "group"),
    )
    (line,) = printed.splitlines()
    assert "cannot be remembered" in line
    assert "File too large" in line


def test_a_table_goes_when_its_epoch_has_ended_for_all(
    new_member: NewMember, folder: Path, held: HeldTime, pairs: EpochPairs
) -> None:
    one, slower = new_member(held.boot), new_member(held.boot)
    for member in (one, slower):
        member.keep_up([pairs])
    one.keep_up([])
    held.pass_s(4)
    # For another member the epoch has not ended yet.
    assert not slower.keep_up([pairs])
    assert path_of(folder, pairs).exists()
    slower.keep_up([])
    held.pass_s(1)
    one.keep_up([])
    assert not path_of(folder, pairs).exists()
    pairs.erase()
    with pytest.raises(ReplayTableLostError, match="erased"):
        one.of(pairs)
    assert not list(folder.iterdir())


def test_the_table_of_an_epoch_that_comes_back_stays(
    new_member: NewMember, folder: Path, held: HeldTime, pairs: EpochPairs
) -> None:
    one, other = new_member(held.boot), new_member(held.boot)
    for member in (one, other):
        member.keep_up([pairs])
    assert one.of(pairs).add(bytes(8))
    one.keep_up([])
    held.pass_s(1)
    one.keep_up([pairs])
    held.pass_s(5)
    assert not one.keep_up([pairs])
    assert not other.keep_up([pairs])
    assert not one.of(pairs).add(bytes(8))
    assert path_of(folder, pairs).exists()


def test_a_clock_that_is_set_forward_removes_no_table_that_is_in_use(
    new_member: NewMember, pairs: EpochPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As it happens on machines that get the time from the network after they have started.
    one, later = new_member(), EpochPairs(KeyPair.generate())
    one.keep_up([pairs, later])
    assert one.of(pairs).add(bytes(8))
    assert one.of(later).add(bytes(8))
    forward_s = time.time() + 50 * 366 * 86_400
    monkeypatch.setattr(time, "time", lambda: forward_s)
    newcomer = new_member()
    assert not newcomer.keep_up([pairs, later])
    assert not one.keep_up([pairs, later])
    for epoch in (pairs, later):
        assert not newcomer.of(epoch).add(bytes(8))


def test_what_killed_members_left_is_removed_and_nothing_else(
    new_member: NewMember, folder: Path, pairs: EpochPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, member, later = new_member(), new_member(), EpochPairs(KeyPair.generate())
    killed.keep_up([pairs])
    killed.keep_up([])
    (folder / "seen-not").touch()
    (folder / "ask-somebody").touch()
    member.keep_up([later])
    assert path_of(folder, pairs).exists()
    later_s = time.time() + 2 * LIFE_S + 1
    monkeypatch.setattr(time, "time", lambda: later_s)
    newest = EpochPairs(KeyPair.generate())
    member.keep_up([later, newest])
    assert {path.name for path in folder.iterdir()} == {
        "ask-somebody",
        path_of(folder, later).name,
        path_of(folder, newest).name,
    }


def test_the_last_process_removes_a_folder_that_is_for_this_alone(
    new_member: NewMember, folder: Path, pairs: EpochPairs
) -> None:
    one, other = (new_member(is_alone=True) for _ in range(2))
    for member in (one, other):
        member.keep_up([pairs])
    assert one.of(pairs).add(bytes(8))
    one.close()
    assert path_of(folder, pairs).exists()
    assert not other.keep_up([pairs])
    assert not other.of(pairs).add(bytes(8))
    other.close()
    assert not folder.exists()


def test_the_last_member_of_a_named_folder_removes_the_tables(
    new_member: NewMember, store: DirectoryStore, folder: Path, pairs: EpochPairs
) -> None:
    new_member().keep_up([pairs])
    store.leave(b"n" * 32)
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_used_for_a_while_retires_nothing(
    new_member: NewMember, folder: Path, pairs: EpochPairs
) -> None:
    member = new_member()
    member.keep_up([pairs])
    folder.chmod(0o750)
    assert not member.keep_up([pairs])
    assert member.of(pairs).add(bytes(8))
    other = new_member()
    assert other.keep_up([pairs])
    with pytest.raises(ReplayTableError):
        other.of(pairs).add(bytes(8))
    folder.chmod(0o700)
    assert not member.keep_up([pairs])
    assert not member.of(pairs).add(bytes(8))


def test_a_closed_store_makes_no_table(new_member: NewMember, store: DirectoryStore) -> None:
    store.close()
    with pytest.raises(StoreError):
        store.directory.run(lambda directory: open_or_make(directory, replay_file_name(bytes(32))))
