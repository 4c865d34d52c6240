"""A member from elsewhere says what it is: measured, what it replaces, and what looks wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.battles_files import as_csv, named, write
from zoo.data.battles import read_battles
from zoo.data.sample import write_sample
from zoo.errors import ZooError
from zoo.pipeline.import_checks import read_table
from zoo.pipeline.import_findings import Findings, findings
from zoo.pipeline.import_table import import_scores
from zoo.report.imported import imported_page
from zoo.report.leaderboard import leaderboard
from zoo.report.leaderboard_page import leaderboard_page
from zoo.report.text import as_text
from zoo.scores.metrics import log_loss_rows
from zoo.store import read_manifest

ROWS = 400


@pytest.fixture(scope="module")
def battles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("battles") / "battles.csv"
    write_sample(path, rows=ROWS, seed=3)
    return path


def labels(battles: Path) -> np.ndarray:
    return read_battles(battles).frame["label"].to_numpy(dtype=np.int64)


def honest(battles: Path, seed: int = 0, see: float = 0.9) -> np.ndarray:
    truth = np.eye(3)[labels(battles)]
    p = np.exp(truth * see + np.random.default_rng(seed).normal(size=truth.shape))
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def bring(folder: Path, battles: Path, p: np.ndarray, name: str = "m", **columns: object) -> tuple[Findings, str]:
    """What the import of a table finds, and the page that shows it."""
    path = folder / f"{name}.csv"
    ids = read_battles(battles).frame["id"]
    pd.DataFrame({"id": ids, "p_a": p[:, 0], "p_b": p[:, 1], "p_tie": p[:, 2], **columns}).to_csv(path, index=False)
    store = folder / "store"
    imported = import_scores(name, path, battles, target="t4x2", load_seconds=9.0, seconds_per_row=0.1, store=store)
    found = findings(imported, store)
    return found, as_text(imported_page(read_manifest(imported.path), imported.path, found)[0])


def test_an_honest_table_is_measured_and_the_next_step_is_shown(tmp_path: Path, battles: Path) -> None:
    p = honest(battles)
    found, page = bring(tmp_path, battles, p)
    assert (found.rows, found.labelled, found.warnings, found.replaces) == (ROWS, ROWS, (), "")
    assert found.log_loss == pytest.approx(log_loss_rows(p, labels(battles)).mean())
    assert found.label_shares <= found.uniform == pytest.approx(np.log(3))
    assert "400 of 400 labelled in battles.csv" in page and f"{found.log_loss:.4f} +- {found.error:.4f}" in page
    assert "warning" not in page and "next: ensemble build --target t4x2 --data " in page


def test_without_ties_uniform_is_one_half(tmp_path: Path) -> None:
    """What a table gives to a tie is taken out before it is judged, as a build does it."""
    rows = [(str(i), [f"what is {i}?"], [f"it is {i}"], [f"it is {i + 1}"], i % 2) for i in range(ROWS)]
    wsdm = write(tmp_path / "wsdm.csv", as_csv(named(rows, language="English")))
    good = np.array([[0.3, 0.2, 0.5], [0.2, 0.3, 0.5]])[labels(wsdm)]
    found, page = bring(tmp_path, wsdm, good)
    assert found.log_loss == pytest.approx(-np.log(0.6)) and found.uniform == pytest.approx(np.log(2))
    assert "1/2 each 0.6931" in page and "1/3" not in page and "worse" not in page
    (row,) = leaderboard(tmp_path / "store")
    assert row.log_loss == pytest.approx(-np.log(0.6))
    wrong = np.array([[0.9, 0.1, 0], [0.1, 0.9, 0]])[np.random.default_rng(0).integers(0, 2, ROWS)]
    found, _ = bring(tmp_path, wsdm, wrong, name="worse")
    assert any(
        w.startswith("worse than 1/2 for each label: log loss") and w.endswith("that has 0.6931") for w in found.warnings
    )


def test_what_it_replaces_or_what_stands_before_it_is_told(tmp_path: Path, battles: Path) -> None:
    bring(tmp_path, battles, honest(battles))
    found, _ = bring(tmp_path, battles, honest(battles, seed=1))
    assert found.replaces.endswith("(400 rows)") and "," not in found.replaces
    few = honest(battles, seed=2)
    few[24:] = np.nan
    status = ["ok"] * 24 + ["not scored"] * (ROWS - 24)
    found, page = bring(tmp_path, battles, few, status=status)
    assert found.rows == 24
    assert found.replaces.startswith("nothing: the table ") and found.replaces.endswith("with 400 rows is taken; this has 24")
    assert "24 of 400 labelled" in page


def test_leaked_rows_are_told_and_the_command_that_takes_it_nevertheless(tmp_path: Path, battles: Path) -> None:
    p, y = honest(battles), labels(battles)
    rows = np.random.default_rng(0).choice(ROWS, ROWS // 10, replace=False)
    p[rows] = np.eye(3)[y[rows]]
    found, page = bring(tmp_path, battles, p)
    assert found.warnings[0].startswith("looks partly leaked: 40 rows share the probability 1, ")
    assert found.warnings[1].startswith("hard: 40 of 400 rows")
    assert "warning: looks partly leaked" in page and page.count("--include m") == 1
    bring(tmp_path, battles, honest(battles, see=0.5), name="honest")
    bring(tmp_path, battles, honest(battles, see=0.4), name="weaker")
    first, *_ = rows = leaderboard(tmp_path / "store")
    assert first.member == "m" and first.suspect.startswith("looks in-sample"), "as a build judges it, beside its peers"
    assert "honest (best)" in as_text(leaderboard_page(rows)[0]), "what a build leaves out is not the best"


def test_in_sample_and_worse_than_guessing_are_told(tmp_path: Path, battles: Path) -> None:
    bring(tmp_path, battles, honest(battles, see=0.3), name="peer")
    bring(tmp_path, battles, honest(battles, seed=9, see=0.1), name="weaker")
    found, _ = bring(tmp_path, battles, honest(battles, seed=4, see=6.0))
    assert found.warnings[0].startswith("looks in-sample: log loss ")
    rows = {row.member: row for row in leaderboard(tmp_path / "store")}
    assert rows["m"].suspect == found.warnings[0] and not rows["peer"].suspect
    assert "peer (best)" in as_text(leaderboard_page(list(rows.values()))[0]), "a build leaves the other out"
    flat = honest(battles, seed=5, see=0.0) ** 2
    found, _ = bring(tmp_path, battles, flat / flat.sum(axis=1, keepdims=True))
    assert found.warnings[0].startswith("worse than 1/3 for each label: log loss 2.0401")


def test_labels_under_another_name_are_refused_and_an_honest_hard_table_is_told(tmp_path: Path, battles: Path) -> None:
    truth = np.eye(3)[labels(battles)]
    with pytest.raises(ZooError, match=r"p_a, p_b, p_tie hold only 0 and 1, and 100% .* these are labels, not probabilities"):
        bring(tmp_path, battles, truth)
    assert not list((tmp_path / "store").glob("import-*"))
    guessed = np.eye(3)[honest(battles).argmax(axis=1)]
    found, _ = bring(tmp_path, battles, guessed)
    wrong = int((guessed[np.arange(ROWS), labels(battles)] == 0).sum())
    assert found.warnings[1] == (
        f"hard: 400 of 400 rows are a 1 and two 0; {wrong} rows leave their own label no chance (34.5 nats each)"
    )


@pytest.mark.parametrize("rows", [12, 15])
def test_a_dozen_hard_rows_that_are_all_right_are_labels(tmp_path: Path, rows: int) -> None:
    few = tmp_path / "few.csv"
    write_sample(few, rows=rows, seed=3)
    with pytest.raises(ZooError, match="these are labels, not probabilities"):
        bring(tmp_path, few, np.eye(3)[labels(few)])


def test_a_status_of_categories_with_blanks_is_read(tmp_path: Path, battles: Path) -> None:
    frame = pd.DataFrame({"id": read_battles(battles).ids}).assign(p_a=0.5, p_b=0.3, p_tie=0.2)
    frame["status"] = pd.Categorical(["refused", *[None] * (ROWS - 1)])
    frame.loc[0, ["p_a", "p_b", "p_tie"]] = np.nan
    frame.to_parquet(tmp_path / "scores.parquet")
    read = read_table(tmp_path / "scores.parquet", set(frame["id"]), ties=True)
    assert read.table["status"].tolist() == ["refused", *["ok"] * (ROWS - 1)]


def test_a_table_with_labels_beside_is_not_taken_for_what_an_earlier_version_made_of_it(tmp_path: Path, battles: Path) -> None:
    """That one read the labels: the request has another fingerprint now. A plain table keeps the one that it had."""
    beside = dict(zip(("winner_model_a", "winner_model_b", "winner_tie"), np.eye(3, dtype=int)[labels(battles)].T, strict=True))
    bring(tmp_path, battles, honest(battles), **beside)
    bring(tmp_path, battles, honest(battles), name="plain")
    requests = {p.name: (p / "manifest.json").read_text() for p in (tmp_path / "store").glob("import-*")}
    assert sorted('"columns"' in text for text in requests.values()) == [False, True]
