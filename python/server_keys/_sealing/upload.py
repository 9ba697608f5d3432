"""A request's body while it arrives: whether it has ended, and how its rest is thrown away before a refusal.

If an app answers before it has read the whole body, its server closes the connection or resets the stream, with bytes
of the body still unread. Many clients and proxies then report a broken connection instead of the answer.
"""

import asyncio

from starlette.types import Message, Receive, Scope

from server_keys._sealing.buffers import buffers_of_process

# How much of a refused body is read, and for how long. A client that sends more gets the answer on a connection
# that ends.
_MOST_BYTES = 64 * 1024 * 1024
_LONGEST_S = 10.0
# How long a client may read its answer before the connection ends although the client still sends.
_LINGER_S = 1.0


class Upload:
    """Receives a request's body and notes whether it has ended.

    Args:
        scope: the request's scope.
        receive: the server's.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._asked = False
        self.ended = False
        """Whether nothing of the body is left to come: it was read, or the client is gone."""

    async def receive(self) -> Message:
        """Return the next message of the request."""
        self._asked = True
        message = await self._receive()
        self.ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    @property
    def waits_for_continue(self) -> bool:
        """Whether the client sends its body only after a `100 Continue`. A server sends that when it is first asked."""
        return not self._asked and any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in self._scope["headers"]
        )

    async def discard_rest(self) -> None:
        """Read the rest of the body and throw it away, up to 64 MiB and for 10 s: `ended` says whether that was all.

        A client that waits for `100 Continue` is spared the upload: nothing is read. Nor is it where memory is scarce
        and many others are read on.
        """
        if self.ended or self.waits_for_continue:
            return
        with buffers_of_process().reading_on() as may_read:
            if may_read:
                await self._discard(_LONGEST_S)

    async def linger(self) -> None:
        """Read on for a second at most, so that the client can read its answer before the connection ends."""
        with buffers_of_process().reading_on() as may_read:
            if may_read:
                await self._discard(_LINGER_S)
            else:
                await asyncio.sleep(_LINGER_S)

    async def _discard(self, longest_s: float) -> None:
        left_bytes = _MOST_BYTES
        try:
            async with asyncio.timeout(longest_s):
                while not self.ended and left_bytes > 0:
                    left_bytes -= len((await self.receive()).get("body", b""))
        except TimeoutError:
            return
