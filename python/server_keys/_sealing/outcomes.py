"""What becomes of requests that the app does not get sealed: they are counted, and refusals answered and logged."""

from starlette.types import Scope, Send

from server_keys._sealing import answers
from server_keys._sealing.notices import RefusalLog
from server_keys._sealing.protected_app import ProtectedApp
from server_keys._sealing.recorder import Measured, Outcome
from server_keys._sealing.refusals import Refusal
from server_keys._sealing.spans import refusal_span
from server_keys._sealing.upload import Upload


class Outcomes:
    """Counts the requests to an app by their outcomes, and refuses some.

    Args:
        protected: the app.
    """

    def __init__(self, protected: ProtectedApp) -> None:
        self._protected = protected
        self._log = RefusalLog()

    def count(self, scope: Scope, outcome: Outcome) -> None:
        """Count a request that was neither opened nor refused."""
        recorder = self._protected.recorder(scope)
        if recorder is not None:
            recorder.count_request(outcome)

    def count_sealed(self, scope: Scope, measured: Measured) -> None:
        """Count a request that the app got."""
        recorder = self._protected.recorder(scope)
        if recorder is not None:
            recorder.count_sealed(measured)

    async def refuse(self, refusal: Refusal, scope: Scope, upload: Upload, send: Send) -> None:
        """Answer a request with a refusal that is counted, logged and traced."""
        ring = self._protected.ring(scope)
        if ring is not None:
            ring.count_refusal(refusal.reason)
        recorder = self._protected.recorder(scope)
        if recorder is not None:
            recorder.count_refusal(refusal.reason)
        self._log.add(refusal)
        with refusal_span(scope, refusal):
            await answers.send_answer(refusal.answer, scope, upload, answers.to_any_page(scope, send))
