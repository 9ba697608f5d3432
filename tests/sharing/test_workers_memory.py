"""All memory of all workers and all that was ever in their store is searched for private keys whose time is over."""

import contextlib
import hashlib
import os
import signal
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from server_keys import KeyPair
from server_keys._native import GroupKeys, MalformedMessageError, XWingKeyPair, open_box
from tests.helpers.many_calls import cached_key, calls_meanwhile
from tests.helpers.process_memory import Mapping, contents
from tests.helpers.trials import EPOCH, ONE_TIME, X25519_ONE_TIME, XWING_EPOCH, Keys, trial
from tests.sharing.test_workers import IS_LONG

EPOCHS = 100 if IS_LONG else 8
KEYS = Keys(period_s=0.5)
LATELY_S = 0.5
_HEADER = 16  # of an entry in the directory: two times


class Private(NamedTuple):
    """A private key that a worker made, as `traced_app.py` wrote it down."""

    kind: bytes
    made_at: float
    name: bytes
    """The public key of an X25519 pair, and the hash of an X-Wing pair's."""
    private_key: bytes
    """Or the seed."""

    @property
    def trace(self) -> bytes:
        """Bytes that X25519 uses as they are (RFC 7748, section 5), or a seed's, and that do not occur by chance."""
        return self.private_key[8:24]


_WRITTEN = struct.Struct(">cd32s32s")


def private_keys(folder: Path) -> list[Private]:
    return [Private(*fields) for fields in _WRITTEN.iter_unpack((folder / "private").read_bytes())]


def memory_of(pid: int) -> list[tuple[Mapping, bytes]]:
    """Return what a process can have written into its memory, while it is stopped."""
    os.kill(pid, signal.SIGSTOP)
    try:
        return [(mapping, content) for mapping, content in contents(pid) if "w" in mapping.permissions]
    finally:
        os.kill(pid, signal.SIGCONT)


@dataclass
class Recorder:
    """Keeps all that was in a directory: a thief who looks every few milliseconds."""

    folder: Path
    kept: dict[str, bytes] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.002):
            for entry in os.scandir(self.folder):
                if entry.name not in self.kept or not entry.name.startswith("box"):
                    try:
                        self.kept[entry.name] = Path(entry.path).read_bytes()
                    except FileNotFoundError:
                        continue


def opened(group: GroupKeys, key: Private, boxes: Iterable[bytes]) -> set[bytes]:
    """Return the names of all pairs of epochs that this one-time key opens."""
    make = XWingKeyPair.from_seed if key.kind == ONE_TIME else KeyPair.from_private_key
    pair, found = make(key.private_key), set()
    for box in boxes:
        with contextlib.suppress(MalformedMessageError):
            for _, x25519, xwing, _, _ in open_box(group, pair, box)[2]:
                found |= {x25519.public_key, *([hashlib.sha256(xwing.public_key).digest()] if xwing else [])}
    return found


def test_no_private_key_outlives_its_time_in_memory_or_under_a_key_that_is_left(tmp_path: Path) -> None:
    with trial(tmp_path, KEYS, app="tests.helpers.traced_app:app") as server:
        pids = server.workers(2)
        server.wait_for_one_ring(pids)
        folder = Path(server.state(pids[0]).more["store"])
        group = GroupKeys.of_name(folder.name.encode())
        with Recorder(folder) as recorder, calls_meanwhile(server.url, [cached_key], pause_s=0.05):
            server.wait_for_keys(EPOCHS + 1)
            searched = {}
            for pid in pids:
                began = server.now()
                memory = memory_of(pid)
                accepted = {
                    bytes.fromhex(name)
                    for event in server.of("keys", pid=pid)[-2:]
                    for name in (*event.more["accepted"], *event.more["accepted_xwing"])
                }
                searched[pid] = began, memory, accepted
        keys = private_keys(tmp_path)
    boxes = [body[_HEADER:] for name, body in recorder.kept.items() if name.startswith("box-")]
    one_time = [key for key in keys if key.kind in (ONE_TIME, X25519_ONE_TIME)]
    size = sum(len(content) for _, memory, _ in searched.values() for _, content in memory)
    print(f"{len(keys)} private keys and {len(boxes)} boxes seen, {size >> 20} MiB searched")
    # A thief of all one-time keys would have it all: so what follows can fail.
    assert len(boxes) >= EPOCHS / 2
    found_in_boxes = set[bytes]().union(*(opened(group, key, boxes) for key in one_time))
    for kind in (EPOCH, XWING_EPOCH):
        assert len(found_in_boxes & {key.name for key in keys if key.kind == kind}) >= EPOCHS / 2

    for began, memory, accepted in searched.values():
        found = {key: [m for m, content in memory if key.trace in content] for key in keys}
        held = {key for key, where in found.items() if where}
        assert all(mapping.is_protected for where in found.values() for mapping in where)
        # Keys are made and fetched all the time: of those of the last moments nobody has told yet.
        before = {key for key in keys if key.made_at < began - LATELY_S}
        epochs = {key for key in before if key.kind in (EPOCH, XWING_EPOCH)}
        assert {key.name for key in epochs & held} <= accepted
        for kind in (EPOCH, XWING_EPOCH):
            of_kind = {key for key in epochs if key.kind == kind}
            assert of_kind & held, "living ones are found"
            assert len(of_kind - held) >= EPOCHS - 4
        left = {key for key in held if key.kind in (ONE_TIME, X25519_ONE_TIME)}
        assert len(left) <= 2, "that of its ask, and the one before while it opens a box"
        living = {key.name for key in keys} - {key.name for key in epochs} | accepted
        for key in left:
            assert opened(group, key, boxes) <= living
    for name, body in recorder.kept.items():
        assert not [key for key in keys if key.trace in body], name
