"""Forms of a trained entry as ordinary model folders, for machines without this project.

A form is the adapter, the merged weights, or a quantized checkpoint. Each folder has what transformers, peft or vLLM load, the
prompt as `prompt.json`, and a model card that says what it is, how it was made and how to ask it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.bundle.asking import Asking, asking_of, complete_classifier
from zoo.bundle.model_card import CARD, model_card
from zoo.contracts import (
    Base,
    FetchRequest,
    MergeRequest,
    Order,
    PromptSpec,
    QuantizeRequest,
    Say,
    ScoreRequest,
    TrainRequest,
)
from zoo.entries.load import load_entry
from zoo.errors import ZooError
from zoo.models.shapes import read_config
from zoo.report.run_report import Run
from zoo.report.sections import Section
from zoo.store import SMALL_BYTES, TRAINED, Artifact, check_files, copy_file, scratch_folder, source_of, write_atomic

ADAPTER, MERGED = "adapter", "merged"
PROMPT = "prompt.json"  # in each folder: how a battle becomes tokens
OF_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "*.jinja")


@dataclass(frozen=True)
class Form:
    """One form of a run's weights: the artifact that holds it, and the folder that is copied."""

    name: str
    artifact: Artifact
    folder: Path


@dataclass(frozen=True)
class Exported:
    """A folder that was written. `bytes`: of its weights."""

    form: str
    path: Path
    bytes: int


def forms_of(run: Run) -> dict[str, Form]:
    """What there is of a run's weights in the store, by the name of its form.

    The names are `adapter`, `merged`, and the scheme that it was quantized by. Adapters that were averaged are no form: one of
    them is another model. ZooError where the run is of several folds, or of no language model.
    """
    if len(run.artifacts) > 1:
        names = ", ".join(artifact.path.name for artifact in run.artifacts)
        raise ZooError(f"{run.name}: has a checkpoint for each of {len(run.artifacts)} folds; name one of them: {names}")
    (artifact,) = run.artifacts
    found: dict[str, Form] = {}
    train, merge, quantize = (_nearest(artifact, *stages) for stages in (TRAINED, ("merge",), ("quantize",)))
    averaged = merge is not None and isinstance(merge.manifest.request, MergeRequest) and merge.manifest.request.more_adapters
    if train is not None and (train.path / ADAPTER).is_dir():
        if not averaged:
            found[ADAPTER] = Form(ADAPTER, train, train.path / ADAPTER)
    # Of full fine-tuning, and of a checkpoint from elsewhere, nothing is left to merge; one that came quantized is no form.
    elif train is not None and "quantization_config" not in read_config(train.path / "model"):
        found[MERGED] = Form(MERGED, train, train.path / "model")
    if merge is not None:
        found[MERGED] = Form(MERGED, merge, merge.path / "model")
    if quantize is not None and isinstance(quantize.manifest.request, QuantizeRequest):
        scheme = quantize.manifest.request.spec.scheme
        found[scheme] = Form(scheme, quantize, quantize.path / "model")
    if not found:
        raise ZooError(f"{run.name}: no trained weights of a language model are in the store; `zoo report` says what it is")
    return found


def export(run: Run, sections: Sequence[Section], output: Path, wanted: Sequence[str], say: Say) -> list[Exported]:
    """Write each wanted form into a folder of its name below `output`.

    None named: all that there are. `sections`: of the run's report, for the cards. `output` is new or empty: nothing that is
    there is written over. A folder appears whole or not at all. ZooError where a form is not there, or a file of it is no
    longer as it was made (by its size, of small ones by their SHA-256).
    """
    forms = forms_of(run)
    if lacking := [name for name in wanted if name not in forms]:
        raise ZooError(f"{run.name}: has no form {lacking[0]!r}; there are {', '.join(forms)}")
    if output.is_symlink() or (output.exists() and not (output.is_dir() and not any(output.iterdir()))):
        raise ZooError(f"{output}: there is something already; give a new folder")
    chosen = [form for name, form in forms.items() if not wanted or name in wanted]
    for form in chosen:
        check_files(form.artifact, hash_below=SMALL_BYTES)
    output.mkdir(parents=True, exist_ok=True)
    return [_export_one(run, form, sections, output, say) for form in chosen]


def _export_one(run: Run, form: Form, sections: Sequence[Section], output: Path, say: Say) -> Exported:
    base, base_folder = _base_of(run)
    say(f"{form.name}: from {form.artifact.path.name}")
    with scratch_folder(output / f".{form.name}.partial") as scratch:
        folder = scratch / form.name
        folder.mkdir()
        for name in form.artifact.manifest.files:  # what has come to lie beside them is not handed on
            path = form.artifact.path / name
            if path.is_relative_to(form.folder) and path.name != CARD:
                target = folder / path.relative_to(form.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                copy_file(path, target)
        if form.name == ADAPTER:
            _complete_adapter(folder, base, base_folder, form.artifact, _scale(run))
        if form.artifact.manifest.stage == "train" or form.name == ADAPTER:  # they are weights alone
            _add_tokenizer(folder, base_folder)
        asking = _asking(run, form, folder, base_folder)
        if asking.head == "classifier":
            complete_classifier(folder, asking)
        write_atomic(folder / PROMPT, json.dumps(asking.facts(_order(run)), indent=1))
        write_atomic(folder / CARD, model_card(run, asking, base, sections))
        folder.rename(output / form.name)
    weights = sum(path.stat().st_size for path in (output / form.name).glob("*.safetensors"))
    return Exported(form.name, output / form.name, weights)


def _asking(run: Run, form: Form, folder: Path, base_folder: Path) -> Asking:
    from zoo.stages.train.classifier import learned_uncapped

    prompt = prompt_of(run)
    if form.name != ADAPTER:
        return asking_of(folder, folder, form.name, prompt, nf4=False, capped=True)  # its config says of a cap what holds
    trained = form.artifact
    capped = not learned_uncapped(trained.path)
    return asking_of(folder, base_folder, ADAPTER, prompt, nf4=bool(_nf4(trained)), capped=capped)


def _complete_adapter(folder: Path, base: Base, base_folder: Path, trained: Artifact, scale: float) -> None:
    """Give an adapter the name of its base and the factor that it is merged with.

    W + s B A is the adapter with its alpha times s, and a classifier's way from where it began is times s, too
    (zoo/stages/train/scaling.py).
    """
    path = folder / "adapter_config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    config |= {"base_model_name_or_path": base.hub_id, "revision": base.revision}
    if scale != 1:
        from zoo.stages.weights.merge import scale_head

        config["lora_alpha"] *= scale
        config["alpha_pattern"] = {name: alpha * scale for name, alpha in (config.get("alpha_pattern") or {}).items()}
        scale_head(folder, base_folder, trained.path, scale)
    write_atomic(path, json.dumps(config, indent=1, sort_keys=True))


def _add_tokenizer(folder: Path, base_folder: Path) -> None:
    for pattern in OF_TOKENIZER:
        for file in sorted(base_folder.glob(pattern)):
            if file.is_file():
                shutil.copyfile(file, folder / file.name)


def _scale(run: Run) -> float:
    """The factor with which the run's adapter was merged; 1 where it was not."""
    merge = _nearest(run.artifacts[0], "merge")
    return float(merge.manifest.metrics.get("merge/scale", 1.0)) if merge else 1.0


def _nf4(train: Artifact) -> list[str]:
    path = train.path / "base_format.json"
    named = json.loads(path.read_text())["nf4"] if path.exists() else []
    return named if isinstance(named, list) else []  # of one from elsewhere nobody knows


def _base_of(run: Run) -> tuple[Base, Path]:
    """What the entry's weights were made from, and their folder. ZooError where the store no longer leads to them."""
    whole = _nearest(run.artifacts[0], "adopt")
    if whole is not None and (whole.path / "model").is_dir():  # a checkpoint from elsewhere is its own base
        base = load_entry(run.last.request.entry).base
        assert base is not None
        return base, whole.path / "model"
    fetch = _nearest(run.artifacts[0], "fetch")
    if fetch is None or not isinstance(fetch.manifest.request, FetchRequest):
        raise ZooError(
            f"{run.name}: what it was made from, down to the base weights, is no longer all in the store; "
            f"run `zoo run {run.last.request.entry}` again"
        )
    return fetch.manifest.request.base, fetch.path / "model"


def prompt_of(run: Run) -> PromptSpec:
    """The prompt that the run reads battles by; of a scored one its variant's.

    ZooError where merged weights are named, which have none, and their training is no longer in the store.
    """
    request = run.last.request
    if isinstance(request, ScoreRequest) and run.member is not None:
        return run.member.table.card.variant.prompt(request.prompt)
    if isinstance(request, ScoreRequest | QuantizeRequest | TrainRequest):
        return request.prompt
    train = _nearest(run.artifacts[0], "train")
    if train is None or not isinstance(train.manifest.request, TrainRequest):
        raise ZooError(
            f"{run.name}: its training is no longer in the store, and with it the prompt; name a member or a quantize artifact "
            "that was made of it"
        )
    return train.manifest.request.prompt


def _order(run: Run) -> Order:
    return run.member.table.card.variant.order if run.member is not None else "ab"


def _nearest(artifact: Artifact, *stages: str) -> Artifact | None:
    """The artifact itself where it is of one of these stages, else the nearest that it was made from."""
    return artifact if artifact.manifest.stage in stages else source_of(artifact.manifest, artifact.path, *stages)
