"""What the argument `share=` asks for, checked where it is passed, and shown without credentials."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NoReturn
from urllib.parse import unquote

from server_keys._sharing import valkey_url
from server_keys._sharing.valkey_url import ValkeyUrl, without_credentials

SHORTEST_SHARED_S = 0.5
"""The shortest refresh time and the shortest overlap with which members can keep up with each other."""

SHARE_VARIABLE = "SERVER_KEYS_SHARE"
"""Says to the commands by what keys are shared. An app has to pass it on."""
SECRET_FILE_VARIABLE = "SERVER_KEYS_GROUP_SECRET_FILE"  # noqa: S105
SECRET_VARIABLE = "SERVER_KEYS_GROUP_SECRET"  # noqa: S105

FORMS = "'auto', None, 'file:///a/folder', or a URL of Valkey or Redis ('valkey://host', 'valkeys://host' with TLS)"


class ShareKind(Enum):
    """Where members leave things for each other."""

    NOWHERE = "this process alone"
    SIBLINGS = "a folder that the workers of one server find by themselves"
    FOLDER = "a folder that was named"
    VALKEY = "a Valkey or Redis server"


@dataclass(frozen=True)
class SecretPlace:
    """Where the secret of a group is. Its repr shows no secret."""

    file: str | None = None
    text: str | None = field(default=None, repr=False)
    """The secret itself, from the environment. None if it is in a file."""


@dataclass(frozen=True)
class Share:
    """What was asked for, checked. Two are equal if they ask for the same."""

    kind: ShareKind
    shown: str = field(compare=False)
    """For logs: what was asked for, without credentials."""
    too_short: bool = False
    """Whether keys stay in this process, because they change too often for `auto`."""
    folder: str | None = None
    url: ValkeyUrl | None = None
    secret: SecretPlace | None = None
    """For Valkey: where the group's secret is."""


def checked_share(
    share: object,
    *,
    period_s: float,
    overlap_s: float,
    group_secret_file: object = None,
    environment: Mapping[str, str] = os.environ,
) -> Share:
    """Return what `share` asks for.

    Args:
        share: `"auto"`, None, `"file:///a/folder"`, or a URL of Valkey or Redis.
        period_s: the refresh time in seconds, checked.
        overlap_s: the overlap in seconds, checked.
        group_secret_file: the path of the file with the group's secret, for Valkey. None: the environment says where
            the secret is.
        environment: the environment variables. Only Valkey looks there.

    Raises:
        TypeError: `share` is neither a str nor None, or `group_secret_file` is no path.
        ValueError: `share` is of no known form, or has no secret and needs one, or has one and needs none, or was
            asked for with keys that change too often. The message has no credentials.
    """
    if share is not None and not isinstance(share, str):
        raise TypeError(f"share must be a str or None, not {type(share).__name__}")
    file = _checked_path(group_secret_file)
    if isinstance(share, str) and _is_for_valkey(share):
        url = ValkeyUrl.parse(share)
        _check_long_enough(url.shown, period_s, overlap_s)
        return Share(ShareKind.VALKEY, url.shown, url=url, secret=_secret_place(url.shown, file, environment))
    checked = _without_secret(share, period_s, overlap_s)
    if file is not None:
        shown = share and checked.shown
        raise ValueError(f"group_secret_file is for a share of valkey://, and share is {shown!r}: leave it out")
    return checked


def _without_secret(share: str | None, period_s: float, overlap_s: float) -> Share:
    if share is None:
        return Share(ShareKind.NOWHERE, "None")
    if share == "auto":
        return Share(ShareKind.SIBLINGS, share, too_short=min(period_s, overlap_s) < SHORTEST_SHARED_S)
    if share.lower().startswith("file:"):
        folder = _folder(share)
        shown = f"file://{folder}"
        _check_long_enough(shown, period_s, overlap_s)
        return Share(ShareKind.FOLDER, shown, folder=folder)
    if "sentinel" in share.partition(":")[0].lower():
        _refuse(
            share,
            "is of Sentinel, which is not supported: name an address that always leads to the primary (a service, a "
            "proxy, a DNS name), or use a cluster",
        )
    _refuse(share, f"must be {FORMS}")


def _is_for_valkey(share: str) -> bool:
    return share.partition("://")[0].lower() in valkey_url.SCHEMES and "://" in share


def _folder(share: str) -> str:
    url = valkey_url.split(share)
    if url is None or url.netloc or not share.lower().startswith("file:///"):
        _refuse(share, "must be of the form file:///a/folder, with three slashes: the folder is on this host")
    if url.query or url.fragment or "?" in share or "#" in share:
        _refuse(share, "must have nothing behind the folder: write ? and # in its name as %3F and %23")
    path = unquote(url.path)
    parts = [part for part in path.split("/") if part]
    if not parts or {".", ".."} & set(parts) or not path.isprintable():
        _refuse(share, "must name a folder from the root on, without . and .., by printable characters")
    return "/" + "/".join(parts)


def _secret_place(shown: str, file: str | None, environment: Mapping[str, str]) -> SecretPlace:
    file = file or environment.get(SECRET_FILE_VARIABLE)
    if file:
        return SecretPlace(file=file)
    text = environment.get(SECRET_VARIABLE)
    if text:
        return SecretPlace(text=text)
    raise ValueError(
        f"share={shown!r} needs the group's secret: make one with `openssl rand -hex 32 > FILE`, give every member a "
        f"copy, and name it by group_secret_file= (commands: --group-secret-file) or {SECRET_FILE_VARIABLE}"
    )


def _checked_path(value: object) -> str | None:
    if value is None:
        return None
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise TypeError(f"group_secret_file must be a path, not {type(value).__name__}")
    if not path or "\0" in path:
        raise ValueError(f"group_secret_file must be a path, not {path!r}")
    return path


def _check_long_enough(shown: str, period_s: float, overlap_s: float) -> None:
    for name, value in (("refresh time", period_s), ("overlap", overlap_s)):
        if value < SHORTEST_SHARED_S:
            raise ValueError(
                f"share={shown!r} needs a refresh time and an overlap of at least {SHORTEST_SHARED_S} s, and the "
                f"{name} is {value:g} s"
            )


def _refuse(share: str, why: str) -> NoReturn:
    raise ValueError(f"share {without_credentials(share)!r} {why}")
