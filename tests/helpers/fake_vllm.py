"""Packages called `vllm` that are laid out like the real ones, as far as server-keys looks, and take no time to import.

Their `vllm serve` spawns API server processes, as the real one does with `--api-server-count`, which build the app, run
its lifespan and print what keys they saw as one line of JSON.
"""

from pathlib import Path

SIGNATURES = {
    "0.15.1": "args",
    "0.17.1": "args, supported_tasks=None",
    "0.20.2": "args, supported_tasks=None, model_config=None",
    "0.28.0": "args, supported_tasks=None, model_config=None",
    "0.29.0": "args, supported_tasks=None, model_config=None",
    "0.32.0": "args, supported_tasks=None, model_config=None",
}
FIRST_WITH_LAUNCHERS = (0, 29)

BUILD_APP = """
from contextlib import asynccontextmanager
from fastapi import FastAPI

@asynccontextmanager
async def lifespan(app):
    yield
    del app.state

def build_app({signature}):
    '''Build the app.'''
    app = FastAPI(lifespan=lifespan)
    app.middleware_stack = app.build_middleware_stack()
    return app
"""

SERVE_ONE = """
import asyncio, json, os

def serve_one(args):
    app = build_app({arguments})

    async def status_of(method, path, body):
        messages = []

        async def receive():
            return {{"type": "http.request", "body": body}}

        async def send(message):
            messages.append(message)

        await app({{"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}}, receive, send)
        return messages[0]["status"]

    async def live():
        async with app.router.lifespan_context(app):
            ring = getattr(app.state, "ephemeral_keys", None)
            print(json.dumps({{
                "pid": os.getpid(),
                "key_id": ring and ring.status.key_id,
                "period_s": ring and ring.period_s,
                "overlap_s": ring and ring.overlap_s,
                "publishes_key": await status_of("GET", "/.well-known/hpke-keys", b"") == 200,
                "takes_plaintext": await status_of("POST", "/no-such-path", b"in plaintext") == 404,
                "args": sorted(vars(args)),
            }}), flush=True)

    asyncio.run(live())
"""

CLI_MAIN = """
import argparse

def main():
    import vllm.entrypoints.cli.serve as serve
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    for command in serve.cmd_init():
        command.subparser_init(subparsers).set_defaults(dispatch_function=command.cmd)
    args = parser.parse_args()
    args.dispatch_function(args)
"""

CLI_SERVE = """
import multiprocessing, sys
from {serving} import serve_one

def serve_in_child(args):
    from {serving} import serve_one
    del args.dispatch_function
    serve_one(args)

class ServeSubcommand:
    @staticmethod
    def cmd(args):
        children = [
            multiprocessing.get_context("spawn").Process(target=serve_in_child, args=(args,))
            for _ in range(args.api_server_count)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join()
        sys.exit(max(child.exitcode for child in children))

    def subparser_init(self, subparsers):
        parser = subparsers.add_parser("serve", usage="vllm serve")
        parser.add_argument("model_tag", nargs="?")
        parser.add_argument("--grpc", action="store_true")
        parser.add_argument("--enable-log-requests", action="store_true")
        parser.add_argument("--api-server-count", type=int, default=2)
        return parser

def cmd_init():
    return [ServeSubcommand()]
"""

OLD = "vllm.entrypoints.openai.api_server"
APP = "vllm.entrypoints.launchers.app"
ENTRY = "vllm.entrypoints.launchers.api_server.entry"
RENDER = "vllm.entrypoints.launchers.render.entry"


def make_fake_vllm(folder: Path, version: str) -> None:
    """Write a package `vllm` of this version into `folder`."""
    signature = SIGNATURES[version]
    arguments = signature.replace("supported_tasks=None", "('generate',)").replace("model_config=None", "None")
    build_app = BUILD_APP.format(signature=signature)
    serve_one = SERVE_ONE.format(arguments=arguments)
    write(folder, "vllm", f'__version__ = "{version}"')
    if tuple(map(int, version.split(".")[:2])) < FIRST_WITH_LAUNCHERS:
        write(folder, OLD, build_app + serve_one)
        serving = OLD
    else:
        write(folder, APP, build_app)
        write(folder, ENTRY, f"from {APP} import build_app\n{serve_one}")
        write(folder, RENDER, f"from {APP} import build_app")
        write(folder, OLD, f"from {APP} import build_app\nraise AssertionError('deprecated')")
        serving = ENTRY
    write(folder, "vllm.entrypoints.cli.main", CLI_MAIN)
    write(folder, "vllm.entrypoints.cli.serve", CLI_SERVE.format(serving=serving))


def write(folder: Path, module: str, source: str) -> None:
    """Write one module, and the packages it is in."""
    path = folder.joinpath(*module.split("."))
    for parent in path.relative_to(folder).parents:
        (folder / parent).mkdir(parents=True, exist_ok=True)
        if parent != Path():
            (folder / parent / "__init__.py").touch()
    if module == "vllm":
        (folder / "vllm").mkdir(exist_ok=True)
        (folder / "vllm" / "__init__.py").write_text(source)
    else:
        path.with_suffix(".py").write_text(source)
