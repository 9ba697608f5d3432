"""Boxes that are sealed with X-Wing: they hold both pairs of an epoch, and boxes to X25519 keys never hold a seed."""

import json
import os
import threading
from typing import Any

import pytest

from server_keys import KeyPair, MalformedMessageError
from server_keys._native import GroupKeys, XWingKeyPair, open_box, seal_boxes
from tests.helpers import group_boxes
from tests.helpers.group_boxes import POST_QUANTUM, VECTORS, X25519, Epoch, GroupSecrets, contents
from tests.helpers.wire_v1 import random_secret

SECRET = bytes(range(32))
SECRETS = GroupSecrets.of_secret(SECRET, b"label")
(GROUP,) = GroupKeys.from_secret_text(SECRET.hex(), b"label")
KEY, SEED = (X25519, bytes(range(32))), (POST_QUANTUM, bytes(range(1, 33)))


class OneTimeKey:
    """The same one-time key in the open, and in native memory."""

    def __init__(self) -> None:
        self.known = random_secret()
        self.native = XWingKeyPair.from_seed(self.known.seed)
        self.public_key = self.native.public_key


def malformed(box: bytes, one_time_key: XWingKeyPair | KeyPair, group: GroupKeys = GROUP) -> None:
    with pytest.raises(MalformedMessageError) as refused:
        open_box(group, one_time_key, box)
    assert refused.value.args == ("the sealed message is malformed, incomplete or not authentic",)


def test_the_known_answers_are_those_of_cryptography() -> None:
    assert json.loads((VECTORS / "xwing_box.json").read_text()) == group_boxes.xwing_box_vectors()


@pytest.mark.parametrize(
    "box", json.loads((VECTORS / "xwing_box.json").read_text())["boxes"], ids=lambda box: box["case"]
)
def test_boxes_of_the_known_answers_open(box: dict[str, Any]) -> None:
    vectors = json.loads((VECTORS / "xwing_box.json").read_text())
    (group,) = GroupKeys.from_secret_text(vectors["secret"], bytes.fromhex(vectors["label"]))
    one_time_key = XWingKeyPair.from_seed(bytes.fromhex(box["one_time_seed"]))
    expected = [
        (
            epoch["number"],
            KeyPair.from_private_key(bytes.fromhex(epoch["private_key"])),
            XWingKeyPair.from_seed(bytes.fromhex(epoch["seed"])) if epoch["seed"] else None,
            epoch["publish_in_ms"],
            epoch["ends_in_ms"],
        )
        for epoch in box["epochs"]
    ]
    assert open_box(group, one_time_key, bytes.fromhex(box["box"])) == (True, vectors["as_of_ms"], expected)


def test_cryptography_opens_what_is_sealed_and_finds_the_bytes_of_the_protocol() -> None:
    one_time_key, seeds = OneTimeKey(), [os.urandom(32) for _ in range(2)]
    private_keys = [os.urandom(32) for _ in range(3)]
    pairs: list[XWingKeyPair | None] = [*map(XWingKeyPair.from_seed, seeds), None]
    epochs = [
        (number, KeyPair.from_private_key(key), pair, -1, 1)
        for number, (key, pair) in enumerate(zip(private_keys, pairs, strict=True))
    ]
    (box,) = seal_boxes(GROUP, [one_time_key.public_key], whole=False, as_of_ms=7, epochs=epochs)
    assert box is not None
    keys: list[list[tuple[int, bytes]]] = [[(X25519, key)] for key in private_keys]
    for of_epoch, seed in zip(keys, seeds, strict=False):
        of_epoch.append((POST_QUANTUM, seed))
    expected = contents([Epoch(number, -1, 1, of) for number, of in enumerate(keys)], whole=0, as_of_ms=7)
    assert SECRETS.open_xwing(one_time_key.known, box) == expected
    assert open_box(GROUP, one_time_key.native, box) == (False, 7, epochs)


def test_a_box_to_an_x25519_key_holds_no_seed_and_a_seed_in_one_is_passed_over() -> None:
    one_time_key, pair, xwing_pair = KeyPair.generate(), KeyPair.generate(), XWingKeyPair.generate()
    both, bare = (
        seal_boxes(GROUP, [one_time_key.public_key], whole=True, as_of_ms=0, epochs=[(1, pair, other, 2, 3)])[0]
        for other in (xwing_pair, None)
    )
    assert both is not None
    assert bare is not None
    assert len(both) == len(bare)
    assert open_box(GROUP, one_time_key, both)[2] == [(1, pair, None, 2, 3)]
    # Whoever undoes X25519 has that seed, so it must not count.
    leaked = SECRETS.seal(one_time_key.public_key, contents([Epoch(1, 2, 3, [SEED, KEY])]))
    assert open_box(GROUP, one_time_key, leaked)[2] == [(1, KeyPair.from_private_key(KEY[1]), None, 2, 3)]


WRONG_CONTENTS = {
    "nothing": [],
    "a seed without a private key": [SEED],
    "two seeds": [KEY, SEED, SEED],
    "a short seed": [KEY, (POST_QUANTUM, bytes(31))],
    "a long seed": [KEY, (POST_QUANTUM, bytes(64))],
    "an empty seed": [KEY, (POST_QUANTUM, b"")],
    "two private keys": [KEY, KEY, SEED],
}


@pytest.mark.parametrize("wrong", WRONG_CONTENTS)
def test_a_member_that_seals_something_else_is_refused(wrong: str) -> None:
    one_time_key = OneTimeKey()
    plaintext = contents([Epoch(1, 2, 3, WRONG_CONTENTS[wrong])])
    malformed(SECRETS.seal_xwing(one_time_key.public_key, plaintext), one_time_key.native)


def test_contents_that_end_early_are_refused_wherever_they_end() -> None:
    one_time_key = OneTimeKey()
    whole = contents([Epoch(1, 2, 3, [SEED, KEY]), Epoch(2, 3, 4, [KEY])])
    assert open_box(GROUP, one_time_key.native, SECRETS.seal_xwing(one_time_key.public_key, whole))
    for length in range(len(whole)):
        malformed(SECRETS.seal_xwing(one_time_key.public_key, whole[:length]), one_time_key.native)


def test_a_box_opens_in_its_group_by_its_one_time_key_only() -> None:
    one_time_key, other_key = OneTimeKey(), OneTimeKey()
    box = SECRETS.seal_xwing(one_time_key.public_key, contents([Epoch(1, 2, 3, [KEY, SEED])]))
    (other_label,) = GroupKeys.from_secret_text(SECRET.hex(), b"other")
    for group in (other_label, GroupKeys.of_name(SECRET)):
        malformed(box, one_time_key.native, group)
    malformed(box, other_key.native)
    malformed(box, KeyPair.generate())
    for changed in ("pre_shared_key", "group_id"):
        stranger = GroupSecrets(**{**vars(SECRETS), changed: bytes(len(getattr(SECRETS, changed)))})
        forged = stranger.seal_xwing(one_time_key.public_key, contents([Epoch(1, 2, 3, [KEY, SEED])]))
        malformed(forged, one_time_key.native)
    for length in range(len(box)):
        malformed(box[:length], one_time_key.native)
    small_order = json.loads((VECTORS / "small_order_points.json").read_text())["points"]
    for point in small_order:
        malformed(box[:1088] + bytes.fromhex(point["public_key"]) + box[1120:], one_time_key.native)
    open_box(GROUP, one_time_key.native, box)


def test_keys_that_nothing_can_be_sealed_to_get_none_and_cost_the_others_nothing() -> None:
    one_time_key, pair, xwing_pair = OneTimeKey(), KeyPair.generate(), XWingKeyPair.generate()
    small_order = json.loads((VECTORS / "small_order_points.json").read_text())["points"]
    wrong = [one_time_key.public_key[:1184] + bytes.fromhex(point["public_key"]) for point in small_order]
    wrong += [bytes(1184), bytes(1215), bytes(1217), b"\xff" * 1216, b""]
    boxes = seal_boxes(
        GROUP, [*wrong, one_time_key.public_key], whole=True, as_of_ms=0, epochs=[(1, pair, xwing_pair, 2, 3)]
    )
    assert boxes[:-1] == [None] * len(wrong)
    assert boxes[-1] is not None
    assert open_box(GROUP, one_time_key.native, boxes[-1])[2] == [(1, pair, xwing_pair, 2, 3)]


def test_a_thousand_boxes_are_small_and_sealed_off_the_gil() -> None:
    one_time_key = XWingKeyPair.generate()
    epochs = [(number, KeyPair.generate(), XWingKeyPair.generate(), 2, 3) for number in range(3)]
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
        boxes = seal_boxes(GROUP, [one_time_key.public_key] * 1000, whole=True, as_of_ms=0, epochs=epochs)
        during = turns - before
    finally:
        stop.set()
        other.join(10)
    assert during > 1000
    # With an ask of 1.4 KB for each of a thousand members there is room for them in 3 MiB.
    assert sum(len(box or b"") for box in boxes) < 1.5 * 2**20
    assert len({box[:1120] for box in boxes if box}) == 1000
    for box in boxes[::100]:
        assert box is not None
        assert open_box(GROUP, one_time_key, box) == (True, 0, epochs)
