"""What becomes of bodies: plaintext, a sealed request, and what stands in between and changes or holds up answers."""

import json

import httpx2

from server_keys._native import FrameTooLargeError, MalformedMessageError
from server_keys._sealing.protocol import KEY_CONFIG_MEDIA_TYPE, KEY_CONFIG_PATH, PROBLEM_MEDIA_TYPE
from server_keys.command.doctor.findings import Finding, Verdict
from server_keys.command.doctor.keys import HARMLESS_PATH
from server_keys.command.doctor.wire import Exchanged, KeyAnswer, Target, exchange, fetch_key
from server_keys.errors import SealedTransportError

_PLAINTEXT = b'{"server-keys check": "this body is in plaintext, to see whether it is refused"}'
# By these those in between make themselves known.
_ANNOUNCED = ("via", "x-cache", "cf-ray", "x-amz-cf-id", "x-served-by", "x-envoy-upstream-service-time")
# Shorter answers do not tell whether somebody held them up.
_SHORTEST_STREAM_S = 0.5
_LATE = 0.8


def of_plaintext(target: Target) -> Finding:
    """Return whether a body in plaintext is refused."""
    with httpx2.Client(transport=target.connection()) as client:
        response = client.send(target.request("POST", HARMLESS_PATH, body=_PLAINTEXT))
    values = {"status": response.status_code}
    if response.status_code == 400 and _says_sealed_only(response):
        return Finding("plaintext", Verdict.OK, "a body in plaintext is refused", values)
    says = (
        f"a body in plaintext is not refused (status {response.status_code}): a client without sealing would not "
        "notice. required=True, --require-sealed or server-keys open refuse it"
    )
    return Finding("plaintext", Verdict.WARNING, says, values)


def of_sealed_request(target: Target, request: httpx2.Request) -> tuple[Finding, Exchanged | None]:
    """Send `request` sealed to the newest key, and return whether its answer was sealed, with the answer."""
    subject = "sealed request"
    try:
        done = exchange(target, fetch_key(target), request)
    except (SealedTransportError, MalformedMessageError, FrameTooLargeError) as error:
        return Finding(subject, Verdict.FAILURE, str(error)), None
    except httpx2.RequestError as error:
        return Finding(subject, Verdict.FAILURE, f"it got no answer that can be read: {type(error).__name__}"), None
    values = {"status": done.status, "sealed": done.is_sealed, "took_s": done.took_s, "bytes": len(done.body)}
    said = f"{request.method} {request.url.path}: status {done.status} after {done.took_s * 1000:.0f} ms"
    if done.is_key_refused:
        return Finding(subject, Verdict.FAILURE, f"{said}: the server refuses the key that it gave out", values), None
    if not done.is_sealed:
        says = f"{said}, not sealed: somebody in front of the app has answered"
        return Finding(subject, Verdict.FAILURE, says, values), done
    return Finding(subject, Verdict.OK, f"{said}, sealed both ways", values), done


def of_headers(key: KeyAnswer, done: Exchanged | None) -> Finding:
    """Return whether somebody in between changes headers."""
    changed = []
    if key.headers.get("Content-Encoding", "identity") != "identity":
        changed.append(f"the key came with Content-Encoding {key.headers['Content-Encoding']}")
    if key.headers.get("Content-Type") != KEY_CONFIG_MEDIA_TYPE:
        changed.append(f"the key came as {key.headers.get('Content-Type')}")
    if done is not None and done.is_sealed:
        if "no-transform" not in done.wire.headers.get("Cache-Control", ""):
            changed.append("the sealed answer has lost Cache-Control: no-transform")
        if done.wire.headers.get("Content-Encoding", "identity") != "identity":
            changed.append("the sealed answer was compressed")
    headers = done.wire.headers if done is not None else key.headers
    announced = [f"{name}: {headers[name]}" for name in _ANNOUNCED if name in headers]
    values = {"changed": changed, "announced": announced, "server": headers.get("Server")}
    if changed:
        return Finding("headers", Verdict.WARNING, f"somebody in between changes them: {'; '.join(changed)}", values)
    says = f"unchanged; in between: {', '.join(announced)}" if announced else "unchanged"
    return Finding("headers", Verdict.OK, says, values)


def of_stream(done: Exchanged | None) -> Finding:
    """Return whether a stream arrives as it is sent."""
    subject = "streams"
    if done is None or not done.wire.headers.get("Content-Type", "").startswith("text/event-stream"):
        says = "the answer was no stream of events: name a path that streams (--path), and what to send it (--data)"
        return Finding(subject, Verdict.NOT_CHECKED, says)
    times = done.wire.piece_times
    first_s, last_s = times[0], times[-1]
    values = {"pieces": len(times), "first_s": first_s, "last_s": last_s}
    said = f"{len(times)} pieces, the first after {first_s:.2f} s, the last after {last_s:.2f} s"
    if last_s < _SHORTEST_STREAM_S:
        return Finding(subject, Verdict.NOT_CHECKED, f"{said}: too short to tell, ask for a longer answer", values)
    if first_s > _LATE * last_s:
        says = f"{said}: somebody in between holds the stream back, and must be told not to buffer this path"
        return Finding(subject, Verdict.WARNING, says, values)
    return Finding(subject, Verdict.OK, said, values)


def _says_sealed_only(response: httpx2.Response) -> bool:
    if response.headers.get("Content-Type") != PROBLEM_MEDIA_TYPE:
        return False
    try:
        title = json.loads(response.content)["title"]
    except (ValueError, KeyError, TypeError):
        return False
    return isinstance(title, str) and KEY_CONFIG_PATH in title  # where to get what it wants
