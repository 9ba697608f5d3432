"""The four transports as one: a test runs with httpx and httpx2, sync and async."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx2

import server_keys.client.httpx
import server_keys.client.httpx2


class Flavour:
    """One library, sync or async, with a client that lives for one `with`."""

    def __init__(self, http: Any, module: Any, *, is_async: bool) -> None:
        self.http = http
        self.is_async = is_async
        self.sealed_client: Any = module.async_sealed_client if is_async else module.sealed_client
        self._transport_type = module.AsyncSealedTransport if is_async else module.SealedTransport
        self._client_type = http.AsyncClient if is_async else http.Client

    def __str__(self) -> str:
        return f"{self.http.__name__}-{'async' if self.is_async else 'sync'}"

    def scripted(self, handler: Callable[[Any], Any]) -> Any:
        """Return an inner transport that answers with what `handler` makes of a request."""
        return self.http.MockTransport(handler)

    def stream(self, pieces: Iterator[bytes], closed: list[str]) -> Any:
        """Return a response's stream that yields `pieces` and notes in `closed` that it was closed."""

        class SyncStream(self.http.SyncByteStream):  # type: ignore[misc, name-defined]
            def __iter__(self) -> Iterator[bytes]:
                yield from pieces

            def close(self) -> None:
                closed.append("closed")

        class AsyncStream(self.http.AsyncByteStream):  # type: ignore[misc, name-defined]
            async def __aiter__(self) -> AsyncIterator[bytes]:
                for piece in pieces:
                    yield piece

            async def aclose(self) -> None:
                closed.append("closed")

        return AsyncStream() if self.is_async else SyncStream()

    def transport(self, inner: Any = None, **options: Any) -> Any:
        """Return a transport that seals."""
        return self._transport_type(inner, **options)

    @contextlib.contextmanager
    def client(self, inner: Any = None, **options: Any) -> Iterator["Client"]:
        """Yield a client whose transport seals."""
        with self.driving(self._client_type(transport=self.transport(inner, **options))) as client:
            yield client

    @contextlib.contextmanager
    def driving(self, client: Any) -> Iterator["Client"]:
        """Yield `client` to be called the same way whether it is sync or async, and close it in the end."""
        with asyncio.Runner() as runner:
            try:
                yield Client(client, runner, is_async=self.is_async)
            finally:
                if self.is_async:
                    runner.run(client.aclose())
                else:
                    client.close()


class Client:
    """A client, called the same way whether it is sync or async."""

    def __init__(self, client: Any, runner: asyncio.Runner, *, is_async: bool) -> None:
        self._client = client
        self._runner = runner
        self._is_async = is_async

    def add_hook(self, event: str, hook: Any) -> None:
        """Have `hook` called at each event of this kind, `request` or `response`."""
        self._client.event_hooks = {**self._client.event_hooks, event: [hook]}

    def run(self, awaitable: Any) -> Any:
        """Return what an awaitable of the client's event loop returns."""
        return self._runner.run(awaitable)

    def request(self, method: str, url: str, **options: Any) -> Any:
        """Send a request and return the response, read."""
        response = self._client.request(method, url, **options)
        return self._runner.run(response) if self._is_async else response

    def post(self, url: str, content: bytes | str, **options: Any) -> Any:
        """Send a POST request and return the response, read."""
        return self.request("POST", url, content=content, **options)

    def post_at_once(self, url: str, contents: Sequence[str]) -> list[Any]:
        """Send POST requests at the same time and return for each the response, read, or the exception."""
        if not self._is_async:

            def post(content: str) -> Any:
                try:
                    return self.post(url, content)
                except Exception as error:  # noqa: BLE001 - tests look at it
                    return error

            with ThreadPoolExecutor(len(contents)) as pool:
                return list(pool.map(post, contents))

        async def all_at_once() -> list[Any]:
            requests = (self._client.post(url, content=content) for content in contents)
            return await asyncio.gather(*requests, return_exceptions=True)

        return self._runner.run(all_at_once())

    def pieces(self, url: str, content: bytes | str) -> Generator[bytes, None, None]:
        """Send a POST request and yield the pieces of the response's body as they arrive."""
        if not self._is_async:
            with self._client.stream("POST", url, content=content) as response:
                yield from response.iter_raw()
            return

        async def arriving() -> AsyncGenerator[bytes, None]:
            async with self._client.stream("POST", url, content=content) as response:
                async for piece in response.aiter_raw():
                    yield piece

        pieces = arriving()

        async def next_piece() -> bytes | None:
            return await anext(pieces, None)

        try:
            while (piece := self._runner.run(next_piece())) is not None:
                yield piece
        finally:
            self._runner.run(pieces.aclose())


FLAVOURS = [
    Flavour(http, module, is_async=is_async)
    for http, module in ((httpx, server_keys.client.httpx), (httpx2, server_keys.client.httpx2))
    for is_async in (False, True)
]
