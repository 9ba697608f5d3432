"""The beginning of a request, kept until its first frame is opened: a key may arrive that opens it after all."""

from starlette.types import Message, Receive

from server_keys._sealing.buffers import Holding


class Rewindable:
    """Receives a request's messages, and can give again what arrived until its first frame was opened.

    Args:
        receive: the server's.
        keeps: whether anything is kept at all. It takes as much memory as the first frame.
        holding: counts what is kept.
    """

    def __init__(self, receive: Receive, *, keeps: bool, holding: Holding) -> None:
        self._receive = receive
        self._holding = holding
        # The bytes alone: a message takes hundreds of them, even if one byte arrives in it.
        self._kept: bytearray | None = bytearray() if keeps else None
        self._more_body = True
        self._again: Message | None = None

    async def receive(self) -> Message:
        """Return the next message."""
        if self._again is not None:
            again, self._again = self._again, None
            self._holding.keep(0)
            return again
        message = await self._receive()
        if self._kept is not None and message["type"] == "http.request":
            self._kept += message.get("body", b"")
            self._more_body = message.get("more_body", False)
            self._holding.keep(len(self._kept))
        return message

    def rewind(self) -> None:
        """Give what is kept again, before what arrives. Nothing more is kept."""
        body = b"" if self._kept is None else bytes(self._kept)
        self._kept = None
        self._again = {"type": "http.request", "body": body, "more_body": self._more_body}

    def forget(self) -> None:
        """Keep nothing any longer: the first frame is opened."""
        if self._kept is not None or self._again is not None:
            self._kept = self._again = None
            self._holding.forget_kept()
