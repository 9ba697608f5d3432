"""ASGI middleware that shows a test what keys a vLLM process holds: `vllm serve --middleware key_probe.KeyProbe`.

`GET /test/keys` answers with the status of the ring. When a lifespan is over, a report of its keys' end is written into
the folder `KEY_PROBE_FOLDER`. It shows no secret.
"""

import asyncio
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

REFRESHING_TASK = "server_keys refresh"


class KeyProbe:
    """Looks at the app's state from the inside of vLLM's own middleware."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == "/test/keys":
            await answer(send, seen(scope["app"].state.ephemeral_keys))
        else:
            await self.app(scope, receive, send)

    async def _lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        rings: list[Any] = []
        pairs: list[Any] = []

        async def receive_and_look() -> Any:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                ring = scope["app"].state.ephemeral_keys
                rings.append(ring)
                pairs.extend(ring.accepted)
            return message

        await self.app(scope, receive_and_look, send)
        report = {
            "closed": [ring.status.closed for ring in rings],
            "erased": [pair.erased for pair in pairs],
            "tasks": refreshing_tasks(),
        }
        write_report(report)


def write_report(report: dict[str, Any]) -> None:
    """Leave `report` where the test finds it when this process is gone."""
    Path(os.environ["KEY_PROBE_FOLDER"], f"{os.getpid()}.json").write_text(json.dumps(report))


def seen(ring: Any) -> dict[str, Any]:
    """Return what a test may know of `ring` and its process."""
    return {
        "pid": os.getpid(),
        "period_s": ring.period_s,
        "overlap_s": ring.overlap_s,
        "refreshing_tasks": refreshing_tasks(),
        **dataclasses.asdict(ring.status),
    }


def refreshing_tasks() -> int:
    """Count the tasks that refresh keys in this process."""
    return sum(task.get_name() == REFRESHING_TASK and not task.done() for task in asyncio.all_tasks())


async def answer(send: Any, content: dict[str, Any]) -> None:
    """Send `content` as JSON."""
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
