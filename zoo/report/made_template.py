"""The template of a made file's page: its body and style, for `zoo.report.page.render`."""

from __future__ import annotations

from zoo.report.page import BARS, BARS_STYLE
from zoo.report.rows_to_read import READ, READ_STYLE

MADE_STYLE = (
    BARS_STYLE
    + READ_STYLE
    + """
  .left td, .left th { text-align: left; white-space: normal; overflow-wrap: anywhere } .left td { min-width: 5rem }
  td.n, th.n { text-align: right !important; white-space: nowrap; min-width: 0 !important }
  .fault { color: var(--warn); font-weight: 600 } .fine { color: var(--good); font-weight: 600 }
  .tree, .tree ul { list-style: none; margin: 0; padding-left: 1.1rem; border-left: 1px solid var(--line) }
  .tree { border: 0; padding: 0 } .tree li { margin: .25rem 0; overflow-wrap: anywhere } code { font-size: .9em }
  h3 { font-size: 1rem; margin: 1.2rem 0 .3rem }
  .verdict { max-width: 46rem }
"""
)
BODY = (
    BARS
    + READ
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
<div class="scroll"><table class="left"><thead><tr><th>what became of them</th><th class="n">count</th>
<th>one of them</th></tr></thead>
<tbody>{% for part in each.parts %}<tr><td>{{ part.reason }}</td><td class="n">{{ part.count }}</td>
<td>{{ part.example }}</td></tr>
{% endfor %}</tbody></table></div>
<p class="note">{{ each.note }}</p>
{% endfor %}{% for text in handovers %}<p class="note">{{ text }}</p>
{% endfor %}

{% if costs %}<h2>Tokens and seconds</h2>
<div class="scroll"><table><thead><tr><th>stage</th><th>of</th><th>rows</th><th>tokens</th><th>seconds</th>
<th>GPU seconds</th></tr></thead>
<tbody>{% for row in costs %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
<p class="note">Seconds with loading, on the machine that each stage ran on; GPU seconds are of all its GPUs. Answers
that were taken from an earlier run cost nothing again.</p>{% endif %}

<h2>Sources and licences</h2>
<div class="pair">{% for title, rows in shares %}<div class="scroll"><table><thead><tr><th>{{ title }}</th>
<th>rows</th><th>share</th></tr></thead>
<tbody>{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endfor %}</div>

{% if models %}<h2>Balance of models</h2>
{% macro models_table(rows) %}<div class="scroll"><table><thead><tr>{% for name in model_columns %}<th>{{ name }}
</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endmacro %}
{{ models_table(models) }}
{% if more_models %}<details><summary>{{ more_models | length }} models more</summary>{{ models_table(more_models) }}
</details>{% endif %}{% endif %}
{% if lengths %}<h2>Lengths in characters</h2>
<div class="scroll"><table><thead><tr><th>of</th>{% for name in spread %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in lengths %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endif %}

{% if near or main %}<h2>Near-copies: what an exact check lets through</h2>
{% if near %}<div class="scroll"><table class="left"><thead><tr><th>file</th><th class="n">rows asked in it</th>
<th class="n">let through by an exact check</th><th>for example</th></tr></thead>
<tbody>{% for row in near %}<tr><td>{{ row.file }}</td><td class="n">{{ row.exact }}</td><td class="n">{{ row.near }}
</td><td>{{ row.example }}</td></tr>
{% endfor %}</tbody></table></div>
{% for each in near if each.nearest %}<h3>The nearest prompts that were kept, beside {{ each.file }}</h3>
<div class="scroll"><table class="left"><thead><tr><th class="n">similarity</th><th>kept</th><th>there</th></tr></thead>
<tbody>{% for pair in each.nearest %}<tr><td class="n">{{ pair[0] }}</td><td>{{ pair[1] }}</td><td>{{ pair[2] }}</td></tr>
{% endfor %}</tbody></table></div>
{% endfor %}
<p class="note">Jaccard similarity of runs of five characters; from 0.70 on two prompts are near-copies.</p>{% endif %}
{% for each in main %}<h3>Beside the folds of {{ each.file }}</h3>
<div class="scroll"><table class="left"><thead><tr><th class="n">fold</th><th class="n">rows asked in it</th>
<th class="n">near-copies</th>
<th class="n">prompts</th><th>for example</th></tr></thead>
<tbody>{% for row in each.folds %}<tr><td class="n">{{ row[0] }}</td>{% for cell in row[1:4] %}<td class="n">{{ cell }}
</td>{% endfor %}<td>{{ row[4] }}</td></tr>
{% endfor %}</tbody></table></div>
<p class="note">A training that holds a fold out masks both columns; an exact check would learn from the second.</p>
{% endfor %}{% endif %}

{% if sample %}<h2>{{ sample_title }}</h2>
<p class="note">{{ sample_note }}</p>
{% for kind, rows in sample.items() %}<h3>{{ kind }}</h3>
{% for row in rows %}{{ read(row) }}
{% else %}<p class="note">none</p>
{% endfor %}{% endfor %}{% endif %}
"""
)
