"""Everything that reaches into vLLM: its `build_app`, its `serve` command, and its server.

A new vLLM that moves or renames one of them breaks this module only. Other modules rely on names of vLLM: `entrypoint`,
`plugin` and `start_checks` on its options and variables, `server_keys_vllm_plugin` on the interface of its plugins.
"""

import argparse
import functools
import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, TypeGuard

from fastapi import FastAPI

from server_keys import KeyPair, inject_key_lifespan, inject_middleware
from server_keys._keys.schedule import Schedule
from server_keys._log import warn_at_start
from server_keys._native import SigningKey
from server_keys._sharing.join import check
from server_keys._sharing.key_plan import KeyPlan
from server_keys.errors import UnsupportedVllmError
from server_keys.middleware import BuildAppFunc
from server_keys.readiness import ready
from server_keys.vllm.options import READINESS_PATH
from server_keys.vllm.settings import Settings
from server_keys.vllm.start_checks import refusal

# The module that defines `build_app`, and the modules that bind it by name and call it to serve: first from vLLM 0.29
# on, then up to 0.28. The newer layout comes first, because a newer vLLM has the older module, too, and it only warns.
_LAYOUTS = (
    (
        "vllm.entrypoints.launchers.app",
        ("vllm.entrypoints.launchers.api_server.entry", "vllm.entrypoints.launchers.render.entry"),
    ),
    ("vllm.entrypoints.openai.api_server", ("vllm.entrypoints.openai.api_server",)),
)
_SERVE_COMMAND = "vllm.entrypoints.cli.serve"
# vLLM's own server: `vllm serve` and `python -m vllm.entrypoints.openai.api_server` call the first one, `vllm launch
# render` the second. Each takes the parsed arguments, and builds the app that it serves.
_SERVERS = ("run_server", "run_launch_fastapi")

# Attributes of functions: one that replaced `build_app`, and one that calls an action first.
_WRAPPED = "_server_keys_wrapped"
_HAS_ACTION = "_server_keys_has_action"

Action = Callable[[argparse.Namespace], None]


def with_keys(build_app_func: BuildAppFunc, settings: Settings) -> BuildAppFunc:
    """Return a function like `build_app_func` whose app has everything that server-keys adds to vLLM's app.

    The entrypoint and the plugin both use it. The new function ends the process if no key pair can be made.
    """
    protected = build_app_func
    if settings.protect:
        protected = inject_middleware(
            build_app_func,
            required=settings.required,
            place=settings.place,
            replay=settings.replay,
            store_away=settings.store_away,
            open_paths=settings.open_paths,
            max_buffered_bytes=settings.max_buffered_bytes,
            identity=settings.identity,
        )
    build_app_with_keys = inject_key_lifespan(
        protected,
        settings.refresh_time_s,
        overlap_s=settings.overlap_s,
        share=settings.share,
        group_secret_file=settings.group_secret_file,
    )

    schedule = Schedule(settings.refresh_time_s, settings.overlap_s)
    plan = KeyPlan.checked(schedule, settings.share, settings.group_secret_file)

    @functools.wraps(build_app_with_keys)
    def build_app_or_exit(*args: Any, **kwargs: Any) -> FastAPI:
        # Try it here, where one line can tell of a failure: in the lifespan, uvicorn would report it with a traceback.
        try:
            KeyPair.generate().erase()
        except Exception as error:
            raise refusal(f"no key pair can be made: {type(error).__name__}: {error}") from error
        try:
            if settings.identity is not None:
                SigningKey.from_file(settings.identity).erase()
        except Exception as error:
            raise refusal(error) from error
        try:
            check(plan)
        except Exception as error:
            raise refusal(f"keys cannot be shared: {error}") from error
        app = build_app_with_keys(*args, **kwargs)
        _add_readiness(app)
        _add_metrics(app)
        return app

    return build_app_or_exit


def _add_readiness(app: FastAPI) -> None:
    if not any(getattr(route, "path", None) == READINESS_PATH for route in app.routes):
        app.add_api_route(READINESS_PATH, ready, include_in_schema=False)


def _add_metrics(app: FastAPI) -> None:
    """Put the metrics of the app's keys beside vLLM's own, which its `/metrics` serves."""
    try:
        from server_keys import metrics

        metrics.instrument(app)
    except (ImportError, ValueError) as error:
        warn_at_start("/metrics tells nothing of keys: %s", error)


def wrap_build_app(settings: Settings) -> None:
    """Replace vLLM's `build_app` by `with_keys(build_app, settings)` in every module that holds it. Imports vLLM.

    A second call has no effect: the first settings count.

    Raises:
        UnsupportedVllmError: there is no `build_app`, or a module that serves does not use it.
    """
    definition, users = _layout()
    original = definition.build_app
    if getattr(original, _WRAPPED, False):
        return
    replacement = with_keys(original, settings)
    setattr(replacement, _WRAPPED, True)
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and vars(module).get("build_app") is original:
            vars(module)["build_app"] = replacement
    for user in users:
        if vars(user).get("build_app") is not replacement:
            raise UnsupportedVllmError(f"{user.__name__} does not use the build_app of {definition.__name__}")


def is_wrapped() -> bool:
    """Return whether `wrap_build_app` replaced vLLM's `build_app` in this process. Imports nothing."""
    definitions = (sys.modules.get(name) for name, _ in _LAYOUTS)
    return any(getattr(vars(module).get("build_app"), _WRAPPED, False) for module in definitions if module)


def extend_serve_parser(add_options: Callable[[argparse.ArgumentParser], None], usage: str) -> None:
    """Let `vllm serve` take what `add_options` adds to its parser, and show `usage`. Imports vLLM."""
    command = _serve_command()
    subparser_init = command.subparser_init

    def extended_subparser_init(self: Any, subparsers: Any) -> Any:
        parser = subparser_init(self, subparsers)
        parser.usage = usage
        add_options(parser)
        return parser

    command.subparser_init = extended_subparser_init


def call_before_serving(action: Action) -> None:
    """Let `vllm serve` call `action` with its parsed arguments before it does anything else. Imports vLLM."""
    command = _serve_command()
    if not hasattr(command.cmd, _HAS_ACTION):
        command.cmd = staticmethod(_preceded(command.cmd, action))


def call_before_serving_if_loaded(before_command: Action, before_server: Action) -> None:
    """Let vLLM's own server, as far as this process has imported it, call an action before it loads a model.

    Imports nothing. Another server that uses vLLM as a library calls none of these functions, so it is not affected. If
    the command has an action already, it keeps that: the entrypoint gave it one.

    Args:
        before_command: called by `vllm serve`, with its parsed arguments.
        before_server: called by each function in `_SERVERS`, with its parsed arguments.
    """
    if _SERVE_COMMAND in sys.modules:
        call_before_serving(before_command)
    for module in list(sys.modules.values()):
        if not isinstance(module, ModuleType):
            continue
        for name in _SERVERS:
            server = vars(module).get(name)
            if _is_function_of_vllm(server):
                vars(module)[name] = _preceded(server, before_server)


def lowest_log_level() -> int:
    """Return the lowest level that any of vLLM's loggers takes. Imports nothing."""
    loggers = [
        logger
        for name, logger in logging.root.manager.loggerDict.items()
        if name.partition(".")[0] == "vllm" and isinstance(logger, logging.Logger)
    ]
    levels = [logger.getEffectiveLevel() for logger in (logging.getLogger("vllm"), *loggers)]
    return max(min(levels), logging.root.manager.disable + 1)


def has_endpoint_plugins() -> bool:
    """Return whether this vLLM can load endpoint plugins. 0.26 is the first that can."""
    return importlib.util.find_spec("vllm.plugins.endpoint_plugins") is not None


def vllm_command() -> Callable[[], None]:
    """Return the function behind the command `vllm`, which reads `sys.argv`. Imports vLLM."""
    main: Callable[[], None] = importlib.import_module("vllm.entrypoints.cli.main").main
    return main


def _preceded(function: Callable[..., Any], action: Action) -> Callable[..., Any]:
    """Return a function like `function` that first calls `action` with its first argument."""

    # The function keeps its name: vLLM leaves its command among the arguments, and pickles them for its API servers.
    @functools.wraps(function)
    def act_then_serve(args: argparse.Namespace, *more: Any, **kwargs: Any) -> Any:
        action(args)
        return function(args, *more, **kwargs)

    setattr(act_then_serve, _HAS_ACTION, True)
    return act_then_serve


def _is_function_of_vllm(value: object) -> TypeGuard[FunctionType]:
    """Return whether vLLM defines this function, also in a module of vLLM that `python -m` runs as `__main__`."""
    spec = value.__globals__.get("__spec__") if isinstance(value, FunctionType) else None
    return spec is not None and str(spec.name).partition(".")[0] == "vllm"


def _serve_command() -> Any:
    return importlib.import_module(_SERVE_COMMAND).ServeSubcommand


def _layout() -> tuple[ModuleType, list[ModuleType]]:
    """Return the module that defines `build_app`, and those that serve with it."""
    for defining, using in _LAYOUTS:
        definition = _imported(defining)
        if definition is not None and callable(getattr(definition, "build_app", None)):
            users = [_imported(name) for name in using]
            missing = [name for name, user in zip(using, users, strict=True) if user is None]
            if missing:
                raise UnsupportedVllmError(f"{defining} has a build_app, but there is no {' and no '.join(missing)}")
            return definition, [user for user in users if user is not None]
    raise UnsupportedVllmError(f"there is no build_app in {' or '.join(defining for defining, _ in _LAYOUTS)}")


def _imported(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # This vLLM has no such module. Anything else that is missing is an error of the installation.
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise
