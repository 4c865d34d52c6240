"""The page of a made file: what it is made of, whether it may be trusted, and pairs to read by eye."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zoo.report.lineage import ELSEWHERE, REMOVED
from zoo.report.made_report import faults
from zoo.report.made_sample import Shown
from zoo.report.page import BARS, BARS_STYLE, render, stacked_bars
from zoo.scores.certificate import WITH_LENGTH

MODELS_SHOWN = 12  # the others are folded away
MADE_STYLE = (
    BARS_STYLE
    + """
  .left td, .left th { text-align: left; white-space: normal; overflow-wrap: anywhere } .left td { min-width: 5rem }
  td.n, th.n { text-align: right !important; white-space: nowrap; min-width: 0 !important }
  .fault { color: var(--warn); font-weight: 600 } .fine { color: var(--good); font-weight: 600 }
  .tree, .tree ul { list-style: none; margin: 0; padding-left: 1.1rem; border-left: 1px solid var(--line) }
  .tree { border: 0; padding: 0 } .tree li { margin: .25rem 0; overflow-wrap: anywhere } code { font-size: .9em }
  details { margin: .4rem 0; border: 1px solid var(--line); border-radius: .4rem; padding: .3rem .8rem }
  summary { cursor: pointer; overflow-wrap: anywhere } details[open] > summary { margin-bottom: .4rem }
  .said { white-space: pre-wrap; overflow-wrap: anywhere; margin: .2rem 0 .8rem; padding-left: .6rem;
    border-left: 3px solid var(--faint); font-size: .95rem }
  .sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 0 1.2rem }
  h3 { font-size: 1rem; margin: 1.2rem 0 .3rem } h4 { font-size: .9rem; margin: .3rem 0 0; color: var(--soft) }
  .verdict { max-width: 46rem }
"""
)
BODY = (
    BARS
    + """
{% for text in faults %}<p class="fault">{{ text }}</p>
{% else %}<p class="fine">{{ accounted }}</p>
{% endfor %}{% for text in warnings %}<p class="fault">{{ text }}</p>
{% endfor %}

{% if certificates %}<h2>May these labels be trusted?</h2>
{% for one in certificates %}<h3>{{ one.name }}</h3>
<p class="verdict">{{ one.verdict }}</p>
{% if one.bars %}{{ bars(one.bars) }}{% endif %}
{% if one.steps %}<div class="scroll"><table>
<thead><tr><th>verdicts</th><th>log loss</th><th>± se</th><th>below the prior</th><th>± se</th></tr></thead>
<tbody>{% for row in one.steps %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
<p class="note">{{ one.note }}</p>{% endif %}
{% endfor %}{% if filters %}<h3>What each filter costs</h3>
<div class="scroll"><table><thead><tr><th>filter</th><th>rows lost</th><th>of</th></tr></thead><tbody>
{% for row in filters %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endif %}{% endif %}

{% if consistency %}<h2>How consistent the judge is</h2>
<div class="columns" role="img" aria-label="{{ consistency.said }}">{% for high in consistency.heights %}
<i style="height: {{ high }}%"></i>{% endfor %}</div>
<div class="ends"><span>tables contradict each other</span><span>say the same</span></div>
<p class="note">{{ consistency.said }}</p>{% endif %}

<h2>What it is made of</h2>
<ul class="tree">{% for root in tree recursive %}<li>{{ root.text }} <code>{{ root.digest }}</code>
{%- if root.mind %} <span class="note">{{ root.mind }}</span>{% endif %}
{%- if root.below %}<ul>{{ loop(root.below) }}</ul>{% endif %}</li>
{% endfor %}</ul>

<h2>Where every row went</h2>
{% for each in accounts %}<h3>{{ each.title }}</h3>
<div class="scroll"><table class="left"><thead><tr><th>what became of them</th><th class="n">count</th><th>one of them</th></tr></thead>
<tbody>{% for part in each.parts %}<tr><td>{{ part.reason }}</td><td class="n">{{ part.count }}</td><td>{{ part.example }}</td></tr>
{% endfor %}</tbody></table></div>
<p class="note">{{ each.note }}</p>
{% endfor %}{% for text in handovers %}<p class="note">{{ text }}</p>
{% endfor %}

<h2>Tokens and seconds</h2>
<div class="scroll"><table><thead><tr><th>stage</th><th>of</th><th>rows</th><th>tokens</th><th>seconds</th><th>GPU seconds</th></tr></thead>
<tbody>{% for row in costs %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
<p class="note">Seconds with loading, on the machine that each stage ran on; GPU seconds are of all GPUs of that machine. Answers
that were taken from an earlier run cost nothing again.</p>

<h2>Sources and licences</h2>
<div class="pair">{% for title, rows in shares %}<div class="scroll"><table><thead><tr><th>{{ title }}</th><th>rows</th><th>share</th></tr></thead>
<tbody>{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endfor %}</div>

<h2>Balance of models</h2>
{% macro models_table(rows) %}<div class="scroll"><table><thead><tr>{% for name in model_columns %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endmacro %}
{{ models_table(models) }}
{% if more_models %}<details><summary>{{ more_models | length }} models more</summary>{{ models_table(more_models) }}</details>{% endif %}
{% if lengths %}<h2>Lengths in characters</h2>
<div class="scroll"><table><thead><tr><th>of</th>{% for name in spread %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in lengths %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endif %}

{% if near or main %}<h2>Near-copies: what an exact check lets through</h2>
{% if near %}<div class="scroll"><table class="left"><thead><tr><th>file</th><th class="n">rows asked in it</th>
<th class="n">let through by an exact check</th><th>for example</th></tr></thead>
<tbody>{% for row in near %}<tr><td>{{ row.file }}</td><td class="n">{{ row.exact }}</td><td class="n">{{ row.near }}</td><td>{{ row.example }}</td></tr>
{% endfor %}</tbody></table></div>
{% for each in near if each.nearest %}<h3>The nearest prompts that were kept, beside {{ each.file }}</h3>
<div class="scroll"><table class="left"><thead><tr><th class="n">similarity</th><th>kept</th><th>there</th></tr></thead>
<tbody>{% for pair in each.nearest %}<tr><td class="n">{{ pair[0] }}</td><td>{{ pair[1] }}</td><td>{{ pair[2] }}</td></tr>
{% endfor %}</tbody></table></div>
{% endfor %}<p class="note">Jaccard similarity of runs of five characters; from 0.70 on two prompts are near-copies.</p>{% endif %}
{% for each in main %}<h3>Beside the folds of {{ each.file }}</h3>
<div class="scroll"><table class="left"><thead><tr><th class="n">fold</th><th class="n">rows asked in it</th><th class="n">near-copies</th>
<th class="n">prompts</th><th>for example</th></tr></thead>
<tbody>{% for row in each.folds %}<tr><td class="n">{{ row[0] }}</td>{% for cell in row[1:4] %}<td class="n">{{ cell }}</td>{% endfor %}<td>{{ row[4] }}</td></tr>
{% endfor %}</tbody></table></div>
<p class="note">A training that holds a fold out masks both columns; an exact check would learn from the second.</p>
{% endfor %}{% endif %}

<h2>{{ sample_title }}</h2>
<p class="note">{{ sample_note }}</p>
{% for kind, rows in sample.items() %}<h3>{{ kind }}</h3>
{% for row in rows %}<details><summary>{{ row.prompt[0][:90] }}{% for name, value in row.facts[:2] %} · {{ name }}: {{ value }}{% endfor %}</summary>
<p class="note">{{ row.id }}{% for name, value in row.facts %} · {{ name }}: {{ value }}{% endfor %}</p>
{% for turn in row.prompt %}<h4>prompt{% if row.prompt | length > 1 %}, turn {{ loop.index }}{% endif %}</h4>
<div class="said">{{ turn }}</div>
{% set place = loop.index0 %}<div class="sides">{% for name, said in row.answers %}<div><h4>{{ name }}</h4>
<div class="said">{{ said[place] if place < said | length else '' }}</div></div>{% endfor %}</div>
{% endfor %}</details>
{% else %}<p class="note">none</p>
{% endfor %}{% endfor %}
"""
)


def made_html(data: Mapping[str, Any], sample: Mapping[str, Sequence[Shown]], seed: int) -> str:
    """The page as HTML without any reference outside itself. `data` as `report_data` gives it."""
    return render(BODY, _content(data, sample, seed), style=MADE_STYLE)


def _content(data: Mapping[str, Any], sample: Mapping[str, Sequence[Shown]], seed: int) -> dict[str, Any]:
    facts = data["facts"]
    models = [_model_row(each) for each in facts["models"]]
    answers = data["stage"] == "generate"
    return {
        "title": data["file"],
        "subtitle": f"{'Answers' if answers else 'Pairs'} by {data['stage']}, SHA-256 {data['sha256'][:16]}",
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
        "costs": list(_costs(data["costs"])),
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


SHARES = (("source", "sources"), ("licence", "licences"), ("judge", "judges"), ("language", "languages"), ("status", "statuses"))


def _accounted(data: Mapping[str, Any]) -> str:
    if all(each["closes"] for each in data["accounts"]) and data["accounts"]:
        return "Every row of every stage is accounted for."
    return "No row is known to be missing; some stages did not say how much they read."


def _tiles(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = data["facts"]
    tiles = [(f"{facts['rows']:,}", "rows"), (f"{facts['prompts']:,}", "prompts"), (f"{len(facts['models']):,}", "models")]
    if facts.get("labels"):
        tiles.append((f"{facts['labels']['tie']:.0%}", "of the labels are ties"))
    losses = [_step(judge, WITH_LENGTH) for judge in data["judges"].values() if judge.get("certificate") and not judge["borrowed"]]
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
        found["steps"] = [
            [s["name"], *(f"{s[key]:.3f}".replace("-", "−") for key in ("log_loss", "error", "gain", "gain_error"))] for s in certificate["steps"]
        ]
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
        return {"text": text, "digest": node["artifact"], "mind": mind, "below": [_tree(given) for given in node.get("from", ())]}
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
    return {"file": each["file"], "exact": f"{each['exact']:,}", "near": f"{each['near']:,}", "example": example, "nearest": nearest}


def _fold(fold: Mapping[str, Any]) -> list[str]:
    return [*(f"{fold[key]:,}" for key in ("fold", "exact", "near", "prompts")), fold["example"][-160:]]
