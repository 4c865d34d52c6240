"""The page of an insight: weak slices, calibration, and the worst and best rows with texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from zoo.report.drawing import svg
from zoo.report.figures import confusion, outcomes, reliability
from zoo.report.insight import Insight, help_text, told_text
from zoo.report.insight_rows import extremes
from zoo.report.page import BARS, BARS_STYLE, render, stacked_bars
from zoo.report.rows_to_read import READ, READ_STYLE, Shown, texts
from zoo.scores.metric_names import ACCURACY, CALIBRATION_ERROR, LOG_LOSS, LOG_LOSS_SE
from zoo.scores.metrics import uniform_loss
from zoo.scores.parts import SURE, PartLoss, is_told

INSIGHT_STYLE = (
    BARS_STYLE
    + READ_STYLE
    + """
  .kind th { text-align: left; padding-top: .9rem; border-bottom: 1px solid var(--line); white-space: nowrap }
  .span { width: 24% } .span div { position: relative; height: .8rem; background: var(--faint) }
  .span i { position: absolute; top: .3rem; height: .2rem; background: var(--soft); print-color-adjust: exact;
    -webkit-print-color-adjust: exact }
  .span b { position: absolute; top: 0; width: .3rem; height: .8rem; background: var(--ink); margin-left: -.15rem;
    print-color-adjust: exact; -webkit-print-color-adjust: exact }
  .span u { position: absolute; top: -.2rem; bottom: -.2rem; border-left: 1px dashed var(--soft) }
  .weak { color: var(--warn); font-weight: 600 } .strong { color: var(--good); font-weight: 600 }
  .left td, .left th { text-align: left } td.n, th.n { text-align: right !important }
  .left td:nth-child(2) { white-space: normal; overflow-wrap: anywhere; min-width: 7rem }
  @media (max-width: 40rem) { .span, .pm { display: none } .slices th, .slices td { padding: .3rem .2rem; font-size: .8rem }
    .slices td:first-child { min-width: 5.5rem } }"""
)

SLICES = """
{% macro slices_of(found) %}<div class="scroll"><table class="slices">
<thead><tr><th>slice</th><th>rows</th><th>log loss</th><th>against the rest</th><th class="span" aria-hidden="true"></th>
<th>verdict</th></tr></thead>
{% for kind, rows in found %}<tbody><tr class="kind"><th colspan="6" scope="rowgroup">{{ kind }}</th></tr>
{% for row in rows %}<tr><td>{{ row.name }}</td><td>{{ row.rows }}</td>
<td>{{ row.loss }}<span class="pm"> ± {{ row.error }}</span></td>
<td>{{ row.against }}<span class="pm"> ± {{ row.against_error }}</span></td>
<td class="span" aria-hidden="true">{% if row.drawn %}<div><u style="left: {{ row.zero }}%"></u>
<i style="left: {{ row.low }}%; width: {{ row.width }}%"></i><b style="left: {{ row.at }}%"></b></div>{% endif %}</td>
<td class="{{ row.kind }}">{{ row.verdict }}</td></tr>
{% endfor %}</tbody>{% endfor %}</table></div>{% endmacro %}"""

BODY = (
    BARS
    + READ
    + SLICES
    + """
{% if note %}<p class="note">{{ note }}</p>{% endif %}
<h2>Where it is weak, and where strong</h2>
<p>{{ told }}.</p>
{{ slices_of(slices) }}
<p class="note">Log loss in nats; errors are standard errors by prompts, the drawn intervals 95 %. “Against the rest”: a slice’s
mean minus that of all other rows; above zero it is worse. –: not told apart from them.</p>

<h2>Calibration</h2>
<div class="scroll"><table>
<thead><tr><th>label</th><th>predicted in the mean</th><th>happened</th><th>gap</th><th>verdict</th></tr></thead>
<tbody>{% for row in calibration %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
<p class="note">{{ calibration_note }}</p>
<div class="pair">{% for drawn in figures %}<div class="scroll">{{ drawn }}</div>
{% endfor %}</div>
{% if agreements %}<h2>Where members differ, and who is right</h2>
<div class="scroll"><table class="left">
<thead><tr><th>one</th><th>other</th><th class="n">same likeliest label</th><th class="n">elsewhere right: one</th>
<th class="n">other</th><th class="n">neither</th><th class="n">log loss there, one − other</th>
<th class="n">errors alike</th></tr></thead>
<tbody>{% for row in agreements %}<tr>{% for cell in row %}<td{% if loop.index > 2 %} class="n"{% endif %}>{{ cell }}</td>
{% endfor %}</tr>{% endfor %}</tbody></table></div>
<p class="note">“Elsewhere”: the rows on which the two hold different labels for the likeliest. “Errors alike”: the correlation
of their log losses by row.</p>{% endif %}
{% if has_plan %}<h2>Where another member would help</h2>
<p>{{ help }}.</p>
{% if helpers %}<div class="scroll"><table class="left">
<thead><tr><th>member</th><th>slice</th><th class="n">rows</th><th class="n">plan</th><th class="n">member</th>
<th class="n">member − plan</th></tr></thead>
<tbody>{% for row in helpers %}<tr>{% for cell in row %}<td{% if loop.index > 2 %} class="n"{% endif %}>{{ cell }}</td>
{% endfor %}</tr>{% endfor %}</tbody></table></div>
<p class="note">Log losses on the rows that both have; below zero the member alone is better there than the whole plan.</p>
{% endif %}{% endif %}
<h2>The worst rows</h2>
<p class="note">{{ worst_note }}</p>
{% for row in worst %}{{ read(row) }}
{% endfor %}
<h2>The best rows</h2>
{% for row in best %}{{ read(row) }}
{% endfor %}"""
)


def insight_html(insight: Insight, worst: int) -> str:
    """The page as HTML without any reference outside itself; every text of a battle is escaped."""
    return render(BODY, _content(insight, worst), style=INSIGHT_STYLE)


def _content(insight: Insight, worst: int) -> dict[str, Any]:
    rows, metrics = insight.rows, insight.metrics
    high, low = extremes(rows.losses, worst)
    share = float(rows.losses[high].sum() / rows.losses.sum()) if rows.losses.sum() else 0.0
    return {
        "title": f"Insight: {insight.name}",
        "subtitle": f"{len(rows.y):,} labelled rows of {insight.data}, data {insight.digest[:12]}",
        "tiles": [
            (f"{metrics[LOG_LOSS]:.4f}", f"log loss, ± {metrics[LOG_LOSS_SE]:.4f} by prompts"),
            (f"{uniform_loss(ties=rows.ties):.4f}", "log loss of guessing"),
            (f"{metrics[ACCURACY]:.1%}", "accuracy"),
            (f"{metrics[CALIBRATION_ERROR]:.4f}", "of the log loss is miscalibration, on these rows"),
        ],
        "note": _capital(insight.note),
        "told": _capital(told_text(insight)),
        "slices": list(slice_rows(insight.slices)),
        "calibration": [
            (each.label, f"{each.predicted:.1%}", f"{each.happened:.1%}", _points(each.gap, each.error), _gap(each))
            for each in insight.calibration
        ],
        "calibration_note": "A gap above zero: the label is predicted more often than it happens. Bars of the figure are one "
        "standard error, and its points hold equally many rows each.",
        "figures": _figures(insight),
        "agreements": [_agreement(each) for each in insight.agreements],
        "has_plan": bool(insight.members),
        "help": _capital(help_text(insight)) if insight.members else "",
        "helpers": [
            (
                each.other,
                f"{each.kind}: {each.name}",
                f"{each.rows:,}",
                f"{each.own:.4f}",
                f"{each.theirs:.4f}",
                difference_text(each.difference, each.error),
            )
            for each in insight.helpers
        ],
        "worst_note": f"{len(high)} of {len(rows.y):,} rows, which hold {share:.1%} of all log loss.",
        "worst": [_shown(insight, place) for place in high],
        "best": [_shown(insight, place) for place in low],
    }


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def difference_text(difference: float | None, error: float | None) -> str:
    """A difference with its standard error, signs as printed."""
    if difference is None or not np.isfinite(difference):
        return "–"
    told = f" ± {error:.4f}" if error is not None and np.isfinite(error) else ""
    return f"{difference:+.4f}{told}".replace("-", "−")


def _points(gap: float, error: float) -> str:
    return f"{100 * gap:+.1f} ± {100 * error:.1f} points".replace("-", "−")


def _gap(each: Any) -> str:
    if not is_told(each.gap, each.error):
        return "as often as it happens"
    return "too often" if each.gap > 0 else "too rarely"


def slice_rows(slices: Sequence[PartLoss]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Rows for the macro of SLICES, kind by kind, their intervals on one scale that holds zero."""
    known = [(p.against_rest, p.against_rest_error) for p in slices if p.against_rest is not None]
    ends = [
        0.0,
        *(d + sign * SURE * (e or 0.0) for d, e in known for sign in (-1, 1) if np.isfinite(d) and np.isfinite(e or 0.0)),
    ]
    low, width = min(ends), (max(ends) - min(ends)) or 1.0

    def at(value: float) -> float:
        return 100 * min(1.0, max(0.0, (value - low) / width))

    for kind in dict.fromkeys(part.kind for part in slices):
        found = []
        for part in (one for one in slices if one.kind == kind):
            middle, error = part.against_rest or 0.0, part.against_rest_error
            shown = "–" if error is None or not np.isfinite(error) else f"{error:.4f}"
            error = error if error is not None and np.isfinite(error) else 0.0
            left, right = at(middle - SURE * error), at(middle + SURE * error)
            weak = part.differs and middle > 0
            found.append(
                {
                    "name": part.name,
                    "rows": f"{part.rows:,}",
                    "loss": f"{part.loss:.4f}",
                    "error": f"{part.error:.4f}" if np.isfinite(part.error) else "–",
                    "against": difference_text(part.against_rest, None),
                    "against_error": shown,
                    "drawn": part.against_rest is not None,
                    "zero": f"{at(0.0):.1f}",
                    "low": f"{left:.1f}",
                    "width": f"{right - left:.1f}",
                    "at": f"{at(middle):.1f}",
                    "kind": ("weak" if weak else "strong") if part.differs else "",
                    "verdict": ("worse" if weak else "better") if part.differs else "–",
                }
            )
        yield kind, found


def _agreement(each: Any) -> tuple[str, ...]:
    neither = 1 - each.first_right - each.second_right
    shares = (f"{share:.0%}" if np.isfinite(share) else "–" for share in (each.first_right, each.second_right, neither))
    alike = f"{each.correlation:.2f}".replace("-", "−") if np.isfinite(each.correlation) else "–"
    return (each.first, each.second, f"{each.same:.0%}", *shares, difference_text(each.difference, each.error), alike)


def _figures(insight: Insight) -> list[Any]:
    from markupsafe import Markup

    rows, of = insight.rows, f"{insight.name}, {insight.data}"
    gaps = ", ".join(f"{c.label} predicted {c.predicted:.0%}, happened {c.happened:.0%}" for c in insight.calibration)
    drawn = [
        svg(
            reliability(rows.p, rows.y, ties=rows.ties, of=of),
            "reliability",
            f"Reliability: share that happened against predicted probability. In the mean {gaps}",
        ),
        svg(
            confusion(rows.p, rows.y, ties=rows.ties, of=of),
            "confusion",
            f"Confusion: true label against the likeliest label, right in {insight.metrics[ACCURACY]:.0%} of the rows",
        ),
    ]
    return [Markup(element) for element in drawn]


def _shown(insight: Insight, place: int) -> Shown:
    rows = insight.rows
    row, names = rows.frame.iloc[place], outcomes(ties=rows.ties)
    facts = [
        ("log loss", f"{rows.losses[place]:.3f}"),
        ("people said", names[rows.y[place]]),
        ("language", rows.languages[place]),
        ("turns", str(rows.turns[place])),
    ]
    predicted = {insight.name: rows.p[place]} | {name: p[place] for name, p in insight.members.items()}
    order, parts = ((0, 2, 1), ("A wins", "tie", "B wins")) if rows.ties else ((0, 1), ("A wins", "B wins"))
    drawn = stacked_bars([(name, [float(p[k]) for k in order]) for name, p in predicted.items()], parts)
    answers = [(f"answer {side}", texts(row[f"response_{side.lower()}"])) for side in "AB"]
    return Shown(str(row["id"]), facts, texts(row["prompt"]), answers, drawn)
