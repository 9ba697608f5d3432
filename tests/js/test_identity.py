"""The browser's client with a server's identity: it takes no key that the identity has not signed."""

import json
import time
from collections.abc import Iterator

import pytest
from starlette.responses import Response

from server_keys import KeyRing
from server_keys._sealing.published_key import content_of
from tests.helpers.signed_answers import OtherSigner, identity_vectors
from tests.js.engines import Engine
from tests.js.servers import KEY_PATH, Server, run

SIGNER, STRANGER = OtherSigner(bytes(range(32))), OtherSigner(bytes(32))
CREATE = "const named = new EhbpClient({ baseUrl: url, identity: inputs.identity });"
POST = f"{CREATE} return read(await named.post('/echo', 'a b')).catch(messageOf);"
REFUSED = f"{CREATE} return named.post('/echo', 'a').then(() => 'sent', messageOf);"


def signed(ring: KeyRing, *, signer: OtherSigner = SIGNER, ago_s: float = 0) -> bytes:
    now = int(time.time() - ago_s)
    return signer.signed(content_of(ring.current_pairs), now, now + 600)


def publish(server: Server, answer: bytes) -> None:
    headers = {"Cache-Control": "max-age=60", "Access-Control-Allow-Origin": "*"}
    server.answers[KEY_PATH] = Response(answer, media_type="application/ohttp-keys", headers=headers)


@pytest.fixture(autouse=True)
def _no_answers_left(server: Server) -> Iterator[None]:
    yield
    server.answers.clear()


def test_keys_that_the_identity_signed_are_taken(engine: Engine, server: Server) -> None:
    publish(server, signed(server.ring))
    assert run(engine, POST, server.url, identity=SIGNER.identity) == "a;b;"


def test_each_of_several_identities_may_have_signed(engine: Engine, server: Server) -> None:
    post, refused = (body.replace("inputs.identity", "JSON.parse(inputs.identities)") for body in (POST, REFUSED))
    both = json.dumps([STRANGER.identity, SIGNER.identity])
    for signer in (SIGNER, STRANGER):
        publish(server, signed(server.ring, signer=signer))
        assert run(engine, post, server.url, identities=both) == "a;b;"
    publish(server, signed(server.ring, signer=OtherSigner(bytes([7] * 32))))
    told = run(engine, refused, server.url, identities=both)
    assert f"another identity signed it, not {STRANGER.identity} or {SIGNER.identity}" in told


@pytest.mark.parametrize("case", ["unsigned", "foreign", "changed", "expired", "early", "twice", "more", "algorithm"])
def test_others_are_refused_and_nothing_is_sent(engine: Engine, server: Server, case: str) -> None:
    answer = content_of(server.ring.current_pairs)
    answers = {
        "unsigned": (answer, "it is not signed"),
        "foreign": (signed(server.ring, signer=STRANGER), "another identity signed it"),
        "changed": (answer[:41] + signed(server.ring)[len(answer) :], "is wrong"),
        "expired": (signed(server.ring, ago_s=3600), "its signature has expired"),
        "early": (signed(server.ring, ago_s=-3600), "its signature does not hold yet"),
        "twice": (SIGNER.signed(signed(server.ring), 0, 2**40), "it has 2 signatures"),
        "more": (signed(server.ring) + b"\0\1\7", "it goes on after its signature"),
        "algorithm": (answer + SIGNER.entry(answer, 0, 2**40, algorithm=2), "its signature is of algorithm 2"),
    }
    content, why = answers[case]
    publish(server, content)
    told = run(engine, REFUSED, server.url, identity=SIGNER.identity)
    assert told.startswith("KeyRejectedError: The server's key answer is refused: ")
    assert why in told
    assert [path for _, path, _ in server.requests] == [KEY_PATH]


def test_the_vectors(engine: Engine, server: Server) -> None:
    body = """
        const { Identities } = await import(`${base}/identity.js`);
        const { fromHex } = await import(`${base}/bytes.js`);
        const seconds = [];
        for (const { identity, signed_answer, created } of JSON.parse(inputs.vectors)) {
          seconds.push((await new Identities(identity).check(fromHex(signed_answer), created)).seconds);
        }
        return seconds;
    """
    vectors = identity_vectors()["answers"]
    seconds = run(engine, body, server.url, vectors=json.dumps(vectors[:2]))
    assert seconds == [vector["expires"] + 60 - vector["created"] for vector in vectors[:2]]


def test_no_identity_among_none_is_refused(engine: Engine, server: Server) -> None:
    body = "try { new EhbpClient({ baseUrl: url, identity: [] }); } catch (error) { return messageOf(error); }"
    assert run(engine, body, server.url).startswith("TypeError: identity is an empty array")


@pytest.mark.parametrize(
    "wrong", ["", "server.key", SIGNER.identity[:-1], SIGNER.identity[:-1] + "=", "ed25519:" + "_" * 43]
)
def test_what_is_no_identity_is_refused(engine: Engine, server: Server, wrong: str) -> None:
    body = (
        "try { new EhbpClient({ baseUrl: url, identity: inputs.wrong }); } catch (error) { return messageOf(error); }"
    )
    assert run(engine, body, server.url, wrong=wrong).startswith("TypeError: ")
