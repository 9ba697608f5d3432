"""The clients of `sealed_client()`: nothing that they send goes around the sealing."""

import asyncio
import datetime
import inspect
import ipaddress
import ssl
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI

from server_keys import protect
from server_keys.client import KeyConfigurationError
from tests.helpers.chat_app import build_app
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.recording_proxy import RecordingProxy, recording_proxy
from tests.helpers.servers import running

PROMPT = "attack at dawn"

every_flavour = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Where the app is."""
    with running(build_app()) as url:
        yield url


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingProxy]:
    """A proxy of which the environment says nothing yet."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with recording_proxy() as proxy:
        yield proxy


def chat(flavour: Flavour, url: str, **options: Any) -> None:
    with flavour.driving(flavour.sealed_client(**options)) as client:
        assert client.post(f"{url}/echo", PROMPT).json() == {"body": PROMPT}


def assert_it_read_nothing(proxy: RecordingProxy, url: str) -> None:
    assert [(request.method, request.url) for request in proxy.requests] == [
        ("GET", f"{url}/.well-known/hpke-keys"),
        ("POST", f"{url}/echo"),
    ]
    assert b"dawn" not in proxy.read


@every_flavour
def test_without_a_proxy(flavour: Flavour, url: str, proxy: RecordingProxy) -> None:
    chat(flavour, url)
    assert proxy.requests == []


@every_flavour
def test_a_proxy_reads_sealed_bodies(flavour: Flavour, url: str, proxy: RecordingProxy) -> None:
    chat(flavour, url, proxy=proxy.url)
    assert_it_read_nothing(proxy, url)


@every_flavour
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_of_the_environment_reads_sealed_bodies(
    flavour: Flavour, url: str, proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, proxy.url)
    chat(flavour, url)
    assert_it_read_nothing(proxy, url)


@every_flavour
def test_a_proxy_of_the_environment_may_have_no_scheme(
    flavour: Flavour, url: str, proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url.removeprefix("http://"))
    chat(flavour, url)
    assert_it_read_nothing(proxy, url)


@every_flavour
def test_an_argument_comes_before_the_environment(
    flavour: Flavour, url: str, proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "*")
    chat(flavour, url, proxy=flavour.http.Proxy(proxy.url))
    assert_it_read_nothing(proxy, url)


@pytest.mark.parametrize(
    "no_proxy",
    [
        "*",
        "127.0.0.1",
        "other.example, 127.0.0.1",
        "127.0.0.0/8",
        "127.0.0.1:{port}",
        "http://127.0.0.1",
        "http://127.0.0.1:{port}/",
        "all://127.0.0.1",
    ],
)
@every_flavour
def test_no_proxy_is_honoured(
    flavour: Flavour, url: str, proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch, no_proxy: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", no_proxy.format(port=url.rpartition(":")[2]))
    chat(flavour, url)
    assert proxy.requests == []


@pytest.mark.parametrize(
    "no_proxy",
    ["", "0.0.1", "27.0.0.1", "10.0.0.0/8", "127.0.0.1:1", "nonsense/8", ",", "https://127.0.0.1", "http://"],
)
def test_no_proxy_covers_nothing_else(
    url: str, proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch, no_proxy: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    chat(FLAVOURS[-1], url)
    assert_it_read_nothing(proxy, url)


@pytest.mark.parametrize(
    ("no_proxy", "goes_direct"),
    [
        ("example", True),
        (".example", True),
        ("*.example", True),
        ("model.example", True),
        ("example:80", True),
        ("http://example", True),
        ("ample", False),
        ("example:443", False),
        ("https://example", False),
    ],
)
@every_flavour
def test_no_proxy_covers_subdomains(
    flavour: Flavour, proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch, no_proxy: str, goes_direct: bool
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    del proxy
    # The proxy refuses connections, and the name does not resolve: the errors tell them apart.
    with flavour.driving(flavour.sealed_client()) as client, pytest.raises(flavour.http.ConnectError) as caught:
        client.post("http://model.example/echo", PROMPT)
    assert ("onnection refused" in str(caught.value) or "attempts failed" in str(caught.value)) is not goes_direct


@pytest.mark.parametrize("no_proxy", ["::1", "[::1]", "[::1]:9", "::/64", "http://[::1]:9"])
@every_flavour
def test_no_proxy_covers_addresses_of_ipv6(
    flavour: Flavour, proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch, no_proxy: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    # Nobody listens there.
    with flavour.driving(flavour.sealed_client()) as client, pytest.raises(flavour.http.ConnectError):
        client.post("http://[::1]:9/echo", PROMPT)
    assert proxy.requests == []


@every_flavour
def test_the_environment_can_be_left_out(
    flavour: Flavour, url: str, proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    chat(flavour, url, trust_env=False)
    assert proxy.requests == []


@every_flavour
@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("socks://me:hunter2@127.0.0.1:1", "its scheme is 'socks', and must be one of http, https, socks5, socks5h"),
        ("socks5://me:hunter2@127.0.0.1:1", "'socksio' package is not installed"),
        ("http://me:hunter2@[::1", "the URL cannot be read"),
        ("HTTP://me:hunter2@[::1", "the URL cannot be read"),
        ("me:hunter2://proxy:3128", "the URL cannot be read"),
    ],
)
def test_a_proxy_of_the_environment_that_cannot_be_used_is_told_as_that(
    flavour: Flavour, url: str, proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch, named: str, says: str
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", named)
    with pytest.raises(ValueError, match=r"environment names \(HTTP_PROXY, HTTPS_PROXY, ALL_PROXY\)") as caught:
        flavour.sealed_client()
    assert says in str(caught.value)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    for everything in ("localhost, *", "all://*", "https://*,http://*"):
        monkeypatch.setenv("NO_PROXY", everything)
        chat(flavour, url)
    assert proxy.requests == []


@every_flavour
@pytest.mark.parametrize("around", ["transport", "mounts"])
def test_what_would_go_around_the_sealing_is_refused(
    flavour: Flavour, url: str, proxy: RecordingProxy, around: str
) -> None:
    transport = flavour.http.AsyncHTTPTransport if flavour.is_async else flavour.http.HTTPTransport
    through_proxy = transport(proxy=proxy.url)
    value = through_proxy if around == "transport" else {"all://": through_proxy}
    with pytest.raises(TypeError, match=rf"takes no {around}=.*Client\(transport=(Async)?SealedTransport\(yours\)\)"):
        chat(flavour, url, **{around: value})
    assert proxy.requests == []


@every_flavour
def test_a_misspelt_argument_is_refused(flavour: Flavour) -> None:
    with pytest.raises(TypeError, match="verify_keys"):
        flavour.sealed_client(verify_keys=print)


@every_flavour
def test_the_arguments_reach_the_client_and_the_transport(flavour: Flavour, url: str, proxy: RecordingProxy) -> None:
    seen: list[bytes] = []
    client = flavour.sealed_client(
        headers={"X-Team": "a"},
        base_url=url,
        proxy=proxy.url,
        timeout=7,
        verify_key=seen.append,
        max_frame_bytes=100_000,
    )
    assert client.timeout == flavour.http.Timeout(7)
    with flavour.driving(client) as driven:
        driven.post("/echo", PROMPT)
    assert [len(key) for key in seen] == [32]
    assert [request.headers.get("X-Team") for request in proxy.requests] == [None, "a"]


@every_flavour
def test_key_url_reaches_the_transport(flavour: Flavour, url: str) -> None:
    client = flavour.sealed_client(key_url="/elsewhere")
    with flavour.driving(client) as driven, pytest.raises(KeyConfigurationError, match="/elsewhere"):
        driven.post(f"{url}/echo", PROMPT)


@every_flavour
def test_the_signature_and_the_help_say_what_it_takes(flavour: Flavour) -> None:
    parameters = inspect.signature(flavour.sealed_client).parameters
    sealing = ["verify_key", "verify_answer", "require_v1", "identity", "key_url", "max_frame_bytes"]
    assert [*parameters] == [*sealing, "options"]
    assert "`proxy`, `trust_env`, `verify`" in (inspect.getdoc(flavour.sealed_client) or "")


@every_flavour
def test_its_defaults_are_the_sdks(flavour: Flavour) -> None:
    sdks = openai.DefaultAsyncHttpxClient() if flavour.is_async else openai.DefaultHttpxClient()
    ours = flavour.sealed_client()
    assert ours.timeout.as_dict() == sdks.timeout.as_dict()
    assert ours.follow_redirects == sdks.follow_redirects


def test_as_many_calls_at_once_as_the_sdks_own_client_makes() -> None:
    app, arrived, all_there, calls = FastAPI(), 0, asyncio.Event(), 150

    @app.post("/wait-for-all")
    async def wait_for_all() -> None:
        nonlocal arrived
        arrived += 1
        if arrived == calls:
            all_there.set()
        await asyncio.wait_for(all_there.wait(), 20)

    async def call(url: str) -> None:
        async with FLAVOURS[-1].sealed_client(timeout=30) as client:
            responses = await asyncio.gather(*(client.post(f"{url}/wait-for-all", content="x") for _ in range(calls)))
        assert [response.status_code for response in responses] == [200] * calls

    with running(protect(app)) as url:
        asyncio.run(call(url))


class NotFound(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def tls_server(folder: Path) -> Iterator[tuple[str, Path]]:
    """Serve over TLS; yield the URL, and the certificate that nobody knows."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "both.pem").write_bytes(private + certificate.public_bytes(pem))
    file.write_bytes(certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    with HTTPServer(("127.0.0.1", 0), NotFound) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="TLS server")
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}", file
        finally:
            server.shutdown()
            thread.join()


@every_flavour
def test_certificates_are_the_transports(flavour: Flavour, tmp_path: Path, proxy: RecordingProxy) -> None:
    del proxy  # none is in the environment
    with tls_server(tmp_path) as (url, certificate):
        with flavour.driving(flavour.sealed_client()) as client, pytest.raises(flavour.http.ConnectError):
            client.post(f"{url}/echo", PROMPT)
        context = ssl.create_default_context(cafile=certificate)
        client_that_knows_it = flavour.sealed_client(verify=context)
        with (
            flavour.driving(client_that_knows_it) as client,
            pytest.raises(KeyConfigurationError, match="status 404"),
        ):
            client.post(f"{url}/echo", PROMPT)
