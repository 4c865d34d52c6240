"""Rows of a file that cannot be used stand in the table of their fold, failed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.helpers.battles_files import as_csv, competition, write
from zoo.contracts import Held, Input, PromptSpec, ScoreRequest, ScoreSpec, Selection, Variant
from zoo.data.battles import read_battles
from zoo.data.splits import select_rows
from zoo.scores.tables import BAD_ROW, score_table
from zoo.stages.score.stage import assemble, metrics_of, rows_of


def test_over_all_folds_every_row_is_counted_once(tmp_path: Path) -> None:
    frame = competition([(str(i), [f"why {i}"], ["x"], ["y"], i % 3) for i in range(60)])
    frame.loc[[3, 4], "response_a"] = ""
    frame.loc[5, "prompt"] = "oops"
    path = write(tmp_path / "b.csv", as_csv(frame))
    battles, seen, failed = read_battles(path), [], 0.0
    for fold in range(5):
        request = ScoreRequest(
            entry="tiny",
            model=Input(fingerprint="m"),
            battles=Input(path=path, fingerprint="b"),
            held=Held(fold=fold),
            selection=Selection(),
            prompt=PromptSpec(template="{prompt}{response_a}{response_b}", max_tokens=64),
            spec=ScoreSpec(variants=(Variant(),)),
            target="cpu",
        )
        rows = rows_of(battles, select_rows(battles, request.selection, request.held), request)
        p = np.tile([0.5, 0.3, 0.2], (len(rows.ids), 1))
        table = assemble([score_table(rows.ids[::-1], p, n_tokens=7)], rows)
        assert table["id"].tolist() == [*rows.ids, *rows.bad] and set(table["fold"]) == {fold}
        assert (table["status"] == BAD_ROW).sum() == len(rows.bad)
        metrics = metrics_of(table, rows, "ab", len(rows.bad))
        assert metrics["ab:rows/mean_tokens"] == 7 and metrics["ab:val/rows"] == len(rows.ids)
        failed += metrics["ab:rows/failed"]
        seen += table["id"].tolist()
    assert sorted(seen) == sorted(battles.ids) and failed == 3
