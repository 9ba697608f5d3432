"""What httpx's and httpx2's transports have in common: carrying out the steps of an exchange, sync or async."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Self

from server_keys._checks import checked_max_frame_bytes
from server_keys._native import ResponseOpener
from server_keys.client.exchange import Close, OpenedResponse, Read, Send, Steps, Verify, exchange
from server_keys.client.key_cache import KeyCache

VerifyKey = Callable[[bytes], object]
AsyncVerifyKey = Callable[[bytes], object | Awaitable[object]]


class Driver:
    """Exchanges requests for responses through an inner transport of the library `http`."""

    def __init__(
        self, http: Any, inner: Any, verify_key: AsyncVerifyKey | None, max_frame_bytes: int, clock: Callable[[], float]
    ) -> None:
        if verify_key is not None and not callable(verify_key):
            raise TypeError(f"verify_key must be a function that takes a public key, not {verify_key!r}")
        self._http = http
        self.inner = inner
        self._verify_key = verify_key
        self._max_frame_bytes = checked_max_frame_bytes(max_frame_bytes)
        self._cache = KeyCache(clock)

    def _require_own(self, request: Any) -> None:
        if not isinstance(request, self._http.Request):
            raise TypeError(
                f"this transport takes requests of {self._http.__name__}, not {type(request)!r}: "
                "server_keys.client.httpx and server_keys.client.httpx2 have one for each library"
            )

    def _steps(self, request: Any, body: bytes) -> Steps:
        return exchange(self._http, self._cache, request, body, self._max_frame_bytes)

    def _opened(self, outcome: OpenedResponse, stream_type: Callable[[Any, ResponseOpener], Any]) -> Any:
        response = outcome.response
        if outcome.opener is None:
            return response
        headers = self._http.Headers(response.headers)
        # The length of what was sealed, where a proxy has put one.
        headers.pop("Content-Length", None)
        return self._http.Response(
            response.status_code,
            headers=headers,
            stream=stream_type(response, outcome.opener),
            extensions=response.extensions,
        )


class SyncDriver(Driver):
    """Drives an exchange with a sync transport."""

    def exchange(self, request: Any, stream_type: Callable[[Any, ResponseOpener], Any]) -> Any:
        """Return the response to `request`, its body opened while it is read."""
        self._require_own(request)
        steps = self._steps(request, request.read())
        result: Any = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as end:
                return self._opened(end.value, stream_type)
            result = self._carry_out(step)

    def _carry_out(self, step: Send | Read | Close | Verify) -> Any:
        match step:
            case Send(request):
                return self.inner.handle_request(request)
            case Read(response, most_bytes):
                body = b""
                try:
                    for piece in response.stream:
                        body += piece
                        if len(body) > most_bytes:
                            return None
                finally:
                    response.close()
                return body
            case Close(response):
                return response.close()
            case Verify(public_key):
                verdict = None if self._verify_key is None else self._verify_key(public_key)
                if inspect.isawaitable(verdict):
                    # It would never run: taken for consent, it would let every key pass.
                    if inspect.iscoroutine(verdict):
                        verdict.close()
                    raise TypeError(
                        f"verify_key of a sync transport must not be a coroutine function: {self._verify_key!r}"
                    )
                return verdict


class AsyncDriver(Driver):
    """Drives an exchange with an async transport."""

    async def exchange(self, request: Any, stream_type: Callable[[Any, ResponseOpener], Any]) -> Any:
        """Return the response to `request`, its body opened while it is read."""
        self._require_own(request)
        steps = self._steps(request, await request.aread())
        result: Any = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as end:
                return self._opened(end.value, stream_type)
            result = await self._carry_out(step)

    async def _carry_out(self, step: Send | Read | Close | Verify) -> Any:
        match step:
            case Send(request):
                return await self.inner.handle_async_request(request)
            case Read(response, most_bytes):
                body = b""
                try:
                    async for piece in response.stream:
                        body += piece
                        if len(body) > most_bytes:
                            return None
                finally:
                    await response.aclose()
                return body
            case Close(response):
                return await response.aclose()
            case Verify(public_key):
                verdict = None if self._verify_key is None else self._verify_key(public_key)
                return await verdict if inspect.isawaitable(verdict) else verdict


class SyncLifetime:
    """A transport that lives, and is closed, with the inner one of its driver."""

    _driver: SyncDriver

    def __enter__(self) -> Self:
        self._driver.inner.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._driver.inner.__exit__(exc_type, exc_value, traceback)

    def close(self) -> None:
        """Close the inner transport."""
        self._driver.inner.close()


class AsyncLifetime:
    """A transport that lives, and is closed, with the inner one of its driver."""

    _driver: AsyncDriver

    async def __aenter__(self) -> Self:
        await self._driver.inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._driver.inner.__aexit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._driver.inner.aclose()


class SyncOpening:
    """Opens a response's body while it is read, and closes the response at its end."""

    def __init__(self, response: Any, opener: ResponseOpener) -> None:
        self._response = response
        self._opener = opener

    def __iter__(self) -> Iterator[bytes]:
        """Yield what each piece of the sealed body completes, at once."""
        try:
            for piece in self._response.stream:
                if plaintext := self._opener.feed(piece):
                    yield plaintext
            self._opener.finish()
        finally:
            self._response.close()

    def close(self) -> None:
        """Close the response."""
        self._response.close()


class AsyncOpening:
    """Opens a response's body while it is read, and closes the response at its end."""

    def __init__(self, response: Any, opener: ResponseOpener) -> None:
        self._response = response
        self._opener = opener

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield what each piece of the sealed body completes, at once."""
        try:
            async for piece in self._response.stream:
                if plaintext := self._opener.feed(piece):
                    yield plaintext
            self._opener.finish()
        finally:
            await self._response.aclose()

    async def aclose(self) -> None:
        """Close the response."""
        await self._response.aclose()
