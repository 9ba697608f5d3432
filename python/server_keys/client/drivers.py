"""Drivers: they carry out the steps of an exchange through a library's inner transport, sync or async."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from server_keys._checks import checked_max_frame_bytes
from server_keys.client.body_headers import of_opened_response
from server_keys.client.exchange import Exchange
from server_keys.client.key_cache import KeyCache
from server_keys.client.key_checks import Check, KeyChecks
from server_keys.client.key_fetch import Key
from server_keys.client.key_location import KeyLocation
from server_keys.client.key_steps import KeySteps, Servers
from server_keys.client.opening import AsyncOpening, SyncOpening
from server_keys.client.own_connection import AsyncOwnConnection, SyncOwnConnection
from server_keys.client.request_body import AsyncRequestBody, RequestBody, SyncRequestBody
from server_keys.client.steps import Close, Library, Outcome, Read, Send, Step, Steps, Verify, Wait

if TYPE_CHECKING:
    import httpx2 as http

    from server_keys.client.request_body import AsyncSealedStream, SyncSealedStream

    class SyncOpenedStream(SyncOpening, http.SyncByteStream):
        """A library's stream that opens a body while it is read."""

    class AsyncOpenedStream(AsyncOpening, http.AsyncByteStream):
        """A library's stream that opens a body while it is read."""


ResultT = TypeVar("ResultT")


class SyncStreams(NamedTuple):
    """A library's streams: of what is received, and of what is sent."""

    opened: type[SyncOpenedStream]
    sealed: type[SyncSealedStream]


class AsyncStreams(NamedTuple):
    """A library's streams: of what is received, and of what is sent."""

    opened: type[AsyncOpenedStream]
    sealed: type[AsyncSealedStream]


class Driver:
    """Exchanges requests for responses.

    Args:
        library: httpx or httpx2.
        checks: what a server's key answer has to pass.
        max_frame_bytes: the longest frame that a response may have, tag included.
        clock: tells the time in seconds.
        key_url: where servers publish their keys, or None for EHBP's well-known path.
    """

    def __init__(
        self,
        library: Library,
        checks: KeyChecks,
        max_frame_bytes: int,
        clock: Callable[[], float],
        key_url: str | None,
    ) -> None:
        self._library = library
        self._max_frame_bytes = checked_max_frame_bytes(max_frame_bytes)
        self._servers = Servers(KeyCache(clock), KeyLocation(key_url), checks)

    def require_own(self, request: http.Request) -> None:
        """Raise a `TypeError` unless `request` is of this library."""
        if not isinstance(request, self._library.Request):
            raise TypeError(
                f"this transport takes requests of {self._library.__name__}, not {type(request)!r}: "
                "server_keys.client.httpx and server_keys.client.httpx2 have one for each library"
            )

    def _steps(self, request: http.Request, body: RequestBody) -> Steps[Outcome]:
        return Exchange(self._library, self._servers, request, body, self._max_frame_bytes).steps()

    def _response(self, outcome: Outcome, stream: SyncOpenedStream | AsyncOpenedStream) -> http.Response:
        response = outcome.response
        is_sealed = outcome.opener is not None
        return stream.of(
            self._library.Response(
                response.status_code,
                headers=of_opened_response(response.headers) if is_sealed else response.headers,
                stream=stream,
                extensions=response.extensions,
            )
        )


class SyncDriver(Driver):
    """Exchanges requests for responses through a sync transport."""

    def exchange(
        self,
        inner: http.BaseTransport,
        own_connection: SyncOwnConnection,
        request: http.Request,
        streams: SyncStreams,
    ) -> http.Response:
        """Return the response to `request`. Its body is opened while it is read."""
        body = SyncRequestBody(self._library, request, streams.sealed)
        try:
            body.read_ahead()
            outcome = self._outcome(self._steps(request, body), inner, own_connection)
        except BaseException:
            body.close()
            own_connection.close()
            raise
        if outcome.opener is None:
            body.close()
            if not own_connection.is_open:
                return outcome.response
        return self._response(outcome, streams.opened(outcome, body, own_connection))

    def _outcome(self, steps: Steps[Outcome], inner: http.BaseTransport, own_connection: SyncOwnConnection) -> Outcome:
        with closing(steps):
            try:
                step = next(steps)
                while True:
                    try:
                        result = self._carry_out(step, inner, own_connection)
                    except BaseException as error:  # noqa: BLE001 - the steps raise it again, or go on without
                        step = steps.throw(error)
                    else:
                        step = steps.send(result)
            except StopIteration as end:
                return cast("Outcome", end.value)

    def _carry_out(self, step: Step, inner: http.BaseTransport, own_connection: SyncOwnConnection) -> object:
        match step:
            case Send(request, is_alone):
                transport = own_connection.transport if is_alone else inner
                return transport.handle_request(request)
            case Read(response, most_bytes):
                return self._read(response, most_bytes)
            case Close(closed):
                closed.close()
                return None
            case Verify(check):
                return self._verdict(check)
            case Wait(fetch, timeout_s):
                return fetch.wait(timeout_s)

    def _read(self, response: http.Response, most_bytes: int) -> bytes | None:
        body = b""
        try:
            for piece in cast("http.SyncByteStream", response.stream):
                body += piece
                if len(body) > most_bytes:
                    return None
        finally:
            response.close()
        return body

    def _verdict(self, check: Check) -> object:
        verdict = check.ask()
        if inspect.isawaitable(verdict):
            # Nobody would await it. Without this it would count as consent, and every key would pass.
            if inspect.iscoroutine(verdict):
                verdict.close()
            raise TypeError(
                f"{check.name} of a sync transport must not be a coroutine function: it returned {verdict!r}"
            )
        return verdict


class AsyncDriver(Driver):
    """Exchanges requests for responses through an async transport."""

    async def key(
        self, inner: http.AsyncBaseTransport, own_connection: AsyncOwnConnection, request: http.Request
    ) -> Key | http.Response:
        """Return the key that `request` would be sealed to, or the answer that says to ask later. It is not sent."""
        steps = KeySteps(self._library, self._servers, request).key()
        return await self._ended(steps, inner, own_connection)

    async def exchange(
        self,
        inner: http.AsyncBaseTransport,
        own_connection: AsyncOwnConnection,
        request: http.Request,
        streams: AsyncStreams,
    ) -> http.Response:
        """Return the response to `request`. Its body is opened while it is read."""
        body = AsyncRequestBody(self._library, request, streams.sealed)
        try:
            await body.read_ahead()
            outcome = await self._ended(self._steps(request, body), inner, own_connection)
        except BaseException:
            await body.aclose()
            await own_connection.aclose()
            raise
        if outcome.opener is None:
            await body.aclose()
            if not own_connection.is_open:
                return outcome.response
        return self._response(outcome, streams.opened(outcome, body, own_connection))

    async def _ended(
        self, steps: Steps[ResultT], inner: http.AsyncBaseTransport, own_connection: AsyncOwnConnection
    ) -> ResultT:
        with closing(steps):
            try:
                step = next(steps)
                while True:
                    try:
                        result = await self._carry_out(step, inner, own_connection)
                    except BaseException as error:  # noqa: BLE001 - the steps raise it again, or go on without
                        step = steps.throw(error)
                    else:
                        step = steps.send(result)
            except StopIteration as end:
                return cast("ResultT", end.value)

    async def _carry_out(
        self, step: Step, inner: http.AsyncBaseTransport, own_connection: AsyncOwnConnection
    ) -> object:
        match step:
            case Send(request, is_alone):
                transport = own_connection.transport if is_alone else inner
                return await transport.handle_async_request(request)
            case Read(response, most_bytes):
                return await self._read(response, most_bytes)
            case Close(closed):
                await closed.aclose()
                return None
            case Verify(check):
                verdict = check.ask()
                return await verdict if inspect.isawaitable(verdict) else verdict
            case Wait(fetch, timeout_s):
                return await fetch.wait_async(timeout_s)

    async def _read(self, response: http.Response, most_bytes: int) -> bytes | None:
        body = b""
        try:
            async for piece in cast("http.AsyncByteStream", response.stream):
                body += piece
                if len(body) > most_bytes:
                    return None
        finally:
            await response.aclose()
        return body
