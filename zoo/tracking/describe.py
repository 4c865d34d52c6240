"""Descriptions of experiments, runs, builds and versions: markdown with links.

What people write over a description stays theirs: a tag says which text is this project's.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Mapping
from typing import Any

from zoo.contracts import Held, ImportRequest, Manifest, rule_name
from zoo.report.text import as_budget
from zoo.scores.metric_names import ACCURACY, HOURS_25K, LOG_LOSS, LOG_LOSS_SE, ROWS
from zoo.scores.tuned import TuneReport
from zoo.tracking.facts import Data, Facts
from zoo.tracking.home import public
from zoo.tracking.view import VIEWS, view_page

NOTE = "mlflow.note.content"
DESCRIBED = "zoo.described"  # a tag: the digest of the description that this project wrote
LAYOUT = {"zoo.layout": "2"}  # tag of a run with a name, a description and all settings of its chain; without it, of before
IN_BUILDS = "**In builds:** "  # what a member's last line begins with
MOST_CHARACTERS = 4900  # of a tag
COMMANDS = {"score": "run", "lexical-train": "run", "lexical-score": "run"} | {
    name: name for name in ("fetch", "train", "merge", "quantize", "ladder")
}
_OF_STAGE = {
    "fetch": "Base weights of **{entry}**.",
    "train": "Training of **{entry}** on {data}.",
    "adopt": "Weights of **{entry}** that were trained elsewhere.",
    "merge": "**{entry}** with its adapter merged into the base weights.",
    "quantize": "**{entry}**, quantized, calibrated on {data}.",
    "score": "Probabilities of **{entry}** for {data}.",
    "ladder": "What each step from the trained to the served **{entry}** costs, on {data}.",
    "evaluate": "Probabilities of **{entry}** as trained, before it is merged or quantized, for {data}.",
    "lexical-train": "Training of **{entry}** (word counts and lengths, a model a fold) on {data}.",
    "lexical-score": "Probabilities of **{entry}** for {data}, each row by the model that did not see its prompt.",
    "import": "**{entry}**: probabilities that were made elsewhere, for {data}.",
}


def note_tags(text: str) -> dict[str, str]:
    """The tags that hold a description of ours."""
    shown = public(text.strip())[:MOST_CHARACTERS]
    return {NOTE: shown, DESCRIBED: _digest(shown)}


def is_our_note(tags: Mapping[str, str]) -> bool:
    """Whether a description is missing, or the one that this project wrote."""
    return not tags.get(NOTE) or tags.get(DESCRIBED) == _digest(tags[NOTE])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_link(text: str, experiment: str, run_id: str) -> str:
    """A link to a run in the UI that shows it."""
    return f"[{_plain(text)}](#/experiments/{experiment}/runs/{run_id}?workflowType=machine_learning)"


def _plain(text: str) -> str:
    """Text within markdown: names come from anybody."""
    return text.replace("\\", "\\\\").translate({ord(sign): f"\\{sign}" for sign in "[]*_`<>|"}).replace("\n", " ")


def experiment_note(experiment: str, digest: str) -> str:
    """What an experiment is, and links to its views."""
    if digest == "weights":
        return "Base weights: stages that read no battles."
    views = ", ".join(f"[{title}](#{view_page(experiment, key)})" for key, title in VIEWS.items())
    return (
        f"Who wins, A or B, or is it a tie? Every run here is of the same battles (digest `{digest[:12]}`). Log loss in nats, "
        f"lower is better; guessing scores 1.0986.\n\nViews: {views}"
    )


def stage_note(manifest: Manifest, fact: Facts, data: Data | None, result: str) -> str:
    """A stage's run: what it is, what came out, what is not the entry's, and the command."""
    named = f"the battles of `{data.name}`" if data else "battles"
    what = _OF_STAGE.get(manifest.stage, "`{stage}` of **{entry}**.").format(
        entry=_plain(manifest.request.entry), data=named, stage=manifest.stage
    )
    if fact.card and fact.card.variant.max_tokens:
        what += f" Response order `{fact.card.variant.order}`, at most {fact.card.variant.max_tokens:,} tokens."
    held = getattr(manifest.request, "held", None)
    if isinstance(held, Held):
        what += f" Fold {held.fold} of {held.n_folds} is held out."
    parts = [what, *([result] if result else []), settings_table(fact.changes)]
    if command := command_of(manifest, fact.changes):
        parts.append(f"```\n{command}\n```")
    return "\n\n".join(part for part in parts if part)


def settings_table(changes: Mapping[str, tuple[str, str]]) -> str:
    """Settings that are not the entry's, as a table; a sentence where there are none."""
    if not changes:
        return "All settings are the entry's."
    rows = [f"| `{name}` | {_cell(here)} | {_cell(there)} |" for name, (here, there) in changes.items()]
    return "\n".join(["| setting | here | entry |", "|---|---|---|", *rows])


def _cell(value: str) -> str:
    return _plain(value[:80]) or "-"


def command_of(manifest: Manifest, changes: Mapping[str, tuple[str, str]]) -> str:
    """The command that makes a stage's artifact again, from what its stage was asked.

    `changes` become its `--set` options. Empty for stages whose request does not tell it.
    """
    request = manifest.request
    battles = request.inputs.get("battles")
    file = battles.place.name if battles and battles.place else "BATTLES.csv"
    if isinstance(request, ImportRequest):
        scores = request.scores.place.name if request.scores.place else "SCORES.csv"
        return f"zoo import {request.entry} --scores {scores} --labels {file}"
    if manifest.stage not in COMMANDS:
        return ""
    parts = ["zoo", COMMANDS[manifest.stage], request.entry, *(["--data", file] if battles else [])]
    target = getattr(request, "target", "cpu")
    parts += ["--target", target] if target != "cpu" else []
    held = getattr(request, "held", None)
    if isinstance(held, Held):
        parts += ["--fold", str(held.fold)] if held.fold or held.n_folds != 5 else []
        parts += ["--folds", str(held.n_folds)] if held.n_folds != 5 else []
    if battles and (rule := held.rule if isinstance(held, Held) else getattr(request, "rule", None)) is None:
        parts += ["--fold-rule", rule_name(rule)]
    settings = [f"--set {shlex.quote(f'{name}={_written(here)}')}" for name, (here, _) in changes.items() if here]
    return " ".join([*parts, *settings])


def _written(value: str) -> str:
    """A setting as `--set` reads it: what was a list in brackets, its words in quotes."""
    items = value.split(", ")
    if len(items) == 1:
        return value
    numbers = all(item.replace(".", "", 1).replace("-", "").replace("e", "").isdigit() for item in items)
    return f"[{', '.join(items if numbers else map(json.dumps, items))}]"


def loss_text(metrics: Mapping[str, float]) -> str:
    """`Log loss 0.9980 ± 0.0102 on 600 rows`; empty where nothing was judged."""
    if LOG_LOSS not in metrics:
        return ""
    error = metrics.get(LOG_LOSS_SE)
    rows = metrics.get(ROWS)
    text = f"Log loss **{metrics[LOG_LOSS]:.4f}**" + (f" ± {error:.4f}" if error is not None and math.isfinite(error) else "")
    return text + (f" on {rows:,.0f} rows" if rows else "")


def build_note(plan: Mapping[str, Any], members: Mapping[str, str]) -> str:
    """A build's run: budget, result, and its members with links to their runs.

    `members`: name -> link, or plain name where its run is not logged.
    """
    target = plan.get("target")
    where = target.get("name") if isinstance(target, dict) else target
    budget, loss, error = plan.get("budget_seconds"), plan.get("oof_log_loss"), plan.get("oof_log_loss_se")
    what = "A plan of `ensemble build`"
    what += f" for {as_budget(float(budget))}" if isinstance(budget, int | float) else ""
    what += f" on `{where}`" if where else ""
    told = f"Log loss **{loss:.4f}**" + (f" ± {error:.4f}" if error else "") if isinstance(loss, int | float) else ""
    rows = plan.get("fitted_rows")
    told += f" out of fold on {rows:,} rows" if told and rows else ""
    if seconds := plan.get("predicted_seconds"):
        told += f"; predicted to take {as_budget(float(seconds))} for {int(plan.get('rows') or 0):,} rows"
    known = {str(m.get("name")): m for m in plan.get("members") or () if isinstance(m, dict)}
    lines = ["| member | weight | alone | rows that it sees |", "|---|---|---|---|"]
    for name, link in members.items():
        facts = [_number(known.get(name, {}).get(key), form) for key, form in _OF_MEMBER]
        lines.append(f"| {link} | {' | '.join(facts)} |")
    command = "ensemble build" + (f" --budget {as_budget(float(budget))}" if isinstance(budget, int | float) else "")
    command += f" --target {where}" if where else ""
    parts = [f"{what}.", f"{told}." if told else "", "\n".join(lines) if members else "", f"```\n{command}\n```"]
    return "\n\n".join(part for part in parts if part)


_OF_MEMBER = (("weight", ".3f"), ("oof_log_loss", ".4f"), ("coverage", ".0%"))


def _number(value: object, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else "-"


def with_build(note: str, link: str) -> str:
    """A member's description with one more build that it is in; a build is named once."""
    body, _, builds = note.partition(IN_BUILDS)
    links = [*filter(None, builds.split(", ")), link] if link not in builds else [*filter(None, builds.split(", "))]
    return f"{body.rstrip()}\n\n{IN_BUILDS}{', '.join(links)}"


def builds_in(note: str) -> list[str]:
    """The links to builds that a member's description has."""
    return [link for link in note.partition(IN_BUILDS)[2].split(", ") if link]


def use_note(kind: str, record: Mapping[str, Any], build: str) -> str:
    """What a plan was used for: file, time, its build, and what people noted of it."""
    params = record["params"]
    what = f"{_A[kind]} of the plan of {build}"
    what += f", on `{params['battles']}`" if params.get("battles") else ""
    what += f", in {as_budget(float(record['seconds']))}" if record["seconds"] >= 1 else ""
    note = str(record.get("note") or "")
    return f"{what}." + (f"\n\n> {_plain(note)}" if note else "")


def tune_note(report: TuneReport) -> str:
    """A study of training settings: what the best changes, and what it gained on which rows."""
    what = f"A study of the training settings of **{_plain(report.entry)}** by `zoo tune`, on fold {report.fold} of "
    what += f"{report.n_folds} of `{report.data}`."
    if report.judging is None or report.choosing is None:
        return f"{what}\n\nNo other settings were better than the entry's."
    told = f"Trial {report.best} of {len(report.trials)} against the entry's own settings, best less own, in nats:"
    rows = ["| held-out rows | difference | rows |", "|---|---|---|"]
    for name, part in (("of prompts that chose nothing", report.judging), ("that chose it", report.choosing)):
        rows.append(f"| {name} | {part.difference:+.4f} ± {part.error:.4f} | {part.rows:,} |")
    settings = ["| setting | here |", "|---|---|"]
    settings += [f"| `train.{name}` | {_cell(str(value))} |" for name, value in report.winner.settings.items()]
    return "\n\n".join([what, told, "\n".join(rows), "\n".join(settings)])


_A = {name: f"A {name}" for name in ("prediction", "recalibration", "submission")} | {"evaluation": "An evaluation"}


def version_note(fact: Facts, data: Data | None, run: str) -> str:
    """A registered version: what came out of which run, on which data, with which settings."""
    told = loss_text(fact.metrics)
    first = [f"{told}." if told else "", f"Battles: `{data.name}`." if data else "", f"Scored by {run}."]
    more = [f"accuracy {fact.metrics[ACCURACY]:.3f}"] if ACCURACY in fact.metrics else []
    if HOURS_25K in fact.metrics:
        more.append(f"{fact.metrics[HOURS_25K]:.2g} h for 25,000 rows on `{fact.tags.get('zoo.target', 'its target')}`")
    parts = [" ".join(filter(None, first)), ", ".join(more), settings_table(fact.changes)]
    return public("\n\n".join(filter(None, parts)))[:MOST_CHARACTERS]
