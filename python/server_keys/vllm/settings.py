"""What an operator may set, read from texts: how long keys live, and whether bodies are sealed to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from server_keys._checks import overlap_seconds, positive_seconds
from server_keys.errors import SettingsError

REFRESH_TIME_OPTION = "--key-refresh-time-s"
OVERLAP_OPTION = "--key-overlap-s"
REFRESH_TIME_VARIABLE = "SERVER_KEYS_REFRESH_TIME_S"
OVERLAP_VARIABLE = "SERVER_KEYS_OVERLAP_S"
NO_PROTECT_OPTION = "--no-protect"
PROTECT_VARIABLE = "SERVER_KEYS_PROTECT"
REQUIRE_SEALED_OPTION = "--require-sealed"
REQUIRE_SEALED_VARIABLE = "SERVER_KEYS_REQUIRE_SEALED"

DEFAULT_REFRESH_TIME_S = 300.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How keys are to be refreshed and used, checked."""

    refresh_time_s: float
    overlap_s: float
    protect: bool
    """Whether sealed requests are opened and their responses sealed."""
    require_sealed: bool = False
    """Whether requests that carry a body in plaintext are refused."""

    @classmethod
    def read(
        cls,
        environment: Mapping[str, str],
        *,
        refresh_time_option: str | None = None,
        overlap_option: str | None = None,
        no_protect: bool = False,
        require_sealed: bool = False,
    ) -> Self:
        """Return what the options say, else the environment, else the defaults.

        Args:
            environment: the environment variables; a wrong value is refused also where an option overrides it.
            refresh_time_option: the text that followed `--key-refresh-time-s`, if it was given.
            overlap_option: the text that followed `--key-overlap-s`, if it was given.
            no_protect: whether `--no-protect` was given.
            require_sealed: whether `--require-sealed` was given.

        Raises:
            SettingsError: a text is not what it should be, a number is not finite or out of range, or bodies are to be
                sealed and not to be opened.
        """
        refresh_time_s = DEFAULT_REFRESH_TIME_S
        for name, text in (
            (REFRESH_TIME_VARIABLE, environment.get(REFRESH_TIME_VARIABLE)),
            (REFRESH_TIME_OPTION, refresh_time_option),
        ):
            if text is not None:
                refresh_time_s = _refresh_time(name, text)
        overlap_s = refresh_time_s
        for name, text in ((OVERLAP_VARIABLE, environment.get(OVERLAP_VARIABLE)), (OVERLAP_OPTION, overlap_option)):
            if text is not None:
                overlap_s = _overlap(name, text, refresh_time_s)
        protect = _switch(PROTECT_VARIABLE, environment.get(PROTECT_VARIABLE, "1")) and not no_protect
        required = _switch(REQUIRE_SEALED_VARIABLE, environment.get(REQUIRE_SEALED_VARIABLE, "0")) or require_sealed
        if required and not protect:
            raise SettingsError(
                f"{REQUIRE_SEALED_OPTION} (or {REQUIRE_SEALED_VARIABLE}=1) refuses all bodies that are not sealed, and "
                f"{NO_PROTECT_OPTION} (or {PROTECT_VARIABLE}=0) opens none that are: leave out one of them"
            )
        return cls(refresh_time_s, overlap_s, protect, required)

    def as_environment(self) -> dict[str, str]:
        """Return the variables that `read` makes the same settings from: how child processes get them."""
        return {
            REFRESH_TIME_VARIABLE: repr(self.refresh_time_s),
            OVERLAP_VARIABLE: repr(self.overlap_s),
            PROTECT_VARIABLE: _as_switch(self.protect),
            REQUIRE_SEALED_VARIABLE: _as_switch(self.require_sealed),
        }


def _refresh_time(name: str, text: str) -> float:
    try:
        return positive_seconds(name, float(text))
    except ValueError:
        raise SettingsError(f"{name} must be a finite number of seconds above zero, not {text!r}") from None


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


def _as_switch(on: bool) -> str:
    return "1" if on else "0"
