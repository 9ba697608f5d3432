"""Types of functions that build apps."""

import inspect
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

BuildAppFunc = Callable[..., FastAPI]
"""Builds a FastAPI app, such as vLLM's `build_app`. Its arguments are its own affair: vLLM's differ by version."""



def built_app(build_app_func: BuildAppFunc, *args: Any, **kwargs: Any) -> FastAPI:
    """Return what `build_app_func` builds.

    Raises:
        TypeError: it is not a FastAPI app.
    """
    app = build_app_func(*args, **kwargs)
    if not isinstance(app, FastAPI):
        name = getattr(build_app_func, "__qualname__", repr(build_app_func))
        if inspect.iscoroutine(app):
            app.close()
            raise TypeError(f"{name} is a coroutine function: keys are added to functions that return the app itself")
        raise TypeError(f"{name} must return a FastAPI app, but returned {type(app).__name__}: {app!r:.80}")
    return app
