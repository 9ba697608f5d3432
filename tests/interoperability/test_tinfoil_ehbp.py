"""The PyPI package tinfoil-ehbp, unchanged, against this server while its keys rotate."""

import ehbp
import httpx
import pytest
from ehbp.identity import REQUEST_FRAME_SIZE
from fastapi import FastAPI


def test_discovery_and_a_plain_answer(url: str) -> None:
    with ehbp.Client.discover(url) as client:
        assert client.request("POST", "/echo", body="hello").json() == {"body": "hello"}


def test_an_event_stream(url: str) -> None:
    with ehbp.Client.discover(url) as client, client.stream("POST", "/events", body="one two three") as response:
        assert b"".join(response.iter_bytes()) == b"data: one\n\ndata: two\n\ndata: three\n\n"


def test_a_body_of_several_frames(url: str) -> None:
    body = "0123456789" * 200_000
    frame = "x" * REQUEST_FRAME_SIZE
    with ehbp.Client.discover(url) as client:
        assert client.request("POST", "/echo", body=body).json() == {"body": body}
        # From an iterator they travel as they are made, in chunks.
        assert client.request("POST", "/echo", body=iter([frame.encode(), b"end"])).json() == {"body": frame + "end"}


def test_an_error_and_an_answer_without_content(url: str) -> None:
    with ehbp.Client.discover(url) as client:
        refused = client.request("POST", "/fails", body="x")
        assert (refused.status_code, refused.json()) == (403, {"detail": "refused"})
        assert client.request("POST", "/no-content", body="x").status_code == 204


def test_an_answer_that_the_app_compressed(url: str) -> None:
    with ehbp.Client.discover(url) as client:
        assert client.request("POST", "/compressed", body="hello").content == b"hello"


def test_one_rotation_goes_unnoticed_and_two_are_a_mismatch_to_recover_from(app: FastAPI, url: str) -> None:
    ring = app.state.ephemeral_keys
    with ehbp.Client.discover(url) as client:
        ring.refresh()
        assert client.request("POST", "/echo", body="once").json() == {"body": "once"}
        ring.refresh()
        with pytest.raises(ehbp.KeyConfigMismatchError):
            client.request("POST", "/echo", body="twice")
    with ehbp.Client.discover(url) as client:
        assert client.request("POST", "/echo", body="again").json() == {"body": "again"}


def test_its_httpx_transport(app: FastAPI, url: str) -> None:
    key = app.state.ephemeral_keys.current.public_key.hex()
    with httpx.Client(transport=ehbp.EHBPTransport.from_public_key_hex(key), base_url=url) as client:
        assert client.post("/echo", content=b"hello").json() == {"body": "hello"}
