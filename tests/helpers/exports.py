"""A store with trained and merged folds of a tiny model, what is exported of it, and the code of its cards run as it stands.

The trainings are made by hand: adapters and heads with made-up updates, merged by the real stage.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.helpers.manifests import finished, partial_folder
from tests.helpers.requests import given
from zoo.bundle.export import Exported, export
from zoo.contracts import Entry, Held, MergeRequest, Selection, TrainRequest
from zoo.models.encoders import folder_encoder
from zoo.models.prompts import load_codec
from zoo.pipeline.chain import chain
from zoo.pipeline.folds import average_chain
from zoo.report.run_report import find_run
from zoo.store import Artifact

Made = dict[str, list[Artifact]]
CARD_BATTLE = {"prompt": "What is 2 + 2?", "response_a": "4.", "response_b": "Five, I think."}  # that of every card
ENGINE = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "TORCH_COMPILE_DISABLE": "1"}
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def make_store(entry: Entry, base: Path, store: Path) -> Made:
    """A store in which an entry is trained and merged on two folds, and averaged where it has adapters."""
    helds = [Held(n_folds=2, fold=fold) for fold in (0, 1)]
    battles = given(store.parent / "b.csv")
    chains = [chain(entry, battles, "cpu", store, held=held, selection=Selection(), source=str(base)) for held in helds]
    shutil.copytree(base, partial_folder(store, chains[0][0]) / "model")
    fetched = finished(store, chains[0][0])
    found: Made = {"fetch": [fetched], "train": [], "merge": []}
    for number, requests in enumerate(chains):
        training = next(request for request in requests if isinstance(request, TrainRequest))
        merging = next(request for request in requests if isinstance(request, MergeRequest))
        found["train"].append(trained(store, training, fetched.path / "model", number))
        found["merge"].append(merged(store, merging))
    if entry.train is not None and entry.train.method != "full":
        found["merge"].append(merged(store, average_chain(chains, store)[0]))
    return found


def trained(store: Path, request: TrainRequest, base: Path, seed: int) -> Artifact:
    """What a training leaves, without one."""
    import torch

    from zoo.stages.train import adapters
    from zoo.stages.train.classifier import note_start

    out, labels = partial_folder(store, request), load_codec(base, request.prompt).label_ids
    classifier = labels if request.head == "classifier" and not folder_encoder(base) else None
    model = adapters.load_model(base, request.spec, classifier)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weights in adapters.trained_parameters(model).items():
            if "lora_B" in name:
                weights.add_(0.02 * torch.randn_like(weights))
            elif "score" in name or "classifier" in name:  # the second begins at random, and is large enough
                weights.add_((0.3 if "score" in name else 0.03) * torch.randn_like(weights))
    adapters.save_weights(model, request.spec, base, out)
    if classifier and request.spec.method != "full":
        note_start(classifier, out)
    return finished(store, request)


def merged(store: Path, request: Any) -> Artifact:
    from zoo.stages.weights import merge

    result = merge.run(request, partial_folder(store, request))
    return finished(store, request, metrics=result.metrics)


def exported(artifact: Artifact, output: Path, *forms: str) -> dict[str, Exported]:
    run = find_run(artifact.path.parent, artifact.path.name)
    return {one.form: one for one in export(run, [], output, forms, lambda _: None)}


def card_code(folder: Path, *, base: Path | None = None, battle: dict[str, str] | None = None) -> list[str]:
    """The blocks of code of a card, with its two unknowns filled in, and another battle where one is given."""
    code = [block.replace("FOLDER", repr(str(folder))) for block in CODE.findall((folder / "README.md").read_text())]
    if base is not None:
        code = [block.replace("BASE", repr(str(base))) for block in code]
    if battle is not None:
        code[0] = re.sub(r"battle = .*", lambda _: f"battle = {battle!r}", code[0])
    return code


def answers_of(codes: Sequence[str], place: Path) -> list[dict[str, float]]:
    """What pieces of cards' code print as probabilities, in one process that cannot import this project.

    A piece that asks vLLM loads an engine there.
    """
    program = "import sys\n\nsys.modules['zoo'] = None\n"
    for code in codes:
        program += f"\n\nif __name__ == '__main__':\n{textwrap.indent(code, '    ')}"
    (place / "ask.py").write_text(program)
    environment = {**os.environ, **ENGINE}
    done = subprocess.run([sys.executable, "ask.py"], cwd=place, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return [ast.literal_eval(line) for line in done.stdout.splitlines() if line.startswith("{'a':")]
