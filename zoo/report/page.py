"""What pages for people share: one self-contained HTML file, its style, and bars.

Nothing on a page comes from elsewhere. Colours are few and told apart in greyscale; a page follows the reader's dark mode, a
phone's width and paper.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

STYLE = """
  :root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --soft: #555; --line: #ccc; --faint: #e4e4e4;
    --warn: #a33b00; --good: #00684a; --blue: #0072b2; --orange: #c44e00; --green: #00795a; --grey: #6e6e6e }
  @media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #161616; --soft: #b0b0b0; --line: #555;
    --faint: #333; --warn: #ff9a66; --good: #5fd0a8; --blue: #6cbcf0; --orange: #ff9a66; --green: #5fd0a8;
    --grey: #a0a0a0 } }
  body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 68rem;
    margin: 2rem auto; padding: 0 1rem }
  h1 { font-size: 1.7rem; margin: 0 0 .2rem; overflow-wrap: anywhere }
  h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line) }
  .tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0 }
  .tile { border: 1px solid var(--line); border-radius: .4rem; padding: .6rem 1rem; flex: 1 1 8rem }
  .tile b { display: block; font-size: 1.45rem; font-variant-numeric: tabular-nums }
  .tile span, .note { color: var(--soft); font-size: .9rem }
  table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
  th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--faint); white-space: nowrap }
  th { white-space: normal; vertical-align: bottom }
  th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper) }
  .bar { display: inline-block; height: .75rem; background: var(--ink); vertical-align: middle; margin-left: .5rem }
  .barcell { width: 30% ; text-align: left }
  .scroll { overflow-x: auto } svg { width: 100%; height: auto; min-width: 21rem; fill: var(--ink) }
  .wide svg { min-width: 44rem }
  .spaced { margin-top: 1.2rem }
  .pair { display: flex; flex-wrap: wrap; gap: 1.5rem } .pair > div { flex: 1 1 26rem; min-width: 0 }
  dt { font-weight: 600; margin-top: .6rem } dd { margin: 0; overflow-wrap: anywhere }
  .pair td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 8rem }
  @media print { :root { color-scheme: light; --ink: #000; --paper: #fff; --soft: #333; --line: #999; --faint: #ccc;
    --warn: #a33b00; --good: #00684a; --blue: #0072b2; --orange: #c44e00; --green: #00795a; --grey: #6e6e6e }
    body { margin: 0; max-width: none }
    .tile, tr, .stack { break-inside: avoid } h2 { break-after: avoid } .scroll { overflow: visible }
    details::details-content { content-visibility: visible; block-size: auto } }
  @media (max-width: 40rem) {
    th, td { padding: .3rem .4rem; font-size: .9rem } .bar { display: none }
    td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 6.5rem }
  }"""

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style }}
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="note">{{ subtitle }}</p>
<div class="tiles">
{% for value, label in tiles %}  <div class="tile"><b>{{ value }}</b><span>{{ label }}</span></div>
{% endfor %}</div>
"""
FOOT = """</body>
</html>
"""

BARS_STYLE = """
  .stack { display: grid; grid-template-columns: 11rem 1fr; gap: .15rem .6rem; align-items: center; margin: .5rem 0;
    max-width: 46rem }
  .stack > span { font-size: .9rem; overflow-wrap: anywhere } .stack > div { display: flex; height: 1.5rem; min-width: 0 }
  .stack i { font-style: normal; font-size: .9rem; color: #fff; text-align: center; overflow: hidden; white-space: nowrap;
    border-right: 2px solid var(--paper); line-height: 1.5rem; box-sizing: border-box; print-color-adjust: exact;
    -webkit-print-color-adjust: exact }
  .c0 { background: #00629a } .c1 { background: #6a6a6a } .c2 { background: #b04d00 }
  .key { font-size: .9rem; color: var(--soft) }
  .key i { display: inline-block; width: .8rem; height: .8rem; margin: 0 .3rem 0 .9rem;
    print-color-adjust: exact; -webkit-print-color-adjust: exact }
  .columns { display: flex; align-items: flex-end; gap: 2px; height: 8rem; max-width: 30rem;
    border-bottom: 1px solid var(--line) }
  .columns i { flex: 1; background: #00629a; print-color-adjust: exact; -webkit-print-color-adjust: exact }
  .ends { display: flex; justify-content: space-between; max-width: 30rem; font-size: .9rem; color: var(--soft) }
  @media (max-width: 40rem) { .stack { grid-template-columns: 1fr } }"""


def render(body: str, content: Mapping[str, Any], *, style: str = "") -> str:
    """A page as HTML, in which every value is escaped.

    HEAD, `body` and FOOT are one jinja template.

    `content` has `title`, `subtitle` and `tiles` (pairs of value and label) beside what `body` names. `style`: rules that
    follow those of every page.
    """
    from markupsafe import Markup

    page: str = _template(body).render(content, style=Markup(STYLE + style))
    return page


@functools.cache
def _template(body: str) -> Any:
    from jinja2 import Environment, StrictUndefined

    return Environment(autoescape=True, undefined=StrictUndefined).from_string(HEAD + body + FOOT)


def stacked_bars(rows: Sequence[tuple[str, Sequence[float]]], names: Sequence[str]) -> dict[str, Any]:
    """Bars of shares that add up to 1, for BARS.

    A row a name, three parts at most, each with its percentage.
    """
    found = []
    for name, shares in rows:
        parts = [{"width": f"{100 * share:.2f}", "text": f"{share:.0%}" if share >= 0.08 else ""} for share in shares]
        said = ", ".join(f"{part} {share:.1%}" for part, share in zip(names, shares, strict=True))
        found.append({"name": name, "parts": parts, "said": f"{name}: {said}"})
    return {"rows": found, "names": list(names)}


BARS = """{% macro bars(drawn) %}<p class="key">
{%- for name in drawn.names %}<i class="c{{ loop.index0 }}"></i>{{ name }}{% endfor %}</p>
{% for row in drawn.rows %}<div class="stack"><span>{{ row.name }}</span><div role="img" aria-label="{{ row.said }}">
{%- for part in row.parts %}<i class="c{{ loop.index0 }}" style="width: {{ part.width }}%">{{ part.text }}</i>{% endfor -%}
</div></div>
{% endfor %}{% endmacro %}"""
