"""What a run asks for."""

from __future__ import annotations

from pathlib import Path

from zoo.contracts import Held
from zoo.entries.load import load_entry
from zoo.experiments.run import RunOptions, entry_chains


def test_rows_that_a_lexical_entry_is_not_asked_for_are_told(sample_csv: Path, tmp_path: Path) -> None:
    """It scores every row in seconds, whatever number is asked for."""
    said: list[str] = []
    options = RunOptions("score", sample_csv, "cpu", Held(fold=0, n_folds=5), score_rows=5)
    chains = entry_chains(load_entry("lexical"), options, tmp_path, say=said.append)
    assert any(line.startswith("lexical: --score-rows 5 is not used") for line in said)
    assert chains[0][-1].selection.max_rows is None  # type: ignore[union-attr]
