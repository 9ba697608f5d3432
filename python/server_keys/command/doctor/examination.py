"""One examination of a server: every question in turn."""

from collections.abc import Iterator
from dataclasses import dataclass

import httpx2

from server_keys.command.doctor.bodies import of_headers, of_plaintext, of_sealed_request, of_stream
from server_keys.command.doctor.findings import Finding, Verdict
from server_keys.command.doctor.identity import of_identity
from server_keys.command.doctor.keys import of_caches, of_key, of_lifetime, of_processes, of_rotation, of_way
from server_keys.command.doctor.wire import Target, fetch_key, key_address


@dataclass(frozen=True)
class Questions:
    """What to look at."""

    request: httpx2.Request
    """What is sent sealed."""
    connections: int
    """Over how many connections the key is fetched."""
    wait_s: float
    """How many seconds to wait for the key to be replaced."""


def examine(target: Target, questions: Questions) -> Iterator[Finding]:
    """Yield what is found, one answer after the other. Without a key there is nothing more to ask."""
    try:
        answers = [fetch_key(target) for _ in range(max(2, questions.connections))]
    except httpx2.RequestError as error:
        cause = type(error).__name__
        yield Finding("key", Verdict.FAILURE, f"{key_address(target)} does not answer ({cause}): {error}")
        return
    first, last = answers[0], answers[-1]
    key = of_key(last, key_address(target))
    yield key
    if key.verdict is Verdict.FAILURE:
        return
    identity = of_identity(target, answers)
    yield identity
    yield of_way(last, target, is_verified=identity.verdict is Verdict.OK)
    yield of_lifetime(last)
    yield of_caches(answers)
    yield of_processes(target, answers)
    yield of_rotation(target, last, questions.wait_s)
    try:
        yield of_plaintext(target)
    except httpx2.RequestError as error:
        yield Finding("plaintext", Verdict.NOT_CHECKED, f"it got no answer ({type(error).__name__})")
    if identity.verdict is Verdict.FAILURE:
        says = "it was not sent: nothing is sealed to keys whose identity is refused"
        finding, done = Finding("sealed request", Verdict.NOT_CHECKED, says), None
    else:
        finding, done = of_sealed_request(target, questions.request)
    yield finding
    yield of_headers(first, done)
    yield of_stream(done)
