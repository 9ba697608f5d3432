"""Uses the installed wheel with nothing beside it but its dependencies. `make test-wheel` runs it."""

import asyncio
import importlib.metadata
import importlib.resources
import sys
from pathlib import Path

from fastapi import FastAPI

import server_keys

installed = Path(server_keys.__file__).parent
assert installed.is_relative_to(sys.prefix), f"{installed} is not in the environment {sys.prefix}"
assert importlib.resources.files("server_keys").joinpath("py.typed").is_file()

# The package brings the framework that it is for, and nothing that only an extra needs.
for absent in ("httpx", "httpx2", "uvicorn", "vllm", "cryptography"):
    assert absent not in sys.modules, f"import server_keys imported {absent}"

app = server_keys.protect(FastAPI(), 300)


async def keys_while_it_runs() -> tuple[bytes, server_keys.KeyPair]:
    async with app.router.lifespan_context(app):
        pair = app.state.ephemeral_keys.current
        return pair.exchange(server_keys.KeyPair.generate().public_key), pair


shared_secret, pair = asyncio.run(keys_while_it_runs())
assert len(shared_secret) == 32
assert pair.erased
print(f"server-keys {importlib.metadata.version('server-keys')} works from {installed.relative_to(sys.prefix)}")
