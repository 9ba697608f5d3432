"""Where memory is used up, there is a MemoryError, and the process goes on."""

from tests.helpers.scripts import run_script


def test_making_many_close_to_the_limit_raises_memory_error_or_succeeds() -> None:
    # Each limit in a forked child, so that all begin with the same memory. Among the limits are those that suffice for
    # nothing, for a part, and for everything, in steps smaller than what a batch or a thread takes.
    outcomes = run_script("""
        import os, resource
        from pathlib import Path
        from server_keys import KeyPair, generate_key_pairs

        def outcome(limit):
            if (child := os.fork()):
                return os.waitpid(child, 0)[1]
            KeyPair.generate()  # so that there is room for as many as one region holds
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            try:
                generate_key_pairs(2500)
            except MemoryError:
                pair = KeyPair.generate()  # the process lives on
                pair.exchange(pair.public_key)
                os._exit(1)
            os._exit(0)

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        for extra in (*range(256 << 10, 2 << 20, 14 << 10), 16 << 20):
            print(outcome(used + extra))
    """).split()
    succeeded, no_memory = "0", "256"
    assert set(outcomes) == {succeeded, no_memory}
    assert outcomes[0] == no_memory
    assert outcomes[-1] == succeeded


def test_a_key_that_is_far_too_long_is_not_copied() -> None:
    run_script("""
        import resource
        from pathlib import Path
        from server_keys import InvalidPublicKeyError, KeyPair

        pair = KeyPair.generate()
        long = bytes(1 << 30)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20),) * 2)
        for take, error in ((pair.exchange, InvalidPublicKeyError), (KeyPair.from_private_key, ValueError)):
            try:
                take(long)
            except error as raised:
                assert str(len(long)) in str(raised), raised
            else:
                raise AssertionError("taken")
    """)
