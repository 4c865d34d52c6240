"""A made file as it is read for its report: its rows, what a stage said of it, and all that came before.

Whatever a stage of the chain is: it is read by its manifest and, where it left one, its report. A stage that this version does
not know is told with what every manifest has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zoo.contracts import Input, inputs_of
from zoo.data.made import OK, REPORT, beside, report_beside
from zoo.errors import ZooError
from zoo.pipeline.lineage import lineage_of_made_file
from zoo.report.generated import statuses
from zoo.store import Given, Made, file_sha256, made_files

ANSWERED = (OK, "cut")  # statuses of `zoo data generate` with an answer to every turn


@dataclass(frozen=True)
class MadeFile:
    """A file that stages of this package made.

    `report`: what the last of them said of it; `given`: its lineage.
    """

    path: Path
    sha256: str
    stage: str
    report: Mapping[str, Any]
    given: Given

    @property
    def steps(self) -> list[Made]:
        """Every artifact of its lineage, the first stage first."""
        return list(made_files(self.given))[::-1]

    @property
    def last(self) -> list[Made]:
        """The artifacts that wrote it, as far as the store has them."""
        return [made for made in self.given.made_by if made.artifact is not None]


def read_made(store: Path, path: Path) -> MadeFile:
    """A file that `zoo data mine`, `generate`, `label` or a stage like them wrote.

    ZooError where neither the store nor a report beside it knows it, or the report is of another file.
    """
    given = lineage_of_made_file(store, path)
    if beside(path).is_file():
        report = report_beside(path)
    else:
        report = next((found for made in given.made_by if (found := report_of(made))), {})
    named = tuple(made for made in given.made_by if made.name in report.get("artifacts", ()))
    given = replace(given, made_by=named or given.made_by)  # of several that wrote the same bytes
    stage = str(report.get("stage") or (given.made_by[0].stage if given.made_by else ""))
    if not stage:
        raise ZooError(
            f"{path}: no artifact of {store} wrote it, and no {beside(path).name} lies beside it; give a file that "
            "`zoo data mine`, `generate` or `label` wrote"
        )
    return MadeFile(path, file_sha256(path), stage, report, given)


def report_of(made: Made) -> dict[str, Any]:
    """The report that a stage left in its artifact; empty where it left none, or is gone."""
    path = made.artifact.path / REPORT if made.artifact else None
    if path is None or not path.is_file():
        return {}
    found = json.loads(path.read_bytes())
    return found if isinstance(found, dict) else {}


def input_files(made: Made, name: str) -> Iterator[Path]:
    """The files of one of an artifact's inputs, those that are unchanged where they lay."""
    value = getattr(made.artifact.manifest.request, name, None) if made.artifact else None
    for given in inputs_of(value) if value is not None else ():
        if is_unchanged(given):
            yield given.path


def is_unchanged(given: Input) -> bool:
    """Whether a file that a stage was given by its bytes is still there, and the same."""
    place = given.place
    return place is not None and place.is_file() and file_sha256(place)[:16] == given.fingerprint


def accounts(made: MadeFile) -> list[dict[str, Any]]:
    """What became of all that each stage was given, by stage and reason.

    `total` is the stage's own count of what it read, `kept` of what it used, and `closes` says whether that and all reasons
    together are `total`; None where the stage gave no total.
    """
    found: list[dict[str, Any]] = []
    told = {name for name in made.report.get("artifacts", ())}
    for step in made.steps:
        if step.stage == "generate" and step.artifact:
            counts = statuses(step.artifact)
            rows = int(step.artifact.manifest.metrics.get("generate/rows", 0))
            parts = [_part(status, count, kept=status in ANSWERED) for status, count in counts.items()]
            found.append(_account(step.stage, step.name, "answered prompts", rows, parts))
        found += _of_report(step.stage, step.name, report_of(step) or (made.report if step.name in told else {}))
    if not made.steps or made.stage == "generate":
        found += _of_report(made.stage, made.path.name, made.report)
    return found


def _of_report(stage: str, name: str, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    counts, totals, kept = (report.get(key) or default for key, default in (("counts", []), ("totals", {}), ("kept", {})))
    found = []
    for what in dict.fromkeys([*totals, *(each["what"] for each in counts)]):
        parts = [
            _part(each["reason"], int(each["count"]), str(each.get("example", "")), kept=each["reason"] == OK)
            for each in counts
            if each["what"] == what
        ]
        if what in kept:
            parts.insert(0, _part("used", int(kept[what]), kept=True))
        found.append(_account(stage, name, what, totals.get(what), parts))
    return found


def _part(reason: str, count: int, example: str = "", *, kept: bool) -> dict[str, Any]:
    return {"reason": reason, "count": count, "example": example, "kept": kept}


def _account(stage: str, name: str, what: str, total: int | None, parts: list[dict[str, Any]]) -> dict[str, Any]:
    closes = None if total is None else total == sum(part["count"] for part in parts)
    return {"stage": stage, "artifact": name, "what": what, "total": total, "parts": parts, "closes": closes}


def handovers(made: MadeFile) -> list[dict[str, Any]]:
    """Where one stage of the chain read what others wrote: rows written and rows read, which must agree."""
    found = []
    for step in made.steps:
        totals = report_of(step).get("totals", {})
        for what, name in (("logs", "conversations"), ("pairs", "pairs")):
            given = [each for each in step.given if each.what.split(" ")[0] == what]
            makers = [each.made_by for each in given]
            if step.stage in ("mine", "label", "judge") and name in totals and makers and all(makers):
                written = [rows_of(one) for each in makers for one in each]
                if None not in written:
                    rows = sum(count for count in written if count is not None)
                    found.append({"stage": step.stage, "read": what, "written": rows, "rows": totals[name]})
    return found


def rows_of(made: Made) -> int | None:
    """Rows that an artifact wrote; None where it is gone or does not say."""
    if made.artifact is None:
        return None
    metrics = made.artifact.manifest.metrics
    rows = next((metrics[name] for name in ("generate/rows", "made/rows") if name in metrics), None)
    return None if rows is None else int(rows)


def costs(made: MadeFile) -> list[dict[str, Any]]:
    """What each stage took on its machine: tokens, seconds, and seconds of all GPUs of that machine."""
    found = []
    for step in made.steps:
        if step.artifact is None:
            continue
        manifest = step.artifact.manifest
        measured, machine = manifest.measurements, manifest.hardware.get("machine", "")
        seconds = measured.load_seconds + measured.run_seconds
        gpus = sum(int(count) for count in re.findall(r"(?:^|\+ )(\d+) x ", machine))
        found.append(
            {
                "stage": step.stage,
                "artifact": step.name,
                "entry": step.entry,
                "rows": measured.rows,
                "tokens": measured.tokens,
                "seconds": seconds,
                "gpu_seconds": manifest.metrics.get("generate/gpu_seconds", seconds * gpus),
                "machine": machine,
            }
        )
    return found
