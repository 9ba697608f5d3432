"""The secret of a group, from a file or a text: what is taken, and what is refused with one clear error."""

import os
import socket
import stat
import traceback
from pathlib import Path

import pytest

from server_keys import errors
from server_keys._native import GroupKeys, GroupSecretError
from tests.helpers.group_boxes import GroupSecrets
from tests.helpers.scripts import run_script

FIRST, SECOND = bytes(range(32)), bytes(range(100, 140))
FIRST_ID, SECOND_ID = (GroupSecrets.of_secret(secret, b"label").group_id for secret in (FIRST, SECOND))


def written(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def ids(groups: list[GroupKeys]) -> list[bytes]:
    return [group.group_id for group in groups]


@pytest.mark.parametrize(
    "text",
    [
        FIRST.hex(),
        FIRST.hex() + "\n",
        FIRST.hex().upper(),
        f"\r\n\t {FIRST.hex()} ,\n\n",
    ],
)
def test_one_secret(tmp_path: Path, text: str) -> None:
    assert ids(GroupKeys.from_secret_text(text, b"label")) == [FIRST_ID]
    assert ids(GroupKeys.from_secret_file(written(tmp_path, text), b"label")) == [FIRST_ID]
    assert ids(GroupKeys.from_secret_file(os.fspath(tmp_path / "secret"), bytearray(b"label"))) == [FIRST_ID]


@pytest.mark.parametrize("separator", [" ", "\n", ",", ", ", "\r\n", "\t", " \n,\n "])
def test_two_secrets_in_their_order(tmp_path: Path, separator: str) -> None:
    text = f"{FIRST.hex()}{separator}{SECOND.hex()}"
    assert ids(GroupKeys.from_secret_text(text, b"label")) == [FIRST_ID, SECOND_ID]
    assert ids(GroupKeys.from_secret_file(written(tmp_path, text), b"label")) == [FIRST_ID, SECOND_ID]
    text = f"{SECOND.hex()}{separator}{FIRST.hex()}\n"
    assert ids(GroupKeys.from_secret_text(text, b"label")) == [SECOND_ID, FIRST_ID]


WRONG = {
    "is empty": ["", " \n", ",", "\n,\n"],
    "has fewer than 64 hex digits": ["ab", "ab" * 31, "a" * 63, f"{FIRST.hex()} ab", f"ab {FIRST.hex()}"],
    "has an odd number of hex digits": ["a" * 65, f"{FIRST.hex()} {'a' * 99}"],
    "has characters that are no hex digits": [
        "g" * 64,
        "0x" + "ab" * 32,
        "ab:" * 32,
        "ä" * 64,
        f"{FIRST.hex()}\0",
        f"\ufeff{FIRST.hex()}",
        f"{FIRST.hex()}\xa0{SECOND.hex()}",
        f"{FIRST.hex()};{SECOND.hex()}",
        f"secret={FIRST.hex()}",
        "Zm9v" * 20,
    ],
    "has more than 2 secrets": [f"{FIRST.hex()} {SECOND.hex()} {'c' * 64}", ",".join(c * 64 for c in "abcdef")],
    "has the same secret twice": [f"{FIRST.hex()} {FIRST.hex()}", f"{FIRST.hex()},{FIRST.hex().upper()}"],
    "has more than 4096 bytes": ["ab" * 2049, FIRST.hex() + " " * 4033, "\0" * 100_000],
}


@pytest.mark.parametrize(("why", "text"), [(why, text) for why, texts in WRONG.items() for text in texts])
def test_any_other_text_is_refused_without_being_shown(tmp_path: Path, why: str, text: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(GroupSecretError) as of_text:
        GroupKeys.from_secret_text(text, b"label")
    with pytest.raises(GroupSecretError) as of_file:
        GroupKeys.from_secret_file(path, b"label")
    assert str(of_text.value).startswith(f"the group secret {why}: ")
    assert str(of_file.value).startswith(f'the group secret file "{path}" {why}: ')
    for error in (of_text.value, of_file.value):
        shown = "".join(traceback.format_exception(error)).replace(str(path), "")
        assert not [start for start in range(len(text) - 11) if text[start : start + 12] in shown]
        assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize("text", ["\ud800" + FIRST.hex(), FIRST.hex() + "\udcff"])
def test_a_text_that_no_encoding_can_write_is_refused_by_an_error_that_does_not_hold_it(text: str) -> None:
    with pytest.raises(GroupSecretError, match="no hex digits") as refused:
        GroupKeys.from_secret_text(text, b"")
    assert (refused.value.__cause__, refused.value.__context__) == (None, None)
    assert text not in refused.value.args


def test_the_longest_text_is_taken(tmp_path: Path) -> None:
    text = "ab" * 1000 + " " + "cd" * 1047
    assert len(text) == 4095
    assert len(GroupKeys.from_secret_text(text + " ", b"")) == 2
    assert len(GroupKeys.from_secret_file(written(tmp_path, text + " "), b"")) == 2


def test_it_says_how_to_make_one(tmp_path: Path) -> None:
    missing = tmp_path / "a file"
    with pytest.raises(GroupSecretError) as refused:
        GroupKeys.from_secret_file(missing, b"")
    said, _, command = str(refused.value).partition(": ")
    assert said == f'the group secret file "{missing}" does not exist'
    assert command == f'openssl rand -hex 32 > "{missing}"; chmod 600 "{missing}"'
    assert os.system(command) == 0
    assert len(GroupKeys.from_secret_file(missing, b"")) == 1
    with pytest.raises(GroupSecretError, match=r"make one with openssl rand -hex 32$"):
        GroupKeys.from_secret_text("", b"")


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o606, 0o644, 0o666, 0o777, 0o4604, 0o444])
def test_a_file_that_every_user_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, FIRST.hex(), mode)
    why = rf"can be read or written by every user \(its mode is {mode:04o}\): chmod 600 .*defaultMode: 0440"
    with pytest.raises(GroupSecretError, match=why):
        GroupKeys.from_secret_file(path, b"label")
    path.chmod(0o600)
    assert ids(GroupKeys.from_secret_file(path, b"label")) == [FIRST_ID]


@pytest.mark.parametrize("mode", [0o620, 0o660, 0o630])
def test_a_file_that_its_group_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, FIRST.hex(), mode)
    with pytest.raises(GroupSecretError, match=rf"can be written by its group \(its mode is {mode:04o}\): chmod 600"):
        GroupKeys.from_secret_file(path, b"label")


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440, 0o750, 0o601])
def test_a_file_that_its_group_can_read_is_taken(tmp_path: Path, mode: int) -> None:
    assert ids(GroupKeys.from_secret_file(written(tmp_path, FIRST.hex(), mode), b"label")) == [FIRST_ID]


def test_links_are_followed_as_kubernetes_mounts_them_and_the_mode_of_the_file_counts(tmp_path: Path) -> None:
    folder = tmp_path / "..2026_11_27"
    folder.mkdir()
    path = written(folder, FIRST.hex(), 0o440)
    (tmp_path / "..data").symlink_to(folder.name)
    link = tmp_path / "secret"
    link.symlink_to("..data/secret")
    assert stat.S_IMODE(link.lstat().st_mode) == 0o777
    assert ids(GroupKeys.from_secret_file(link, b"label")) == [FIRST_ID]
    path.chmod(0o444)
    with pytest.raises(GroupSecretError, match="every user"):
        GroupKeys.from_secret_file(link, b"label")
    path.unlink()
    with pytest.raises(GroupSecretError, match="does not exist"):
        GroupKeys.from_secret_file(link, b"label")
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(GroupSecretError, match=r"cannot be read .*name a file that this user can read"):
        GroupKeys.from_secret_file(link, b"label")


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(tmp_path / "socket"))
        for path in (tmp_path, tmp_path / "pipe", tmp_path / "socket", Path("/dev/zero"), Path("/dev/tty")):
            with pytest.raises(GroupSecretError, match=r"is no regular file: name a file that holds the secret$"):
                GroupKeys.from_secret_file(path, b"label")


@pytest.mark.parametrize(("path", "why"), [("", "does not exist"), ("a\0b", r"cannot be read \(")])
def test_a_path_that_cannot_be_is_refused(path: str, why: str) -> None:
    with pytest.raises(GroupSecretError, match=why):
        GroupKeys.from_secret_file(path, b"label")


def test_a_file_that_this_user_cannot_read_is_refused_and_the_error_says_why(tmp_path: Path) -> None:
    path = written(tmp_path, FIRST.hex(), 0)
    run_script(
        """
        import os, sys
        from server_keys._native import GroupKeys, GroupSecretError

        if os.geteuid() == 0:
            os.setuid(65534)  # root may read everything
        try:
            GroupKeys.from_secret_file(sys.argv[1], b"")
        except GroupSecretError as error:
            assert "cannot be read (permission denied): name a file that this user can read" in str(error), error
        else:
            raise AssertionError("read")
        """,
        os.fspath(path),
    )


def test_the_files_path_is_shown_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(GroupSecretError) as refused:
        GroupKeys.from_secret_file(tmp_path / "two\nlines\x1b[31m", b"label")
    assert str(refused.value).isprintable()


def test_the_error_is_public_and_a_value_error() -> None:
    assert errors.GroupSecretError is GroupSecretError
    assert issubclass(GroupSecretError, ValueError)
    for wrong in (b"ab" * 32, None, 5):
        with pytest.raises(TypeError):
            GroupKeys.from_secret_text(wrong, b"")  # type: ignore[arg-type]
    for wrong in (None, 5):
        with pytest.raises(TypeError):
            GroupKeys.from_secret_file(wrong, b"")  # type: ignore[arg-type]
