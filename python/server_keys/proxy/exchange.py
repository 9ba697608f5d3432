"""One request on its way through a proxy: to the upstream and back, piece by piece, with nothing kept."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
from starlette.types import Receive, Send

from server_keys._log import logger
from server_keys._sealing.answers import Answer
from server_keys.proxy.failures import BROKEN, CannotPassOnError, Failure, failure_of
from server_keys.proxy.headers import declared_length, of_response
from server_keys.proxy.upstream import Upstream


class ClientGoneError(Exception):
    """The client has closed its connection."""


class RequestBody(httpx2.AsyncByteStream):
    """A request's body, read from the client while it is sent to the upstream.

    Args:
        receive: the server's.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.is_over: asyncio.Event = asyncio.Event()
        """Set when the upstream takes no more of it."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield each piece as it arrives.

        Raises:
            ClientGoneError: the client went away before the end.
        """
        try:
            more_body = True
            while more_body:
                message = await self._receive()
                if message["type"] != "http.request":
                    raise ClientGoneError
                more_body = message.get("more_body", False)
                if piece := message.get("body", b""):
                    yield piece
        finally:
            self.is_over.set()


class Exchange:
    """Passes one request on, and its answer back.

    Args:
        client: sends the request.
        request: the request; its stream is `body`, or empty.
        body: reads the client's body, or is None if there is none.
        receive: the server's.
        send: the server's.
        upstream: where the request goes.
    """

    def __init__(
        self,
        client: httpx2.AsyncClient,
        request: httpx2.Request,
        body: RequestBody | None,
        receive: Receive,
        send: Send,
        upstream: Upstream,
    ) -> None:
        self._client = client
        self._request = request
        self._body = body
        self._receive = receive
        self._send = send
        self._upstream = upstream
        self._is_answered = False

    async def run(self) -> Answer | None:
        """Pass the request on, and break off when the client goes away: the upstream sees that at once.

        Returns:
            The answer to give if there was none; None if there was one, broken off or not.
        """
        refusal = None
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch_client())
                refusal = await self._pass_on()
                watching.cancel()
        except* ClientGoneError:
            refusal = None
        return refusal

    async def _watch_client(self) -> None:
        if self._body is not None:
            await self._body.is_over.wait()
        # What still comes of a body that the upstream did not want is thrown away, so that the client reads its answer.
        while (await self._receive())["type"] == "http.request":
            pass
        if not self._is_answered:
            raise ClientGoneError

    async def _pass_on(self) -> Answer | None:
        try:
            response = await self._client.send(self._request, stream=True, auth=None, follow_redirects=False)
        except BROKEN as error:
            return self._logged(failure_of(error)).answer
        try:
            return await self._relay(response)
        finally:
            await response.aclose()

    async def _relay(self, response: httpx2.Response) -> Answer | None:
        status = response.status_code
        try:
            headers = of_response(status, response.headers.raw, self._upstream)
        except ValueError as error:
            return self._logged(failure_of(CannotPassOnError(str(error)))).answer
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        try:
            await self._relay_body(response, None if self._request.method == "HEAD" else declared_length(headers))
        except BROKEN as error:
            # Return with the response unfinished: the server then cuts the connection, and the client sees that.
            self._logged(failure_of(error))
        return None

    async def _relay_body(self, response: httpx2.Response, left: int | None) -> None:
        """Send each piece when it arrives. The last one of a known length ends the response at once."""
        async for piece in response.aiter_raw():
            if left is not None:
                left -= len(piece)
            if left == 0:
                await self._end(piece)
            elif piece:
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        if not self._is_answered:
            await self._end(b"")

    async def _end(self, piece: bytes) -> None:
        # Before the message: the server says `http.disconnect` after it, and the upstream's connection is kept.
        self._is_answered = True
        await self._send({"type": "http.response.body", "body": piece})

    def _logged(self, failure: Failure) -> Failure:
        logger().warning("%s: %s", self._upstream.shown, failure.reason)
        return failure
