"""Folders that other trainers left: what an adapter or a checkpoint says of itself.

Each fact is of adapter_config.json (peft) or config.json (transformers), or of the names in safetensors headers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from zoo.contracts import LABELS, Head
from zoo.errors import ZooError, printable
from zoo.models.encoders import classifier_name, encoder_of
from zoo.models.heads import CLASSIFIERS, causal_name, head_of
from zoo.models.patterns import READ, is_quick, read_pattern
from zoo.models.shapes import first_architecture, read_config, tensor_shapes
from zoo.reading import read_json_object

ADAPTER_CONFIG = "adapter_config.json"
HEADS = ("score", "classifier")  # what trainers call a classifier's layer
MERGE_IT = "merge it with peft (merge_and_unload), save that, and give the folder by --checkpoint"
Quantized = Literal["", "awq", "gptq", "int8", "w4a8", "w4a16", "fp8"]
Packed = Literal["", "nf4", "fp4", "int8"]
# What people call the three classes, in lower case without what is no letter or digit.
_CLASSES = {
    **dict.fromkeys(("a", "modela", "winnermodela", "winnera", "awins", "responsea", "answera"), "a"),
    **dict.fromkeys(("b", "modelb", "winnermodelb", "winnerb", "bwins", "responseb", "answerb"), "b"),
    **dict.fromkeys(("tie", "winnertie", "draw", "equal", "neither"), "tie"),
}
Classes = tuple[Any, Any, Any]


@dataclass(frozen=True)
class ForeignAdapter:
    """A PEFT adapter's own account of itself.

    `base` is what it names as its base, empty where it names none.
    """

    folder: Path
    rank: int
    alpha: float
    rslora: bool
    dora: bool
    head: Head
    base: str


@dataclass(frozen=True)
class ForeignCheckpoint:
    """A model folder's own account of itself.

    `architecture`: the causal one, or an encoder's classifier; `quantized`: the kind of its weights, empty where they have 16
    bits or more; `packed`: what bitsandbytes made of them, dequantized when they are taken; `classes`: what its classifier's
    outputs stand for, None where it has none or does not say.
    """

    folder: Path
    architecture: str
    head: Head
    quantized: Quantized
    group_size: int | None
    classes: Classes | None
    packed: Packed = ""


def read_adapter(folder: Path) -> ForeignAdapter:
    """What a folder of PEFT says. ZooError, with the mend, for what cannot be merged here."""
    path = folder / ADAPTER_CONFIG
    if not os.path.lexists(path):
        whole = (folder / "config.json").exists()
        mend = "it is a whole model: give it by --checkpoint" if whole else "give the folder that peft's save_pretrained wrote"
        raise ZooError(f"{path}: no such file; {mend}")
    config = read_json_object(path, mend="save the adapter again")
    kind = str(config.get("peft_type") or "").rpartition(".")[2].upper()
    if kind != "LORA":
        raise ZooError(f"{path}: peft_type is {printable(kind)[:40] or 'missing'}, and only LoRA is merged here; {MERGE_IT}")
    for key in ("bias", *_UNMERGED):
        if config.get(key) and config[key] != "none":
            raise ZooError(f"{path}: {key} = {printable(str(config[key]))[:60]}, which is not merged here; {MERGE_IT}")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not (type(rank) is int and 0 < rank < 2**20 and isinstance(alpha, int | float) and 0 < alpha < 2**30):
        raise ZooError(f"{path}: r and lora_alpha are no numbers above 0; save the adapter again")
    _check_settings(config, path)
    saved = config.get("modules_to_save") or []
    other = [name for name in saved if name not in HEADS]
    if other:
        raise ZooError(f"{path}: modules_to_save has {printable(str(other[0]))[:60]!r}, trained whole beside LoRA; {MERGE_IT}")
    names = tensor_shapes(folder, "*.safetensors") if any(folder.glob("*.safetensors")) else {}
    is_classifier = config.get("task_type") == "SEQ_CLS" or bool(saved) or any(_is_head(name) for name in names)
    if is_classifier and names and not any(_is_head(name) for name in names):
        raise ZooError(
            f"{folder}: a classifier's adapter (SEQ_CLS) without its head, which would be random; save it again with "
            "modules_to_save = ['score'], or merge it where it was trained and give it by --checkpoint"
        )
    base = config.get("base_model_name_or_path")
    return ForeignAdapter(
        folder,
        rank,
        float(alpha),
        bool(config.get("use_rslora")),
        bool(config.get("use_dora")),
        "classifier" if is_classifier else "labels",
        base if isinstance(base, str) else "",
    )


def _check_settings(config: Mapping[str, Any], path: Path) -> None:
    """ZooError for settings that are of no adapter, or of one that belongs to another base than it names."""
    saved, alphas = config.get("modules_to_save"), config.get("alpha_pattern") or {}
    if saved is not None and not (isinstance(saved, list) and all(isinstance(name, str) for name in saved)):
        raise ZooError(f"{path}: modules_to_save is no list of names; save the adapter again")
    if not (isinstance(alphas, dict) and all(type(one) in (int, float) and 0 < one < 2**30 for one in alphas.values())):
        raise ZooError(f"{path}: alpha_pattern is no object of numbers above 0; save the adapter again")
    if odd := next((pattern for pattern in alphas if read_pattern(pattern) is None), None):
        raise ZooError(f"{path}: alpha_pattern has {printable(odd)[:60]!r}, and {READ} are matched here; {MERGE_IT}")
    start = str(config.get("init_lora_weights"))
    if start.startswith(CHANGES_BASE):
        raise ZooError(
            f"{path}: init_lora_weights = {printable(start)[:40]}: it is of a base from which its start was taken, not of the "
            f"one that it names; {MERGE_IT}"
        )


# Ways to begin (peft's init_lora_weights) that take what the adapter begins with out of the base's weights.
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Settings of peft's LoraConfig that change what is computed, and that the merge here does not know.
_UNMERGED = (
    "fan_in_fan_out",
    "lora_bias",
    "use_qalora",
    "trainable_token_indices",
    "layer_replication",
    "alora_invocation_tokens",
)


def _is_head(name: str) -> bool:
    return any(name.endswith(f"{head}.weight") or f".{head}.modules_to_save." in name for head in HEADS)


def read_checkpoint(folder: Path) -> ForeignCheckpoint:
    """What a model folder says. ZooError, with the mend, for what the engine does not serve."""
    if not os.path.lexists(folder / "config.json") and os.path.lexists(folder / ADAPTER_CONFIG):
        raise ZooError(f"{folder}: an adapter, not a whole model; give it by --adapter")
    config = read_config(folder)
    if (family := encoder_of(config)) is not None:
        return _encoder(folder, config, classifier_name(family))
    name = first_architecture(config, folder)
    packed = _packed(config, folder)
    kind, group_size = ("", None) if packed else _quantized(config, folder)
    head = head_of(config)
    if name.endswith("ForSequenceClassification") and head != "classifier":
        known = ", ".join(sorted(CLASSIFIERS.values()))
        raise ZooError(f"{folder}: {printable(name)[:60]} is not served as a classifier here, only {known}")
    classes = _classes(config, folder) if head == "classifier" else None
    return ForeignCheckpoint(folder, causal_name(name), head, kind, group_size, classes, packed)


def _encoder(folder: Path, config: Mapping[str, Any], wanted: str) -> ForeignCheckpoint:
    """What the folder of a trained encoder says. ZooError for one that is only pretrained, or quantized."""
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else "none"
    if name != wanted:
        raise ZooError(
            f"{folder}: an encoder without a classifier's head (architectures: {printable(name)[:60]}, not {wanted}); give it "
            "by --base, to be trained here"
        )
    if config.get("quantization_config"):
        raise ZooError(f"{folder}: encoders are served in 16 or 32 bits, and this one is quantized; give it as it was trained")
    return ForeignCheckpoint(folder, wanted, "classifier", "", None, _classes(config, folder))


def _classes(config: Mapping[str, Any], folder: Path) -> Classes | None:
    """The classes in the order of the outputs, by `id2label`; None where its names say nothing (LABEL_0)."""
    names = config.get("id2label")
    if not isinstance(names, dict):
        return None
    if len(names) != len(LABELS):
        raise ZooError(f"{folder / 'config.json'}: id2label has {len(names)} classes, and a battle's are three: a, b, tie")
    found = tuple(_CLASSES.get(re.sub(r"[^a-z0-9]", "", str(names.get(str(i), "")).lower())) for i in range(len(LABELS)))
    return (found[0], found[1], found[2]) if set(found) == set(LABELS) else None


def _quantized(config: Mapping[str, Any], folder: Path) -> tuple[Quantized, int | None]:
    """The kind of a checkpoint's weights and its group size, by `quantization_config`."""
    spec, where = config.get("quantization_config"), folder / "config.json"
    if spec is None:
        return "", None
    if not isinstance(spec, dict):
        raise ZooError(f"{where}: quantization_config is no object; copy it again")
    method = str(spec.get("quant_method", "")).lower()
    _check_patterns(spec, where)
    if method in ("awq", "gptq"):
        bits, group = spec.get("bits", spec.get("w_bit")), spec.get("group_size", spec.get("q_group_size"))
        if bits != 4 or type(group) is not int or group <= 0:
            raise ZooError(
                f"{where}: {method} of {bits} bits in groups of {group}; 4 bits in groups of 32, 64 or 128 are served"
            )
        if method == "awq" and str(spec.get("version", "gemm")).lower() != "gemm":
            raise ZooError(f"{where}: awq's version {spec.get('version')!r} is not served; save it in autoawq's GEMM version")
        if method == "gptq":
            _check_gptq(spec, where)
        return ("awq" if method == "awq" else "gptq"), group
    if method == "compressed-tensors":
        return _compressed(spec, where)
    raise ZooError(
        f"{where}: quant_method {printable(method)[:40]!r} is not known; give awq, gptq, compressed-tensors, bitsandbytes or "
        "16 bits"
    )


def _packed(config: Mapping[str, Any], folder: Path) -> Packed:
    """What bitsandbytes packed a checkpoint's linear layers as; empty where it is not of bitsandbytes."""
    spec = config.get("quantization_config")
    if not isinstance(spec, dict):
        return ""
    four, eight = spec.get("load_in_4bit"), spec.get("load_in_8bit")
    if "bitsandbytes" not in str(spec.get("quant_method", "")).lower() and not (four or eight):
        return ""
    kind = "int8" if eight else spec.get("bnb_4bit_quant_type", "fp4") if four else None
    if kind not in ("nf4", "fp4", "int8"):
        told = f"bnb_4bit_quant_type = {printable(str(kind))[:40]!r}" if four else "neither load_in_4bit nor load_in_8bit"
        raise ZooError(
            f"{folder / 'config.json'}: bitsandbytes weights with {told}; NF4, FP4 and int8 are read: save it again, or give "
            "the 16-bit model"
        )
    return cast(Packed, kind)


def _check_gptq(spec: Mapping[str, Any], where: Path) -> None:
    """ZooError for what GPTQ has and the engine (vLLM 0.32, auto_gptq.py) does not serve."""
    form = spec.get("checkpoint_format", spec.get("format", "gptq"))
    if form not in ("gptq", "gptq_v2"):  # they differ in zero points, which symmetric weights have none of
        raise ZooError(f"{where}: gptq's format {printable(str(form))[:40]!r} is not served; save it again in the format gptq")
    if spec.get("sym") is not True:
        raise ZooError(f"{where}: gptq with zero points (sym is not true) is not served; quantize it again with sym = true")
    if spec.get("desc_act"):
        raise ZooError(
            f"{where}: gptq whose groups are in the order of activations (desc_act = true) is not served; quantize it again "
            "with desc_act = false, for GPTQModel with act_group_aware = true"
        )


def _check_patterns(spec: Mapping[str, Any], where: Path) -> None:
    """ZooError for regular expressions that would keep the engine's matcher busy: of compressed-tensors, and of GPTQModel."""
    dynamic = spec.get("dynamic")
    found = [text.removeprefix("re:") for text in _texts(spec) if text.startswith("re:")]
    found += [re.sub(r"^[+-]:", "", name) for name in dynamic] if isinstance(dynamic, dict) else []
    for text in found:
        if not is_quick(text):
            raise ZooError(
                f"{where}: {printable(text)[:60]!r} is no pattern, or could keep an engine busy for ages; write the modules' "
                "names in its place"
            )


def _texts(found: Any) -> Iterator[str]:
    """Every text in a value of JSON, keys left out."""
    if isinstance(found, str):
        yield found
    elif isinstance(found, list | dict):
        for one in found.values() if isinstance(found, dict) else found:
            yield from _texts(one)


def _objects(found: Any) -> list[dict[str, Any]]:
    return [one for one in found.values() if isinstance(one, dict)] if isinstance(found, dict) else []


def _compressed(spec: Mapping[str, Any], where: Path) -> tuple[Quantized, int | None]:
    """Of compressed-tensors: bits of weights and activations, from its first group."""
    groups = spec.get("config_groups")
    first: Any = next(iter(groups.values()), None) if isinstance(groups, dict) else None
    weights = first.get("weights") if isinstance(first, dict) else None
    if not isinstance(weights, dict):
        raise ZooError(f"{where}: compressed-tensors without config_groups; save it again")
    if any((one.get("weights") or {}).get("actorder") in ("group", "dynamic", True) for one in _objects(groups)):
        raise ZooError(
            f"{where}: compressed-tensors whose groups are in the order of activations (actorder = 'group') are not served; "
            "quantize it again with actorder = 'static', or without"
        )
    bits, kind, size = weights.get("num_bits"), weights.get("type"), weights.get("group_size")
    activations = first.get("input_activations")
    group = size if type(size) is int and size > 0 else None
    if (bits, kind) == (4, "int"):
        return ("w4a8" if activations else "w4a16"), group
    if (bits, kind) == (8, "int") and activations:
        return "int8", None
    if (bits, kind) == (8, "float"):
        return "fp8", None
    raise ZooError(f"{where}: compressed-tensors of {bits} bits ({kind}); int4, int8 with int8 activations and fp8 are served")


def weight_files(folder: Path) -> Sequence[Path]:
    """The files of a folder's weights: safetensors, else torch's own (`.bin`).

    Where an index names files these are all: others are the same weights in another form (Mistral's `consolidated`). ZooError
    where there is neither, or an index names a file that is not there.
    """
    files = sorted(folder.glob("*.safetensors")) or sorted(
        path for pattern in ("pytorch_model*.bin", "adapter_model*.bin", "model*.bin") for path in folder.glob(pattern)
    )
    if not files:
        raise ZooError(f"{folder}: no weights, neither *.safetensors nor pytorch_model*.bin; copy the folder whole")
    for index in sorted(folder.glob("*.index.json")):
        named = read_json_object(index, mend="copy it again").get("weight_map")
        if files[0].suffix not in index.name or not named:
            continue
        if not isinstance(named, dict):
            raise ZooError(f"{index}: weight_map is no object of tensors and files; copy it again")
        wanted = {str(name) for name in named.values()}
        if missing := sorted(wanted - {path.name for path in files}):
            raise ZooError(f"{index}: names {printable(missing[0])[:80]}, which is not there; copy the folder whole")
        files = [path for path in files if path.name in wanted]
    return files
