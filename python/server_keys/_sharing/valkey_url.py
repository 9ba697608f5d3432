"""The URL of a Valkey or Redis server, checked, and shown without credentials."""

import contextlib
import re
from dataclasses import dataclass, field
from typing import NoReturn, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

# Each scheme: whether TLS protects the connection. valkey-py and others take the names of Redis for the same.
_TCP_SCHEMES = {"valkey": False, "valkeys": True, "redis": False, "rediss": True}
_SOCKET_SCHEMES = ("unix", "valkey+unix", "redis+unix")
SCHEMES = (*_TCP_SCHEMES, *_SOCKET_SCHEMES)
_DEFAULT_PORT = 6379
# A name or an IPv4 address, or an IPv6 address without its brackets.
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")
_GROUP = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class ValkeyUrl:
    """Where a server is and how to log in. Its repr shows no credentials.

    Two are equal if they lead to the same database as the same user, and name the same group.
    """

    host: str
    """Empty for a Unix socket."""
    port: int
    path: str
    """The Unix socket; empty for TCP."""
    database: int
    tls: bool
    ca_file: str | None
    """A file with certificates of authorities that are trusted besides those of the system; None without TLS, too."""
    group: str
    """What separates groups that have one secret. Empty if the URL names none."""
    username: str | None = field(repr=False)
    password: str | None = field(repr=False)
    shown: str = field(compare=False)
    """The URL without user and password."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what `text` says.

        Raises:
            ValueError: it says something that cannot be done. The message has no credentials.
        """
        before, _, after = re.sub(r"^[^:]*://", "", text).partition("@")
        if re.search(r"[/?#]", before) and after:
            _refuse(text, "has /, ? or # in its user or its password: write them as %2F, %3F and %23, and @ as %40")
        if not text.isprintable() or " " in text or "#" in text:
            _refuse(text, f"is no URL of the form {_form(text)}")
        url = split(text)
        if url is None:
            _refuse(text, f"is no URL of the form {_form(text)}")
        scheme = url.scheme.lower()
        if scheme not in SCHEMES:
            _refuse(text, f"has a scheme that is none of {', '.join(SCHEMES)}")
        if scheme in _SOCKET_SCHEMES:
            return cls._of_socket(text, url)
        return cls._of_host(text, url, tls=_TCP_SCHEMES[scheme])

    @classmethod
    def _of_host(cls, text: str, url: SplitResult, *, tls: bool) -> Self:
        host = unquote(url.hostname or "")
        if not _HOST.fullmatch(host) or url.port == 0:
            _refuse(text, f"is no URL of the form {_form(text)}")
        options = _options(text, url, ("group", "ssl_ca_certs") if tls else ("group",))
        database = _database(text, url.path.removeprefix("/").removesuffix("/"))
        port = url.port or _DEFAULT_PORT
        shown_host = f"[{host}]" if ":" in host else host
        return cls(
            host=host,
            port=port,
            path="",
            database=database,
            tls=tls,
            ca_file=options.get("ssl_ca_certs"),
            group=options.get("group", ""),
            username=_credential(url.username),
            password=_credential(url.password),
            shown=f"{url.scheme}://{shown_host}:{port}/{database}{_shown_group(options)}",
        )

    @classmethod
    def _of_socket(cls, text: str, url: SplitResult) -> Self:
        path = unquote(url.path)
        if url.hostname or not path.strip("/") or not path.isprintable():
            _refuse(text, f"is no URL of the form {_form(text)}")
        options = _options(text, url, ("group", "db"))
        database = _database(text, options.get("db", ""))
        return cls(
            host="",
            port=0,
            path=path,
            database=database,
            tls=False,
            ca_file=None,
            group=options.get("group", ""),
            username=_credential(url.username),
            password=_credential(url.password),
            shown=f"{url.scheme}://{path}{_shown_group(options)}" + (f" (database {database})" if database else ""),
        )


def split(text: str) -> SplitResult | None:
    """Return the parts of a URL, None if it has none. The error that would say why may quote a password."""
    with contextlib.suppress(ValueError):
        url = urlsplit(text)
        _ = url.port  # looked at only here
        return url
    return None


def without_credentials(text: str) -> str:
    """Return `text` with nothing that may be a credential, whether it is a proper URL or not."""
    scheme, separator, rest = text.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,31}", scheme):
        scheme, separator, rest = "", "", text
    before, at, after = rest.rpartition("@")
    if re.search(r"[/?#]", before):
        rest = "***"  # what comes after the @ may belong to a password, too
    elif at:
        rest = f"***@{after}"
    for mark in "?#":
        if mark in rest:
            rest = rest.partition(mark)[0] + mark + "***"
    # `host:password`, or the value of a secret where a URL should be.
    rest = re.sub(r"^([^/@\[\]]*@)?([^/:\[\]]*):(?!\d{1,5}(?:[/?#]|$))[^/?#]+", r"\1\2:***", rest)
    rest = re.sub(r"[0-9A-Fa-f]{32,}", "***", rest)
    return f"{scheme}{separator}{rest}"


def _options(text: str, url: SplitResult, known: tuple[str, ...]) -> dict[str, str]:
    pairs = None
    with contextlib.suppress(ValueError):
        pairs = parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query))
    if pairs is None:
        _refuse(text, "has a query that is not of the form name=value")
    options: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            why = " (valkeys:// is TLS, and always checks the certificate and the host name)" if "ssl" in name else ""
            _refuse(text, f"may have the options {' and '.join(known)}, and not {name!r}{why}")
        if name in options or not value or "\0" in value:
            _refuse(text, f"has the option {name} twice, or without a value")
        options[name] = value
    if "group" in options and not _GROUP.fullmatch(options["group"]):
        _refuse(text, "must name its group by 1 to 64 letters, digits, dots, underscores and hyphens")
    return options


def _database(text: str, number: str) -> int:
    if not number:
        return 0
    if not re.fullmatch(r"[0-9]{1,5}", number):
        _refuse(text, "has something else than digits where the number of a database belongs")
    return int(number)


def _credential(part: str | None) -> str | None:
    return unquote(part) if part else None


def _shown_group(options: dict[str, str]) -> str:
    return f"?group={options['group']}" if "group" in options else ""


def _form(text: str) -> str:
    scheme = text.partition(":")[0].lower()
    if scheme in _SOCKET_SCHEMES:
        return f"{scheme}://[USER[:PASSWORD]@]/PATH[?db=N][&group=NAME]"
    return f"{scheme}://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE][?group=NAME]"


def _refuse(text: str, why: str) -> NoReturn:
    raise ValueError(f"share {without_credentials(text)!r} {why}")
