"""docs/metrics.md from the list of metrics in zoo/scores/metric_names.py: `python scripts/metric_table.py --write`."""

from __future__ import annotations

import sys
from pathlib import Path

from zoo.scores.metric_names import METRICS, VALUES

PATH = Path(__file__).parents[1] / "docs" / "metrics.md"
HEAD = """# Metrics

Every metric that a stage, a build or a comparison logs: in `manifest.json`, in MLflow, in `zoo leaderboard`. Made from
`zoo/scores/metric_names.py` by `python scripts/metric_table.py --write`. In a manifest the metrics of one variant have its slug
before them, as in `ab-512:val/log_loss`. Yes and no are logged as 1 and 0.

| metric | unit | better | what it says |
|---|---|---|---|
"""


def page() -> str:
    """The document, as it must lie in docs/."""
    rows = [f"| `{name}` | {m.unit} | {m.better} | {m.meaning} |" for name, m in METRICS.items()]
    values = [f"- `{{{name}}}`: {', '.join(f'`{value}`' for value in found)}" for name, found in VALUES.items()]
    return HEAD + "\n".join(rows) + "\n\nWhat stands for the names in braces:\n\n" + "\n".join(values) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv:
        PATH.write_text(page())
    else:
        print(page(), end="")
