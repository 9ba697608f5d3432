"""Errors for objects that cannot work where they are passed. They say what to write instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from server_keys.client.steps import Library


class SealsAlready:
    """A transport that seals: another one around it would seal twice."""


def require_inner(inner: object, library: Library, *, is_async: bool) -> None:
    """Raise a `TypeError` unless `inner` is a transport of `library` of the right kind, sync or async."""
    needed = library.AsyncBaseTransport if is_async else library.BaseTransport
    if isinstance(inner, needed) and not isinstance(inner, SealsAlready):
        return
    name = f"{'Async' if is_async else ''}SealedTransport"
    default = f"{library.__name__}.{'Async' if is_async else ''}HTTPTransport"
    raise TypeError(
        f"inner must be a transport of {library.__name__}, such as {default}(), not "
        f"{_shown(inner)}: {_advice(inner, library, name, is_async=is_async)}"
    )


def refuse_use_by(client: str, transport: object) -> NoReturn:
    """Raise the `TypeError` for a transport of the other kind than the client that calls it."""
    of_async = client.startswith("Async")
    needed = "AsyncSealedTransport" if of_async else "SealedTransport"
    factory = "async_sealed_client()" if of_async else "sealed_client()"
    raise TypeError(
        f"{type(transport).__name__} cannot serve {'an' if of_async else 'a'} {client}: write "
        f"{client}(transport={needed}()), or {factory}"
    )


def refuse_as_client(transport: object, name: str) -> NoReturn:
    """Raise the error for the attribute `name`, which transports do not have and clients may."""
    kind = type(transport).__name__
    factory = "async_sealed_client()" if kind.startswith("Async") else "sealed_client()"
    if name == "timeout":  # the first that the OpenAI SDK looks for
        raise TypeError(f"{kind} is a transport and not a client: write http_client={factory}")
    raise AttributeError(f"{kind!r} object has no attribute {name!r}")


def _shown(inner: object) -> str:
    # Not its repr: a URL may have credentials in it.
    return f"the class {inner.__name__}" if isinstance(inner, type) else f"a {type(inner).__name__}"


def _advice(inner: object, library: Library, name: str, *, is_async: bool) -> str:
    factory = "async_sealed_client" if is_async else "sealed_client"
    other = library.BaseTransport if is_async else library.AsyncBaseTransport
    if isinstance(inner, (str, library.URL)):
        return f"the server is found by each request's own URL, so write {factory}(base_url=...)"
    if isinstance(inner, (library.Client, library.AsyncClient)):
        return f"a client is made around this transport; write {factory}(...) with the client's arguments"
    if isinstance(inner, SealsAlready):
        return "it seals already"
    if isinstance(inner, other):
        return f"it is for {'SealedTransport' if is_async else 'AsyncSealedTransport'}"
    if isinstance(inner, type):
        return "it is to be called first"
    return f"server_keys.client.httpx and server_keys.client.httpx2 have a {name} for each library"
