"""Making many key pairs lets the other threads of the process run."""

import threading

from server_keys import generate_key_pairs


def test_other_threads_run_while_many_pairs_are_made() -> None:
    turns = 0
    stop = threading.Event()

    def take_turns() -> None:
        nonlocal turns
        while not stop.is_set():
            turns += 1

    other = threading.Thread(target=take_turns)
    other.start()
    try:
        before = turns
        generate_key_pairs(10_000)
        during = turns - before
    finally:
        stop.set()
        other.join(10)
    # With the GIL held, the other thread would have no turn but those around the call.
    assert during > 1000
