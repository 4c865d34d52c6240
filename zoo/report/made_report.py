"""The report of a made file: its numbers as plain data, and the terminal's form of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.data.battles import Battles, read_battles
from zoo.data.prompts import read_prompts
from zoo.report.lineage import lineage_record
from zoo.report.made_facts import KEPT, answer_facts, folds_of_main, near_file, pair_facts, prompt_facts, table_facts
from zoo.report.made_file import MadeFile, accounts, costs, handovers, input_files
from zoo.report.made_sample import answer_records
from zoo.report.text import Cell, Column, Page, Table
from zoo.scores.certificate import LENGTH, MAPPED, PRIOR, RAW, UNIFORM, WITH_LENGTH


def _answer_facts(path: Path) -> dict[str, Any]:
    return answer_facts(list(answer_records(path)))


# What is no file of pairs, and its numbers.
FACTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "prompts": prompt_facts,
    "generate": _answer_facts,
    "judge": table_facts,
}


def read_rows(made: MadeFile) -> Battles | None:
    """The pairs of a made file; None where it is of prompts, answers or verdicts."""
    return None if made.stage in FACTS else read_battles(made.path, keep=KEPT, models=True)


def report_data(made: MadeFile, battles: Battles | None, never: Sequence[Path] = ()) -> dict[str, Any]:
    """All that is told of a made file.

    `never`: further files of battles that no row should be near, beside those that its pairs were mined without.
    """
    facts = FACTS[made.stage](made.path) if battles is None else pair_facts(battles)
    every = [*never, *(path for step in made.steps for path in input_files(step, "never"))]
    human = dict.fromkeys(path for step in made.last for path in input_files(step, "human"))
    prompts = [] if battles is None else battles.frame["prompt"].tolist()
    if made.stage == "prompts":
        prompts = [list(prompt.turns) for prompt in read_prompts(made.path).prompts]
    judges = {name: judge.model_dump() for name, judge in made.report.judges.items()}
    return {
        "file": made.path.name,
        "sha256": made.sha256,
        "stage": made.stage,
        "facts": facts,
        "lineage": lineage_record(made.given),
        "accounts": accounts(made),
        "handovers": handovers(made),
        "costs": costs(made),
        "verdicts": {name: verdict(name, judge) for name, judge in judges.items()},
        "judges": judges,
        "filters": [each.model_dump() for each in made.report.filters],
        "warnings": made.report.warnings,
        "near": [near_file(prompts, path) for path in dict.fromkeys(path.absolute() for path in every)] if prompts else [],
        "main": [{"file": path.name, "folds": list(folds_of_main(prompts, read_battles(path)))} for path in human if prompts],
    }


def verdict(name: str, judge: Mapping[str, Any]) -> str:
    """A judge's certificate in plain language."""
    certificate, rows = judge.get("certificate"), judge["all_rows"]["rows"]
    if judge.get("fault"):
        return f"{name} is refused: {judge['fault']}. None of its {rows:,} rows has a label."
    if not certificate:
        return f"{name} has no certificate."
    steps = {step["name"]: step for step in certificate["steps"]}
    best, prior, raw = steps[WITH_LENGTH], steps[PRIOR], steps[RAW]
    if judge.get("borrowed"):
        return (
            f"{name} is not measured here: no human judged enough of its {rows:,} rows. They have the map of "
            f"{judge['borrowed']}, which reached {best['log_loss']:.3f} on its own rows. Trust these labels less."
        )
    told = (
        f"{name} may be used. On {certificate['rows']:,} battles of {certificate['prompts']:,} prompts that humans judged too, "
        f"its mapped labels have a log loss of {best['log_loss']:.3f}. Knowing no more than how often humans tie gives "
        f"{prior['log_loss']:.3f}, so that a row gains {best['gain']:.3f} ± {best['gain_error']:.3f}. "
    )
    guess = "more than" if raw["log_loss"] > steps[UNIFORM]["log_loss"] else "less than"
    told += f"Its verdicts taken as they are would cost {raw['log_loss']:.3f}, {guess} guessing "
    told += f"({steps[UNIFORM]['log_loss']:.3f}). "
    if best["gain"] > 0:
        told += f"Lengths alone give {max(0.0, steps[LENGTH]['gain']) / best['gain']:.0%} of the gain, "
        told += f"the map without lengths {max(0.0, steps[MAPPED]['gain']) / best['gain']:.0%}."
    return told


def report_page(data: Mapping[str, Any], page: Path | None) -> Page:
    """The main numbers, what does not add up, verdicts, and where the page is."""
    facts = data["facts"]
    rows: list[list[Cell]] = [[key, f"{facts[key]:,}"] for key in ("rows", "prompts") if facts[key] is not None]
    if "prompt_groups" in facts:
        rows.append(["groups of near-copies", f"{facts['prompt_groups']:,}, the largest of {facts['largest_group']:,} rows"])
    if facts.get("labels"):
        labels = facts["labels"]
        rows.append(["labels", f"A {labels['a']:.1%}, B {labels['b']:.1%}, tie {labels['tie']:.1%}"])
        if labels["longer"] is not None:
            rows.append(["longer answer wins", f"{labels['longer']:.1%} of what is decided"])
    if facts.get("mean_consistency") is not None:
        rows.append(["consistency", f"tables agree on {facts['mean_consistency']:.1%} of probability"])
    for name, key in (("judges", "judges"), ("sources", "sources"), ("licences", "licences"), ("statuses", "statuses")):
        if facts.get(key):
            rows.append([name, ", ".join(f"{each['name']} {each['share']:.0%}" for each in facts[key][:4])])
    if facts["models"]:
        rows.append(["models", f"{len(facts['models']):,}"])
    tokens, gpu = (sum(each[key] for each in data["costs"]) for key in ("tokens", "gpu_seconds"))
    if data["costs"]:
        rows.append(["tokens and GPU seconds of all stages", f"{tokens:,} and {gpu:,.0f}"])
    for near in data["near"]:
        told = f"{near['exact']:,} rows asked in it, {near['near']:,} near-copies that an exact check lets through"
        rows.append([f"near {near['file']}", told])
    page_lines: list[str | Table] = [f"{data['file']}: by {data['stage']}, {data['sha256'][:16]}"]
    page_lines.append(Table([Column("what"), Column("number", prose=True)], rows))
    page_lines += ["", *data["verdicts"].values(), *(f"mind: {text}" for text in [*data["warnings"], *faults(data)])]
    return [*page_lines, *([] if page is None else ["", f"{page}: the page"])]


def faults(data: Mapping[str, Any]) -> list[str]:
    """What does not add up; empty where every row is accounted for."""
    told = [
        f"{each['artifact']}: {sum(part['count'] for part in each['parts']):,} of {each['total']:,} {each['what']} "
        "accounted for"
        for each in data["accounts"]
        if each["closes"] is False
    ]
    told += [
        f"{each['stage']} read {each['rows']:,} rows of {each['read']}, and {each['written']:,} were written"
        for each in data["handovers"]
        if each["rows"] != each["written"]
    ]
    for near in data["near"]:
        if near["exact"] + near["near"]:
            told.append(f"{near['exact'] + near['near']:,} rows are of {near['file']}, or nearly so")
    return told
