"""The same checkpoint and battles under another engine: do the probabilities agree, and what does each take?

    python benchmarks/engine_versions.py --model FOLDER/model --battles FILE --as t4x2 -o old.parquet
    python benchmarks/engine_versions.py --model FOLDER/model --battles FILE --as t4x2 -o new.parquet --against old.parquet

Each run is `zoo score` as it is run, with the engine of the interpreter that it is started by; the second says how far the two
tables lie apart. The prompt is that of `smollm2-135m`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np

from zoo.contracts import Held, Input, ScoreRequest, ScoreSpec, Selection, ServeSpec, Variant
from zoo.entries.load import load_entry
from zoo.pipeline.runner import run_stage
from zoo.scores.tables import probabilities, read_card, read_scores
from zoo.targets import machine_fingerprint

CAP = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model folder (it must be named `model`)")
    parser.add_argument("--battles", type=Path, required=True)
    parser.add_argument("--target", default="h200")
    parser.add_argument("--as", dest="as_", help="keep to this target's memory and kernels")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--against", type=Path, help="a table that another engine wrote")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    prompt = load_entry("smollm2-135m").prompt
    assert prompt
    variant = Variant(order="ab", max_tokens=CAP)
    request = ScoreRequest(
        entry="engine",
        model=Input(path=args.model.parent.absolute(), fingerprint="given"),
        battles=Input(path=args.battles.absolute(), fingerprint="given"),
        held=Held(),
        selection=Selection(rows="all", max_rows=args.rows),
        prompt=prompt.model_copy(update={"max_tokens": CAP}),
        spec=ScoreSpec(variants=(variant,), chunk_rows=64, max_batched_tokens=8192, max_seqs=32),
        serve=ServeSpec(dtype="float16"),
        target=args.target,
        emulates=args.as_,
    )
    with tempfile.TemporaryDirectory() as store:
        artifact = run_stage(request, Path(store), say=print)
        folder = artifact.path / variant.slug
        shutil.copy(folder / "scores.parquet", args.output)
        m, card = artifact.manifest.measurements, read_card(folder / "scores.json")
    table = read_scores(args.output)
    failed = (table["status"] != "ok").sum()
    line = f"{card.engine}, {machine_fingerprint()}, as {args.as_}: {len(table)} rows, {failed} not scored"
    line += f"; first row after {m.load_seconds:.1f} s, {m.tokens / m.run_seconds:,.0f} tokens/s"
    if args.against:
        other = read_scores(args.against).set_index("id").loc[table["id"]].reset_index()
        gap = np.abs(probabilities(table) - probabilities(other))
        line += f"; probabilities against {args.against.name}: largest difference {gap.max():.5f}, mean {gap.mean():.6f}"
    print(line)


if __name__ == "__main__":
    main()
