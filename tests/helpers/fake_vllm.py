"""Packages called `vllm` that are laid out like the real ones, as far as server-keys looks, and take no time to import.

They load plugins where the real ones do. Their servers build the app, run its lifespan and print what keys they saw as
one line of JSON. `vllm serve` spawns API server processes for that, as the real one does with `--api-server-count`.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SIGNATURES = {
    "0.15.1": "args",
    "0.17.1": "args, supported_tasks=None",
    "0.20.2": "args, supported_tasks=None, model_config=None",
    "0.28.0": "args, supported_tasks=None, model_config=None",
    "0.29.0": "args, supported_tasks=None, model_config=None",
    "0.32.0": "args, supported_tasks=None, model_config=None",
}
FIRST_WITH_ENDPOINT_PLUGINS = (0, 26)
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
    app.state.args = args
    try:
        from vllm.plugins.endpoint_plugins.interface import attach_endpoint_plugins
    except ImportError:
        pass
    else:
        attach_endpoint_plugins(app)
    app.middleware_stack = app.build_middleware_stack()
    return app
"""

SERVE = """
import argparse, asyncio, json, os
from vllm.entrypoints.openai.cli_args import make_arg_parser
from vllm.logger import configure_logging

async def serve(args):
    app = build_app({arguments})

    async def status_of(method, path, body):
        messages = []

        async def receive():
            return {{"type": "http.request", "body": body}}

        async def send(message):
            messages.append(message)

        await app({{"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}}, receive, send)
        return messages[0]["status"]

    async with app.router.lifespan_context(app):
        ring = getattr(app.state, "ephemeral_keys", None)
        print(json.dumps({{
            "pid": os.getpid(),
            "key_id": ring and ring.status.key_id,
            "period_s": ring and ring.period_s,
            "overlap_s": ring and ring.overlap_s,
            "publishes_key": await status_of("GET", "/.well-known/hpke-keys", b"") == 200,
            "takes_plaintext": await status_of("POST", "/no-such-path", b"in plaintext") == 404,
            "args": sorted(set(vars(args)) - {{"dispatch_function"}}),
        }}), flush=True)
"""
RUN_SERVER = """
async def run_server(args):
    await serve(args)

def main():
    parser = make_arg_parser(argparse.ArgumentParser())
    args = parser.parse_args()
    configure_logging()
    asyncio.run(run_server(args))

if __name__ == "__main__":
    main()
"""
RUN_LAUNCH_FASTAPI = """
async def run_launch_fastapi(args):
    await serve(args)
"""
DEPRECATED = """
assert __name__ == "__main__", "importing this module warns"
from {entry} import main
main()
"""

PLUGINS = """
import os
from importlib.metadata import entry_points

loaded = False

def load(group):
    allowed = os.environ.get("VLLM_PLUGINS")
    return [point.load() for point in entry_points(group=group) if allowed is None or point.name in allowed.split(",")]

def load_general_plugins():
    global loaded
    if not loaded:
        loaded = True
        for plugin in load("vllm.general_plugins"):
            plugin()
"""
ENDPOINT_PLUGINS = """
import os
from vllm.plugins import load

def attach_endpoint_plugins(app):
    if "VLLM_PLUGINS" in os.environ:
        for factory in load("vllm.endpoint_plugins"):
            factory().attach_router(app)
"""

LOGGER = """
import json, logging.config, os

def configure_logging():
    logging.getLogger("vllm").setLevel(os.environ.get("VLLM_LOGGING_LEVEL", "INFO"))
    path = os.environ.get("VLLM_LOGGING_CONFIG_PATH")
    if path is not None:
        with open(path) as file:
            logging.config.dictConfig(json.load(file))

configure_logging()
"""

CLI_ARGS = """
import json
from types import SimpleNamespace
from vllm.plugins import load_general_plugins

def make_arg_parser(parser):
    load_general_plugins()
    parser.add_argument("model_tag", nargs="?")
    parser.add_argument("--grpc", action="store_true")
    parser.add_argument("--headless", action="store_true")
    parser.add_argument("--enable-log-requests", action="store_true")
    parser.add_argument("--enable-log-outputs", action="store_true")
    parser.add_argument("--kv-events-config", type=lambda text: SimpleNamespace(**json.loads(text)))
    parser.add_argument("--api-server-count", type=int, default=2)
    return parser
"""

CLI_MAIN = """
import argparse, sys
from vllm.logger import configure_logging

def main():
    import vllm.entrypoints.cli.launch as launch
    import vllm.entrypoints.cli.serve as serve
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    for command in (*serve.cmd_init(), *launch.cmd_init()):
        command.subparser_init(subparsers).set_defaults(dispatch_function=command.cmd)
    args = parser.parse_args(["--help" if word.startswith("--help=") else word for word in sys.argv[1:]])
    configure_logging()
    args.dispatch_function(args)

if __name__ == "__main__":
    main()
"""

CLI_SERVE = """
import asyncio, multiprocessing, sys
from vllm.entrypoints.openai.cli_args import make_arg_parser
from {serving} import run_server

def serve_in_child(args):
    from {serving} import serve
    asyncio.run(serve(args))

class ServeSubcommand:
    @staticmethod
    def cmd(args):
        if args.headless:
            return
        if args.api_server_count == 1:
            return asyncio.run(run_server(args))
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
        return make_arg_parser(subparsers.add_parser("serve", usage="vllm serve"))

def cmd_init():
    return [ServeSubcommand()]
"""

CLI_LAUNCH = """
import asyncio
from vllm.entrypoints.openai.cli_args import make_arg_parser
{import_server}

class LaunchSubcommand:
    @staticmethod
    def cmd(args):
        asyncio.run(run_launch_fastapi(args))

    def subparser_init(self, subparsers):
        return make_arg_parser(subparsers.add_parser("launch"))

def cmd_init():
    return [LaunchSubcommand()]
"""

OLD = "vllm.entrypoints.openai.api_server"
APP = "vllm.entrypoints.launchers.app"
ENTRY = "vllm.entrypoints.launchers.api_server.entry"
RENDER = "vllm.entrypoints.launchers.render.entry"


def make_fake_vllm(folder: Path, version: str) -> None:
    """Write a package `vllm` of this version into `folder`."""
    signature = SIGNATURES[version]
    number = tuple(map(int, version.split(".")[:2]))
    arguments = signature.replace("supported_tasks=None", "('generate',)").replace("model_config=None", "None")
    build_app = BUILD_APP.format(signature=signature)
    serve = SERVE.format(arguments=arguments)
    write(folder, "vllm.__init__", f'__version__ = "{version}"\nimport vllm.logger')
    write(folder, "vllm.logger", LOGGER)
    write(folder, "vllm.plugins.__init__", PLUGINS)
    if number >= FIRST_WITH_ENDPOINT_PLUGINS:
        write(folder, "vllm.plugins.endpoint_plugins.interface", ENDPOINT_PLUGINS)
    write(folder, "vllm.entrypoints.openai.cli_args", CLI_ARGS)
    serving, rendering = (OLD, OLD) if number < FIRST_WITH_LAUNCHERS else (ENTRY, RENDER)
    if number < FIRST_WITH_LAUNCHERS:
        write(folder, OLD, build_app + serve + RUN_LAUNCH_FASTAPI + RUN_SERVER)
    else:
        write(folder, APP, build_app)
        write(folder, ENTRY, f"from {APP} import build_app\n{serve}{RUN_SERVER}")
        write(folder, RENDER, f"from {APP} import build_app\n{serve}{RUN_LAUNCH_FASTAPI}")
        write(folder, OLD, DEPRECATED.format(entry=ENTRY))
    write(folder, "vllm.entrypoints.cli.main", CLI_MAIN)
    write(folder, "vllm.entrypoints.cli.serve", CLI_SERVE.format(serving=serving))
    import_server = f"from {rendering} import run_launch_fastapi"
    write(folder, "vllm.entrypoints.cli.launch", CLI_LAUNCH.format(import_server=import_server))


def write(folder: Path, module: str, source: str) -> None:
    """Write one module, and the packages that contain it."""
    path = folder.joinpath(*module.split(".")).with_suffix(".py")
    for parent in path.relative_to(folder).parents:
        (folder / parent).mkdir(parents=True, exist_ok=True)
        if parent != Path():
            (folder / parent / "__init__.py").touch()
    path.write_text(source)


def run(folder: Path, command: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the arguments `command`, and with the `vllm` in `folder`."""
    variables = {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", **environment}
    return subprocess.run(
        [sys.executable, *command], env=variables, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def servers(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Return what each server said of its keys."""
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one line of a start that was refused."""
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line
