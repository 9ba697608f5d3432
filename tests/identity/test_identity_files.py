"""The file of an identity: what is taken, what is refused with one clear line, and how a new one is made."""

import base64
import os
import shutil
import socket
import stat
import subprocess
import traceback
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from server_keys import errors
from server_keys._native import IdentityFileError, SigningKey
from tests.helpers.scripts import run_script
from tests.helpers.signed_answers import OtherSigner

KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
OTHER_PUBLIC_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
SIGNER = OtherSigner(bytes(range(1, 33)))
PEM = SIGNER.pem
AS_PEM, PKCS8, OPEN = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
NEW = "make a key with server-keys identity new, which writes a new file"


def written(folder: Path, text: bytes, mode: int = 0o600) -> Path:
    path = folder / "server.key"
    path.write_bytes(text)
    path.chmod(mode)
    return path


def pkcs8_v2(public_key: bytes) -> bytes:
    """A private key with its public key beside it (RFC 5958), as ring and Go's libraries write it."""
    der = bytes.fromhex("3051020101300506032b657004220420") + SIGNER.seed + bytes.fromhex("812100") + public_key
    return armored("PRIVATE KEY", der)


def armored(label: str, der: bytes) -> bytes:
    text = base64.encodebytes(der).decode().replace("\n", "")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


@pytest.mark.parametrize(
    "text",
    [
        PEM,
        PEM.rstrip(),
        PEM + b"\n \n",
        PEM.replace(b"\n", b"\r\n"),
        b"The identity of our service.\n" + PEM,
        PEM + b"Made by Alice, who keeps a copy.\n",
        PEM.rstrip() + b" \t\n\n",
        b"\xef\xbb\xbf" + PEM,
        pkcs8_v2(SIGNER.public_key),
    ],
)
def test_a_key_is_read(tmp_path: Path, text: bytes) -> None:
    key = SigningKey.from_file(written(tmp_path, text))
    assert key.public_key == SIGNER.public_key
    assert key.sign(b"message") == SIGNER.sign(b"message")
    assert SigningKey.from_file(os.fspath(tmp_path / "server.key")).public_key == SIGNER.public_key


OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
WRONG = {
    f"is empty: {NEW}": [b"", b" \n\n"],
    f"holds no key in PEM form: {NEW}": [
        SIGNER.seed,
        SIGNER.seed.hex().encode(),
        SIGNER.identity.encode(),
        KEY.private_bytes(Encoding.DER, PKCS8, OPEN),
        b"\xff\xfe" + PEM,
        PEM.decode().encode("utf-16"),
    ],
    f"holds a key of another kind than Ed25519: {NEW}": [
        x25519.X25519PrivateKey.generate().private_bytes(AS_PEM, PKCS8, OPEN),
        ed448.Ed448PrivateKey.generate().private_bytes(AS_PEM, PKCS8, OPEN),
        rsa.generate_private_key(65537, 2048).private_bytes(AS_PEM, PKCS8, OPEN),
        OTHER_KEY.private_bytes(AS_PEM, PKCS8, OPEN),
    ],
    "holds an encrypted key: write it unencrypted with openssl pkey": [
        KEY.private_bytes(AS_PEM, PKCS8, BestAvailableEncryption(b"password"))
    ],
    "holds a public key: name the file of the private key": [
        KEY.public_key().public_bytes(AS_PEM, PublicFormat.SubjectPublicKeyInfo)
    ],
    f"holds no private key in PKCS#8 form (BEGIN PRIVATE KEY): {NEW}": [
        KEY.private_bytes(AS_PEM, PrivateFormat.OpenSSH, OPEN),
        OTHER_KEY.private_bytes(AS_PEM, PrivateFormat.TraditionalOpenSSL, OPEN),
        armored("CERTIFICATE", bytes(100)),
    ],
    f"holds a private key that is broken: {NEW}": [
        PEM[:40],
        PEM[:-30],
        PEM.replace(b"AQ", b"*Q"),
        PEM + PEM,
        armored("PRIVATE KEY", b""),
        armored("PRIVATE KEY", KEY.private_bytes(Encoding.DER, PKCS8, OPEN)[:-1]),
        armored("PRIVATE KEY", KEY.private_bytes(Encoding.DER, PKCS8, OPEN) + b"\0"),
    ],
    f"holds a private key and the public key of another one: {NEW}": [pkcs8_v2(OTHER_PUBLIC_KEY)],
    f"has more than 4096 bytes: {NEW}": [b" " * 4096 + PEM, b"\0" * 100_000],
}


@pytest.mark.parametrize(("why", "text"), [(why, text) for why, texts in WRONG.items() for text in texts])
def test_any_other_content_is_refused_in_one_line_that_does_not_show_it(tmp_path: Path, why: str, text: bytes) -> None:
    path = written(tmp_path, text)
    with pytest.raises(IdentityFileError) as refused:
        SigningKey.from_file(path)
    assert str(refused.value) == f'the identity file "{path}" {why}'
    shown = "".join(traceback.format_exception(refused.value)).replace(str(path), "").encode()
    assert not [start for start in range(len(text) - 11) if text[start : start + 12] in shown.replace(b"BEGIN ", b"")]
    assert (refused.value.__cause__, refused.value.__context__) == (None, None)


def test_the_longest_text_is_taken(tmp_path: Path) -> None:
    text = b"#" * (4095 - len(PEM)) + b"\n" + PEM
    assert len(text) == 4096
    assert SigningKey.from_file(written(tmp_path, text)).public_key == SIGNER.public_key


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o606, 0o644, 0o666, 0o777, 0o4604, 0o444])
def test_a_file_that_every_user_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, PEM, mode)
    why = rf"can be read or written by every user \(its mode is {mode:04o}\): chmod 600 .*defaultMode: 0440"
    with pytest.raises(IdentityFileError, match=why):
        SigningKey.from_file(path)


@pytest.mark.parametrize("mode", [0o620, 0o660, 0o630])
def test_a_file_that_its_group_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, PEM, mode)
    with pytest.raises(IdentityFileError, match=rf"can be written by its group \(its mode is {mode:04o}\): chmod 600"):
        SigningKey.from_file(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440, 0o750, 0o601])
def test_a_file_that_its_group_can_read_is_taken(tmp_path: Path, mode: int) -> None:
    assert SigningKey.from_file(written(tmp_path, PEM, mode)).public_key == SIGNER.public_key


def test_links_are_followed_as_kubernetes_mounts_them_and_the_mode_of_the_file_counts(tmp_path: Path) -> None:
    folder = tmp_path / "..2026_11_27"
    folder.mkdir()
    path = written(folder, PEM, 0o440)
    (tmp_path / "..data").symlink_to(folder.name)
    link = tmp_path / "server.key"
    link.symlink_to("..data/server.key")
    assert stat.S_IMODE(link.lstat().st_mode) == 0o777
    assert SigningKey.from_file(link).public_key == SIGNER.public_key
    path.chmod(0o444)
    with pytest.raises(IdentityFileError, match="every user"):
        SigningKey.from_file(link)
    path.unlink()
    with pytest.raises(IdentityFileError, match=f"does not exist: {NEW}"):
        SigningKey.from_file(link)
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(IdentityFileError, match=r"cannot be read .*name a file that this user can read"):
        SigningKey.from_file(link)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(tmp_path / "socket"))
        for path in (tmp_path, tmp_path / "pipe", tmp_path / "socket", Path("/dev/zero"), Path("/dev/tty")):
            with pytest.raises(IdentityFileError, match=r"is no regular file: name a file that holds the key$"):
                SigningKey.from_file(path)


def test_a_file_that_this_user_cannot_read_is_refused_and_the_error_says_why(tmp_path: Path) -> None:
    path = written(tmp_path, PEM, 0)
    run_script(
        """
        import os, sys
        from server_keys._native import IdentityFileError, SigningKey

        if os.geteuid() == 0:
            os.setuid(65534)  # root may read everything
        try:
            SigningKey.from_file(sys.argv[1])
        except IdentityFileError as error:
            assert "cannot be read (permission denied): name a file that this user can read" in str(error), error
        else:
            raise AssertionError("read")
        """,
        os.fspath(path),
    )


def test_the_files_path_is_shown_on_one_line(tmp_path: Path) -> None:
    for make in (SigningKey.from_file, SigningKey.new_file):
        with pytest.raises(IdentityFileError) as refused:
            make(tmp_path / "no folder" / "two\nlines\x1b[31m")
        assert str(refused.value).isprintable()


def test_a_new_key_is_its_owners_alone_and_never_the_same(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        keys = [SigningKey.new_file(tmp_path / name) for name in ("a", "b")]
    finally:
        os.umask(old)
    assert len({key.public_key for key in keys}) == 2
    for key, name in zip(keys, ("a", "b"), strict=True):
        path = tmp_path / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        again = SigningKey.from_file(path)
        assert again.public_key == key.public_key
        assert again.sign(b"message") == key.sign(b"message")


def test_openssl_reads_a_new_key_and_makes_the_same_signature(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is missing: `apt-get install openssl` brings it")
    path = tmp_path / "server.key"
    key = SigningKey.new_file(path)
    (tmp_path / "message").write_bytes(b"message")

    def run(*command: str) -> bytes:
        return subprocess.run([openssl, *command], capture_output=True, check=True, cwd=tmp_path, timeout=60).stdout

    spki = run("pkey", "-in", "server.key", "-pubout", "-outform", "DER")
    assert spki[-32:] == key.public_key
    assert run("pkeyutl", "-sign", "-rawin", "-inkey", "server.key", "-in", "message") == key.sign(b"message")
    assert run("pkey", "-in", "server.key") == path.read_bytes()  # OpenSSL would write the same text


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    path = written(tmp_path, b"something", 0o644)
    link, gone, missing = tmp_path / "link", tmp_path / "dangling", tmp_path / "missing"
    link.symlink_to(path)
    gone.symlink_to(missing)
    for there in (path, link, gone, tmp_path):
        with pytest.raises(IdentityFileError) as refused:
            SigningKey.new_file(there)
        expected = f'the identity file "{there}" exists already: nothing is overwritten; name another file'
        assert str(refused.value) == expected
    assert path.read_bytes() == b"something"
    assert not missing.exists()


def test_a_key_that_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(
        IdentityFileError, match=r"cannot be written \(.*\): name a file in a folder that this user can"
    ):
        SigningKey.new_file(tmp_path / "no folder" / "server.key")
    run_script(
        """
        import os, resource, signal, sys
        from server_keys._native import IdentityFileError, SigningKey

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))  # as a full disk would
        try:
            SigningKey.new_file(sys.argv[1])
        except IdentityFileError as error:
            assert "cannot be written (" in str(error), error
        else:
            raise AssertionError("written")
        assert not os.path.exists(sys.argv[1])
        """,
        os.fspath(tmp_path / "server.key"),
    )


def test_the_error_is_public_and_a_value_error() -> None:
    assert errors.IdentityFileError is IdentityFileError
    assert issubclass(IdentityFileError, ValueError)
    for make in (SigningKey.from_file, SigningKey.new_file):
        for wrong in (None, 5):
            with pytest.raises(TypeError):
                make(wrong)  # type: ignore[arg-type]
