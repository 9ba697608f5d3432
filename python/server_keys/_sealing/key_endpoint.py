"""The endpoint at which clients fetch the public keys, signed if the server has an identity."""

from starlette.types import Scope, Send

from server_keys._keys.ring import KeyRing
from server_keys._sealing import answers
from server_keys._sealing.outcomes import Outcomes
from server_keys._sealing.protected_app import ProtectedApp
from server_keys._sealing.published_key import content_of, key_page
from server_keys._sealing.recorder import Outcome
from server_keys._sealing.refusals import KEY_PATH_METHOD, key_not_signed, refusal_of
from server_keys._sealing.signed_answers import NotSignedError, SignedAnswers, seconds_to_wait
from server_keys._sealing.upload import Upload
from server_keys.errors import KeysUnavailableError


class KeyEndpoint:
    """Publishes the keys of an app.

    Args:
        protected: the app.
        outcomes: counts the requests, and refuses those that cannot be answered.
        signed_answers: signs what is published; None where nobody does.
    """

    def __init__(self, protected: ProtectedApp, outcomes: Outcomes, signed_answers: SignedAnswers | None) -> None:
        self._protected = protected
        self._outcomes = outcomes
        self._signed_answers = signed_answers

    async def serve(self, scope: Scope, upload: Upload, send: Send) -> None:
        """Answer a request for the keys."""
        if scope["method"] not in ("GET", "HEAD"):
            return await self._outcomes.refuse(KEY_PATH_METHOD, scope, upload, send)
        try:
            answer = await self._key_page(await self._protected.ready_ring(scope))
        except KeysUnavailableError as error:
            return await self._outcomes.refuse(refusal_of(error), scope, upload, send)
        except NotSignedError as error:
            refusal = key_not_signed(str(error), retry_in_s=seconds_to_wait(error))
            return await self._outcomes.refuse(refusal, scope, upload, send)
        self._outcomes.count(scope, Outcome.KEY)
        await answers.send_answer(answer, scope, upload, answers.to_any_page(scope, send))

    async def _key_page(self, ring: KeyRing) -> answers.Answer:
        """Return what publishes the ring's keys.

        Raises:
            KeysUnavailableError: there are no keys.
            NotSignedError: there are none that are signed.
        """
        if self._signed_answers is None:
            return key_page(content_of(ring.current_pairs), ring.current_accepted_for_s)
        ring.tell_of_identity(self._signed_answers.tell)
        return await self._signed_answers.answer(ring)
