"""A pair whose time is over is erased on time, whatever holds up the event loop, the interpreter or their users."""

import asyncio
import ctypes
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI

from server_keys import EntropyError, KeyPair, KeyRing, ephemeral_key_lifespan_factory
from tests.helpers.process_memory import victim_of
from tests.helpers.scripts import run_script

# Long enough for what happens before the block, and more than twice that is short enough for a test.
PERIOD_S = 0.5


def hold_the_gil_s(seconds: float) -> None:
    """Wait in a C function that was not told to release the GIL: no thread of Python runs meanwhile."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.001)


@pytest.mark.parametrize("block_s", [time.sleep, hold_the_gil_s])
def test_while_the_event_loop_is_blocked(block_s: Callable[[float], None]) -> None:
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(PERIOD_S)(None))

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            ring: KeyRing = app.state.ephemeral_keys
            ring.refresh()
            held = ring.accepted
            assert len(held) == 2
            assert not any(pair.erased for pair in held)
            block_s(2 * PERIOD_S + 0.3)
            # No other code had a turn since: neither the task that refreshes nor a reader of the ring.
            assert all(pair.erased for pair in held)
            # The ring recovers by itself.
            assert ring.current not in held
            assert not ring.current.erased

    asyncio.run(serve())


def test_a_memory_image_that_is_taken_during_the_block_shows_no_key() -> None:
    script = """
import ctypes
from server_keys import KeyPair, KeyRing
from tests.helpers.process_memory import reached

def from_known_private_key():
    # From hex, so that no copy of the raw bytes stays; they lie in memory that is wiped.
    private_key = bytearray(32)
    for index, digits in enumerate(zip(*[iter(reached("ready"))] * 2)):
        private_key[index] = int("".join(digits), 16)
    try:
        return KeyPair.from_private_key(private_key)
    finally:
        private_key[:] = bytes(32)

ring = KeyRing(0.5, generate=from_known_private_key)
reached("made")
print("blocked\\t", flush=True)
ctypes.PyDLL(None).usleep(60 * 1000 * 1000)
"""
    private_key = os.urandom(32)
    words = {private_key[start : start + 8] for start in range(0, 32, 8)}
    with victim_of(script) as process:
        process.run_to("ready")
        process.run_to("made", told=private_key.hex())
        process.run_to("blocked")
        wait_until(lambda: process.where(words) == [])


def test_a_predecessor_that_was_replaced_early_when_its_overlap_ends() -> None:
    with KeyRing(300, overlap_s=PERIOD_S) as ring:
        first = ring.current
        ring.refresh()
        assert not first.erased
        wait_until(lambda: first.erased)
        assert not ring.current.erased


def test_a_pair_that_nothing_could_replace() -> None:
    makers = iter([KeyPair.generate])

    def generate() -> KeyPair:
        for maker in makers:
            return maker()
        raise EntropyError("no randomness")

    ring = KeyRing(PERIOD_S, generate=generate)
    pair = ring.current
    began = time.monotonic()
    wait_until(lambda: pair.erased)
    assert time.monotonic() - began > PERIOD_S


PREAMBLE = """
import contextlib, gc, os, time, warnings
from pathlib import Path

# Since 3.12 Python warns of what is tried here on purpose: to fork a process that has threads.
warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork")

def thread_names():
    for task in Path("/proc/self/task").iterdir():
        # It may have ended since it was listed.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield task.joinpath("comm").read_text()

def has_thread():
    return "key-eraser\\n" in thread_names()

def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.001)

import server_keys
from server_keys import KeyPair, KeyRing
assert not has_thread()
"""


def test_the_thread_that_erases_exists_only_while_a_ring_holds_keys_by_the_real_clock() -> None:
    script = """
pair = KeyPair.generate()
held_time = KeyRing(300, clock=lambda: 1000.0)
held_time.refresh()
assert not has_thread()
with KeyRing(300) as ring:
    ring.refresh()
    wait_until(has_thread)
wait_until(lambda: not has_thread())
ring = KeyRing(300)
wait_until(has_thread)
del ring
gc.collect()
wait_until(lambda: not has_thread())
assert not pair.erased and not held_time.current.erased
"""
    run_script(PREAMBLE + script)


@pytest.mark.parametrize(
    "end", ["", "raise SystemExit(0)", "import threading; threading.Thread(target=ring.refresh).start()"]
)
def test_an_interpreter_ends_cleanly_although_a_ring_is_open(end: str) -> None:
    run_script(f"{PREAMBLE}ring = KeyRing(300)\nwait_until(has_thread)\n{end}", timeout_s=20)


def test_a_forked_child_has_a_thread_of_its_own_as_soon_as_it_has_a_ring_of_its_own() -> None:
    script = """
ring = KeyRing(300)
inherited = ring.current
wait_until(has_thread)
if (pid := os.fork()) == 0:
    assert inherited.erased and not has_thread()
    with KeyRing(0.2) as own:
        pair = own.current
        wait_until(has_thread)
        wait_until(lambda: pair.erased)
    wait_until(lambda: not has_thread())
    # The inherited ring makes keys of the child's own.
    assert not ring.current.erased
    wait_until(has_thread)
    os._exit(0)
_, status = os.waitpid(pid, 0)
assert status == 0, status
assert not inherited.erased and ring.current is inherited
assert has_thread()
"""
    run_script(PREAMBLE + script)


def test_signals_reach_a_thread_of_the_program_and_not_the_one_that_erases() -> None:
    script = """
import signal, threading

ring = KeyRing(300)
wait_until(has_thread)
(eraser,) = [
    task for task in Path("/proc/self/task").iterdir() if task.joinpath("comm").read_text() == "key-eraser\\n"
]
blocked = next(line for line in eraser.joinpath("status").read_text().splitlines() if line.startswith("SigBlk"))
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1):
    assert int(blocked.split()[1], 16) >> (number - 1) & 1, number
"""
    run_script(PREAMBLE + script)
