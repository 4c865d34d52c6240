"""Score tables made elsewhere: what is right becomes a member, what cannot be right is refused with the row ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zoo.data.battles import dataset_digest, read_battles
from zoo.errors import ZooError
from zoo.pipeline.import_table import import_scores
from zoo.report.leaderboard import leaderboard
from zoo.report.leaderboard_page import leaderboard_page
from zoo.report.text import Format, as_text
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import probabilities, read_card, read_scores
from zoo.store import list_artifacts, read_manifest

ROWS = 240


@pytest.fixture(scope="module")
def battles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 labelled battles whose labels were drawn from `truth()`."""
    path = tmp_path_factory.mktemp("battles") / "battles.csv"
    rng = np.random.default_rng(3)
    labels = [rng.choice(3, p=row) for row in truth()]
    frame = pd.DataFrame({"id": [f"r{i}" for i in range(ROWS)]})
    for column in ("prompt", "response_a", "response_b"):
        frame[column] = [json.dumps([f"{column} {i}"]) for i in range(ROWS)]
    for index, column in enumerate(("winner_model_a", "winner_model_b", "winner_tie")):
        frame[column] = [int(label == index) for label in labels]
    frame.to_csv(path, index=False)
    return path


def truth() -> np.ndarray:
    return np.random.default_rng(2).dirichlet((0.6, 0.6, 0.6), size=ROWS)


def table(p: np.ndarray | None = None, **columns: Any) -> pd.DataFrame:
    p = truth() if p is None else p
    frame = pd.DataFrame({"id": [f"r{i}" for i in range(ROWS)], "p_a": p[:, 0], "p_b": p[:, 1], "p_tie": p[:, 2]})
    return frame.assign(**columns)


def bring(folder: Path, frame: pd.DataFrame, battles: Path, *, suffix: str = ".csv", **options: Any) -> Path:
    path = folder / f"scores{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    options = {"target": "t4x2", "load_seconds": 60.0, "seconds_per_row": 0.5, **options}
    return import_scores("elsewhere", path, battles, store=folder / "store", **options).path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_becomes_a_member(tmp_path: Path, battles: Path, suffix: str) -> None:
    frame = table(n_tokens=[100 + i for i in range(ROWS)], fold=[i % 5 for i in range(ROWS)]).sample(frac=1, random_state=0)
    folder = bring(tmp_path, frame, battles, suffix=suffix)
    (artifact,) = list_artifacts(tmp_path / "store", "import")
    assert artifact.path == folder
    card = read_card(folder / "ab" / "scores.json")
    assert card.member == "elsewhere" and card.request is None and card.engine == "imported"
    assert card.cost.load_seconds == 60 and card.cost.seconds_per_row == 0.5 and card.cost.machine == ""
    assert card.cost.gpus == 2, "the price is the whole target's"
    assert card.dataset_digest == dataset_digest(read_battles(battles))
    back = read_scores(folder / "ab" / "scores.parquet").set_index("id").loc[[f"r{i}" for i in range(ROWS)]]
    assert np.allclose(probabilities(back), truth(), atol=1e-12)
    assert back["n_tokens"].tolist() == [100 + i for i in range(ROWS)] and back["fold"].tolist()[:6] == [0, 1, 2, 3, 4, 0]
    label = read_battles(battles).frame["label"].to_numpy()
    expected = log_loss_rows(truth(), label).mean()
    assert read_manifest(folder).metrics["ab:val/log_loss"] == pytest.approx(expected)


def test_competition_columns_and_import_again(tmp_path: Path, battles: Path) -> None:
    names = {"p_a": "winner_model_a", "p_b": "winner_model_b", "p_tie": "winner_tie"}
    first = bring(tmp_path, table().rename(columns=names), battles)
    assert bring(tmp_path, table().rename(columns=names), battles) == first
    other = bring(tmp_path, table().rename(columns=names), battles, seconds_per_row=0.6)
    assert other != first and len(list_artifacts(tmp_path / "store")) == 2


def test_rounded_tables_are_scaled(tmp_path: Path, battles: Path) -> None:
    folder = bring(tmp_path, table(truth().round(4)), battles)
    assert np.allclose(probabilities(read_scores(folder / "ab" / "scores.parquet")).sum(axis=1), 1, atol=1e-12)


def test_rows_may_say_why_they_were_not_scored(tmp_path: Path, battles: Path) -> None:
    frame = table(status="ok")
    frame.loc[:9, ["p_a", "p_b", "p_tie"]] = np.nan
    frame.loc[:9, "status"] = "not held out"
    folder = bring(tmp_path, frame, battles)
    assert read_card(folder / "ab" / "scores.json").failed_rows == 10
    assert read_manifest(folder).metrics["ab:val/rows"] == ROWS - 10


def spoil(row: int, **values: float) -> pd.DataFrame:
    frame = table()
    for column, value in values.items():
        frame.loc[row, column] = value
    return frame


LOGITS = np.random.default_rng(5).normal(0, 3, size=(ROWS, 3))
BAD = [
    ("doubled", pd.concat([table(), table().iloc[[7]]]), r"1 row has an id that occurs again: r7$"),
    ("missing", table().drop(index=[3, 4]), r"2 rows have a row in battles\.csv and none here; .*: r3, r4$"),
    ("blank", table(id=["", *[f"r{i}" for i in range(1, ROWS)]]), r"1 row has no id \(rows counted from 1\): 1$"),
    ("stranger", table(id=["zz", *[f"r{i}" for i in range(1, ROWS)]]), r"does not have .*: zz$"),
    ("other data", table(id=[f"x{i}" for i in range(ROWS)]), r"none of its 240 ids is in"),
    ("nan", spoil(5, p_a=np.nan), r"1 row has a probability that is NaN or infinite: r5$"),
    ("infinite", spoil(5, p_a=np.inf), r"1 row has a probability that is NaN or infinite: r5$"),
    ("negative", spoil(6, p_a=-0.1, p_b=0.6, p_tie=0.5), r"1 row has a negative probability: r6$"),
    ("sum", spoil(8, p_a=0.9, p_b=0.9, p_tie=0.9), r"1 row has probabilities that do not sum to 1: r8$"),
    ("percent", table(100 * truth()), r"240 rows have probabilities that do not sum to 1: r0, r1, .*, \.\.\.$"),
    ("logits", table(LOGITS), r"holds raw logits.*take the softmax"),
    ("positive logits", table(LOGITS + 20), r"holds raw logits.*take the softmax"),
    ("logarithms", table(np.log(truth())), r"holds log-probabilities.*take exp"),
    ("swapped", table(truth()[:, [1, 0, 2]]), r"p_a and p_b look exchanged: log loss \d.\d+ as given, 0\.\d+ with them"),
    (
        "column",
        table().drop(columns="p_tie"),
        r"of A and B alone, and battles of this kind can be ties; add the column p_tie",
    ),
    ("text", table(p_a="much"), r"a column holds what is not a number"),
    ("nothing scored", table(np.full((ROWS, 3), np.nan), status="no"), r"none of its 240 rows is scored"),
]


@pytest.mark.parametrize(("frame", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_refused(tmp_path: Path, battles: Path, frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(ZooError, match=message) as caught:
        bring(tmp_path, frame, battles)
    assert "scores.csv" in str(caught.value) and "\n" not in str(caught.value)
    assert list_artifacts(tmp_path / "store") == []


def test_prices(tmp_path: Path, battles: Path) -> None:
    with pytest.raises(ZooError, match="parts of a price: give --seconds-per-row or --seconds-per-1k-tokens"):
        bring(tmp_path, table(), battles, seconds_per_row=None)
    for second in ({"seconds_per_1k_tokens": 1.0}, {"like": "llama-3-8b"}):
        with pytest.raises(ZooError, match="one price: give one of --seconds-per-row, --seconds-per-1k-tokens and --like"):
            bring(tmp_path, table(), battles, **second)
    with pytest.raises(ZooError, match="needs the column n_tokens"):
        bring(tmp_path, table(), battles, seconds_per_row=None, seconds_per_1k_tokens=1.0)
    with pytest.raises(ZooError, match="no target 't5'"):
        bring(tmp_path, table(), battles, target="t5")
    folder = bring(tmp_path, table(n_tokens=500), battles, seconds_per_row=None, seconds_per_1k_tokens=2.0, target="cpu")
    cost = read_card(folder / "ab" / "scores.json").cost
    assert cost.seconds_per_token == 0.002 and cost.seconds_per_row == 0 and cost.gpus == 0
    with pytest.raises(ZooError, match="--gpus 3: target t4x2 has 2"):
        bring(tmp_path, table(), battles, gpus=3)
    (row,) = leaderboard(tmp_path / "store")
    assert row.seconds_per_row == pytest.approx(1.0) and row.hours_25k == pytest.approx((60 + 25_000) / 3600)


def test_a_price_may_be_an_entrys_or_come_later(tmp_path: Path, battles: Path) -> None:
    """What nobody has priced has no price on the leaderboard, not one of zero."""
    free: dict[str, Any] = {"load_seconds": 0.0, "seconds_per_row": None}
    with pytest.raises(ZooError, match="no variant 'xy'; it has ab-2048, ba-2048, ab-1024"):
        bring(tmp_path, table(), battles, like="llama-3-8b@xy", **free)
    with pytest.raises(ZooError, match="did you mean 'llama-3-8b'"):
        bring(tmp_path, table(), battles, like="llama-3-8", **free)
    for like in ("", "llama-3-8b@ab-1024"):
        folder = bring(tmp_path, table(), battles, like=like, **free)
        cost = read_card(folder / "ab" / "scores.json").cost
        assert (cost.like, cost.priced) == (like, False)
    for row in leaderboard(tmp_path / "store"):
        assert (row.load_seconds, row.seconds_per_row, row.hours_25k) == (None, None, None)


def test_files_that_are_no_tables(tmp_path: Path, battles: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"no")
    (tmp_path / "empty.csv").write_bytes(b"")
    options: dict[str, Any] = {"target": "cpu", "load_seconds": 0, "seconds_per_row": 1.0, "store": tmp_path / "store"}
    for name in ("x.parquet", "empty.csv", "absent.csv"):
        with pytest.raises(ZooError, match=r"lacks column id|the file is empty|cannot be read"):
            import_scores("x", tmp_path / name, battles, **options)
    with pytest.raises(ZooError, match="is not a member's name"):
        import_scores("X y", tmp_path / "x.parquet", battles, **options)
    unlabelled = pd.read_csv(battles).drop(columns=["winner_model_a", "winner_model_b", "winner_tie"])
    unlabelled.to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(ZooError, match="has no winner columns"):
        import_scores("x", tmp_path / "x.parquet", tmp_path / "test.csv", **options)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 3))
def test_any_proper_table_is_taken_unchanged(tmp_path: Path, battles: Path, seed: int, temperature: float) -> None:
    """Sharper or flatter versions of the truth are never mistaken for logits, logarithms or swaps."""
    p = truth() ** temperature * np.random.default_rng(seed).uniform(0.9, 1.1, size=(ROWS, 3)) + 1e-12
    p /= p.sum(axis=1, keepdims=True)
    folder = bring(tmp_path, table(p), battles, suffix=".parquet")
    assert np.allclose(probabilities(read_scores(folder / "ab" / "scores.parquet")), p, atol=1e-12)


def test_leaderboard_lists_imports(tmp_path: Path, battles: Path) -> None:
    assert "no scored members yet" in as_text(leaderboard_page(leaderboard(tmp_path / "store"))[0])
    bring(tmp_path, table(), battles)
    rows = leaderboard(tmp_path / "store")
    assert [row.member for row in rows] == ["elsewhere"] and rows[0].tokens_per_row is None and rows[0].peak_gib is None
    page, records = leaderboard_page(rows)
    assert "elsewhere" in as_text(page) and "elsewhere" in as_text(page, Format.markdown)
    assert records[0]["rows"] == ROWS


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("n_tokens", -5, r"1 row has a n_tokens that is not a whole number from 0 to 2147483647: r7$"),
        ("fold", 1.7, r"1 row has a fold that is not a whole number from -1 to 2147483647: r7$"),
        ("fold", -2, r"a fold that is not a whole number from -1 .*: r7$"),
        ("n_tokens", 10**30, r"1 row has a n_tokens that is not a whole number .*: r7$"),
        ("n_tokens", 1e30, r"a n_tokens that is not a whole number .*: r7$"),
        ("fold", "", r"a fold that is not a whole number .*: r7$"),
        ("n_tokens", float("inf"), r"a n_tokens that is not a whole number .*: r7$"),
    ],
)
def test_counts_and_folds_are_whole_numbers_in_range(
    tmp_path: Path, battles: Path, column: str, value: object, message: str
) -> None:
    values = [value if i == 7 else 1 for i in range(ROWS)]
    with pytest.raises(ZooError, match=message):
        bring(tmp_path, table(**{column: pd.Series(values, dtype=object)}), battles)
    assert list_artifacts(tmp_path / "store") == []


@pytest.mark.parametrize("option", ["seconds_per_row", "load_seconds"])
@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), -1.0, 1e300])
def test_a_price_is_a_finite_number(tmp_path: Path, battles: Path, option: str, seconds: float) -> None:
    with pytest.raises(ZooError, match=rf"^--{option.replace('_', '-')} .*: give seconds between 0 and 1e\+09$"):
        bring(tmp_path, table(), battles, **{option: seconds})
    assert list_artifacts(tmp_path / "store") == []
