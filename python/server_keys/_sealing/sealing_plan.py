"""How an app is to seal bodies: what users ask for, checked."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

from starlette.types import ASGIApp

from server_keys._checks import (
    Place,
    Replay,
    Required,
    StoreAway,
    checked_max_buffered_bytes,
    checked_max_frame_bytes,
    checked_open_paths,
    checked_place,
    checked_replay,
    checked_required,
)
from server_keys._sealing.middleware import EncryptedBodyMiddleware
from server_keys._sealing.signer import Signer, checked_identity

_STRICTNESS: dict[Required, int] = {False: 0, True: 1, "v1": 2}
_TAKES: dict[Required, str] = {False: "takes bodies in plaintext", True: "takes more than version 1 of the wire"}


@dataclass(frozen=True)
class SealingPlan:
    """The arguments of an app's `EncryptedBodyMiddleware`."""

    required: Required
    place: Place
    replay: Replay
    store_away: StoreAway | None
    open_paths: tuple[str, ...]
    max_frame_bytes: int
    max_buffered_bytes: int
    identity: str | Signer | None

    @classmethod
    def checked(
        cls,
        required: Required,
        place: Place,
        replays: tuple[Replay, StoreAway | None],
        open_paths: Sequence[str],
        limits: tuple[int, int],
        identity: str | os.PathLike[str] | Signer | None,
    ) -> Self:
        """Return the plan that a user asks for.

        Raises:
            TypeError: one is of another type.
            ValueError: one has no known form, or is out of its range.
        """
        max_frame_bytes, max_buffered_bytes = limits
        return cls(
            checked_required(required),
            checked_place(place),
            *checked_replay(*replays),
            checked_open_paths(open_paths),
            checked_max_frame_bytes(max_frame_bytes),
            checked_max_buffered_bytes(max_buffered_bytes, max_frame_bytes),
            None if identity is None else checked_identity(identity),
        )

    def require_compatible(self, other: "SealingPlan") -> None:
        """Check that an app which seals like this already does what `other` asks for.

        Raises:
            RuntimeError: it does not; the message says why.
        """
        if _STRICTNESS[other.required] > _STRICTNESS[self.required]:
            raise RuntimeError(
                f"the app is protected already, and {_TAKES[self.required]}: pass required={other.required!r} to the "
                "call that protected it first"
            )
        for name in (field.name for field in fields(self) if field.name != "required"):
            has, asked = getattr(self, name), getattr(other, name)
            if has != asked:
                raise RuntimeError(
                    f"the app is protected already, with {name}={has!r}, and cannot have {name}={asked!r}, too: give "
                    "both calls the same"
                )

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return `app` with sealed bodies."""
        return EncryptedBodyMiddleware(
            app,
            required=self.required,
            place=self.place,
            replay=self.replay,
            store_away=self.store_away,
            open_paths=self.open_paths,
            max_frame_bytes=self.max_frame_bytes,
            max_buffered_bytes=self.max_buffered_bytes,
            identity=self.identity,
        )
