"""What surrounds the engine in scoring: token files, chunks, prices, places, emulated targets. No engine runs."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.contracts import Order, PromptSpec, ScoreSpec, ServeSpec, Variant
from zoo.data.battles import read_battles
from zoo.errors import ZooError
from zoo.models.prompts import encode_battles, load_codec
from zoo.scores.tables import read_scores
from zoo.stages.score.chunks import Answer, Chunk, adopt, alone_seconds, plan_chunks, read_pieces, write_chunk
from zoo.stages.score.placement import places
from zoo.stages.score.tally import Tally, load_tally
from zoo.stages.score.token_file import Encoding, open_tokens, write_tokens
from zoo.stages.score.vllm.emulation import CAP, emulation_arguments, emulation_environment
from zoo.stages.score.vllm.engine import batch_tokens, cache_bytes, prepare_environment
from zoo.targets import load_target, visible_gpus

TEMPLATE = "<|user|>\nPrompt: {prompt}\nA: {response_a}\nB: {response_b}\nWho wins?<|end|>\n"
CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}


def encoding(lengths: np.ndarray, order: Order = "ab", cap: int = 512, first: int = 0) -> Encoding:
    return Encoding(Variant(order=order, max_tokens=cap), first + np.cumsum(lengths) - lengths, lengths, 0 * lengths)


def answer_for(chunk: Chunk, cached: np.ndarray | None = None, refused: dict[int, str] | None = None) -> Answer:
    n = len(chunk.spans)
    return Answer(np.arange(3.0 * n).reshape(n, 3) % 5, np.zeros(n, np.int64) if cached is None else cached, refused or {}, 2.0)


def test_token_files_hold_what_the_codec_encodes(tiny_llama: Path, sample_csv: Path, tmp_path: Path) -> None:
    prompt, frame = PromptSpec(template=TEMPLATE, max_tokens=160), read_battles(sample_csv).frame.iloc[:30]
    variants = (Variant(order="ab", max_tokens=160), Variant(order="ba", max_tokens=60))
    codec = load_codec(tiny_llama, prompt)
    encodings = write_tokens(frame, variants, codec, prompt, tmp_path / "tokens.bin")
    tokens = open_tokens(tmp_path / "tokens.bin")
    turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    for one in encodings:
        expected = encode_battles(turns, codec, prompt, one.variant.order, one.variant.max_tokens)
        for row, start, length, cut in zip(expected, one.starts, one.lengths, one.truncated, strict=True):
            assert tokens[start : start + length].tolist() == row.ids and cut == row.n_truncated
    assert len(tokens) == sum(one.lengths.sum() for one in encodings)


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
        assert sorted(rows) == list(range(len(array))) and [chunk.index for chunk in mine] == list(range(len(mine)))
        assert all(len(chunk.spans) <= max(size, len(group)) for chunk in mine)
        assert rows.tolist() == list(range(len(array))) if listed else (np.diff(group[0].lengths[rows]) <= 0).all()
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
    _, pieces = read_pieces(chunk.encodings[0], 1, tmp_path)
    assert (pieces[0].rows, pieces[0].tokens, pieces[0].tokens_sq) == (3, 60, 1400)


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


def test_replicas_get_a_gpu_each_and_split_copies_all_of_them() -> None:
    two, cpu = load_target("t4x2"), load_target("cpu")
    assert places(ServeSpec(), two, ("0", "1", "2")) == ({"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"})
    assert places(ServeSpec(), two, ("GPU-x",)) == ({"CUDA_VISIBLE_DEVICES": "GPU-x"},)
    assert places(ServeSpec(layout="pipeline"), two, ("4", "5")) == ({"CUDA_VISIBLE_DEVICES": "4,5"},)
    assert places(ServeSpec(), two, ()) == places(ServeSpec(), cpu, ("0",)) == ({},)
    with pytest.raises(ZooError, match="has 2 GPUs, 1 are visible"):
        places(ServeSpec(layout="tensor"), two, ("0",))


@pytest.mark.parametrize("listed", ["-1,0", "0,-1,1", "0,,1", "", "1,0", "GPU-ab,GPU-cd", " 2 , 1", "0,none", "NoDevFiles"])
def test_the_list_of_visible_gpus_ends_where_cuda_ends_it(listed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: how torch reads CUDA's list."""
    import torch

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus() == tuple(map(str, torch.cuda._parse_visible_devices()))


def test_a_split_copy_holds_its_share_of_the_cache_on_each_card() -> None:
    spec = ScoreSpec(variants=(Variant(max_tokens=100),), max_batched_tokens=1000, max_seqs=4)
    whole = cache_bytes(CONFIG, spec, ServeSpec(), gpus=1, on_gpu=True)
    token = 2 * 4 * 2 * 16 * 2  # keys and values, layers, heads, head size, bytes
    assert whole == (1000 + 4 * 16 + 101) * token
    assert cache_bytes(CONFIG, spec, ServeSpec(layout="tensor"), gpus=2, on_gpu=True) == whole // 2
    assert cache_bytes(CONFIG, spec, ServeSpec(layout="pipeline"), gpus=2, on_gpu=True) > whole // 2  # two batches in flight
    assert cache_bytes(CONFIG, spec, ServeSpec(dtype="float32"), gpus=1, on_gpu=True) == 2 * whole
    assert batch_tokens(ScoreSpec(variants=(Variant(max_tokens=9000),))) == 9001


def test_an_emulated_card_has_the_target_s_memory_dtypes_and_kernels() -> None:
    t4, arguments = load_target("t4x2"), {"dtype": "auto", "model": "m"}
    changed = emulation_arguments(t4, ServeSpec(), arguments, on_gpu=True)
    assert changed["dtype"] == "float16" and changed["attention_backend"] == "TRITON_ATTN"
    assert changed["additional_config"] == {CAP: t4.usable_bytes} and changed["model"] == "m"
    assert "MacheteLinearKernel" in emulation_environment(t4)["VLLM_DISABLED_KERNELS"]
    assert emulation_environment(load_target("h200")) == {}
    assert "attention_backend" not in emulation_arguments(load_target("l4x2"), ServeSpec(), arguments, on_gpu=True)
    small = ServeSpec(gpu_memory_bytes=2**30)
    assert emulation_arguments(t4, small, arguments, on_gpu=True)["additional_config"] == {CAP: 2**30}


@pytest.mark.parametrize(
    ("target", "dtype", "on_gpu", "message"),
    [
        ("cpu", "auto", True, "it has no GPU"),
        ("t4x2", "auto", False, "no GPU is visible"),
        ("t4x2", "bfloat16", True, 'serve.t4x2.dtype = "float16"'),
    ],
)
def test_what_cannot_be_emulated_is_refused(target: str, dtype: str, on_gpu: bool, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        emulation_arguments(load_target(target), ServeSpec(), {"dtype": dtype}, on_gpu)


def test_a_run_in_parts_is_accounted_for_as_one(tmp_path: Path) -> None:
    first = Tally(run_seconds=2.0, tokens=100, cached_tokens=10)
    first.see_memory({"loading_bytes": 3, "allocated_bytes": 5, "card_bytes": 7})
    first.save(tmp_path)
    again = load_tally(tmp_path)
    again.see_memory({"loading_bytes": 2, "allocated_bytes": 6, "card_bytes": 6})
    assert again.metrics()["engine/cached_share"] == 0.1 and (again.loading_bytes, again.allocated_bytes, again.card_bytes) == (
        3,
        6,
        7,
    )
    assert load_tally(tmp_path / "nowhere") == Tally()


@pytest.mark.parametrize(("cores", "bound"), [({7, 0}, "0,7"), ({3}, "nobind")])
def test_an_engine_is_bound_to_the_cores_it_may_use_and_no_others(
    cores: set[int], bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    with mock.patch.dict(os.environ):
        os.environ.pop("VLLM_CPU_OMP_THREADS_BIND", None)
        prepare_environment(eager=False)
        assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == bound
