"""The doctor: what it says of servers that are well, and of each way in which they are not."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server_keys import protect
from server_keys._checks import Required
from tests.helpers.commands import run_here, serving
from tests.helpers.server_processes import free_port
from tests.helpers.servers import STANDARD, running
from tests.helpers.tcp_proxy import tcp_proxy
from tests.helpers.upstream_app import Upstream
from tests.helpers.wire_tap import tapped

SUBJECTS = {
    "key",
    "identity",
    "way of the key",
    "lifetime",
    "caches",
    "processes",
    "plaintext",
    "sealed request",
    "headers",
    "streams",
}


def build_app(refresh_time: float = 300, **options: Any) -> FastAPI:
    app = FastAPI()

    @app.post("/events")
    async def events(request: Request) -> StreamingResponse:
        seconds = json.loads(await request.body())["seconds"]

        async def stream() -> Any:
            for number in range(10):
                yield f"data: {number}\n\n"
                await asyncio.sleep(seconds / 10)

        return StreamingResponse(stream(), media_type="text/event-stream")

    return protect(app, refresh_time, **{"required": True, "share": None, **options})


def examined(url: str, *arguments: str, status: int = 0) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Return the verdict, the words and the values of each subject."""
    done = run_here("check", url, "--json", *arguments)
    assert done.returncode == status, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["url"] == url
    assert said["ok"] is (status == 0)
    return {each["subject"]: (each["verdict"], each["says"], each["values"]) for each in said["findings"]}


def changed_by(change: Callable[[Message], Message], app: ASGIApp) -> ASGIApp:
    """Return `app` behind something that changes its messages."""

    async def changed(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_changed(message: Message) -> None:
            await send(change(message))

        await app(scope, receive, send_changed if scope["type"] == "http" else send)

    return changed


def with_header(name: bytes, value: bytes) -> Callable[[Message], Message]:
    def change(message: Message) -> Message:
        if message["type"] != "http.response.start":
            return message
        headers = [header for header in message["headers"] if header[0] != name]
        return {**message, "headers": [*headers, (name, value)]}

    return change


def test_a_server_that_is_well() -> None:
    app = build_app()
    with running(app, STANDARD) as url:
        found = examined(url, "--path", "/events", "--data", '{"seconds": 1}', "--strict")
        key_id = app.state.ephemeral_keys.status.key_id
    assert found.pop("rotation")[0] == "not checked"
    assert set(found) == SUBJECTS
    assert found.pop("identity")[0] == "not checked"
    assert {verdict for verdict, _, _ in found.values()} == {"ok"}
    assert found["key"][2]["key_id"] == key_id
    assert found["lifetime"][2]["max_age_s"] == 295
    assert found["streams"][2]["first_s"] < 0.3 < found["streams"][2]["last_s"]


def test_people_get_a_table() -> None:
    with running(build_app(), STANDARD) as url:
        done = run_here("check", url)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == url
    assert any(line.startswith("plaintext ") and " ok " in line for line in lines)
    assert max(map(len, lines)) < 110


@pytest.mark.parametrize("required", [True, "v1"])
def test_one_that_refuses_plaintext_is_well(required: Required) -> None:
    with running(build_app(required=required), STANDARD) as url:
        assert examined(url, "--strict")["plaintext"][0] == "ok"


def test_a_400_for_another_reason_does_not_refuse_plaintext() -> None:
    app = build_app(required=False)

    @app.post("/.well-known/server-keys-check")
    async def refuse() -> JSONResponse:
        return JSONResponse({"title": "no such thing"}, 400, media_type="application/problem+json")

    with running(app, STANDARD) as url:
        assert examined(url)["plaintext"][0] == "warning"


def test_one_that_goes_away_while_it_is_waited_for_fails() -> None:
    with running(build_app(), STANDARD) as url, tcp_proxy(int(url.rpartition(":")[2])) as proxy:
        cutting = threading.Timer(2, proxy.cut)
        cutting.start()
        found = examined(f"http://127.0.0.1:{proxy.port}", "--wait-s", "4", status=1)
        cutting.join()
    assert found["key"][0] == "ok"
    for subject in ("rotation", "sealed request"):
        assert found[subject][0] == "failure"
        assert "no answer" in found[subject][1]
    assert {found[subject][0] for subject in ("plaintext", "streams")} == {"not checked"}


def test_one_whose_answers_cannot_be_decoded_fails() -> None:
    def change(message: Message) -> Message:
        is_sealed = any(name == b"ehbp-response-nonce" for name, _ in message.get("headers", ()))
        return with_header(b"content-encoding", b"gzip")(message) if is_sealed else message

    with running(changed_by(change, build_app()), STANDARD) as url:
        verdict, says, _ = examined(url, status=1)["sealed request"]
    assert verdict == "failure"
    assert "DecodingError" in says


def test_one_that_takes_plaintext_is_warned_of() -> None:
    with running(build_app(required=False), STANDARD) as url:
        verdict, says, _ = examined(url)["plaintext"]
        assert verdict == "warning"
        assert "--require-sealed" in says
        assert examined(url, "--strict", status=1)


def test_one_without_keys_fails() -> None:
    with running(Upstream(), STANDARD) as url:
        found = examined(url, status=1)
    assert found["key"][0] == "failure"
    assert "--key-url" in found["key"][1]


def test_one_that_is_not_there_fails() -> None:
    found = examined(f"http://127.0.0.1:{free_port()}", status=1)
    assert "does not answer" in found["key"][1]


def test_processes_with_keys_of_their_own_are_found() -> None:
    with (
        running(build_app(), STANDARD) as one,
        running(build_app(), STANDARD) as other,
        tapped(*(int(url.rpartition(":")[2]) for url in (one, other))) as balanced,
    ):
        verdict, says, values = examined(balanced.url, status=1)["processes"]
    assert verdict == "failure"
    assert len(values["keys"]) == 2
    assert "share" in says


def test_workers_that_share_a_ring_are_one_server_and_rotate() -> None:
    with running(Upstream(), STANDARD) as upstream:
        options = ("--workers", "2", "--key-refresh-time-s", "2")
        with serving("open", "--to", upstream, "--listen", "127.0.0.1:0", *options) as opened:
            found = examined(opened.url, "--wait-s", "30")
    assert found["processes"][0] == "ok"
    assert found["rotation"][0] == "ok"
    assert found["rotation"][2]["changed"]
    assert found["rotation"][2]["predecessor_accepted"]
    assert found["rotation"][2]["waited_s"] < 10


def test_a_predecessor_that_is_refused_at_once_is_warned_of() -> None:
    with running(build_app(1, overlap=0), STANDARD) as url:
        verdict, says, _ = examined(url, "--wait-s", "10")["rotation"]
    assert verdict == "warning"
    assert "overlap" in says


def test_a_key_that_stays_too_long_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    # A server that says "ten seconds", and has the same key after half a minute: held still, not waited for.
    app = changed_by(with_header(b"cache-control", b"private, max-age=10"), build_app(300))
    now = [time.monotonic()]
    monkeypatch.setattr("server_keys.command.doctor.keys.time.monotonic", lambda: now[0])
    monkeypatch.setattr("server_keys.command.doctor.keys.time.sleep", lambda s: now.__setitem__(0, now[0] + s))
    with running(app, STANDARD) as url:
        verdict, says, values = examined(url, "--wait-s", "60")["rotation"]
    assert verdict == "warning"
    assert "refreshes fail" in says
    assert not values["changed"]


@pytest.mark.parametrize(
    ("change", "subject", "status", "says"),
    [
        (with_header(b"age", b"17"), "caches", 1, "age: 17"),
        (with_header(b"x-cache", b"HIT"), "caches", 1, "x-cache: HIT"),
        (with_header(b"cache-control", b"max-age=86400"), "lifetime", 0, "86400"),
        (with_header(b"cache-control", b"public"), "lifetime", 0, "never change"),
        (with_header(b"cache-control", b"max-age=10"), "headers", 0, "no-transform"),
        (with_header(b"content-type", b"text/html"), "key", 1, "text/html"),
    ],
)
def test_whatever_stands_in_between_and_changes_answers_is_found(
    change: Callable[[Message], Message], subject: str, status: int, says: str
) -> None:
    with running(changed_by(change, build_app()), STANDARD) as url:
        verdict, said, _ = examined(url, status=status)[subject]
    assert verdict in ("warning", "failure")
    assert says in said


def test_a_key_whose_media_type_is_written_in_another_way_is_one() -> None:
    with running(
        changed_by(with_header(b"content-type", b"Application/OHTTP-keys; v=1"), build_app()), STANDARD
    ) as url:
        assert examined(url)["key"][0] == "ok"


def test_a_stream_that_is_held_back_is_found() -> None:
    app = build_app()

    async def holding(scope: Scope, receive: Receive, send: Send) -> None:
        held: list[Message] = []

        async def hold(message: Message) -> None:
            held.append(message)
            if message["type"] != "http.response.start" and not message.get("more_body", False):
                for each in held:
                    await send(each)

        await app(scope, receive, hold if scope["type"] == "http" else send)

    with running(holding, STANDARD) as url:
        verdict, says, _ = examined(url, "--path", "/events", "--data", '{"seconds": 1}')["streams"]
    assert verdict == "warning"
    assert "holds the stream back" in says


def test_an_answer_that_is_not_sealed_fails() -> None:
    app = build_app()

    async def in_front(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            return await send({"type": "http.response.body", "body": b"of somebody else"})
        await app(scope, receive, send)

    with running(in_front, STANDARD) as url:
        verdict, says, _ = examined(url, status=1)["sealed request"]
    assert verdict == "failure"
    assert "200" in says


@pytest.mark.parametrize("by_variable", [False, True])
def test_headers_reach_the_server_and_are_not_printed(by_variable: bool) -> None:
    app = build_app()
    seen: list[tuple[str, str]] = []

    @app.post("/mine")
    async def mine(request: Request) -> None:
        seen.append((request.headers["authorization"], request.headers["x-team"]))

    headers = ["Authorization: Bearer hunter2", "X-Team: a b"]
    arguments = [] if by_variable else [word for header in headers for word in ("--header", header)]
    environment = {"SERVER_KEYS_CHECK_HEADER": "\n".join([*headers, ""])} if by_variable else {}
    with running(app, STANDARD) as url:
        done = run_here("check", url, "--path", "/mine", *arguments, environment=environment)
    assert seen == [("Bearer hunter2", "a b")]
    assert "hunter2" not in done.stdout + done.stderr
