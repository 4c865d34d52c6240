"""What `zoo list`, `show` and `check` print, and a stage's closing lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zoo.contracts import Contract
from zoo.entries.load import entry_names, load_entry
from zoo.errors import ZooError
from zoo.pipeline.chain import STAGE_ORDER
from zoo.report.text import text_table
from zoo.settings import store_folder
from zoo.store import Artifact, list_artifacts

if TYPE_CHECKING:
    from zoo.checks import Finding


def entries_table(style: str) -> str:
    """Every entry with its base and how many artifacts of each stage the store has."""
    made: dict[tuple[str, str], int] = {}
    for artifact in list_artifacts(store_folder()):
        key = (artifact.manifest.request.entry, artifact.manifest.stage.removeprefix("lexical-"))
        made[key] = made.get(key, 0) + 1
    entries, broken = [], []
    for name in entry_names():  # a broken file must not hide the others
        try:
            entries.append(load_entry(name))
        except ZooError as error:
            broken.append([name, "", "", "", f"cannot be used: {error}"])
    stages = {e.name: {stage: made[e.name, stage] for stage in STAGE_ORDER if (e.name, stage) in made} for e in entries}
    if style == "json":
        return json.dumps(
            [{**e.model_dump(mode="json", exclude_none=True), "stages": stages[e.name]} for e in entries], indent=1
        )
    rows = [
        [
            entry.name,
            entry.base.hub_id if entry.base else entry.kind,
            f"{entry.base.parameters / 1e9:.2f}B" if entry.base else "",
            ", ".join(f"{stage} x{n}" if n > 1 else stage for stage, n in stages[entry.name].items()) or "nothing yet",
            entry.description,
        ]
        for entry in entries
    ]
    return text_table(["entry", "base", "size", "in the store", "what"], [*rows, *broken], style=style)


def entry_toml(entry: Contract) -> str:
    """An entry, or a target, as TOML, defaults filled in."""
    lines: list[str] = []

    def write(table: dict[str, Any], name: str) -> None:
        plain = {k: v for k, v in table.items() if not isinstance(v, dict)}
        if name and plain:
            lines.append(f"\n[{name}]")
        lines.extend(f"{key} = {_toml(value)}" for key, value in plain.items())
        for key, value in table.items():
            if isinstance(value, dict):
                write(value, f"{name}.{key}" if name else key)

    write(entry.model_dump(mode="json", exclude_none=True), "")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)  # TOML's basic strings, numbers and booleans are JSON's


def findings_table(findings: Sequence[Finding]) -> str:
    return text_table(["check", "verdict", "what", "mend"], [[f.check, f.verdict, f.what, f.mend or ""] for f in findings])


def metrics_lines(artifact: Artifact) -> list[str]:
    """A stage's metrics, one a line."""
    width = max((len(name) for name in artifact.manifest.metrics), default=0)
    return [f"{name:<{width}}  {value:.6g}" for name, value in sorted(artifact.manifest.metrics.items())]
