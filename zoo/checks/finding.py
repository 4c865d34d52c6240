"""One finding of a check, with the mend."""

from __future__ import annotations

from typing import Literal

from zoo.contracts import Contract

Verdict = Literal["ok", "info", "warn", "fail"]


class Finding(Contract):
    """One thing that was checked. `what` says how it stands, `mend` what to do about it.

    `info` is no judgement: it says what would hold where the entry asked for something else.
    """

    check: str
    verdict: Verdict
    what: str
    mend: str = ""


def ok(check: str, what: str) -> Finding:
    return Finding(check=check, verdict="ok", what=what)


def info(check: str, what: str) -> Finding:
    return Finding(check=check, verdict="info", what=what)


def warn(check: str, what: str, mend: str) -> Finding:
    return Finding(check=check, verdict="warn", what=what, mend=mend)


def fail(check: str, what: str, mend: str) -> Finding:
    return Finding(check=check, verdict="fail", what=what, mend=mend)
