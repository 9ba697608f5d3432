"""What a check found: for people as a table, for machines as JSON."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

_WIDTH = 78


class Verdict(StrEnum):
    """What a finding means."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Finding:
    """The answer to one question about a server."""

    subject: str
    verdict: Verdict
    says: str
    """What was found, and what to do about it."""
    values: dict[str, Any] = field(default_factory=dict)
    """What was measured, for machines: times in seconds."""


def has_failed(findings: Sequence[Finding], *, strict: bool) -> bool:
    """Return whether anything is wrong; with `strict`, warnings count, too."""
    bad = {Verdict.FAILURE, Verdict.WARNING} if strict else {Verdict.FAILURE}
    return any(finding.verdict in bad for finding in findings)


def as_table(url: str, findings: Sequence[Finding]) -> str:
    """Return the findings for people to read."""
    subjects = max(len(finding.subject) for finding in findings)
    verdicts = max(len(finding.verdict) for finding in findings)
    lines = [url, ""]
    for finding in findings:
        start = f"{finding.subject:<{subjects}}  {finding.verdict:<{verdicts}}  "
        says = textwrap.wrap(finding.says, _WIDTH, break_on_hyphens=False)
        lines.append(start + says[0])
        lines += [" " * len(start) + more for more in says[1:]]
    return "\n".join(lines)


def as_json(url: str, findings: Sequence[Finding], *, strict: bool) -> str:
    """Return the findings for machines: `ok`, and each one's subject, verdict, words and values."""
    listed = [
        {"subject": finding.subject, "verdict": str(finding.verdict), "says": finding.says, "values": finding.values}
        for finding in findings
    ]
    return json.dumps({"url": url, "ok": not has_failed(findings, strict=strict), "findings": listed}, indent=2)
