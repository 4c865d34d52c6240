"""A made file as it is read for its report.

What a stage said of it, and all that came before.

Whatever a stage of the chain is: it is read by its manifest and, where it left one, its report. A stage that this version does
not know is told with what every manifest has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from zoo.contracts import Input, first_fault, inputs_of
from zoo.data.made import OK, REPORT, beside, report_beside
from zoo.errors import ZooError
from zoo.pipeline.lineage import gpu_seconds, lineage_of_made_file
from zoo.reading import check_ordinary, read_json_object
from zoo.report.generated import statuses
from zoo.scores.certificate import Certificate
from zoo.store import Given, Made, file_sha256, made_files

ANSWERED = (OK, "cut")  # statuses of `zoo data generate` with an answer to every turn


class Count(BaseModel):
    """How many of what were used, or left out for which reason."""

    what: str
    reason: str
    count: int
    example: str = ""


class JudgeFacts(BaseModel):
    """Shares of all rows that a judge has judged."""

    model_config = ConfigDict(extra="allow")

    rows: int
    judge_ties: float
    judge_longer: float | None = None


class JudgeRecord(BaseModel):
    """What a label's report says of a judge, as far as it is shown."""

    certificate: Certificate | None = None
    borrowed: str = ""
    fault: str = ""
    all_rows: JudgeFacts


class FilterRecord(BaseModel):
    filter: str
    rows_lost: int
    rows: int


class StageReport(BaseModel):
    """What stages say of what they made, as far as it is shown.

    What else a report has is not read.
    """

    stage: str = ""
    counts: list[Count] = []
    totals: dict[str, int] = {}
    kept: dict[str, int] = {}
    artifacts: list[str] = []
    judges: dict[str, JudgeRecord] = {}
    filters: list[FilterRecord] = []
    warnings: list[str] = []

    @field_validator("judges", mode="before")
    @classmethod
    def _certified(cls, judges: Any) -> Any:
        """Those of a label: other stages say other things of their judges."""
        if not isinstance(judges, dict):
            return judges
        return {name: judge for name, judge in judges.items() if isinstance(judge, dict) and "all_rows" in judge}


@dataclass(frozen=True)
class MadeFile:
    """A file that stages of this package made.

    `report`: what the last of them said of it; `given`: its lineage.
    """

    path: Path
    sha256: str
    stage: str
    report: StageReport
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
    """A file that `zoo data prompts`, `generate`, `mine`, `judge` or `label` wrote.

    ZooError where neither the store nor a report beside it knows it, or the report is of another file.
    """
    check_ordinary(path, mend="give a file that was made here")
    given = lineage_of_made_file(store, path)
    if beside(path).is_file():
        report = _checked(report_beside(path), beside(path))
    else:
        report = next((report_of(made) for made in given.made_by), StageReport())
    named = tuple(made for made in given.made_by if made.name in report.artifacts)
    given = replace(given, made_by=named or given.made_by)  # of several that wrote the same bytes
    stage = report.stage or (given.made_by[0].stage if given.made_by else "")
    if not stage:
        raise ZooError(
            f"{path}: no artifact of {store} wrote it, and no {beside(path).name} lies beside it; give a file that "
            "`zoo data mine`, `prompts`, `generate`, `judge` or `label` wrote"
        )
    return MadeFile(path, file_sha256(path), stage, report, given)


def report_of(made: Made) -> StageReport:
    """The report that a stage left in its artifact; a blank one where it left none, or is gone."""
    path = made.artifact.path / REPORT if made.artifact else None
    if path is None or not path.is_file():
        return StageReport()
    return _checked(read_json_object(path, mend="`zoo verify` says what is wrong with it"), path)


def _checked(found: dict[str, Any], path: Path) -> StageReport:
    try:
        return StageReport.model_validate(found)
    except ValidationError as error:
        raise ZooError(f"{path}: not a report of made data ({first_fault(error)}); make the file again") from error


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
    for step in made.steps:
        if step.stage == "generate" and step.artifact:
            counts = statuses(step.artifact)
            rows = int(step.artifact.manifest.metrics.get("generate/rows", 0))
            parts = [_part(status, count, kept=status in ANSWERED) for status, count in counts.items()]
            found.append(_account(step.stage, step.name, "answered prompts", rows, parts))
        gone = step.artifact is None and step.name in made.report.artifacts
        found += _of_report(step.stage, step.name, made.report if gone else report_of(step))
    if not made.steps or made.stage == "generate":
        found += _of_report(made.stage, made.path.name, made.report)
    return found


def _of_report(stage: str, name: str, report: StageReport) -> list[dict[str, Any]]:
    found = []
    for what in dict.fromkeys([*report.totals, *(each.what for each in report.counts)]):
        own = [each for each in report.counts if each.what == what]
        parts = [_part(each.reason, each.count, each.example, kept=each.reason == OK) for each in own]
        if what in report.kept:
            parts.insert(0, _part("used", report.kept[what], kept=True))
        found.append(_account(stage, name, what, report.totals.get(what), parts))
    return found


def _part(reason: str, count: int, example: str = "", *, kept: bool) -> dict[str, Any]:
    return {"reason": reason, "count": count, "example": example, "kept": kept}


def _account(stage: str, name: str, what: str, total: int | None, parts: list[dict[str, Any]]) -> dict[str, Any]:
    closes = None if total is None else total == sum(part["count"] for part in parts)
    return {"stage": stage, "artifact": name, "what": what, "total": total, "parts": parts, "closes": closes}


def handovers(made: MadeFile) -> list[dict[str, Any]]:
    """Rows written and rows read, where a stage read what others wrote; they must agree."""
    found = []
    for step in made.steps:
        totals = report_of(step).totals
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
    """What each stage took on its machine: tokens, seconds, and seconds of all its GPUs."""
    found = []
    for step in made.steps:
        if step.artifact is None:
            continue
        manifest = step.artifact.manifest
        measured, machine = manifest.measurements, manifest.hardware.get("machine", "")
        seconds = measured.load_seconds + measured.run_seconds
        told_below = step.stage == "judge" and _has_its_scores(step)
        found.append(
            {
                "stage": step.stage,
                "artifact": step.name,
                "entry": step.entry,
                "rows": measured.rows,
                "tokens": measured.tokens,
                "seconds": seconds,
                "gpu_seconds": 0.0 if told_below else gpu_seconds(manifest),
                "machine": machine,
            }
        )
    return found


def _has_its_scores(judge: Made) -> bool:
    """Whether the scoring of a judge's pairs is in the store, and so in its lineage by itself."""
    scored = [given for given in judge.given if given.what.startswith("judges") and given.what.endswith("pairs")]
    return all(made.artifact for given in scored for made in given.made_by) and all(given.made_by for given in scored)
