"""The demo's FastAPI app: a chat that is sealed to short-lived keys, and a page that shows both."""

import os
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from examples.demo import agreement, chat_api
from examples.demo.board import Board
from examples.demo.key_history import KeyHistory
from server_keys import EphemeralKeys, KeyRing, KeysUnavailableError, protect

_PAGE = Path(__file__).parent / "page"
_BROWSER_CLIENT = Path(__file__).parents[2] / "js"
_PAGE_HEADERS = {
    # The page loads nothing from elsewhere, runs nothing inline, and stands in no frame.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def create_app(
    refresh_time_s: float,
    overlap_s: float | None = None,
    *,
    word_delay_s: float = 0.0,
    history: KeyHistory | None = None,
    board: Board | None = None,
    identity: Path | None = None,
) -> FastAPI:
    """Return the demo app.

    Args:
        refresh_time_s: seconds between refreshes.
        overlap_s: seconds for which a replaced key is still accepted; `refresh_time_s` by default.
        word_delay_s: seconds between the words of a streamed answer.
        history: watches the keys; a new one by default.
        board: where the processes that serve together tell what they hold; None if this one serves alone.
        identity: the file of the identity that signs the keys; None for none.

    Raises:
        TypeError: a duration is not a number.
        ValueError: a duration is not finite or is out of its range.
    """
    history = KeyHistory(tell=board.tell if board else None) if history is None else history
    # FastAPI's documentation page would load scripts from elsewhere.
    app = FastAPI(title="server-keys demo", docs_url=None, redoc_url=None)
    protect(app, refresh_time_s, overlap=overlap_s, identity=identity)
    app.router.lifespan_context = history.kept(app.router.lifespan_context)
    app.state.key_history = history
    app.state.board = board
    app.state.word_delay_s = word_delay_s
    app.include_router(chat_api.router)
    app.include_router(agreement.router)
    app.add_api_route("/keys", key_lives)
    app.add_api_route("/identity", identity_of_server)
    app.add_exception_handler(KeysUnavailableError, _unavailable)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    # The page's modules import the browser's client as ./js/.
    app.mount("/js", _Page(directory=_BROWSER_CLIENT))
    app.mount("/", _Page(directory=_PAGE, html=True))
    return app


def key_lives(keys: EphemeralKeys, request: Request) -> dict[str, Any]:
    """Return the latest keys, newest first, with how many seconds ago each was made, replaced and erased."""
    history: KeyHistory = request.app.state.key_history
    board: Board | None = request.app.state.board
    history.observe(keys)
    lives = board.lives() if board else history.lives
    now = history.now()
    return {
        "refresh_time_s": keys.period_s,
        "overlap_s": keys.overlap_s,
        "next_event_in_s": _next_event_in_s(keys),
        "made": lives[0].number if lives else 0,
        "keys": [
            {
                "number": life.number,
                "public_key": life.public_key,
                "made_s_ago": now - life.made_at,
                "replaced_s_ago": None if life.replaced_at is None else now - life.replaced_at,
                "erased_s_ago": None if life.erased_at is None else now - life.erased_at,
                "agreements": life.agreements,
                "is_coming": life.is_coming,
            }
            for life in lives
        ],
        "answered_by": os.getpid(),
        "processes": [
            {
                "pid": process.pid,
                "serves": board.serves(process),
                "shared": process.shared,
                "why_not": process.why_not,
                "epoch": process.epoch,
                "members": process.members,
            }
            for process in board.shown()
        ]
        if board
        else [],
    }


def identity_of_server(keys: EphemeralKeys) -> dict[str, str | None]:
    """Return the identity that signs the keys. It is for the show: whoever replaced those could replace this, too."""
    status = keys.status.identity
    return {"identity": status.identity if status else None}


def _next_event_in_s(keys: KeyRing) -> float | None:
    next_s = keys.next_event_in_s()
    if next_s is None or not keys.is_shared:
        return next_s
    status = keys.status
    # When the next pair is published, and when the previous one is over.
    known = [status.next_refresh_in_s, keys.overlap_s - status.age_s if status.age_s is not None else None]
    return min([next_s, *(in_s for in_s in known if in_s is not None and in_s > 0)])


def _unavailable(_request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 503)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - the handler is registered for it
    if _is_for_chat(request):
        return chat_api.error_response(error.status_code, error.detail)
    return await http_exception_handler(request, error)


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - the handler is registered for it
    if _is_for_chat(request):
        return chat_api.error_response(400, chat_api.complaint_of(error.errors()[0]))
    # FastAPI's own answer repeats the input, but JSON can hold strings and numbers that no answer can.
    told = [{part: one[part] for part in ("type", "loc", "msg")} for one in error.errors()]
    return JSONResponse({"detail": told}, 422)


def _is_for_chat(request: Request) -> bool:
    return request.url.path.startswith(f"{chat_api.router.prefix}/")


class _Page(StaticFiles):
    """Static files, with headers that keep everything else out of the page."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_PAGE_HEADERS)
        return response
