"""One finding of a check, with the mend."""

from __future__ import annotations

from typing import Literal

from zoo.contracts import Contract

Verdict = Literal["ok", "warn", "fail"]


class Finding(Contract):
    """One thing that was checked. `what` says how it stands, `mend` what to do about it."""

    check: str
    verdict: Verdict
    what: str
    mend: str = ""


def ok(check: str, what: str) -> Finding:
    return Finding(check=check, verdict="ok", what=what)


def warn(check: str, what: str, mend: str) -> Finding:
    return Finding(check=check, verdict="warn", what=what, mend=mend)


def fail(check: str, what: str, mend: str) -> Finding:
    return Finding(check=check, verdict="fail", what=what, mend=mend)
