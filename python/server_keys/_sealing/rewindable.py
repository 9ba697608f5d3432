"""The beginning of a request, kept until its first frame is opened: a key may arrive that opens it after all."""

from starlette.types import Message, Receive


class Rewindable:
    """Receives a request's messages, and can give those again that arrived until its first frame was opened.

    Args:
        receive: the server's.
        keeps: whether messages are kept at all. They take as much memory as the first frame.
    """

    def __init__(self, receive: Receive, *, keeps: bool) -> None:
        self._receive = receive
        self._kept: list[Message] | None = [] if keeps else None
        self._again: list[Message] = []

    async def receive(self) -> Message:
        """Return the next message."""
        if self._again:
            return self._again.pop(0)
        message = await self._receive()
        if self._kept is not None:
            self._kept.append(message)
        return message

    def rewind(self) -> None:
        """Give the kept messages again, before others that arrive. Nothing more is kept."""
        self._again, self._kept = self._kept or [], None

    def forget(self) -> None:
        """Keep no message any longer: the first frame is opened."""
        self._kept = None
