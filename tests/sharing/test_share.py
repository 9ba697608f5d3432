"""What `share=` may be, and what of it anybody gets to see."""

import dataclasses
import traceback
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from server_keys import protect
from server_keys._sharing.share import Share, ShareKind, checked_share
from server_keys._sharing.valkey_url import without_credentials
from tests.helpers.scripts import run_script

SECRET = "5ec7e7" * 12
IN_FILE = {"SERVER_KEYS_GROUP_SECRET_FILE": "/run/secrets/group"}
IN_TEXT = {"SERVER_KEYS_GROUP_SECRET": SECRET}


def check(share: object, *, period_s: float = 300, overlap_s: float = 300, **more: Any) -> Share:
    return checked_share(share, period_s=period_s, overlap_s=overlap_s, **{"environment": {}, **more})


def refusal(share: object, **more: Any) -> str:
    with pytest.raises(ValueError, match=r"^share|^group_secret_file") as caught:
        check(share, **{"environment": IN_FILE, **more})
    return str(caught.value)


def test_auto_and_none_need_nothing() -> None:
    assert check("auto") == Share(ShareKind.SIBLINGS, "auto")
    assert check(None) == Share(ShareKind.NOWHERE, "None")


@pytest.mark.parametrize("share", ["auto", None, "file:///run/ring"])
def test_a_secret_in_the_environment_is_for_valkey_alone(share: str | None) -> None:
    assert check(share, environment=IN_FILE | IN_TEXT) == check(share)


@pytest.mark.parametrize(
    ("share", "variable", "warns"),
    [
        ("auto", f"valkey://ring:{SECRET}@store", True),
        ("auto", "file:///run/ring", True),
        ("auto", "none", True),
        ("auto", "auto", False),
        ("auto", "", False),
        ("auto", None, False),
        (None, "file:///run/ring", False),
    ],
)
def test_an_app_that_does_not_pass_the_variable_on_is_warned_of(
    share: str | None,
    variable: str | None,
    warns: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if variable is None:
        monkeypatch.delenv("SERVER_KEYS_SHARE", raising=False)
    else:
        monkeypatch.setenv("SERVER_KEYS_SHARE", variable)
    with TestClient(protect(FastAPI(), 300, share=share)):
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert ["SERVER_KEYS_SHARE is set" in warning for warning in warnings] == [True] * warns
    assert SECRET not in str(warnings)


@pytest.mark.parametrize(
    ("share", "folder"),
    [
        ("file:///run/ring", "/run/ring"),
        ("FILE:///run//ring/", "/run/ring"),
        ("file:///a%20b%3Fc%23d/ä", "/a b?c#d/ä"),
        ("file:///a..b/.c", "/a..b/.c"),
    ],
)
def test_a_file_url_names_a_folder(share: str, folder: str) -> None:
    checked = check(share)
    assert (checked.kind, checked.folder, checked.shown) == (ShareKind.FOLDER, folder, f"file://{folder}")


@pytest.mark.parametrize(
    ("share", "reason"),
    [
        ("file://host/ring", "on this host"),
        ("file://localhost/ring", "on this host"),
        ("file://user:pw@host/ring", "on this host"),
        ("file:/run/ring", "three slashes"),
        ("file:run/ring", "three slashes"),
        ("file://", "three slashes"),
        ("file:///", "must name a folder"),
        ("file:////", "must name a folder"),
        ("file:///run/../etc", "must name a folder"),
        ("file:///run/%2e%2e/etc", "must name a folder"),
        ("file:///run/./etc", "must name a folder"),
        ("file:///run/ring%00", "must name a folder"),
        ("file:///run/ring?mode=0700", "nothing behind"),
        ("file:///run/ring?", "nothing behind"),
        ("file:///run/ring#1", "nothing behind"),
    ],
)
def test_a_file_url_that_names_no_folder_of_this_host_is_refused(share: str, reason: str) -> None:
    message = refusal(share)
    assert reason in message
    assert message.startswith("share 'file:")
    assert "pw" not in message


@pytest.mark.parametrize(
    "share", ["", "AUTO", "none", "/run/ring", "valkey:host", "valkey", "memcached://host", "http://host", "1"]
)
def test_another_text_is_refused_with_the_forms_that_there_are(share: str) -> None:
    message = refusal(share)
    for form in ("'auto'", "None", "'file:///a/folder'", "'valkey://host'", "'valkeys://host'"):
        assert form in message
    assert share.partition(":")[0] in message


@pytest.mark.parametrize("share", [True, 1, b"valkey://:pw@host", ["auto"], Path("/run/ring")])
def test_another_type_is_refused_without_its_value(share: object) -> None:
    with pytest.raises(TypeError, match=r"^share must be a str or None, not [A-Za-z]+$"):
        check(share)


@pytest.mark.parametrize(
    ("share", "parts", "shown"),
    [
        ("valkey://host", {"host": "host", "port": 6379, "database": 0, "tls": False}, "valkey://host:6379/0"),
        ("redis://host:7/3", {"port": 7, "database": 3, "tls": False}, "redis://host:7/3"),
        ("valkeys://host", {"tls": True, "ca_file": None}, "valkeys://host:6379/0"),
        ("rediss://10.0.0.1:1/", {"host": "10.0.0.1", "tls": True}, "rediss://10.0.0.1:1/0"),
        ("VALKEYS://Host", {"host": "host", "tls": True}, "valkeys://host:6379/0"),
        ("valkey://[2001:db8::1]:7", {"host": "2001:db8::1", "port": 7}, "valkey://[2001:db8::1]:7/0"),
        ("valkey://:p%40%2f%3A%23ss@host", {"username": None, "password": "p@/:#ss"}, "valkey://host:6379/0"),
        ("valkey://ann%40x:p@w@host", {"username": "ann@x", "password": "p@w"}, "valkey://host:6379/0"),
        ("valkey://ann@host", {"username": "ann", "password": None}, "valkey://host:6379/0"),
        ("valkey://host?group=blue-1", {"group": "blue-1"}, "valkey://host:6379/0?group=blue-1"),
        ("valkeys://host?ssl_ca_certs=/ca%20file.pem", {"ca_file": "/ca file.pem"}, "valkeys://host:6379/0"),
        ("unix:///run/v.sock", {"host": "", "path": "/run/v.sock", "database": 0}, "unix:///run/v.sock"),
        (
            "valkey+unix://ann:pw@/run/v%40.sock?db=2&group=g",
            {"path": "/run/v@.sock", "database": 2, "username": "ann", "password": "pw", "group": "g"},
            "valkey+unix:///run/v@.sock?group=g (database 2)",
        ),
    ],
)
def test_a_url_of_valkey_says_where_and_how(share: str, parts: dict[str, object], shown: str) -> None:
    checked = check(share, environment=IN_FILE)
    assert checked.kind is ShareKind.VALKEY
    assert checked.url is not None
    assert {name: getattr(checked.url, name) for name in parts} == parts
    assert checked.shown == checked.url.shown == shown


@pytest.mark.parametrize(
    ("share", "reason"),
    [
        ("valkey://", "of the form valkey://"),
        ("valkey:///0", "of the form"),
        ("valkey://:0", "of the form"),
        ("valkey://host:0", "of the form"),
        ("valkey://host:65536", "of the form"),
        ("valkey://host:port", "of the form"),
        ("valkey://one,two", "of the form"),
        ("valkey://ho st", "of the form"),
        ("valkey://host\n", "of the form"),
        ("valkey://[::1", "of the form"),
        ("valkey://host#1", "of the form"),
        ("unix://host/run/v.sock", "of the form unix://"),
        ("unix:///", "of the form"),
        ("unix:///run/%0Av.sock", "of the form"),
        ("valkey://host/one", "number of a database"),
        ("valkey://host/-1", "number of a database"),
        ("valkey://host/0/1", "number of a database"),
        ("unix:///v?db=one", "number of a database"),
        ("valkey://host?cluster", "name=value"),
        ("valkey://host?group=a&group=b", "twice"),
        ("valkey://host?group=", "without a value"),
        ("valkey://host?group=a/b", "letters, digits"),
        ("valkey://host?group=" + "a" * 65, "letters, digits"),
        ("valkey://host?db=1", "not 'db'"),
        ("valkey://host?password=pw", "not 'password'"),
        ("valkey://host?socket_timeout=9", "not 'socket_timeout'"),
        ("valkey://host?ssl_ca_certs=/ca.pem", "not 'ssl_ca_certs'"),
        ("valkeys://host?ssl_cert_reqs=none", "always checks the certificate"),
        ("valkeys://host?ssl_check_hostname=false", "always checks the certificate and the host name"),
        ("valkeys://host?ssl_check_hostname=true", "options group and ssl_ca_certs"),
    ],
)
def test_a_url_of_valkey_that_cannot_be_followed_is_refused(share: str, reason: str) -> None:
    message = refusal(share)
    assert reason in message
    assert "pw" not in message


@pytest.mark.parametrize(
    "share", ["redis+sentinel://:pw@host/primary", "valkey+sentinel://host", "sentinel://a,b", "RedisS+Sentinel://x"]
)
def test_sentinel_is_refused_with_what_to_use_instead(share: str) -> None:
    message = refusal(share)
    assert "Sentinel, which is not supported" in message
    assert "an address that always leads to the primary" in message
    assert "pw" not in message


PASSWORDS = [
    "hunter2",
    "hun/ter2",
    "hun?ter2",
    "hun#ter2",
    "hun@ter2",
    "hun:ter2",
    "hunter2@",
    "hun ter2",
    "5ec7e7" * 8,
]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize(
    "form",
    [
        *("valkey://:{}@host:1/0", "valkeys://user:{}@host", "valkey://{}:{}@host/x", "unix://u:{}@/run/v"),
        *("valkey://{}@host:70000", "valkey://:{}@", "valkey://u:{}@[::1", "sentinel://u:{}@host", "http://u:{}@h/"),
        *(
            "valkey:/u:{}@host",
            "u:{}@host",
            "valkey://u:{}@host?x=1",
            "file://u:{}@host/ring",
            "valkey://host?password={}",
        ),
    ],
)
def test_a_password_is_seen_nowhere(form: str, password: str) -> None:
    try:
        seen = repr(check(form.format(*[password] * form.count("{}")), environment=IN_FILE))
    except ValueError as error:
        seen = "".join(traceback.format_exception_only(error)) + repr(error.__context__) + repr(error.__cause__)
    for part in ("hun", "ter2", "5ec7e7"):
        assert part not in seen


@pytest.mark.parametrize(
    "share", ["valkey://host:hunter2", "valkey://:hunter2", "host:hunter2", "valkey://u@host:hunter2"]
)
def test_a_password_in_the_place_of_the_port_is_not_shown(share: str) -> None:
    assert "hunter2" not in refusal(share)


def test_a_secret_in_the_place_of_the_share_is_not_shown() -> None:
    assert SECRET not in refusal(SECRET)


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_what_is_before_an_at_sign_changes_nothing_that_is_shown(before: str, after: str) -> None:
    shown = without_credentials(f"valkey://{before}@{after}")
    assert shown in {without_credentials(f"valkey://hunter2@{after}"), "valkey://***"}


def test_a_group_over_hosts_needs_a_secret() -> None:
    for environment in ({}, {"SERVER_KEYS_GROUP_SECRET": "", "SERVER_KEYS_GROUP_SECRET_FILE": ""}):
        message = refusal("valkey://ann:pw@host", environment=environment)
        assert "'valkey://host:6379/0' needs the group's secret" in message
        assert "openssl rand -hex 32" in message
        assert "group_secret_file=" in message
        assert "SERVER_KEYS_GROUP_SECRET_FILE" in message
        assert "\n" not in message


def test_the_secret_comes_from_the_argument_else_the_file_else_the_text() -> None:
    def secret(**more: Any) -> tuple[str | None, str | None]:
        place = check("valkey://host", **more).secret
        assert place is not None
        return place.file, place.text

    assert secret(environment=IN_TEXT) == (None, SECRET)
    assert secret(environment=IN_TEXT | IN_FILE) == ("/run/secrets/group", None)
    assert secret(environment=IN_TEXT | IN_FILE, group_secret_file="/mine") == ("/mine", None)
    assert secret(group_secret_file=PurePosixPath("/mine")) == ("/mine", None)


def test_the_environment_of_the_process_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_KEYS_GROUP_SECRET", SECRET)
    monkeypatch.delenv("SERVER_KEYS_GROUP_SECRET_FILE", raising=False)
    place = checked_share("valkey://host", period_s=300, overlap_s=300).secret
    assert place is not None
    assert place.text == SECRET


@pytest.mark.parametrize("share", ["auto", None, "file:///run/ring"])
def test_a_secret_for_a_share_that_needs_none_is_refused(share: str | None) -> None:
    assert refusal(share, group_secret_file="/mine") == (
        f"group_secret_file is for a share of valkey://, and share is {share!r}: leave it out"
    )


def test_a_secret_file_must_be_a_path() -> None:
    for wrong in (1, b"/mine", True):
        with pytest.raises(TypeError, match=r"^group_secret_file must be a path, not "):
            check("valkey://host", group_secret_file=wrong)
    for path in ("", "/mi\0ne"):
        assert "group_secret_file must be a path" in refusal("valkey://host", group_secret_file=path)


@pytest.mark.parametrize(
    ("period_s", "overlap_s", "is_too_short"), [(0.5, 0.5, False), (0.49, 0.49, True), (9, 0, True)]
)
def test_keys_that_change_too_often_are_not_shared(period_s: float, overlap_s: float, is_too_short: bool) -> None:
    times = {"period_s": period_s, "overlap_s": overlap_s}
    assert check("auto", **times).too_short is is_too_short
    assert not check(None, **times).too_short
    for share in ("file:///run/ring", "valkey://u:pw@host"):
        if not is_too_short:
            assert not check(share, environment=IN_FILE, **times).too_short
            continue
        message = refusal(share, **times)
        assert "at least 0.5 s" in message
        assert f"{min(period_s, overlap_s):g} s" in message
        assert "pw" not in message


def test_two_shares_are_equal_if_they_ask_for_the_same() -> None:
    def share(text: str) -> Share:
        return check(text, environment=IN_FILE)

    same = [share(text) for text in ("valkey://u:pw@host:6379/0", "redis://u:p%77@HOST", "valkey://u:pw@host/")]
    assert len(set(same)) == 1
    others = ["valkey://u:pw2@host", "valkey://v:pw@host", "valkeys://u:pw@host", "valkey://u:pw@host/1"]
    others += ["valkey://u:pw@host:1", "valkey://u:pw@host?group=g", "file:///host", "unix:///host", "auto"]
    assert len({share(text) for text in others} | set(same)) == 1 + len(others)
    assert share("file:///a/b") == share("file:///a//b/")
    assert share("valkey://host") != check("valkey://host", environment=IN_TEXT)
    assert check("valkey://host", environment=IN_TEXT) != check(
        "valkey://host", environment={"SERVER_KEYS_GROUP_SECRET": "00" * 32}
    )


def test_no_repr_shows_a_secret() -> None:
    checked = check("valkey://ann:hunter2@host", environment=IN_TEXT)
    for shown in (repr(checked), str(checked), f"{checked}", repr(dataclasses.replace(checked, folder="/x"))):
        assert "ann" not in shown
        assert "hunter2" not in shown
        assert SECRET not in shown


def test_the_library_is_imported_only_for_a_store() -> None:
    run_script("""
        import sys
        from server_keys._sharing.share import checked_share

        share = checked_share("valkey://host", period_s=9, overlap_s=9, group_secret_file="/x")
        assert "valkey" not in sys.modules
        from server_keys._sharing.valkey import ValkeyStore

        assert "valkey" in sys.modules
    """)


def test_without_the_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    run_script("""
        import sys

        sys.modules["valkey"] = None
        try:
            import server_keys._sharing.valkey
        except ImportError as error:
            assert str(error).endswith("pip install 'valkey>=6.2'"), error
            assert "\\n" not in str(error)
        else:
            raise AssertionError("there was no error")
    """)
