"""The settings of an operator: how long keys live, who shares them, and whether bodies are sealed to them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self, TypeVar

from server_keys._checks import Place, Replay, Required, StoreAway, checked_replay
from server_keys._sealing.protocol import DEFAULT_MAX_BUFFERED_BYTES
from server_keys._sharing.share import checked_share
from server_keys.errors import SettingsError
from server_keys.vllm.option_texts import (
    NOBODY,
    identity_file_of,
    max_buffered_bytes_of,
    open_paths_of,
    overlap_of,
    path_of,
    place_of,
    refresh_time_of,
    replay_of,
    share_of,
    store_away_of,
    switch_of,
)
from server_keys.vllm.options import (
    DEFAULT_OPEN_PATHS,
    DEFAULT_REFRESH_TIME_S,
    GROUP_SECRET_FILE,
    IDENTITY,
    MAX_BUFFERED_BYTES,
    NO_PROTECT,
    OPEN_PATHS,
    OVERLAP,
    PLACE,
    REFRESH_TIME,
    REPLAY,
    REQUIRE_SEALED,
    REQUIRE_V1,
    SHARE,
    STORE_AWAY,
    Option,
)

_SIBLINGS: str | None = "auto"

_Value = TypeVar("_Value")


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

        refresh_time_s = read(REFRESH_TIME, refresh_time_of, DEFAULT_REFRESH_TIME_S)
        overlap_s = read(OVERLAP, lambda name, text: overlap_of(name, text, refresh_time_s), refresh_time_s)
        protect = read(NO_PROTECT, switch_of, True)
        require_sealed = read(REQUIRE_SEALED, switch_of, False)
        require_v1 = read(REQUIRE_V1, switch_of, False)
        for required, option in ((require_sealed, REQUIRE_SEALED), (require_v1, REQUIRE_V1)):
            if required and not protect:
                raise SettingsError(
                    f"{option.name} (or {option.variable}=1) refuses all bodies that are not sealed, and "
                    f"{NO_PROTECT.name} (or {NO_PROTECT.variable}=0) opens none that are: leave out one of them"
                )
        place: Place = read(PLACE, place_of, "exact")
        replay: Replay = read(REPLAY, replay_of, "refuse")
        store_away: StoreAway | None = read(STORE_AWAY, store_away_of, None)
        if replay != "refuse-everywhere" and STORE_AWAY.name not in (options or {}):
            store_away = None  # the environment's is for others
        try:
            checked_replay(replay, store_away)
        except ValueError as error:
            raise SettingsError(f"{REPLAY.name} and {STORE_AWAY.name}: {error}") from None
        open_paths = read(OPEN_PATHS, open_paths_of, DEFAULT_OPEN_PATHS)
        max_buffered_bytes = read(MAX_BUFFERED_BYTES, max_buffered_bytes_of, DEFAULT_MAX_BUFFERED_BYTES)
        share: str | None = read(SHARE, share_of, _SIBLINGS)
        file: str | None = read(GROUP_SECRET_FILE, path_of, None)
        if not _takes_secret(share, refresh_time_s, overlap_s, file, environment):
            if GROUP_SECRET_FILE.name in (options or {}):
                raise SettingsError(
                    f"{GROUP_SECRET_FILE.name} is for keys that are shared by {SHARE.name} valkey://: leave it out"
                )
            file = None
        identity: str | None = read(IDENTITY, identity_file_of, None)
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
            SHARE.variable: NOBODY if self.share is None else self.share,
        }
        if self.identity is not None:
            variables[IDENTITY.variable] = self.identity
        if self.store_away is not None:
            variables[STORE_AWAY.variable] = self.store_away
        if self.group_secret_file is not None:
            variables[GROUP_SECRET_FILE.variable] = self.group_secret_file
        return variables


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
