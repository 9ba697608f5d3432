"""The settings of an operator: how long keys live, who shares them, and whether bodies are sealed to them.

`OPTIONS` describes each setting once: its option for the entrypoint, its environment variable, its help text.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Self, TypeVar

from server_keys._checks import (
    PERIOD_RANGE,
    PLACES,
    REPLAYS,
    STORE_AWAYS,
    Place,
    Replay,
    Required,
    StoreAway,
    checked_max_buffered_bytes,
    checked_open_paths,
    checked_replay,
    overlap_seconds,
    period_seconds,
)
from server_keys._sealing.protocol import DEFAULT_MAX_BUFFERED_BYTES, DEFAULT_MAX_FRAME_BYTES
from server_keys._sealing.signer import checked_identity
from server_keys._sharing.share import SECRET_FILE_VARIABLE, checked_share
from server_keys.errors import SettingsError

PROGRAM = "server-keys-vllm"
DEFAULT_REFRESH_TIME_S = 300.0
READINESS_PATH = "/health/keys"
"""Where vLLM's app answers whether its keys are ready. vLLM's own `/health` tells of its engine."""
DEFAULT_OPEN_PATHS: tuple[str, ...] = ("/health", READINESS_PATH, "/ping", "/metrics")
"""What probes and scrapes ask for, which seal nothing: none of it tells of a prompt or of an answer."""

_SIBLINGS: str | None = "auto"
_NOBODY = "none"
"""The text that stands for keys of each process' own."""

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: an option of the command line, and an environment variable that the option overrides."""

    name: str
    variable: str
    help: str
    stands_for: str | None = None
    """For a switch: the variable's value that means the same."""
    metavar: str = "SECONDS"
    """For others: what follows the option, in the usage."""
    value: str = "a number of seconds"
    """For others: what follows the option, in a message."""

    @property
    def attribute(self) -> str:
        """The name under which argparse keeps the option's value."""
        return self.name.removeprefix("--").replace("-", "_")

    def texts(self, environment: Mapping[str, str], options: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Yield each place that sets this, with its text. The last one counts."""
        if self.variable in environment:
            yield self.variable, environment[self.variable]
        if self.name in options:
            yield self.name, options[self.name]


REFRESH_TIME = Option(
    "--key-refresh-time-s",
    "SERVER_KEYS_REFRESH_TIME_S",
    f"Seconds between refreshes of the server's ephemeral keys ({DEFAULT_REFRESH_TIME_S:g} by default).",
)
OVERLAP = Option(
    "--key-overlap-s",
    "SERVER_KEYS_OVERLAP_S",
    "Seconds for which a replaced key is still accepted, from 0 to the refresh time (which is the default).",
)
NO_PROTECT = Option(
    "--no-protect",
    "SERVER_KEYS_PROTECT",
    "Have keys, but neither open sealed requests nor seal their responses (EHBP). The default is to do both.",
    stands_for="0",
)
REQUIRE_SEALED = Option(
    "--require-sealed",
    "SERVER_KEYS_REQUIRE_SEALED",
    "Refuse requests that carry a body in plaintext. The default is to serve them.",
    stands_for="1",
)
REQUIRE_V1 = Option(
    "--require-v1",
    "SERVER_KEYS_REQUIRE_V1",
    "Refuse requests that are not sealed by version 1 of the wire, as clients of server-keys seal them. The default is "
    "to serve them.",
    stands_for="1",
)
PLACE = Option(
    "--sealed-place",
    "SERVER_KEYS_PLACE",
    "How the path of a request of version 1 is compared with the one that its client sealed: exact (the default); "
    "suffix, behind a proxy that takes a prefix away; off.",
    metavar="PLACE",
    value="exact, suffix or off",
)
REPLAY = Option(
    "--sealed-replay",
    "SERVER_KEYS_REPLAY",
    "What happens to a sealed request that was received before: refuse (the default) answers it with 409, "
    "refuse-everywhere also where another host received it that shares its keys by Valkey, allow serves it again.",
    metavar="REPLAY",
    value="refuse, refuse-everywhere or allow",
)
STORE_AWAY = Option(
    "--sealed-store-away",
    "SERVER_KEYS_STORE_AWAY",
    "What happens to requests while the store cannot be asked that refuse-everywhere asks, which needs this: refuse or "
    "allow.",
    metavar="RULE",
    value="refuse or allow",
)
OPEN_PATHS = Option(
    "--open-paths",
    "SERVER_KEYS_OPEN_PATHS",
    "Paths for which nothing is required, separated by commas; nothing for none "
    f"({','.join(DEFAULT_OPEN_PATHS)} by default).",
    metavar="PATHS",
    value="paths",
)
MAX_BUFFERED_BYTES = Option(
    "--sealed-max-buffered-bytes",
    "SERVER_KEYS_MAX_BUFFERED_BYTES",
    "Bytes of memory that the unfinished sealed requests of an API server process may hold together "
    f"({DEFAULT_MAX_BUFFERED_BYTES} by default).",
    metavar="BYTES",
    value="a number of bytes",
)
SHARE = Option(
    "--key-share",
    "SERVER_KEYS_SHARE",
    "Which processes serve the same keys: auto, the API server processes of this server (the default); none; "
    "file:///a/folder, those of this host that name the folder; valkey://host, or valkeys://host with TLS, all that "
    "name the server and have the group's secret. A URL with a password is safer in the variable: every user of the "
    "host sees a command line.",
    metavar="SHARE",
    value="what to share by",
)
GROUP_SECRET_FILE = Option(
    "--group-secret-file",
    SECRET_FILE_VARIABLE,
    "File with the secret of the group that shares keys by valkey://.",
    metavar="PATH",
    value="a path",
)
IDENTITY = Option(
    "--key-identity",
    "SERVER_KEYS_IDENTITY",
    "File with the server's identity, which signs its keys, so that clients know whose they are: `server-keys identity "
    "new` writes it. The default is to publish keys unsigned.",
    metavar="PATH",
    value="a path",
)
OPTIONS = {
    option.name: option
    for option in (
        REFRESH_TIME,
        OVERLAP,
        NO_PROTECT,
        REQUIRE_SEALED,
        REQUIRE_V1,
        PLACE,
        REPLAY,
        STORE_AWAY,
        OPEN_PATHS,
        MAX_BUFFERED_BYTES,
        SHARE,
        GROUP_SECRET_FILE,
        IDENTITY,
    )
}

USAGE = (
    f"{PROGRAM} [model] [{REFRESH_TIME.name} SECONDS] [{OVERLAP.name} SECONDS] "
    f"[{NO_PROTECT.name} | {REQUIRE_SEALED.name} | {REQUIRE_V1.name}] [{PLACE.name} PLACE] "
    f"[{REPLAY.name} REPLAY] [{STORE_AWAY.name} RULE] [{OPEN_PATHS.name} PATHS] [{MAX_BUFFERED_BYTES.name} BYTES] "
    f"[{SHARE.name} SHARE] [{GROUP_SECRET_FILE.name} PATH] [{IDENTITY.name} PATH] [options of vllm serve]"
)


@dataclass(frozen=True, slots=True)
class Settings:
    """How keys are refreshed and used, checked."""

    refresh_time_s: float
    overlap_s: float
    protect: bool
    """Whether sealed requests are opened and their responses sealed."""
    require_sealed: bool = False
    """Whether requests that carry a body in plaintext are refused."""
    require_v1: bool = False
    """Whether all requests are refused that are not sealed by version 1 of the wire."""
    place: Place = "exact"
    """How the path of a request is compared with the one that its client sealed."""
    replay: Replay = "refuse"
    """What happens to a sealed request that was received before."""
    store_away: StoreAway | None = None
    """What happens while the store cannot be asked that `refuse-everywhere` asks."""
    open_paths: tuple[str, ...] = DEFAULT_OPEN_PATHS
    """The paths for which nothing is required."""
    max_buffered_bytes: int = DEFAULT_MAX_BUFFERED_BYTES
    """How much memory the unfinished requests of a process may hold together."""
    share: str | None = field(default=_SIBLINGS, repr=False)
    """Who shares the keys: "auto", a URL, or None for each process' own. A URL may have a password."""
    group_secret_file: str | None = None
    """The file with the secret of a group that shares by valkey://; None also if the environment has the secret."""
    identity: str | None = None
    """The file of the identity that signs the keys."""

    @property
    def required(self) -> Required:
        """What is required of requests, as `protect` takes it."""
        return "v1" if self.require_v1 else self.require_sealed

    @classmethod
    def read(cls, environment: Mapping[str, str], options: Mapping[str, str] | None = None) -> Self:
        """Return what the options say, else the environment, else the defaults.

        A wrong value in the environment is refused even where an option overrides it: the next start may lack the
        option.

        Args:
            environment: the environment variables.
            options: the text of each option that was given, by its name in `OPTIONS`.

        Raises:
            SettingsError: a text is not what it should be, a number is out of range, `--require-sealed`,
                `--require-v1` or `--key-identity` comes with `--no-protect`, or keys cannot be shared as asked. The
                message has no password.
        """

        def read(option: Option, convert: Callable[[str, str], _Value], default: _Value) -> _Value:
            values = [convert(name, text) for name, text in option.texts(environment, options or {})]
            return values[-1] if values else default

        refresh_time_s = read(REFRESH_TIME, _refresh_time, DEFAULT_REFRESH_TIME_S)
        overlap_s = read(OVERLAP, lambda name, text: _overlap(name, text, refresh_time_s), refresh_time_s)
        protect = read(NO_PROTECT, _switch, True)
        require_sealed = read(REQUIRE_SEALED, _switch, False)
        require_v1 = read(REQUIRE_V1, _switch, False)
        for required, option in ((require_sealed, REQUIRE_SEALED), (require_v1, REQUIRE_V1)):
            if required and not protect:
                raise SettingsError(
                    f"{option.name} (or {option.variable}=1) refuses all bodies that are not sealed, and "
                    f"{NO_PROTECT.name} (or {NO_PROTECT.variable}=0) opens none that are: leave out one of them"
                )
        place: Place = read(PLACE, _place, "exact")
        replay: Replay = read(REPLAY, _replay, "refuse")
        store_away: StoreAway | None = read(STORE_AWAY, _store_away, None)
        if replay != "refuse-everywhere" and STORE_AWAY.name not in (options or {}):
            store_away = None  # the environment's is for others
        try:
            checked_replay(replay, store_away)
        except ValueError as error:
            raise SettingsError(f"{REPLAY.name} and {STORE_AWAY.name}: {error}") from None
        open_paths = read(OPEN_PATHS, _open_paths, DEFAULT_OPEN_PATHS)
        max_buffered_bytes = read(MAX_BUFFERED_BYTES, _max_buffered_bytes, DEFAULT_MAX_BUFFERED_BYTES)
        share: str | None = read(SHARE, _share, _SIBLINGS)
        file: str | None = read(GROUP_SECRET_FILE, _path, None)
        if not _takes_secret(share, refresh_time_s, overlap_s, file, environment):
            if GROUP_SECRET_FILE.name in (options or {}):
                raise SettingsError(
                    f"{GROUP_SECRET_FILE.name} is for keys that are shared by {SHARE.name} valkey://: leave it out"
                )
            file = None
        identity: str | None = read(IDENTITY, _identity, None)
        if identity is not None and not protect:
            raise SettingsError(
                f"{IDENTITY.name} (or {IDENTITY.variable}) signs the keys that are published, and {NO_PROTECT.name} "
                f"(or {NO_PROTECT.variable}=0) publishes none: leave out one of them"
            )
        return cls(
            refresh_time_s,
            overlap_s,
            protect,
            require_sealed,
            require_v1,
            place,
            replay,
            store_away,
            open_paths,
            max_buffered_bytes,
            share,
            file,
            identity,
        )

    def as_environment(self) -> dict[str, str]:
        """Return the variables from which `read` makes the same settings. Child processes get them."""
        variables = {
            REFRESH_TIME.variable: repr(self.refresh_time_s),
            OVERLAP.variable: repr(self.overlap_s),
            NO_PROTECT.variable: str(int(self.protect)),
            REQUIRE_SEALED.variable: str(int(self.require_sealed)),
            REQUIRE_V1.variable: str(int(self.require_v1)),
            PLACE.variable: self.place,
            REPLAY.variable: self.replay,
            OPEN_PATHS.variable: ",".join(self.open_paths),
            MAX_BUFFERED_BYTES.variable: str(self.max_buffered_bytes),
            SHARE.variable: _NOBODY if self.share is None else self.share,
        }
        if self.identity is not None:
            variables[IDENTITY.variable] = self.identity
        if self.store_away is not None:
            variables[STORE_AWAY.variable] = self.store_away
        if self.group_secret_file is not None:
            variables[GROUP_SECRET_FILE.variable] = self.group_secret_file
        return variables


def settings_at_a_glance(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Return the settings without vLLM's own parser, which takes seconds to import.

    This sees neither abbreviated options nor vLLM's configuration file.

    Args:
        arguments: the command line without the program's name.
        environment: the environment variables.

    Raises:
        SystemExit: with status 2 and a usage message, for a value that cannot be used.
    """
    given: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        option = OPTIONS.get(name.replace("_", "-"))  # vLLM takes either
        if option is None:
            continue
        text = option.stands_for or (value if equals else next(words, None))
        if text is None:
            usage_error(f"{option.name} must be followed by {option.value}, not by the end of the command line")
        given[option.name] = text
    return _read_or_exit(environment, given)


def help_text() -> str:
    """Return the help on these options, and how to see vLLM's. Needs no vLLM."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=USAGE,
        description="Runs vLLM's server with ephemeral keys. It takes every option of `vllm serve`, and these.",
        epilog=f"{PROGRAM} --help=all shows the options of `vllm serve`, too.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    add_options(parser)
    own = parser.add_argument_group("Without a server")
    own.add_argument("-h", "--help", action="store_true", help="Show this help and exit.")
    own.add_argument("--version", action="store_true", help="Show the versions of server-keys and vLLM, and exit.")
    return parser.format_help()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to vLLM's parser, for its help, its configuration file and its abbreviations."""
    group = parser.add_argument_group(title="ServerKeys", description="Ephemeral keys of the server.")
    for option in OPTIONS.values():
        # Without a default, an option that was not given adds no attribute, which vLLM would not know.
        if option.stands_for is None:
            text = f"{option.help} Environment variable: {option.variable}."
            group.add_argument(option.name, default=argparse.SUPPRESS, metavar=option.metavar, help=text)
        else:
            text = f"{option.help} Environment variable: {option.variable}={option.stands_for}."
            group.add_argument(option.name, default=argparse.SUPPRESS, action="store_true", help=text)


def take_settings(args: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Return the settings that vLLM's parser found, and take them out of `args`, which vLLM logs.

    Raises:
        SystemExit: as for `settings_at_a_glance`.
    """
    found: dict[str, Any] = vars(args)
    given: dict[str, str] = {}
    for option in OPTIONS.values():
        value = found.pop(option.attribute, None)
        if value is not None:
            given[option.name] = option.stands_for or str(value)
    return _read_or_exit(environment, given)


def usage_error(reason: object) -> NoReturn:
    """Print the usage and the reason, and exit with status 2."""
    argparse.ArgumentParser(prog=PROGRAM, usage=USAGE).error(str(reason))


def _read_or_exit(environment: Mapping[str, str], options: Mapping[str, str]) -> Settings:
    try:
        return Settings.read(environment, options)
    except SettingsError as error:
        usage_error(error)


def _refresh_time(name: str, text: str) -> float:
    try:
        return period_seconds(name, float(text))
    except ValueError:
        raise SettingsError(f"{name} must be {PERIOD_RANGE}, not {text!r}") from None


def _overlap(name: str, text: str, refresh_time_s: float) -> float:
    try:
        return overlap_seconds(name, float(text), refresh_time_s)
    except ValueError:
        raise SettingsError(
            f"{name} must be a number of seconds from 0 to the refresh time ({refresh_time_s:g}), not {text!r}"
        ) from None


def _switch(name: str, text: str) -> bool:
    if text not in ("0", "1"):
        raise SettingsError(f"{name} must be 1 (on) or 0 (off), not {text!r}")
    return text == "1"


def _identity(name: str, text: str) -> str | None:
    if not text and name == IDENTITY.variable:
        return None  # as if it were not set
    try:
        return str(checked_identity(text))
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from None


def _place(name: str, text: str) -> Place:
    for place in PLACES:
        if text == place:
            return place
    raise SettingsError(f"{name} must be {PLACE.value}, not {text!r}")


def _replay(name: str, text: str) -> Replay:
    for replay in REPLAYS:
        if text == replay:
            return replay
    raise SettingsError(f"{name} must be {REPLAY.value}, not {text!r}")


def _store_away(name: str, text: str) -> StoreAway:
    for store_away in STORE_AWAYS:
        if text == store_away:
            return store_away
    raise SettingsError(f"{name} must be {STORE_AWAY.value}, not {text!r}")


def _open_paths(name: str, text: str) -> tuple[str, ...]:
    try:
        return checked_open_paths([path.strip() for path in text.split(",")] if text.strip() else [])
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from None


def _max_buffered_bytes(name: str, text: str) -> int:
    smallest = 4 * DEFAULT_MAX_FRAME_BYTES
    try:
        return checked_max_buffered_bytes(int(text), DEFAULT_MAX_FRAME_BYTES)
    except ValueError:
        raise SettingsError(f"{name} must be a whole number of bytes, {smallest} or more, not {text!r}") from None


def _share(name: str, text: str) -> str | None:
    """Return what to share by. Whether the keys live long enough, and a secret is there, matters only if it counts."""
    share = None if text.lower() == _NOBODY else text
    try:
        checked_share(
            share,
            period_s=DEFAULT_REFRESH_TIME_S,
            overlap_s=DEFAULT_REFRESH_TIME_S,
            environment={GROUP_SECRET_FILE.variable: "any"},
        )
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from None
    return share


def _path(name: str, text: str) -> str | None:
    if text:
        return text
    if name == GROUP_SECRET_FILE.variable:
        return None  # as if it were not set
    raise SettingsError(f"{name} must be {GROUP_SECRET_FILE.value}, not {text!r}")


def _takes_secret(
    share: str | None, refresh_time_s: float, overlap_s: float, file: str | None, environment: Mapping[str, str]
) -> bool:
    """Return whether those who share keys need a secret.

    Raises:
        SettingsError: keys cannot be shared so.
    """
    if file is not None:
        environment = {**environment, GROUP_SECRET_FILE.variable: file}
    try:
        checked = checked_share(share, period_s=refresh_time_s, overlap_s=overlap_s, environment=environment)
    except ValueError as error:
        raise SettingsError(f"{SHARE.name} (or {SHARE.variable}): {error}") from None
    return checked.secret is not None
