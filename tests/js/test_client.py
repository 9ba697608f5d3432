"""The browser's client against servers of other origins, well behaved and not."""

import socket
import subprocess

import pytest
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from examples.demo.app import create_app
from tests.helpers.servers import running
from tests.js.engines import JS, Engine, needs_node
from tests.js.servers import KEY_PATH, Server, run


def test_a_page_of_another_origin_talks_to_the_server_that_it_names(engine: Engine, server: Server) -> None:
    texts = run(
        engine,
        "return [await read(await client.post('/echo', 'a b')), await read(await client.post('/echo', 'c'))];",
        server.url,
    )
    assert texts == ["a;b;", "c;"]
    assert [(method, path) for method, path, _ in server.requests] == [
        ("GET", KEY_PATH),
        ("POST", "/echo"),
        ("POST", "/echo"),
    ]


def test_a_base_url_with_a_path_is_what_relative_paths_begin_with(engine: Engine, server: Server) -> None:
    assert run(engine, "return read(await client.post('echo', 'a'));", f"{server.url}/") == "a;"
    answer = run(engine, "return client.post('echo', 'a').then(({ status }) => status);", f"{server.url}/team-a/")
    assert answer == 404
    assert server.requests[-2:][0][1] == KEY_PATH
    assert server.requests[-1][1] == "/team-a/echo"


@pytest.mark.parametrize("path", ["https://elsewhere.invalid/echo", "//elsewhere.invalid/echo", "data:,x"])
def test_a_body_goes_to_the_server_whose_key_seals_it_and_nowhere_else(
    engine: Engine, server: Server, path: str
) -> None:
    told = run(engine, "return client.post(inputs.path, 'a').catch(messageOf);", server.url, path=path)
    assert told.startswith("TypeError: ")
    assert f"is not on the server {server.url}" in told
    assert server.requests == []


@pytest.mark.parametrize("bad", ["my-server", "ftp://my-server", "about:blank", "https://", 5])
def test_a_bad_base_url_is_named(engine: Engine, bad: object) -> None:
    made = "try { new EhbpClient({ baseUrl: inputs.bad }); } catch (error) { return messageOf(error); }"
    told = run(engine, made, "https://unused.invalid", bad=bad)
    assert told.startswith("TypeError: baseUrl must be a server's URL such as")


@pytest.mark.parametrize("makes", ["new EhbpClient({ baseUrl: inputs.named })", "client.post(inputs.named, 'a')"])
def test_a_url_with_credentials_is_refused_and_not_shown(engine: Engine, server: Server, makes: str) -> None:
    named = server.url.replace("//", "//me:hunter2@")
    told = run(
        engine, f"try {{ await {makes}; }} catch (error) {{ return messageOf(error); }}", server.url, named=named
    )
    assert told.startswith("TypeError: a URL with a user name or a password cannot be fetched")
    assert "hunter2" not in told
    assert server.requests == []


def test_a_page_need_not_name_its_own_server_and_node_must(engine: Engine) -> None:
    made = "try { new EhbpClient(); return null; } catch (error) { return messageOf(error); }"
    told = run(engine, made, "https://unused.invalid")
    in_a_page = run(engine, "return Boolean(globalThis.document);", "https://unused.invalid")
    assert (told is None) is in_a_page


def test_callers_headers_go_with_the_body_and_not_to_the_key(engine: Engine, server: Server) -> None:
    headers = {"Authorization": "Bearer x", "content-type": "text/plain", "Ehbp-Encapsulated-Key": "mine"}
    body = "return read(await client.post('/echo', 'a', { headers: inputs.headers }));"
    assert run(engine, body, server.url, headers=headers) == "a;"
    (_, _, at_key), (_, _, at_echo) = server.requests
    assert "authorization" not in at_key
    assert (at_echo["authorization"], at_echo["content-type"]) == ("Bearer x", "text/plain")


def test_no_header_describes_the_plaintext_of_a_body(engine: Engine, server: Server) -> None:
    described = {
        "Content-Length": "3",
        "Content-MD5": "x",
        "Digest": "x",
        "Content-Digest": "x",
        "Repr-Digest": "x",
        "Range": "bytes=0-0",
        "If-Range": "x",
    }
    body = "return read(await client.post('/echo', 'a b', { headers: inputs.headers }));"
    assert run(engine, body, server.url, headers=described) == "a;b;"
    headers = server.requests[-1][2]
    assert {name for name in headers if name in map(str.lower, described)} == {"content-length"}
    assert int(headers["content-length"]) > 3


def test_a_key_that_the_server_erased_is_replaced_at_once(engine: Engine, server: Server) -> None:
    # Between the key and the request, the server replaces its keys twice.
    class Rotating(PlainTextResponse):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            server.answers.clear()
            server.ring.refresh()
            server.ring.refresh()
            await server.inner(scope, receive, send)

    server.answers["/echo"] = Rotating()
    assert run(engine, "return read(await client.post('/echo', 'a'));", server.url) == "a;"
    assert server.key_requests == 2


@pytest.mark.parametrize("media_type", ["Application/OHTTP-Keys", "application/ohttp-keys; charset=utf-8"])
def test_the_keys_media_type_may_be_written_in_any_way(engine: Engine, server: Server, media_type: str) -> None:
    server.key_headers = {"content-type": media_type}
    assert run(engine, "return read(await client.post('/echo', 'a'));", server.url) == "a;"


@pytest.mark.parametrize("media_type", ["text/html", "application/ohttp-keys-2", None])
def test_another_media_type_is_no_key(engine: Engine, server: Server, media_type: str | None) -> None:
    server.key_headers = {"content-type": media_type}
    told = run(engine, "return client.post('/echo', 'a').catch(messageOf);", server.url)
    assert f"{KEY_PATH} was answered with {media_type or 'no media type'}, not application/ohttp-keys" in told


def test_a_burst_fetches_the_key_once(engine: Engine, server: Server) -> None:
    server.key_delay_s = 0.2
    burst = "return Promise.all([...Array(20).keys()].map(async (i) => read(await client.post('/echo', String(i)))));"
    assert run(engine, burst, server.url) == [f"{i};" for i in range(20)]
    assert server.key_requests == 1


def test_one_of_a_burst_may_leave_while_the_key_is_fetched(engine: Engine, server: Server) -> None:
    server.key_delay_s = 0.5
    burst = """
        const leaving = new AbortController();
        const left = client.post("/echo", "a", { signal: leaving.signal }).catch((error) => error.name);
        const stayed = client.post("/echo", "b").then(read);
        leaving.abort();
        const late = client.post("/echo", "c", { signal: leaving.signal }).catch((error) => error.name);
        return [await left, await stayed, await late];
    """
    assert run(engine, burst, server.url) == ["AbortError", "b;", "AbortError"]
    assert server.key_requests == 1


def test_a_signal_that_was_aborted_before_leaves_no_error_behind(engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    # Node ends with an error that nobody handles. Pages report it.
    body = """
        let unhandled = 0;
        globalThis.addEventListener?.("unhandledrejection", () => { unhandled += 1; });
        const told = await client.post("/echo", "a", { signal: AbortSignal.abort() }).catch((error) => error.name);
        await new Promise((resolve) => setTimeout(resolve, 300));
        return [told, unhandled];
    """
    assert run(engine, body, nobody) == ["AbortError", 0]


def test_an_engine_without_webcrypto_is_told_what_it_lacks(engine: Engine, server: Server) -> None:
    # As in a page of plain http that is not of localhost.
    body = """
        Object.defineProperty(globalThis, "crypto", { value: {} });
        return client.post("/echo", "a").catch(messageOf);
    """
    told = run(engine, body, server.url)
    assert told.startswith("KeyConfigurationError: This page has no WebCrypto, so nothing was sent")
    assert server.requests == []


@pytest.mark.parametrize("cache_control", ["no-store", None])
def test_a_key_that_may_not_be_kept_is_fetched_for_each_request(
    engine: Engine, server: Server, cache_control: str | None
) -> None:
    server.key_headers = {"cache-control": cache_control}
    run(engine, "await client.post('/echo', 'a'); await client.post('/echo', 'b');", server.url)
    assert server.key_requests == 2


@pytest.mark.parametrize("status", [200, 400, 422, 503])
def test_after_an_unsealed_answer_the_key_is_fetched_anew(engine: Engine, server: Server, status: int) -> None:
    cors = {"Access-Control-Allow-Origin": "*"}
    server.answers["/nothing"] = PlainTextResponse("a gateway's words", status, headers=cors)
    body = """
        const told = await client.post("/nothing", "a").catch((error) => error.message);
        return [told, await read(await client.post("/echo", "b"))];
    """
    told, text = run(engine, body, server.url)
    assert told.startswith(f"The answer {status} was not sealed")
    assert text == "b;"
    # A server that has gone back to plain EHBP answers 400 to version 1, or a proxy has rewritten a refusal of the key.
    is_sent_again = engine.has_xwing and status in (400, 422)
    assert server.key_requests == (3 if is_sent_again else 2)
    assert len(server.sealed_as) == server.key_requests


@pytest.mark.parametrize(("status", "more"), [(503, {}), (200, {}), (200, {"Ehbp-Response-Nonce": "short"})])
def test_the_headers_tell_when_to_come_back(engine: Engine, server: Server, status: int, more: dict[str, str]) -> None:
    headers = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "*", "Retry-After": "7", **more}
    server.answers["/nothing"] = PlainTextResponse("busy", status, headers=headers)
    body = """
        const refused = await client.post("/nothing", "a").catch((error) => error.headers.get("Retry-After"));
        const { headers, contentType } = await client.post("/asked", "b");
        return [refused, headers.get("Content-Type") === contentType];
    """
    assert run(engine, body, server.url) == ["7", True]


def test_an_answer_in_place_of_the_key_tells_when_to_come_back(engine: Engine, server: Server) -> None:
    cors = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "*"}
    server.answers[KEY_PATH] = PlainTextResponse("starting", 503, headers=cors | {"Retry-After": "7"})
    body = """
        const error = await client.post("/echo", "a").catch((error) => error);
        return [error.name, error.status, error.headers.get("Retry-After")];
    """
    assert run(engine, body, server.url) == ["KeyConfigurationError", 503, "7"]


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"Location": "/elsewhere"}, "was answered with a redirect"),
        ({"Ehbp-Response-Nonce": "short"}, "the header Ehbp-Response-Nonce cannot be used: it must "),
    ],
)
def test_after_a_request_that_failed_the_key_is_fetched_anew(
    engine: Engine, server: Server, headers: dict[str, str], told: str
) -> None:
    cors = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "*"}
    status = 307 if "Location" in headers else 200
    server.answers["/nothing"] = Response(status_code=status, headers=cors | headers)
    body = """
        const told = await client.post("/nothing", "a").catch((error) => error.message);
        return [told, await read(await client.post("/echo", "b"))];
    """
    message, text = run(engine, body, server.url)
    assert told in message
    assert text == "b;"
    assert server.key_requests == 2


@needs_node
def test_the_example_of_the_readme_chats() -> None:
    example = (JS / "README.md").read_text().partition("```js\n")[2].partition("```")[0]
    with running(create_app(1000)) as url:
        for shown, used in (
            ("./js/ehbp.js", f"{JS.as_uri()}/ehbp.js"),
            ("https://my-server", url),
            ("my-model", "toy-rambler"),
        ):
            assert shown in example
            example = example.replace(shown, used)
        command = ["node", "--no-warnings", "--input-type=module", "--eval", example]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("200 ")
    assert '"object":"chat.completion"' in done.stdout


@pytest.mark.parametrize("path", [KEY_PATH, "/echo"])
def test_a_redirect_is_not_followed(engine: Engine, server: Server, path: str) -> None:
    headers = {"Access-Control-Allow-Origin": "*", "Location": f"{server.url}/elsewhere"}
    server.answers[path] = Response(status_code=307, headers=headers)
    told = run(engine, "return client.post('/echo', 'a').catch(messageOf);", server.url)
    assert told == f"Error: {server.url}{path} was answered with a redirect, which is never followed."
    assert not any(path == "/elsewhere" for _, path, _ in server.requests)


def test_a_response_without_a_body_has_no_pieces(engine: Engine, server: Server) -> None:
    body = "const response = await client.post('/nothing', 'a'); return [response.status, await read(response)];"
    assert run(engine, body, server.url) == [204, ""]


def test_a_server_that_is_not_there_is_told_in_plain_words(engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    told = run(engine, "return client.post('/echo', 'a').catch(messageOf);", nobody)
    assert told == "Error: The server does not answer."
