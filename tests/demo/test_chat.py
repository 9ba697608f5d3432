"""The demo's OpenAI-shaped API and its toy model."""

import inspect
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from examples.demo.app import create_app
from examples.demo.toy_model import ToyModel, toy_model, words_of
from server_keys._native import RequestSealer
from server_keys._sealing.protocol import public_key_of

PATH = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
ASKED = {"model": "toy-rambler", "messages": [{"role": "user", "content": "What does the river keep?"}]}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(1000)) as client:
        yield client


def chunks_of(stream: str) -> list[dict[str, Any]]:
    *events, done, rest = stream.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_there_is_one_model(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert model["id"] == "toy-rambler"
    assert model["object"] == "model"


def test_a_stream_says_what_the_whole_answer_says(client: TestClient) -> None:
    whole = client.post(PATH, json=ASKED).json()
    assert whole["object"] == "chat.completion"
    assert whole["choices"][0]["finish_reason"] == "stop"
    streamed = client.post(PATH, json=ASKED | {"stream": True, "stream_options": {"include_usage": True}})
    assert streamed.headers["Content-Type"].startswith("text/event-stream")
    *chunks, last, usage = chunks_of(streamed.text)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    content = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert content == whole["choices"][0]["message"]["content"]
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert (usage["choices"], usage["usage"]) == ([], whole["usage"])
    assert len({chunk["id"] for chunk in [*chunks, last, usage]}) == 1
    assert whole["usage"]["completion_tokens"] == len(chunks) - 1


def test_a_limit_cuts_the_answer_and_says_so(client: TestClient) -> None:
    choice = client.post(PATH, json=ASKED | {"max_tokens": 3}).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert len(choice["message"]["content"].split()) == 3


def test_content_in_parts_and_unknown_parameters_are_taken(client: TestClient) -> None:
    parts = [{"type": "text", "text": "What does the"}, {"type": "text", "text": "river keep?"}]
    asked = ASKED | {"messages": [{"role": "user", "content": parts}], "top_p": 0.5, "user": "someone"}
    answers = [client.post(PATH, json=body).json()["choices"] for body in (ASKED, asked)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("change", "status", "complaint"),
    [
        ({"model": "gpt-9"}, 404, "'gpt-9' does not exist"),
        ({"messages": []}, 400, "messages: "),
        ({"messages": [{"role": "user", "content": 5}]}, 400, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": "a \ud800"}]},
            400,
            r"'\ud800' is half of a character, and so no text",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "\udfff"}]}]}, 400, "messages.0.content"),
        ({"messages": [{"role": "\ud800", "content": "a"}]}, 400, "messages.0.role: "),
        ({"model": "\ud800"}, 404, r"'\ud800' does not exist"),
        ({"temperature": 3}, 400, "temperature: "),
        ({"n": 2}, 400, "n: "),
    ],
)
def test_errors_have_the_shape_that_the_sdk_reads(
    client: TestClient, change: dict[str, Any], status: int, complaint: str
) -> None:
    # json.dumps escapes half of a surrogate pair; the test client's own JSON would fail to encode it.
    answer = client.post(PATH, content=json.dumps(ASKED | change), headers=JSON)
    assert answer.status_code == status
    assert complaint in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("", "the request has no body: send a JSON object"),
        ("[]", "the request's body must be a JSON object, sent as application/json"),
        ("{1}", "the request's body is not JSON: "),
    ],
)
def test_a_body_that_is_no_json_object_is_named_as_such(client: TestClient, body: str, complaint: str) -> None:
    answer = client.post(PATH, content=body, headers=JSON)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(complaint)


def test_each_word_travels_as_a_sealed_frame_of_its_own(client: TestClient) -> None:
    sealer = RequestSealer(public_key_of(client.get("/.well-known/hpke-keys").content))
    body = sealer.seal(json.dumps(ASKED | {"stream": True}).encode())
    headers = {"Content-Type": "application/json", "Ehbp-Encapsulated-Key": sealer.encapsulated_key.hex()}
    answer = client.post(PATH, content=body, headers=headers)
    assert answer.status_code == 200
    opener = sealer.response_opener(bytes.fromhex(answer.headers["Ehbp-Response-Nonce"]))
    frames, rest = 0, answer.content
    while rest:
        rest = rest[4 + int.from_bytes(rest[:4], "big") :]
        frames += 1
    chunks = chunks_of(opener.feed(answer.content).decode())
    opener.finish()
    assert frames == len(chunks) + 1  # and the [DONE]
    content = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert content == client.post(PATH, json=ASKED).json()["choices"][0]["message"]["content"]
    assert b"river" not in body + answer.content


def test_the_model_is_a_markov_chain_of_its_text() -> None:
    text = "The river keeps a stone.\nThe river sings, and the stone sings too.\nA stone keeps the river warm."
    known = set()
    for sentence in text.splitlines():
        words = ["", "", *words_of(sentence)]
        known |= set(zip(words, words[1:], words[2:], strict=False))
    model = ToyModel(text)
    for seed in range(50):
        told = "".join(model.answer("river", sentences=2, seed=seed))
        for sentence in told.removesuffix(".").split(". "):
            words = ["", "", *words_of(sentence), "."]
            assert set(zip(words, words[1:], words[2:], strict=False)) <= known, told


def test_the_same_question_with_the_same_seed_has_the_same_answer() -> None:
    answers = ["".join(toy_model().answer("Who are you?", seed=seed)) for seed in (1, 1, 2, 3, 4)]
    assert answers[0] == answers[1]
    assert len(set(answers)) > 2


def test_answers_are_about_what_was_asked() -> None:
    def mentions(word: str, prompt: str) -> int:
        return sum(word in words_of("".join(toy_model().answer(prompt, seed=seed))) for seed in range(40))

    for word in ("river", "weather", "proxy", "cat"):
        assert mentions(word, f"Tell me about the {word}") > 1.5 * mentions(word, "Zzz")


def test_a_cold_model_prefers_the_most_frequent_word() -> None:
    model = ToyModel("One two three four.\nOne two three four.\nOne two three five.\nSix.")
    cold = ["".join(model.answer("one", sentences=1, temperature=0, seed=seed)) for seed in range(40)]
    hot = ["".join(model.answer("one", sentences=1, temperature=2, seed=seed)) for seed in range(40)]
    assert "One two three five." not in cold
    assert "One two three five." in hot


def test_the_text_is_made_of_whole_sentences_that_the_model_reads_in_full() -> None:
    lines = Path(inspect.getfile(ToyModel)).with_name("toy_model_text.txt").read_text(encoding="utf-8").splitlines()
    assert all(line.endswith(".") and line.count(".") == 1 for line in lines)
    assert all(line.lower().replace(" ", "") == "".join(words_of(line)) for line in lines)
    assert all(first != second for first, second in pairwise(sorted(lines)))
