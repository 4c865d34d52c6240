"""Write a new entry from a model's own config, tokenizer and safetensors headers.

Derived are the architecture, the parameter count, the prompt in the model's chat format, labels that are one token each, an
AWQ group size that divides every layer, and the layout on the target. The rest is what the best teams share, to be edited.
"""

from __future__ import annotations

import re
import shlex
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zoo.checks import (
    AWQ_GROUP_SIZES,
    FLOAT16_REFUSED,
    RESCALABLE,
    RESCALE_BITS,
    Finding,
    check_entry,
    quantizer_of,
    supported_decoders,
)
from zoo.contracts import Encoder, Entry, PromptSpec, Quantizer, Shape, changed, explain
from zoo.entries.chat_template import model_prompt
from zoo.entries.load import entry_names
from zoo.entries.register_encoder import encoder_settings
from zoo.entries.toml import document
from zoo.errors import ZooError, printable
from zoo.models.encoders import encoder_of
from zoo.models.foreign import MERGE_IT
from zoo.models.heads import causal_name
from zoo.models.shapes import (
    awq_bits,
    count_parameters,
    embedding_parameters,
    first_architecture,
    linear_inputs,
    linear_parameters,
    quantized_bytes,
    read_config,
    shape_of_config,
)
from zoo.store import write_atomic
from zoo.targets import Target, load_target

SMALL = 10**9  # parameters up to which an entry gets the settings of a small model
# Below so many parameters groups of 32: they cost 0.05 of log loss at 270M where 64 cost 0.16 and 128 cost 0.56
# (experiments/004-levers-gemma-3).
FINE_GROUPS = 3e9
_OF_THE_FILES = {  # comments of an entry
    "shape": "of its config.json",
    "elsewhere.folders": "digests of files that `zoo register` has put into the store",
}


@dataclass(frozen=True)
class Source:
    """Where a model's small files are, what it is called, and how many parameters it has."""

    folder: Path
    hub_id: str
    parameters: int
    licence: str


@dataclass(frozen=True)
class Registered:
    """A new entry's file, and what `zoo check` found of it on the target.

    The check reads the model's own files.
    """

    path: Path
    findings: list[Finding]

    @property
    def failed(self) -> int:
        return sum(finding.verdict == "fail" for finding in self.findings)


@dataclass(frozen=True)
class Made:
    """Weights from elsewhere that an entry is written for.

    `settings` take the place of what is derived, section by section: `head`, `elsewhere`, `quantize`, ... `prompt` gives the
    prompt and its label tokens for a folder with a tokenizer; None: as of a base of its kind. `label`: what the base is called
    where it is a folder.
    """

    settings: dict[str, Any]
    prompt: Callable[[Path], tuple[PromptSpec, tuple[int, ...]]] | None = None
    label: str = ""

    @property
    def quantized(self) -> bool:
        return bool(self.settings["elsewhere"].get("quantized"))


def new_entry_path(name: str, out_folder: Path) -> Path:
    """Where a new entry's file is to be. ZooError where the name is none, or is taken."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,79}", name):
        raise ZooError(f"{name!r} is not an entry's name; use lower-case letters, digits, '.', '_' and '-'")
    path = out_folder / f"{name}.toml"
    if path.exists() or name in entry_names():
        raise ZooError(f"there is an entry {name!r} already; choose another name, or edit {path.name}")
    return path


def register(name: str, base: str, target: str, out_folder: Path, made: Made | None = None) -> Registered:
    """Write `out_folder/NAME.toml` for a model, and check it on the target.

    The model is a folder, or ORG/MODEL on the hub. `made`: weights from elsewhere that are of it. ZooError where the model
    cannot become an entry. One that fails a check is written all the same: another target or an edit may be the mend.
    """
    path = new_entry_path(name, out_folder)
    machine = load_target(target)
    with tempfile.TemporaryDirectory() as temporary:
        source = _source(base, Path(temporary))
        text, label_ids = entry_text(name, source, machine, made)
        entry = _read_back(text, source)
        findings = check_entry(entry, machine, model_folder=source.folder, label_ids=label_ids)
    out_folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)
    return Registered(path, findings)


def _read_back(text: str, source: Source) -> Entry:
    """The entry that was just written. ZooError where the model's files hold what no entry can."""
    try:
        return Entry.model_validate(tomllib.loads(text))
    except ValidationError as error:
        raise ZooError(f"{source.folder}: no entry can be made of it: {explain(error, Entry)}") from error


def next_steps(path: Path, target: str, base: str | None, *, failed: int = 0, folds: int | None = None) -> list[str]:
    """What to run after `register`, as command lines.

    `base`: the model's folder or id, None where its weights are in the store. `failed`: checks that did not pass; `folds`: how
    many an entry from elsewhere is run over.
    """
    name, first = path.stem, []
    from zoo.settings import entry_folders

    if path.parent.resolve() not in [folder.resolve() for folder in entry_folders()]:
        first = [f"export ZOO_ENTRIES={shlex.quote(str(path.parent.resolve()))}"]
    if failed:
        return [*first, f"zoo check {name} --target {target}    # after the mends above in {path.name}, or for another target"]
    source = f" --source {shlex.quote(base)}" if base and Path(base).is_dir() else ""
    every = f" --folds {folds}" if folds else ""
    return [*first, f"zoo run {name} --data BATTLES.csv --target {target}{every}{source}", "zoo leaderboard"]


# --- where the model is -------------------------------------------------------------------------------------------------


def _source(base: str, temporary: Path) -> Source:
    folder = Path(base)
    if folder.is_dir():
        return Source(folder, printable(folder.resolve().name), _parameters(folder), "unknown: see the model's card")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", base) or folder.is_absolute():
        raise ZooError(f"{base}: neither a folder nor ORG/MODEL; give one of them with --base")
    return _hub_source(base, temporary)


def _parameters(folder: Path) -> int:
    """Parameters of a model folder; of one with quantized weights, whose tensors are packed, by its sizes."""
    counted = count_parameters(folder)
    config = read_config(folder) if (folder / "config.json").exists() else {}
    if "quantization_config" not in config:
        return counted
    shape = shape_of_config(config)
    return linear_parameters(shape) + embedding_parameters(shape)


def _hub_source(hub_id: str, temporary: Path) -> Source:
    """The small files of a model on the hub.

    Its parameters are those that the hub counted in the safetensors headers.
    """
    from huggingface_hub import HfApi, snapshot_download

    small = ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    try:
        info = HfApi().model_info(hub_id, timeout=20)
        snapshot_download(hub_id, local_dir=temporary, allow_patterns=small)
    except Exception as error:  # the hub's own errors, the network's, and those of its file locks
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ZooError(f"{hub_id}: the hub gave nothing ({reason}); give a model folder with --base") from error
    if info.safetensors is None:
        raise ZooError(f"{hub_id}: no safetensors weights on the hub; choose a model that has them")
    licence = str((info.card_data or {}).get("license", "unknown: see the model's card"))
    return Source(temporary, hub_id, info.safetensors.total, licence)


# --- what follows from its files ----------------------------------------------------------------------------------------


def entry_text(name: str, source: Source, target: Target, made: Made | None = None) -> tuple[str, tuple[int, ...]]:
    """The TOML of an entry for a model, and the tokens of its labels.

    `made`: weights from elsewhere that are of it.
    """
    config = read_config(source.folder)
    if (family := encoder_of(config)) is not None:
        return _encoder_text(name, source, family, shape_of_config(config), made), (0, 1, 2)
    architecture, backend = _architecture(config, source.folder, made)
    shape = changed(shape_of_config(config), classes=None)  # that it is a classifier, the entry's head says
    quantized = made.settings["quantize"] if made is not None and made.quantized else {}
    group_size = quantized.get("group_size") or _group_size(shape, source.folder, source.parameters)
    prompt, label_ids = (made.prompt if made and made.prompt else model_prompt)(source.folder)
    small = source.parameters <= SMALL
    context = shape.max_position_embeddings or 2**20
    max_tokens = min(512 if small else 2048, context - 1)  # the label is a token too
    max_tokens = prompt.max_tokens if "max_tokens" in prompt.model_fields_set else max_tokens  # where it came with its own
    weight_bytes = quantized_bytes(shape, source.parameters, awq_bits(group_size))
    label = made.label if made is not None and made.label else source.hub_id
    settings: dict[str, Any] = {
        "name": name,
        "version": 1,
        "description": f"{label}, {source.parameters / 1e9:.2g} billion parameters",
        "base": {
            "hub_id": label,
            "architecture": architecture,
            "parameters": source.parameters,
            "licence": source.licence,
        },
        "shape": shape.model_dump(exclude_none=True),
        "prompt": {**prompt.model_dump(mode="json", exclude_unset=True), "labels": prompt.labels, "max_tokens": max_tokens},
        "train": _train_settings(small),
        "quantize": _quantize_settings(backend, group_size, target),
        "score": {"variants": [{"order": order, "max_tokens": max_tokens} for order in ("ab", "ba")]},
        "serve": {target.name: _serve_settings(architecture, weight_bytes, target)},
    }
    if made is not None:
        settings = {key: value for key, value in (settings | made.settings).items() if key != "train"}
    head = f"Written by `zoo register` from the files of {label}, to be edited; `zoo check {name}` says what holds."
    return document(settings, _comments(shape, weight_bytes, target), head=head), label_ids


def _encoder_text(name: str, source: Source, family: Encoder, shape: Shape, made: Made | None) -> str:
    if made is not None and made.settings["elsewhere"]["kind"] == "adapter":
        raise ZooError(f"{source.folder}: an encoder, whose adapters from elsewhere are not merged here; {MERGE_IT}")
    label = made.label if made is not None and made.label else source.hub_id
    base = {"hub_id": label, "parameters": source.parameters, "licence": source.licence}
    about = {"name": name, "version": 1, "description": f"{label}, an encoder"}
    head = f"Written by `zoo register` from the files of {label}, to be edited; `zoo check {name}` says what holds."
    prompt = made.prompt(source.folder)[0] if made and made.prompt else None
    settings = about | encoder_settings(family, base, shape, source.folder, prompt)
    if made is not None:
        settings = {key: value for key, value in (settings | made.settings).items() if key != "train"}
    return document(settings, _OF_THE_FILES, head=head)


def _comments(shape: Shape, weight_bytes: int, target: Target) -> dict[str, str]:
    """Why a setting is as it is, by the setting's name."""
    return {
        **_OF_THE_FILES,
        "prompt.labels": "one token each where they follow the template",
        "quantize.backend": "autoawq does not know the architecture",
        "merge.into": 'as the base is; "trained" where it was trained on 4 bit weights (QLoRA)',
        "quantize.group_size": f"divides every linear layer: {', '.join(map(str, linear_inputs(shape)))}",
        "quantize.apply_clip": "on a CPU the clip search takes longest",
        f"serve.{target.name}.layout": f"{weight_bytes / 2**30:.2g} GiB of weights",
        f"serve.{target.name}.float16_rescale_bits": "it overflows float16 without",
    }


def _train_settings(small: bool) -> dict[str, Any]:
    """QLoRA settings: the best teams' for 8B to 9B models, or faster and narrower ones.

    The former are those of the third place of LMSYS; the latter are for a small model.
    """
    if small:
        return {"rank": 16, "alpha": 32, "target_modules": "all-linear", "learning_rate": 5e-4}
    wide = {"rank": 64, "alpha": 16, "target_modules": "all-linear", "learning_rate": 1e-4}
    return wide | {"gradient_checkpointing": True}


def _quantize_settings(backend: Quantizer, group_size: int, target: Target) -> dict[str, Any]:
    chosen: dict[str, Any] = {} if backend == "autoawq" else {"backend": backend}
    chosen["group_size"] = group_size
    return chosen if target.gpus else chosen | {"calibration_rows": 8, "calibration_tokens": 256, "apply_clip": False}


def _architecture(config: dict[str, Any], folder: Path, made: Made | None = None) -> tuple[str, Quantizer]:
    """The model's architecture and the backend that quantizes it."""
    name = first_architecture(config, folder)
    is_whole = made is not None and made.settings["elsewhere"]["kind"] == "checkpoint"
    if name.endswith("ForSequenceClassification") and not is_whole:
        raise ZooError(
            f"{folder}: {name} is a classifier, without the vocabulary's head that training begins from; give the causal model "
            "it was made from, or register it as it is with --checkpoint"
        )
    if "quantization_config" in config and not is_whole:
        raise ZooError(
            f"{folder}: the weights are quantized already; give the 16-bit model it was made from, or register it as it is "
            "with --checkpoint"
        )
    name = causal_name(name)
    backend = "autoawq" if made is not None and made.quantized else quantizer_of(name)
    if backend is None:
        raise ZooError(f"{folder}: no quantization backend knows {name}; supported decoders: {supported_decoders()}")
    return name, backend


def _group_size(shape: Shape, folder: Path, parameters: int) -> int:
    """The widest groups that divide every layer; of a model below FINE_GROUPS the finest."""
    fitting = [group for group in AWQ_GROUP_SIZES if all(size % group == 0 for size in linear_inputs(shape))]
    if not fitting:
        sizes, groups = ", ".join(map(str, linear_inputs(shape))), ", ".join(map(str, AWQ_GROUP_SIZES))
        raise ZooError(f"{folder}: none of AWQ's group sizes ({groups}) divides its layers ({sizes}); choose another model")
    return min(fitting) if parameters < FINE_GROUPS else max(fitting)


def _serve_settings(architecture: str, weight_bytes: int, target: Target) -> dict[str, Any]:
    """The settings of `[serve.TARGET]`.

    Replicas if half of a card takes the weights, else split; float16 where there is no bfloat16.
    """
    fits = weight_bytes <= target.device_bytes / 2
    needs_float16 = "bfloat16" not in target.dtypes and architecture not in FLOAT16_REFUSED
    rescaled = "bfloat16" not in target.dtypes and architecture in RESCALABLE
    chosen: dict[str, Any] = {
        "layout": "replicas" if fits or target.gpus < 2 else "pipeline",
        "dtype": "float16" if needs_float16 or rescaled else "auto",
    }
    return chosen | {"float16_rescale_bits": RESCALE_BITS} if rescaled else chosen
