"""Seconds a row of encoders by transformers beside a small language model by vLLM, on this machine's processors.

    python benchmarks/encoder_speed.py FOLDER [ROWS] [ROUNDS]

Models have the real shapes of deberta-v3-base, ModernBERT-base and SmolLM2-135M (merged, in bfloat16, not quantized) and random
weights: how fast they are does not depend on them. Their tokenizer is one, of bytes, so that all read the same battles: ROWS
(16) generated ones of at most 448 tokens, in one order of the answers. Each of ROUNDS (2) scores with every model in turn
through the real score stage, so that what else the machine does meets all of them; the median of the rounds is shown, without
loading. FOLDER keeps the models and the tables.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from zoo.contracts import (
    Entry,
    Held,
    Input,
    PromptSpec,
    ScoreRequest,
    ScoreSpec,
    Selection,
    Variant,
)
from zoo.data.battles import read_battles
from zoo.data.sample import write_sample
from zoo.entries.load import load_entry
from zoo.stages.score import stage as score

TOKENS = 448
ENTRIES = ("deberta-v3-base", "modernbert-base", "smollm2-135m")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
DEBERTA: dict[str, Any] = {
    "relative_attention": True,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
IDS = {"pad_token_id": 0, "cls_token_id": 2, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3}


def write_model(entry: Entry, folder: Path) -> None:
    """A model of the entry's shape with random weights, and a tokenizer of bytes."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    assert entry.shape is not None and entry.base is not None
    sizes = entry.shape.model_dump(exclude_none=True)
    torch.manual_seed(0)
    if entry.kind == "encoder":
        family = entry.base.architecture.removesuffix("ForSequenceClassification")
        more = {**DEBERTA, "pooler_hidden_size": sizes["hidden_size"]} if family == "DebertaV2" else {}
        config = getattr(transformers, f"{family}Config")(**sizes, **more, **IDS, num_labels=3)
        model = getattr(transformers, entry.base.architecture)(config)
    else:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **IDS)).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [""], trainers.BpeTrainer(special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def prompt_of(entry: Entry) -> PromptSpec:
    """One short prompt for all: bytes are the tokens, and every row fills it."""
    start = "[CLS]" if entry.kind == "encoder" else "Q:"
    return PromptSpec(
        template=f"{start}{{prompt}}[SEP]{{response_a}}[SEP]{{response_b}}[SEP]", labels=("A", "B", "T"), max_tokens=TOKENS
    )


def served(entry: Entry, folder: Path) -> Path:
    """The artifact that is scored."""
    made = folder / entry.name
    if not (made / "model").exists():
        write_model(entry, made / "model")
    return made


def seconds_a_row(entry: Entry, model: Path, battles: Path, rows: int, out: Path) -> tuple[float, float, float]:
    """Seconds and tokens a row, and seconds of loading, of one scoring."""
    assert entry.score is not None
    spec = ScoreSpec(
        engine=entry.score.engine,
        variants=(Variant(max_tokens=TOKENS),),
        chunk_rows=rows,
        max_batched_tokens=4096,
        dtype="auto" if entry.kind == "encoder" else "bfloat16",
    )
    request = ScoreRequest(
        entry=entry.name,
        model=Input(path=model, fingerprint="x"),
        battles=Input(path=battles, fingerprint="y"),
        held=Held(),
        selection=Selection(rows="all", max_rows=rows),
        prompt=prompt_of(entry),
        spec=spec,
        target="cpu",
    )
    out.mkdir(parents=True)
    found = score.score(request, out, ({},)).measurements
    return found.run_seconds / found.rows, found.tokens / found.rows, found.load_seconds


def main(folder: Path, rows: int, rounds: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    battles = folder / "battles.csv"
    if not battles.exists():
        write_sample(battles, 200, 7)
    assert len(read_battles(battles).frame) >= rows
    entries = [load_entry(name) for name in ENTRIES]
    models = {entry.name: served(entry, folder) for entry in entries}
    stamp, taken = int(time.time()), {entry.name: [] for entry in entries}  # type: ignore[var-annotated]
    for number in range(rounds):
        for entry in entries:
            out = folder / "scored" / f"{stamp}-{number}-{entry.name}"
            taken[entry.name].append(seconds_a_row(entry, models[entry.name], battles, rows, out))
            print(json.dumps({"round": number, "entry": entry.name, "measured": taken[entry.name][-1]}), flush=True)
    last = statistics.median(seconds for seconds, _, _ in taken["smollm2-135m"])
    print("| model | engine | s a row | tokens a row | tokens/s | beside smollm2-135m | s to load |")
    print("|---|---|---|---|---|---|---|")
    for entry in entries:
        seconds, tokens, load = (statistics.median(values) for values in zip(*taken[entry.name], strict=True))
        engine = entry.score.engine if entry.score else ""
        print(
            f"| {entry.name} | {engine} | {seconds:.2f} | {tokens:.0f} | {tokens / seconds:.0f} | {seconds / last:.2f} "
            f"| {load:.0f} |"
        )


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[2:]]
    main(Path(sys.argv[1]), *(numbers + [16, 2][len(numbers) :]))
