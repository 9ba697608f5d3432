"""Answers to the question for a key, as servers, gateways and caches give them."""

import gzip
import zlib
from typing import Any

import pytest

from server_keys._sealing.protocol import key_config
from server_keys.client import KeyConfigurationError
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.scripted_server import URL, Server

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
    with flavour.client(server.inner) as client:
        assert client.post(URL, "x").content == b"sealed answer"


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
