"""Objects that cannot work where they are passed: a TypeError at once says what to write."""

import asyncio
import subprocess
import sys
from typing import Any

import httpx
import httpx2
import openai
import pytest

from tests.helpers.client_flavours import FLAVOURS, Flavour

every_flavour = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)


def others_transport(flavour: Flavour) -> Any:
    library = httpx if flavour.http is httpx2 else httpx2
    return library.AsyncHTTPTransport() if flavour.is_async else library.HTTPTransport()


def of_the_other_kind(flavour: Flavour) -> Any:
    return flavour.http.HTTPTransport() if flavour.is_async else flavour.http.AsyncHTTPTransport()


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda _: "http://user:secret@x", "not a str: .*write (async_)?sealed_client\\(base_url=...\\)"),
        (lambda flavour: flavour.http.URL("http://x"), "not a URL: .*sealed_client\\(base_url=...\\)"),
        (lambda flavour: flavour.http.Client(), "not a Client: .*sealed_client\\(...\\) with the client's arguments"),
        (lambda flavour: flavour.http.AsyncClient(), "not a AsyncClient: .*sealed_client\\(...\\)"),
        (lambda flavour: flavour.transport(), "SealedTransport: it seals already"),
        (of_the_other_kind, "HTTPTransport: it is for (Async)?SealedTransport$"),
        (others_transport, "server_keys.client.httpx and server_keys.client.httpx2 have a"),
        (
            lambda flavour: flavour.http.AsyncHTTPTransport if flavour.is_async else flavour.http.HTTPTransport,
            "not the class (Async)?HTTPTransport: it is to be called first",
        ),
        (lambda _: 3, "not a int"),
    ],
    ids=["str", "URL", "client", "async client", "sealed twice", "other kind", "other library", "class", "number"],
)
@every_flavour
def test_what_is_no_transport_is_refused_as_inner(flavour: Flavour, make: Any, advice: str) -> None:
    kind = "AsyncHTTPTransport" if flavour.is_async else "HTTPTransport"
    with pytest.raises(
        TypeError, match=rf"a transport of {flavour.http.__name__}, such as .*{kind}.*{advice}"
    ) as error:
        flavour.transport(make(flavour))
    assert "secret" not in str(error.value)


@every_flavour
def test_a_transport_in_a_client_of_the_other_kind(flavour: Flavour) -> None:
    transport = flavour.transport()
    advice = r"SealedTransport cannot serve an? (Async)?Client: write (Async)?Client\(transport=.*sealed_client\(\)"

    async def enter() -> None:
        async with flavour.http.AsyncClient(transport=transport):
            pass

    async def call() -> None:
        client = flavour.http.AsyncClient(transport=transport)
        try:
            await client.post("http://x", content="x")
        finally:
            await client.aclose()

    if not flavour.is_async:
        for wrong in (enter, call):
            with pytest.raises(TypeError, match=advice):
                asyncio.run(wrong())
        return
    with pytest.raises(TypeError, match=advice), flavour.http.Client(transport=transport):
        pass
    client = flavour.http.Client(transport=transport)
    with pytest.raises(TypeError, match=advice):
        client.post("http://x", content="x")
    client.close()


@every_flavour
@pytest.mark.parametrize("sdk", [openai.OpenAI, openai.AsyncOpenAI])
def test_a_transport_for_a_client_of_the_openai_sdk(flavour: Flavour, sdk: Any) -> None:
    with pytest.raises(TypeError, match=r"SealedTransport is a transport and not a client: write http_client=.*client"):
        sdk(api_key="none", http_client=flavour.transport())


@every_flavour
def test_other_attributes_are_missing_as_ever(flavour: Flavour) -> None:
    with pytest.raises(AttributeError, match="SealedTransport' object has no attribute 'absent'"):
        flavour.transport().absent  # noqa: B018
    assert not hasattr(flavour.transport(), "headers")


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_a_library_that_is_not_there_is_named(library: str) -> None:
    code = f"import sys\nsys.modules[{library!r}] = None\nimport server_keys.client.{library}\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        f"ModuleNotFoundError: server_keys.client.{library} is for {library}, which is not installed"
    )
    assert f"pip install {library};" in last
