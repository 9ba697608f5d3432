"""The wire's version 1: what this package seals others open, and they for it; nothing but what is whole opens."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag

from server_keys import FrameTooLargeError, InvalidPublicKeyError, MalformedMessageError, MissingEndError
from server_keys._native import RequestOpenerV1, RequestSealerV1, ResponseOpenerV1, XWingKeyPair, XWingPublicKey
from server_keys.errors import KeyMismatchError
from tests.helpers import wire_v1
from tests.helpers.wire_v1 import VECTORS, Request, XWingSecret, random_secret, read_messages

MALFORMED = "the sealed message is malformed, incomplete or not authentic"
SMALL_ORDER = [
    bytes.fromhex(point["public_key"])
    for point in json.loads((VECTORS / "small_order_points.json").read_text())["points"]
]
Opener = RequestOpenerV1 | ResponseOpenerV1


class Server:
    """A key pair in native memory, and the same in the open."""

    def __init__(self) -> None:
        self.known = random_secret()
        self.pair = XWingKeyPair.from_seed(self.known.seed)

    def opener(self, request: Request, head: bytes = b"head") -> RequestOpenerV1:
        return RequestOpenerV1(request.encapsulated_key, request.cipher.seal(0, head), self.pair)


def malformed(use: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(MalformedMessageError) as refused:
        use(*arguments)
    # Always the same error: it does not say which step failed.
    assert type(refused.value) is MalformedMessageError
    assert refused.value.args == (MALFORMED,)


def both_directions() -> list[tuple[bytes, Callable[[], Opener]]]:
    """A request's body and a response's, of two pieces each, with a maker of openers."""
    server = Server()
    request = Request.drawn_for(server.pair.public_key)
    sealer = RequestSealerV1(server.pair.public_key)
    response = RequestOpenerV1(sealer.encapsulated_key, sealer.seal_head(b""), server.pair).response_sealer()
    nonce, head = response.response_nonce, response.seal_head(b"200")
    pieces = [b"first", b"\0" * 40]
    answer = b"".join([response.seal(piece) for piece in pieces] + [response.seal_end()])
    return [
        (request.cipher.body(pieces), lambda: server.opener(request)),
        (answer, lambda: sealer.response_opener(nonce, head)),
    ]


DIRECTIONS = pytest.mark.parametrize(("body", "opener"), both_directions(), ids=["request", "response"])


def test_the_known_answers_are_those_of_cryptography() -> None:
    assert json.loads((VECTORS / "wire_v1.json").read_text()) == wire_v1.wire_vectors()
    for vector in wire_v1.xwing_vectors():
        secret = XWingSecret(vector["seed"])
        assert secret.public_key == vector["pk"]
        assert secret.decapsulated(vector["ct"]) == vector["ss"]


@pytest.mark.parametrize("known", [*read_messages("wire_v1.json"), *read_messages("wire_v1_go.json")])
def test_known_answers_open(known: dict[str, Any]) -> None:
    pair = XWingKeyPair.from_seed(known["seed"])
    assert pair.public_key == known["public_key"]
    opener = RequestOpenerV1(known["encapsulated_key"], known["sealed_head"], pair)
    assert (opener.head, opener.replay_id) == (known["head"], known["replay_id"])
    assert opener.feed(known["body"]) == b"".join(known["pieces"])
    opener.finish()
    # Go's answers are those of cryptography.
    request = Request.received(known["encapsulated_key"], XWingSecret(known["seed"]))
    assert (request.replay_id, request.exported) == (known["replay_id"], known["exported"])
    response = request.response_cipher(known["response_nonce"])
    assert response.open(0, known["sealed_response_head"]) == known["response_head"]
    assert response.opened(known["response_body"]) == [*known["response_pieces"], b""]


def test_cryptography_opens_what_is_sealed() -> None:
    server = Server()
    for pieces in ([], [b"question"], [b"a", b"", bytes(100_000), b"b"]):
        sealer = RequestSealerV1(server.pair.public_key)
        assert len(sealer.encapsulated_key) == 1120
        head = sealer.seal_head(b"POST /path?query")
        body = b"".join([sealer.seal(piece) for piece in pieces] + [sealer.seal_end()])
        request = Request.received(sealer.encapsulated_key, server.known)
        assert request.cipher.open(0, head) == b"POST /path?query"
        assert request.cipher.opened(body) == [*filter(None, pieces), b""]

        opener = RequestOpenerV1(sealer.encapsulated_key, head, server.pair)
        assert opener.replay_id == request.replay_id
        response = opener.response_sealer()
        assert len(response.response_nonce) == 32
        known = request.response_cipher(response.response_nonce)
        sealed_head = response.seal_head(b"200")
        assert known.open(0, sealed_head) == b"200"
        body = b"".join([response.seal(piece) for piece in pieces] + [response.seal_end()])
        assert known.opened(body) == [*filter(None, pieces), b""]
        reader = sealer.response_opener(response.response_nonce, sealed_head)
        assert reader.head == b"200"
        assert reader.feed(body) == b"".join(pieces)
        reader.finish()


def test_no_two_messages_have_a_key_or_a_replay_id_in_common() -> None:
    server = Server()
    sealers = [RequestSealerV1(server.pair.public_key) for _ in range(50)]
    assert len({sealer.encapsulated_key for sealer in sealers}) == 50
    openers = [RequestOpenerV1(one.encapsulated_key, one.seal_head(b"head"), server.pair) for one in sealers]
    assert len({opener.replay_id for opener in openers}) == 50
    assert len({openers[0].response_sealer().response_nonce for _ in range(50)}) == 50


@DIRECTIONS
def test_a_body_that_is_cut_anywhere_raises(body: bytes, opener: Callable[[], Opener]) -> None:
    for length in range(len(body)):
        cut = opener()
        assert cut.feed(body[:length]) in (b"", b"first", b"first" + bytes(40))
        assert not cut.ended
        with pytest.raises(MissingEndError, match="ended before its end frame came: it was cut on its way"):
            cut.finish()
        malformed(cut.finish)
        malformed(cut.feed, body[length:])
    whole = opener()
    for start in range(len(body)):
        assert not whole.ended
        whole.feed(body[start : start + 1])
    assert whole.ended
    whole.finish()


@DIRECTIONS
def test_nothing_follows_the_end(body: bytes, opener: Callable[[], Opener]) -> None:
    for more in (b"\0", bytes(4), body[-20:], body[:25], b"\xff" * 100):
        malformed(opener().feed, body + more)
        ended = opener()
        ended.feed(body)
        assert ended.ended
        assert ended.feed(b"") == b""
        malformed(ended.feed, more)
        malformed(ended.finish)


@DIRECTIONS
def test_frames_that_are_left_out_repeated_or_moved_do_not_open(body: bytes, opener: Callable[[], Opener]) -> None:
    first, second, end = body[:25], body[25:-20], body[-20:]
    for order in ([end], [first, end], [end, second], [second, first, end], [first, first, end], [end, end]):
        malformed(opener().feed, b"".join(order))


@DIRECTIONS
def test_a_frame_without_room_for_a_tag_and_one_above_the_limit_are_refused(
    body: bytes, opener: Callable[[], Opener]
) -> None:
    for length in range(16):
        for before in (b"", body[:25]):
            malformed(opener().feed, before + length.to_bytes(4, "big"))
    with pytest.raises(FrameTooLargeError, match="16777217 bytes, more than the limit of 16777216"):
        opener().feed((2**24 + 1).to_bytes(4, "big"))


def test_an_end_in_the_middle_ends_the_body() -> None:
    server = Server()
    request = Request.drawn_for(server.pair.public_key)
    frames = [request.cipher.frame(number, piece) for number, piece in enumerate([b"a", b"", b"b", b""], start=1)]
    malformed(server.opener(request).feed, b"".join(frames))
    opener = server.opener(request)
    assert opener.feed(frames[0] + frames[1]) == b"a"
    malformed(opener.feed, frames[2])


@DIRECTIONS
def test_a_head_that_announces_no_body_gets_none(body: bytes, opener: Callable[[], Opener]) -> None:
    without = opener()
    for _ in range(2):
        without.expect_no_body()
    assert without.ended
    assert without.feed(b"") == b""
    without.finish()
    for piece in (body[:1], body[-20:], body):
        without = opener()
        without.expect_no_body()
        malformed(without.feed, piece)
        malformed(without.finish)
    late = opener()
    late.feed(body[:1])
    malformed(late.expect_no_body)


def test_heads_that_are_swapped_forged_or_cut_do_not_open() -> None:
    server = Server()
    first, second = (Request.drawn_for(server.pair.public_key) for _ in range(2))
    head = first.cipher.seal(0, b"GET /path end")
    for encapsulated_key, wrong in (
        (first.encapsulated_key, second.cipher.seal(0, b"GET /path end")),
        (second.encapsulated_key, head),
        (first.encapsulated_key, first.cipher.seal(1, b"GET /path end")),
        (first.encapsulated_key, head[:-1]),
        (first.encapsulated_key, head + b"\0"),
        (first.encapsulated_key, bytes(4000)),
        (bytes(1088) + b"\x09" + bytes(31), head),
        (b"\xff" * 1088 + first.encapsulated_key[1088:], head),
    ):
        with pytest.raises(KeyMismatchError, match="the request opens under none of the accepted keys"):
            RequestOpenerV1(encapsulated_key, wrong, server.pair)
    with pytest.raises(KeyMismatchError):
        RequestOpenerV1(first.encapsulated_key, head, XWingKeyPair.generate())
    for length in range(16):
        malformed(RequestOpenerV1, first.encapsulated_key, head[:length], server.pair)
    for length in (0, 32, 1119, 1121, 10_000):
        malformed(RequestOpenerV1, bytes(length), head, server.pair)


@pytest.mark.parametrize("point", SMALL_ORDER, ids=bytes.hex)
def test_an_x25519_half_of_small_order_is_refused(point: bytes) -> None:
    server = Server()
    sealer = RequestSealerV1(server.pair.public_key)
    head = sealer.seal_head(b"head")
    malformed(RequestOpenerV1, sealer.encapsulated_key[:1088] + point, head, server.pair)
    for form in (bytes, XWingPublicKey):
        with pytest.raises(InvalidPublicKeyError, match="a point of small order"):
            RequestSealerV1(form(server.pair.public_key[:1184] + point))


@pytest.mark.parametrize("takes_public_key", [RequestSealerV1, XWingPublicKey])
@pytest.mark.parametrize("length", [0, 32, 1184, 1215, 1217, 100_000])
def test_a_public_key_of_another_length_is_refused(takes_public_key: Callable[[bytes], object], length: int) -> None:
    with pytest.raises(InvalidPublicKeyError, match=f"an X-Wing public key has 1216 bytes, this one has {length}:"):
        takes_public_key(bytes(length))


@pytest.mark.parametrize("takes_public_key", [RequestSealerV1, XWingPublicKey])
def test_a_public_key_with_numbers_that_are_not_reduced_is_refused(takes_public_key: Callable[[bytes], object]) -> None:
    public_key = XWingKeyPair.generate().public_key
    for index in (0, 3 * 200, 1149):
        with pytest.raises(InvalidPublicKeyError, match="the ML-KEM half of the public key has numbers that are not"):
            takes_public_key(public_key[:index] + b"\xff\xff\xff" + public_key[index + 3 :])


def test_one_public_key_serves_many_requests_in_many_threads_each_with_keys_of_its_own() -> None:
    server = Server()
    ready = XWingPublicKey(bytearray(server.pair.public_key))
    with ThreadPoolExecutor(4) as threads:
        sealers = list(threads.map(lambda _: RequestSealerV1(ready), range(40)))
    assert len({sealer.encapsulated_key for sealer in sealers}) == 40
    for sealer in sealers:
        opener = RequestOpenerV1(sealer.encapsulated_key, sealer.seal_head(b"head"), server.pair)
        assert (opener.head, opener.feed(sealer.seal(b"question"))) == (b"head", b"question")


def test_heads_and_nonces_of_responses_belong_together() -> None:
    server = Server()
    sealer = RequestSealerV1(server.pair.public_key)
    request_head = sealer.seal_head(b"200")
    opener = RequestOpenerV1(sealer.encapsulated_key, request_head, server.pair)
    responses = [opener.response_sealer() for _ in range(2)]
    (first, head), (second, other) = ((response.response_nonce, response.seal_head(b"200")) for response in responses)
    assert sealer.response_opener(first, head).head == b"200"
    for nonce, wrong in ((first, other), (second, head), (first, request_head), (first, b""), (first, head[:-1])):
        malformed(sealer.response_opener, nonce, wrong)
    for nonce in (b"", first[:-1], first + b"\0"):
        malformed(sealer.response_opener, nonce, head)
    stranger = RequestSealerV1(server.pair.public_key)
    malformed(stranger.response_opener, first, head)


def test_parts_are_sealed_in_their_order_only() -> None:
    server = Server()

    def out_of_order(seal: Callable[..., object], *arguments: bytes) -> None:
        with pytest.raises(RuntimeError, match="its head once, then its body, then its end once"):
            seal(*arguments)

    sealer = RequestSealerV1(server.pair.public_key)
    out_of_order(sealer.seal, b"x")
    out_of_order(sealer.seal, b"")
    out_of_order(sealer.seal_end)
    head = sealer.seal_head(b"head")
    response = RequestOpenerV1(sealer.encapsulated_key, head, server.pair).response_sealer()
    out_of_order(response.seal, b"x")
    out_of_order(response.seal_end)
    response.seal_head(b"head")
    for end in (sealer, response):
        assert end.seal(b"") == b""
        out_of_order(end.seal_head, b"head")
        assert len(end.seal_end()) == 20
        out_of_order(end.seal, b"x")
        out_of_order(end.seal, b"")
        out_of_order(end.seal_head, b"head")
        out_of_order(end.seal_end)


def test_long_bodies_are_split_and_an_own_limit_counts() -> None:
    server = Server()
    sealer = RequestSealerV1(server.pair.public_key)
    head = sealer.seal_head(b"head")
    body = sealer.seal(bytes(2**24)) + sealer.seal_end()
    assert len(body) == 2**24 + 60
    opener = RequestOpenerV1(sealer.encapsulated_key, head, server.pair)
    assert opener.bytes_to_open(len(body)) == len(body)
    assert opener.feed(body) == bytes(2**24)
    opener.finish()
    small = RequestOpenerV1(sealer.encapsulated_key, head, server.pair, max_frame_bytes=1000)
    with pytest.raises(FrameTooLargeError, match="16777216 bytes, more than the limit of 1000"):
        small.feed(body)
    malformed(small.finish)


def test_a_request_goes_on_when_its_key_pair_is_gone_and_a_new_one_is_a_mismatch() -> None:
    server = Server()
    request = Request.drawn_for(server.pair.public_key)
    opener = server.opener(request)
    server.pair.erase()
    assert opener.feed(request.cipher.body([b"question"])) == b"question"
    opener.finish()
    assert opener.response_sealer().seal_head(b"200")
    with pytest.raises(KeyMismatchError):
        server.opener(request)


def test_a_forged_request_costs_no_more_than_an_honest_one() -> None:
    server = Server()
    request = Request.drawn_for(server.pair.public_key)
    head = request.cipher.seal(0, b"head")
    forged = head[:-1] + bytes([head[-1] ^ 1])

    def spent_s(open_one: Callable[[], object]) -> float:
        begun_s = time.thread_time()
        for _ in range(200):
            open_one()
        return time.thread_time() - begun_s

    def refused() -> None:
        try:
            RequestOpenerV1(request.encapsulated_key, forged, server.pair)
        except KeyMismatchError:
            return
        raise AssertionError("a forged head opened")

    rounds = [
        (spent_s(lambda: RequestOpenerV1(request.encapsulated_key, head, server.pair)), spent_s(refused))
        for _ in range(7)
    ]
    honest_s, forged_s = (min(spent) for spent in zip(*rounds, strict=True))
    assert forged_s < 1.5 * honest_s


def test_the_other_protocols_messages_do_not_open() -> None:
    server = Server()
    sealer = RequestSealerV1(server.pair.public_key)
    other_info = wire_v1.HpkeContext.of(server.known.decapsulated(sealer.encapsulated_key), b"ehbp request")
    with pytest.raises(KeyMismatchError):
        RequestOpenerV1(sealer.encapsulated_key, other_info.cipher.seal(0, b"head"), server.pair)
    with pytest.raises(InvalidTag):
        other_info.cipher.open(0, sealer.seal_head(b"head"))
