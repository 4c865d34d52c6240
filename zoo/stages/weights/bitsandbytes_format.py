"""Weights that bitsandbytes packed (NF4, FP4, LLM.int8), dequantized by itself.

A 4-bit weight NAME has NAME.absmax, NAME.quant_map and NAME.quant_state.bitsandbytes__nf4 (or fp4: JSON as bytes) beside it,
maybe in another file; double quantization adds NAME.nested_absmax and NAME.nested_quant_map. Of an int8 MODULE.weight,
MODULE.SCB has each row's largest value. vLLM 0.32 loads none of these.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zoo.errors import ZooError, printable
from zoo.stages.weights.foreign_tensors import tensors_by_file

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
SCALES = "SCB"
FOUR_BITS = re.compile(r"(.+)\.((?:nested_)?absmax|(?:nested_)?quant_map|quant_state\..+)")
EIGHT_BITS = re.compile(r"(.+)\.(SCB|weight_format)")
LAYER = re.compile(r"(.*\blayers\.\d+)\.")
# What bitsandbytes 0.50 dequantizes. Its kernels for processors trust all counts, so that each is checked here.
BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
TYPES = ("nf4", "fp4")
STATE_KEYS = {"quant_type", "blocksize", "dtype", "shape", "nested_blocksize", "nested_dtype", "nested_offset"}
MOST_STATE_BYTES = 1 << 16
MEND = "save it again where it was made, or copy it again"


@dataclass(frozen=True)
class _Part:
    path: Path
    key: str
    tensor: torch.Tensor

    def fault(self, what: str) -> ZooError:
        return ZooError(f"{self.path}: {printable(self.key)[:120]}: {what}; {MEND}")


def dequantized(folder: Path, config: Mapping[str, Any]) -> tuple[Iterator[tuple[Path, dict[str, torch.Tensor]]], int]:
    """The tensors of a folder in pieces, and how many there are.

    A piece is a layer, or what is of none, in one file: so much is in memory at a time. A 4-bit weight has the dtype that it
    was packed from, an int8 one that of config.json. ZooError for what is not whole.
    """
    parts: dict[str, dict[str, _Part]] = {}
    pieces: dict[Path, dict[str, list[str]]] = {}
    for path, found in tensors_by_file(folder):
        pieces[path] = {}
        for name in found:
            if four := FOUR_BITS.fullmatch(name):
                parts.setdefault(four[1], {})[four[2]] = _Part(path, name, found[name].clone())
            elif eight := EIGHT_BITS.fullmatch(name):
                parts.setdefault(f"{eight[1]}.weight", {})[eight[2]] = _Part(path, name, found[name].clone())
            else:
                layer = LAYER.match(name)
                pieces[path].setdefault(layer[1] if layer else "", []).append(name)
    names = {name for layers in pieces.values() for own in layers.values() for name in own}
    if not parts:
        raise ZooError(f"{folder}: config.json says bitsandbytes, and no weight has {SCALES} or a quant_state; {MEND}")
    if lost := next((part for name, own in parts.items() for part in own.values() if name not in names), None):
        raise lost.fault("is of a weight that is not in the folder")
    dtype = DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")), torch.float16)
    return _values(folder, pieces, parts, dtype), sum(map(len, pieces.values()))


def _values(
    folder: Path, pieces: Mapping[Path, Mapping[str, list[str]]], parts: Mapping[str, Mapping[str, _Part]], dtype: torch.dtype
) -> Iterator[tuple[Path, dict[str, torch.Tensor]]]:
    for path, found in tensors_by_file(folder):
        for names in pieces[path].values():
            yield path, {name: _value(_Part(path, name, found[name]), parts.get(name, {}), dtype) for name in names}


def _value(weight: _Part, parts: Mapping[str, _Part], dtype: torch.dtype) -> torch.Tensor:
    """A weight as a layer multiplies by it; one that was never packed as it is."""
    if weight.tensor.dtype == torch.int8 or SCALES in parts:
        return _of_eight_bits(weight, parts).to(dtype)
    is_column = weight.tensor.dim() == 2 and weight.tensor.shape[1] == 1  # 4-bit values may be stored as bfloat16, too
    if parts or weight.tensor.dtype == torch.uint8 or is_column:
        return _of_four_bits(weight, parts)
    return weight.tensor


def _of_eight_bits(weight: _Part, parts: Mapping[str, _Part]) -> torch.Tensor:
    from bitsandbytes.functional import int8_vectorwise_dequant

    if weight.tensor.dtype != torch.int8 or weight.tensor.dim() != 2:
        raise weight.fault(f"is {_form(weight.tensor)}, where {SCALES} is of an int8 matrix")
    if SCALES not in parts:
        raise weight.fault(f"is int8, and {weight.key.removesuffix('weight')}{SCALES} is not in the folder")
    layout = parts.get("weight_format")
    if layout is not None and layout.tensor.any():
        raise layout.fault("is not 0 (row by row): an old layout of one kind of GPU")
    scales = _checked(parts[SCALES], weight.tensor.shape[0]).float()
    value: torch.Tensor = int8_vectorwise_dequant(weight.tensor, scales)
    return value


def _of_four_bits(weight: _Part, parts: Mapping[str, _Part]) -> torch.Tensor:
    from bitsandbytes.functional import QuantState, dequantize_4bit

    key, state = _state(weight, parts)
    count, blocks = math.prod(state["shape"]), -(-math.prod(state["shape"]) // state["blocksize"])
    if weight.tensor.numel() * weight.tensor.element_size() != -(-count // 2):
        raise weight.fault(f"is {_form(weight.tensor)}, which is not {state['shape']} of 4 bits, as {key} says")
    is_nested = state.get("nested_blocksize") is not None
    wanted = {"absmax": blocks, "quant_map": 16}
    wanted |= {"nested_absmax": -(-blocks // state["nested_blocksize"]), "nested_quant_map": 256} if is_nested else {}
    given: dict[str, Any] = {}
    for part, length in wanted.items():
        if part not in parts:
            raise weight.fault(f"is of 4 bits, and {weight.key}.{part} is not in the folder")
        given[part] = _checked(parts[part], length, packed=is_nested and part == "absmax")
    # With only some parts of a double quantization the weight would be dequantized to other values.
    if more := next((parts[part] for part in parts if part not in wanted and not part.startswith("quant_state")), None):
        raise more.fault(f"is of double quantization, of which {key} says nothing")
    quant_state = QuantState.from_dict(given | state, torch.device("cpu"))
    value: torch.Tensor = dequantize_4bit(weight.tensor.contiguous(), quant_state)
    return value


def _checked(part: _Part, length: int, *, packed: bool = False) -> torch.Tensor:
    """A part's tensor. ZooError unless it is of so many finite numbers, or of as many bytes where it is packed itself."""
    tensor = part.tensor
    if tensor.numel() != length or (tensor.dtype != torch.uint8 if packed else not tensor.is_floating_point()):
        raise part.fault(f"is {_form(tensor)}, where {length} values of {'uint8' if packed else 'float32'} belong")
    if not packed and not torch.isfinite(tensor).all():
        raise part.fault("holds values that are no numbers")
    return tensor if packed else tensor.float().flatten()


def _state(weight: _Part, parts: Mapping[str, _Part]) -> tuple[str, dict[str, Any]]:
    """The key and the content of a 4-bit weight's quant_state, each value as bitsandbytes takes it."""
    found = [part for name, part in parts.items() if name.startswith("quant_state.")]
    if len(found) != 1:
        told = "several are" if found else "is not"
        raise weight.fault(f"is of 4 bits, and {weight.key}.quant_state.bitsandbytes__nf4 (or fp4) {told} in the folder")
    (part,) = found
    kind = part.key.rpartition(".")[2].removeprefix("bitsandbytes__")
    if kind not in TYPES:
        raise part.fault(f"is of an unknown type; {' and '.join(TYPES)} are read")
    try:
        if part.tensor.dtype != torch.uint8 or part.tensor.numel() > MOST_STATE_BYTES:
            raise ValueError
        state = json.loads(bytes(part.tensor.flatten().tolist()))
    except (ValueError, RecursionError):
        raise part.fault("is no JSON as bytes") from None
    if not isinstance(state, dict) or not state.keys() <= STATE_KEYS:
        raise part.fault(f"is no object of {', '.join(sorted(STATE_KEYS))}")
    sizes, nested, offset = state.get("shape"), state.get("nested_blocksize"), state.get("nested_offset")
    is_whole = {
        "quant_type": state.get("quant_type") == kind,
        "blocksize": type(state.get("blocksize")) is int and state["blocksize"] in BLOCK_SIZES,
        "dtype": str(state.get("dtype")) in DTYPES,
        "shape": isinstance(sizes, list) and len(sizes) == 2 and all(type(n) is int and 0 < n < 2**31 for n in sizes),
        "nested_blocksize": nested is None or (type(nested) is int and 0 < nested < 2**31),
        "nested_dtype": nested is None or str(state.get("nested_dtype")) in DTYPES,
        "nested_offset": nested is None or (isinstance(offset, int | float) and abs(offset) < 2**31),
    }
    if wrong := next((name for name, good in is_whole.items() if not good), None):
        raise part.fault(f"{wrong} = {printable(json.dumps(state.get(wrong)))[:60]}, which bitsandbytes 0.50 does not know")
    return part.key, state


def _form(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
