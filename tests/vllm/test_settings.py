"""The settings of the vLLM entrypoint and plugin, read without a vLLM."""

import pytest

from server_keys.errors import SettingsError
from server_keys.vllm.settings import Settings, settings_at_a_glance

REFRESH_TIME = "SERVER_KEYS_REFRESH_TIME_S"
OVERLAP = "SERVER_KEYS_OVERLAP_S"


def test_defaults() -> None:
    assert settings_at_a_glance(["model"], {}) == Settings(300.0, 300.0, protect=True)


def test_the_overlap_is_the_refresh_time_by_default() -> None:
    assert settings_at_a_glance(["model", "--key-refresh-time-s", "60"], {}) == Settings(60.0, 60.0, protect=True)


def test_the_environment_and_the_options_that_override_it() -> None:
    environment = {REFRESH_TIME: "60", OVERLAP: "30"}
    assert settings_at_a_glance([], environment) == Settings(60.0, 30.0, protect=True)
    assert settings_at_a_glance(["--key-overlap-s=0"], environment) == Settings(60.0, 0.0, protect=True)
    assert settings_at_a_glance(["--key_refresh_time_s", "45.5"], environment) == Settings(45.5, 30.0, protect=True)


def test_the_environment_carries_settings_exactly() -> None:
    settings = Settings.read(
        {}, {"--key-refresh-time-s": "0.1", "--key-overlap-s": "0.030000000000000002", "--no-protect": "0"}
    )
    assert Settings.read(settings.as_environment()) == settings


def test_protection_is_on_unless_it_is_switched_off() -> None:
    assert settings_at_a_glance([], {"SERVER_KEYS_PROTECT": "1"}).protect
    assert not settings_at_a_glance(["--no-protect"], {"SERVER_KEYS_PROTECT": "1"}).protect
    assert not settings_at_a_glance([], {"SERVER_KEYS_PROTECT": "0"}).protect


def test_plaintext_is_taken_unless_it_is_refused() -> None:
    assert not settings_at_a_glance([], {"SERVER_KEYS_REQUIRE_SEALED": "0"}).require_sealed
    assert settings_at_a_glance(["--require-sealed"], {"SERVER_KEYS_REQUIRE_SEALED": "0"}).require_sealed
    required = settings_at_a_glance([], {"SERVER_KEYS_REQUIRE_SEALED": "1"})
    assert required == Settings(300.0, 300.0, protect=True, require_sealed=True)
    assert Settings.read(required.as_environment()) == required


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--require-sealed", "--no-protect"], {}),
        (["--require-sealed"], {"SERVER_KEYS_PROTECT": "0"}),
        (["--no-protect"], {"SERVER_KEYS_REQUIRE_SEALED": "1"}),
        ([], {"SERVER_KEYS_PROTECT": "0", "SERVER_KEYS_REQUIRE_SEALED": "1"}),
    ],
)
def test_sealed_bodies_cannot_be_required_and_not_opened(
    arguments: list[str], environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        settings_at_a_glance(arguments, environment)
    assert exit_info.value.code == 2
    assert "--require-sealed (or SERVER_KEYS_REQUIRE_SEALED=1) refuses all bodies" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["", "no", "true", "2"])
@pytest.mark.parametrize("name", ["SERVER_KEYS_PROTECT", "SERVER_KEYS_REQUIRE_SEALED"])
def test_a_switch_that_is_neither_on_nor_off(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} must be 1 \(on\) or 0 \(off\), not '{value}'$"):
        Settings.read({name: value}, {"--no-protect": "0", "--require-sealed": "1"})


@pytest.mark.parametrize("value", ["0", "-1", "1e-9", "1e300", "nan", "inf", "1e999", "soon", "", "--port", "3 s"])
def test_a_refresh_time_that_cannot_be_meant(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, environment, name in (
        (["--key-refresh-time-s", value], {}, "--key-refresh-time-s"),
        ([f"--key-refresh-time-s={value}"], {REFRESH_TIME: "60"}, "--key-refresh-time-s"),
        ([], {REFRESH_TIME: value}, REFRESH_TIME),
        # Also where an option overrides it: the plugin and other starts would meet it.
        (["--key-refresh-time-s", "60"], {REFRESH_TIME: value}, REFRESH_TIME),
    ):
        with pytest.raises(SystemExit) as exit_info:
            settings_at_a_glance(["model", *arguments], environment)
        assert exit_info.value.code == 2
        reason = f"error: {name} must be a number of seconds from 0.01 to 31622400 (366 days), not {value!r}\n"
        assert capsys.readouterr().err.endswith(reason)


@pytest.mark.parametrize("value", ["61", "-1", "nan", "inf", "long", ""])
def test_an_overlap_that_is_not_from_zero_to_the_refresh_time(value: str) -> None:
    reason = rf"must be a number of seconds from 0 to the refresh time \(60\), not {value!r}$"
    with pytest.raises(SettingsError, match=f"^--key-overlap-s {reason}"):
        Settings.read({}, {"--key-refresh-time-s": "60", "--key-overlap-s": value})
    with pytest.raises(SettingsError, match=f"^{OVERLAP} {reason}"):
        Settings.read({OVERLAP: value}, {"--key-refresh-time-s": "60"})


@pytest.mark.parametrize("option", ["--key-refresh-time-s", "--key-overlap-s"])
def test_an_option_at_the_end_of_the_command_line(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        settings_at_a_glance(["model", option], {})
    assert f"{option} must be followed by a number of seconds" in capsys.readouterr().err
