"""Why, on the plan's page: tables of reasons, and the correlation of errors as a heat map.

The map is a table, not a picture: its labels stay as large as text on a phone, and can be searched.
"""

from __future__ import annotations

from typing import Any

from ensemble.plan import Change, ErrorCorrelation, MemberReason, Plan
from ensemble.report.why import candidate_name, exchanges, judged_text, next_text, others, own, verdict
from zoo.report.duration import format_seconds

WHY_STYLE = """
  .heat { width: auto } .heat th { text-align: center } .heat th:first-child { text-align: left }
  .heat td { text-align: center; border: 1px solid var(--paper); min-width: 2.7rem; padding: .3rem }
  .heat td:first-child { text-align: left; padding-right: .8rem }"""

WHY_TEMPLATE = """
{% if why %}<h2>Why these members</h2>
<div class="scroll"><table>
<thead><tr><th>in the plan</th><th>the plan without it</th>{% if has_prices %}<th>saves</th>{% endif %}<th>log loss alone</th>
<th>recalibrated</th></tr></thead>
<tbody>
{% for row in why.own %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% if why.others %}<div class="scroll spaced"><table>
<thead><tr><th>not in the plan</th><th>the plan with it</th><th>surely better</th>
{% if has_prices %}<th>takes</th><th>needs a budget of</th>{% endif %}<th>log loss alone</th><th>recalibrated</th></tr></thead>
<tbody>
{% for row in why.others %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endif %}{% if why.exchanged %}<div class="scroll spaced"><table>
<thead><tr><th>too dear beside the plan</th><th>in place of</th><th>the plan then</th><th>surely better</th><th>takes</th></tr>
</thead>
<tbody>
{% for row in why.exchanged %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endif %}{% if has_prices %}<p>{{ why.next }}</p>{% endif %}
<p class="note">{{ why.note }}</p>
{% endif %}{% if alike %}<h2>How alike members err</h2>
<div class="scroll"><table class="heat">
<thead><tr><th>errors of</th>{% for row in alike %}<th>{{ loop.index }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in alike %}<tr><td>{{ loop.index }} {{ row.name }}</td>{% for cell in row.cells %}<td title="{{ cell.title }}"
 style="background: {{ cell.background }}; color: {{ cell.color }}">{{ cell.text }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
<p class="note">Correlation of log losses by row, the plan’s members first. Darker: they err alike, and have little to give to
one another. Point at a cell to see how often the two disagree on the likeliest label.</p>
{% endif %}"""

LIGHT, DARK = (255, 255, 255), (8, 48, 107)  # of the map, readable in greyscale


_SURE = {"surely": "yes", "surely not": "worse", "not surely": "no"}


def why_content(plan: Plan) -> dict[str, Any]:
    """What WHY_TEMPLATE says, as text; None where the plan does not know."""
    found = plan.error_correlation
    return {"why": _why(plan) if plan.reasons else None, "alike": heat_rows(found) if found else None}


def _why(plan: Plan) -> dict[str, Any]:
    loss = "{:.4f}".format

    def saved(reason: MemberReason) -> tuple[str, ...]:
        return (_seconds(reason.without_it, -1),) if plan.has_prices else ()

    mine = [
        (r.name, _difference(r.without_it), *saved(r), loss(r.oof_log_loss), loss(r.recalibrated_log_loss)) for r in own(plan)
    ]
    rest = []
    for r in others(plan):
        better, fits = verdict(r.with_it)
        needs = "–" if r.with_it is None else "fits" if fits == "yes" else format_seconds(r.with_it.budget_seconds)
        sure = _SURE.get(better, better)
        alone = (loss(r.oof_log_loss), loss(r.recalibrated_log_loss))
        price = (_seconds(r.with_it, 1), needs) if plan.has_prices else ()
        rest.append((candidate_name(plan, r), _difference(r.with_it), sure, *price, *alone))
    note = f"Judged {judged_text(plan)}. Standard errors are of paired differences, clustered by prompt."
    dear = [
        (r.name, r.in_place_of, _difference(r.exchanged), _SURE[verdict(r.exchanged)[0]], _seconds(r.exchanged, 1))
        for r in exchanges(plan)
    ]
    return {"own": mine, "others": rest, "exchanged": dear, "next": _sentence(next_text(plan)), "note": note}


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}.".replace(" -", " −")


def _difference(change: Change | None) -> str:
    return "–" if change is None else f"{change.log_loss:+.4f} ± {change.standard_error:.4f}".replace("-", "−")


def _seconds(change: Change | None, sign: int) -> str:
    return "–" if change is None else format_seconds(sign * change.seconds).replace("-", "−")


def heat_rows(found: ErrorCorrelation) -> list[dict[str, Any]]:
    """A row of cells for each member, shaded between the least correlation that there is and 1."""
    least = min(min(row) for row in found.correlation)
    rows = []
    for name, correlations, disagreements in zip(found.members, found.correlation, found.disagreement, strict=True):
        cells = []
        for other, r, apart in zip(found.members, correlations, disagreements, strict=True):
            share = (r - least) / (1 - least) if least < 1 else 1.0
            shade = [round(light + (dark - light) * share) for light, dark in zip(LIGHT, DARK, strict=True)]
            cells.append(
                {
                    "text": f"{r:.2f}".replace("-", "−"),
                    "title": f"{name} and {other}: correlation {r:.3f}, other likeliest labels in {apart:.1%} of the rows",
                    "background": "rgb({}, {}, {})".format(*shade),
                    "color": "#fff" if share > 0.5 else "#1b1b1b",
                }
            )
        rows.append({"name": name, "cells": cells})
    return rows
