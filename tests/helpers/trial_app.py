"""The app that workers serve in trials of sharing: `python -m uvicorn tests.helpers.trial_app:app`.

Each process appends to the file `TRIAL_FOLDER/events` what it does and which keys it has, one JSON object a line.
`TRIAL` says how the app gets its keys: a JSON object with the fields of `tests.helpers.trials.Keys`. Once there is a
file `TRIAL_FOLDER/refresh`, each process refreshes its ring, once. `TRIAL_FOLDER/notes` gets a line for each request to
`/note`: its body.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server_keys import (
    KeyPair,
    KeyRing,
    KeysUnavailableError,
    ephemeral_key_lifespan_factory,
    inject_key_lifespan,
    inject_middleware,
    periodic_refresh,
    protect,
)
from server_keys._clock import boot_time
from server_keys._sharing.siblings import group_of_siblings
from tests.helpers.trials import Keys

KEYS = Keys(**json.loads(os.environ.get("TRIAL", "{}")))
FOLDER = Path(os.environ.get("TRIAL_FOLDER", "."))
LOOKS_EVERY_S = 0.02

_events = os.open(FOLDER / "events", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_notes = os.open(FOLDER / "notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def tell(event: str, **more: object) -> None:
    """Append a line to the events. One write: lines of several processes do not mix."""
    line = {"event": event, "pid": os.getpid(), "at": boot_time(), **more}
    os.write(_events, (json.dumps(line) + "\n").encode())


class LogToEvents(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tell("log", level=record.levelname, message=record.getMessage())


class Watch:
    """A thread that tells each change of the keys that a process has, also while its event loop is blocked."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._ended = threading.Event()
        self._seen: dict[bytes, KeyPair] = {}
        self._thread = threading.Thread(target=self._run, name="watch")
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        before: object = None
        before_at = boot_time()
        is_refreshed = False
        while not self._ended.wait(LOOKS_EVERY_S):
            ring = getattr(self._app.state, "ephemeral_keys", None)
            if ring is None:
                continue
            if not is_refreshed and (FOLDER / "refresh").exists():
                ring.refresh()
                is_refreshed = True
            looks_at = boot_time()
            try:
                found = self._found(ring)
            except KeysUnavailableError:
                continue  # it is not ready yet, or over
            if found != before:
                # A key that is gone was seen at that time last, which is before the look began.
                tell("keys", **found, same_until=before_at, looked_at=looks_at)
                before = found
            before_at = looks_at

    def _found(self, ring: KeyRing) -> dict[str, object]:
        epochs, current, sharing = ring.accepted_pairs, ring.current, ring.status.sharing
        accepted = [pairs.x25519 for pairs in epochs]
        self._seen.update({pair.public_key: pair for pair in accepted})
        return {
            "current": current.public_key.hex(),
            "accepted": [pair.public_key.hex() for pair in accepted],
            "accepted_xwing": [hashlib.sha256(pairs.xwing.public_key).hexdigest() for pairs in epochs if pairs.xwing],
            "erased": [key.hex() for key, pair in self._seen.items() if pair.erased],
            "shared": sharing.shared,
            "epoch": sharing.epoch,
            "members": sharing.members,
            "why_not": sharing.why_not,
            "store": sharing.store,
        }


@asynccontextmanager
async def watched(app: FastAPI) -> AsyncIterator[None]:
    """The app's own lifespan: it runs inside of that of the keys."""
    refresh = None
    if KEYS.refreshes_every_s is not None:
        refresh = asyncio.create_task(periodic_refresh(app, KEYS.refreshes_every_s, share=KEYS.share))
    watch = Watch(app)
    try:
        yield
    finally:
        watch.end()
        if refresh is not None:
            refresh.cancel()
            await asyncio.wait([refresh])


class Telling:
    """Tells when the lifespan of `app` starts, when it serves, and when it is over."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve."""

        async def send_and_tell(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                tell("serves", threads=[thread.name for thread in threading.enumerate()])
            elif message["type"] == "lifespan.shutdown.complete":
                tell("ended")

        if scope["type"] == "lifespan":
            tell("starts")
            await self.app(scope, receive, send_and_tell)
        else:
            await self.app(scope, receive, send)


def build_app(lifespan: object = watched) -> FastAPI:
    app = FastAPI(lifespan=lifespan)  # type: ignore[arg-type]

    @app.post("/echo")
    async def echo(request: Request) -> str:
        return (await request.body()).decode()

    @app.post("/note")
    async def note(request: Request) -> None:
        # One write: what several processes note does not mix.
        os.write(_notes, await request.body() + b"\n")

    @app.post("/block")
    async def block(request: Request) -> int:
        time.sleep(float(await request.body()))  # noqa: ASYNC251 - it is to block the event loop
        return os.getpid()

    return app


def with_keys() -> FastAPI:
    """Return the app with keys, in one of the ways that the documentation knows."""
    if KEYS.way == "protect":
        return protect(build_app(), KEYS.period_s, overlap=KEYS.overlap_s, share=KEYS.share)
    if KEYS.way == "inject":
        build = inject_middleware(build_app)
        return inject_key_lifespan(build, KEYS.period_s, overlap_s=KEYS.overlap_s, share=KEYS.share)()
    if KEYS.way == "factory":
        factory = ephemeral_key_lifespan_factory(KEYS.period_s, overlap=KEYS.overlap_s, share=KEYS.share)
        return build_app(factory(watched))
    assert KEYS.way == "task"
    return build_app()


def squat(folders: list[str]) -> None:
    """Be quicker than the group: put something into its places that is not its own, as another user can."""
    name = group_of_siblings(f"{float(KEYS.period_s)} {float(KEYS.overlap_s or KEYS.period_s)}")
    for folder in folders:
        path = Path(folder) / str(name)
        with contextlib.suppress(FileExistsError):
            path.mkdir(0o700)
            path.chmod(0o777)
            if os.geteuid() == 0:
                os.chown(path, 65534, 65534)
        tell("squatted", path=str(path))


logging.getLogger("server_keys").setLevel(logging.DEBUG)
logging.getLogger("server_keys").addHandler(LogToEvents())

squat(KEYS.squatted)
app = Telling(with_keys())
