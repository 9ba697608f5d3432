"""What a proxy passes on and what it changes: targets, methods, headers, statuses."""

import contextlib
import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from server_keys._sealing.protocol import KEY_CONFIG_PATH
from server_keys.client import sealed_client
from server_keys.proxy import OpenOptions, open_app
from server_keys.proxy.headers import of_response
from server_keys.proxy.upstream import Upstream
from tests.helpers.commands import Running, sealing_chain, serving
from tests.helpers.sealed_requests import ClientV1
from tests.helpers.servers import PLAIN, STANDARD, running
from tests.helpers.tcp_proxy import tcp_proxy


def told(url: str, method: str = "POST", target: str = "/echo", *, body: bytes = b"x", **headers: str) -> Any:
    """Return what the upstream says that reached it."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request(method, target, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        content = response.read()
        assert response.status == 200, content
        return json.loads(content)
    finally:
        connection.close()


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "//a//b",
        "/a%2Fb%20c",
        "/%",
        "/q?",
        "/q?a=1&a=%3D+",
        "/a;b=c",
        "/~a/!$&'()*+,=:@",
        "/q?a='b'&c=%zz",
    ],
)
def test_a_target_arrives_as_it_was_sent(sealed: str, target: str) -> None:
    assert told(sealed, target=target)["target"] == target.removesuffix("?")


def test_dots_in_a_path_are_resolved(sealed: str) -> None:
    assert told(sealed, target="/a/../b/./c?d=..")["target"] == "/b/c?d=.."


@pytest.mark.parametrize(
    ("method", "body"),
    [
        *((method, b"") for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")),
        *((method, b"a body") for method in ("GET", "POST", "PUT", "PATCH", "DELETE")),
    ],
)
def test_methods_and_bodies_arrive(sealed: str, method: str, body: bytes) -> None:
    arrived = told(sealed, method, body=body)
    assert (arrived["method"], arrived["body"]) == (method, body.decode())


def test_headers_of_one_hop_go_no_further(sealed: str) -> None:
    arrived = told(
        sealed,
        Connection="keep-alive, X-Secret",
        X_Secret="1",
        Keep_Alive="timeout=5",
        TE="trailers",
        Proxy_Authorization="Basic YTpi",
        Proxy_Connection="keep-alive",
        Ehbp_Anything="1",
        Authorization="Bearer mine",
        X_Mine="1",
    )
    names = {name for name, _ in arrived["headers"]}
    assert {"authorization", "x-mine", "via"} <= names
    assert not names & {
        "connection",
        "x-secret",
        "keep-alive",
        "te",
        "proxy-authorization",
        "proxy-connection",
        "ehbp-anything",
        "ehbp-encapsulated-key",
    }


def test_a_client_cannot_name_a_header_away_that_frames_or_routes(opened: str, upstream_url: str) -> None:
    with sealed_client() as client:
        response = client.post(f"{opened}/echo", content=b"body", headers={"Connection": "content-length, host, via"})
    headers = dict(response.json()["headers"])
    assert headers["host"] == urlsplit(upstream_url).netloc
    assert response.json()["body"] == "body"
    assert "via" in headers


def test_the_upstreams_hop_stays_behind_and_its_cookies_are_not_mixed(sealed: str) -> None:
    with httpx2.Client() as client:
        response = client.post(f"{sealed}/headers", content=b"x")
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert not {"x-of-this-hop", "keep-alive", "ehbp-response-nonce"} & set(response.headers)
    assert "cookie" not in dict(told(sealed)["headers"])


def test_the_authority_is_always_that_of_the_upstream(opened: str, upstream_url: str) -> None:
    headers = dict(told(opened, "GET", body=b"", Host="evil.example")["headers"])
    assert headers["host"] == urlsplit(upstream_url).netloc
    assert headers["x-forwarded-host"] == "evil.example"


def test_what_a_client_says_of_itself_is_dropped(opened: str) -> None:
    headers = told(
        opened, "GET", body=b"", X_Forwarded_For="6.6.6.6", X_Forwarded_Anything="1", Forwarded="for=6.6.6.6",
        X_Real_IP="6.6.6.6",
    )["headers"]  # fmt: skip
    assert "6.6.6.6" not in json.dumps(headers)
    assert dict(headers)["x-forwarded-for"] == "127.0.0.1"
    assert dict(headers)["forwarded"].startswith("for=127.0.0.1;host=")
    assert "x-forwarded-anything" not in dict(headers)


def test_what_a_trusted_peer_says_is_passed_on(upstream_url: str) -> None:
    options = ("--to", upstream_url, "--listen", "127.0.0.1:0", "--trust-peer", "127.0.0.0/8", "--trust-peer", "::1")
    said = {
        "X_Forwarded_For": "192.0.2.1",
        "X_Forwarded_Proto": "https",
        "X_Forwarded_Host": "my-server",
        "Forwarded": 'for="[2001:db8::1]"',
    }
    with serving("open", *options) as opened:
        headers = dict(told(opened.url, "GET", body=b"", **said)["headers"])
    assert headers["x-forwarded-for"] == "192.0.2.1, 127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["x-forwarded-host"] == "my-server"
    assert headers["forwarded"].startswith('for="[2001:db8::1]", for=127.0.0.1;host="127.0.0.1:')


@pytest.mark.parametrize("path", ["/no-content", "/not-modified"])
def test_statuses_without_a_body_have_none(sealed: str, path: str) -> None:
    with httpx2.Client() as client:
        for _ in range(2):  # the connection goes on
            response = client.post(f"{sealed}{path}", content=b"x")
            assert response.status_code in (204, 304)
            assert response.content == b""


def test_a_head_has_no_body_and_the_length_where_it_is_not_sealed(sealed: str, opened: str) -> None:
    with httpx2.Client() as client:
        for url in (opened, sealed, opened):
            response = client.head(f"{url}/anything")
            assert response.status_code == 200
            # It is sealed on the way, and of what is sealed no length of a plaintext leaves.
            assert ("content-length" in response.headers) == (url == opened)
            assert response.content == b""
            if url == opened:
                assert int(response.headers["content-length"]) > 100


def test_version_1_may_be_required_at_both_ends(upstream_url: str) -> None:
    requiring = ("--require-v1", "--open-paths", "/health, /ping")
    with sealing_chain(upstream_url, opening=requiring, sealing=requiring[:1]) as (sealed, opened):
        assert told(sealed.url, "GET", body=b"")["method"] == "GET"
        assert told(sealed.url, "POST")["body"] == "x"
        refused = httpx2.get(opened.url)
        assert refused.status_code == 400
        assert "version 1 only" in refused.json()["message"]
        assert told(opened.url, "GET", "/ping", body=b"")["target"] == "/ping"


def test_a_redirect_is_passed_on_and_not_followed(opened: str) -> None:
    with httpx2.Client() as client:
        response = client.get(f"{opened}/redirect")
    assert response.status_code == 307
    assert response.headers["location"] == "http://elsewhere.example/"


@pytest.mark.parametrize("through", ["sealed", "opened"])
def test_who_follows_a_redirect_of_the_upstream_to_itself_stays_with_the_proxy(
    through: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(through)
    with httpx2.Client(follow_redirects=True) as client:
        response = client.get(f"{url}/own")
    (redirect,) = response.history
    assert redirect.headers["location"] == redirect.headers["content-location"] == "/elsewhere?a=b"
    assert str(response.url) == f"{url}/elsewhere?a=b"
    assert response.json()["target"] == "/elsewhere?a=b"


@pytest.mark.parametrize(
    ("to", "location", "path"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/a?b#c", "/a?b#c"),
        ("http://[::1]:80", "http://[::1]/a", "/a"),
        ("unix:/run/model.sock", "http://localhost/a", "/a"),
        ("https://my-server", "HTTPS://My-Server:443/a", "/a"),
        ("https://my-server:443", "https://my-server", "/"),
        ("https://my-server", "https://my-server?a", "/?a"),
        ("https://my-server", "//my-server/a", "/a"),
        # Who ends TLS before a server seldom tells it.
        ("https://my-server:8443", "http://my-server:8443/a", "/a"),
    ],
)
def test_a_url_of_the_upstream_itself_becomes_a_path(to: str, location: str, path: str) -> None:
    assert of_response(302, [(b"Location", location.encode())], Upstream.parse(to)) == [(b"location", path.encode())]


@pytest.mark.parametrize(
    ("to", "host", "address"),
    [
        ("https://My-Server:443", "my-server", "my-server:443"),
        ("https://my-server:", "my-server", "my-server:443"),
        ("https://my-server:80", "my-server:80", "my-server:80"),
        ("http://127.0.0.1:80/", "127.0.0.1", "127.0.0.1:80"),
        ("http://[::1]:80", "[::1]", "[::1]:80"),
        ("http://[::1]:8080", "[::1]:8080", "[::1]:8080"),
        ("http://[fe80::80]", "[fe80::80]", "[fe80::80]:80"),
    ],
)
def test_an_upstream_is_called_without_the_port_that_its_scheme_has_anyway(to: str, host: str, address: str) -> None:
    upstream = Upstream.parse(to)
    assert (upstream.authority, upstream.address) == (host, address)


@pytest.mark.parametrize(
    "location",
    [
        "",
        "/a",
        "a//my-server/b",
        "?a=https://my-server/",
        "http://my-server:8080/a",
        "http://my-server.example/a",
        "http://me@my-server/a",
        # A server that wants TLS says so.
        "https://my-server/a",
        # As paths these would lead to another server.
        "http://my-server//elsewhere.example/a",
        "http://my-server/\\elsewhere.example/a",
        "http://my-ser\tver/a",
        "http://[::1",
        "http://my-server:x/a",
        "ftp://my-server/a",
        "http://my-server\xa0/a",
    ],
)
def test_other_places_are_passed_on_as_they_are(location: str) -> None:
    passed = [(b"location", location.encode("latin-1"))]
    assert of_response(302, passed, Upstream.parse("http://my-server")) == passed


def test_plaintext_is_refused_by_default(opened: str) -> None:
    response = httpx2.post(f"{opened}/echo", content=b"in the clear")
    assert response.status_code == 400
    assert "EHBP only" in response.json()["message"]


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
@pytest.mark.parametrize("through", ["sealed", "opened"])
def test_an_upgrade_is_refused_with_a_clear_word(
    through: str, protocol: str, request: pytest.FixtureRequest, chain: tuple[Running, Running]
) -> None:
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": protocol, "HTTP2-Settings": "AAMAAABkAAQ"}
    response = httpx2.post(request.getfixturevalue(through) + "/echo", headers=headers, content=b"body")
    assert response.status_code == 501
    assert "no upgrades" in response.json()["message"]


def test_a_body_in_another_transfer_coding_is_not_passed_on_as_if_it_had_none(sealed: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(sealed).netloc, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", "/echo", b"1\r\nx\r\n0\r\n\r\n", {"Transfer-Encoding": "gzip, chunked"})
        response = connection.getresponse()
        assert response.status == 501
        assert "no transfer coding but chunked" in json.loads(response.read())["message"]


@pytest.mark.parametrize("stack", [PLAIN, STANDARD], ids=str)
def test_another_server_runs_it_as_well(upstream_url: str, stack: Any) -> None:
    with running(open_app(OpenOptions(to=upstream_url, share=None)), stack) as url, sealed_client() as client:
        assert client.post(f"{url}/echo?q=1", content=b"x").json()["target"] == "/echo?q=1"


def test_a_server_need_not_tell_the_path_as_it_came(upstream_url: str) -> None:
    app = open_app(OpenOptions(to=upstream_url, share=None))

    async def without_raw_path(scope: Any, receive: Any, send: Any) -> None:
        await app({name: value for name, value in scope.items() if name != "raw_path"}, receive, send)

    with running(without_raw_path, STANDARD) as url, sealed_client() as client:
        response = client.post(f"{url}/a%20b/%C3%BC/c%25d?q=%20", content=b"x")
    assert response.json()["target"] == "/a%20b/%C3%BC/c%25d?q=%20"


@pytest.mark.parametrize(("options", "second"), [((), 409), (("--sealed-replay", "allow"), 200)])
def test_the_same_bytes_are_passed_on_once_unless_the_option_says_else(
    upstream_url: str, options: tuple[str, ...], second: int
) -> None:
    with serving("open", "--to", upstream_url, "--listen", "127.0.0.1:0", *options) as opened:
        answer = httpx2.get(f"{opened.url}{KEY_CONFIG_PATH}").content
        recorded = ClientV1.of_answer(answer, "POST", "/echo")
        body = b"".join(recorded.seal(b"x"))
        statuses = [
            httpx2.post(f"{opened.url}/echo", headers=dict(recorded.headers), content=body).status_code
            for _ in range(2)
        ]
        assert statuses == [200, second]


def test_a_target_that_is_too_long_is_refused(chain: tuple[Running, Running]) -> None:
    for end in chain:
        response = http.client.HTTPConnection("127.0.0.1", end.port, timeout=10)
        response.request("GET", "/" + "a" * 70_000)
        assert response.getresponse().status in (400, 414, 431)
        response.close()


def test_a_connection_to_the_upstream_serves_one_request_after_the_other(upstream_url: str) -> None:
    with tcp_proxy(int(upstream_url.rpartition(":")[2])) as between, sealed_client() as client:
        options = ("--to", f"http://127.0.0.1:{between.port}", "--listen", "127.0.0.1:0")
        with serving("open", *options) as opened:
            for path in ("/echo", "/large", "/no-content", "/not-modified", "/headers", "/echo"):
                assert client.post(f"{opened.url}{path}", content=b"1").status_code < 400
            assert client.head(f"{opened.url}/echo").status_code == 200
        assert len(between.sent) == 1
