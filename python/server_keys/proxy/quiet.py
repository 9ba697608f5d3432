"""Around a whole proxy: whatever fails in there costs one line in the log, without a word of a request."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server_keys._log import logger


class Quiet:
    """Serves `app`, and lets no exception out that its server would log with a traceback.

    Args:
        app: the app.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, websocket or lifespan."""
        if scope["type"] == "lifespan":
            return await self._live(scope, receive, send)
        try:
            await self.app(scope, receive, send)
        except asyncio.CancelledError:
            # The server's time to shut down is over. It cuts the connection, because the response has no end.
            logger().warning("a request was cut off: the time to shut down is over")
        except Exception as error:  # noqa: BLE001 - the server would log it with what it quotes
            logger().error("a request failed (%s)", type(error).__name__)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_failed = False

        async def send_in_one_line(message: Message) -> None:
            nonlocal has_failed
            if message["type"].endswith(".failed"):
                has_failed = True
                lines = message.get("message", "").strip().splitlines()
                message = {**message, "message": lines[-1] if lines else ""}
            await send(message)

        try:
            await self.app(scope, receive, send_in_one_line)
        except Exception:
            if not has_failed:
                raise
