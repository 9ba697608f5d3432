"""Servers whose key is not at the root of their origin."""

from typing import Any

import pytest

from server_keys import KeyPair
from server_keys._native import RequestOpener
from server_keys._sealing.protocol import key_config
from server_keys.client import KeyConfigurationError, SealedTransportError
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.scripted_server import URL, Server

pytestmark = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)

TEAM_KEY = "/team-a/.well-known/hpke-keys"


@pytest.mark.parametrize("key_url", ["/tëam/key?a=ë", "/t%C3%ABam/key?a=%C3%AB"])
def test_a_path_may_have_any_characters_of_a_url(flavour: Flavour, server: Server, key_url: str) -> None:
    server.key_path = "/tëam/key"
    with flavour.client(server.inner, key_url=key_url) as client:
        assert client.post("https://user:secret@model.example/v1?user=me", "x").content == b"sealed answer"
    (asked,) = server.key_requests
    assert str(asked.url) == "https://model.example/t%C3%ABam/key?a=%C3%AB"


@pytest.mark.parametrize("key_url", [TEAM_KEY, f"https://model.example{TEAM_KEY}", f"{TEAM_KEY}?version=1"])
def test_behind_a_gateway_that_routes_by_path(flavour: Flavour, server: Server, key_url: str) -> None:
    server.key_path = TEAM_KEY
    with flavour.client(server.inner, key_url=key_url) as client:
        url = "https://model.example/team-a/v1/chat?user=me"
        assert client.post(url, "x", headers={"Host": "alias.example"}).content == b"sealed answer"
    (asked,) = server.key_requests
    assert str(asked.url) == f"https://model.example{key_url.removeprefix('https://model.example')}"
    assert asked.headers["Host"] == "alias.example"


def test_a_request_without_a_host_is_the_inner_transports_to_refuse(flavour: Flavour, server: Server) -> None:
    def without_host(request: Any) -> None:
        del request.headers["Host"]

    async def without_host_async(request: Any) -> None:
        without_host(request)

    hooks = {"request": [without_host_async if flavour.is_async else without_host]}
    client_type = flavour.http.AsyncClient if flavour.is_async else flavour.http.Client
    with flavour.driving(client_type(transport=flavour.transport(server.inner), event_hooks=hooks)) as client:
        assert client.post(URL, "x").content == b"sealed answer"
    assert ["Host" in request.headers for request in server.requests] == [True, False]


def test_two_servers_behind_one_host_have_a_key_each(flavour: Flavour, server: Server) -> None:
    pairs = {team: KeyPair.generate() for team in ("a", "b")}

    def handle(request: Any) -> Any:
        server.requests.append(request)
        pair = pairs[request.url.path.split("/")[1].removeprefix("team-")]
        if request.method == "GET":
            return server.response(200, [key_config(pair.public_key)], server.key_headers)
        opener = RequestOpener(bytes.fromhex(request.headers["Ehbp-Encapsulated-Key"]), [pair])
        opener.feed(request.content)
        return server.sealed(opener)

    for team in pairs:
        key_url = f"/team-{team}/.well-known/hpke-keys"
        with flavour.client(flavour.scripted(handle), key_url=key_url) as client:
            assert client.post(f"https://model.example/team-{team}/v1", "x").content == b"sealed answer"


def test_a_key_on_another_host_is_asked_for_by_its_own_name(flavour: Flavour, server: Server) -> None:
    server.key_path = "/keys"
    with flavour.client(server.inner, key_url="https://keys.example:8443/keys") as client:
        extensions = {"sni_hostname": "alias.example"}
        client.post(URL, "x", headers={"Host": "alias.example"}, extensions=extensions)
    (asked,) = server.key_requests
    assert str(asked.url) == "https://keys.example:8443/keys"
    assert asked.headers["Host"] == "keys.example:8443"
    assert "sni_hostname" not in asked.extensions


@pytest.mark.parametrize("other", ["https://other.example/v1", "http://model.example/v1", "https://model.example:1/v1"])
def test_a_url_serves_one_origin(flavour: Flavour, server: Server, other: str) -> None:
    with flavour.client(server.inner, key_url="https://model.example/.well-known/hpke-keys") as client:
        client.post(URL, "x")
        with pytest.raises(SealedTransportError, match=r"serves requests to .*, so nothing was sent"):
            client.post(other, "x")
        assert client.post(URL, "x").content == b"sealed answer"
    assert [request.method for request in server.requests] == ["GET", "POST", "POST"]


def test_a_path_serves_each_origin_with_its_own_key(flavour: Flavour, server: Server) -> None:
    server.key_path = "/keys"
    with flavour.client(server.inner, key_url="/keys") as client:
        for origin in ("https://a.example", "https://b.example", "https://a.example"):
            client.post(f"{origin}/v1", "x")
    assert [str(request.url) for request in server.key_requests] == ["https://a.example/keys", "https://b.example/keys"]


def test_a_key_over_plain_http_is_not_for_https(flavour: Flavour, server: Server) -> None:
    key_url = "http://model.example/.well-known/hpke-keys"
    with flavour.client(server.inner, key_url=key_url) as client, pytest.raises(SealedTransportError, match="be https"):
        client.post(URL, "x")
    assert server.requests == []


def test_where_no_key_is_the_error_names_key_url(flavour: Flavour, server: Server) -> None:
    server.key_path = TEAM_KEY
    with (
        flavour.client(server.inner) as client,
        pytest.raises(KeyConfigurationError, match=r"status 404.*key_url says"),
    ):
        client.post(URL, "x")


@pytest.mark.parametrize(
    "key_url",
    [
        "",
        "keys",
        "//keys.example/keys",
        "ftp://keys.example/keys",
        "https:///keys",
        "/keys#a",
        "https://u:p@k/",
        "/keys\n",
        "https://k/\r",
    ],
)
def test_what_is_neither_a_path_nor_a_url_is_refused_at_once(flavour: Flavour, server: Server, key_url: str) -> None:
    with pytest.raises(ValueError, match="key_url must"):
        flavour.transport(server.inner, key_url=key_url)


def test_what_is_no_string_is_refused_at_once(flavour: Flavour, server: Server) -> None:
    with pytest.raises(TypeError, match="key_url must be a str, not b'/keys'"):
        flavour.transport(server.inner, key_url=b"/keys")
