"""Options that more than one subcommand has, and what their values become."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from server_keys._sealing.protocol import DEFAULT_MAX_FRAME_BYTES
from server_keys.proxy.options import Limits

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


class Seconds(click.FloatRange):
    """A number of seconds, above zero and finite.

    Args:
        or_none: whether zero is one, too.
    """

    def __init__(self, *, or_none: bool = False) -> None:
        super().__init__(min=0, max=366 * 24 * 60 * 60, min_open=not or_none)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number.

        Raises:
            click.BadParameter: it is none, or out of range.
        """
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):  # it is in every range
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


LOG_LEVELS = ("debug", "info", "warning", "error")


def limit_options(command: CommandT) -> CommandT:
    """Add the options from which `limits_of` makes the limits of a proxy."""
    defaults = Limits()
    for option in (
        click.option(
            "--max-connections",
            type=click.IntRange(1),
            default=defaults.max_connections,
            show_default=True,
            show_envvar=True,
            help="How many connections to the upstream there may be at a time.",
        ),
        click.option(
            "--connect-timeout-s",
            type=Seconds(),
            default=defaults.connect_timeout_s,
            show_default=True,
            show_envvar=True,
            metavar="SECONDS",
            help="How long the upstream may take to accept a connection.",
        ),
        click.option(
            "--timeout-s",
            type=Seconds(),
            default=defaults.timeout_s,
            show_default=True,
            show_envvar=True,
            metavar="SECONDS",
            help="How long the upstream may be silent: before its answer, and between two pieces of it.",
        ),
    ):
        command = option(command)
    return command


def limits_of(values: dict[str, Any]) -> Limits:
    """Take the limits out of an option's values."""
    return Limits(
        timeout_s=values.pop("timeout_s"),
        connect_timeout_s=values.pop("connect_timeout_s"),
        max_connections=values.pop("max_connections"),
    )


def server_options(command: CommandT) -> CommandT:
    """Add the options of everything that serves."""
    for option in (
        click.option(
            "--log-level",
            type=click.Choice(LOG_LEVELS),
            default="info",
            show_default=True,
            show_envvar=True,
            help="What the log on stderr has. No level has bodies, paths or headers.",
        ),
        click.option(
            "--grace-s",
            type=Seconds(),
            default=30.0,
            show_default=True,
            show_envvar=True,
            metavar="SECONDS",
            help="After SIGTERM or Ctrl+C: how long streams may take to end before they are cut off. A second Ctrl+C "
            "cuts them off at once.",
        ),
    ):
        command = option(command)
    return command


def max_frame_bytes_option(command: CommandT) -> CommandT:
    """Add `--max-frame-bytes`."""
    add = click.option(
        "--max-frame-bytes",
        type=int,
        default=DEFAULT_MAX_FRAME_BYTES,
        show_default=True,
        show_envvar=True,
        metavar="BYTES",
        help="The longest sealed frame that is taken, from 65552 (64 KiB and a tag) to 67108864 (64 MiB).",
    )
    return add(command)


def ca_file_option(command: CommandT) -> CommandT:
    """Add `--ca-file`."""
    add = click.option(
        "--ca-file",
        type=click.Path(exists=True, dir_okay=False),
        show_envvar=True,
        help="File with the certificates (PEM) that vouch for the server. By default those of this machine.",
    )
    return add(command)


def status_listen_option(command: CommandT) -> CommandT:
    """Add `--status-listen`."""
    add = click.option(
        "--status-listen",
        show_envvar=True,
        metavar="ADDRESS",
        help="HOST:PORT where the proxy tells of itself: /ready, and for open /metrics (with the extra metrics). These "
        "are never on the address of --listen, whose paths are all the upstream's.",
    )
    return add(command)


# How messages about identities name the option: for `usage_errors`.
IDENTITY_MESSAGES = {
    "an identity": "--identity: an identity",
    "the identity": "--identity: the identity",
    "identity has": "--identity has",
}


def identity_option(command: CommandT) -> CommandT:
    """Add `--identity`."""
    add = click.option(
        "--identity",
        multiple=True,
        show_envvar=True,
        metavar="ed25519:...",
        help="The server's identity, as server-keys identity prints it: keys that it has not signed are refused. May "
        "be repeated while one replaces another.",
    )
    return add(command)


def key_url_option(command: CommandT) -> CommandT:
    """Add `--key-url`."""
    add = click.option(
        "--key-url",
        show_envvar=True,
        metavar="PATH|URL",
        help="Where the server publishes its key, if not under /.well-known/hpke-keys at its root.",
    )
    return add(command)
