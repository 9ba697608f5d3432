"""What an identity costs: a signature for each epoch, the check of a key answer, and the key's page."""

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import nacl.signing
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benches.comparison import Comparison, Panel, Target
from benches.measure import Measure
from benches.units import format_seconds
from server_keys import KeyRing
from server_keys._native import SigningKey
from server_keys._sealing.published_key import content_of, key_page
from server_keys._sealing.signed_answers import SignedAnswers
from server_keys.client.identity import Identities
from tests.helpers.signed_answers import XWING_ENTRY, OtherSigner, key_answer

_OWN: Final = "server_keys"
_CRYPTOGRAPHY: Final = "cryptography"
_PYNACL: Final = "PyNaCl"
_WITH: Final = "with an identity"
_WITHOUT: Final = "without"
SIGNING: Final = Comparison(
    title="Signing a key answer",
    description="Ed25519 over 1.3 KB, once an epoch. server_keys keeps the seed alone, and derives the rest each time.",
    reference=_CRYPTOGRAPHY,
    speedup_title="speed against cryptography",
    panel=Panel("Signing a key answer", "once an epoch", (_OWN, _CRYPTOGRAPHY, _PYNACL)),
)
CHECKING: Final = Comparison(
    title="Checking a key answer",
    description="All that a client checks of 1.4 KB; the others check the signature alone.",
    reference=_CRYPTOGRAPHY,
    speedup_title="speed against cryptography",
    targets=(
        Target(
            "a signed key answer is checked in 250 us",
            lambda measured: measured.time(_OWN),
            at_most=250e-6,
            format_value=format_seconds,
        ),
    ),
)
PAGE: Final = Comparison(
    title="Answering with the key",
    description="What the middleware makes of a question for the key, without HTTP.",
    reference=_WITHOUT,
    speedup_title="speed against no identity",
)
COMPARISONS: Final = (SIGNING, CHECKING, PAGE)

_SIGNER: Final = OtherSigner(bytes(range(32)))
_CREATED: Final = int(time.time())
_ANSWER: Final = _SIGNER.signed(key_answer(XWING_ENTRY), _CREATED, _CREATED + 100_000)
_PAGES: Final = 100
_MESSAGE: Final = bytes(50) + key_answer(XWING_ENTRY)


def _own_key() -> SigningKey:
    with tempfile.TemporaryDirectory() as folder:
        return SigningKey.from_file(_SIGNER.write_to(Path(folder) / "server.key"))


@pytest.mark.parametrize("contestant", [_OWN, _CRYPTOGRAPHY, _PYNACL])
def bench_signing(measure: Measure, contestant: str) -> None:
    signs: dict[str, Callable[[bytes], object]] = {
        _OWN: _own_key().sign,
        _CRYPTOGRAPHY: Ed25519PrivateKey.from_private_bytes(_SIGNER.seed).sign,
        _PYNACL: nacl.signing.SigningKey(_SIGNER.seed).sign,
    }
    sign = signs[contestant]
    measure(SIGNING, contestant, lambda: sign(_MESSAGE))


@pytest.mark.parametrize("contestant", [_OWN, _CRYPTOGRAPHY, _PYNACL])
def bench_checking(measure: Measure, contestant: str) -> None:
    identities, signature = Identities(_SIGNER.identity), _SIGNER.sign(_MESSAGE)
    public_key = Ed25519PrivateKey.from_private_bytes(_SIGNER.seed).public_key()
    other = nacl.signing.VerifyKey(_SIGNER.public_key)
    checks: dict[str, Callable[[], object]] = {
        _OWN: lambda: identities.check(_ANSWER, "https://a", _CREATED),
        _CRYPTOGRAPHY: lambda: public_key.verify(signature, _MESSAGE),
        _PYNACL: lambda: other.verify(_MESSAGE, signature),
    }
    measure(CHECKING, contestant, checks[contestant])


@pytest.mark.parametrize("contestant", [_WITH, _WITHOUT])
def bench_page(measure: Measure, contestant: str) -> None:
    with tempfile.TemporaryDirectory() as folder, KeyRing(300) as ring, asyncio.Runner() as runner:
        path = Path(folder) / "server.key"
        SigningKey.new_file(path)
        answers = SignedAnswers(str(path))

        async def page() -> object:
            if contestant == _WITH:
                return await answers.answer(ring)
            return key_page(content_of(ring.current_pairs), ring.current_accepted_for_s)

        async def pages() -> None:
            for _ in range(_PAGES):
                await page()

        runner.run(pages())
        measure(PAGE, contestant, lambda: runner.run(pages()), operations=_PAGES)
