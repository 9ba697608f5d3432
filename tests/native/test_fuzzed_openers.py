"""The openers and the readers of boxes, fed what nobody sealed: each refuses it, none crashes, memory stays flat."""

import resource
from collections.abc import Callable

from server_keys import FrameTooLargeError, InvalidPublicKeyError, KeyPair, MalformedMessageError
from server_keys._native import (
    GroupKeys,
    RequestOpener,
    RequestOpenerV1,
    RequestSealer,
    RequestSealerV1,
    XWingKeyPair,
    open_box,
    seal_boxes,
)
from server_keys.errors import KeyMismatchError
from tests.helpers.changed_bytes import RANDOM, changed

REFUSALS = (MalformedMessageError, FrameTooLargeError, KeyMismatchError, InvalidPublicKeyError)
MEBIBYTE = 2**20


def refuses_all(parse: Callable[[bytes], object], whole: bytes, count: int) -> None:
    """Feed that many changed messages, and whole ones now and then; memory must not grow with their number."""
    peak_kib = 0
    for round_ in range(count):
        if round_ % 1000 == 0:
            parse(whole)
        if round_ == count // 2:
            peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        message = changed(whole)
        try:
            parse(message)
        except REFUSALS:
            continue
        assert message == whole, f"this was taken for whole: {message.hex()}"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib < 8 * 1024


def in_pieces(feed: Callable[[bytes], bytes], body: bytes) -> None:
    for _ in range(RANDOM.randrange(4)):
        cut = RANDOM.randrange(len(body) + 1)
        feed(body[:cut])
        body = body[cut:]
    feed(body)


def test_bodies_of_requests_and_responses_of_version_1() -> None:
    pair = XWingKeyPair.generate()
    sealer = RequestSealerV1(pair.public_key)
    head = sealer.seal_head(b"POST /path")
    request = b"".join([sealer.seal(b"{"), sealer.seal(b"}" * 100), sealer.seal_end()])
    response = RequestOpenerV1(sealer.encapsulated_key, head, pair).response_sealer()
    nonce, response_head = response.response_nonce, response.seal_head(b"200")
    answer = b"".join([response.seal(b"{"), response.seal(b"}" * 100), response.seal_end()])

    def parse_answer(body: bytes) -> None:
        opener = sealer.response_opener(nonce, response_head, max_frame_bytes=MEBIBYTE)
        in_pieces(opener.feed, body)
        opener.finish()

    def parse_request(body: bytes) -> None:
        opener = RequestOpenerV1(sealer.encapsulated_key, head, pair, max_frame_bytes=MEBIBYTE)
        in_pieces(opener.feed, body)
        opener.finish()

    refuses_all(parse_answer, answer, 180_000)
    refuses_all(parse_request, request, 10_000)


def test_heads_encapsulated_keys_and_public_keys_of_version_1() -> None:
    pair = XWingKeyPair.generate()
    sealer = RequestSealerV1(pair.public_key)
    encapsulated_key, head = sealer.encapsulated_key, sealer.seal_head(b"POST /path")
    response = RequestOpenerV1(encapsulated_key, head, pair).response_sealer()
    nonce, response_head = response.response_nonce, response.seal_head(b"200")
    refuses_all(lambda wrong: RequestOpenerV1(encapsulated_key, wrong, pair), head, 10_000)
    refuses_all(lambda wrong: RequestOpenerV1(wrong, head, pair), encapsulated_key, 10_000)
    refuses_all(lambda wrong: sealer.response_opener(wrong[:32], wrong[32:]), nonce + response_head, 100_000)

    def seal_to(public_key: bytes) -> None:
        # Many changed keys are keys, too: nothing but their length and their form can be wrong.
        if len(public_key) != 1216:
            RequestSealerV1(public_key)
            raise AssertionError(f"a key of {len(public_key)} bytes was taken")
        try:
            RequestSealerV1(public_key)
        finally:
            if public_key != pair.public_key:
                raise InvalidPublicKeyError

    refuses_all(seal_to, pair.public_key, 5_000)


def test_bodies_of_ehbp() -> None:
    pair = KeyPair.generate()
    sealer = RequestSealer(pair.public_key)
    body = sealer.seal(b"{}" * 20)

    def parse(wrong: bytes) -> None:
        opener = RequestOpener(sealer.encapsulated_key, [pair], max_frame_bytes=MEBIBYTE)
        opened = opener.feed(wrong)
        opener.finish()
        if wrong != body:
            # Frames without content may be added, and nothing else.
            assert opened == b"{}" * 20
            raise MalformedMessageError

    refuses_all(parse, body, 20_000)


def test_boxes_of_both_kinds() -> None:
    group, pair, xwing_pair = GroupKeys.of_name(b"name"), KeyPair.generate(), XWingKeyPair.generate()
    for one_time_key in (KeyPair.generate(), XWingKeyPair.generate()):
        (box,) = seal_boxes(
            group, [one_time_key.public_key], whole=True, as_of_ms=0, epochs=[(1, pair, xwing_pair, 2, 3)]
        )
        assert box is not None
        refuses_all(lambda wrong, key=one_time_key: open_box(group, key, wrong), box, 5_000)  # type: ignore[misc]
