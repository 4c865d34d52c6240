"""The merge stage: LoRA adapters into their base, one weight in memory at a time.

From safetensors to safetensors. A merged file has its base's own header, so that each weight is written where the base has it:
what no adapter touches is copied byte for byte, and the rest is computed in float32 and stored in its own dtype. A model of any
size merges on a small machine.

An adapter trained on NF4 weights has learned to make up for their rounding, so W is what it was trained on: NF4 there and
back, not the original (BASE_FORMAT has the names). Merged into the original, a small model loses much of what it learned.

A classifier takes the place of the vocabulary's head, and the folder is then one of sequence classification. Encoders are
merged in memory (`zoo.stages.weights.merge_encoder`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from zoo.contracts import Measurements, MergeRequest, StageResult
from zoo.data.learned import carry_learned
from zoo.errors import ZooError
from zoo.models.encoders import folder_encoder
from zoo.models.heads import SCORE, VOCABULARY_HEAD, classifier_config, without_softcap
from zoo.models.shapes import read_config, tensor_shapes
from zoo.scores.metric_names import WEIGHTS_GIB
from zoo.stages import progress
from zoo.stages.device import device, gpu_peak_bytes
from zoo.stages.quantize.layerwise import write_index
from zoo.stages.train.adapters import ALL_LINEAR, BASE_FORMAT
from zoo.stages.train.classifier import HEAD, label_rows, learned_uncapped, start_of
from zoo.stages.train.scaling import scale_of
from zoo.stages.weights.low_rank import PREFIX, open_updates, updated_weight
from zoo.stages.weights.merge_encoder import merge_encoder
from zoo.store import copy_over, replacing, write_atomic
from zoo.targets import process_age_seconds

BLOCK_BYTES = 2**24  # copied at a time
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # of safetensors' header


def run(request: MergeRequest, out_dir: Path) -> StageResult:
    """Write the merged model folder `out_dir/model`.

    Several adapters are merged as the mean of their updates.
    """
    base, target = request.base.path / "model", out_dir / "model"
    trained = [request.adapter.path, *(more.path for more in request.more_adapters)]
    target.mkdir(exist_ok=True)
    for path in base.iterdir():
        if path.is_file() and not path.name.endswith((".safetensors", ".safetensors.index.json")):
            shutil.copy2(path, target / path.name)
    if not (trained[0] / "adapter").exists():  # full fine-tuning leaves a model, not an adapter
        if request.spec.scale != 1:
            raise ZooError(f"merge.scale is of a low-rank update; {trained[0].name} is a whole model, merge it whole")
        shutil.copytree(trained[0] / "model", target, copy_function=copy_over, dirs_exist_ok=True)
        return StageResult(metrics={WEIGHTS_GIB: weights_gib(target)})
    if folder_encoder(base):
        if request.spec.scale != 1:
            raise ZooError(
                "merge.scale: an encoder's head begins at random, and a part of its update means nothing; take it out"
            )
        return _merged(*merge_encoder(base, target, trained), factor=1.0, target=target)
    for index in base.glob("*.safetensors.index.json"):
        shutil.copy2(index, target / index.name)
    carry_learned(trained, out_dir)
    factors = [scale_of(request.spec.scale, path) for path in trained]
    return merge_all(base, target, trained, factors, into_trained=request.spec.into == "trained")


def merge_all(base: Path, target: Path, trained: list[Path], factors: list[float], *, into_trained: bool) -> StageResult:
    """Merge every shard of the base, each adapter's update times its factor.

    ZooError where an adapter updates a weight that the base does not have.
    """
    adapters = [open_updates(path / "adapter", factor) for path, factor in zip(trained, factors, strict=True)]
    rounded = nf4_weights(trained[0], base) if into_trained else set()
    updated = set().union(*adapters)
    used: set[str] = set()
    largest_change = 0.0

    def new_value(name: str, weight: torch.Tensor) -> torch.Tensor:
        nonlocal largest_change
        before = nf4_there_and_back(weight.to(device())) if name in rounded else weight.to(device()).float()
        if name not in updated:
            return before
        used.add(name)
        after = updated_weight(name, before, adapters)
        largest_change = max(largest_change, float((after - before).abs().max()))
        return after

    shards = sorted(base.glob("*.safetensors"))
    head = merged_head(base, trained, factors)
    with progress.bar(len(shards), "merge", "shard") as bar:
        for shard in shards:
            added = {SCORE: head} if head is not None and shard == shards[-1] else {}
            rewrite(shard, target / shard.name, updated | rounded, new_value, drop=head is not None, add=added)
            bar.update()
    if head is not None:
        config = classifier_config(read_config(base))
        config = without_softcap(config) if learned_uncapped(trained[0]) else config
        write_atomic(target / "config.json", json.dumps(config, indent=1))
        if any(base.glob("*.safetensors.index.json")):
            write_index(target)
    if missing := sorted(updated - used):
        raise ZooError(
            f"{trained[0]}: the base has no weight {missing[0]} ({len(missing)} such); was it trained on another base?"
        )
    return _merged(len(used) * len(adapters), largest_change, factor=sum(factors) / len(factors), target=target)


def _merged(updates: int, largest_change: float, *, factor: float, target: Path) -> StageResult:
    return StageResult(
        metrics={
            "merge/largest_weight_change": largest_change,
            "merge/scale": factor,
            WEIGHTS_GIB: weights_gib(target),
        },
        measurements=Measurements(run_seconds=process_age_seconds(), rows=updates, peak_bytes=gpu_peak_bytes()),
    )


def merged_head(base: Path, trained: list[Path], factors: list[float]) -> torch.Tensor | None:
    """The classifier (3, hidden) of several adapters, as the vocabulary's head is stored.

    None where they have none. The mean of what each has become, its way from the label rows times its factor, as the mean of
    all other updates. ZooError where only some of them have one, or one does not say where it began.
    """
    starts = [start_of(path) for path in trained]
    if not any(starts):
        for path in trained:
            with safe_open(path / "adapter" / "adapter_model.safetensors", "pt") as file:
                if f"{PREFIX}{SCORE}" in file.keys():  # noqa: SIM118 (safe_open is not a mapping)
                    raise ZooError(
                        f"{path.name}: its adapter has a classifier, and no {HEAD} says what it began as; train again"
                    )
        return None
    if len(set(starts)) > 1 or starts[0] is None:
        raise ZooError(f"{trained[0].name}: adapters of one head alone are averaged; these have different ones")
    rows = label_rows(base, starts[0])
    start = rows.float()
    ends = []
    for path in trained:
        with safe_open(path / "adapter" / "adapter_model.safetensors", "pt") as file:
            ends.append(file.get_tensor(f"{PREFIX}{SCORE}").float())
    moved = sum(factor * (end - start) for factor, end in zip(factors, ends, strict=True)) / len(ends)
    head: torch.Tensor = (start + moved).to(rows.dtype)
    return head


def scale_head(adapter: Path, base: Path, trained: Path, factor: float) -> None:
    """Put the classifier that an adapter is merged with by a factor into a copy of it.

    Without one nothing is changed.
    """
    head = merged_head(base, [trained], [factor])
    if head is not None:
        path = adapter / "adapter_model.safetensors"
        tensors = load_file(path)
        tensors[f"{PREFIX}{SCORE}"] = head.to(tensors[f"{PREFIX}{SCORE}"].dtype)
        with replacing(path) as file:
            file.write(save(tensors, metadata={"format": "pt"}))


def weights_gib(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.glob("*.safetensors")) / 1024**3


def nf4_weights(trained: Path, base: Path) -> set[str]:
    """Names of the base's weights that were NF4 in training; none where it was not QLoRA.

    Of an adapter from elsewhere these are all linear layers, as bitsandbytes takes them.
    """
    path = trained / BASE_FORMAT
    named = json.loads(path.read_text())["nf4"] if path.exists() else []
    if named != ALL_LINEAR:
        return set(named)
    return {name for name, shape in tensor_shapes(base).items() if len(shape) == 2 and ".layers." in name}


def nf4_there_and_back(weight: torch.Tensor) -> torch.Tensor:
    """The float32 values that NF4 with double quantization keeps of a weight.

    The blocks are those of bitsandbytes, 64 weights each.
    """
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    quantized, state = quantize_4bit(weight.float().contiguous(), quant_type="nf4", compress_statistics=True)
    restored: torch.Tensor = dequantize_4bit(quantized, state)
    return restored


def rewrite(
    shard: Path,
    target: Path,
    names: set[str],
    new_value: Callable[[str, torch.Tensor], torch.Tensor],
    *,
    drop: bool = False,
    add: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """A copy of a safetensors file in which the tensors `names` have new values.

    They have the same shape and dtype. `drop`: without the vocabulary's head; `add`: more tensors, at the end. The format is 8
    bytes of header length, a JSON header with each tensor's dtype, shape and place, and the tensors' bytes
    (https://github.com/huggingface/safetensors#format); one tensor is in memory at a time.
    """
    add = add or {}
    with shard.open("rb") as source, target.open("wb") as out:
        header = source.read(int.from_bytes(source.read(8), "little"))
        tensors = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        dropped = {name for name in tensors if drop and name.startswith(VOCABULARY_HEAD)}
        if dropped or add:
            header = _changed_header(json.loads(header), dropped, add)
        out.write(len(header).to_bytes(8, "little") + header)
        for name, entry in sorted(tensors.items(), key=lambda item: item[1]["data_offsets"]):
            begin, end = entry["data_offsets"]
            if name in dropped:
                source.seek(end - begin, os.SEEK_CUR)
            elif name not in names:
                _copy(source, out, end - begin)
            elif entry["dtype"] not in DTYPES:
                raise ZooError(f"{shard}: {name} is {entry['dtype']}; an adapter merges into {', '.join(DTYPES)} only")
            else:
                dtype = DTYPES[entry["dtype"]]
                weight = torch.frombuffer(bytearray(source.read(end - begin)), dtype=dtype).reshape(entry["shape"])
                out.write(_bytes_of(new_value(name, weight).to(dtype)))
        for value in add.values():
            out.write(_bytes_of(value))


def _changed_header(header: dict[str, Any], dropped: set[str], add: Mapping[str, torch.Tensor]) -> bytes:
    """A safetensors header without some tensors and with others behind the rest, padded to 8 bytes as theirs are."""
    changed = {name: entry for name, entry in header.items() if name == "__metadata__"}
    kept = [(name, entry) for name, entry in header.items() if name not in changed and name not in dropped]
    place = 0
    for name, entry in sorted(kept, key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        changed[name] = {**entry, "data_offsets": [place, place + end - begin]}
        place += end - begin
    names = {dtype: name for name, dtype in DTYPES.items()}
    for name, value in add.items():
        size = value.numel() * value.element_size()
        changed[name] = {"dtype": names[value.dtype], "shape": list(value.shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(changed, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _bytes_of(value: torch.Tensor) -> memoryview:
    return memoryview(value.cpu().contiguous().flatten().view(torch.uint8).numpy())


def _copy(source: BinaryIO, out: BinaryIO, count: int) -> None:
    while count:
        block = source.read(min(count, BLOCK_BYTES))
        out.write(block)
        count -= len(block)
