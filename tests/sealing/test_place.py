"""A place in one form: what proxies on the way may change makes no difference, and everything else does."""

from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_keys._sealing import place
from server_keys._sealing.arrival import is_in_place
from server_keys._sealing.wire_v1 import RequestHead, sealed_target
from tests.helpers.asgi import http_scope

raw_paths = st.text("/.%2FfEe~azé ?#:&=+", max_size=30).map(lambda path: "/" + quote(path, safe="/.%~:&=+"))


@pytest.mark.parametrize(
    ("wire", "normalised"),
    [
        ("", "/"),
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("//a///b", "/a/b"),
        ("/%7euser", "/~user"),
        ("/a%2fb", "/a/b"),
        ("/a%20b", "/a%20b"),
        ("/a%3Fb%23", "/a%3Fb%23"),
        ("/100%25", "/100%25"),
        ("/%2541", "/%2541"),
        ("/%c3%a9", "/%C3%A9"),
        ("/é", "/%C3%A9"),
        ("/%ff", "/%EF%BF%BD"),
        ("/a;b=c:@!$&'()*+,", "/a;b=c:@!$&'()*+,"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/../../b", "/b"),
        ("/a/..", "/"),
        ("/a/b/.", "/a/b/"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/...", "/a/..."),
        ("/a%zz", "/a%25zz"),
    ],
)
def test_a_path_in_one_form(wire: str, normalised: str) -> None:
    assert place.normalised_path(wire.encode()) == normalised.encode()


@pytest.mark.parametrize(
    ("query", "normalised"),
    [
        ("a=1&b=2", "a=1&b=2"),
        ("a=%7e%41", "a=~A"),
        ("a=%26", "a=%26"),
        ("a=%2f%c3", "a=%2F%C3"),
        ("a=+%20", "a=+%20"),
        ("//..//?", "//..//?"),
        ("%zz%", "%zz%"),
    ],
)
def test_a_query_in_one_form(query: str, normalised: str) -> None:
    assert place.target(b"/p", query.encode()) == f"/p?{normalised}".encode()


@pytest.mark.parametrize(
    ("path", "sealed"), [("/a/../b", "/a/../b"), ("/a/./%2e%2E//%7e", "/a/./../~"), ("/a/b", "/a/b"), ("", "/")]
)
def test_a_client_that_sends_dot_segments_seals_them(path: str, sealed: str) -> None:
    assert place.target(path.encode(), b"q=%7e") == f"{sealed}?q=~".encode()
    assert place.arrived_path(unquote(path)) == sealed.encode()


def test_an_empty_query_is_none() -> None:
    assert place.target(b"/p", b"") == b"/p"


@given(raw_paths)
def test_one_form_is_its_own(path: str) -> None:
    once = place.normalised_path(path.encode())
    assert place.normalised_path(once) == once
    assert once.startswith(b"/")
    assert not {b" ", b"?", b"#"} & {once[index : index + 1] for index in range(len(once))}


@given(raw_paths)
def test_what_a_server_decoded_has_the_form_that_the_client_sealed(path: str) -> None:
    # As servers decode it. The client has removed the dot segments.
    sealed = place.normalised_path(path.encode())
    assert place.arrived_path(unquote(sealed.decode())) == sealed


@given(st.binary(max_size=12))
def test_also_where_a_path_is_no_utf_8(rest: bytes) -> None:
    path = b"/" + rest.replace(b"/", b"").replace(b".", b"")
    escaped = b"".join(b"/" if byte == 0x2F else b"%%%02X" % byte for byte in path)
    assert place.arrived_path(unquote(escaped.decode())) == place.normalised_path(escaped)


def test_a_server_that_decodes_to_surrogates_does_no_harm() -> None:
    assert place.arrived_path("/\udcff") == b"/%EF%BF%BD%EF%BF%BD%EF%BF%BD"


@pytest.mark.parametrize(
    ("prefix", "path", "rest"),
    [
        ("/team-a", "/team-a/v1/x", "/v1/x"),
        ("/team-a", "/team-a/", "/"),
        ("/team-a", "/team-a", "/team-a"),
        ("/team-a", "/team-abc/x", "/team-abc/x"),
        ("/team-a", "/v1/x", "/v1/x"),
        ("", "/v1/x", "/v1/x"),
    ],
)
def test_what_a_path_is_below_a_prefix(prefix: str, path: str, rest: str) -> None:
    assert place.below(prefix.encode(), path.encode()) == rest.encode()


def arrives(
    sealed: str, path: str, mode: str = "exact", *, query: str = "", root_path: str = "", method: str = "POST"
) -> bool:
    head = RequestHead(b"POST", sealed_target(sealed.encode()), has_body=True)
    scope = http_scope(method, path, query_string=query.encode(), root_path=root_path)
    return is_in_place(head, scope, mode)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["exact", "suffix", "off"])
def test_no_mode_takes_another_method(mode: str) -> None:
    assert arrives("/x", "/x", mode)
    assert not arrives("/x", "/x", mode, method="PUT")
    assert not arrives("/x", "/x", mode, method="post")


@pytest.mark.parametrize(
    ("sealed", "path", "query", "is_there"),
    [
        ("/v1/x", "/v1/x", "", True),
        ("/v1/x", "//v1//x", "", True),
        ("/~a", "/~a", "", True),
        ("/v1/x", "/v1/x/", "", False),
        ("/v1/x/", "/v1/x", "", False),
        ("/v1/x", "/V1/x", "", False),
        ("/v1/x", "/a/../v1/x", "", False),
        ("/v1/x", "/./v1/x", "", False),
        ("/v1/x", "/v1/x", "a=1", False),
        ("/v1/x?a=1", "/v1/x", "a=1", True),
        ("/v1/x?a=~", "/v1/x", "a=%7E", True),
        ("/v1/x?a=1", "/v1/x", "a=2", False),
        ("/v1/x?a=1", "/v1/x", "", False),
        ("/v1/x?a=1", "/v1/x?a=1", "", False),
        ("/team/v1/x", "/v1/x", "", False),
        ("sha256-x", "/v1/x", "", False),
        ("*", "/v1/x", "", False),
    ],
)
def test_exactly_the_path_and_the_query_that_were_sealed(sealed: str, path: str, query: str, is_there: bool) -> None:
    assert arrives(sealed, path, query=query) is is_there


@pytest.mark.parametrize(
    ("sealed", "path", "query", "is_there"),
    [
        ("/v1/x", "/v1/x", "", True),
        ("/team/v1/x", "/v1/x", "", True),
        ("/team/v1/x", "/x", "", True),
        ("/team/v1/x?a=1", "/v1/x", "a=1", True),
        ("/team/v1/x?a=1", "/v1/x", "a=2", False),
        ("/team/v1/x?a=/v1/y", "/v1/y", "", False),
        ("/team/v1/x", "/1/x", "", False),
        ("/team/v1/x", "/v1", "", False),
        ("/v1/x", "/team/v1/x", "", False),
        # These would be the end of very many paths.
        ("/team/", "/", "", False),
        ("/team/v1/", "/v1/", "", False),
        ("/", "/", "", True),
    ],
)
def test_the_end_of_a_path_from_a_slash_on_where_that_is_asked_for(
    sealed: str, path: str, query: str, is_there: bool
) -> None:
    assert arrives(sealed, path, "suffix", query=query) is is_there


def test_any_path_and_query_where_nothing_is_compared() -> None:
    assert arrives("/v1/x", "/elsewhere", "off", query="a=1")


@pytest.mark.parametrize("mode", ["exact", "suffix"])
def test_a_target_that_stands_as_its_hash(mode: str) -> None:
    path = "/" + "x" * 5000
    assert arrives(path, path, mode)
    assert arrives(f"{path}?a", path, mode, query="a")
    assert not arrives(path, f"{path}x", mode)


@pytest.mark.parametrize("root_path", ["/api", "/api/"])
@pytest.mark.parametrize("sealed", ["/v1/x", "/api/v1/x"])
@pytest.mark.parametrize("path", ["/v1/x", "/api/v1/x"])
def test_a_root_path_makes_no_difference_on_either_side(root_path: str, sealed: str, path: str) -> None:
    assert arrives(sealed, path, root_path=root_path)
    assert not arrives(sealed.replace("x", "y"), path, root_path=root_path)
    assert not arrives(sealed, path.replace("v1", "v2"), root_path=root_path)


def test_a_root_path_that_is_elsewhere_adds_nothing() -> None:
    assert not arrives("/other/v1/x", "/v1/x", root_path="/api")
    assert not arrives("/apiv1/x", "/v1/x", root_path="/api")
