"""Answers to the question for a key, as servers, gateways and caches give them."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from server_keys._sealing.key_entries import entries_of, with_length
from server_keys._sealing.protocol import key_config
from server_keys.client import KeyConfigurationError
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.scripted_server import URL, Server
from tests.helpers.scripted_v1_server import V1Server

pytestmark = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/ohttp-keys; charset=utf-8",
        "application/ohttp-keys;charset=utf-8",
        "Application/OHTTP-Keys",
        'APPLICATION/OHTTP-KEYS ; version=1; q="a;b"',
        " application/ohttp-keys ",
    ],
)
def test_media_types_are_compared_without_case_and_parameters(
    flavour: Flavour, server: Server, content_type: str
) -> None:
    server.key_headers["Content-Type"] = content_type
    with flavour.client(server.inner) as client:
        assert client.post(URL, "x").content == b"sealed answer"


@pytest.mark.parametrize("content_type", ["application/ohttp-keys2", "text/html; application/ohttp-keys", "", ";"])
def test_another_media_type_is_refused(flavour: Flavour, server: Server, content_type: str) -> None:
    server.key_headers["Content-Type"] = content_type
    with flavour.client(server.inner) as client, pytest.raises(KeyConfigurationError, match="application/ohttp-keys"):
        client.post(URL, "x")


def test_the_question_for_the_key_says_what_asks_and_not_who(flavour: Flavour, server: Server) -> None:
    with flavour.client(server.inner) as client:
        client.post(URL, "x", headers={"User-Agent": "the caller's"})
    # Firewalls refuse requests that have none.
    assert server.key_requests[0].headers["User-Agent"] == "server-keys"


def test_no_compression_of_the_key_is_asked_for(flavour: Flavour, server: Server) -> None:
    with flavour.client(server.inner) as client:
        client.post(URL, "x", headers={"Accept-Encoding": "gzip, br"})
    assert server.key_requests[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("coding", "encode"),
    [("gzip", gzip.compress), ("GZip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)],
)
def test_a_compressed_key_is_decoded(flavour: Flavour, server: Server, coding: str, encode: Any) -> None:
    config = encode(key_config(server.key_pair.public_key))
    headers = {**server.key_headers, "Content-Encoding": coding}
    server.answer_key = lambda: server.response(200, [config], headers)
    with flavour.client(server.inner) as client:
        assert client.post(URL, "x").content == b"sealed answer"


@pytest.mark.parametrize(("coding", "reason"), [("br", "'br', but 'identity' was asked for"), ("gzip", "not gzip")])
def test_a_key_in_another_coding_is_refused_with_its_name(
    flavour: Flavour, server: Server, coding: str, reason: str
) -> None:
    server.key_headers["Content-Encoding"] = coding
    with flavour.client(server.inner) as client, pytest.raises(KeyConfigurationError, match=reason):
        client.post(URL, "x")


def test_a_key_that_is_a_bomb_does_not_go_off(flavour: Flavour, server: Server) -> None:
    bomb = gzip.compress(key_config(server.key_pair.public_key) + bytes(50_000_000), compresslevel=1)[:60_000]
    headers = {**server.key_headers, "Content-Encoding": "gzip"}
    server.answer_key = lambda: server.response(200, [bomb], headers)
    tracemalloc.start()
    try:
        with flavour.client(server.inner) as client, pytest.raises(KeyConfigurationError, match="more than 16384"):
            client.post(URL, "x")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


ENTRY_OF_ANOTHER_KIND = bytes([9]) + bytes.fromhex("0021") + bytes(56)


def with_entries(server: V1Server, *entries: bytes) -> bytes:
    """Return the server's key answer with other entries around the X-Wing key."""
    before, after = entries[: len(entries) // 2], entries[len(entries) // 2 :]
    own = entries_of(server.key_answer())
    return server.key_answer()[:41] + b"".join(map(with_length, [*before, *own, *after]))


def publish(server: V1Server, answer: bytes) -> None:
    server.answer_key = lambda: server.response(200, [answer], server.key_headers)


@pytest.mark.parametrize(
    "entries",
    [
        (ENTRY_OF_ANOTHER_KIND, ENTRY_OF_ANOTHER_KIND),
        (b"\1", b"\0"),
        (b"x" * 7000, b"y" * 7000),
        # An X-Wing key of another suite, of another length, and with the id 0 that no key has.
        (bytes.fromhex("07 647a") + bytes(1216) + bytes.fromhex("0004 0002 0002"), b"\0\x64\x7a" + bytes(1222)),
        (bytes.fromhex("07 647a"), bytes.fromhex("07 647a") + bytes(1217) + bytes.fromhex("0004 0001 0002")),
    ],
)
def test_entries_of_kinds_that_nobody_knows_are_passed_over(
    flavour: Flavour, v1_server: V1Server, entries: tuple[bytes, ...]
) -> None:
    publish(v1_server, with_entries(v1_server, *entries))
    with flavour.client(v1_server.inner, require_v1=True) as client:
        assert client.post(URL, "x").content == b"sealed answer"


def test_an_answer_with_unknown_entries_alone_is_plain_ehbp(flavour: Flavour, v1_server: V1Server) -> None:
    publish(v1_server, v1_server.key_answer()[:41] + with_length(ENTRY_OF_ANOTHER_KIND))
    with flavour.client(v1_server.inner) as client:
        assert client.post(URL, "x").content == b"sealed answer"
    assert v1_server.wires == ["ehbp"]


def test_every_cut_of_an_answer_is_refused_but_the_plain_one(flavour: Flavour, v1_server: V1Server) -> None:
    whole = v1_server.key_answer()
    with flavour.client(v1_server.inner) as client:
        for kept in [*range(41), *range(42, 60), *range(60, len(whole), 50), len(whole) - 1]:
            publish(v1_server, whole[:kept])
            with pytest.raises(KeyConfigurationError, match=r"cut off|not a key configuration"):
                client.post(URL, "x")
    assert v1_server.wires == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda answer: answer + answer[41:], "2 X-Wing keys", id="two keys"),
        pytest.param(lambda answer: answer + answer, "cut off", id="twice"),
        pytest.param(lambda answer: answer + b"\0\0", "cut off", id="an empty entry"),
        pytest.param(lambda answer: answer + b"\0", "cut off", id="half a length"),
        pytest.param(lambda answer: answer + b"\xff\xff" + bytes(100), "cut off", id="an entry that promises 64 KiB"),
        pytest.param(lambda answer: answer + with_length(bytes(16_000)), "more than 16384", id="huge"),
        pytest.param(lambda answer: answer[41:] + answer[:41], "not a key configuration", id="X-Wing first"),
        pytest.param(
            lambda answer: answer[:-38] + bytes(32) + answer[-6:], "key that cannot be used", id="small order"
        ),
        pytest.param(
            lambda answer: answer[:-38] + b"\1" + bytes(31) + answer[-6:], "key that cannot be used", id="order 1"
        ),
        pytest.param(
            lambda answer: answer[:46] + b"\xff" * 1184 + answer[-38:], "key that cannot be used", id="no ML-KEM key"
        ),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_answer_that_cannot_be_used_is_refused(
    flavour: Flavour, v1_server: V1Server, change: Callable[[bytes], bytes], reason: str, method: str
) -> None:
    publish(v1_server, change(v1_server.key_answer()))
    with flavour.client(v1_server.inner) as client, pytest.raises(KeyConfigurationError, match=reason):
        client.request(method, URL)
    assert v1_server.wires == []


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_where_nobody_has_time_to_tell_the_key_the_caller_is_told(
    flavour: Flavour, server: Server, status: int
) -> None:
    server.answer_key = lambda: server.response(status, [b"come back later"], {"Retry-After": "7"})
    with flavour.client(server.inner) as client:
        response = client.post(URL, "x")
    assert (response.status_code, response.headers["Retry-After"]) == (status, "7")
    assert response.content == b"come back later"
    assert [request.method for request in server.requests] == ["GET"], "something was sealed"
