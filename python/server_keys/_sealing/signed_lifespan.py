"""The lifespan of an app whose keys are signed: its identity is read at the start, and signs until the end."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server_keys._keys.ring import KeyRing
from server_keys._log import logger
from server_keys._sealing.signed_answers import SignedAnswers
from server_keys.errors import IdentityFileError


def signing(signed_answers: SignedAnswers, ring_of_app: Callable[[], KeyRing | None], app: ASGIApp) -> ASGIApp:
    """Return what runs the lifespan of `app`, and has the keys of its ring signed while it serves.

    The start is refused, with one line, if the identity's file cannot be used.

    Args:
        signed_answers: what signs.
        ring_of_app: returns the ring once the app has started.
        app: the app.
    """

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            signed_answers.open()
        except (IdentityFileError, MemoryError) as error:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        async with AsyncExitStack() as ending:
            ending.callback(signed_answers.close)

            async def send_and_sign(message: Message) -> None:
                if message["type"] == "lifespan.startup.complete" and (ring := ring_of_app()) is not None:
                    ring.tell_of_identity(signed_answers.tell)
                    logger().info("published keys are signed by %s", signed_answers.tell().identity)
                    task = asyncio.create_task(signed_answers.keep_signed(ring), name="server_keys identity")
                    ending.push_async_callback(_end, task)
                    # Let it sign before the first client asks.
                    await asyncio.sleep(0)
                elif message["type"].startswith("lifespan.shutdown."):
                    # A server may end as soon as it has this message.
                    await ending.aclose()
                await send(message)

            await app(scope, receive, send_and_sign)

    return run


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
