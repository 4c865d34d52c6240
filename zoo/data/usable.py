"""Battles as commands read them.

What was read is told, and so are the rows that cannot be used; too many of them stop the command.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.contracts import Say
from zoo.data.battles import Battles, read_battles
from zoo.data.rows import Problem
from zoo.data.tally import Tally
from zoo.errors import ZooError

MOST_BAD = 0.1  # share of the rows that cannot be used, above which a command stops
SHOWN = 5
REASON_CHARACTERS = 80


def usable_battles(
    path: Path, *, say: Say = lambda _: None, most_bad: float = MOST_BAD, keep: Sequence[str] = (), need_texts: bool = True
) -> Battles:
    """Read battles to work with.

    `say` gets what was read, and which rows cannot be used and why.
    `keep`, `need_texts`: as `read_battles` takes them.
    ZooError where those are more than the share `most_bad` of all, or `read_battles` raises one.
    """
    if not 0 <= most_bad <= 1:
        raise ZooError(f"--max-bad-rows {most_bad:g}: give a share of the rows, from 0 to 1")
    battles = read_battles(path, keep=keep, need_texts=need_texts)
    say(f"{path}: {len(battles.ids):,} rows; {battles.told}")
    if not battles.bad_ids:
        return battles
    share = len(battles.bad_ids) / len(battles.ids)
    if share > most_bad:
        raise ZooError(
            f"{path}: {unusable_line(battles)}: {share:.0%} of the rows, more than {most_bad:.0%}; mend them "
            "(`zoo data validate` lists all), or allow more with --max-bad-rows"
        )
    say(f"{path}: {unusable_line(battles)}")
    return battles


def read_rows(path: Path, keep: Sequence[str] = (), *, models: bool = False) -> Battles:
    """Read battles of which no row is fatal.

    Rows that nothing could be keyed by are left out, too: see `unkeyed_rows`. `keep`, `models`: as `read_battles` takes them.
    ZooError where the file as a whole cannot be used.
    """
    battles = read_battles(path, strict=False, keep=keep, models=models)
    whole = next((problem for problem in battles.problems if problem.fatal and problem.row_number is None), None)
    if whole:
        raise ZooError(f"{path}: {whole.message}; `zoo data validate` lists every problem")
    return battles


def unkeyed_rows(battles: Battles) -> list[Problem]:
    """The rows of a file that have no id of their own, of one id all but the first."""
    return [problem for problem in battles.problems if problem.fatal and problem.row_number is not None]


def unkeyed_records(battles: Battles) -> list[dict[str, Any]]:
    """Their counts by reason, as a report has them."""
    tally = Tally()
    for problem in unkeyed_rows(battles):
        reason = problem.kind.replace("_", " ")
        tally.add("rows", reason, f"{battles.path.name} row {problem.row_number} {problem.row_id or ''}".strip())
    return tally.records()


def unusable_line(battles: Battles) -> str:
    """How many rows are used and how many cannot be, with the first of these and why."""
    bad, shown = battles.bad_ids, battles.bad_ids[:SHOWN]
    reasons: dict[str, str] = {}
    for problem in battles.errors:
        if problem.row_id is not None:
            reasons.setdefault(problem.row_id, problem.message.split("; ")[0][:REASON_CHARACTERS])
    named = ", ".join(f"{row_id} ({reasons.get(row_id, 'cannot be read')})" for row_id in shown)
    more = f", and {len(bad) - len(shown):,} more" if len(bad) > len(shown) else ""
    return f"{len(battles.frame):,} of {len(battles.ids):,} rows used; {len(bad):,} cannot be: {named}{more}"


def unusable_digest(battles: Battles) -> str | None:
    """What identifies the rows that cannot be used; None where there are none.

    The battles' own digest leaves them out.
    """
    if not battles.bad_ids:
        return None
    return hashlib.sha256("\n".join(sorted(battles.bad_ids)).encode()).hexdigest()[:16]
