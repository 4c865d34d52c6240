"""Token files hold what the codec encodes."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.tiny_models import TEMPLATE
from zoo.contracts import PromptSpec, Variant
from zoo.data.battles import read_battles
from zoo.models.prompts import encode_battles, load_codec
from zoo.stages.score.token_file import open_tokens, write_tokens


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
