"""Version 1 of the wire between the browser's client and a real server: what travels, and what nobody can change."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from server_keys._sealing.key_entries import PublishedKeys, XWingKey, key_answer
from server_keys._sealing.protocol import KEY_CONFIG_MEDIA_TYPE, key_config
from server_keys._sealing.wire_v1 import parsed_request_header
from tests.js.engines import Engine, engine_named, needs_node
from tests.js.servers import KEY_PATH, Server, run

# An X-Wing for engines that have none.
NOBLE = """
    const { ml_kem768_x25519: peer } = await import(inputs.noble);
    const noble = {
      id: 0x647a,
      name: "X-Wing by noble",
      async encapsulate(publicKey) {
        const { cipherText, sharedSecret } = peer.encapsulate(publicKey);
        return { encapsulatedKey: cipherText, sharedSecret };
      },
    };
"""
HEADER = "ehbp-encapsulated-key"


class KeyAnswer(Response):
    """An answer to the question for a key, of a server's own making."""

    media_type = KEY_CONFIG_MEDIA_TYPE

    def __init__(self, content: bytes) -> None:
        super().__init__(content, headers={"Access-Control-Allow-Origin": "*", "Cache-Control": "max-age=60"})


def of_old_server(server: Server) -> KeyAnswer:
    """What a server answers that knows plain EHBP alone."""
    return KeyAnswer(key_config(server.ring.current.public_key))


@pytest.fixture
def speaks(engine: Engine) -> str:
    """What the engine speaks with a server that offers both."""
    return "v1" if engine.has_xwing else "EHBP"


def test_the_client_speaks_version_1_where_both_can(engine: Engine, server: Server, speaks: str) -> None:
    body = "const r = await client.post('/echo', 'a b'); return [r.version, r.status, await read(r)];"
    assert run(engine, body, server.url) == [speaks, 200, "a;b;"]
    assert server.sealed_as == [speaks]


def test_a_server_that_knows_ehbp_alone_gets_ehbp(engine: Engine, server: Server) -> None:
    server.answers[KEY_PATH] = of_old_server(server)
    body = "const r = await client.post('/echo', 'a b'); return [r.version, r.status, await read(r)];"
    assert run(engine, body, server.url) == ["EHBP", 200, "a;b;"]
    assert server.sealed_as == ["EHBP"]


@needs_node
def test_an_xwing_that_is_given_makes_node_20_speak_version_1(server: Server) -> None:
    with engine_named("node") as engine:
        body = f"""
            {NOBLE}
            const mine = new EhbpClient({{ baseUrl: url, xwing: noble, requireV1: true }});
            const posted = await mine.post("/echo", "a b");
            return [posted.version, await read(posted), await read(await mine.request("GET", "/asked?a=b"))];
        """
        assert run(engine, body, server.url, noble=engine.noble) == ["v1", "a;b;", "GET a=b "]
    assert server.sealed_as == ["v1", "v1"]


def test_version_1_can_be_required(engine: Engine, server: Server) -> None:
    required = """
        const mine = new EhbpClient({ baseUrl: url, requireV1: true });
        return mine.post("/echo", "a").then(read, messageOf);
    """
    told = run(engine, required, server.url)
    lacking = "KeyConfigurationError: Version 1 of the wire is required, but "
    assert told == ("a;" if engine.has_xwing else f"{lacking}this browser's WebCrypto has no X-Wing: nothing was sent.")
    server.requests.clear()
    server.answers[KEY_PATH] = of_old_server(server)
    assert (
        run(engine, required, server.url) == f"{lacking}{server.url}{KEY_PATH} offers no X-Wing key: nothing was sent."
    )
    assert server.sealed_as == []


@pytest.mark.parametrize("method", ["GET", "delete", "PATCH"])
def test_requests_without_a_body_are_sealed_or_not_sent(engine: Engine, server: Server, method: str) -> None:
    body = """
        const response = await client.request(inputs.method, "/asked?a=b%20c").catch(messageOf);
        return typeof response === "string" ? response : [response.status, response.contentType, await read(response)];
    """
    shown = run(engine, body, server.url, method=method)
    if not engine.has_xwing:
        assert shown.startswith("KeyConfigurationError: A request without a body travels unsealed in plain EHBP")
        assert server.sealed_as == []
        return
    assert shown == [201, "text/asked; charset=utf-8", f"{method.upper()} a=b%20c "]
    assert server.sealed_as == ["v1"]
    _, _, headers = server.requests[-1]
    assert "content-type" not in headers


def test_a_method_may_be_any_that_can_be_sealed(engine: Engine, server: Server, speaks: str) -> None:
    body = "return read(await client.request('patch', '/asked', { body: 'a' }));"
    assert run(engine, body, server.url) == "PATCH  a"
    assert server.sealed_as == [speaks]
    told = run(
        engine,
        """
        const tries = [["OPTIONS"], ["options"], ["TRACE"], ["G T"], [""], ["G,T"], ["GET", "a"], ["HEAD", ""]];
        const send = ([method, body]) => client.request(method, "/asked", { body }).catch(messageOf);
        return Promise.all(tries.map(send));
        """,
        server.url,
    )
    assert [text.partition(" ")[0] for text in told] == ["TypeError:"] * 8
    assert told[6:] == ["TypeError: a GET request has no body", "TypeError: a HEAD request has no body"]
    assert len(server.sealed_as) == 1


@pytest.mark.parametrize(
    ("method", "path", "status"), [("HEAD", "/asked", 201), ("POST", "/nothing", 204), ("GET", "/unchanged", 304)]
)
def test_answers_without_a_body_are_whole(
    xwing_engine: Engine, server: Server, method: str, path: str, status: int
) -> None:
    body = """
        const response = await client.request(inputs.method, inputs.path, { body: inputs.content });
        return [response.status, await read(response)];
    """
    content = "a" if method == "POST" else None
    assert run(xwing_engine, body, server.url, method=method, path=path, content=content) == [status, ""]
    assert server.sealed_as == ["v1"]


def test_an_empty_body_and_a_long_one_arrive(engine: Engine, server: Server, speaks: str) -> None:
    # Long enough for several frames, with words that end anywhere.
    body = """
        const long = Array.from({ length: 40000 }, (_, number) => `w${number}`).join(" ");
        const texts = [await read(await client.post("/echo", "")), await read(await client.post("/echo", long))];
        return [texts[0], texts[1] === long.replaceAll(" ", ";") + ";"];
    """
    assert run(engine, body, server.url) == [";", True]
    assert server.sealed_as == [speaks, speaks]


@pytest.mark.parametrize(
    ("made", "text", "media_type"),
    [
        ("bytes.buffer", "a b", "application/json"),
        ("new DataView(bytes.buffer, 2)", "b", "application/json"),
        ("new Uint16Array(Uint8Array.from([97, 32, 98, 32]).buffer)", "a b ", "application/json"),
        ("new Blob([bytes])", "a b", "application/json"),
        ("new Blob([bytes], { type: 'text/a' })", "a b", "text/a"),
        ("new File([bytes], 'a.txt', { type: 'text/a' })", "a b", "text/a"),
        ("new URLSearchParams({ a: 'b c' })", "a=b+c", "application/x-www-form-urlencoded;charset=UTF-8"),
    ],
)
def test_a_body_may_be_what_fetch_takes(
    engine: Engine, server: Server, speaks: str, made: str, text: str, media_type: str
) -> None:
    body = f"const bytes = new TextEncoder().encode('a b'); return read(await client.post('/echo', {made}));"
    assert run(engine, body, server.url) == text.replace(" ", ";") + ";"
    assert server.sealed_as == [speaks]
    assert server.requests[-1][2]["content-type"] == media_type


def test_a_form_arrives_with_its_boundary(engine: Engine, server: Server) -> None:
    body = """
        const form = new FormData();
        form.append("file", new Blob(["a_b"]), "a.txt");
        return read(await client.post("/echo", form));
    """
    text = run(engine, body, server.url)
    media_type, _, boundary = server.requests[-1][2]["content-type"].partition("; boundary=")
    assert media_type == "multipart/form-data"
    assert text.startswith(f"--{boundary}\r\n")
    assert "\r\n\r\na_b\r\n" in text


def test_long_bytes_of_any_kind_are_sealed_in_frames_that_every_server_takes(
    engine: Engine, server: Server, speaks: str
) -> None:
    body = """
        const events = [];
        const mine = new EhbpClient({ baseUrl: url, onWire: (event) => events.push(event) });
        await read(await mine.post("/echo", new Uint32Array(50_000)));
        return events.filter(({ kind, sent }) => kind === "frame" && sent).map(({ ciphertext }) => ciphertext.length);
    """
    frames = run(engine, body, server.url)
    assert max(frames) == 65536 + 16
    assert sum(frames) == 200_000 + 16 * len(frames)


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        ("{ a: 1 }", "Object"),
        ("[97]", "Array"),
        ("5", "Number"),
        ("new Response('a').body", "ReadableStream"),
        # What a polyfill makes, or another realm, and this engine does not know.
        *((f"{{ [Symbol.toStringTag]: '{kind}', size: 3 }}", kind) for kind in ("FormData", "URLSearchParams", "Blob")),
    ],
)
def test_what_is_no_body_is_refused_before_anything_is_sent(
    engine: Engine, server: Server, made: str, kind: str
) -> None:
    told = run(engine, f"return client.post('/echo', {made}).catch(messageOf);", server.url)
    assert told.startswith("TypeError: body must be a string, an ArrayBuffer or a view of one, a Blob, ")
    assert f", not {kind}: " in told
    assert server.requests == []


def test_a_body_is_what_it_was_when_it_was_given(engine: Engine, server: Server) -> None:
    body = """
        const bytes = new TextEncoder().encode("a b");
        const answer = client.post("/echo", bytes);
        bytes.fill(120);
        return read(await answer);
    """
    assert run(engine, body, server.url) == "a;b;"


def test_escaped_dot_segments_arrive_where_they_were_meant_to(engine: Engine, server: Server, speaks: str) -> None:
    body = "const { status } = await client.post('/nowhere/..%2Fecho', 'a'); return status;"
    assert run(engine, body, server.url) == 404
    assert server.sealed_as == [speaks]


def test_the_header_names_the_key_and_the_wire_is_told(engine: Engine, server: Server, speaks: str) -> None:
    body = """
        const events = [];
        const mine = new EhbpClient({ baseUrl: url, onWire: (event) => events.push(event) });
        const text = await read(await mine.post("/echo?a", "a b"));
        const shown = events.map(({ ciphertext, ...event }) => ({ ...event, bytes: ciphertext?.length ?? null }));
        return [text, shown];
    """
    text, events = run(engine, body, server.url)
    key, request, *frames = events
    public_key = server.ring.current.public_key.hex()
    header = server.requests[-1][2][HEADER]
    assert text == "a;b;"
    assert (key["kind"], key["path"], key["publicKey"]) == ("key", KEY_PATH, public_key)
    assert request == {
        "kind": "request",
        "method": "POST",
        "path": "/echo?a",
        "version": speaks,
        "kem": "X-Wing" if engine.has_xwing else "X25519",
        "publicKey": public_key,
        "header": header,
        "bytes": None,
    }
    response = frames.pop(2 if engine.has_xwing else 1)
    assert (response["kind"], response["status"]) == ("response", 200)
    numbers = [(frame["sent"], frame["index"], frame["bytes"]) for frame in frames]
    if engine.has_xwing:
        assert parsed_request_header(header).key_id == key["xwingKeyId"]
        assert numbers == [(True, 1, 19), (True, 2, 16), (False, 1, 18), (False, 2, 18), (False, 3, 16)]
    else:
        assert numbers == [(True, 0, 19), (False, 0, 18), (False, 1, 18)]


def test_a_request_is_for_one_place(engine: Engine, server: Server) -> None:
    server.paths["/lost"] = "/echo"
    body = "const r = await client.post('/lost', 'a'); return [r.status, await read(r)];"
    status, text = run(engine, body, server.url)
    if not engine.has_xwing:
        assert (status, text) == (200, "a;")
        return
    assert status == 400
    assert "the request was sealed for POST /lost and arrived as POST /echo" in text


def test_below_the_place_of_the_key_a_prefix_may_be_taken_away(engine: Engine, server: Server) -> None:
    server.paths.update({"/team-a/echo": "/echo", f"/team-a{KEY_PATH}": KEY_PATH})
    body = """
        const mine = new EhbpClient({ baseUrl: `${url}/team-a/`, keyUrl: ".well-known/hpke-keys" });
        const { status, pieces } = await mine.post("echo", "a");
        return [status, await read({ pieces })];
    """
    assert run(engine, body, server.url) == [200, "a;"]
    assert [path for _, path, _ in server.requests] == [f"/team-a{KEY_PATH}", "/team-a/echo"]


def test_a_key_of_another_server_is_not_fetched(engine: Engine, server: Server) -> None:
    made = """
        const options = { baseUrl: url, keyUrl: "https://elsewhere.invalid/key" };
        try { new EhbpClient(options); } catch (error) { return messageOf(error); }
    """
    assert "is not on the server" in run(engine, made, server.url)


def with_status(status: int) -> Callable[[Message], Message]:
    return lambda message: {**message, "status": status} if message["type"] == "http.response.start" else message


def without_last_bytes(count: int) -> Callable[[Message], Message | None]:
    """Cuts a body that ends with its end frame. The server sends that by itself, or at the end of another message."""
    held: list[bytes] = []

    def cut(message: Message) -> Message | None:
        if message["type"] != "http.response.body":
            return message
        held.append(message.get("body", b""))
        if message.get("more_body"):
            return None
        return {**message, "body": b"".join(held)[:-count]}

    return cut


@pytest.mark.parametrize("status", [201, 404, 503])
def test_a_status_that_was_changed_is_told(engine: Engine, server: Server, status: int) -> None:
    server.changes["/echo"] = with_status(status)
    told = run(engine, "return client.post('/echo', 'a').then(({ status }) => status, messageOf);", server.url)
    words = f"The server sealed a response with status 200, but it arrived with status {status}"
    assert told.startswith(f"StatusMismatchError: {words}") if engine.has_xwing else told == status


@pytest.mark.parametrize("count", [20, 42])
def test_an_answer_that_is_cut_between_frames_is_no_whole_one(engine: Engine, server: Server, count: int) -> None:
    server.changes["/echo"] = without_last_bytes(count if engine.has_xwing else 22)
    body = """
        const decoder = new TextDecoder();
        let text = "";
        const { pieces } = await client.post("/echo", "a b");
        try {
          for await (const { plaintext } of pieces) text += decoder.decode(plaintext, { stream: true });
        } catch (error) {
          return [text, messageOf(error)];
        }
        return [text, null];
    """
    text, told = run(engine, body, server.url)
    if engine.has_xwing:
        assert text == ("a;b;" if count == 20 else "a;")
        assert told == "MissingEndError: The response was cut: it stopped before its end."
    else:
        assert (text, told) == ("a;", None)


def test_an_answer_to_another_request_is_not_taken(engine: Engine, server: Server) -> None:
    nonces: list[bytes] = []

    def first_nonce(message: Message) -> Message:
        if message["type"] != "http.response.start":
            return message
        headers = dict(message["headers"])
        nonces.append(headers[b"ehbp-response-nonce"])
        return {**message, "headers": list({**headers, b"ehbp-response-nonce": nonces[0]}.items())}

    server.changes["/echo"] = first_nonce
    body = "await read(await client.post('/echo', 'a')); return client.post('/echo', 'b').then(read).catch(messageOf);"
    told = run(engine, body, server.url)
    if engine.has_xwing:
        assert told.startswith("UnsealedResponseError: The answer 200 was not sealed")
        assert told.endswith("the header Ehbp-Response-Nonce cannot be used: its head is not authentic")
    else:
        assert "frame 0 of the response is not authentic" in told


def test_two_headers_of_a_response_are_none(engine: Engine, server: Server) -> None:
    def twice(message: Message) -> Message:
        headers = message.get("headers", [])
        nonces = [header for header in headers if header[0] == b"ehbp-response-nonce"]
        return {**message, "headers": [*headers, *nonces]}

    server.changes["/echo"] = twice
    told = run(engine, "return client.post('/echo', 'a').then(read, messageOf);", server.url)
    assert told.startswith("UnsealedResponseError: ")
    assert "the header Ehbp-Response-Nonce cannot be used" in told


class Once(PlainTextResponse):
    """An unsealed refusal, after which a server's answers are others."""

    def __init__(self, server: Server, status: int, then: dict[str, Response]) -> None:
        super().__init__("refused", status, headers={"Access-Control-Allow-Origin": "*"})
        self._server = server
        self._then = then

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._server.answers.clear()
        self._server.answers.update(self._then)
        await super().__call__(scope, receive, send)


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_went_back_to_ehbp_is_asked_for_its_key_anew(
    xwing_engine: Engine, server: Server, status: int
) -> None:
    server.answers["/echo"] = Once(server, status, {KEY_PATH: of_old_server(server)})
    body = "const r = await client.post('/echo', 'a'); return [r.version, await read(r)];"
    assert run(xwing_engine, body, server.url) == ["EHBP", "a;"]
    assert server.sealed_as == ["v1", "EHBP"]
    assert server.key_requests == 2


@pytest.mark.parametrize("status", [400, 422, 401, 404, 500])
def test_no_unsealed_answer_takes_the_client_down_to_ehbp(xwing_engine: Engine, server: Server, status: int) -> None:
    headers = {"Access-Control-Allow-Origin": "*"}
    server.answers["/echo"] = PlainTextResponse("refused", status, headers=headers)
    told = run(xwing_engine, "return client.post('/echo', 'a').then(read, messageOf);", server.url)
    assert told.startswith(f"UnsealedResponseError: The answer {status} was not sealed")
    tries = 2 if status in (400, 422) else 1
    assert server.sealed_as == ["v1"] * tries
    assert server.key_requests == tries


def test_an_unsealed_refusal_that_goes_on_for_long_is_not_read(engine: Engine, server: Server) -> None:
    headers = {"Access-Control-Allow-Origin": "*"}
    server.answers["/echo"] = PlainTextResponse("x" * 70_000, 503, headers=headers)
    told = run(engine, "return client.post('/echo', 'a').then(read, messageOf);", server.url)
    assert told.endswith(": more than 65536 bytes, which were not read")


def test_a_key_answer_that_goes_on_for_long_is_not_read(engine: Engine, server: Server) -> None:
    server.answers[KEY_PATH] = KeyAnswer(key_config(server.ring.current.public_key) + bytes(20_000))
    told = run(engine, "return client.post('/echo', 'a').then(read, messageOf);", server.url)
    assert told == f"KeyConfigurationError: GET {server.url}{KEY_PATH} was answered with more than 16384 bytes"


def test_a_published_key_that_cannot_be_used_is_named_and_fetched_anew(engine: Engine, server: Server) -> None:
    good = server.ring.current_pairs.xwing
    assert good is not None
    of_small_order = good.public_key[:1184] + bytes(32)
    keys = PublishedKeys(server.ring.current.public_key, XWingKey(1, of_small_order))
    server.answers[KEY_PATH] = KeyAnswer(key_answer(keys))
    body = "const send = () => client.post('/echo', 'a').then(read, messageOf); return [await send(), await send()];"
    told: Any = run(engine, body, server.url)
    if engine.has_xwing:
        assert told == ["KeyConfigurationError: The server's X-Wing key cannot be used: nothing was sealed to it."] * 2
        assert server.key_requests == 2
        assert server.sealed_as == []
    else:
        assert told == ["a;", "a;"]
