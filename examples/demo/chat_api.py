"""The part of the OpenAI API that a chat needs: models, and chat completions by the toy model."""

import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import AfterValidator, BaseModel, Field
from starlette.responses import Response

from examples.demo.toy_model import toy_model, words_of

MODEL = "toy-rambler"
_MADE_AT = 1_767_225_600  # 2026-01-01, in seconds since 1970

router = APIRouter(prefix="/v1")


class TextPart(BaseModel):
    """A part of a message; the toy model reads text only."""

    type: Literal["text"]
    text: str


Content = str | list[TextPart]


def text_of(content: Content) -> str:
    """Return the text of a message's content."""
    return content if isinstance(content, str) else " ".join(part.text for part in content)


def _checked(content: Content) -> Content:
    try:
        text_of(content).encode()
    except UnicodeEncodeError as error:
        # JSON can escape half of a surrogate pair, but UTF-8 cannot hold it.
        raise ValueError(f"{error.object[error.start]!a} is half of a character, and so no text") from error
    return content


class ChatMessage(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[Content, AfterValidator(_checked)]

    @property
    def text(self) -> str:
        """The message's text."""
        return text_of(self.content)


class StreamOptions(BaseModel):
    """Options of a stream."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A request for a chat completion. Parameters that the toy model does not have are ignored."""

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Annotated[int | None, Field(ge=1, le=1)] = None
    seed: int | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None


@router.get("/models")
def models() -> dict[str, Any]:
    """List the one model."""
    model = {"id": MODEL, "object": "model", "created": _MADE_AT, "owned_by": "server-keys"}
    return {"object": "list", "data": [model]}


@router.post("/chat/completions")
async def chat_completions(asked: ChatRequest, request: Request) -> Response:
    """Answer a conversation: at once, or word by word as server-sent events."""
    if asked.model != MODEL:
        raise HTTPException(404, f"the model {asked.model!r} does not exist; this demo has {MODEL!r}")
    state = request.app.state
    completion = _Completion(asked, word_delay_s=state.word_delay_s, is_one_of_several=state.board is not None)
    if asked.stream:
        return StreamingResponse(completion.events(), media_type="text/event-stream")
    return JSONResponse(await completion.whole())


def error_response(status: int, message: str) -> JSONResponse:
    """Return an error in the shape that the OpenAI SDK reads."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status)


def complaint_of(error: Mapping[str, Any]) -> str:
    """Return one of pydantic's errors about a request as one line."""
    where = ".".join(map(str, error["loc"][1:]))
    if error["type"] == "json_invalid":
        return f"the request's body is not JSON: {error['ctx']['error']} at character {where}"
    if where:
        return f"{where}: {error['msg']}"
    if error["type"] == "missing":
        return "the request has no body: send a JSON object"
    return "the request's body must be a JSON object, sent as application/json"


class _Completion:
    """One answer of the toy model. A word with the space before it counts as a token."""

    def __init__(self, asked: ChatRequest, *, word_delay_s: float, is_one_of_several: bool) -> None:
        self._word_delay_s = word_delay_s
        self._with_usage = asked.stream_options is not None and asked.stream_options.include_usage
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": MODEL}
        if is_one_of_several:
            # In OpenAI's API this is what names the backend that answered.
            self._head["system_fingerprint"] = f"process {os.getpid()}"
        self._prompt_tokens = sum(len(words_of(message.text)) for message in asked.messages)
        prompt = next((message.text for message in reversed(asked.messages) if message.role == "user"), "")
        temperature = 1.0 if asked.temperature is None else asked.temperature
        answer = list(toy_model().answer(prompt, temperature=temperature, seed=asked.seed or 0))
        limit = asked.max_completion_tokens or asked.max_tokens or len(answer)
        self._words = list(islice(answer, limit))
        self._finish_reason = "stop" if len(self._words) == len(answer) else "length"

    async def whole(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(self._words)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish_reason}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": self._usage()}

    async def events(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks():
            yield b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
            await asyncio.sleep(self._word_delay_s)
        yield b"data: [DONE]\n\n"

    def _chunks(self) -> Iterator[dict[str, Any]]:
        yield self._chunk({"role": "assistant", "content": ""})
        for word in self._words:
            yield self._chunk({"content": word})
        yield self._chunk({}, self._finish_reason)
        if self._with_usage:
            yield {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": self._usage()}

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}

    def _usage(self) -> dict[str, int]:
        completion_tokens = len(self._words)
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self._prompt_tokens + completion_tokens,
        }
