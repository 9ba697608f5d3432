"""The names that the documentation gives this module: the type of a build function, and the middleware."""

from collections.abc import Callable

from fastapi import FastAPI

from server_keys._sealing.middleware import EncryptedBodyMiddleware

__all__ = ["BuildAppFunc", "EncryptedBodyMiddleware"]

BuildAppFunc = Callable[..., FastAPI]
"""A function that builds a FastAPI app, such as vLLM's `build_app`. Its parameters differ between vLLM's versions."""
