"""Every family with each head, form and engine: trained, merged, quantized, scored, and compared with transformers in float32.

    python benchmarks/architectures.py FOLDER [--only llama qwen2 ...]

Tiny models of random weights go through `zoo ladder` (encoders through `zoo run`), with the sample battles that the zoo makes
itself. What the engine answered of the held-out rows stands beside what transformers answers in float32 of the same
checkpoint's own weights (inputs rounded where the form rounds them; of an encoder by its AutoModel alone): the largest and the
mean difference of a probability. Prints a Markdown table of all that FOLDER/rows.json holds; what is there is not run again. A
family that fails is told in one line on stderr and its log's name, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.helpers.classifiers import FAMILIES, SIZES
from tests.helpers.foreign import last_line
from tests.helpers.tiny_encoders import TEMPLATES, encoder_answers, encoder_entry, write_encoder
from tests.helpers.tiny_models import TEMPLATE, TINY_ENTRY, write_tokenizer
from zoo.contracts import ScoreRequest, Variant
from zoo.data.battles import read_battles
from zoo.data.sample import write_sample
from zoo.models.prompts import encode_battles, load_codec
from zoo.scores.ladder import IN_ENGINE
from zoo.scores.tables import PROBABILITIES, label_probabilities, probabilities, read_scores
from zoo.store import read_manifest, write_atomic

FORMS = ("awq", "int8", "w4a8")
HEADS = ("labels", "classifier")
MAX_TOKENS = 160


def write_decoder(folder: Path, family: str) -> Path:
    """A tiny causal model of a family, with a tokenizer that has the three labels."""
    import torch
    import transformers

    config, model, more = FAMILIES[family]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = -(-write_tokenizer(folder) // 64) * 64
    torch.manual_seed(0)
    made = getattr(transformers, model)(getattr(transformers, config)(**{**SIZES, **more, "vocab_size": vocabulary}))
    made.to(torch.bfloat16).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|end|>", pad_token="<pad>"
    ).save_pretrained(folder)
    return folder


def decoder_entry(family: str, head: str) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads(json.dumps(TINY_ENTRY))
    entry |= {"name": f"{family}-{head}", "head": head}
    entry["base"] |= {"hub_id": f"test/{family}", "architecture": FAMILIES[family][1]}
    entry["prompt"] |= {"template": TEMPLATE, "max_tokens": MAX_TOKENS}
    entry["score"] |= {"variants": [{"order": "ab", "max_tokens": MAX_TOKENS, "form": form} for form in FORMS]}
    return entry


def write_toml(entry: dict[str, Any], folder: Path) -> None:
    """An entry's file: values of TOML are those of JSON, but for tables."""

    def lines(table: dict[str, Any], name: str) -> Iterator[str]:
        yield from (f"{key} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict))
        for key, value in table.items():
            if isinstance(value, dict):
                yield f"\n[{name}{key}]"
                yield from lines(value, f"{name}{key}.")

    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{entry['name']}.toml").write_text("\n".join(lines(entry, "")) + "\n")


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)


class CommandError(Exception):
    """A command of the zoo that failed, in one line."""


def command(folder: Path, *words: str) -> None:
    """Run one with what it says in a log of its own."""
    environment = {**os.environ, "ZOO_HOME": str(folder / "home"), "ZOO_ENTRIES": str(folder / "entries")}
    log = folder / f"{words[1]}.log"
    if said := last_line([sys.executable, "-m", "zoo", *words], log, environment):
        raise CommandError(f"zoo {' '.join(words[:2])}: {said} ({log})")


def of_decoder(folder: Path, family: str, head: str, data: Path) -> Iterator[list[object]]:
    """A row of the table for each form."""
    model = folder / "models" / family
    if not (model / "tokenizer_config.json").exists():
        write_decoder(model, family)
    entry = decoder_entry(family, head)
    write_toml(entry, folder / "entries")
    command(folder, "ladder", entry["name"], "--data", str(data), "--source", str(model), "--target", "cpu")
    table = next(
        pd.read_parquet(path / "ladder.parquet")
        for path in (folder / "home" / "store").glob("ladder-*")
        if read_manifest(path).request.entry == entry["name"]
    )
    for form in FORMS:
        exact, served = (table[[f"{name}_{p}" for p in PROBABILITIES]].to_numpy() for name in (form, IN_ENGINE[form]))
        yield [FAMILIES[family][1], head, form, "vLLM", len(table), *_difference(exact, served)]


def of_encoder(folder: Path, family: str, data: Path) -> Iterator[list[object]]:
    model = write_encoder(folder / "models" / family, family)
    entry = encoder_entry(family)
    write_toml(entry, folder / "entries")
    command(folder, "run", entry["name"], "--data", str(data), "--source", str(model), "--target", "cpu")
    for path in (folder / "home" / "store").glob("score-*"):
        request = read_manifest(path).request
        if not isinstance(request, ScoreRequest) or request.entry != entry["name"]:
            continue
        variant = next(one for one in request.spec.variants if one.order == "ab")
        table = read_scores(path / variant.slug / "scores.parquet")
        exact = label_probabilities(encoder_answers(request.model.path / "model", _rows(request, variant, table)), "ab")
        architecture = entry["base"]["architecture"]
        yield [architecture, "classifier", "merged", "transformers", len(table), *_difference(exact, probabilities(table))]


def _rows(request: ScoreRequest, variant: Variant, table: pd.DataFrame) -> list[list[int]]:
    """Token ids of a table's battles."""
    spec = variant.prompt(request.prompt)
    frame = read_battles(request.battles.path).frame.set_index("id").loc[table["id"]]
    turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    codec = load_codec(request.model.path / "model", spec)
    return [encoded.ids for encoded in encode_battles(turns, codec, spec, "ab")]


def _difference(exact: np.ndarray, served: np.ndarray) -> list[str]:
    apart = np.abs(exact - served)
    return [f"{apart.max():.2g}", f"{apart.mean():.2g}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", default=[*FAMILIES, *TEMPLATES])
    args = parser.parse_args()
    folder = args.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "battles.csv"
    if not data.exists():
        write_sample(data, 150, 0)
    kept = folder / "rows.json"
    found: dict[str, list[list[object]]] = json.loads(kept.read_text()) if kept.exists() else {}
    failed = False
    for family in args.only:
        decoder = family in FAMILIES
        for head in HEADS if decoder else ("classifier",):
            if (name := f"{family}-{head}") in found:
                continue
            began = time.monotonic()
            try:
                rows = list(of_decoder(folder, family, head, data) if decoder else of_encoder(folder, family, data))
            except CommandError as error:
                failed = True
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                continue
            found[name] = rows
            write_atomic(kept, json.dumps(found))
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print("| architecture | head | form | engine | rows | largest difference | mean |\n|---|---|---|---|---|---|---|")
    for row in (row for rows in found.values() for row in rows):
        print(f"| {' | '.join(map(str, row))} |")
    sys.exit(failed)


if __name__ == "__main__":
    main()
