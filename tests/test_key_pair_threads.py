"""Key pairs under threads: nobody waits for the GIL, and nobody gets half of a secret."""

import threading

from server_keys import KeyErasedError, KeyPair, generate_key_pairs

PEER = KeyPair.generate().public_key


def exchange_until_erased(pair: KeyPair, begin: threading.Barrier, secrets: list[bytes]) -> None:
    begin.wait(10)
    try:
        while True:
            secrets.append(pair.exchange(PEER))
    except KeyErasedError:
        pass


def test_an_exchange_beside_an_erasure_gives_the_secret_or_an_error() -> None:
    for _ in range(50):
        pair = KeyPair.generate()
        expected = pair.exchange(PEER)
        secrets: list[bytes] = []
        begin = threading.Barrier(4)
        threads = [threading.Thread(target=exchange_until_erased, args=(pair, begin, secrets)) for _ in range(3)]
        for thread in threads:
            thread.start()
        begin.wait(10)
        pair.erase()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive(), "a thread hangs"
        assert set(secrets) <= {expected}


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
