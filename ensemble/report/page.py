"""The plan's page: one self-contained HTML file.

Members, schedule, what the budget bought, frontier and reliability.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ensemble.budget.foretold import MARK, forecast_text
from ensemble.plan import Plan, candidate_words
from ensemble.pools.patterns import blend_for
from ensemble.report.at_hand import blend_at_hand
from ensemble.report.frontier import bars_text
from ensemble.report.page_figures import draw, widths
from ensemble.report.page_why import WHY_STYLE, WHY_TEMPLATE, why_content
from ensemble.report.shift import shift_details
from ensemble.report.views import paired_text, pool_text, study_text, taken_text, unseen_text
from zoo.errors import amount
from zoo.report.duration import format_seconds
from zoo.report.page import render

TEMPLATE = (
    """
<h2>Members</h2>
<div class="scroll"><table>
<thead><tr><th>member</th><th class="barcell">weight</th><th>sees</th>{% if has_prices %}<th>time</th>{% endif %}
{% if has_tokens %}<th>tokens a row</th>{% endif %}<th>log loss alone</th></tr></thead>
<tbody>
{% for row in members %}<tr><td>{{ row.name }}</td>
<td class="barcell">{{ row.weight }}<span class="bar" style="width: {{ row.width }}%"></span></td>
<td>{{ row.coverage }}</td>{% if has_prices %}<td>{{ row.time }}</td>{% endif %}
{% if has_tokens %}<td>{{ row.tokens }}</td>{% endif %}<td>{{ row.alone }}</td></tr>
{% endfor %}</tbody></table></div>
<p class="note">Weights are shares of influence in the {{ pool }} pool of all members.</p>
"""
    + WHY_TEMPLATE
    + """
{% if has_prices %}
<h2>Schedule on {{ target }}</h2>
<div class="scroll wide">{{ figures.schedule }}</div>
<p class="note">{{ margin }}</p>

<h2>What the budget bought</h2>
{% else %}
<h2>Beside what needs no search</h2>
{% endif %}
<div class="pair">
<div class="scroll">{{ figures.bought }}</div>
<div class="scroll"><table>
<thead><tr><th>in the same rehearsal</th><th>log loss</th><th>plan against it</th></tr></thead>
<tbody>
{% for row in baselines %}<tr><td>{{ row[0] }}</td><td>{{ row[1] }}</td><td>{{ row[2] }}</td></tr>
{% endfor %}</tbody></table>
<p class="note">Below zero: the plan is better. Standard errors are of paired differences, clustered by prompt.</p></div>
</div>

<div class="pair">
{% if has_prices %}<div><h2>Frontier</h2>
{% if figures.frontier %}<div class="scroll">{{ figures.frontier }}</div>
<p class="note">Plans that no cheaper one beats, of those that this build looked at. Their losses are out
of fold but not rehearsed, and flatter beside the star, which is; <code>ensemble frontier</code> rehearses every point.
{{ frontier_bars }}</p>
{% else %}<p>Only one plan was affordable: there is no frontier to draw.</p>{% endif %}</div>{% endif %}
<div><h2>Reliability of the blend</h2>
{% if figures.reliability %}<div class="scroll">{{ figures.reliability }}</div>
<p class="note">{{ reliability_note }}</p>
{% else %}<p>Not drawn: {{ reliability_note }}.</p>{% endif %}</div>
</div>

<h2>How it was found</h2>
<dl>
{% for term, text in details %}<dt>{{ term }}</dt><dd>{{ text }}</dd>
{% endfor %}{% if study %}<dt>Study</dt><dd>{{ study }}; <code>ensemble study PLAN</code> shows it, and how to open it</dd>
{% endif %}</dl>
"""
)


def plan_html(plan: Plan, store: Path | None = None) -> str:
    """The page as HTML without any reference outside itself.

    `store`: where the members' tables may lie, for reliability.
    """
    from markupsafe import Markup

    blended, note = blend_at_hand(plan, store)
    figures = {name: Markup(element) for name, element in draw(plan, blended).items()}
    drawn = {"figures": {"frontier": "", "reliability": ""} | figures, "reliability_note": note}
    return render(TEMPLATE, _content(plan) | drawn, style=WHY_STYLE)


def _time_tiles(plan: Plan) -> list[tuple[str, str]]:
    allowed = format_seconds(plan.predicted_seconds * plan.margin)
    return [
        (format_seconds(plan.predicted_seconds), f"predicted for {amount(plan.rows, 'row')}"),
        (allowed, f"with margin {plan.margin:.4g}, of {format_seconds(plan.budget_seconds)}"),
    ]


def _content(plan: Plan) -> dict[str, Any]:
    """What the template says, as text."""
    gain = plan.baselines.get("best_single", plan.oof_log_loss) - plan.oof_log_loss
    bars = widths([member.weight for member in plan.members])
    full = blend_for(plan.pools, frozenset(member.name for member in plan.members), planned=False)
    return {
        "title": f"{amount(len(plan.members), 'member')}, "
        + (f"{format_seconds(plan.budget_seconds)} on {plan.target.name}" if plan.has_prices else "of tables alone"),
        "has_prices": plan.has_prices,
        "subtitle": f"Built {plan.created_at:%Y-%m-%d %H:%M} UTC, {plan.fitted_rows:,} rows of data {plan.dataset_digest[:12]}",
        "tiles": [
            (f"{plan.oof_log_loss:.4f}", f"log loss out of fold, ± {plan.oof_log_loss_se:.4f}"),
            *([] if plan.oof_accuracy is None else [(f"{plan.oof_accuracy:.4f}", "accuracy out of fold; no battle is a tie")]),
            (f"{gain:+.4f}".replace("+", "−") if gain >= 0 else f"+{-gain:.4f}", "against the best single member"),
            *(_time_tiles(plan) if plan.has_prices else []),
        ],
        "has_tokens": any(member.mean_row_tokens for member in plan.members),
        "members": [
            {
                "name": member.name,
                "weight": f"{member.weight:.3f}",
                "width": f"{0.6 * bar:.1f}",
                "coverage": f"{member.coverage:.0%}",
                "time": format_seconds(member.predicted_seconds) + (f", {MARK}" if member.cost.forecast else ""),
                "tokens": f"{member.mean_row_tokens:.0f}" if member.mean_row_tokens else "–",
                "alone": f"{member.oof_log_loss:.4f}",
            }
            for member, bar in zip(plan.members, bars, strict=True)
        ],
        "pool": full.pool.replace("_", "-") if full else "",
        "target": plan.target.name,
        "frontier_bars": bars_text(plan.frontier),
        "margin": f"Margin {plan.margin:.4g}: {plan.margin_reason}.",
        "baselines": [
            (
                candidate_words(name) + taken_text(plan, name).removeprefix(name),
                f"{loss:.4f}",
                paired_text(plan, name).replace("+-", "±").replace("-", "−"),
            )
            for name, loss in sorted(plan.baselines.items(), key=lambda item: item[1])
        ],
        "details": _details(plan),
        "study": study_text(plan, plan.study) if plan.study else "",
    } | why_content(plan)


def _details(plan: Plan) -> list[tuple[str, str]]:
    found = [("Chosen", plan.parsimony), ("Blended by", pool_text(plan)), ("How the log loss was estimated", plan.estimate)]
    found += [("Labels that were never seen", unseen_text(plan)), *shift_details(plan)]
    if plan.whole_file_oof_log_loss is not None:
        found.append(("Best plan in which every member sees every row", f"log loss {plan.whole_file_oof_log_loss:.4f}"))
    if plan.bound is not None:
        sets = amount(plan.bound.subsets, "affordable set")
        text = f"{plan.bound.method}, {sets}; in-sample gap to the bound {plan.bound.gap:.1e}"
        found.append(("Search", text))
    for member in plan.members:
        found.append((f"Seconds of {member.name}", forecast_text(member.cost, member.predicted_seconds)))
    found += [(f"Left out: {name}", reason) for name, reason in plan.left_out.items()]
    return [(term, text.replace("+-", "±")) for term, text in found if text]
