"""Who signed a server's keys: verified as a client does it, or told as what nobody has verified."""

import time
from collections.abc import Sequence

from server_keys._sealing.identity import public_key_of_identity
from server_keys._sealing.key_signature import KeySignature, identity_hash
from server_keys.client.identity import Identities, utc_time
from server_keys.command.doctor.findings import Finding, Verdict
from server_keys.command.doctor.wire import KeyAnswer, Target, key_address
from server_keys.errors import KeyRejectedError

_SUBJECT = "identity"


def of_identity(target: Target, answers: Sequence[KeyAnswer]) -> Finding:
    """Return whether an identity of the target has signed each of the keys, of which there is one at least."""
    keys = [answer for answer in answers if answer.public_key is not None]
    if not target.identities:
        return _not_checked(keys[-1].signature)
    refusals = [refusal for answer in keys if (refusal := _refusal(target, answer)) is not None]
    signature = keys[-1].signature
    if refusals or signature is None:
        says = refusals[-1]
        if len(refusals) < len(keys):
            says = f"on {len(refusals)} of {len(keys)} connections: {says}"
        values = {"verified": False, "connections": len(keys), "refused_on": len(refusals), **_values(signature)}
        return Finding(_SUBJECT, Verdict.FAILURE, says, values)
    identity = _named(target, signature)
    says = (
        f"verified: {identity} signed the keys on each of {len(keys)} connections, until {utc_time(signature.expires)}"
    )
    values = {"verified": True, "identity": identity, "connections": len(keys), "refused_on": 0, **_values(signature)}
    return Finding(_SUBJECT, Verdict.OK, says, values)


def _refusal(target: Target, answer: KeyAnswer) -> str | None:
    """Return why a client refuses the keys, and what it advises; None if it takes them."""
    try:
        Identities(target.identities).check(answer.body, str(key_address(target)), time.time())
    except KeyRejectedError as error:
        return str(error)
    return None


def _named(target: Target, signature: KeySignature) -> str:
    """Return the identity that made a signature which was verified."""
    hashes = {identity_hash(public_key_of_identity(each)): each for each in target.identities}
    return hashes[signature.identity_hash]


def _not_checked(signature: KeySignature | None) -> Finding:
    if signature is None:
        says = "the keys are not signed, so no client can check whose they are: --key-identity signs them"
    else:
        says = (
            f"some identity signed the keys (its SHA-256 begins with {signature.identity_hash.hex()}). Nobody has "
            "verified that it is your server's: --identity ed25519:... does"
        )
    return Finding(_SUBJECT, Verdict.NOT_CHECKED, says, {"verified": None, **_values(signature)})


def _values(signature: KeySignature | None) -> dict[str, object]:
    """Return what a signature says of itself: times in seconds since 1970."""
    if signature is None:
        return {"signed_by": None, "created": None, "expires": None}
    return {
        "signed_by": signature.identity_hash.hex(),
        "created": signature.created,
        "expires": signature.expires,
    }
