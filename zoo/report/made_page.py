"""The page of a made file: what it is, whether to trust it, and pairs to read by eye."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zoo.report.lineage import ELSEWHERE, REMOVED
from zoo.report.made_report import faults
from zoo.report.made_template import BODY, MADE_STYLE
from zoo.report.page import render, stacked_bars
from zoo.report.rows_to_read import Shown
from zoo.scores.certificate import WITH_LENGTH

ROWS = {"prompts": "Prompts", "generate": "Answers", "judge": "Verdicts"}
MODELS_SHOWN = 12  # the others are folded away


def made_html(data: Mapping[str, Any], sample: Mapping[str, Sequence[Shown]], seed: int) -> str:
    """The page as HTML without any reference outside itself. `data` as `report_data` gives it."""
    return render(BODY, _content(data, sample, seed), style=MADE_STYLE)


def _content(data: Mapping[str, Any], sample: Mapping[str, Sequence[Shown]], seed: int) -> dict[str, Any]:
    facts = data["facts"]
    models = [_model_row(each) for each in facts["models"]]
    answers = data["stage"] == "generate"
    return {
        "title": data["file"],
        "subtitle": f"{ROWS.get(data['stage'], 'Pairs')} by {data['stage']}, SHA-256 {data['sha256'][:16]}",
        "tiles": _tiles(data),
        "faults": faults(data),
        "accounted": _accounted(data),
        "warnings": [text for text in data["warnings"] if ": refused, " not in text],  # the verdicts say so
        "certificates": [_certificate(name, judge, data) for name, judge in data["judges"].items()],
        "filters": [[each["filter"], f"{each['rows_lost']:,}", f"{each['rows']:,}"] for each in data["filters"]],
        "consistency": _consistency(facts),
        "tree": [_tree(data["lineage"])],
        "accounts": [_account(each) for each in data["accounts"]],
        "handovers": [
            f"{each['stage']} read {each['rows']:,} rows of {each['read']}; {each['written']:,} were written."
            for each in data["handovers"]
        ],
        "costs": list(_costs(data["costs"])) if data["costs"] else [],  # nobody knows where the artifacts are gone
        "shares": [(title, _shares(facts[key])) for title, key in SHARES if facts.get(key)],
        "model_columns": ["model", "answers", "share"] if answers else ["model", "pairs", "share", "as A", "as B", "won"],
        "models": models[:MODELS_SHOWN],
        "more_models": models[MODELS_SHOWN:],
        "spread": list(next(iter(facts["lengths"].values()), {})),
        "lengths": [[name, *(f"{value:,}" for value in values.values())] for name, values in facts["lengths"].items()],
        "near": [_near(each) for each in data["near"]],
        "main": [{"file": each["file"], "folds": [_fold(fold) for fold in each["folds"]]} for each in data["main"]],
        "sample_title": "Answers to read" if answers else "Pairs to read",
        "sample_note": f"Some of each kind, drawn with seed {seed}; the same seed shows the same ones.",
        "sample": sample,
    }


SHARES = (
    ("source", "sources"),
    ("licence", "licences"),
    ("judge", "judges"),
    ("language", "languages"),
    ("status", "statuses"),
)


def _accounted(data: Mapping[str, Any]) -> str:
    if all(each["closes"] for each in data["accounts"]) and data["accounts"]:
        return "Every row of every stage is accounted for."
    return "No row is known to be missing; some stages did not say how much they read."


def _tiles(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = data["facts"]
    counts = {"rows": facts["rows"], "prompts": facts["prompts"], "models": len(facts["models"])}
    tiles = [(f"{count:,}", name) for name, count in counts.items() if count]
    if facts.get("labels"):
        tiles.append((f"{facts['labels']['tie']:.0%}", "of the labels are ties"))
    measured = [judge for judge in data["judges"].values() if judge.get("certificate") and not judge["borrowed"]]
    losses = [_step(judge, WITH_LENGTH) for judge in measured if not judge["fault"]]
    if losses:
        tiles.append((f"{min(losses):.3f}", "log loss of the best judge's labels on human votes"))
    gpu = sum(each["gpu_seconds"] for each in data["costs"])
    return [*tiles, (f"{gpu:,.0f} s", "of GPUs, all stages together")] if gpu else tiles


def _step(judge: Mapping[str, Any], name: str) -> float:
    return float(next(step["log_loss"] for step in judge["certificate"]["steps"] if step["name"] == name))


def _certificate(name: str, judge: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """A judge's verdict in words, its table, and how often it lets ties and longer answers win beside humans."""
    certificate, all_rows = judge.get("certificate"), judge["all_rows"]
    found: dict[str, Any] = {"name": name, "verdict": data["verdicts"][name], "steps": [], "bars": None, "note": ""}
    bars = [("the judge, all its rows", all_rows["judge_ties"], all_rows["judge_longer"])]
    labels = data["facts"].get("labels_by_judge", {}).get(name)
    if certificate and not judge["borrowed"]:
        bars = [
            ("humans", certificate["human_ties"], certificate["human_longer"]),
            ("the judge, same rows", certificate["judge_ties"], certificate["judge_longer"]),
            *bars,
        ]
        numbers = ("log_loss", "error", "gain", "gain_error")
        steps = certificate["steps"]
        found["steps"] = [[s["name"], *(f"{s[key]:.3f}".replace("-", "−") for key in numbers)] for s in steps]
        found["note"] = (
            f"On {certificate['rows']:,} battles that humans judged too; all that is fitted was fitted on other prompts. "
            f"The judge and humans agree in {certificate['agreement']:.1%} of them. The labels are by the last line."
        )
    if labels:
        bars.append(("its labels in this file", labels["tie"], labels["longer"]))
    parts = [(said, [(1 - tie) * longer, tie, (1 - tie) * (1 - longer)]) for said, tie, longer in bars if longer is not None]
    if parts:
        found["bars"] = stacked_bars(parts, ("longer wins", "tie", "shorter wins"))
    return found


def _consistency(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    counts = facts.get("consistency")
    if not counts:
        return None
    most, rows = max(counts), sum(counts)
    said = f"Tables agree on {facts['mean_consistency']:.0%} of probability in the mean; on nine tenths or more in "
    said += f"{counts[-1] / rows:.0%} of {rows:,} rows, on less than half in {sum(counts[:5]) / rows:.0%}."
    return {"heights": [f"{100 * count / most:.1f}" for count in counts], "said": said}


def _tree(node: Mapping[str, Any]) -> dict[str, Any]:
    if "artifact" in node:
        mind = "told above" if node.get("told_above") else REMOVED if node["removed"] else ""
        entry = "" if node["entry"] == node["stage"] or node["entry"] == "data" else f" {node['entry']}"
        text = f"{node['stage']}{entry}, {node['created_at'][:10]}"
        return {
            "text": text,
            "digest": node["artifact"],
            "mind": mind,
            "below": [_tree(given) for given in node.get("from", ())],
        }
    below = [_tree(made) for made in node["made_by"]]
    text = f"{node['what']}: {node['file']}" if node["file"] else f"{node['what']}:"
    return {"text": text, "digest": node["digest"][:16], "mind": "" if below else ELSEWHERE, "below": below}


def _account(each: Mapping[str, Any]) -> dict[str, Any]:
    parts = [{**part, "count": f"{part['count']:,}"} for part in each["parts"]]
    added = sum(part["count"] for part in each["parts"])
    note = f"{added:,} together; the stage did not say how many it read"
    if each["closes"] is not None:
        missing = "none is missing" if each["closes"] else "SOME ARE MISSING"
        note = f"{added:,} together, of {each['total']:,} that the stage read: {missing}"
    return {"title": f"{each['artifact']}: {each['what']}", "parts": parts, "note": note}


def _costs(costs: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for each in costs:
        numbers = [f"{each[key]:,}" if each[key] else "–" for key in ("rows", "tokens")]
        seconds = [f"{each[key]:,.1f}" if each[key] else "–" for key in ("seconds", "gpu_seconds")]
        yield [each["stage"], each["entry"], *numbers, *seconds]
    total = [sum(each[key] for each in costs) for key in ("tokens", "seconds", "gpu_seconds")]
    yield ["together", "", "", f"{total[0]:,}", f"{total[1]:,.1f}", f"{total[2]:,.1f}"]


def _shares(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [[each["name"], f"{each['rows']:,}", f"{each['share']:.1%}"] for each in rows]


def _model_row(each: Mapping[str, Any]) -> list[str]:
    row = [each["model"], f"{each['pairs']:,}", f"{each['share']:.1%}"]
    if "a" in each:
        row += [f"{each['a']:,}", f"{each['b']:,}", "–" if each["won"] is None else f"{each['won']:.1%}"]
    return row


def _near(each: Mapping[str, Any]) -> dict[str, Any]:
    nearest = [[f"{pair['similarity']:.2f}", pair["kept"][:300], pair["never"][:300]] for pair in each["nearest"]]
    example = each["examples"][0][:200] if each["examples"] else ""
    return {
        "file": each["file"],
        "exact": f"{each['exact']:,}",
        "near": f"{each['near']:,}",
        "example": example,
        "nearest": nearest,
    }


def _fold(fold: Mapping[str, Any]) -> list[str]:
    return [*(f"{fold[key]:,}" for key in ("fold", "exact", "near", "prompts")), fold["example"][-160:]]
