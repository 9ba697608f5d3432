"""Commits of several processes into one directory, some of which are stopped or killed anywhere."""

from pathlib import Path

import pytest

from tests.helpers.scripts import run_script

BEGIN = """
    import os, random, signal, sys, time
    from server_keys._sharing.directory_store import DirectoryStore
    from server_keys._sharing.places import named_directory
    from server_keys._sharing.store import StoreError

    place = named_directory(sys.argv[1])
    NAMES = [bytes([number]) * 32 for number in range(8)]

    def start(work):
        pid = os.fork()
        if pid:
            return pid
        try:
            work(DirectoryStore(place))
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(9)
        os._exit(0)

    def commit(store, before, text):
        try:
            return store.commit(before, text, {name: text for name in NAMES}, 60)
        except StoreError as error:
            assert "went on while" in str(error)
            return None   # it may have happened: this process stood still while two others committed

    def is_complete(store, register):
        return all((taken := store.take(name)) and taken.box == register for name in NAMES)
"""


def test_of_commits_of_many_processes_at_once_exactly_one_happens(folder: Path) -> None:
    run_script(
        BEGIN
        + """
    TURNS, MEMBERS = 100, 4
    read, write = os.pipe()

    def take_part(store):
        for turn in range(TURNS):
            before = b"" if turn == 0 else None
            while before is None:   # the turn begins when the one before was committed
                register = store.look(NAMES[0]).register
                if register.startswith(b"%d " % (turn - 1)):
                    before = register
                elif register.partition(b" ")[0] not in (b"%d" % (turn - 2), b""):
                    break   # it is over
            if before is not None:
                won = commit(store, before, b"%d by %d" % (turn, os.getpid()))
                if won is not False:
                    os.write(write, b"%s%5d" % (b"+" if won else b"?", turn))

    members = [start(take_part) for _ in range(MEMBERS)]
    assert [os.waitpid(pid, 0)[1] for pid in members] == [0] * MEMBERS
    os.close(write)
    told = os.read(read, 65536)
    told = [(told[at:at + 1], int(told[at + 1:at + 6])) for at in range(0, len(told), 6)]
    won = [turn for sign, turn in told if sign == b"+"]
    perhaps = [turn for sign, turn in told if sign == b"?"]
    assert len(set(won)) == len(won)
    assert set(won) | set(perhaps) == set(range(TURNS))
    assert won
    store = DirectoryStore(place)
    assert is_complete(store, store.look(NAMES[0]).register)
    """,
        str(folder),
    )


def test_whoever_is_killed_in_the_middle_of_a_commit_what_the_register_names_is_complete(folder: Path) -> None:
    run_script(
        BEGIN
        + """
    def commit_for_ever(store):
        while True:
            before = store.look(NAMES[0]).register
            number = int(before.partition(b" ")[0] or b"0") + 1
            commit(store, before, b"%d by %d" % (number, os.getpid()))
            store.ask(os.urandom(32), b"ask", waits=True, keep_s=60)

    store = DirectoryStore(place)
    register, number, seen, interrupted = b"", 0, 0, 0
    while seen < 60 or interrupted < 20:
        members = [start(commit_for_ever) for _ in range(2)]
        time.sleep(random.uniform(0.002, 0.03))
        for pid in members:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        before, register = register, store.look(NAMES[0]).register
        interrupted += len([name for name in os.listdir(sys.argv[1]) if name.startswith("box-")]) > len(NAMES)
        if register != before:   # its boxes were not taken yet
            seen += 1
            assert is_complete(store, register), register
            assert int(register.partition(b" ")[0]) > number, "it went back"
            number = int(register.partition(b" ")[0])
    before = store.look(NAMES[0]).register
    assert commit(store, before, b"the last")
    assert is_complete(store, b"the last")
    """,
        str(folder),
    )


def test_who_takes_a_box_while_others_commit_finds_that_of_the_register(folder: Path) -> None:
    run_script(
        BEGIN
        + """
    def commit_for_ever(store):
        while True:
            before = store.look(NAMES[0]).register
            number = int(before or b"0") + 1
            commit(store, before, b"%d" % number)

    def number_of(register):
        return int(register or b"0")

    members = [start(commit_for_ever) for _ in range(2)]
    store = DirectoryStore(place)
    taken = 0
    while taken < 200:
        assert os.waitpid(-1, os.WNOHANG) == (0, 0), "a member ended"
        for name in NAMES:
            first = number_of(store.look(name).register)
            box = store.take(name)
            last = number_of(store.look(name).register)
            if box:
                taken += 1
                assert first <= number_of(box.box) <= last
    for pid in members:
        os.kill(pid, signal.SIGKILL)
    """,
        str(folder),
    )


@pytest.mark.parametrize("commits_meanwhile", [0, 1, 2, 3, 6])
@pytest.mark.parametrize("stops_at", ["third box", "link", "after the link", "first removal"])
def test_a_member_that_is_stopped_in_its_commit_holds_nobody_up_and_does_no_harm_later(
    folder: Path, stops_at: str, commits_meanwhile: int
) -> None:
    run_script(
        BEGIN
        + """
    stops_at, commits_meanwhile = sys.argv[2], int(sys.argv[3])
    read, write = os.pipe()

    def stop_before(name, at_call=1):
        really, calls = getattr(os, name), 0

        def stop_then(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == at_call:
                os.kill(os.getpid(), signal.SIGSTOP)
            return really(*arguments, **options)

        setattr(os, name, stop_then)

    def be_stopped(store):
        store.look(NAMES[0])
        if stops_at == "third box":
            stop_before("write", 3)
        elif stops_at == "link":
            stop_before("link")
        else:
            stop_before("unlink", 1 if stops_at == "after the link" else 2)
        happened = commit(store, b"first", b"of the stopped")
        os.write(write, str(happened).encode())

    store = DirectoryStore(place)
    assert commit(store, b"", b"first")
    stopped = start(be_stopped)
    assert os.WIFSTOPPED(os.waitpid(stopped, os.WUNTRACED)[1])
    register = store.look(NAMES[0]).register
    is_linked = stops_at in ("after the link", "first removal")
    assert register == (b"of the stopped" if is_linked else b"first")
    for turn in range(commits_meanwhile):
        began = time.monotonic()
        text = b"of another %d" % turn
        assert commit(store, register, text)
        assert time.monotonic() - began < 5
        register = text
    os.kill(stopped, signal.SIGCONT)
    assert os.waitpid(stopped, 0)[1] == 0
    happened = os.read(read, 100).decode()
    if commits_meanwhile == 0:
        assert happened == "True"
        register = b"of the stopped"
    elif is_linked:
        cannot_tell = stops_at == "after the link" and commits_meanwhile > 1
        assert happened == ("None" if cannot_tell else "True")
    else:
        assert happened == ("None" if commits_meanwhile > 2 else "False")
    assert store.look(NAMES[0]).register == register
    assert is_complete(store, register)
    assert commit(store, register, b"the last")
    assert is_complete(store, b"the last")
    """,
        str(folder),
        stops_at,
        str(commits_meanwhile),
    )
