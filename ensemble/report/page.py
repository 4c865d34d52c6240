"""The plan's page: one self-contained HTML file.

Members, schedule, what the budget bought, frontier and reliability.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ensemble.budget.duration import format_seconds
from ensemble.budget.foretold import MARK, forecast_text
from ensemble.plan import Plan, candidate_words
from ensemble.pools.blend import apply_blend
from ensemble.pools.patterns import blend_for
from ensemble.report.frontier import bars_text
from ensemble.report.page_figures import draw, widths
from ensemble.report.page_why import WHY_STYLE, WHY_TEMPLATE, why_content
from ensemble.report.shift import shift_details
from ensemble.report.views import paired_text, pool_text, study_text, taken_text, unseen_text
from zoo.errors import ZooError, amount
from zoo.pipeline.members import Table, score_tables, standing
from zoo.report.page import render
from zoo.scores.tables import without_ties

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


def blend_at_hand(plan: Plan, store: Path | None) -> tuple[tuple[np.ndarray, np.ndarray] | None, str]:
    """The plan's blend of all members on the rows it was fitted on, with a note.

    (probabilities (rows, 3), labels (rows,)). None, and why, where the store lacks a member's table or the battles are not
    where they were.
    """
    if store is None or not store.exists():
        return None, "the members' score tables are not on this machine"
    try:
        tables = _tables_of(plan, store)
        missing = [member.name for member in plan.members if member.name not in tables]
        if missing:
            return None, f"the store has no score table of {', '.join(missing)} from the plan's checkpoint and data"
        known = _labelled(list(tables.values()), plan.dataset_digest)
    except ZooError as error:
        return None, str(error)
    if known is None:
        return None, "the labelled battles are not where they were scored from"
    labels, lengths = known
    frames = {name: table.usable.set_index("id") for name, table in tables.items()}
    ids = sorted(set(labels.index).intersection(*(frame.index for frame in frames.values())))
    blend = blend_for(plan.pools, frozenset(frames), planned=False)
    if not ids or blend is None:
        return None, "the members' tables share no labelled row"
    if len(ids) != plan.fitted_rows:
        return None, f"the members' tables share {len(ids):,} rows now, and the plan was fitted on {plan.fitted_rows:,}"
    p = {name: frame.loc[ids, ["p_a", "p_b", "p_tie"]].to_numpy(dtype=np.float64) for name, frame in frames.items()}
    note = (
        f"All members on all {len(ids):,} rows. The members had not seen these rows; the blend's few weights were fitted "
        "on them. Bars are one standard error."
    )
    if not plan.ties:
        p = {name: without_ties(table) for name, table in p.items()}
    return (apply_blend(blend, p, lengths.loc[ids].to_numpy()), labels.loc[ids].to_numpy()), note


def _tables_of(plan: Plan, store: Path) -> dict[str, Table]:
    """The plan's members' tables by name, as a build takes them, of the plan's data and checkpoints."""
    wanted = {member.name: member.checkpoint for member in plan.members}
    of_data = [table for table in score_tables(store) if table.card.dataset_digest == plan.dataset_digest]
    at_home = [table for table in of_data if table.card.target == plan.target.name and not table.card.emulates]
    priced = {table.name for table in at_home}
    on_data = [*at_home, *(table for table in of_data if table.name not in priced)]  # those have the cost of a forecast
    of_plan = {(t.name, t.recipe) for t in on_data if wanted.get(t.name) == t.card.checkpoint}
    found = standing([table for table in on_data if (table.name, table.recipe) in of_plan]).members
    return {
        member.table.name: member.table for member in found if wanted.get(member.table.name) == member.table.card.checkpoint
    }


def _labelled(tables: list[Table], digest: str) -> tuple[pd.Series, pd.DataFrame] | None:
    """Labels and texts' lengths (rows, 3), NaN without texts, by id, of the battles that have this digest."""
    from zoo.data.battles import dataset_digest, read_battles, text_lengths

    for path in {table.battles_path for table in tables if table.battles_path}:
        if path.exists() and dataset_digest(battles := read_battles(path, need_texts=False)) == digest:
            known = battles.frame[battles.frame["label"] >= 0]
            known = known.set_index("id")
            lengths = text_lengths(known) if battles.has_texts else np.full((len(known), 3), np.nan)
            return known["label"].astype(int), pd.DataFrame(lengths, index=known.index)
    return None


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
