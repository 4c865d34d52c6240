"""Checkpoints of other quantizers, brought in by `zoo register --checkpoint` and scored by vLLM on processors.

    python -m benchmarks.elsewhere --work FOLDER --python gptqmodel=PATH [--only gptqmodel/gptq ...] [--rows 40]

Each is written by its own library from one tiny Llama of random weights (tests/helpers/tiny_models.py), whose layers are
as others' but small: autoawq in this interpreter, the others in theirs (llm-compressor in that of `make setup-llmcompressor`).
Printed is how far the scored probabilities are from those of transformers in float32 with the weights that the folder holds, or
what was said where one was not taken. What a stage or a library printed lies in the work folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np

from tests.helpers.foreign import last_line, loaded, quantized_by, write_plain
from tests.helpers.tiny_models import TEMPLATE, write_tiny_llama
from zoo.contracts import Held, PromptSpec, Selection
from zoo.data.battles import Battles, read_battles
from zoo.data.sample import write_sample
from zoo.entries.load import read_entry
from zoo.experiments.run import run_chain
from zoo.models.prompts import encode_battles, load_codec
from zoo.pipeline.chain import battles_input, chain
from zoo.scores.tables import label_probabilities, probabilities, read_scores
from zoo.settings import backend_interpreter

CASES = (
    "autoawq/awq",
    "llm-compressor/gptq",
    "llm-compressor/gptq-int8",
    "llm-compressor/awq",
    "llm-compressor/fp8",
    "llm-compressor/w8a16",
    "gptqmodel/gptq",
    "gptqmodel/gptq-by-activations",
    "gptqmodel/awq",
)
PROMPT = PromptSpec(template=TEMPLATE, max_tokens=160)
GROUP, CALIBRATION = 32, 16


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a folder for what is made")
    parser.add_argument("--python", action="append", default=[], help="LIBRARY=PATH of an interpreter that has it")
    parser.add_argument("--only", action="append", choices=CASES, help="these cases")
    parser.add_argument("--rows", type=int, default=40, help="battles that are scored")
    return parser.parse_args()


def rows_of(folder: Path, battles: Battles) -> list[list[int]]:
    frame = battles.frame
    turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    return [one.ids for one in encode_battles(turns, load_codec(folder, PROMPT), PROMPT, "ab")]


def made(case: str, base: Path, rows: list[list[int]], pythons: dict[str, str], target: Path) -> str:
    """Have a library quantize; what it said where it failed."""
    by, form = case.split("/")
    python = pythons.get(by) or (sys.executable if by == "autoawq" else str(backend_interpreter(by)))
    return quantized_by(python, by, form, base, target, rows, GROUP)


def scored(name: str, folder: Path, battles: Path, work: Path) -> tuple[str, np.ndarray]:
    """Bring a folder in and score it: what was said where it is not taken, and probabilities (rows, 3) in the file's order."""
    home = {"ZOO_HOME": str(work / "home"), "ZOO_ENTRIES": str(work / "entries")}
    options = ["--checkpoint", str(folder), "--template", str(work / "prompt.json"), "--trained-on", "none"]
    command = [sys.executable, "-c", "from zoo.cli.main import main; main()", "register", name, *options]
    path, store = work / "entries" / f"{name}.toml", work / "home" / "store"
    if not path.exists() and (said := last_line(command, work / f"{name}-register.log", {**os.environ, **home})):
        return said, np.zeros(0)
    entry = read_entry(path)
    requests = chain(entry, battles_input(battles), "cpu", store, held=Held(), selection=Selection(rows="all"))
    table = run_chain(requests, entry, store, say=print, track=False)[-1].path
    (slug,) = [path for path in table.glob("ab*") if path.is_dir()]
    found = read_scores(slug / "scores.parquet").set_index("id").loc[read_battles(battles).frame["id"]]
    return "", probabilities(found.reset_index())


def expected(folder: Path, base: Path, plain: Path, battles: Path) -> np.ndarray:
    """Oracle: transformers in float32 with the weights that a folder holds, a row at a time."""
    import torch

    model, ids = loaded(write_plain(folder, plain)), list(load_codec(base, PROMPT).label_ids)
    with torch.no_grad():
        logits = [model(torch.tensor([row])).logits[0, -1, ids] for row in rows_of(base, read_battles(battles))]
    return label_probabilities(torch.stack(logits).numpy(), "ab")


def main() -> None:
    asked = arguments()
    asked.work.mkdir(parents=True, exist_ok=True)
    work, pythons = asked.work.absolute(), dict(one.split("=", 1) for one in asked.python)
    base = write_tiny_llama(work / "base", tie_word_embeddings=False)
    write_sample(work / "battles.csv", asked.rows, 3)
    write_sample(work / "calibration.csv", CALIBRATION, 4)
    (work / "prompt.json").write_text(json.dumps({"template": TEMPLATE, "max_tokens": 160}))
    rows = rows_of(base, read_battles(work / "calibration.csv"))
    print("| written by | form | config.json | brought in and scored: probabilities off by | spread |\n|---|---|---|---|---|")
    for case in asked.only or CASES:
        name = case.replace("/", "-")
        folder = work / name
        said = "" if (folder / "config.json").exists() else made(case, base, rows, pythons, folder)
        kind, spread = "", ""
        if not said:
            spec = json.loads((folder / "config.json").read_text())["quantization_config"]
            kind = f"{spec['quant_method']} {spec.get('format', spec.get('version', spec.get('checkpoint_format', '')))}"
            said, p = scored(name, folder, work / "battles.csv", work)
        if not said:
            q = expected(folder, base, work / f"{name}-plain", work / "battles.csv")
            said = f"{np.abs(p - q).max():.4f} at most, {np.abs(p - q).mean():.4f} on the mean"
            spread = f"{np.ptp(q, axis=0).max():.3f}"
        print(f"| {' | '.join((*case.split('/'), kind, said, spread))} |", flush=True)


if __name__ == "__main__":
    main()
