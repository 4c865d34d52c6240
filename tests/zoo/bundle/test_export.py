"""Which forms of a run are exported, what lies in them, and that a card's code reads a battle as training does.

The trainings are made by hand: adapters with made-up updates, merged by the real stage. tests/test_chain.py has an entry's own.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.manifests import finished, input_of, partial_folder
from tests.helpers.requests import PROMPT, given, quantize_request
from tests.helpers.tiny_models import TINY_ENTRY
from zoo.bundle.export import Exported, export
from zoo.contracts import Entry, Held, MergeRequest, Selection, TrainRequest, changed
from zoo.errors import ZooError
from zoo.models.prompts import encode_battles, load_codec
from zoo.pipeline.chain import chain
from zoo.pipeline.folds import average_chain
from zoo.report.run_report import find_run
from zoo.stages.train import adapters
from zoo.stages.train.classifier import note_start
from zoo.stages.weights import merge
from zoo.store import Artifact

Made = dict[str, list[Artifact]]


@pytest.fixture
def made(tiny_llama: Path, tmp_path: Path) -> Callable[..., Made]:
    """Makes a store in which an entry is trained and merged on two folds, and averaged where it has adapters."""

    def make(method: str = "lora", **settings: Any) -> Made:
        store = tmp_path / "store"
        train = {"rank": 4, "alpha": 8, "method": method}
        entry = Entry.model_validate({**TINY_ENTRY, "train": train, **settings})
        helds = [Held(n_folds=2, fold=fold) for fold in (0, 1)]
        chains = [
            chain(entry, given(tmp_path / "b.csv"), "cpu", store, held=held, selection=Selection(), source=str(tiny_llama))
            for held in helds
        ]
        shutil.copytree(tiny_llama, partial_folder(store, chains[0][0]) / "model")
        base = finished(store, chains[0][0])
        found: Made = {"train": [], "merge": []}
        for number, requests in enumerate(chains):
            training = next(request for request in requests if isinstance(request, TrainRequest))
            merging = next(request for request in requests if isinstance(request, MergeRequest))
            found["train"].append(trained(store, training, base.path / "model", number))
            found["merge"].append(merged(store, merging))
        if method != "full":
            found["merge"].append(merged(store, average_chain(chains, store)[0]))
        return found

    return make


def trained(store: Path, request: TrainRequest, base: Path, seed: int) -> Artifact:
    """What a training leaves, without one."""
    out, labels = partial_folder(store, request), load_codec(base, request.prompt).label_ids
    classifier = labels if request.head == "classifier" else None
    torch.manual_seed(seed)
    model = adapters.load_model(base, request.spec, classifier)
    with torch.no_grad():
        for name, weights in adapters.trained_parameters(model).items():
            if "lora_B" in name or "score" in name:
                weights.add_(0.02 * torch.randn_like(weights))
    adapters.save_weights(model, request.spec, base, out)
    if classifier and request.spec.method != "full":
        note_start(classifier, out)
    return finished(store, request)


def merged(store: Path, request: Any) -> Artifact:
    result = merge.run(request, partial_folder(store, request))
    return finished(store, request, metrics=result.metrics)


def exported(artifact: Artifact, output: Path, *forms: str) -> dict[str, Exported]:
    run = find_run(artifact.path.parent, artifact.path.name)
    return {one.form: one for one in export(run, [], output, forms, lambda _: None)}


def test_one_of_several_averaged_adapters_is_not_the_average(made: Callable[..., Made], tmp_path: Path) -> None:
    own, _, average = made()["merge"]
    assert list(exported(own, tmp_path / "own")) == ["adapter", "merged"]
    assert list(exported(average, tmp_path / "average")) == ["merged"]
    with pytest.raises(ZooError, match="has no form 'adapter'; there are merged"):
        exported(average, tmp_path / "other", "adapter")


def test_only_what_the_manifest_has_is_handed_on_as_it_was_made(made: Callable[..., Made], tmp_path: Path) -> None:
    own = made()["merge"][0]
    (own.path / "model" / "notes.txt").write_text("mine")
    folder = exported(own, tmp_path / "own", "merged")["merged"].path
    assert not (folder / "notes.txt").exists() and (folder / "model.safetensors").exists()
    weights = own.path / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ZooError, match=r"model\.safetensors was changed"):
        exported(own, tmp_path / "changed", "merged")


def test_a_removed_training_is_said(made: Callable[..., Made], tmp_path: Path) -> None:
    found = made()
    shutil.rmtree(found["train"][0].path)
    with pytest.raises(ZooError, match="its training is no longer in the store, and with it the prompt"):
        exported(found["merge"][0], tmp_path / "out")


def test_a_classifier_gets_no_card_of_label_tokens(made: Callable[..., Made], tmp_path: Path) -> None:
    """Also where the training that says so was removed."""
    found = made(head="classifier")
    one = found["merge"][0]
    with pytest.raises(ZooError, match="has a classifier head"):
        exported(found["train"][0], tmp_path / "out")
    request = changed(quantize_request(one.path, tmp_path / "b.csv"), model=input_of(one))
    shutil.copytree(one.path / "model", partial_folder(one.path.parent, request) / "model")
    quantized = finished(one.path.parent, request)
    shutil.rmtree(found["train"][0].path)
    with pytest.raises(ZooError, match="has a classifier head"):
        exported(quantized, tmp_path / "out")


def test_whole_weights_of_a_training_have_the_base_s_tokenizer(made: Callable[..., Made], tmp_path: Path) -> None:
    folder = exported(made(method="full")["train"][0], tmp_path / "out")["merged"].path
    assert (folder / "tokenizer.json").exists() and (folder / "model.safetensors").exists()


def test_a_card_s_code_reads_a_battle_as_training_does(made: Callable[..., Made], tmp_path: Path) -> None:
    """Oracle: the project's own encoding. A battle may quote a field's name, and no token spans two parts."""
    folder = exported(made()["merge"][0], tmp_path / "out", "merged")["merged"].path
    code = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[0]
    battle = {"prompt": "Fill in {response_b} and {prompt}", "response_a": " four\n", "response_b": "\nfive "}
    code = re.sub(r"battle = .*", lambda _: f"battle = {battle!r}", code.replace("FOLDER", repr(str(folder))))
    names: dict[str, Any] = {}
    exec(code, names)
    turns = [tuple([text] for text in battle.values())]
    (expected,) = encode_battles(turns, load_codec(folder, PROMPT), PROMPT, "ab", 160)  # type: ignore[arg-type]
    assert names["ids"] == expected.ids
