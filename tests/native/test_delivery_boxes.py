"""Boxes: what a member of a group seals to another one's one-time key is opened by that key and by nothing else."""

import json
import threading
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from server_keys import KeyErasedError, KeyPair, MalformedMessageError, generate_key_pairs
from server_keys._native import GroupKeys, XWingKeyPair, open_box, seal_boxes
from tests.helpers import group_boxes
from tests.helpers.group_boxes import POST_QUANTUM, VECTORS, X25519, Epoch, GroupSecrets, contents

SECRET = bytes(range(32))
SECRETS = GroupSecrets.of_secret(SECRET, b"label")
(GROUP,) = GroupKeys.from_secret_text(SECRET.hex(), b"label")


class OneTimeKey:
    """The same one-time key here, for pyhpke, and in native memory."""

    def __init__(self) -> None:
        self.known = X25519PrivateKey.generate()
        self.native = KeyPair.from_private_key(self.known.private_bytes_raw())
        self.public_key = self.native.public_key


def sealed(
    one_time_key: bytes, *epochs: tuple[int, KeyPair, XWingKeyPair | None, int, int], group: GroupKeys = GROUP
) -> bytes:
    (box,) = seal_boxes(group, [one_time_key], whole=True, as_of_ms=0, epochs=epochs)
    assert box is not None
    return box


def malformed(box: bytes, one_time_key: KeyPair, group: GroupKeys = GROUP) -> None:
    with pytest.raises(MalformedMessageError) as refused:
        open_box(group, one_time_key, box)
    # Always the same error: it does not say which step failed.
    assert refused.value.args == ("the sealed message is malformed, incomplete or not authentic",)


def belongs_together(pair: KeyPair, private_key: bytes) -> bool:
    peer = KeyPair.generate()
    return pair.exchange(peer.public_key) == KeyPair.from_private_key(private_key).exchange(peer.public_key)


def test_the_known_answers_are_those_of_pyhpke() -> None:
    assert json.loads((VECTORS / "box.json").read_text()) == group_boxes.box_vectors()


@pytest.mark.parametrize("box", json.loads((VECTORS / "box.json").read_text())["boxes"], ids=lambda box: box["case"])
def test_boxes_of_the_known_answers_open(box: dict[str, Any]) -> None:
    vectors = json.loads((VECTORS / "box.json").read_text())
    (group,) = GroupKeys.from_secret_text(vectors["secret"], bytes.fromhex(vectors["label"]))
    one_time_key = KeyPair.from_private_key(bytes.fromhex(box["one_time_private_key"]))
    whole, as_of_ms, epochs = open_box(group, one_time_key, bytes.fromhex(box["box"]))
    assert (whole, as_of_ms) == (box["whole"], box["as_of_ms"])
    assert len(epochs) == len(box["epochs"])
    for (number, pair, xwing_pair, publish_in_ms, ends_in_ms), known in zip(epochs, box["epochs"], strict=True):
        assert (number, publish_in_ms, ends_in_ms) == (known["number"], known["publish_in_ms"], known["ends_in_ms"])
        assert belongs_together(pair, bytes.fromhex(known["private_key"]))
        assert xwing_pair is None


def test_pyhpke_opens_what_is_sealed_and_finds_the_bytes_of_the_protocol() -> None:
    keys = [X25519PrivateKey.generate() for _ in range(3)]
    pairs = [KeyPair.from_private_key(key.private_bytes_raw()) for key in keys]
    times = [(2**64 - 1, 2**63 - 1, 2**64 - 1), (0, -(2**63), 0), (7, -1, 1)]
    one_time_keys = [OneTimeKey() for _ in range(3)]
    for whole in (False, True):
        boxes = seal_boxes(
            GROUP,
            [one_time_key.public_key for one_time_key in one_time_keys],
            whole=whole,
            as_of_ms=2**64 - 1,
            epochs=[(number, pair, None, *rest) for (number, *rest), pair in zip(times, pairs, strict=True)],  # type: ignore[misc]
        )
        expected = contents(
            [Epoch(*time, [(X25519, key.private_bytes_raw())]) for time, key in zip(times, keys, strict=True)],
            whole=whole,
            as_of_ms=2**64 - 1,
        )
        for box, one_time_key in zip(boxes, one_time_keys, strict=True):
            assert box is not None
            assert SECRETS.open(one_time_key.known, box) == expected
            assert open_box(GROUP, one_time_key.native, box) == (
                whole,
                2**64 - 1,
                [(number, pair, None, *rest) for (number, *rest), pair in zip(times, pairs, strict=True)],
            )


def test_a_group_of_a_name_seals_and_opens_too() -> None:
    one_time_key, pair = OneTimeKey(), KeyPair.generate()
    box = sealed(one_time_key.public_key, (1, pair, None, 2, 3), group=GroupKeys.of_name(b"name"))
    assert GroupSecrets.of_name(b"name").open(one_time_key.known, box)
    assert open_box(GroupKeys.of_name(b"name"), one_time_key.native, box) == (True, 0, [(1, pair, None, 2, 3)])


def test_no_part_of_a_box_opens_and_no_box_with_a_changed_bit() -> None:
    one_time_key = OneTimeKey()
    box = sealed(one_time_key.public_key, (1, KeyPair.generate(), None, 2, 3))
    for length in range(len(box)):
        malformed(box[:length], one_time_key.native)
    malformed(box + b"\0", one_time_key.native)
    # The curve ignores the highest bit of a public key (RFC 7748, section 5), but the key schedule does not.
    for index in range(len(box)):
        for bit in (1, 0x80):
            malformed(box[:index] + bytes([box[index] ^ bit]) + box[index + 1 :], one_time_key.native)


def test_a_box_opens_in_its_group_by_its_one_time_key_only() -> None:
    one_time_key, other_key = OneTimeKey(), OneTimeKey()
    box = sealed(one_time_key.public_key, (1, KeyPair.generate(), None, 2, 3))
    (other_label,) = GroupKeys.from_secret_text(SECRET.hex(), b"other")
    (other_secret,) = GroupKeys.from_secret_text("ab" * 32, b"label")
    for group in (other_label, other_secret, GroupKeys.of_name(SECRET)):
        malformed(box, one_time_key.native, group)
    malformed(box, other_key.native)
    open_box(GROUP, one_time_key.native, box)


@pytest.mark.parametrize("changed", ["group_id", "pre_shared_key"])
def test_the_id_and_the_key_of_the_group_both_count(changed: str) -> None:
    one_time_key = OneTimeKey()
    plaintext = contents([Epoch(1, 2, 3, [(X25519, bytes(range(32)))])])
    assert open_box(GROUP, one_time_key.native, SECRETS.seal(one_time_key.public_key, plaintext))
    stranger = GroupSecrets(**{**vars(SECRETS), changed: bytes(len(getattr(SECRETS, changed)))})
    malformed(stranger.seal(one_time_key.public_key, plaintext), one_time_key.native)


KEY = (X25519, bytes(range(32)))
WRONG_CONTENTS = {
    "nothing": b"",
    "another version": contents([Epoch(1, 2, 3, [KEY])], version=2),
    "version 0": contents([Epoch(1, 2, 3, [KEY])], version=0),
    "a flag of 2": contents([Epoch(1, 2, 3, [KEY])], whole=2),
    "no epoch": contents([]),
    "nine epochs": contents([Epoch(number, 2, 3, [KEY]) for number in range(9)]),
    "255 epochs": contents([Epoch(number, 2, 3, [KEY]) for number in range(255)]),
    "an epoch without a key": contents([Epoch(1, 2, 3, [KEY]), Epoch(2, 3, 4, [])]),
    "an epoch with a later kind of key only": contents([Epoch(1, 2, 3, [(POST_QUANTUM, bytes(64))])]),
    "five keys": contents([Epoch(1, 2, 3, [KEY, *[(POST_QUANTUM, b"")] * 4])]),
    "the same kind twice": contents([Epoch(1, 2, 3, [KEY, KEY])]),
    "a key of 31 bytes": contents([Epoch(1, 2, 3, [(X25519, bytes(31))])]),
    "a key of 33 bytes": contents([Epoch(1, 2, 3, [(X25519, bytes(33))])]),
    "an empty key": contents([Epoch(1, 2, 3, [(X25519, b"")])]),
    "a byte too many": contents([Epoch(1, 2, 3, [KEY])]) + b"\0",
    "a count above what is there": contents([Epoch(1, 2, 3, [KEY])])[:10]
    + b"\2"
    + contents([Epoch(1, 2, 3, [KEY])])[11:],
}


@pytest.mark.parametrize("wrong", WRONG_CONTENTS)
def test_a_member_that_seals_something_else_is_refused(wrong: str) -> None:
    one_time_key = OneTimeKey()
    malformed(SECRETS.seal(one_time_key.public_key, WRONG_CONTENTS[wrong]), one_time_key.native)


def test_contents_that_end_early_are_refused_wherever_they_end() -> None:
    one_time_key = OneTimeKey()
    whole = contents([Epoch(1, 2, 3, [(POST_QUANTUM, bytes(5)), KEY]), Epoch(2, 3, 4, [KEY])])
    assert open_box(GROUP, one_time_key.native, SECRETS.seal(one_time_key.public_key, whole))
    for length in range(len(whole)):
        malformed(SECRETS.seal(one_time_key.public_key, whole[:length]), one_time_key.native)


def test_as_much_as_is_allowed_opens_and_kinds_of_keys_that_come_later_are_passed_over() -> None:
    one_time_key = OneTimeKey()
    later = [(POST_QUANTUM, bytes(64)), (0xFFFF, b""), (0, bytes(1800))]
    plaintext = contents([Epoch(number, 2, 3, [*later, KEY]) for number in range(8)])
    pair = KeyPair.from_private_key(KEY[1])
    box = SECRETS.seal(one_time_key.public_key, plaintext)
    assert open_box(GROUP, one_time_key.native, box)[2] == [(number, pair, None, 2, 3) for number in range(8)]


def test_a_box_may_have_16_kib_and_no_byte_more() -> None:
    one_time_key = OneTimeKey()
    bare = len(contents([Epoch(1, 2, 3, [KEY, (POST_QUANTUM, b"")])])) + 48
    for length, opens in ((16 * 1024, True), (16 * 1024 + 1, False)):
        plaintext = contents([Epoch(1, 2, 3, [KEY, (POST_QUANTUM, bytes(length - bare))])])
        box = SECRETS.seal(one_time_key.public_key, plaintext)
        assert len(box) == length
        if opens:
            assert len(open_box(GROUP, one_time_key.native, box)[2]) == 1
        else:
            malformed(box, one_time_key.native)


@pytest.mark.parametrize("count", [0, 9, 300])
def test_none_and_more_than_eight_epochs_are_not_sealed(count: int) -> None:
    pair = KeyPair.generate()
    with pytest.raises(ValueError, match=f"a box holds 1 to 8 epochs, not {count}"):
        seal_boxes(GROUP, [pair.public_key], whole=True, as_of_ms=0, epochs=[(1, pair, None, 0, 0)] * count)


def test_a_key_that_nothing_can_be_sealed_to_gets_none_and_costs_the_others_nothing() -> None:
    one_time_keys = [OneTimeKey() for _ in range(2)]
    small_order = json.loads((VECTORS / "small_order_points.json").read_text())["points"]
    wrong = [bytes.fromhex(point["public_key"]) for point in small_order]
    wrong += [b"", bytes(range(31)), bytes(range(33)), bytes(range(64)), bytes(100_000)]
    first, second = (one_time_key.public_key for one_time_key in one_time_keys)
    pair = KeyPair.generate()
    boxes = seal_boxes(GROUP, [first, *wrong, second], whole=True, as_of_ms=0, epochs=[(1, pair, None, 2, 3)])
    assert boxes[1:-1] == [None] * len(wrong)
    for one_time_key, box in zip(one_time_keys, (boxes[0], boxes[-1]), strict=True):
        assert box is not None
        assert open_box(GROUP, one_time_key.native, box)[2] == [(1, pair, None, 2, 3)]
    for point in small_order:
        malformed(bytes.fromhex(point["public_key"]) + bytes(100), one_time_keys[0].native)
    assert seal_boxes(GROUP, [], whole=True, as_of_ms=0, epochs=[(1, pair, None, 2, 3)]) == []


def test_nothing_is_sealed_when_one_pair_is_erased_and_no_box_opens_by_an_erased_key() -> None:
    one_time_key, living, erased = OneTimeKey(), KeyPair.generate(), KeyPair.generate()
    box = sealed(one_time_key.public_key, (1, erased, None, 2, 3))
    erased.erase()
    for epochs in ([(1, erased, None, 2, 3)], [(1, living, None, 2, 3), (2, erased, None, 2, 3)]):
        with pytest.raises(KeyErasedError):
            seal_boxes(GROUP, [one_time_key.public_key], whole=True, as_of_ms=0, epochs=epochs)
    ((_, delivered, _, _, _),) = open_box(GROUP, one_time_key.native, box)[2]
    assert delivered == erased
    assert not delivered.erased
    one_time_key.native.erase()
    with pytest.raises(KeyErasedError):
        open_box(GROUP, one_time_key.native, box)


@pytest.mark.parametrize(
    ("as_of_ms", "number", "publish_in_ms", "ends_in_ms"),
    [(-1, 1, 0, 0), (2**64, 1, 0, 0), (0, -1, 0, 0), (0, 2**64, 0, 0), (0, 1, 2**63, 0), (0, 1, 0, -1)],
)
def test_a_number_out_of_its_range_is_an_overflow(
    as_of_ms: int, number: int, publish_in_ms: int, ends_in_ms: int
) -> None:
    epoch = (number, KeyPair.generate(), None, publish_in_ms, ends_in_ms)
    with pytest.raises(OverflowError):
        seal_boxes(GROUP, [], whole=True, as_of_ms=as_of_ms, epochs=[epoch])


def test_each_box_has_a_key_of_its_own() -> None:
    one_time_key = KeyPair.generate()
    boxes = seal_boxes(
        GROUP, [one_time_key.public_key] * 50, whole=True, as_of_ms=0, epochs=[(1, KeyPair.generate(), None, 2, 3)]
    )
    assert None not in boxes
    assert len({box[:32] for box in boxes if box}) == 50


def test_a_thousand_members_are_served_off_the_gil() -> None:
    members = generate_key_pairs(1000)
    epochs = [(number, KeyPair.generate(), None, 2, 3) for number in range(3)]
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
        boxes = seal_boxes(GROUP, [member.public_key for member in members], whole=True, as_of_ms=0, epochs=epochs)
        during = turns - before
    finally:
        stop.set()
        other.join(10)
    # With the GIL held, the other thread would have no turn but those around the call.
    assert during > 1000
    for member, box in zip(members, boxes, strict=True):
        assert box is not None
        assert open_box(GROUP, member, box) == (True, 0, epochs)
