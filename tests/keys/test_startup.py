"""An app that was given keys starts with them, or fails and says what took them away."""

import asyncio
import contextlib
import logging
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from mangum import Mangum
from starlette.datastructures import State
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server_keys import KeyPair, KeyRing, ephemeral_key_lifespan_factory, inject_key_lifespan, protect
from tests.helpers import asgi
from tests.helpers.sealed_requests import Client
from tests.helpers.served_app import echo_app, sealed, served


def with_keys(app: FastAPI) -> FastAPI:
    return inject_key_lifespan(lambda: app, 300)()


@pytest.fixture(params=[protect, with_keys], ids=["protect", "inject_key_lifespan"])
def add_keys(request: pytest.FixtureRequest) -> Callable[[FastAPI], FastAPI]:
    """Something that promises an app keys."""
    add: Callable[[FastAPI], FastAPI] = request.param
    return add


@asynccontextmanager
async def mine(_app: FastAPI) -> AsyncIterator[None]:
    """Do nothing about keys."""
    yield


class OwnLifespan:
    def __call__(self, app: FastAPI) -> Any:
        return mine(app)


async def start(app: ASGIApp) -> tuple[list[Message], Exception | None]:
    """Start an app, and return what it told the server and how it ended."""
    told: list[Message] = []
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    to_app.put_nowait({"type": "lifespan.startup"})

    async def send(message: Message) -> None:
        told.append(message)
        if message["type"] == "lifespan.startup.complete":
            to_app.put_nowait({"type": "lifespan.shutdown"})

    try:
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, to_app.get, send)
    except Exception as error:  # noqa: BLE001 - a server would log it; tests look at it
        return told, error
    return told, None


def assert_fails_in_one_line(app: FastAPI, *words: str) -> None:
    told, error = asyncio.run(asyncio.wait_for(start(app), 10))
    assert [message["type"] for message in told] == ["lifespan.startup.failed"]
    line = told[0]["message"]
    assert line.startswith("the app has no keys: ")
    assert "\n" not in line
    for word in words:
        assert word in line
    assert isinstance(error, RuntimeError)
    assert str(error) == line


def assign_function(app: FastAPI) -> str:
    app.router.lifespan_context = mine
    return f"{__name__}.mine"


def assign_object(app: FastAPI) -> str:
    app.router.lifespan_context = OwnLifespan()
    return f"{__name__}.OwnLifespan"


def assign_router(app: FastAPI) -> str:
    app.router = APIRouter()
    return "fastapi.routing._DefaultLifespan"


@pytest.mark.parametrize("replace", [assign_function, assign_object, assign_router])
def test_a_lifespan_that_was_assigned_later_is_named(
    add_keys: Callable[[FastAPI], FastAPI], replace: Callable[[FastAPI], str]
) -> None:
    app = add_keys(FastAPI())
    named = replace(app)
    assert_fails_in_one_line(app, f"app.router.lifespan_context was replaced after they were added, by {named}. ")


def test_the_assigned_lifespan_has_ended_when_the_failure_is_told() -> None:
    app = protect(FastAPI())
    log: list[str] = []

    @asynccontextmanager
    async def stubborn(_app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        except RuntimeError as error:  # and does not pass it on
            log.append(str(error)[:20])
        log.append("cleaned up")

    app.router.lifespan_context = stubborn
    assert_fails_in_one_line(app)
    assert log == ["the app has no keys:", "cleaned up"]


def test_middleware_that_catches_the_failure_does_not_hold_up_the_start() -> None:
    log: list[str] = []

    class Catches:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def send_and_catch(message: Message) -> None:
                with contextlib.suppress(RuntimeError):
                    await send(message)

            await self.app(scope, receive, send_and_catch)

    @asynccontextmanager
    async def logged(_app: FastAPI) -> AsyncIterator[None]:
        yield
        log.append("cleaned up")

    app = protect(FastAPI())
    app.router.lifespan_context = logged
    app.add_middleware(Catches)
    assert_fails_in_one_line(app)
    assert log == ["cleaned up"]


def test_what_the_failure_says_to_write_works(add_keys: Callable[[FastAPI], FastAPI]) -> None:
    app = add_keys(FastAPI())
    app.router.lifespan_context = mine
    message = asyncio.run(start(app))[0][0]["message"]
    scope = {"app": app, "ephemeral_key_lifespan_factory": ephemeral_key_lifespan_factory}
    exec(message[message.index("app.router.lifespan_context = ") :], scope)
    with TestClient(app):
        assert app.state.ephemeral_keys.period_s == 300


def test_adding_keys_again_after_the_assignment_works(add_keys: Callable[[FastAPI], FastAPI]) -> None:
    app = add_keys(FastAPI())
    app.router.lifespan_context = mine
    with TestClient(add_keys(app)):
        assert not app.state.ephemeral_keys.status.closed


def test_a_lifespan_that_wraps_the_one_with_keys_may_be_assigned(add_keys: Callable[[FastAPI], FastAPI]) -> None:
    app = add_keys(FastAPI())
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def outer(app: FastAPI) -> AsyncIterator[None]:
        async with inner(app):
            yield

    app.router.lifespan_context = outer
    app.include_router(APIRouter(lifespan=mine))  # FastAPI makes a new lifespan of both
    with TestClient(app):
        assert not app.state.ephemeral_keys.status.closed


def test_an_app_whose_scope_another_one_gets_too_starts_with_its_keys(
    add_keys: Callable[[FastAPI], FastAPI], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "server_keys")
    app, other = add_keys(FastAPI()), FastAPI()

    async def dispatcher(scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_for_both() -> Message:
            scope["app"] = other  # as `other` does when it is called with this scope
            return await receive()

        await app(scope, receive_for_both, send)

    told, error = asyncio.run(start(dispatcher))
    assert error is None
    assert [message["type"] for message in told] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert len(caplog.messages) == (1 if add_keys is protect else 0)  # the start, with the key's id


def replace_state(app: FastAPI) -> None:
    app.state = State()


def clear_state(app: FastAPI) -> None:
    del app.state.ephemeral_keys


def delete_state(app: FastAPI) -> None:
    del app.state


STATE_CHANGES = [replace_state, clear_state, delete_state]


@pytest.mark.parametrize("meddle", STATE_CHANGES)
def test_a_start_up_that_loses_the_state_is_told_so(
    add_keys: Callable[[FastAPI], FastAPI], meddle: Callable[[FastAPI], None]
) -> None:
    rings: list[KeyRing] = []

    @asynccontextmanager
    async def losing(app: FastAPI) -> AsyncIterator[None]:
        rings.append(app.state.ephemeral_keys)
        meddle(app)
        yield

    app = add_keys(FastAPI(lifespan=losing))
    assert_fails_in_one_line(
        app, "during its start-up, something replaced app.state, or removed app.state.ephemeral_keys"
    )
    assert rings[0].status.closed


def test_a_state_that_is_replaced_before_the_start_gets_the_keys(add_keys: Callable[[FastAPI], FastAPI]) -> None:
    app = add_keys(FastAPI())
    app.state = State()
    with TestClient(app):
        assert not app.state.ephemeral_keys.status.closed


def test_middleware_that_answers_lifespans_itself_is_suspected() -> None:
    class AnswersLifespans:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["type"] == "lifespan"
            await receive()
            await send({"type": "lifespan.startup.complete"})

    app = protect(FastAPI())
    app.add_middleware(AnswersLifespans)
    assert_fails_in_one_line(app, "something answered its start-up without running app.router.lifespan_context")


def test_a_start_up_that_fails_by_itself_fails_as_before(add_keys: Callable[[FastAPI], FastAPI]) -> None:
    mistake = LookupError("no such model")

    @asynccontextmanager
    async def failing(_app: FastAPI) -> AsyncIterator[None]:
        raise mistake
        yield

    told, error = asyncio.run(start(add_keys(FastAPI(lifespan=failing))))
    assert error is mistake
    assert [message["type"] for message in told] == ["lifespan.startup.failed"]
    assert "LookupError: no such model" in told[0]["message"]


def test_an_app_may_delete_its_state_on_its_way_out(
    add_keys: Callable[[FastAPI], FastAPI], caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def as_vllm_does(app: FastAPI) -> AsyncIterator[None]:
        yield
        del app.state

    told, error = asyncio.run(start(add_keys(FastAPI(lifespan=as_vllm_does))))
    assert error is None
    assert [message["type"] for message in told] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert caplog.messages == []


def test_a_real_server_ends_with_that_line_and_no_traceback(tmp_path: Path) -> None:
    tmp_path.joinpath("taken.py").write_text(
        textwrap.dedent("""
            from contextlib import asynccontextmanager
            from fastapi import FastAPI
            from server_keys import protect

            @asynccontextmanager
            async def mine(app):
                yield

            app = protect(FastAPI())
            app.router.lifespan_context = mine
        """)
    )
    command = [sys.executable, "-m", "uvicorn", "taken:app", "--port", "0", "--log-level", "warning"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 3
    lines = ended.stderr.splitlines()
    assert len(lines) == 2
    assert (
        "the app has no keys: app.router.lifespan_context was replaced after they were added, by taken.mine" in lines[0]
    )
    assert lines[1].endswith("Application startup failed. Exiting.")


def errors_of(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "server_keys" and record.levelno == logging.ERROR and words in record.getMessage()
    ]


def test_where_nobody_runs_the_lifespan_the_first_request_says_so(caplog: pytest.LogCaptureFixture) -> None:
    app = protect(echo_app())
    client = TestClient(app)  # not entered: lifespans do not run
    for _ in range(3):
        assert client.post("/echo", content="in the clear").json() == "in the clear"
    (line,) = errors_of(caplog, "the app serves without keys, so sealed requests and handlers that want keys fail")
    assert "nobody runs its lifespan" in line
    assert "`--lifespan off`" in line
    assert "daphne" in line
    assert "with TestClient(app) as client:" in line


def test_where_nobody_runs_the_lifespan_sealed_requests_get_a_problem_instead_of_a_bare_500() -> None:
    client = TestClient(protect(echo_app()))
    headers = dict(Client(KeyPair.generate()).headers)
    for answer in (client.post("/echo", headers=headers, content=b"x"), client.get("/.well-known/hpke-keys")):
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["title"] == "the server has no key at the moment"


def test_a_state_that_is_replaced_while_the_app_serves_is_told_at_the_next_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = protect(echo_app())

    async def main() -> None:
        async with served(app):
            assert (await sealed(app))[0] == 200
            assert caplog.messages == []
            app.state = State()
            for _ in range(2):
                assert (await asgi.call(app, "POST", "/echo", pieces=[b"in the clear"])).status == 200

    asyncio.run(main())
    assert len(errors_of(caplog, "handlers that want keys fail: something replaced app.state")) == 1


def api_gateway_event(path: str) -> dict[str, Any]:
    http = {"method": "GET", "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "test"}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "api.example"},
        "requestContext": {"http": http, "domainName": "api.example", "stage": "$default"},
        "isBase64Encoded": False,
    }


def test_a_host_that_runs_a_lifespan_for_each_invocation_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with asyncio.Runner() as runner:
        asyncio.set_event_loop(runner.get_loop())
        invoke = Mangum(protect(FastAPI()))
        keys = {invoke(api_gateway_event("/.well-known/hpke-keys"), SimpleNamespace())["body"] for _ in range(4)}
    assert len(keys) == 4  # what the warning is about
    warnings = [record.getMessage() for record in caplog.records if record.name == "server_keys"]
    assert len(warnings) == 1
    assert "its host runs a lifespan for each invocation" in warnings[0]
    assert "sealed requests are refused (422)" in warnings[0]


@pytest.mark.parametrize("requests", [0, 2])
def test_an_app_that_is_started_again_after_some_use_is_fine(caplog: pytest.LogCaptureFixture, requests: int) -> None:
    app = protect(echo_app())

    async def main() -> None:
        for _ in range(3):
            async with served(app):
                for _ in range(requests):
                    assert (await sealed(app))[0] == 200

    asyncio.run(main())
    assert caplog.messages == []


def test_tests_that_enter_a_client_for_a_request_each_are_no_such_host(caplog: pytest.LogCaptureFixture) -> None:
    app = protect(echo_app())
    for _ in range(3):
        with TestClient(app) as client:
            assert client.get("/.well-known/hpke-keys").status_code == 200
    assert [record for record in caplog.records if record.name == "server_keys"] == []
