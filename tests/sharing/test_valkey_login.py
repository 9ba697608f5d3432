"""Whom a store talks to, and what of its user and password anybody gets to see."""

import contextlib
import datetime
import ipaddress
import logging
import ssl
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from server_keys._sharing.store import StoreError, StoreRefusedError
from server_keys._sharing.valkey import ValkeyStore
from server_keys._sharing.valkey_url import ValkeyUrl
from tests.helpers.valkey import KINDS, REDIS, StoreServer, store_server

GROUP = bytes(range(16))
TAG = "server-keys:{0001020304050607}"
ME, YOU = b"\x00" * 32, b"\xff" * 32
KEEP_S = 60.0

NARROWEST = (
    *("on", ">hunter2", "resetchannels", "resetkeys", "~server-keys:*", "-@all"),
    *("+evalsha", "+eval", "+time", "+cluster|slots", "+type", "+unlink", "+pttl", "+pexpire"),
    *("+get", "+set", "+strlen", "+hget", "+hset", "+hsetnx", "+hdel", "+hkeys", "+hlen", "+hexists", "+hstrlen"),
    *("+sadd", "+srem", "+scard", "+smembers"),
)
"""The rules of a user who may do what the store does, and no more. A database other than 0 needs `+select`, too."""

OpenUrl = Callable[[str], ValkeyStore]


@pytest.fixture(params=KINDS, ids=str)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreServer]:
    with store_server(request.param, tmp_path) as server:
        yield server


@pytest.fixture
def open_url() -> Iterator[OpenUrl]:
    """Return what opens a store, which is closed after the test."""
    with contextlib.ExitStack() as stack:

        def open_store(url: str) -> ValkeyStore:
            store = ValkeyStore(ValkeyUrl.parse(url), GROUP, timeout_s=2)
            stack.callback(store.close)
            return store

        yield open_store


def with_login(server: StoreServer, login: str) -> str:
    return f"valkey://{login}@127.0.0.1:{server.port}"


def use_all(store: ValkeyStore) -> None:
    """Do everything that a store can do."""
    register = store.look(ME).register
    for name in (ME, YOU):
        store.ask(name, b"ask", waits=True, keep_s=KEEP_S)
    assert store.waiting() == store.asks() == {ME: b"ask", YOU: b"ask"}
    assert store.serve(YOU, b"box", KEEP_S)
    assert store.commit(register, b"two", {ME: b"box"}, KEEP_S)
    assert store.restore(b"two", b"one", KEEP_S)
    assert store.take(ME) is not None
    store.leave(YOU)
    store.forget_asks()


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(StoreRefusedError) as caught:
        call()
    return str(caught.value)


def test_a_user_who_may_do_no_more_than_that_can_do_everything(server: StoreServer, open_url: OpenUrl) -> None:
    server.run("ACL", "SETUSER", "member", *NARROWEST)
    store = open_url(with_login(server, "member:hunter2"))
    use_all(store)
    use_all(store)
    server.run("RPUSH", f"{TAG}:asks2", "x")
    server.run("RENAME", f"{TAG}:asks2", f"{TAG}:asks")
    with pytest.raises(StoreError, match="which was removed"):
        store.look(ME)
    use_all(store)
    assert server.run("ACL", "LOG") == []


@pytest.mark.parametrize("rule", [rule for rule in NARROWEST if rule.startswith("+")])
def test_none_of_these_rules_can_be_left_out(rule: str, server: StoreServer, open_url: OpenUrl) -> None:
    server.run("ACL", "SETUSER", "member", *NARROWEST, rule.replace("+", "-"))
    store = open_url(with_login(server, "member:hunter2"))

    def use_all_and_more() -> None:
        use_all(store)
        server.run("RPUSH", f"{TAG}:asks2", "x")
        server.run("RENAME", f"{TAG}:asks2", f"{TAG}:asks")
        with contextlib.suppress(StoreError):
            store.look(ME)
        use_all(store)

    if rule == "+cluster|slots":
        # Without it a store works, and finds no other node when the one that it knows is away.
        use_all_and_more()
        assert server.run("ACL", "LOG") != []
        return
    with pytest.raises(StoreRefusedError, match=r"does not allow this user (the command [a-z]+|all commands .*)$"):
        use_all_and_more()


def test_a_commit_that_lacks_a_permission_leaves_the_old_register(server: StoreServer, open_url: OpenUrl) -> None:
    server.run("ACL", "SETUSER", "member", *NARROWEST)
    store = open_url(with_login(server, "member:hunter2"))
    assert store.commit(b"", b"one", {}, KEEP_S)
    for rule in ("-hset", "-pexpire", "-set"):
        server.run("ACL", "SETUSER", "member", rule)
        refusal(lambda: store.commit(b"one", b"two", {ME: b"box"}, KEEP_S))
        assert store.look(ME).register == b"one"
        server.run("ACL", "SETUSER", "member", rule.replace("-", "+"))
    assert store.commit(b"one", b"two", {ME: b"box"}, KEEP_S)


def test_a_user_of_other_keys_is_refused(server: StoreServer, open_url: OpenUrl) -> None:
    server.run("ACL", "SETUSER", "member", *NARROWEST, "resetkeys", "~others:*")
    store = open_url(with_login(server, "member:hunter2"))
    assert refusal(lambda: store.look(ME)).endswith("/0 does not allow this user the keys server-keys:*")


def test_passwords_may_hold_any_character(server: StoreServer, open_url: OpenUrl) -> None:
    server.run("ACL", "SETUSER", "a@b:/?#", "on", ">p@%:/?# ä", "~*", "+@all")
    use_all(open_url(with_login(server, "a%40b%3A%2F%3F%23:p%40%25%3A%2F%3F%23%20%C3%A4")))
    server.run("CONFIG", "SET", "requirepass", "p@ss/word")
    use_all(open_url(with_login(server, ":p%40ss%2Fword")))
    use_all(open_url(f"unix://:p%40ss%2Fword@{server.socket}"))


@pytest.mark.parametrize("login", ["member:wrong-hunter2", "nobody:hunter2", "member", ":hunter2", ""])
def test_who_is_not_let_in_hears_so_and_gets_in_when_that_changes(
    login: str, server: StoreServer, open_url: OpenUrl, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.run("ACL", "SETUSER", "member", *NARROWEST)
    if not login:
        server.run("CONFIG", "SET", "requirepass", "hunter2")
    store = open_url(with_login(server, login) if login else server.url)
    for _ in range(2):
        message = refusal(lambda: store.look(ME))
        assert message == f"{server.url}/0 does not accept the user and the password, or wants some, or wants none"
    if not login:
        server.run("CONFIG", "SET", "requirepass", "")
    elif login == ":hunter2":
        server.run("CONFIG", "SET", "requirepass", "hunter2")
    else:
        user, _, password = login.partition(":")
        server.run("ACL", "SETUSER", user, *NARROWEST, f">{password}" if password else "nopass")
    use_all(store)
    assert "hunter2" not in caplog.text


def test_a_database_that_is_not_there_is_a_refusal(server: StoreServer, open_url: OpenUrl) -> None:
    store = open_url(f"{server.url}/99")
    for _ in range(2):
        assert refusal(lambda: store.look(ME)) == f"{server.url}/99 has no database 99"


def test_no_error_shows_the_login(
    server: StoreServer, open_url: OpenUrl, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A server that does not know AUTH repeats the user and the password in its error."""
    caplog.set_level(logging.DEBUG)
    url = with_login(server, "ann:hunter2")
    stores = [open_url(url)]
    seen = [repr(stores), str(stores[0]), stores[0].shown, repr(vars(stores[0])), repr(vars(stores[0]._connection))]
    errors = []
    for prepare in (
        lambda: None,
        lambda: server.run("ACL", "SETUSER", "ann", "on", ">other"),
        lambda: server.run("ACL", "SETUSER", "ann", "on", ">hunter2", "-@all"),
        server.kill,
    ):
        prepare()
        with pytest.raises(StoreError) as caught:
            stores[0].look(ME)
        errors.append(caught.value)
    for error in errors:
        seen += [repr(error), *traceback.format_exception(error, chain=True)]
        # Reporters of errors follow these, too.
        assert error.__context__ is None
        assert error.__cause__ is None
    output = capfd.readouterr()
    for text in (*seen, caplog.text, output.out, output.err):
        assert "hunter2" not in text
        assert "ann:" not in text


def test_an_echo_of_the_login_is_not_passed_on(tmp_path: Path, open_url: OpenUrl) -> None:
    with store_server(KINDS[0], tmp_path, "--rename-command", "AUTH", "") as server:
        with pytest.raises(Exception, match="hunter2"):
            server.run("AUTH", "ann", "hunter2")
        store = open_url(with_login(server, "ann:hunter2"))
        with pytest.raises(StoreError, match=r"/0 answered with an error \(ERR\)$"):
            store.look(ME)


@dataclass
class Certificates:
    """An authority, and the certificates that it made for servers."""

    folder: Path

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        self.ca_file = self.folder / "ca.pem"
        authority = self._certificate(self._name, self._key.public_key(), x509.BasicConstraints(True, None))
        self.ca_file.write_bytes(authority.public_bytes(serialization.Encoding.PEM))

    def server_options(self, *names: x509.GeneralName) -> list[str]:
        """Return options of a server that speaks TLS as one of these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        made = self._certificate(subject, key.public_key(), x509.SubjectAlternativeName(names))
        certificate_file, key_file = self.folder / "server.pem", self.folder / "server-key.pem"
        certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8
        key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        files = ["--tls-cert-file", str(certificate_file), "--tls-key-file", str(key_file)]
        return [*files, "--tls-ca-cert-file", str(self.ca_file), "--tls-auth-clients", "no"]

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number())
        day = datetime.timedelta(days=1)
        builder = builder.not_valid_before(now - day).not_valid_after(now + day).add_extension(extension, critical=True)
        return builder.sign(self._key, hashes.SHA256())


@contextlib.contextmanager
def tls_server(folder: Path, *names: x509.GeneralName) -> Iterator[tuple[StoreServer, Path]]:
    """Run a server that speaks only TLS on its port. Debian's Redis can; the Valkey of the tests was built without."""
    certificates = Certificates(folder)
    options = certificates.server_options(*names)
    server = StoreServer(REDIS, folder)
    server.options = ["--port", "0", "--tls-port", str(server.port), *options]
    try:
        server.start()
        yield server, certificates.ca_file
    finally:
        server.kill()


def test_tls_is_spoken_with_the_named_host(tmp_path: Path, open_url: OpenUrl) -> None:
    loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    with tls_server(tmp_path, x509.DNSName("localhost"), loopback) as (server, ca_file):
        server.run("ACL", "SETUSER", "member", *NARROWEST)
        for host in ("localhost", "127.0.0.1"):
            use_all(open_url(f"valkeys://member:hunter2@{host}:{server.port}?ssl_ca_certs={ca_file}"))
            use_all(open_url(f"rediss://member:hunter2@{host}:{server.port}?ssl_ca_certs={ca_file}"))
        with pytest.raises(
            StoreError, match=r"/0 (closed the connection|cannot be reached: Connection reset by peer)$"
        ):
            open_url(f"valkey://member:hunter2@localhost:{server.port}").look(ME)


def test_a_certificate_for_another_host_is_refused_before_the_password_is_sent(
    tmp_path: Path, open_url: OpenUrl
) -> None:
    with tls_server(tmp_path, x509.DNSName("other.example")) as (server, ca_file):
        store = open_url(f"valkeys://localhost:{server.port}?ssl_ca_certs={ca_file}")
        with pytest.raises(StoreError) as caught:
            store.look(ME)
        assert str(caught.value).startswith(
            f"valkeys://localhost:{server.port}/0 has a certificate that is not valid here: Hostname mismatch"
        )
        assert "cmdstat_auth" not in server.run("INFO", "commandstats")


def test_an_unknown_authority_is_refused(tmp_path: Path, open_url: OpenUrl) -> None:
    with tls_server(tmp_path, x509.DNSName("localhost")) as (server, _):
        store = open_url(f"valkeys://localhost:{server.port}")
        with pytest.raises(StoreError, match="has a certificate that is not valid here: self-signed"):
            store.look(ME)


def test_a_server_without_tls_is_not_talked_to(server: StoreServer, open_url: OpenUrl) -> None:
    with pytest.raises(StoreError, match=r"/0 (did not answer within 2 s|does not speak TLS as it should)$"):
        open_url(f"valkeys://:hunter2@127.0.0.1:{server.port}").look(ME)


def test_a_file_of_authorities_that_cannot_be_read_ends_the_start(tmp_path: Path, open_url: OpenUrl) -> None:
    (tmp_path / "empty.pem").write_text("")
    for name, reason in (("missing.pem", "No such file or directory"), ("empty.pem", ""), ("", "")):
        path = tmp_path / name
        with pytest.raises(ValueError, match=f"^ssl_ca_certs must name a file .* not '{path}': .*{reason}") as caught:
            open_url(f"valkeys://:hunter2@host?ssl_ca_certs={path}")
        assert "hunter2" not in str(caught.value)
        assert not isinstance(caught.value, ssl.SSLError)
