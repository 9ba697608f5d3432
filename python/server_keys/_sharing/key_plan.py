"""How the keys of an app are to live, and with whom they are shared: what users ask for, checked."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from server_keys._keys.schedule import Schedule
from server_keys._sharing.share import Share, checked_share


@dataclass(frozen=True)
class KeyPlan:
    """A schedule, and the others who share the keys. An app's keys have only one."""

    schedule: Schedule
    share: Share

    @classmethod
    def checked(
        cls,
        schedule: Schedule,
        share: str | None,
        group_secret_file: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> Self:
        """Return the plan that a user asks for.

        Raises:
            TypeError: `share` or the path is of another type.
            ValueError: `share` has no known form, or lacks its secret, or is for longer refresh times.
        """
        checked = checked_share(
            share,
            period_s=schedule.period_s,
            overlap_s=schedule.overlap_s,
            group_secret_file=group_secret_file,
            environment=environment,
        )
        return cls(schedule, checked)

    def require_same(self, other: "KeyPlan") -> None:
        """Check that `other` is the same plan.

        Raises:
            RuntimeError: it is another one; the message names both.
        """
        self.schedule.require_same(other.schedule)
        if other.share != self.share:
            raise RuntimeError(
                f"the app's keys are shared by share={self.share.shown} already, and cannot be shared by "
                f"share={other.share.shown}, too: give the same in both places, or leave one of them out"
            )
