"""Chunks: every row in one, longest first, final once written, priced by order, of one plan, engine and machine."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.contracts import Order, ScoreSpec, Variant
from zoo.scores.tables import label_probabilities, read_scores
from zoo.stages.score.chunks import Answer, Chunk, adopt, alone_seconds, plan_chunks, read_pieces, write_chunk
from zoo.stages.score.tally import Tally, load_tally
from zoo.stages.score.token_file import Encoding


def encoding(lengths: np.ndarray, order: Order = "ab", cap: int = 512, first: int = 0) -> Encoding:
    return Encoding(Variant(order=order, max_tokens=cap), first + np.cumsum(lengths) - lengths, lengths, 0 * lengths)


def answer_for(chunk: Chunk, cached: np.ndarray | None = None, refused: dict[int, str] | None = None) -> Answer:
    n = len(chunk.spans)
    return Answer(np.arange(3.0 * n).reshape(n, 3) % 5, np.zeros(n, np.int64) if cached is None else cached, refused or {}, 2.0)


@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=60),
    size=st.integers(1, 20),
    orders=st.sampled_from([("ab",), ("ab", "ba")]),
    listed=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_row_stands_in_one_chunk_and_the_longest_come_first(
    lengths: list[int], size: int, orders: tuple[Order, ...], listed: bool
) -> None:
    array = np.array(lengths)
    members = [encoding(array, order, first=1000 * i) for i, order in enumerate(orders)]
    other = encoding(np.minimum(array, 100), cap=100, first=9000)
    chunks = plan_chunks([*members, other], ScoreSpec(chunk_rows=size), listed=listed)
    for group in (tuple(members), (other,)):
        mine = [chunk for chunk in chunks if chunk.encodings == group]
        rows = np.concatenate([chunk.rows for chunk in mine])
        assert sorted(rows) == list(range(len(array))) and not any(chunk.takers for chunk in mine)
        assert all(len(chunk.spans) <= max(size, len(group)) for chunk in mine)
        assert rows.tolist() == list(range(len(array))) if listed else (np.diff(group[0].lengths[rows]) <= 0).all()
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    spans = np.concatenate([chunk.spans for chunk in chunks])
    assert (spans[:, 1] - spans[:, 0]).sum() == sum(e.lengths.sum() for e in [*members, other])
    if len(orders) == 2:  # both orders of a battle side by side
        pairs = next(chunk for chunk in chunks if chunk.encodings == tuple(members)).spans
        assert (pairs[1::2, 0] - pairs[::2, 0] == 1000).all()


def test_a_chunk_s_files_keep_reasons_and_stay_as_they_are(tmp_path: Path) -> None:
    lengths = np.array([30, 20, 10])
    chunk = Chunk((encoding(lengths), encoding(lengths, "ba", first=60)), 0, np.array([2, 0, 1]))
    answer = answer_for(chunk, refused={3: "too odd"})  # second battle, second order
    logits = answer.logits
    logits[3], logits[4] = np.nan, np.nan
    write_chunk(chunk, ["x", "y", "z"], answer, tmp_path)
    ab, ba = (read_scores(file) for file in chunk.files(tmp_path))
    assert ab["id"].tolist() == ba["id"].tolist() == ["z", "x", "y"] and ab["n_tokens"].tolist() == [10, 30, 20]
    assert ab["status"].tolist() == ["ok", "ok", "not finite: the engine returned no number"]
    assert ba["status"].tolist() == ["ok", "refused: too odd", "ok"]
    assert ba["p_a"][0] == pytest.approx(np.exp(logits[1, 1]) / np.exp(logits[1]).sum())  # labels swapped back
    stamps = [file.stat().st_mtime_ns for file in chunk.files(tmp_path)]
    write_chunk(chunk, ["x", "y", "z"], answer, tmp_path)
    assert stamps == [file.stat().st_mtime_ns for file in chunk.files(tmp_path)] and chunk.done(tmp_path)
    _, pieces = read_pieces(chunk.encodings[0], [chunk], tmp_path)
    assert (pieces[0].rows, pieces[0].tokens, pieces[0].tokens_sq) == (3, 60, 1400)


@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=16),
    caps=st.lists(st.integers(1, 320), min_size=1, max_size=3, unique=True),
    orders=st.lists(st.sampled_from([("ab",), ("ba",), ("ab", "ba")]), min_size=3, max_size=3),
    size=st.integers(2, 9),
    listed=st.booleans(),
)
@settings(max_examples=40, deadline=None)  # each writes tens of files
def test_a_row_that_is_the_same_under_several_caps_is_scored_once_and_all_have_its_numbers(
    lengths: list[int], caps: list[int], orders: list[tuple[Order, ...]], size: int, listed: bool
) -> None:
    """Rows lie in a token file by content, as `write_tokens` leaves them: the place of (row, order, length) is one."""
    array, places = np.array(lengths), {}
    encodings = []
    for cap, own in zip(caps, orders, strict=False):
        for order in own:
            cut = np.minimum(array, cap)
            starts = [places.setdefault((i, order, n), 1000 * len(places)) for i, n in enumerate(cut.tolist())]
            encodings.append(Encoding(Variant(order=order, max_tokens=cap), np.array(starts), cut, array - cut))
    chunks = plan_chunks(encodings, ScoreSpec(chunk_rows=size), listed=listed)
    ids = [f"r{i}" for i in range(len(array))]
    with TemporaryDirectory() as folder:
        out = Path(folder)
        for chunk in chunks:
            assert len(chunk.rows) and not chunk.done(out)
            write_chunk(chunk, ids, Answer(numbers_of(chunk), np.zeros(len(chunk.spans), np.int64), {}, 1.0), out)
            assert chunk.done(out)
        for encoding in encodings:
            tables, pieces = read_pieces(encoding, chunks, out)
            table = pd.concat(tables).set_index("id")
            assert sorted(table.index) == sorted(ids) and len(pieces) == len(tables)
            expected = label_probabilities(numbers_at(encoding.starts), encoding.variant.order)
            np.testing.assert_allclose(table.loc[ids, ["p_a", "p_b", "p_tie"]].to_numpy(), expected)
            assert table.loc[ids, "n_tokens"].tolist() == encoding.lengths.tolist()
            assert table.loc[ids, "n_truncated_tokens"].tolist() == encoding.truncated.tolist()
    if len({own for own, _ in zip(orders, caps, strict=False)}) == 1:  # else a variant of one order may come before both
        scored = np.concatenate([chunk.spans for chunk in chunks])
        assert len(scored) == len(places) == len(np.unique(scored[:, 0]))


def numbers_of(chunk: Chunk) -> np.ndarray:
    """Logits (rows, 3) that follow from where a row's tokens lie, and so from what they are."""
    return numbers_at(chunk.spans[:, 0])


def numbers_at(starts: np.ndarray) -> np.ndarray:
    return np.stack([np.sin(starts), np.cos(starts), np.sin(starts / 3)], axis=1)


def test_a_plan_that_shares_other_rows_is_another_plan(tmp_path: Path) -> None:
    lengths = np.array([30, 20, 10])
    short = encoding(np.minimum(lengths, 15), cap=15)
    apart, shared = encoding(lengths, first=100), encoding(lengths, first=100)
    shared.starts[2] = short.starts[2]
    plans = [plan_chunks([short, one], ScoreSpec(chunk_rows=2), listed=True) for one in (apart, shared)]
    for plan in plans:
        adopt(plan, ["x", "y", "z"], tmp_path, engine="e", machine="m")
        write_chunk(plan[0], ["x", "y", "z"], answer_for(plan[0]), tmp_path)
    assert adopt(plans[1], ["x", "y", "z"], tmp_path, engine="e", machine="m") == ""
    assert "plan of chunks" in adopt(plans[0], ["x", "y", "z"], tmp_path, engine="e", machine="m")


def test_an_order_is_priced_as_if_it_were_scored_alone() -> None:
    """Two orders of 100 tokens, 60 of the second shared: 140 computed in 2 s; alone, either computes its 100."""
    chunk = Chunk((encoding(np.array([100])), encoding(np.array([100]), "ba", first=100)), 0, np.array([0]))
    assert alone_seconds(chunk, answer_for(chunk, np.array([0, 60]))) == pytest.approx([2 * 100 / 140] * 2)
    single = Chunk((encoding(np.array([100, 50])),), 0, np.array([0, 1]))
    assert alone_seconds(single, answer_for(single, np.array([0, 16]))) == pytest.approx([2.0])  # what is measured is kept


def test_chunks_of_another_plan_engine_or_machine_are_not_taken_for_this_one_s(tmp_path: Path) -> None:
    lengths, ids = np.arange(1, 7), list("abcdef")
    small, large = (plan_chunks([encoding(lengths)], ScoreSpec(chunk_rows=n), listed=False) for n in (2, 3))
    here = {"engine": "vllm 0.32.0", "machine": "1 x NVIDIA H200 143771 MiB"}
    assert adopt(small, ids, tmp_path, **here) == ""
    for chunks, place, why in (
        (large, here, "the plan of chunks was another"),
        (large, {**here, "engine": "vllm 0.33.0"}, "engine was vllm 0.32.0"),
        (large, {"engine": "vllm 0.33.0", "machine": "a CPU"}, "machine was 1 x NVIDIA H200 143771 MiB"),
    ):
        write_chunk(small[0], ids, answer_for(small[0]), tmp_path)
        Tally(run_seconds=9.0).save(tmp_path)
        assert adopt(chunks, ids, tmp_path, **place) == why
        assert not any(tmp_path.glob("*/chunks/*")) and load_tally(tmp_path) == Tally()  # nor are their seconds
        write_chunk(chunks[0], ids, answer_for(chunks[0]), tmp_path)
        assert adopt(chunks, ids, tmp_path, **place) == "" and chunks[0].done(tmp_path)


def test_chunks_of_a_host_with_more_cards_of_the_kind_are_kept(tmp_path: Path) -> None:
    """A run goes on with any runner: the local one names all cards of its host, that of Ray those of one copy."""
    chunks, ids = plan_chunks([encoding(np.arange(1, 7))], ScoreSpec(chunk_rows=2), listed=False), list("abcdef")
    assert adopt(chunks, ids, tmp_path, engine="e", machine="4 x NVIDIA H100, 81559 MiB") == ""
    write_chunk(chunks[0], ids, answer_for(chunks[0]), tmp_path)
    assert adopt(chunks, ids, tmp_path, engine="e", machine="1 x NVIDIA H100, 81559 MiB") == "" and chunks[0].done(tmp_path)
