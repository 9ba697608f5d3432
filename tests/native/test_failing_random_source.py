"""The system's random source fails: the tests replace getrandom(2) by one that fails when they say so."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.scripts import run_script

INTERPOSED = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/types.h>

static volatile int failing_with;
static volatile size_t failing_length;
static volatile long calls, failing_from;

void fail_randomness(int error) { failing_with = error; failing_from = 0; }
void fail_randomness_after(long more_calls, int error) { failing_from = calls + more_calls; failing_with = error; }
void fail_randomness_of_length(size_t length) { failing_length = length; }
long randomness_calls(void) { return calls; }

ssize_t getrandom(void *buffer, size_t length, unsigned int flags) {
    if (++calls > failing_from && failing_with && (!failing_length || failing_length == length)) {
        errno = failing_with;
        return -1;
    }
    ssize_t (*original)(void *, size_t, unsigned int);
    *(void **)&original = dlsym(RTLD_NEXT, "getrandom");
    return original(buffer, length, flags);
}
"""

PREAMBLE = """
import contextlib, ctypes, errno

from server_keys import EntropyError, KeyPair, KeyRing, KeysUnavailableError, generate_key_pairs
from server_keys._native import (
    GroupKeys, RequestOpener, RequestOpenerV1, RequestSealer, RequestSealerV1, XWingKeyPair, open_box, seal_boxes
)

library = ctypes.CDLL(None)
library.randomness_calls.restype = ctypes.c_long

@contextlib.contextmanager
def no_randomness(error=errno.EIO):
    library.fail_randomness(error)
    try:
        yield
    finally:
        library.fail_randomness(0)

@contextlib.contextmanager
def randomness_for(calls):
    library.fail_randomness_after(ctypes.c_long(calls), errno.EIO)
    try:
        yield
    finally:
        library.fail_randomness(0)

def refused(make):
    try:
        made = make()
    except EntropyError as error:
        assert "the system's random source failed" in str(error), error
    else:
        raise AssertionError(f"made {made!r} out of no randomness")
"""


@pytest.fixture(scope="module")
def interposer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with a getrandom() that fails when told to."""
    compiler = shutil.which("cc")
    assert compiler, "a C compiler is needed, as for building the package"
    folder = tmp_path_factory.mktemp("interposer")
    source, library = folder / "failing_getrandom.c", folder / "failing_getrandom.so"
    source.write_text(INTERPOSED)
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library


def run_with(interposer: Path, script: str, engine: str | None = None) -> None:
    switch = {"SERVER_KEYS_ENGINE": engine} if engine else {}
    run_script(PREAMBLE + script, environment={"LD_PRELOAD": str(interposer)} | switch)


def test_keys_come_from_the_replaced_source(interposer: Path) -> None:
    script = """
before = library.randomness_calls()
KeyPair.generate()
assert library.randomness_calls() > before
"""
    run_with(interposer, script)


def test_no_key_is_made_without_randomness(interposer: Path) -> None:
    script = """
peer = KeyPair.generate()
sealer = RequestSealer(peer.public_key)
opener = RequestOpener(sealer.encapsulated_key, [peer])
opener.feed(sealer.seal(b"question"))
group = GroupKeys.of_name(b"name")

def seal_to(*one_time_keys):
    return seal_boxes(group, one_time_keys, whole=True, as_of_ms=0, epochs=[(1, peer, None, 0, 0)])

(box,) = seal_to(peer.public_key)
with no_randomness():
    refused(KeyPair.generate)
    for count in (1, 64, 1000):
        refused(lambda: generate_key_pairs(count))
    refused(lambda: RequestSealer(peer.public_key))
    refused(opener.response_sealer)
    refused(lambda: seal_to(peer.public_key))
    # Operations that need no randomness still work.
    private_key = bytes(range(32))
    assert KeyPair.from_private_key(private_key).exchange(peer.public_key)
    assert generate_key_pairs(0) == []
    assert opener.feed(sealer.seal(b"more")) == b"more"
    assert GroupKeys.of_name(b"name").ask_tag(b"ask") == group.ask_tag(b"ask")
    assert open_box(group, peer, box)[2] == [(1, peer, None, 0, 0)]
    assert seal_to(b"no key") == [None]

assert len({pair.public_key for pair in [KeyPair.generate(), *generate_key_pairs(1000)]}) == 1001
assert RequestSealer(peer.public_key).seal(b"question")
assert opener.response_sealer().seal(b"answer")
"""
    run_with(interposer, script)


def test_nothing_of_version_1_is_made_without_randomness(interposer: Path) -> None:
    script = """
pair, x25519_pair = XWingKeyPair.generate(), KeyPair.generate()
sealer = RequestSealerV1(pair.public_key)
head = sealer.seal_head(b"head")
opener = RequestOpenerV1(sealer.encapsulated_key, head, pair)
group = GroupKeys.of_name(b"name")

def seal_to(*one_time_keys):
    return seal_boxes(group, one_time_keys, whole=True, as_of_ms=0, epochs=[(1, x25519_pair, pair, 0, 0)])

(box,) = seal_to(pair.public_key)
with no_randomness():
    refused(XWingKeyPair.generate)
    refused(lambda: RequestSealerV1(pair.public_key))
    refused(opener.response_sealer)
    refused(lambda: seal_to(pair.public_key))
    # Operations that need no randomness still work.
    assert XWingKeyPair.from_seed(bytes(32)).public_key
    assert RequestOpenerV1(sealer.encapsulated_key, head, pair).head == b"head"
    assert opener.feed(sealer.seal(b"question") + sealer.seal_end()) == b"question"
    assert open_box(group, pair, box)[2] == [(1, x25519_pair, pair, 0, 0)]

assert len({XWingKeyPair.generate().public_key for _ in range(100)}) == 100
assert opener.response_sealer().seal_head(b"200")
"""
    run_with(interposer, script)


@pytest.mark.parametrize("engine", [None, "dalek", "portable-lanes"])
def test_nothing_stays_of_a_batch_whose_randomness_ends_in_the_middle(interposer: Path, engine: str | None) -> None:
    script = """
import os
from tests.helpers.process_memory import contents

def private_keys_in_memory():
    arenas = [content for mapping, content in contents(os.getpid()) if mapping.is_protected]
    assert arenas
    # The first place of an arena is no key's.
    return sum(any(arena[start : start + 32]) for arena in arenas for start in range(32, len(arena), 32))

kept = generate_key_pairs(1000)
before = library.randomness_calls()
again = generate_key_pairs(1000)
# One call for 32 keys, in each of the threads.
assert library.randomness_calls() - before < 1000 / 32 + 2 * os.cpu_count(), "too many calls"
del again
assert private_keys_in_memory() == 1000
for calls in (1, 2, 7, 20):
    with randomness_for(calls):
        refused(lambda: generate_key_pairs(1000))
    assert private_keys_in_memory() == 1000, calls
assert len({pair.public_key for pair in kept + generate_key_pairs(1000)}) == 2000
"""
    run_with(interposer, script, engine)


def test_a_ring_keeps_its_pair_counts_failures_and_recovers(interposer: Path) -> None:
    script = """
import logging

logging.disable()
now_s = 0.0
ring = KeyRing(10, overlap_s=5, clock=lambda: now_s)
first = ring.current
with no_randomness():
    refused(ring.refresh)
    assert ring.current is first
    assert ring.accepted == (first,)
    now_s = 11
    assert ring.current is first and not first.erased
    status = ring.status
    assert (status.refreshes, status.failures) == (0, 2), status
    assert status.last_error.startswith("EntropyError: the system's random source failed"), status
    assert 0 < status.next_refresh_in_s <= 5, status
    # Never longer than the period and the overlap together.
    now_s = 16
    try:
        ring.current
    except KeysUnavailableError as error:
        assert "EntropyError" in str(error), error
    else:
        raise AssertionError("a stale pair was handed out")
    assert first.erased

now_s = 30
second = ring.current
assert second != first and not second.erased
status = ring.status
assert (status.refreshes, status.failures, status.last_error) == (1, 3, None), status
"""
    run_with(interposer, script)


def test_a_ring_that_never_had_a_pair_is_refused(interposer: Path) -> None:
    run_with(interposer, "with no_randomness():\n    refused(lambda: KeyRing(10))\n")


@pytest.mark.parametrize("error", ["EIO", "EINVAL", "EFAULT"])
def test_a_source_that_fails_from_the_start_gives_no_key(interposer: Path, error: str) -> None:
    script = f"""
with no_randomness(errno.{error}):
    refused(KeyPair.generate)
    refused(lambda: generate_key_pairs(1000))
assert not KeyPair.generate().erased
"""
    run_with(interposer, script)


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_where_the_system_lacks_the_call_keys_are_random_all_the_same(interposer: Path, error: str) -> None:
    # An old kernel, or a sandbox that does not know the call: /dev/urandom takes its place.
    script = f"""
import ctypes, errno

ctypes.CDLL(None).fail_randomness(errno.{error})
from server_keys import generate_key_pairs

assert len({{pair.public_key for pair in generate_key_pairs(1000)}}) == 1000
"""
    run_script(script, environment={"LD_PRELOAD": str(interposer)})


def test_an_engine_that_cannot_be_checked_with_random_keys_is_not_used(interposer: Path) -> None:
    script = """
import ctypes, errno, warnings

library = ctypes.CDLL(None)
# The import itself needs randomness: only the draw of the check fails.
library.fail_randomness_of_length(128)
library.fail_randomness(errno.EIO)
from server_keys import KeyPair, engine

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    why_not = engine().why_not
if "this build has no AWS-LC" not in why_not:
    assert "the system's random source failed, so it could not be checked" in why_not, why_not
    assert [warning.category for warning in caught] == [RuntimeWarning]
assert KeyPair.generate().exchange(KeyPair.generate().public_key)
"""
    run_script(script, environment={"LD_PRELOAD": str(interposer)})
