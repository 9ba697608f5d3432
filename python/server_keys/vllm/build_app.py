"""vLLM's `build_app`: what is added to the app it builds, and where vLLM keeps it."""

import functools
import importlib
import sys
from types import ModuleType
from typing import Any

from fastapi import FastAPI

from server_keys import KeyPair, inject_key_lifespan, inject_middleware
from server_keys.errors import UnsupportedVllmError
from server_keys.middleware import BuildAppFunc
from server_keys.vllm.refusal import refusal
from server_keys.vllm.settings import Settings

# Where `build_app` is defined, and the modules that call it to serve: they bind it by name. From vLLM 0.29 on, then up
# to 0.28. The newer layout comes first: there, importing the older module only warns.
_LAYOUTS = (
    (
        "vllm.entrypoints.launchers.app",
        ("vllm.entrypoints.launchers.api_server.entry", "vllm.entrypoints.launchers.render.entry"),
    ),
    ("vllm.entrypoints.openai.api_server", ("vllm.entrypoints.openai.api_server",)),
)

_WRAPPED = "_server_keys_wrapped"


def wrapped(build_app_func: BuildAppFunc, settings: Settings) -> BuildAppFunc:
    """Return `build_app_func` with everything that server-keys adds to vLLM's app. Entrypoint and plugin both use it.

    The new function ends the process where no key can be made.
    """
    protected = build_app_func
    if settings.protect:
        protected = inject_middleware(build_app_func, required=settings.require_sealed)
    with_keys = inject_key_lifespan(protected, settings.refresh_time_s, overlap_s=settings.overlap_s)

    @functools.wraps(with_keys)
    def build_app_or_exit(*args: Any, **kwargs: Any) -> FastAPI:
        # Tried here, where a failure can be told in one line: uvicorn reports one of the lifespan's with a traceback.
        try:
            KeyPair.generate().erase()
        except Exception as error:
            raise refusal(f"no key pair can be made: {type(error).__name__}: {error}") from error
        return with_keys(*args, **kwargs)

    return build_app_or_exit


def wrap_build_app(settings: Settings) -> None:
    """Replace vLLM's `build_app` by `wrapped(build_app, settings)` in every module that holds it. Imports vLLM.

    Where it is replaced already, nothing happens: the first settings count.

    Raises:
        UnsupportedVllmError: it is not there, or a module that serves does not use it.
    """
    definition, users = _layout()
    original = definition.build_app
    if getattr(original, _WRAPPED, False):
        return
    replacement = wrapped(original, settings)
    setattr(replacement, _WRAPPED, True)
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and vars(module).get("build_app") is original:
            vars(module)["build_app"] = replacement
    for user in users:
        if vars(user).get("build_app") is not replacement:
            raise UnsupportedVllmError(f"{user.__name__} does not use the build_app of {definition.__name__}")


def is_wrapped() -> bool:
    """Whether `wrap_build_app` was here. Imports nothing."""
    definitions = (sys.modules.get(name) for name, _ in _LAYOUTS)
    return any(getattr(vars(module).get("build_app"), _WRAPPED, False) for module in definitions if module)


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
        # Not one of the modules that this vLLM has; whatever else is missing is an error of the installation.
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise
