"""A key agreement that the caller can check: both sides derive the same proof, and the secret never travels."""

import hmac
from typing import Annotated

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, StringConstraints

from examples.demo.key_history import KeyHistory
from server_keys import EphemeralKeys, InvalidPublicKeyError, KeyErasedError, KeyPair

PROOF_LABEL = b"server-keys demo"

PublicKeyHex = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$", to_lower=True)]

router = APIRouter()


class CurrentKey(BaseModel):
    """The server's current public key, and the seconds until it is replaced and erased."""

    public_key: PublicKeyHex
    replaced_in_s: float
    erased_in_s: float


class ExchangeRequest(BaseModel):
    """The caller's public key, and the server's key that the caller used."""

    server_public_key: PublicKeyHex
    public_key: PublicKeyHex


class ExchangeAnswer(BaseModel):
    """The proof that the server holds the same secret as the caller."""

    server_public_key: PublicKeyHex
    proof: str


@router.get("/key")
def current_key(keys: EphemeralKeys) -> CurrentKey:
    """Return the current public key."""
    public_key = keys.current.public_key.hex()
    replaced_in_s = keys.status.next_refresh_in_s or 0.0
    return CurrentKey(public_key=public_key, replaced_in_s=replaced_in_s, erased_in_s=replaced_in_s + keys.overlap_s)


@router.post("/exchange")
def exchange(asked: ExchangeRequest, keys: EphemeralKeys, request: Request) -> ExchangeAnswer:
    """Agree on a secret with the caller (X25519) and prove it.

    The answer is 409 for a server key that is no longer accepted, and 422 for a bad caller's key.
    """
    history: KeyHistory = request.app.state.key_history
    key_pair = _accepted_pair(keys.accepted, bytes.fromhex(asked.server_public_key))
    if key_pair is None:
        raise _stale(asked.server_public_key)
    try:
        shared_secret = key_pair.exchange(bytes.fromhex(asked.public_key))
    except InvalidPublicKeyError as error:
        raise HTTPException(422, f"public_key {asked.public_key}: {error}") from error
    except KeyErasedError as error:  # the ring erased it after the line that found it
        raise _stale(asked.server_public_key) from error
    history.note_agreement(key_pair.public_key)
    proof = proof_of_agreement(shared_secret, key_pair.public_key, bytes.fromhex(asked.public_key))
    return ExchangeAnswer(server_public_key=asked.server_public_key, proof=proof.hex())


def proof_of_agreement(shared_secret: bytes, server_public_key: bytes, caller_public_key: bytes) -> bytes:
    """Return HKDF-SHA256 (RFC 5869) of the secret: no salt, info = label ‖ server's key ‖ caller's key, 32 bytes."""
    pseudorandom_key = hmac.digest(bytes(32), shared_secret, "sha256")
    info = PROOF_LABEL + server_public_key + caller_public_key
    return hmac.digest(pseudorandom_key, info + b"\x01", "sha256")


def _accepted_pair(accepted: tuple[KeyPair, ...], public_key: bytes) -> KeyPair | None:
    return next((pair for pair in accepted if pair.public_key == public_key), None)


def _stale(server_public_key: str) -> HTTPException:
    return HTTPException(
        409,
        f"the server key {server_public_key[:16]}… is not accepted: it is erased, or was never this server's. "
        "Get the current one from GET /key and try again.",
    )
