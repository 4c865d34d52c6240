"""The columns that are read are the probabilities and never the labels; harmless differences are mended and told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zoo.errors import ZooError
from zoo.pipeline.import_checks import SUM_ROUNDING, Given, read_table
from zoo.pipeline.table_columns import PREFIXES, parse_columns
from zoo.scores.tables import probabilities

N = 60
IDS = [str(30_000 + i) for i in range(N)]
P = np.random.default_rng(1).dirichlet((1, 1, 1), size=N)
LABELS = dict(zip(("winner_model_a", "winner_model_b", "winner_tie"), np.eye(3, dtype=int)[np.arange(N) % 3].T, strict=True))


def table(*names: str, p: np.ndarray = P, **more: object) -> pd.DataFrame:
    return pd.DataFrame({"id": IDS, **dict(zip(names, p.T, strict=True)), **more})


def read(folder: Path, frame: pd.DataFrame, *, ties: bool = True, columns: str = "", parquet: bool = False) -> Given:
    path = folder / ("t.parquet" if parquet else "t.csv")
    frame.to_parquet(path) if parquet else frame.to_csv(path, index=False)
    return read_table(path, IDS, ties=ties, given=parse_columns(columns) if columns else None)


USUAL = [(f"{prefix}{side}a", f"{prefix}{side}b", f"{prefix}tie") for prefix in PREFIXES for side in ("", "model_")]


@pytest.mark.parametrize("names", [*USUAL, ("A", "B", "tie"), ("a", "b", "tie"), ("P_A", "P_B", "P_Tie"), tuple(LABELS)])
def test_usual_names_are_read(tmp_path: Path, names: tuple[str, ...]) -> None:
    found = read(tmp_path, table(*names))
    np.testing.assert_allclose(probabilities(found.table), P, atol=1e-12)
    assert found.columns.probabilities == names


@pytest.mark.parametrize("names", [("p_a", "p_b", "p_tie"), ("prob_model_a", "prob_model_b", "prob_tie")])
@pytest.mark.parametrize("first", [True, False])
def test_labels_beside_probabilities_are_not_read_and_that_is_told(tmp_path: Path, names: tuple[str, ...], first: bool) -> None:
    frame = table(*names, **LABELS)
    found = read(tmp_path, frame if first else frame[["id", *LABELS, *names]])
    np.testing.assert_allclose(probabilities(found.table), P, atol=1e-12)
    assert any("are labels (one 1 a row) and are not read" in note for note in found.notes)


def test_labels_alone_are_refused_and_so_are_two_sets(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"winner_tie hold labels \(one 1 a row\), not probabilities.*--columns"):
        read(tmp_path, table("x0", "x1", "x2", **LABELS))
    with pytest.raises(ZooError, match=r"p_a, p_b, p_tie and pred_a, pred_b, pred_tie could all be the prob.*--columns"):
        read(tmp_path, table("p_a", "p_b", "p_tie", pred_a=0.2, pred_b=0.3, pred_tie=0.5))
    soft = dict(zip(LABELS, P[::-1].T, strict=True))
    with pytest.raises(ZooError, match="could all be the probabilities"):
        read(tmp_path, table("p_a", "p_b", "p_tie", **soft))


def test_columns_that_the_user_names_are_read_whatever_else_is_there(tmp_path: Path) -> None:
    frame = table("x0", "x1", "x2", p_a=0.2, p_b=0.3, p_tie=0.5, **LABELS).rename(columns={"id": "key"})
    found = read(tmp_path, frame, columns="a=x0,b=x1,tie=x2,id=key")
    np.testing.assert_allclose(probabilities(found.table), P, atol=1e-12)
    for bad, message in (
        ("a=x0,b=x1,tie=nothing,id=key", r"no column 'nothing' \(--columns tie=nothing\); it has key, x0"),
        ("a=x0,b=x1,tie=x2,id=nothing", r"no column 'nothing' \(--columns id=nothing\)"),
        ("a=x0", "give a=NAME,b=NAME,tie=NAME"),
        ("a=x0,b=x1,c=x2", "give a=NAME,b=NAME,tie=NAME"),
        ("x0,x1,x2", "give a=NAME,b=NAME,tie=NAME"),
    ):
        with pytest.raises(ZooError, match=message):
            read(tmp_path, frame, columns=bad)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), st.sampled_from(["3 decimals", "float16", "4 decimals", "float32"]))
def test_rounding_of_any_usual_kind_is_scaled_and_told(tmp_path: Path, seed: int, kind: str) -> None:
    p = np.random.default_rng(seed).dirichlet((1, 1, 1), size=N)
    decimals = int(kind[0]) if "decimals" in kind else None
    rounded = p.round(decimals) if decimals else p.astype(kind).astype(np.float64)
    found = read(tmp_path, table("p_a", "p_b", "p_tie", p=rounded), parquet=True)
    np.testing.assert_allclose(probabilities(found.table).sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(probabilities(found.table), p, atol=2e-3)
    off = np.abs(rounded.sum(axis=1) - 1) > 1e-9
    assert any(f"{off.sum()} rows sum to 1 within" in note for note in found.notes) == bool(off.any())
    assert (f"rounded to {decimals} decimals" in found.notes) == bool(decimals)


def test_sums_further_off_are_refused_by_row(tmp_path: Path) -> None:
    p = P.copy()
    p[7] += SUM_ROUNDING / 3 * 1.01
    with pytest.raises(ZooError, match="1 row has probabilities that do not sum to 1: 30007"):
        read(tmp_path, table("p_a", "p_b", "p_tie", p=p))


@pytest.mark.parametrize("parquet", [True, False])
def test_decimal_ids_are_the_whole_numbers_that_the_battles_have(tmp_path: Path, parquet: bool) -> None:
    frame = table("p_a", "p_b", "p_tie").assign(id=np.array(IDS, dtype=np.float64))
    found = read(tmp_path, frame, parquet=parquet)
    assert found.table["id"].tolist() == IDS
    assert "60 ids are decimal numbers: 30000.0 is read as 30000" in found.notes
    path = tmp_path / "own.csv"
    frame.to_csv(path, index=False)
    assert read_table(path, [f"{i}.0" for i in IDS], ties=True).table["id"].tolist() == [f"{i}.0" for i in IDS]


def test_two_classes_are_whole_only_where_no_battle_can_be_a_tie(tmp_path: Path) -> None:
    p = P[:, :2] / P[:, :2].sum(axis=1, keepdims=True)
    frame = table("pred_a", "pred_b", p=p)
    found = read(tmp_path, frame, ties=False)
    np.testing.assert_allclose(probabilities(found.table), np.column_stack([p, np.zeros(N)]), atol=1e-12)
    assert "no column is the tie's, and no battle is a tie: p_tie is 0" in found.notes
    with pytest.raises(ZooError, match="A and B alone, and battles of this kind can be ties; add the column p_tie"):
        read(tmp_path, frame, ties=True)


@pytest.mark.parametrize(("own", "theirs"), [("{:04d}", "{}"), ("{}", "{:06d}")])
def test_ids_that_lost_their_zeros_are_the_battles_own_and_not_the_few_that_happen_to_be_alike(tmp_path, own, theirs):
    """As where one file is parquet with numbers, and the other has text."""
    numbers = range(990, 1050)
    p = np.random.default_rng(0).dirichlet((1, 1, 1), 60)
    frame = pd.DataFrame(p, columns=["p_a", "p_b", "p_tie"]).assign(id=[theirs.format(i) for i in numbers])
    if theirs == "{}":
        frame["id"] = frame["id"].astype(int)
    frame.to_parquet(tmp_path / "t.parquet")
    known = [own.format(i) for i in numbers]
    found = read_table(tmp_path / "t.parquet", known, ties=True)
    assert found.table["id"].tolist() == known
    assert any("differ in zeros before them" in note and "is read as" in note for note in found.notes)
    with pytest.raises(ZooError, match=r"id .* may be .* or .*; write the ids as the battles have them"):
        read_table(tmp_path / "t.parquet", [*known, own.format(990).zfill(8), "0" + own.format(1049).zfill(9)], ties=True)
