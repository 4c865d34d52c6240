"""Token files hold what the codec encodes."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.tiny_models import TEMPLATE
from zoo.contracts import PromptSpec, Variant
from zoo.data.battles import read_battles
from zoo.models.prompts import encode_battles, load_codec, load_codecs
from zoo.stages.score.token_file import open_tokens, write_tokens


def test_token_files_hold_what_the_codec_encodes(tiny_llama: Path, sample_csv: Path, tmp_path: Path) -> None:
    prompt, frame = PromptSpec(template=TEMPLATE, max_tokens=160), read_battles(sample_csv).frame.iloc[:30]
    variants = (Variant(order="ab", max_tokens=160), Variant(order="ba", max_tokens=60))
    codec = load_codec(tiny_llama, prompt)
    encodings = write_tokens(frame, dict.fromkeys(variants, codec), prompt, tmp_path / "tokens.bin")
    tokens = open_tokens(tmp_path / "tokens.bin")
    turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    for one in encodings:
        expected = encode_battles(turns, codec, prompt, one.variant.order, one.variant.max_tokens)
        for row, start, length, cut in zip(expected, one.starts, one.lengths, one.truncated, strict=True):
            assert tokens[start : start + length].tolist() == row.ids and cut == row.n_truncated
    assert len(tokens) == sum(one.lengths.sum() for one in encodings)


def test_a_row_with_the_same_tokens_in_two_variants_is_there_once(tiny_llama: Path, sample_csv: Path, tmp_path: Path) -> None:
    prompt, frame = PromptSpec(template=TEMPLATE, max_tokens=160), read_battles(sample_csv).frame.iloc[:60]
    variants = tuple(
        Variant(order=order, max_tokens=cap, keep=keep)
        for order in ("ab", "ba")
        for cap in (80, 120, 400)
        for keep in (None, "both_ends")
    )
    encodings = write_tokens(frame, load_codecs(tiny_llama, prompt, variants), prompt, tmp_path / "tokens.bin")
    tokens = open_tokens(tmp_path / "tokens.bin")
    for i in range(len(frame)):
        rows = [tokens[e.starts[i] : e.starts[i] + e.lengths[i]].tobytes() for e in encodings]
        starts = [int(e.starts[i]) for e in encodings]
        assert all((a == b) == (s == t) for a, s in zip(rows, starts, strict=True) for b, t in zip(rows, starts, strict=True))
    ends = {int(start + length) for e in encodings for start, length in zip(e.starts, e.lengths, strict=True)}
    assert max(ends) == len(tokens) < sum(one.lengths.sum() for one in encodings)
    assert any((e.truncated > 0).any() for e in encodings) and (encodings[4].truncated == 0).any()
