"""The settings of the vLLM entrypoint and plugin, read without a vLLM."""

import argparse

import pytest

from server_keys.errors import SettingsError
from server_keys.vllm.command_line import add_options, settings_at_a_glance, take_settings
from server_keys.vllm.settings import Settings

REFRESH_TIME = "SERVER_KEYS_REFRESH_TIME_S"
OVERLAP = "SERVER_KEYS_OVERLAP_S"
SHARE = "SERVER_KEYS_SHARE"
SECRET_FILE = "SERVER_KEYS_GROUP_SECRET_FILE"
SECRET = "SERVER_KEYS_GROUP_SECRET"
PASSWORD = "hunter2"
VALKEY = f"valkeys://member:{PASSWORD}@keys.example:6380/0"


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
@pytest.mark.parametrize("name", ["SERVER_KEYS_PROTECT", "SERVER_KEYS_REQUIRE_SEALED", "SERVER_KEYS_REQUIRE_V1"])
def test_a_switch_that_is_neither_on_nor_off(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} must be 1 \(on\) or 0 \(off\), not '{value}'$"):
        Settings.read({name: value}, {"--no-protect": "0", "--require-sealed": "1", "--require-v1": "1"})


def test_version_1_of_the_wire_can_be_required() -> None:
    assert settings_at_a_glance([], {}).required is False
    assert settings_at_a_glance(["--require-sealed"], {}).required is True
    for settings in (
        settings_at_a_glance(["--require-v1"], {}),
        settings_at_a_glance(["--require_v1", "--require-sealed"], {}),
        settings_at_a_glance([], {"SERVER_KEYS_REQUIRE_V1": "1", "SERVER_KEYS_REQUIRE_SEALED": "0"}),
    ):
        assert settings.required == "v1"
        assert Settings.read(settings.as_environment()) == settings


def test_it_cannot_be_required_where_nothing_is_opened(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        settings_at_a_glance(["--require-v1", "--no-protect"], {})
    assert "--require-v1 (or SERVER_KEYS_REQUIRE_V1=1) refuses all bodies" in capsys.readouterr().err


def test_how_places_are_compared() -> None:
    assert settings_at_a_glance([], {}).place == "exact"
    assert settings_at_a_glance([], {"SERVER_KEYS_PLACE": "off"}).place == "off"
    settings = settings_at_a_glance(["--sealed-place", "suffix"], {"SERVER_KEYS_PLACE": "off"})
    assert settings.place == "suffix"
    assert Settings.read(settings.as_environment()) == settings


@pytest.mark.parametrize("value", ["", "Exact", "on", "exact "])
def test_a_way_to_compare_places_that_there_is_not(value: str) -> None:
    for name, environment, options in (
        ("--sealed-place", {}, {"--sealed-place": value}),
        ("SERVER_KEYS_PLACE", {"SERVER_KEYS_PLACE": value}, {"--sealed-place": "exact"}),
    ):
        with pytest.raises(SettingsError, match=f"^{name} must be exact, suffix or off, not {value!r}$"):
            Settings.read(environment, options)


def test_what_unfinished_requests_may_hold_together() -> None:
    assert settings_at_a_glance([], {}).max_buffered_bytes == 256 * 1024 * 1024
    environment = {"SERVER_KEYS_MAX_BUFFERED_BYTES": "100000000"}
    assert settings_at_a_glance([], environment).max_buffered_bytes == 100_000_000
    settings = settings_at_a_glance(["--sealed-max-buffered-bytes", "200000000"], environment)
    assert settings.max_buffered_bytes == 200_000_000
    assert Settings.read(settings.as_environment()) == settings


@pytest.mark.parametrize("value", ["", "1G", "1e9", "-1", "67108863"])
def test_a_bound_of_memory_that_cannot_be(value: str) -> None:
    for name, environment, options in (
        ("--sealed-max-buffered-bytes", {}, {"--sealed-max-buffered-bytes": value}),
        ("SERVER_KEYS_MAX_BUFFERED_BYTES", {"SERVER_KEYS_MAX_BUFFERED_BYTES": value}, {}),
    ):
        reason = f"^{name} must be a whole number of bytes, 67108864 or more, not {value!r}$"
        with pytest.raises(SettingsError, match=reason):
            Settings.read(environment, options)


def test_probes_and_scrapes_are_open_unless_something_else_is_asked_for() -> None:
    assert settings_at_a_glance([], {}).open_paths == ("/health", "/health/keys", "/ping", "/metrics")
    assert settings_at_a_glance(["--open-paths", ""], {}).open_paths == ()
    assert settings_at_a_glance([], {"SERVER_KEYS_OPEN_PATHS": "/a, /b"}).open_paths == ("/a", "/b")
    settings = settings_at_a_glance(["--open-paths=/c"], {"SERVER_KEYS_OPEN_PATHS": "/a"})
    assert settings.open_paths == ("/c",)
    for each in (settings, settings_at_a_glance(["--open-paths", ""], {})):
        assert Settings.read(each.as_environment()) == each


@pytest.mark.parametrize("value", ["health", "/a,,/b", "/a,b", "/a?b", ","])
def test_an_open_path_that_is_none(value: str) -> None:
    for name, environment, options in (
        ("--open-paths", {}, {"--open-paths": value}),
        ("SERVER_KEYS_OPEN_PATHS", {"SERVER_KEYS_OPEN_PATHS": value}, {"--open-paths": "/a"}),
    ):
        with pytest.raises(SettingsError, match=f"^{name}: open_paths must contain paths"):
            Settings.read(environment, options)


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


def test_the_processes_of_one_server_share_keys_unless_something_else_is_asked_for() -> None:
    assert settings_at_a_glance(["model"], {}).share == "auto"
    assert settings_at_a_glance(["--key-share", "none"], {SHARE: "auto"}).share is None
    assert settings_at_a_glance(["--key_share=auto"], {SHARE: "none"}).share == "auto"
    assert settings_at_a_glance([], {SHARE: "file:///run/keys"}).share == "file:///run/keys"
    # In a YAML file, `null` becomes this text.
    assert settings_at_a_glance([], {SHARE: "None"}).share is None


@pytest.mark.parametrize(
    ("arguments", "environment", "file"),
    [
        (["--group-secret-file", "/run/secret"], {}, "/run/secret"),
        (["--group-secret-file=/run/secret"], {SECRET_FILE: "/etc/other", SECRET: "00" * 32}, "/run/secret"),
        ([], {SECRET_FILE: "/run/secret"}, "/run/secret"),
        ([], {SECRET: "00" * 32}, None),
        ([], {SECRET_FILE: "", SECRET: "00" * 32}, None),
    ],
)
def test_the_secret_of_a_group_is_in_a_file_or_in_the_environment(
    arguments: list[str], environment: dict[str, str], file: str | None
) -> None:
    settings = settings_at_a_glance(["model", "--key-share", VALKEY, *arguments], environment)
    assert (settings.share, settings.group_secret_file) == (VALKEY, file)
    children = {**environment, **settings.as_environment()}
    assert Settings.read(children) == settings
    # The secret itself stays where it was.
    assert "00" * 32 not in str(settings.as_environment())


@pytest.mark.parametrize("share", ["auto", "none", "file:///run/keys"])
def test_the_environment_carries_what_is_shared(share: str) -> None:
    # A file that is named for all servers of a host, also those that need none.
    environment = {SHARE: share, SECRET_FILE: "/run/secret"}
    settings = Settings.read(environment)
    assert settings.group_secret_file is None
    assert Settings.read({**environment, **settings.as_environment()}) == settings


def refused(arguments: list[str], environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return why a start was refused, without the usage."""
    with pytest.raises(SystemExit) as exit_info:
        settings_at_a_glance(["model", *arguments], environment)
    assert exit_info.value.code == 2
    return capsys.readouterr().err.partition("error: ")[2].rstrip()


@pytest.mark.parametrize(
    "value",
    [
        *("", "yes", "all", "file://run/keys", "file:///run/../keys", "http://keys.example", "valkey://"),
        *(f"redis+sentinel://:{PASSWORD}@a/b", f"valkey://:{PASSWORD}@keys.example:port", f"valky://:{PASSWORD}@a"),
    ],
)
def test_what_keys_cannot_be_shared_by(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, environment, name in (
        (["--key-share", value], {}, "--key-share"),
        ([f"--key-share={value}"], {SHARE: "none"}, "--key-share"),
        ([], {SHARE: value}, SHARE),
        # Also where an option overrides it: the next start may lack the option.
        (["--key-share", "none"], {SHARE: value}, SHARE),
    ):
        reason = refused(arguments, {**environment, SECRET: "00" * 32}, capsys)
        assert reason.startswith(f"{name}: share ")
        assert PASSWORD not in reason


def test_what_is_shared_must_be_able_to_be_shared(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, environment, reason in (
        (["--key-share", VALKEY], {}, "needs the group's secret"),
        ([], {SHARE: VALKEY, SECRET_FILE: ""}, "needs the group's secret"),
        (["--key-refresh-time-s", "0.4", "--key-share", "file:///run/keys"], {}, "of at least 0.5 s"),
        (["--key-overlap-s", "0"], {SHARE: VALKEY, SECRET_FILE: "/run/secret"}, "of at least 0.5 s"),
    ):
        said = refused(arguments, environment, capsys)
        assert said.startswith(f"--key-share (or {SHARE}): share=")
        assert reason in said
        assert PASSWORD not in said


def test_what_does_not_count_need_not_be_able_to_be_shared() -> None:
    arguments = ["--key-share", "none", "--key-refresh-time-s", "0.1"]
    assert settings_at_a_glance(arguments, {SHARE: VALKEY}).share is None
    # The processes of one server do without, where keys change too often.
    assert settings_at_a_glance(["--key-refresh-time-s", "0.1"], {}).share == "auto"


@pytest.mark.parametrize("share", ["auto", "none", "file:///run/keys"])
def test_a_secret_that_nobody_needs(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    reason = refused(["--key-share", share, "--group-secret-file", "/run/secret"], {}, capsys)
    assert reason == "--group-secret-file is for keys that are shared by --key-share valkey://: leave it out"


def test_an_empty_path_of_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    reason = refused(["--key-share", VALKEY, "--group-secret-file="], {}, capsys)
    assert reason == "--group-secret-file must be a path, not ''"


@pytest.mark.parametrize(("option", "value"), [("--key-share", "what to share by"), ("--group-secret-file", "a path")])
def test_a_sharing_option_at_the_end_of_the_command_line(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused([option], {}, capsys).startswith(f"{option} must be followed by {value}, not by the end")


def test_settings_show_no_password() -> None:
    settings = Settings.read({SHARE: VALKEY, SECRET: "00" * 32})
    assert settings.share == VALKEY
    assert PASSWORD not in repr(settings)
    assert settings != Settings.read({SHARE: VALKEY.replace(PASSWORD, "other"), SECRET: "00" * 32})


def test_vllm_gets_no_setting_that_it_would_log() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port")
    add_options(parser)
    # Abbreviated, as argparse allows it.
    args = parser.parse_args(["--port=80", "--key-sh", VALKEY, "--group", "/run/secret", "--key-refresh-time-s=9"])
    settings = take_settings(args, {})
    assert vars(args) == {"port": "80"}
    assert (settings.share, settings.group_secret_file, settings.refresh_time_s) == (VALKEY, "/run/secret", 9)


IDENTITY = "SERVER_KEYS_IDENTITY"


def test_an_identity_is_the_path_of_a_file_that_child_processes_find_too() -> None:
    assert settings_at_a_glance([], {}).identity is None
    assert settings_at_a_glance([], {IDENTITY: ""}).identity is None
    for settings in (
        settings_at_a_glance(["--key-identity", "/run/server.key"], {IDENTITY: "/etc/other.key"}),
        settings_at_a_glance([], {IDENTITY: "/run/server.key"}),
    ):
        assert settings.identity == "/run/server.key"
        assert Settings.read(settings.as_environment()) == settings
    relative = settings_at_a_glance(["--key-identity=server.key"], {}).identity
    assert relative is not None
    assert relative.startswith("/")


@pytest.mark.parametrize(
    ("arguments", "environment", "why"),
    [
        (["--key-identity", "ed25519:x"], {}, "--key-identity: identity is the public half"),
        (["--key-identity="], {}, "--key-identity: identity is an empty path"),
        ([], {IDENTITY: "ed25519:x"}, f"{IDENTITY}: identity is the public half"),
        (["--key-identity", "x", "--no-protect"], {}, "signs the keys that are published, and --no-protect"),
        (["--key-identity"], {}, "--key-identity must be followed by a path"),
    ],
)
def test_an_identity_that_makes_no_sense(
    arguments: list[str], environment: dict[str, str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert why in refused(arguments, environment, capsys)


def test_replays_are_refused_unless_they_are_allowed() -> None:
    assert settings_at_a_glance([], {}).replay == "refuse"
    allowed = settings_at_a_glance(["--sealed-replay", "allow"], {"SERVER_KEYS_REPLAY": "refuse"})
    assert (allowed.replay, allowed.store_away) == ("allow", None)
    environment = {"SERVER_KEYS_REPLAY": "refuse-everywhere", "SERVER_KEYS_STORE_AWAY": "refuse"}
    everywhere = settings_at_a_glance(["--sealed-store-away=allow"], environment)
    assert (everywhere.replay, everywhere.store_away) == ("refuse-everywhere", "allow")
    for settings in (allowed, everywhere):
        assert Settings.read(settings.as_environment()) == settings


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"--sealed-replay": "off"}, "--sealed-replay must be refuse, refuse-everywhere or allow, not 'off'"),
        ({"--sealed-replay": "refuse-everywhere"}, "needs store_away="),
        ({"--sealed-store-away": "allow"}, "leave it out"),
        ({"--sealed-store-away": "serve"}, "--sealed-store-away must be refuse or allow, not 'serve'"),
    ],
)
def test_a_rule_for_replays_that_makes_no_sense_is_refused(options: dict[str, str], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        Settings.read({}, options)


def test_a_rule_in_the_environment_may_be_for_others() -> None:
    settings = Settings.read({"SERVER_KEYS_STORE_AWAY": "refuse"}, {"--sealed-replay": "allow"})
    assert (settings.replay, settings.store_away) == ("allow", None)
