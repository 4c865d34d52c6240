"""Checkpoint formats: packing, dequantized weights and their errors.

Any engine loads the plain copy that is written here. Layouts: autoawq's GEMM, and compressed-tensors' "pack-quantized",
"int-quantized" and "float-quantized". Tensors' names tell which.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from zoo.errors import ZooError
from zoo.stages.device import device
from zoo.stages.quantize.layerwise import Weights, write_index

PARTS = ("qweight", "qzeros", "scales")
PACKED_PARTS = ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape")
# Order of the eight 4-bit values in an int32 of the GEMM layout: value i is output column 8 * word + AWQ_ORDER[i] (AutoAWQ,
# awq/utils/packing_utils.py).
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def pack(values: torch.Tensor) -> torch.Tensor:
    """Pack integers 0..15 (rows, columns) as int32 (rows, columns / 8).

    Eight columns a word in AWQ's order.
    """
    columns = values.unflatten(1, (-1, 8))
    words = columns[..., AWQ_ORDER[0]]
    for i, column in enumerate(AWQ_ORDER[1:], start=1):
        words = words | columns[..., column] << 4 * i
    return words.contiguous()


def dequantize(qweight: torch.Tensor, qzeros: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Weight (out, in) in float32 of a GEMM-layout triple.

    (q - zero) * scale, an own reading of the layout. qweight is (in, out / 8) int32, qzeros (groups, out / 8) int32, scales
    (groups, out).
    """
    shifts = torch.tensor([4 * AWQ_ORDER.index(column) for column in range(8)], dtype=torch.int32, device=qweight.device)

    def unpack(packed: torch.Tensor) -> torch.Tensor:
        """(rows, out / 8) -> (out, rows)."""
        return ((packed.T.contiguous().unsqueeze(1) >> shifts.unsqueeze(1)) & 15).flatten(0, 1)

    grouped = unpack(qweight).unflatten(1, (scales.shape[0], -1))
    centred = (grouped - unpack(qzeros).unsqueeze(-1)).float()
    return (centred * scales.float().T.unsqueeze(-1)).flatten(1)


def dequantize_packed(
    packed: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None, shape: tuple[int, int]
) -> torch.Tensor:
    """Weight (out, in) in float32 of compressed-tensors' 4-bit "pack-quantized" layout.

    An own reading of it. `packed` is (out, in / 8) int32, `scale` (out, groups), `zero_point` (out / 8, groups) int32, None
    where symmetric. Value i of a word, from its lowest bits, is column (of zero points: row) 8 * word + i; all are stored plus
    8, which cancels out.
    """
    shifts = torch.arange(0, 32, 4, dtype=torch.int32, device=packed.device)
    values = ((packed.unsqueeze(-1) >> shifts) & 15).flatten(1)[:, : shape[1]]
    zeros = torch.full_like(scale, 8, dtype=torch.int32)
    if zero_point is not None:
        zeros = ((zero_point.unsqueeze(1) >> shifts[:, None]) & 15).flatten(0, 1)[: shape[0]]
    group_size = shape[1] // scale.shape[1]
    centred = values - zeros.repeat_interleave(group_size, dim=1)
    return centred.float() * scale.float().repeat_interleave(group_size, dim=1)


def read_dequantized(weights: Weights, module: str, place: torch.device | str = "cpu") -> torch.Tensor | None:
    """A module's weight (out, in) in float32, by the layout that its tensors' names tell.

    None where it is not quantized.
    """
    if f"{module}.qweight" in weights:
        return dequantize(*(weights.read(f"{module}.{part}").to(place) for part in PARTS))
    if f"{module}.weight_packed" not in weights:
        return _read_eight_bits(weights, module, place)
    packed, scale, zeros, shape = (f"{module}.{part}" for part in PACKED_PARTS)
    out_size, in_size = weights.read(shape).tolist()
    zero_point = weights.read(zeros).to(place) if zeros in weights else None
    return dequantize_packed(weights.read(packed).to(place), weights.read(scale).to(place), zero_point, (out_size, in_size))


def _read_eight_bits(weights: Weights, module: str, place: torch.device | str) -> torch.Tensor | None:
    """The same of compressed-tensors' 8 bit layouts: int8 or e4m3 (out, in) with a scale (out, 1)."""
    if f"{module}.weight_scale" not in weights:
        return None
    return weights.read(f"{module}.weight").to(place).float() * weights.read(f"{module}.weight_scale").to(place).float()


def weight_errors(source: Path, target: Path) -> dict[str, float]:
    """Relative error of each quantized weight, up to AWQ's channel scaling.

    ||dequantized - original|| / ||original||.

    AWQ moves a scale per input channel from a weight into the layer before it, so each dequantized weight is compared after
    the least-squares scale per input channel. Shapes and finiteness are checked on the way.
    """
    quantized, original, errors = Weights(target), Weights(source), {}
    for name in original:
        module = name.removesuffix(".weight")
        restored = read_dequantized(quantized, module, device())
        if restored is not None:
            errors[module] = channel_error(original.read(name).to(restored.device).float(), restored, name)
    if not errors:
        raise ZooError(f"{target}: no weight was quantized; this architecture's layers are not what the backend expects")
    return errors


def channel_error(original: torch.Tensor, restored: torch.Tensor, name: str) -> float:
    """Relative Frobenius error after the best scale for each input channel.

    ZooError where the restored weight is broken.
    """
    if restored.shape != original.shape or not torch.isfinite(restored).all():
        raise ZooError(f"{name}: quantized weight is {tuple(restored.shape)} or not finite; remove the folder and run again")
    scale = (original * restored).sum(0) / (restored * restored).sum(0).clamp_min(1e-12)
    return float((restored * scale - original).norm() / original.norm().clamp_min(1e-12))


def write_dequantized(source: Path, target: Path) -> None:
    """A float32 copy of a quantized model folder without quantization.

    It holds what the checkpoint says, for an engine that is exact.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file() and path.suffix != ".safetensors":
            shutil.copy2(path, target / path.name)
    config = json.loads((source / "config.json").read_text())
    config.pop("quantization_config")
    (target / "config.json").write_text(json.dumps({**config, "dtype": "float32"}, indent=1))
    weights = Weights(source)
    for path in sorted(source.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            names = list(file.keys())
        plain = {name: weights.read(name).float() for name in names if not name.endswith(PARTS + PACKED_PARTS)}
        for module in {name.rpartition(".")[0] for name in names}:
            restored = read_dequantized(weights, module)
            if restored is not None:
                plain[f"{module}.weight"] = restored
        if plain:
            save_file(plain, target / path.name, metadata={"format": "pt"})
    write_index(target)
