"""`server-keys open`: a proxy that opens sealed requests for any HTTP server, and seals the answers."""

import contextlib
import functools
from typing import Any

import click
from click.core import ParameterSource

from server_keys._checks import (
    PLACES,
    REPLAYS,
    STORE_AWAYS,
    checked_open_paths,
    checked_replay,
    overlap_seconds,
    period_seconds,
)
from server_keys._sealing.protocol import DEFAULT_MAX_BUFFERED_BYTES
from server_keys._sharing.share import SECRET_FILE_VARIABLE, SHARE_VARIABLE, checked_share
from server_keys.command.common_options import (
    ca_file_option,
    limit_options,
    limits_of,
    max_frame_bytes_option,
    server_options,
    status_listen_option,
)
from server_keys.command.listening import listening
from server_keys.command.metrics_folder import has_metrics, metrics_of_workers
from server_keys.command.observed import observed
from server_keys.command.served_app import opening
from server_keys.command.serving import serve
from server_keys.command.usage import usage_errors
from server_keys.proxy.options import OpenOptions

_NOBODY = "none"


@click.command(name="open")
@click.option(
    "--to",
    required=True,
    show_envvar=True,
    metavar="URL",
    help="The server behind: http://127.0.0.1:PORT, or unix:/PATH.",
)
@click.option(
    "--listen",
    default="127.0.0.1:8000",
    show_default=True,
    show_envvar=True,
    metavar="ADDRESS",
    help="Where sealed requests come in: HOST:PORT, or unix:/PATH (mode 0600).",
)
@status_listen_option
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    show_envvar=True,
    help="How many processes serve.",
)
@click.option(
    "--allow-remote-upstream",
    is_flag=True,
    show_envvar=True,
    help="Let --to be another host. What was sealed then travels there in plaintext.",
)
@click.option(
    "--trust-peer",
    multiple=True,
    show_envvar=True,
    metavar="ADDRESS",
    help="Pass on X-Forwarded-* and Forwarded from this proxy in front: an address, a network such as 10.0.0.0/8, or "
    "unix. May be repeated. What others say there is dropped.",
)
@click.option(
    "--require-sealed/--allow-plaintext",
    "required",
    default=True,
    show_default="--require-sealed",
    envvar="SERVER_KEYS_REQUIRE_SEALED",
    show_envvar=True,
    help="Refuse requests that carry a body in plaintext, or serve them, too.",
)
@click.option(
    "--require-v1",
    is_flag=True,
    envvar="SERVER_KEYS_REQUIRE_V1",
    show_envvar=True,
    help="Refuse all that is not sealed by version 1 of the wire, requests without a body, too.",
)
@click.option(
    "--sealed-place",
    type=click.Choice(PLACES),
    default="exact",
    show_default=True,
    envvar="SERVER_KEYS_PLACE",
    show_envvar=True,
    help="How the path of a request of version 1 is compared with the one that its client sealed. suffix: behind a "
    "proxy that takes a prefix away.",
)
@click.option(
    "--sealed-replay",
    type=click.Choice(REPLAYS),
    default="refuse",
    show_default=True,
    envvar="SERVER_KEYS_REPLAY",
    show_envvar=True,
    help="What happens to a sealed request that was received before. refuse: 409 from this host. refuse-everywhere: "
    "also where another host received it that shares its keys by valkey://. allow: it is served again.",
)
@click.option(
    "--sealed-store-away",
    type=click.Choice(STORE_AWAYS),
    envvar="SERVER_KEYS_STORE_AWAY",
    show_envvar=True,
    help="What happens to requests while the store cannot be asked that --sealed-replay refuse-everywhere asks, which "
    "needs this. refuse: they get 503. allow: they are served unless this host received them.",
)
@click.option(
    "--sealed-max-buffered-bytes",
    type=int,
    default=DEFAULT_MAX_BUFFERED_BYTES,
    show_default=True,
    envvar="SERVER_KEYS_MAX_BUFFERED_BYTES",
    show_envvar=True,
    metavar="BYTES",
    help="How much memory the unfinished sealed requests of a worker may hold together, from four times "
    "--max-frame-bytes on.",
)
@click.option(
    "--open-paths",
    default="",
    envvar="SERVER_KEYS_OPEN_PATHS",
    show_envvar=True,
    metavar="PATHS",
    help="Paths for which nothing is required, such as /health, separated by commas. None by default.",
)
@click.option(
    "--key-refresh-time-s",
    type=float,
    default=300.0,
    show_default=True,
    envvar="SERVER_KEYS_REFRESH_TIME_S",
    show_envvar=True,
    metavar="SECONDS",
    help="How long a key is the newest before another one replaces it.",
)
@click.option(
    "--key-overlap-s",
    type=float,
    envvar="SERVER_KEYS_OVERLAP_S",
    show_envvar=True,
    metavar="SECONDS",
    help="How long a replaced key is still accepted, from 0 to the refresh time (which is the default).",
)
@click.option(
    "--key-share",
    default="auto",
    show_default=True,
    envvar=SHARE_VARIABLE,
    show_envvar=True,
    metavar="SHARE",
    help="Which processes serve the same keys: auto, the workers of this command; none; file:///a/folder, those of "
    "this host that name the folder; valkey://host, or valkeys://host with TLS, all that name the server and have the "
    "group's secret. A URL with a password is safer in the variable.",
)
@click.option(
    "--group-secret-file",
    envvar=SECRET_FILE_VARIABLE,
    show_envvar=True,
    metavar="PATH",
    help="File with the secret of the group that shares keys by valkey://.",
)
@click.option(
    "--key-identity",
    envvar="SERVER_KEYS_IDENTITY",
    show_envvar=True,
    metavar="PATH",
    help="File with the server's identity, which signs its keys, so that clients know whose they are: server-keys "
    "identity new writes it.",
)
@max_frame_bytes_option
@ca_file_option
@limit_options
@server_options
def open_(
    to: str, listen: str, status_listen: str | None, workers: int, grace_s: float, log_level: str, **values: Any
) -> None:
    """Open sealed requests for any HTTP server on this host, and seal its answers.

    The server behind needs no change: llama.cpp, Ollama, SGLang, TGI, vLLM's Rust frontend. It must be reachable
    through this proxy only.

    \b
    server-keys open --to http://127.0.0.1:8080 --listen 0.0.0.0:8000
    server-keys open --to unix:/run/model.sock --workers 4 --key-refresh-time-s 60
    server-keys open --to http://127.0.0.1:8080 --status-listen 127.0.0.1:9090

    Its keys live in this command's memory, and are replaced while it runs. All workers have the same.
    """  # noqa: D301 - click reads the control character
    from server_keys.proxy import open_app

    options = _options(to, values)
    names = {"max_buffered_bytes": "--sealed-max-buffered-bytes", "max_frame_bytes": "--max-frame-bytes"}
    with usage_errors(names, otherwise="--ca-file"):
        open_app(options)  # checks the rest
    with (
        listening(listen, allow_remote=True, upstream=options.upstream) as place,
        observed(status_listen, functools.partial(opening, options), place, options.upstream, _pages()) as served,
        contextlib.nullcontext() if status_listen is None else metrics_of_workers(workers),
    ):
        serve(
            served.make_app,
            served.place,
            announce=f"listens on {place.shown}, opens, and sends to {options.upstream.shown}{served.announce}",
            warnings=_warnings(options),
            workers=workers,
            grace_s=grace_s,
            log_level=log_level,
        )


def _pages() -> str:
    """Return what the log says of the pages on which the proxy tells of itself."""
    return "/ready, /metrics" if has_metrics() else "/ready (/metrics needs prometheus_client: the extra `metrics`)"


def _options(to: str, values: dict[str, Any]) -> OpenOptions:
    limits = limits_of(values)
    names = {
        "key_refresh_time_s": "--key-refresh-time-s",
        "key_overlap_s": "--key-overlap-s",
        "max_frame_bytes": "--max-frame-bytes",
        "group_secret_file": "--group-secret-file",
        "open_paths": "--open-paths",
        "identity": "--key-identity",
        "store_away": "--sealed-store-away",
        "a trusted peer": "--trust-peer: a trusted peer",
    }
    share = None if values["key_share"].lower() == _NOBODY else values["key_share"]
    with usage_errors(names, otherwise="--key-share"):
        refresh_time = period_seconds("key_refresh_time_s", values["key_refresh_time_s"])
        overlap = overlap_seconds("key_overlap_s", values["key_overlap_s"], refresh_time)
        secret_file = _given("group_secret_file", values)
        checked_share(share, period_s=refresh_time, overlap_s=overlap, group_secret_file=secret_file)
    replay, store_away = values["sealed_replay"], values["sealed_store_away"]
    if replay != "refuse-everywhere":
        store_away = _given("sealed_store_away", values)
    with usage_errors(names, otherwise="--sealed-replay and --sealed-store-away"):
        checked_replay(replay, store_away)
    given = values["open_paths"]
    with usage_errors(names, otherwise="--open-paths"):
        open_paths = checked_open_paths([path.strip() for path in given.split(",")] if given.strip() else [])
    with usage_errors(names, otherwise="--to"):
        return OpenOptions(
            to=to,
            allow_remote_upstream=values["allow_remote_upstream"],
            trusted_peers=values["trust_peer"],
            refresh_time=refresh_time,
            overlap=overlap,
            required="v1" if values["require_v1"] else values["required"],
            place=values["sealed_place"],
            replay=replay,
            store_away=store_away,
            open_paths=open_paths,
            max_frame_bytes=values["max_frame_bytes"],
            max_buffered_bytes=values["sealed_max_buffered_bytes"],
            share=share,
            group_secret_file=secret_file,
            identity=values["key_identity"] or None,
            ca_file=values["ca_file"],
            limits=limits,
        )


def _given(parameter: str, values: dict[str, Any]) -> Any:
    """Return the value of an option that was typed. A variable may be meant for others, and is read where it counts."""
    source = click.get_current_context().get_parameter_source(parameter)
    return values[parameter] if source is ParameterSource.COMMANDLINE else None


def _warnings(options: OpenOptions) -> list[str]:
    if options.upstream.is_on_this_host:
        return []
    return [f"what was sealed leaves this host in plaintext, or under TLS only: to {options.upstream.shown}"]
