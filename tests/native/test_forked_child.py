"""A forked child finds no private key of its parent, and everything that it needs to make its own."""

from tests.helpers.scripts import run_script

# Each in a process of its own: forking the tests' process would copy its threads' locks, too.
PREAMBLE = """
import os, sys, threading, time, traceback, warnings

from server_keys import KeyErasedError, KeyPair, KeyRing, generate_key_pairs
from server_keys._native import RequestOpener, RequestOpenerV1, RequestSealer, RequestSealerV1, XWingKeyPair
from server_keys.errors import KeyMismatchError

# Since 3.12 Python warns of what is tried here on purpose: to fork a process that has threads.
warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork")

def refused(use):
    try:
        result = use()
    except KeyErasedError as error:
        assert "forked" in str(error), error
    else:
        raise AssertionError(f"an inherited private key gave {result!r}")

def agrees(key_pair):
    peer = KeyPair.generate()
    return key_pair.exchange(peer.public_key) == peer.exchange(key_pair.public_key)

def start_child(work):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid

def wait_for(pid, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert status == 0, f"the child's exit status is {os.waitstatus_to_exitcode(status)}"
            return
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.001)

def in_child(work):
    wait_for(start_child(work))
"""


def run(script: str) -> None:
    run_script(PREAMBLE + script, timeout_s=120)


def test_an_inherited_pair_is_erased_in_the_child_and_works_on_in_the_parent() -> None:
    run("""
pairs = [KeyPair.generate(), KeyPair.from_private_key(bytes(range(32))), *generate_key_pairs(100)]
peer_public_key = KeyPair.generate().public_key
shared_secrets = [pair.exchange(peer_public_key) for pair in pairs]
public_keys = [pair.public_key for pair in pairs]

def child():
    for pair, public_key in zip(pairs, public_keys):
        assert pair.erased
        assert "erased" in repr(pair)
        assert pair.public_key == public_key
        refused(lambda: pair.exchange(peer_public_key))
        pair.erase()

in_child(child)
assert not any(pair.erased for pair in pairs)
assert [pair.exchange(peer_public_key) for pair in pairs] == shared_secrets
""")


def test_a_child_and_its_child_make_keys_of_their_own() -> None:
    run("""
inherited, let_go = generate_key_pairs(100), generate_key_pairs(100)

def grandchild():
    refused(lambda: inherited[0].exchange(own[0].public_key))
    refused(lambda: own[0].exchange(inherited[0].public_key))
    assert all(map(agrees, generate_key_pairs(200)))

def child():
    global own
    own = [KeyPair.generate(), *generate_key_pairs(200)]
    assert all(map(agrees, own))
    # Inherited pairs must not give back places that the child's own pairs are in.
    let_go.clear()
    own += generate_key_pairs(200)
    assert len({pair.public_key for pair in own}) == 401
    in_child(grandchild)
    assert all(map(agrees, own))

in_child(child)
assert all(map(agrees, inherited + let_go))
""")


def test_parent_and_child_never_make_the_same_key() -> None:
    run("""
reader, writer = os.pipe()
for _ in range(20):
    in_child(lambda: os.write(writer, KeyPair.generate().public_key))
theirs = os.read(reader, 20 * 32)
keys = {theirs[start : start + 32] for start in range(0, 640, 32)} | {KeyPair.generate().public_key}
assert len(keys) == 21
""")


def test_an_inherited_request_does_not_open_in_the_child() -> None:
    run("""
pair = KeyPair.generate()
sealer = RequestSealer(pair.public_key)
opener = RequestOpener(sealer.encapsulated_key, [pair])
frame = sealer.seal(b"question")

def child():
    try:
        opener.feed(frame)
    except KeyErasedError:
        return
    raise AssertionError("opened with an inherited private key")

in_child(child)
assert opener.feed(frame) == b"question"
""")


def test_an_inherited_x_wing_pair_opens_nothing_in_the_child_and_works_on_in_the_parent() -> None:
    run("""
pair, public_key = XWingKeyPair.from_seed(bytes(range(32))), XWingKeyPair.from_seed(bytes(range(32))).public_key
sealer = RequestSealerV1(public_key)
encapsulated_key, head, body = sealer.encapsulated_key, sealer.seal_head(b"head"), sealer.seal(b"question")
opener = RequestOpenerV1(encapsulated_key, head, pair)
response = opener.response_sealer()
reader = sealer.response_opener(response.response_nonce, response.seal_head(b"200"))
answer = response.seal(b"answer")

def child():
    assert pair.erased and "erased" in repr(pair) and pair.public_key == public_key
    try:
        RequestOpenerV1(encapsulated_key, head, pair)
    except KeyMismatchError:
        pass
    else:
        raise AssertionError("opened with an inherited seed")
    pair.erase()
    for use in (
        lambda: opener.feed(body), opener.response_sealer, lambda: opener.head, opener.finish,
        lambda: sealer.seal(b"x"), sealer.seal_end, lambda: sealer.seal_last(b"x"),
        lambda: sealer.response_opener(bytes(32), bytes(16)),
        lambda: response.seal(b"x"), response.seal_end, lambda: response.seal_last(b"x"),
        lambda: reader.feed(answer), reader.expect_no_body,
    ):
        refused(use)
    own = XWingKeyPair.generate()
    mine = RequestSealerV1(own.public_key)
    assert RequestOpenerV1(mine.encapsulated_key, mine.seal_head(b"mine"), own).head == b"mine"

in_child(child)
assert not pair.erased
assert RequestOpenerV1(sealer.encapsulated_key, head, pair).head == b"head"
assert opener.feed(body + sealer.seal_end()) == b"question"
opener.finish()
assert reader.feed(answer) == b"answer"
""")


def test_a_ring_in_the_child_replaces_what_it_inherited() -> None:
    run("""
ring = KeyRing(300)
ring.refresh()
inherited = ring.accepted
assert len(inherited) == 2

def child():
    assert all(pair.erased for pair in inherited)
    own = ring.current
    assert own not in inherited
    assert agrees(own)
    assert ring.accepted == (own,), ring.accepted
    assert ring.current is own
    ring.refresh()
    assert ring.accepted[1] is own
    ring.close()
    assert own.erased

in_child(child)
assert ring.accepted == inherited
assert all(map(agrees, inherited))
""")


def test_children_forked_amid_busy_threads_neither_hang_nor_hurt_their_parent() -> None:
    run("""
pair = KeyPair.generate()
ring = KeyRing(300)
stop = threading.Event()
failures = []

def hammer(work):
    try:
        while not stop.is_set():
            work()
    except BaseException as error:
        failures.append(error)

def make_and_erase():
    one = KeyPair.generate()
    one.exchange(pair.public_key)
    one.erase()

def child():
    # Any lock that a thread of the parent held at the fork is held for ever here.
    assert pair.erased
    refused(lambda: pair.exchange(pair.public_key))
    pair.erase()
    assert agrees(KeyPair.generate())
    assert len(generate_key_pairs(130)) == 130
    assert agrees(ring.current)
    assert ring.status.failures == 0
    ring.close()

work = [make_and_erase, lambda: generate_key_pairs(130), ring.refresh, lambda: agrees(pair), lambda: ring.accepted]
threads = [threading.Thread(target=hammer, args=(one,)) for one in work]
for thread in threads:
    thread.start()
try:
    for _ in range(100):
        in_child(child)
finally:
    stop.set()
    for thread in threads:
        thread.join()
assert failures == []
assert agrees(pair) and agrees(ring.current)
""")


def test_a_message_that_a_thread_seals_during_the_fork_is_not_waited_for_in_the_child() -> None:
    run("""
pair = KeyPair.generate()
sealer = RequestSealer(pair.public_key)
long_body = bytes(64 * 1024 * 1024)
stop = threading.Event()

def seal_on_and_on():
    while not stop.is_set():
        sealer.seal(long_body)

thread = threading.Thread(target=seal_on_and_on)
thread.start()
try:
    for _ in range(5):
        in_child(lambda: (refused(lambda: sealer.seal(b"x")), sealer.erase()))
finally:
    stop.set()
    thread.join()
""")
