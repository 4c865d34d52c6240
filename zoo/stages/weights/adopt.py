"""The adopt stage: weights of other trainers, as a training here would have left them.

An adapter becomes `adapter/`, a checkpoint `model/`: safetensors alone, with today's names of tensors, the three outputs of a
classifier in the order a, b, tie, weights of bitsandbytes dequantized, no place of another machine and no code. Beside them
lies what they learned from, as far as somebody said.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from zoo.contracts import LABELS, AdoptRequest, Head, StageResult
from zoo.data.learned import FOLD, Learned, learned_of, write_learned
from zoo.data.usable import usable_battles
from zoo.errors import ZooError
from zoo.models.config_defaults import is_tied
from zoo.models.encoders import encoder_named
from zoo.models.foreign import ADAPTER_CONFIG, MERGE_IT, ForeignCheckpoint, read_adapter, read_checkpoint, weight_files
from zoo.models.heads import SCORE, VOCABULARY_HEAD, classifier_config, without_softcap
from zoo.models.patterns import read_pattern
from zoo.models.shapes import read_config
from zoo.reading import read_json_object
from zoo.scores.metric_names import WEIGHTS_GIB
from zoo.stages import progress
from zoo.stages.quantize.layerwise import write_index
from zoo.stages.train.adapters import ALL_LINEAR, BASE_FORMAT
from zoo.stages.train.classifier import MODULE, note_elsewhere
from zoo.stages.weights.adopt_encoder import write_encoder
from zoo.stages.weights.bitsandbytes_format import dequantized
from zoo.stages.weights.foreign_tensors import adapter_name, model_name, tensors_by_file
from zoo.stages.weights.low_rank import PREFIX
from zoo.store import copy_file, folder_fingerprint, write_atomic

ADAPTER, MODEL, TENSORS = "adapter", "model", "adapter_model.safetensors"
EMBEDDING, LM_HEAD = "model.embed_tokens.weight", f"{VOCABULARY_HEAD}weight"
OF_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model", "*.jinja")
OF_NAMES = ("exclude_modules", "layers_to_transform", "layers_pattern")  # of an adapter's config: which modules it has
PLACE = re.compile(r"/|~/|file:|[A-Za-z]:[\\/]|\\\\")  # as absolute paths begin
OF_A_TOKENIZER_S_PLACE = ("name_or_path", "tokenizer_file", "auto_map")
OF_A_PLACE = ("_name_or_path", "auto_map", "base_model_name_or_path", "revision")  # of a config: a machine's, or code


def run(request: AdoptRequest, out_dir: Path) -> StageResult:
    """Write `adapter/` or `model/`, and what it learned from."""
    folder = request.folder.place
    if folder is None:
        name = f"{request.entry}: its {request.kind} {request.folder.fingerprint}"
        raise ZooError(
            f"{name} is not in the store, where `zoo register` put it (the entry was changed since, or it was removed); remove "
            f"{request.entry}.toml and register it again"
        )
    if folder_fingerprint(folder) != request.folder.fingerprint:
        raise ZooError(f"{folder}: has changed since it was registered; register it again")
    for name in (ADAPTER, MODEL):
        shutil.rmtree(out_dir / name, ignore_errors=True)
    if request.kind == "adapter":
        adopt_adapter(folder, out_dir, request)
    else:
        adopt_checkpoint(folder, out_dir, request)
    write_learned(_learned(request), out_dir)
    weights = sum(path.stat().st_size for path in out_dir.glob("*/*.safetensors"))
    return StageResult(metrics={WEIGHTS_GIB: weights / 1024**3})


def _learned(request: AdoptRequest) -> Learned:
    if request.learned is None:
        return Learned(known=request.learned_none)
    battles = usable_battles(request.learned.path, keep=(FOLD,), need_texts=False, say=progress.note)
    return learned_of(battles, request.fold, len(request.folders))


# --- adapters -----------------------------------------------------------------------------------------------------------


def adopt_adapter(folder: Path, out_dir: Path, request: AdoptRequest) -> None:
    """Write `out_dir/adapter` as peft saves it today, and what NF4 training would have rounded."""
    facts, target = read_adapter(folder), out_dir / ADAPTER
    tensors: dict[str, torch.Tensor] = {}
    for path, found in tensors_by_file(folder):
        try:
            for name in found:
                if (own := adapter_name(name)) is not None:
                    tensors[own] = found[name].contiguous().clone()
        except ZooError as error:
            raise ZooError(f"{path}: {error}") from None
    _check_adapter(tensors, folder, facts.head)
    if PREFIX + SCORE in tensors:
        tensors[PREFIX + SCORE] = in_our_order(tensors[PREFIX + SCORE], request)
        note_elsewhere(out_dir, capped=_is_capped(folder))
    target.mkdir()
    save_file(tensors, target / TENSORS, metadata={"format": "pt"})
    config = _adapter_config(folder, tensors)
    write_atomic(target / ADAPTER_CONFIG, json.dumps(config, indent=1, sort_keys=True))
    write_atomic(out_dir / BASE_FORMAT, json.dumps({"nf4": ALL_LINEAR}))


def _check_adapter(tensors: Mapping[str, torch.Tensor], folder: Path, head: Head) -> None:
    """ZooError where halves of an update are missing, do not fit, or are no numbers."""
    stems = {name.split(".lora_")[0] for name in tensors if ".lora_" in name}
    if not stems:
        raise ZooError(f"{folder}: holds no LoRA weights; give the folder that peft's save_pretrained wrote")
    for stem in sorted(stems):
        a, b = (tensors.get(f"{stem}.lora_{half}.weight") for half in "AB")
        if a is None or b is None or a.dim() != 2 or b.dim() != 2 or a.shape[0] != b.shape[1]:
            raise ZooError(f"{folder}: {stem.removeprefix(PREFIX)} lacks a half of its update, or they do not fit; {MERGE_IT}")
    if broken := next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), None):
        raise ZooError(f"{folder}: {broken} holds values that are no numbers; its training failed, take an earlier checkpoint")
    if head == "classifier" and PREFIX + SCORE not in tensors:
        raise ZooError(
            f"{folder}: a classifier's adapter (SEQ_CLS) without its head, which would be random; save it again with "
            "modules_to_save = ['score'], or merge it where it was trained and give it by --checkpoint"
        )


def _adapter_config(folder: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The adapter's config with its modules, ranks and alphas by whole names, as the tensors have them.

    peft matches the patterns of others with names: regular expressions that it would be busy with for as long as they like.
    """
    config = read_json_object(folder / ADAPTER_CONFIG, mend="save the adapter again")
    modules = sorted({name.removeprefix(PREFIX).split(".lora_A.")[0] for name in tensors if ".lora_A." in name})
    ranks = {module: tensors[f"{PREFIX}{module}.lora_A.weight"].shape[0] for module in modules}
    patterns = [(read_pattern(text), alpha) for text, alpha in (config.get("alpha_pattern") or {}).items()]
    alphas = {
        module: next((alpha for pattern, alpha in patterns if pattern and pattern.ends(module)), None) for module in modules
    }
    has_head = PREFIX + SCORE in tensors
    return _placeless(config) | {
        **dict.fromkeys(OF_NAMES),
        "base_model_name_or_path": None,
        "target_modules": modules,
        "rank_pattern": {module: rank for module, rank in ranks.items() if rank != config["r"]},
        "alpha_pattern": {module: alpha for module, alpha in alphas.items() if alpha is not None},
        "modules_to_save": [MODULE] if has_head else None,
        "task_type": "SEQ_CLS" if has_head else "CAUSAL_LM",
    }


# --- checkpoints --------------------------------------------------------------------------------------------------------


def adopt_checkpoint(folder: Path, out_dir: Path, request: AdoptRequest) -> None:
    """Write `out_dir/model`, an ordinary folder of transformers."""
    facts, config, target = read_checkpoint(folder), read_config(folder), out_dir / MODEL
    target.mkdir()
    if encoder_named(facts.architecture) is not None:
        write_encoder(folder, target, _placeless(config), [request.classes.index(label) for label in LABELS])
        _copy_tokenizer(folder, target, request)
        return
    shapes: dict[str, tuple[int, ...]] = {}
    vocabulary: dict[str, torch.Tensor] = {}  # its head and its embedding, which may lie in two files
    pieces: Iterator[tuple[Path, Mapping[str, torch.Tensor]]] = tensors_by_file(folder)
    count = len(weight_files(folder))
    if facts.packed:
        pieces, count = dequantized(folder, config)
        config.pop("quantization_config")
    with progress.bar(count, "copy", "shard") as bar:
        for number, (path, found) in enumerate(pieces, start=1):
            tensors = _model_tensors(path, found, facts.head, request)
            shapes |= {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            vocabulary |= {name: tensors[name] for name in (EMBEDDING, LM_HEAD) if name in tensors}
            name = f"model-{number:05}-of-{count:05}.safetensors" if count > 1 else "model.safetensors"
            if tensors:
                save_file(tensors, target / name, metadata={"format": "pt"})
            bar.update()
    _check_head(folder, config, shapes, classifier=facts.head == "classifier")
    if count > 1:
        write_index(target)
    own_head = LM_HEAD in vocabulary and not torch.equal(vocabulary[LM_HEAD], vocabulary[EMBEDDING])
    write_atomic(target / "config.json", json.dumps(_config(config, shapes, facts, own_head=own_head), indent=1))
    _copy_tokenizer(folder, target, request)


def _model_tensors(path: Path, found: Mapping[str, torch.Tensor], head: Head, request: AdoptRequest) -> dict[str, torch.Tensor]:
    """The tensors of one file by today's names; of a classifier without the vocabulary's head."""
    tensors: dict[str, torch.Tensor] = {}
    for name in found:
        try:
            own = model_name(name)
        except ZooError as error:
            raise ZooError(f"{path}: {error}") from None
        if own is not None and not (head == "classifier" and own.startswith(VOCABULARY_HEAD)):
            tensors[own] = found[name].contiguous().clone()  # of two names for one matrix, each has its own
    bias = tensors.pop(f"{MODULE}.bias", None)
    if bias is not None and bias.abs().max() > 0:
        raise ZooError(f"{path}: {MODULE}.bias: a classifier with a bias is not served; train the head without one")
    if SCORE in tensors:
        tensors[SCORE] = in_our_order(tensors[SCORE], request)
    return tensors


def _check_head(folder: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], *, classifier: bool) -> None:
    """ZooError where what answers is not in the folder: an engine would make it of random numbers."""
    if EMBEDDING not in shapes:
        raise ZooError(f"{folder}: no {EMBEDDING}; its tensors are not named as transformers names a decoder's")
    if classifier:
        if SCORE not in shapes:
            raise ZooError(f"{folder}: a classifier without {SCORE}, which would be random; save it again with its head")
        return
    if LM_HEAD not in shapes and not is_tied(config):
        raise ZooError(
            f"{folder}: no {LM_HEAD}, and by config.json it is not the embedding: it would be random; save it with its head, "
            "or set tie_word_embeddings = true there if it is"
        )


def _config(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], facts: ForeignCheckpoint, *, own_head: bool
) -> dict[str, Any]:
    """config.json as its tensors are, without places and code of others.

    A classifier of transformers was trained without the family's final soft-cap, so that it has none here; one of ours has it.
    """
    kept = _placeless(config)
    kept["vocab_size"] = shapes[EMBEDDING][0]
    if facts.head == "labels":
        return kept | ({"tie_word_embeddings": False} if own_head else {})
    kept = classifier_config({**kept, "architectures": [facts.architecture]})
    kept = kept if _is_capped(facts.folder) else without_softcap(kept)
    if facts.quantized == "awq":  # vLLM takes what is not named for quantized
        spec = kept["quantization_config"]
        named = [*(spec.get("modules_to_not_convert") or [])]
        kept["quantization_config"] = {**spec, "modules_to_not_convert": [*named, *([] if MODULE in named else [MODULE])]}
    return kept


def _placeless(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what names places of a machine, as GPTQModel's `meta.offload_to_disk_path`."""
    return {
        key: _placeless(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in OF_A_PLACE and not (isinstance(value, str) and PLACE.match(value))
    }


def _is_capped(folder: Path) -> bool:
    """Whether a classifier learned with its family's final soft-cap.

    `zoo export` says so of ours beside it.
    """
    path = folder / "prompt.json"
    return path.is_file() and bool(read_json_object(path, mend="export it again").get("softcap"))


def _copy_tokenizer(folder: Path, target: Path, request: AdoptRequest) -> None:
    """The folder's tokenizer, or where it has none that of the model folder which was named for it."""
    source = folder
    if not (folder / "tokenizer.json").exists():
        if request.tokenizer is None:
            raise ZooError(f"{folder}: no tokenizer.json; name the folder of its base with --base")
        source = request.tokenizer.path.parent
    for pattern in OF_TOKENIZER:
        for file in sorted(source.glob(pattern)):
            if file.is_file():
                copy_file(file, target / file.name)
    settings = target / "tokenizer_config.json"
    if settings.is_file():
        found = read_json_object(settings, mend="copy it again")
        kept = {key: value for key, value in found.items() if key not in OF_A_TOKENIZER_S_PLACE}
        if kept != found:
            write_atomic(settings, json.dumps(kept, indent=1, ensure_ascii=False))


def in_our_order(head: torch.Tensor, request: AdoptRequest) -> torch.Tensor:
    """A classifier's weight (3, hidden) with its rows in the order a, b, tie.

    ZooError where it has not three rows.
    """
    if head.dim() != 2 or head.shape[0] != len(LABELS):
        raise ZooError(
            f"{request.folder.path}: its classifier is {tuple(head.shape)}, and a battle's classes are three: a, b, tie"
        )
    return head[[request.classes.index(label) for label in LABELS]].contiguous()
