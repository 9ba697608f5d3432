"""Whether a request arrived where its client meant it to: what it sealed, compared with what the server sees."""

from starlette.types import Scope

from server_keys._checks import Place
from server_keys._sealing.place import arrived_path, below, with_query
from server_keys._sealing.protocol import KEY_CONFIG_PATH
from server_keys._sealing.wire_v1 import RequestHead, sealed_target


def path_in_app(scope: Scope) -> str:
    """Return the path of a request below the app's root path, by which the app chooses a route: Starlette's rule."""
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "")
    below_root = path.removeprefix(root_path)
    # A root path that ends with a slash is taken away only before another slash, which uvicorn puts there.
    return below_root if below_root[:1] in ("", "/") else path


def is_for_key(scope: Scope) -> bool:
    """Return whether a request is for the published key, with the app's root path before it or without."""
    root_path = scope.get("root_path", "").rstrip("/")
    return KEY_CONFIG_PATH in (path_in_app(scope), scope["path"].removeprefix(root_path))


def is_in_place(head: RequestHead, scope: Scope, place: Place) -> bool:
    """Return whether a request arrived with the method, the path and the query that its client sealed.

    Under a root path the client may know the path with it or without it, and the server may see it either way. An app
    takes all of them for the same.

    Args:
        head: what the client sealed.
        scope: the scope of the request.
        place: whether the path must be what the client meant, may be the end of it (`suffix`: a proxy took a prefix
            away), or counts for nothing, nor the query (`off`).
    """
    if head.method != scope["method"].encode("latin-1"):
        return False
    if place == "off":
        return True
    paths, query = _paths(scope), scope.get("query_string", b"")
    if any(head.target == sealed_target(with_query(path, query)) for path in paths):
        return True
    return place == "suffix" and any(_is_end_of(head.target, path, query) for path in paths)


def _paths(scope: Scope) -> tuple[bytes, ...]:
    path = arrived_path(scope["path"])
    root_path = scope.get("root_path", "").strip("/")
    if not root_path:
        return (path,)
    root = arrived_path(root_path)
    in_app = below(root, path)
    return (path, root + path) if in_app == path else (path, in_app)


def _is_end_of(target: bytes, path: bytes, query: bytes) -> bool:
    """Return whether a path is the end of a target's path. It begins with a slash, so it begins at one there, too."""
    meant, _, _ = target.partition(b"?")
    if path.endswith(b"/"):  # the end of very many paths
        return False
    return meant.endswith(path) and target == with_query(meant, query)
