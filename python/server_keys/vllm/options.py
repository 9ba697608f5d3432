"""The options of an operator: for each its name on the command line, its environment variable, its help text."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from server_keys._sealing.protocol import DEFAULT_MAX_BUFFERED_BYTES
from server_keys._sharing.share import SECRET_FILE_VARIABLE, SHARE_VARIABLE

PROGRAM = "server-keys-vllm"
DEFAULT_REFRESH_TIME_S = 300.0
READINESS_PATH = "/health/keys"
"""Where vLLM's app answers whether its keys are ready. vLLM's own `/health` tells of its engine."""
DEFAULT_OPEN_PATHS: tuple[str, ...] = ("/health", READINESS_PATH, "/ping", "/metrics")
"""What probes and scrapes ask for, which seal nothing: none of it tells of a prompt or of an answer."""


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
    SHARE_VARIABLE,
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
