"""Long bodies go through a client that holds only a few frames of them, in both directions."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from server_keys import protect
from tests.helpers.scripts import run_script
from tests.helpers.servers import STANDARD, running

MIB = 1024 * 1024
# 1024 sends a body of 1 GiB.
BODY_MIB = int(os.environ.get("UPLOAD_MIB", "64"))
MOST_MIB = 16

# It prints by how much the process grew, in MiB, and what came back.
SCRIPT = """
    import asyncio, importlib, re, sys, tempfile, warnings
    from pathlib import Path

    library, way, url, mib = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    clients = importlib.import_module(f"server_keys.client.{library}")
    piece = bytes(range(256)) * 256

    def resident_mib(what):
        return int(re.search(what + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024

    def generator(mib):
        for _ in range(mib * 16):
            yield piece

    async def async_generator(mib):
        for piece in generator(mib):
            yield piece

    def file(mib):
        made = tempfile.TemporaryFile()
        for piece in generator(mib):
            made.write(piece)
        made.seek(0)
        return made

    def send(mib):
        with clients.sealed_client(base_url=url) as client:
            match way:
                case "generator":
                    return client.post("/length", content=generator(mib)).json()
                case "file":
                    with file(mib) as content:
                        return client.post("/length", content=content).json()
                case "form":
                    with file(mib) as content:
                        return client.post("/length", files={"file": content}).json()
                case "sdk":
                    from openai import OpenAI

                    with file(mib) as content:
                        sdk = OpenAI(base_url=url, api_key="none", http_client=client)
                        return int(sdk.audio.transcriptions.create(model="tiny", file=content).text)
                case "answer" | "message":
                    with client.stream("POST", f"/{way}/{mib}", content=b"x") as response:
                        return sum(map(len, response.iter_bytes()))

    async def send_async(mib):
        async with clients.async_sealed_client(base_url=url) as client:
            match kind := way.removeprefix("async-"):
                case "generator":
                    return (await client.post("/length", content=async_generator(mib))).json()
                case "form":
                    with file(mib) as content:
                        return (await client.post("/length", files={"file": content})).json()
                case "sdk":
                    from openai import AsyncOpenAI

                    with file(mib) as content:
                        sdk = AsyncOpenAI(base_url=url, api_key="none", http_client=client)
                        return int((await sdk.audio.transcriptions.create(model="tiny", file=content)).text)
                case "answer" | "message":
                    async with client.stream("POST", f"/{kind}/{mib}", content=b"x") as response:
                        return sum([len(piece) async for piece in response.aiter_bytes()])

    def go(mib):
        return asyncio.run(send_async(mib)) if way.startswith("async-") else send(mib)

    go(1)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak until now
    before = resident_mib("VmRSS")
    carried = go(mib)
    print(resident_mib("VmHWM") - before, carried)
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The URL of an app that takes and gives long bodies."""
    app = FastAPI()

    async def length(request: Request) -> int:
        return sum([len(piece) async for piece in request.stream()])

    app.post("/length")(length)

    @app.post("/audio/transcriptions")
    async def transcription(request: Request) -> dict[str, str]:
        return {"text": str(await length(request))}

    @app.post("/answer/{mib}")
    async def answer(mib: int) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(mib * 16):
                yield bytes(MIB // 16)
                await asyncio.sleep(0)

        return StreamingResponse(pieces())

    @app.post("/message/{mib}")
    async def message(mib: int) -> Response:
        return Response(bytes(mib * MIB))

    with running(protect(app), STANDARD) as url:
        yield url


WAYS = ["generator", "file", "form", "answer", "message"]
WAYS += [f"async-{way}" for way in WAYS if way != "file"]


@pytest.mark.parametrize(
    ("library", "way"),
    [(library, way) for library in ("httpx", "httpx2") for way in WAYS] + [("httpx2", "sdk"), ("httpx2", "async-sdk")],
)
def test_a_long_body_costs_no_memory(url: str, library: str, way: str) -> None:
    grown_mib, carried = run_script(SCRIPT, library, way, url, str(BODY_MIB), timeout_s=600).split()
    assert BODY_MIB * MIB <= int(carried) < BODY_MIB * MIB + 1000
    assert int(grown_mib) <= MOST_MIB
