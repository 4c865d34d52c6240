"""Tensors that other trainers left, under today's names of transformers and peft."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from zoo.errors import ZooError, printable
from zoo.models.foreign import HEADS, MERGE_IT, weight_files
from zoo.models.heads import SCORE
from zoo.stages.weights.low_rank import MAGNITUDE, PREFIX

# What wrappers put before a name: torch.compile, DDP, peft.
WRAPPERS = ("_orig_mod.", "module.", PREFIX)
SAVED, ORIGINAL, WRAPPED = ".modules_to_save.default.", ".original_module.", ".base_layer."
BARE = ("embed_tokens.", "layers.", "norm.")  # of a body that was saved without its head: names without `model.`


def tensors_by_file(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Each file of a folder's weights with its tensors by name.

    Of torch's own files nothing but tensors is unpickled; values of safetensors are read when they are asked for. ZooError for
    a file that holds anything else.
    """
    for path in weight_files(folder):
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, "pt") as file:
                    yield path, _Lazy(file)
            except SafetensorError as error:
                raise ZooError(f"{path}: not a safetensors file ({str(error)[:100]}); copy it again") from error
        else:
            yield path, unpickled(path)


class _Lazy(Mapping[str, torch.Tensor]):
    """The tensors of an open safetensors file."""

    def __init__(self, file: Any) -> None:
        self._file, self._names = file, list(file.keys())

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def unpickled(path: Path) -> Mapping[str, torch.Tensor]:
    """The tensors of a file of torch's by name.

    Of the pickle nothing but tensors and plain containers is made. ZooError for one that holds anything else, or none.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, AttributeError, OSError) as error:
        raise ZooError(
            f"{path}: holds more than tensors, or is damaged; where it was trained, save it as safetensors "
            f"({type(error).__name__})"
        ) from error
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not found or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ZooError(f"{path}: is no dictionary of tensors; where it was trained, save it as safetensors")
    return found


def unwrapped(name: str) -> str | None:
    """The name of a whole model's tensor without what wrappers added.

    None for one that is there twice; ZooError for an adapter's.
    """
    while prefix := next((prefix for prefix in WRAPPERS if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    if ".lora_" in name:
        raise ZooError(f"{printable(name)[:80]}: an adapter's tensor in a whole model; {MERGE_IT}")
    if ORIGINAL in name:
        return None
    return name.replace(SAVED, ".").replace(WRAPPED, ".")


def model_name(name: str) -> str | None:
    """The name of a decoder's tensor in transformers; None for one that is there twice.

    ZooError for an adapter's.
    """
    bare = unwrapped(name)
    if bare is None:
        return None
    return f"model.{bare}" if bare.startswith(BARE) else _head_name(bare)


def adapter_name(name: str) -> str | None:
    """The name of an adapter's tensor in peft today; None for one that is the base's.

    ZooError for what is not merged.
    """
    bare = name
    while prefix := next((prefix for prefix in WRAPPERS if bare.startswith(prefix)), None):
        bare = bare.removeprefix(prefix)
    if ORIGINAL in bare or WRAPPED in bare:
        return None
    bare = _head_name(bare.replace(SAVED, "."))
    if bare == SCORE:
        return PREFIX + SCORE
    if MAGNITUDE in bare:
        return PREFIX + bare.partition(MAGNITUDE)[0] + MAGNITUDE
    found = re.fullmatch(r"([\w.]+\.lora_[AB])(\.default)?\.weight", bare)  # peft takes names for patterns
    if not found:
        raise ZooError(f"{printable(name)[:80]}: is not of LoRA, DoRA or a classifier's head; {MERGE_IT}")
    return f"{PREFIX}{found[1]}.weight"


def _head_name(name: str) -> str:
    """A classifier's layer is `score` in all models that are served as one."""
    module, _, last = name.rpartition(".")
    return f"score.{last}" if module in HEADS else name
