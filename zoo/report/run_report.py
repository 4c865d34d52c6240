"""The report of a run: data, recipe, curves, ladder, slices, cost and lineage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.contracts import LadderRequest, Manifest, inputs_of
from zoo.cost.price import price_of
from zoo.data.battles import Battles, dataset_digest, labels_digest, read_battles
from zoo.data.stats import battle_stats
from zoo.errors import ZooError, amount
from zoo.pipeline.lineage import gpu_seconds
from zoo.pipeline.members import Member, score_tables, standing
from zoo.report.figures import curves_figure
from zoo.report.insight import Insight, calibration_table, member_insight, slices_table, told_text
from zoo.report.ladder import ladder_figure, ladder_table
from zoo.report.lineage import lineage_page
from zoo.report.sections import Drawn, Section
from zoo.report.text import Cell, Column, Table, digits
from zoo.scores.ladder import steps_from_metrics
from zoo.scores.metric_names import HOURS_25K, LOG_LOSS, LOG_LOSS_SE, find_metric
from zoo.scores.named import artifacts_named
from zoo.scores.tables import OK, variant_metrics
from zoo.store import Artifact, Made, file_sha256, leave_out, lineage, list_artifacts, made_files, read_manifest

if TYPE_CHECKING:
    import pandas as pd

Settings = Callable[[Manifest], Mapping[str, str]]
Curves = Callable[[Path, Mapping[str, float]], Mapping[str, Sequence[tuple[int, float]]]]
TRAINED = ("train", "lexical-train")


@dataclass(frozen=True)
class Run:
    """What a report is on: a stage's artifact, or those of a member's folds.

    `member` is that of a scored variant. `roots`: their lineages; `steps`: every artifact in these, the first stage first.
    """

    name: str
    artifacts: tuple[Artifact, ...]
    member: Member | None
    roots: tuple[Made, ...]
    steps: tuple[Artifact, ...]

    @property
    def last(self) -> Manifest:
        """The manifest that the run is known by."""
        return self.artifacts[-1].manifest

    @property
    def own(self) -> list[Artifact]:
        """The steps of its own entry: what others made its data with is in the lineage alone."""
        return [step for step in self.steps if step.manifest.request.entry == self.last.request.entry]

    @property
    def title(self) -> str:
        """What it is, for people."""
        if self.member is not None:
            return self.member.table.name
        stage, entry = self.last.stage, self.last.request.entry
        return stage if entry in (stage, "data") else f"{stage} {entry}"


def find_run(store: Path, name: str) -> Run:
    """The run that a name means: a member, or a fingerprint or folder of a stage.

    ZooError where it means none.
    """
    folders = artifacts_named(store, [name])
    artifacts = [Artifact(folder, read_manifest(folder)) for folder in folders]
    member = _member(store, name, {artifact.fingerprint for artifact in artifacts})
    if member is not None:
        parts = [part.fingerprint for part in member.parts]
        artifacts = sorted((a for a in artifacts if a.fingerprint in parts), key=lambda a: parts.index(a.fingerprint))
    else:
        artifacts = artifacts[-1:]
    roots = tuple(lineage(store, artifact) for artifact in artifacts)
    made = {one.name: one.artifact for root in roots for one in made_files(root) if one.artifact}
    steps = sorted(made.values(), key=lambda artifact: artifact.manifest.created_at)
    return Run(name, tuple(artifacts), member, roots, tuple(steps))


def _member(store: Path, name: str, fingerprints: set[str]) -> Member | None:
    """The member of that name, or the first variant of the artifact that was named; the newest data set's of several."""
    tables = [table for table in score_tables(store) if table.fingerprint in fingerprints]
    named = [table for table in tables if table.name == name] or tables
    members = standing(named, [table.which for table in named if table.is_called(name)]).members
    return max(members, key=lambda m: max(p.manifest.created_at for p in m.parts if p.manifest), default=None)


@dataclass(frozen=True)
class Report:
    """What is told of a run: name, a line below, headline numbers and labels, and sections."""

    title: str
    subtitle: str
    tiles: list[tuple[str, str]]
    sections: list[Section]


def report_of(store: Path, run: Run, settings: Settings, curves: Curves) -> Report:
    """Everything that is known of a run.

    `settings` and `curves`: how a stage's settings are told, and where its curves are, as `zoo.tracking.facts` has them: a
    report and MLflow say the same.
    """
    battles = _battles(run)
    insight = _insight(run, battles)
    metrics = _metrics(run, insight)
    found = [
        Section("Numbers", [_numbers(metrics)]),
        Section("Data", _data(run, battles)),
        Section("Recipe", [_recipe(run, settings)]),
        Section("Curves", _curves(run, curves)),
        Section("Ladder", _ladder(store, run, battles)),
        Section("Slices", _slices(run, battles, insight)),
        Section("Cost", _cost(run)),
        Section("Lineage", [*lineage_page(list(run.roots))]),
    ]
    last = run.last
    subtitle = f"{', '.join(a.path.name for a in run.artifacts)}; {last.created_at:%Y-%m-%d %H:%M} UTC"
    return Report(run.title, subtitle, _tiles(run, metrics), [section for section in found if section.blocks])


def _tiles(run: Run, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """The headline numbers."""
    tiles = []
    if LOG_LOSS in metrics:
        error = f", ± {metrics[LOG_LOSS_SE]:.4f}" if LOG_LOSS_SE in metrics else ""
        tiles.append((f"{metrics[LOG_LOSS]:.4f}", f"log loss{error}"))
    measured = [artifact.manifest.measurements for artifact in run.own]
    seconds = sum(m.load_seconds + m.run_seconds for m in measured)
    tiles.append((_time(seconds), f"for {amount(len(run.own), 'stage')}"))
    gpu = sum(gpu_seconds(artifact.manifest) for artifact in run.own)
    if gpu:
        tiles.append((_time(gpu), "of GPUs"))
    peak = max((m.peak_bytes for m in measured), default=0)
    return [*tiles, (f"{peak / 2**30:.1f} GiB", "memory at its peak")] if peak else tiles


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def _metrics(run: Run, insight: Insight | None) -> dict[str, float]:
    """Metrics of the run; of a member of several folds those of all their rows, where the battles are at hand."""
    if run.member is None:
        return run.last.metrics
    if insight is not None and len(run.member.parts) > 1:
        return insight.metrics
    return variant_metrics(run.last, run.member.table.path.name) or run.last.metrics


def _numbers(metrics: Mapping[str, float]) -> Table:
    rows: list[list[Cell]] = []
    for name, value in sorted(metrics.items()):
        metric = find_metric(name)
        rows.append([name, value, metric.unit if metric else "", metric.meaning if metric else ""])
    return Table([Column("metric"), Column("value", form=digits(6)), Column("unit"), Column("what", prose=True)], rows)


def _battles(run: Run) -> Battles | None:
    """The labelled battles of the run, where they still lie as they were read."""
    read = [step.manifest.request.inputs for step in run.own]
    given = next((inputs["battles"] for inputs in reversed(read) if "battles" in inputs), None)
    if given is None or given.place is None or not given.place.is_file():
        return None
    try:
        battles = read_battles(given.place)
    except ZooError as error:
        leave_out(error)
        return None
    same = given.fingerprint in (dataset_digest(battles), labels_digest(battles), file_sha256(given.place)[:16])
    return battles if same else None


def _insight(run: Run, battles: Battles | None) -> Insight | None:
    if run.member is None or battles is None or not battles.labelled:
        return None
    try:
        return member_insight(run.member.parts, run.member.table.name, battles)
    except ZooError as error:
        leave_out(error)
        return None


def _data(run: Run, battles: Battles | None) -> list[str | Table | Drawn]:
    rows: list[list[Cell]] = []
    for step in run.own:
        for given in inputs_of(step.manifest.request):
            place = given.place
            if place is not None and not place.name.endswith(f"-{given.fingerprint}"):
                rows.append([step.manifest.stage, place.name, given.fingerprint[:16]])
    unique = list(dict.fromkeys(map(tuple, rows)))
    table = Table([Column("stage"), Column("file", prose=True), Column("digest")], [list(row) for row in unique])
    if battles is None:
        return [table] if unique else []
    stats = battle_stats(battles)
    facts: list[list[Cell]] = [
        ["rows", f"{stats['rows']:,}"],
        ["different prompts", f"{stats['distinct_prompts']:,}"],
        ["labels", ", ".join(f"{name} {share:.1%}" for name, share in stats["label_shares"].items())],
        ["turns", ", ".join(f"{turns}: {share:.1%}" for turns, share in list(stats["turns"].items())[:4])],
    ]
    facts += [[f"median {name}", f"{spread['median']:,.0f}"] for name, spread in stats["lengths"].items()]
    return [table, Table([Column("battles"), Column(battles.path.name)], facts)]


def _recipe(run: Run, settings: Settings) -> Table:
    """Every setting of the chain, a line each; folds of one recipe have one line."""
    found: dict[tuple[str, str], list[str]] = {}
    for step in run.own:
        for name, value in settings(step.manifest).items():
            values = found.setdefault((step.manifest.stage, name), [])
            if value not in values:
                values.append(value)
    rows: list[list[Cell]] = [[stage, name, " / ".join(values)] for (stage, name), values in found.items()]
    return Table([Column("stage"), Column("setting"), Column("value", prose=True)], rows)


def _curves(run: Run, curves: Curves) -> list[str | Table | Drawn]:
    blocks: list[str | Table | Drawn] = []
    rows: list[list[Cell]] = []
    for step in run.own:
        if step.manifest.stage not in TRAINED:
            continue
        found = curves(step.path, step.manifest.metrics)
        figure = curves_figure(found, of=f"{step.manifest.request.entry}, {step.path.name}")
        if figure is not None:
            steps = max(points[-1][0] for points in found.values() if points)
            blocks.append(
                Drawn(figure, f"Training curves of {step.path.name} over {steps:,} steps; the table has ends and best")
            )
        for name, points in found.items():
            if points:
                values = [value for _, value in points]
                rows.append([step.path.name, name, len(points), values[0], min(values), max(values), values[-1]])
    columns = [Column("training"), Column("curve"), Column("points", form=",")]
    columns += [Column(name, form=digits(4)) for name in ("first", "least", "most", "last")]
    return [*blocks, *([Table(columns, rows)] if rows else [])]


def _ladder(store: Path, run: Run, battles: Battles | None) -> list[str | Table | Drawn]:
    """Ladders that climbed over the run's own scores, as one form of several too, or the run itself."""
    own = {artifact.fingerprint for artifact in run.own}
    blocks: list[str | Table | Drawn] = []
    for artifact in list_artifacts(store, "ladder"):
        request = artifact.manifest.request
        scored = {form.scored.fingerprint for form in request.forms.values()} if isinstance(request, LadderRequest) else set()
        if artifact.fingerprint not in own and not scored & own:
            continue
        steps = steps_from_metrics(artifact.manifest.metrics)
        if steps:
            rows = int(artifact.manifest.metrics.get("ladder/rows", 0))
            said = f"The ladder of {artifact.path.name}: log loss of each form from the base to the engine; see the table"
            ties = battles is None or battles.can_tie
            blocks += [Drawn(ladder_figure(steps, rows, ties=ties, of=artifact.path.name), said), ladder_table(steps)]
    return blocks


def _slices(run: Run, battles: Battles | None, insight: Insight | None) -> list[str | Table | Drawn]:
    if run.member is None:
        return []
    if insight is None:
        there = "are not where they were" if battles is None else "have no labels"
        return [f"Not told: the battles {there}. `zoo insight {run.member.table.name} --data FILE` says it where they are."]
    told = told_text(insight)
    return [f"{told[:1].upper()}{told[1:]}.", slices_table(insight.slices), calibration_table(insight.calibration)]


def _cost(run: Run) -> list[str | Table | Drawn]:
    rows: list[list[Cell]] = []
    for step in run.own:
        m = step.manifest.measurements
        seconds, gpu = m.load_seconds + m.run_seconds, gpu_seconds(step.manifest)
        machine, peak = step.manifest.hardware.get("machine") or None, m.peak_bytes / 2**30 or None
        rows.append([step.path.name, m.rows or None, m.tokens or None, seconds, gpu or None, peak, machine])
    columns = [Column("stage"), Column("rows", form=","), Column("tokens", form=","), Column("seconds", form=",.1f")]
    columns += [
        Column("GPU seconds", "gpu_seconds", ",.1f"),
        Column("peak GiB", "peak_gib", ".2f"),
        Column("machine", prose=True),
    ]
    price = _price(run)
    return [*([price] if price else []), Table(columns, rows)]


def _price(run: Run) -> str:
    """What predicting costs, in a sentence."""
    if run.member is None:
        return ""
    card, frame = run.member.table.card, run.member.table.frame
    ok: pd.Series = frame["status"] == OK
    found = price_of(card.cost, frame.loc[ok, "n_tokens"].to_numpy())
    if HOURS_25K not in found:
        return ""
    where = f"{card.target}, emulating {card.emulates}" if card.emulates else card.target
    return f"25,000 such rows take {_time(3600 * found[HOURS_25K])} on {where}, loading included."
