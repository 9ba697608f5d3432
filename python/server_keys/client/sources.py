"""What httpx and httpx2 read a request's body from: how long it is, and whether it can be read twice."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import httpx2 as http

    from server_keys.client.steps import Library


# Where the file of a stream stood before the stream was read: a request may come again, to answer a challenge say.
_beginnings: WeakKeyDictionary[object, int] = WeakKeyDictionary()


class Source(NamedTuple):
    """What a stream reads from.

    Args:
        length: how many bytes it has, or None if nobody knows.
        rewind: must be called before the stream is read again. None if it can be read only once.
    """

    length: int | None
    rewind: Callable[[], object] | None


def source_of(library: Library, request: http.Request) -> Source:
    """Return what the stream of `request` reads from, before it is read."""
    stream, declared = request.stream, _declared_length(request)
    if type(stream).__module__.partition(".")[0] != library.__name__:
        return Source(declared, None)
    if (fields := getattr(stream, "fields", None)) is not None:
        # A form. The library goes to each file's beginning by itself, and for one that cannot go there it may have
        # taken a wrong length.
        can_repeat = all(_can_be_read_twice(getattr(field, "file", b"")) for field in fields)
        return Source(declared, _nothing) if can_repeat else Source(None, None)
    # No public name leads to what the caller gave. Without this one, nothing is sent twice.
    given: Any = getattr(stream, "_stream", None)
    if isinstance(given, (list, tuple)):
        return Source(declared, _nothing)
    if _can_seek(given):
        start = _beginnings.setdefault(stream, given.tell())
        length = given.seek(0, os.SEEK_END) - start
        given.seek(start)
        # Nothing is left of a file that somebody has read or written: then no request is sent without its body.
        return Source(_if_positive(length) or declared, partial(given.seek, start))
    return Source(declared, None)


def _declared_length(request: http.Request) -> int | None:
    value = request.headers.get("Content-Length", "")
    return _if_positive(int(value)) if value.isascii() and value.isdecimal() else None


def _if_positive(length: int) -> int | None:
    # Pipes and devices say 0.
    return length if length > 0 else None


def _can_be_read_twice(file: object) -> bool:
    return isinstance(file, (bytes, str)) or _can_seek(file)


def _can_seek(file: object) -> bool:
    seekable = getattr(file, "seekable", None)
    return callable(seekable) and seekable() is True


def _nothing() -> None: ...
