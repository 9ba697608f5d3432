"""What a server's key tells: what it is, how long it lives, whether all processes have the same, whether it rotates."""

import itertools
import re
import time
from collections.abc import Sequence

import httpx2

from server_keys._native import FrameTooLargeError, MalformedMessageError
from server_keys.command.doctor.findings import Finding, Verdict
from server_keys.command.doctor.wire import KeyAnswer, Target, exchange, fetch_key
from server_keys.errors import SealedTransportError

HARMLESS_PATH = "/.well-known/server-keys-check"
"""A path that no server has. What is sent there starts nothing."""

_MAX_AGE = re.compile(r"max-age=(\d+)")
# What the client of this package keeps a key for at most.
_LONGEST_S = 3600
_SHARED_CACHES = ("age", "x-cache", "cf-cache-status")
_MOST_TRIED = 4


def of_key(answer: KeyAnswer, url: httpx2.URL) -> Finding:
    """Return whether the answer is a key that clients can use."""
    if answer.public_key is None:
        kind = answer.headers.get("Content-Type", "no Content-Type")
        says = (
            f"{url} answered with status {answer.status} and {kind}, and not with a key of EHBP: protect the server's "
            "app, or tell where its key is (--key-url)"
        )
        return Finding("key", Verdict.FAILURE, says, {"status": answer.status})
    kind = "X25519, and X-Wing for version 1 of the wire" if answer.offers_v1 else "X25519, for plain EHBP only"
    says = f"{answer.key_id}: {kind}; it came in {answer.took_s * 1000:.0f} ms"
    values = {"key_id": answer.key_id, "offers_v1": answer.offers_v1, "took_s": answer.took_s}
    return Finding("key", Verdict.OK, says, values)


def of_way(answer: KeyAnswer, target: Target, *, is_verified: bool) -> Finding:
    """Return whether somebody on the way could replace the key, which nobody can if an identity vouches for it."""
    if answer.tls is not None:
        return Finding("way of the key", Verdict.OK, f"it came over {answer.tls}", {"tls": answer.tls})
    if target.upstream.is_on_this_host:
        return Finding("way of the key", Verdict.OK, "it stayed on this host", {"tls": None})
    if is_verified:
        says = "it came over plain http, and clients that name the identity take no other"
        return Finding("way of the key", Verdict.OK, says, {"tls": None})
    says = (
        "it came over plain http: anybody on the way can replace it. Use https, or have it signed (--key-identity) "
        "and clients check that (identity=, --identity)"
    )
    return Finding("way of the key", Verdict.WARNING, says, {"tls": None})


def of_lifetime(answer: KeyAnswer) -> Finding:
    """Return for how long clients may keep the key."""
    max_age_s = max_age(answer)
    values = {"max_age_s": max_age_s}
    if "no-store" in answer.headers.get("Cache-Control", ""):
        return Finding("lifetime", Verdict.OK, "clients ask for it each time (no-store)", values)
    if max_age_s is None:
        says = "the answer does not say how long it lives, so it may never change: clients ask anew after an hour"
        return Finding("lifetime", Verdict.WARNING, says, values)
    if max_age_s > _LONGEST_S:
        says = f"clients may keep it for {max_age_s} s: a key that lives so long opens what was recorded for as long"
        return Finding("lifetime", Verdict.WARNING, says, values)
    return Finding("lifetime", Verdict.OK, f"clients may keep it for {max_age_s} s from now on", values)


def of_caches(answers: Sequence[KeyAnswer]) -> Finding:
    """Return whether a cache that many share keeps the key."""
    seen = {
        f"{name}: {answer.headers[name]}"
        for answer in answers
        for name in _SHARED_CACHES
        if name in answer.headers and answer.headers[name].upper() not in ("0", "MISS", "BYPASS", "DYNAMIC")
    }
    if seen:
        says = f"a cache on the way keeps the key ({', '.join(sorted(seen))}): let it pass this path by"
        return Finding("caches", Verdict.FAILURE, says, {"headers": sorted(seen)})
    return Finding("caches", Verdict.OK, "none on the way keeps the key", {"headers": []})


def of_processes(target: Target, answers: Sequence[KeyAnswer]) -> Finding:
    """Return whether everybody behind the address has the same keys."""
    ids = [answer.key_id for answer in answers]
    values = {"connections": len(ids), "keys": sorted(set(ids))}
    if _comes_back(ids):
        says = (
            f"{len(set(ids))} different keys from {len(ids)} connections: processes behind this address have keys of "
            "their own, and refuse each other's requests. Let them share one ring (share=, --key-share)"
        )
        return Finding("processes", Verdict.FAILURE, says, values)
    accepted, tried = _accepted(target, answers[-1], min(len(ids), _MOST_TRIED))
    values |= {"accepted_on": accepted, "tried_on": tried}
    if accepted < tried:
        says = f"the key is refused on {tried - accepted} of {tried} other connections: let the processes share a ring"
        return Finding("processes", Verdict.FAILURE, says, values)
    rotated = ", and it was replaced meanwhile" if len(set(ids)) > 1 else ""
    says = f"the same key on each of {len(ids)} connections{rotated}"
    return Finding("processes", Verdict.OK, says + (f", and accepted on {tried} others" if tried else ""), values)


def of_rotation(target: Target, first: KeyAnswer, wait_s: float) -> Finding:
    """Wait for the key to be replaced, and return whether its predecessor is still accepted then."""
    if wait_s <= 0:
        says = "--wait-s SECONDS waits until the key is replaced"
        return Finding("rotation", Verdict.NOT_CHECKED, says)
    began_at = time.monotonic()
    newest = first
    while newest.key_id == first.key_id and (left_s := began_at + wait_s - time.monotonic()) > 0:
        time.sleep(min(left_s, max(0.1, wait_s / 100)))
        try:
            newest = fetch_key(target)
        except httpx2.TransportError as error:
            waited_s = time.monotonic() - began_at
            says = f"after {waited_s:.0f} s there was no answer any more ({type(error).__name__})"
            return Finding("rotation", Verdict.FAILURE, says, {"waited_s": waited_s})
    waited_s = time.monotonic() - began_at
    values: dict[str, object] = {"waited_s": waited_s, "changed": newest.key_id != first.key_id}
    if newest.public_key is None:
        return Finding("rotation", Verdict.FAILURE, f"after {waited_s:.0f} s there was no key any more", values)
    if newest.key_id == first.key_id:
        return _not_replaced(first, waited_s, values)
    accepted, tried = _accepted(target, first, 1)
    values["predecessor_accepted"] = bool(accepted) if tried else None
    if accepted < tried:
        says = f"replaced after {waited_s:.0f} s, and its predecessor is refused at once: give it an overlap"
        return Finding("rotation", Verdict.WARNING, says, values)
    says = f"replaced after {waited_s:.0f} s" + (", and its predecessor is still accepted" if tried else "")
    return Finding("rotation", Verdict.OK, says, values)


def max_age(answer: KeyAnswer) -> int | None:
    """Return for how many seconds clients may keep the key, or None if the answer does not tell."""
    found = _MAX_AGE.search(answer.headers.get("Cache-Control", "").lower())
    return int(found[1]) if found else None


def _not_replaced(first: KeyAnswer, waited_s: float, values: dict[str, object]) -> Finding:
    max_age_s = max_age(first)
    # A server that goes by its defaults replaces a key once in the time for which the key is accepted afterwards.
    if max_age_s is not None and waited_s > 2 * max_age_s + 10:
        says = f"not replaced in {waited_s:.0f} s, which is more than twice its lifetime: do its refreshes fail?"
        return Finding("rotation", Verdict.WARNING, says, values)
    return Finding("rotation", Verdict.NOT_CHECKED, f"not replaced in {waited_s:.0f} s: wait longer (--wait-s)", values)


def _comes_back(ids: Sequence[str]) -> bool:
    """Return whether a key was seen again after another one: a rotation does not come back."""
    ended: set[str] = set()
    for before, now in itertools.pairwise(ids):
        if now != before:
            ended.add(before)
        if now in ended:
            return True
    return False


def _accepted(target: Target, key: KeyAnswer, connections: int) -> tuple[int, int]:
    """Return on how many new connections `key` is accepted, and on how many the answer tells."""
    accepted = tried = 0
    for _ in range(connections):
        try:
            done = exchange(target, key, target.request("POST", HARMLESS_PATH, body=b"{}"))
        except (SealedTransportError, MalformedMessageError, FrameTooLargeError, httpx2.RequestError):
            continue
        accepted += done.is_sealed
        tried += done.is_sealed or done.is_key_refused
    return accepted, tried
