"""Who records every byte between members and their store, and later gets the secret of the group, opens nothing.

And what members hold then is no key of the past.
"""

import itertools
import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

import pytest
from cryptography.exceptions import InvalidTag

from server_keys._clock import boot_time
from server_keys._keys.schedule import Schedule
from server_keys._native import GroupKeys, KeyPair, MalformedMessageError, XWingKeyPair, open_box
from server_keys._sharing import door as door_module
from server_keys._sharing.door import Door
from server_keys._sharing.member import Member
from server_keys._sharing.messages import Who, name_of
from server_keys._sharing.notices import Notices
from server_keys._sharing.pace import Pace
from server_keys._sharing.pair_maker import PairMaker
from server_keys._sharing.valkey import ValkeyStore
from server_keys._sharing.valkey_url import ValkeyUrl
from tests.helpers.group_boxes import GroupSecrets
from tests.helpers.process_memory import victim_of
from tests.helpers.tcp_proxy import TcpProxy, tcp_proxy
from tests.helpers.valkey import VALKEY, StoreServer, store_server
from tests.helpers.wire_v1 import XWingSecret

Pair = TypeVar("Pair", KeyPair, XWingKeyPair)

SECRET = secrets.token_bytes(32)
LABEL = b"recorded"
SCHEDULE = Schedule(0.5, 0.5)
ROTATIONS = 6


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreServer]:
    with store_server(VALKEY, tmp_path) as server:
        yield server


class KnownKeys(Generic[Pair]):
    """Makes key pairs whose private keys the test knows, and takes the place of their class where they are made."""

    def __init__(self, make: Callable[[bytes], Pair]) -> None:
        self.private: list[bytes] = []
        self.pairs: list[Pair] = []
        self._make: Callable[[bytes], Pair] = make

    def generate(self) -> Pair:
        self.private.append(secrets.token_bytes(32))
        self.pairs.append(self._make(self.private[-1]))
        return self.pairs[-1]


def boxes_in(connection: bytes) -> dict[bytes, bytes]:
    """Return the boxes that a member sent over a connection, by the names of their asks.

    They are arguments of commands: `$<length>`, a line's end, and the bytes.
    """
    words = []
    at = 0
    while (at := connection.find(b"$", at)) >= 0:
        line_end = connection.find(b"\r\n", at)
        digits = connection[at + 1 : line_end]
        if line_end < 0 or not digits.isdigit() or len(digits) > 6:
            at += 1
            continue
        begin = line_end + 2
        words.append(connection[begin : begin + int(digits)])
        at = begin + int(digits)
    pairs = itertools.pairwise(words)
    # A register has 73 bytes, an ask begins with a version.
    asks = (b"\x01\x00\x20", b"\x01\x64\x7a")
    return {name: box for name, box in pairs if len(name) == 32 and len(box) > 90 and box[:3] not in asks}


def test_a_recording_and_the_secret_open_no_box(store: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    one_time, published = KnownKeys(XWingKeyPair.from_seed), KnownKeys(KeyPair.from_private_key)
    published_seeds = KnownKeys(XWingKeyPair.from_seed)
    monkeypatch.setattr(door_module, "XWingKeyPair", one_time)
    (keys,) = GroupKeys.from_secret_text(SECRET.hex(), LABEL)
    group = GroupSecrets.of_secret(SECRET, LABEL)
    with tcp_proxy(store.port) as proxy:
        members = [member_of(proxy, keys, number, published, published_seeds) for number in range(3)]
        rotate(members, published)
        alive_one_time = [key for key, pair in zip(one_time.private, one_time.pairs, strict=True) if not pair.erased]
        alive = [key for key, pair in zip(published.private, published.pairs, strict=True) if not pair.erased]
        for member in members:
            member.close()
        recording = proxy.recording
        boxes = {name: box for sent in proxy.sent for name, box in boxes_in(bytes(sent)).items()}
    assert len(published.private) >= ROTATIONS
    assert len(boxes) >= ROTATIONS
    all_pairs: list[KeyPair | XWingKeyPair] = [*one_time.pairs, *published.pairs, *published_seeds.pairs]
    assert all(pair.erased for pair in all_pairs), "whoever leaves erases all"

    # With the one-time keys, all boxes open, and hold the private keys: this finds what there is to find.
    opened: dict[bytes, bytes] = {}
    by_name = {name_of(pair.public_key): key for key, pair in zip(one_time.private, one_time.pairs, strict=True)}
    # A member that nobody served at once also asked by an X25519 key.
    boxes = {name: box for name, box in boxes.items() if name in by_name}
    for name, box in boxes.items():
        opened[name] = group.open_xwing(XWingSecret(by_name[name]), box)
    for keys_of_kind in (published, published_seeds):
        found = {key for key in keys_of_kind.private if any(key in plaintext for plaintext in opened.values())}
        assert len(found) >= ROTATIONS

    # The members have erased those keys, up to the ones that no box was opened with yet.
    late = [name for name in boxes if by_name[name] in alive_one_time]
    assert len(alive_one_time) == len(members)
    in_late_boxes = {key for key in published.private if any(key in opened[name] for name in late)}
    assert in_late_boxes <= set(alive), "what can still be opened has not ended"
    assert len(alive) <= 4

    # With all that the store and the secret give, none opens.
    for key in (*published.private, *published_seeds.private, *one_time.private):
        assert key not in recording
        assert key.hex().encode() not in recording
    given = [SECRET, group.pre_shared_key, group.ask_key, group.register_key, (group.group_id * 2)]
    given += [pair.public_key for pair in all_pairs]
    for name, box in boxes.items():
        for private in (*given, box[:32], name, secrets.token_bytes(32)):
            for pair in (KeyPair.from_private_key(private[:32]), XWingKeyPair.from_seed(private[:32])):
                with pytest.raises(MalformedMessageError):
                    open_box(keys, pair, box)
        with pytest.raises(InvalidTag):
            group.open_xwing(XWingSecret(secrets.token_bytes(32)), box)


def member_of(
    proxy: TcpProxy,
    keys: GroupKeys,
    number: int,
    made: KnownKeys[KeyPair],
    made_xwing: KnownKeys[XWingKeyPair],
) -> Member:
    store = ValkeyStore(ValkeyUrl.parse(f"valkey://127.0.0.1:{proxy.port}"), keys.group_id, timeout_s=5)
    pace = Pace(SCHEDULE)
    door = Door(keys, store, Who(f"{number}", "host", number, "today"), clock=boot_time, life_s=pace.life_s)
    notices = Notices(store, across_hosts=False)
    maker = PairMaker(notices, clock=boot_time, generate=made.generate, generate_xwing=made_xwing.generate)
    return Member([door], pace, notices, maker, clock=boot_time)


def rotate(members: list[Member], made: KnownKeys[KeyPair]) -> None:
    """Let members look in turn, as often as they want to, until they made so many epochs."""
    until = time.monotonic() + 60
    while len(made.private) < ROTATIONS or any(len(member.epochs.held) < 2 for member in members):
        assert time.monotonic() < until
        for member in members:
            member.drop_ended()
            member.look()
        time.sleep(0.02)


VICTIM = """
import os, signal, sys, time
from server_keys._clock import boot_time
from server_keys._keys.schedule import Schedule
from server_keys._native import GroupKeys, KeyPair
from server_keys._sharing.door import Door
from server_keys._sharing.member import Member
from server_keys._sharing.messages import Who
from server_keys._sharing.notices import Notices
from server_keys._sharing.pace import Pace
from server_keys._sharing.pair_maker import PairMaker
from server_keys._sharing.valkey import ValkeyStore
from server_keys._sharing.valkey_url import ValkeyUrl
from tests.helpers.process_memory import reached

url, secret, pipe = sys.argv[1], sys.argv[2], int(sys.argv[3])
(keys,) = GroupKeys.from_secret_text(secret, b"recorded")

def generate():
    # No Python object ever holds this key but a buffer that is wiped.
    buffer = bytearray(32)
    assert os.readv(pipe, [buffer]) == 32
    pair = KeyPair.from_private_key(buffer)
    buffer[:] = bytes(32)
    return pair

pace = Pace(Schedule(0.5, 0.5))
store = ValkeyStore(ValkeyUrl.parse(url), keys.group_id, timeout_s=5)
door = Door(keys, store, Who("x", "host", os.getpid(), "today"), clock=boot_time, life_s=pace.life_s)
notices = Notices(store, across_hosts=False)
member = Member([door], pace, notices, PairMaker(notices, clock=boot_time, generate=generate), clock=boot_time)

def held():
    return " ".join(epoch.pair.public_key.hex() for epoch in member.epochs.held)

while (told := reached("looks", held())) != "stop":
    until = boot_time() + float(told)
    while boot_time() < until:
        member.drop_ended()
        member.look()
        time.sleep(member.next_look_in_s())
# Threads erase keys on time also now. None is to be erased while the test reads.
member.drop_ended()
print("stopped", held(), sep="\t", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_no_member_has_a_private_key_of_an_epoch_that_has_ended(store: StoreServer) -> None:
    known: dict[str, bytes] = {}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for _ in range(100):
        private = secrets.token_bytes(32)
        known[KeyPair.from_private_key(private).public_key.hex()] = private
        os.write(writing, private)
    with (
        victim_of(VICTIM, store.url, SECRET.hex(), str(reading), pass_fds=[reading]) as one,
        victim_of(VICTIM, store.url, SECRET.hex(), str(reading), pass_fds=[reading]) as other,
    ):
        one.run_to("looks")
        other.run_to("looks")
        seen: set[str] = set()
        for _ in range(8):
            with ThreadPoolExecutor() as both:
                for report in both.map(lambda victim: victim.run_to("looks", told="0.6"), (one, other)):
                    seen |= {*report.split()}
        assert len(seen) >= 5
        for victim in (one, other):
            victim.run_to("looks", told="0.6")
            held = {*victim.run_to("stopped", told="stop").split()}
            memory = b"\n".join(content for _, content in victim.contents())
            found = {public for public, private in known.items() if private in memory}
            assert found <= held, "a key has ended and is still there"
            assert found, "the search finds those that have not"
    os.close(reading)
    os.close(writing)
