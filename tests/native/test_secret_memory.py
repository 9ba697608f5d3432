"""Where private keys are in a process's memory, and that erased ones are nowhere: read from outside, all of it."""

import os

import pytest

from tests.helpers.key_traces import clamped, radix_16_digits, traces, traces_of_a_batch
from tests.helpers.known_key_victim import victim
from tests.helpers.scripts import run_script

pytestmark = pytest.mark.usefixtures("each_engine")


@pytest.fixture
def private_key() -> bytes:
    return os.urandom(32)


def test_the_digits_searched_for_are_those_of_the_scalar(private_key: bytes) -> None:
    digits = radix_16_digits(clamped(private_key))
    assert sum(digit * 16**place for place, digit in enumerate(digits)) == int.from_bytes(
        clamped(private_key), "little"
    )
    assert set(digits) <= set(range(-8, 9))


def test_the_search_finds_a_copy_outside_of_the_protected_memory(private_key: bytes) -> None:
    for copy in (private_key, clamped(private_key), bytes(d & 0xFF for d in radix_16_digits(clamped(private_key)))):
        with victim("copy = os.read(int(sys.argv[1]), 64)\nreached('copied')", private_key=copy) as process:
            process.run_to("copied")
            where = process.where(traces(private_key))
            assert where
            assert not any(mapping.is_protected for mapping in where)


def test_a_private_key_is_in_protected_memory_only_and_nowhere_once_erased(private_key: bytes) -> None:
    script = """
        pair = far_down(from_known_private_key)
        reached("made")
        peer = KeyPair.generate()
        for _ in range(10):
            assert far_down(lambda: pair.exchange(peer.public_key)) == peer.exchange(pair.public_key)
        reached("used")
        pair.erase()
        reached("erased")
    """
    with victim(script, private_key=private_key) as process:
        for step in ("made", "used"):
            process.run_to(step)
            (where,) = process.where(traces(private_key))
            assert where.is_protected
            assert where.permissions == "rw-p"
        process.run_to("erased")
        assert process.where(traces(private_key)) == []


def test_inaccessible_pages_surround_the_protected_memory(private_key: bytes) -> None:
    with victim("pair = from_known_private_key()\nreached('made')", private_key=private_key) as process:
        process.run_to("made")
        (where,) = process.where(traces(private_key))
        around = [m for m in process.mappings() if m.end == where.start or m.start == where.end]
        assert [mapping.permissions for mapping in around] == ["---p", "---p"]


def test_the_last_reference_takes_the_private_key_with_it(private_key: bytes) -> None:
    script = """
        pair = far_down(from_known_private_key)
        other = pair
        far_down(lambda: pair.exchange(KeyPair.generate().public_key))
        del pair
        reached("held")
        del other
        reached("let go")
    """
    with victim(script, private_key=private_key) as process:
        process.run_to("held")
        assert len(process.where(traces(private_key))) == 1
        process.run_to("let go")
        assert process.where(traces(private_key)) == []


def test_rotation_takes_the_private_key_with_it_while_somebody_holds_the_pair(private_key: bytes) -> None:
    script = """
        makers = iter([from_known_private_key, KeyPair.generate, KeyPair.generate])
        ring = KeyRing(10, generate=lambda: next(makers)(), clock=lambda: 0.0)
        pair = ring.current
        far_down(lambda: pair.exchange(KeyPair.generate().public_key))
        ring.refresh()
        assert pair in ring.accepted
        reached("previous")
        ring.refresh()
        assert pair not in ring.accepted
        reached("over")
    """
    with victim(script, private_key=private_key) as process:
        process.run_to("previous")
        assert [mapping.is_protected for mapping in process.where(traces(private_key))] == [True]
        process.run_to("over")
        assert process.where(traces(private_key)) == []


@pytest.mark.parametrize("how", ["pair.erase()", "del pair"])
def test_opening_a_request_leaves_no_private_key_behind(private_key: bytes, how: str) -> None:
    script = f"""
        pair = far_down(from_known_private_key)
        sealer = RequestSealer(pair.public_key)
        opener = RequestOpener(sealer.encapsulated_key, [KeyPair.generate(), pair])
        assert far_down(lambda: opener.feed(sealer.seal(b"question"))) == b"question"
        answer = far_down(opener.response_sealer).seal(b"answer")
        reached("opened")
        {how}
        reached("over")
        assert opener.feed(sealer.seal(b"more")) == b"more"
        reached("opened more")
    """
    with victim(script, private_key=private_key) as process:
        process.run_to("opened")
        assert [mapping.is_protected for mapping in process.where(traces(private_key))] == [True]
        for step in ("over", "opened more"):
            process.run_to(step)
            assert process.where(traces(private_key)) == []


def test_a_waiting_request_keeps_the_private_key_in_protected_memory_until_its_first_frame(private_key: bytes) -> None:
    script = """
        pair = far_down(from_known_private_key)
        sealer = RequestSealer(pair.public_key)
        opener = RequestOpener(sealer.encapsulated_key, [pair])
        del pair
        reached("waiting")
        assert far_down(lambda: opener.feed(sealer.seal(b"question"))) == b"question"
        reached("opened")
    """
    with victim(script, private_key=private_key) as process:
        process.run_to("waiting")
        assert [mapping.is_protected for mapping in process.where(traces(private_key))] == [True]
        process.run_to("opened")
        assert process.where(traces(private_key)) == []


def test_a_forked_child_has_no_private_key_in_its_memory(private_key: bytes) -> None:
    script = """
        pair = far_down(from_known_private_key)
        far_down(lambda: pair.exchange(KeyPair.generate().public_key))
        if os.fork() == 0:
            reached("forked")
            os._exit(0)
        os.wait()
        reached("child ended")
    """
    with victim(script, private_key=private_key) as process:
        process.run_to("forked")
        assert process.child().where(traces(private_key)) == []
        assert len(process.where(traces(private_key))) == 1
        process.run_to("child ended")
        assert len(process.where(traces(private_key))) == 1


@pytest.mark.parametrize(
    ("make", "engine"),
    [
        ("[KeyPair.generate() for _ in range(200)]", None),
        ("generate_key_pairs(200)", None),
        ("generate_key_pairs(200)", "dalek"),
        ("generate_key_pairs(200)", "portable-lanes"),
    ],
)
def test_generated_private_keys_are_in_protected_memory_only_and_nowhere_once_erased(
    make: str, engine: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine:
        monkeypatch.setenv("SERVER_KEYS_ENGINE", engine)
    script = f"""
        pairs = far_down(lambda: {make})
        reached("made")
        for pair in pairs:
            pair.erase()
        reached("erased")
    """
    with victim(script) as process:
        process.run_to("made")
        # More than one where the threads raced to map the first.
        arenas = [content for mapping, content in process.contents() if mapping.is_protected]
        places = [arena[start : start + 32] for arena in arenas for start in range(32, len(arena), 32)]
        private_keys = [place for place in places if any(place)]
        assert len(private_keys) == 200
        # From the shares of all threads.
        samples = set().union(*map(traces, private_keys[::25]), *map(traces_of_a_batch, private_keys[::100]))
        assert [mapping.is_protected for mapping in process.where(samples)] == [True]
        process.run_to("erased")
        assert process.where(samples) == []


def test_keys_work_where_the_system_refuses_to_lock_memory_and_one_warning_says_so() -> None:
    script = """
        import os, resource, warnings
        from server_keys import KeyPair, generate_key_pairs
        from tests.helpers.process_memory import mappings

        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        if os.geteuid() == 0:
            os.setuid(65534)  # root may lock as much as it likes
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ours, peer = KeyPair.generate(), KeyPair.generate()
            pairs = generate_key_pairs(5000)
        (warning,) = caught
        assert warning.category is RuntimeWarning, warning
        assert "the system refused to lock private keys in memory (mlock)" in str(warning.message), warning
        assert "ulimit -l" in str(warning.message), warning
        assert warning.filename == "<string>", warning
        assert ours.exchange(peer.public_key) == peer.exchange(ours.public_key)
        assert len(set(pairs)) == 5000
        flags = [mapping.flags for mapping in mappings(os.getpid()) if {"dd", "wf"} <= mapping.flags]
        assert flags and not any("lo" in of_one for of_one in flags), flags
    """
    run_script(script)


def test_where_warnings_are_errors_the_refusal_is_one_error_then_there_are_keys() -> None:
    script = """
        import os, resource
        from server_keys import KeyPair

        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            KeyPair.generate()
        except RuntimeWarning as warning:
            assert "mlock" in str(warning), warning
        else:
            raise AssertionError("no warning")
        assert not KeyPair.generate().erased
    """
    run_script(script)
