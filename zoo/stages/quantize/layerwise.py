"""A model layer by layer: one of them in memory at a time."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from zoo.models.shapes import read_config, shape_of_config
from zoo.stages import progress
from zoo.stages.device import attention_options, device

INDEX = "model.safetensors.index.json"


class Weights:
    """Tensors of a model folder's safetensors files by name, read one at a time."""

    def __init__(self, folder: Path, pattern: str = "*.safetensors") -> None:
        files = [safe_open(path, "pt") for path in sorted(folder.glob(pattern))]
        self._files = {name: file for file in files for name in file.keys()}  # noqa: SIM118 (safe_open is not a mapping)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def read(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._files[name].get_tensor(name)
        return tensor

    def under(self, prefix: str, dtype: torch.dtype, place: torch.device) -> dict[str, torch.Tensor]:
        """The tensors below a module, by their names in it, in `dtype` on a device.

        The device converts them.
        """
        return {name.removeprefix(prefix): self.read(name).to(place).to(dtype) for name in self if name.startswith(prefix)}


class LayerwiseModel:
    """A transformers model whose decoder layers have no weights until they are read.

    `prefix` is the layers' name in the files, e.g. `model.layers.`; embedding, norms and buffers are there from the start, the
    head is not: nothing runs it. What is no layer is written as it was read, a classifier too.
    """

    def __init__(self, source: Path, dtype: torch.dtype) -> None:
        from accelerate import init_empty_weights
        from transformers import AutoConfig, AutoModelForCausalLM

        self.source, self.dtype, self.weights = source, dtype, Weights(source)
        config = AutoConfig.from_pretrained(source)
        with init_empty_weights(include_buffers=False):
            self.model = AutoModelForCausalLM.from_config(config, dtype=dtype, **attention_options(source)).eval()
        self.model.config.use_cache = False
        decoder = getattr(self.model, self.model.base_model_prefix)
        self.layers: torch.nn.ModuleList = decoder.layers
        self.prefix = next(name for name, module in self.model.named_modules() if module is self.layers) + "."
        for name, parameter in list(self.model.named_parameters()):
            if not name.startswith(self.prefix) and name in self.weights and not name.startswith("lm_head."):
                owner, _, last = name.rpartition(".")
                value = torch.nn.Parameter(self.weights.read(name).to(dtype), requires_grad=parameter.requires_grad)
                setattr(self.model.get_submodule(owner), last, value)

    @property
    def head_dim(self) -> int:
        return shape_of_config(read_config(self.source)).head_dim

    def linear_names(self) -> list[str]:
        """The linear layers of a decoder layer, by their names in it."""
        return [name for name, module in self.layers[0].named_modules() if isinstance(module, torch.nn.Linear)]

    def linear_sizes(self) -> dict[str, int]:
        """Weights of each of them."""
        return {name: self.layers[0].get_submodule(name).weight.numel() for name in self.linear_names()}

    def stored_dtype(self, number: int) -> torch.dtype:
        """The dtype that a layer's first tensor has in the files."""
        return self.weights.read(next(name for name in self.weights if name.startswith(f"{self.prefix}{number}."))).dtype

    def load(self, number: int) -> None:
        """Read a layer's weights, onto the GPU where there is one."""
        tensors = self.weights.under(f"{self.prefix}{number}.", self.dtype, device())
        self.layers[number].load_state_dict(tensors, assign=True)

    def write(self, number: int, target: Path) -> None:
        """Write a layer as it is now to a file of its own, and forget it.

        What was not quantized is written in the dtype it had.
        """
        tensors = {f"{self.prefix}{number}.{name}": value for name, value in self.layers[number].state_dict().items()}
        kept = {
            name: value.to(self.weights.read(name).dtype) if name in self.weights else value for name, value in tensors.items()
        }
        save_file(
            {name: value.cpu().contiguous() for name, value in kept.items()},
            target / f"model-{number:05d}.safetensors",
            metadata={"format": "pt"},
        )
        self.drop(number)

    def drop(self, number: int) -> None:
        """Forget a layer's weights."""
        self.layers[number] = self.layers[number].to("meta")
        gc.collect()

    def turns(self, numbers: Iterable[int], target: Path) -> Iterator[int]:
        """Each number in turn, its layer read before and written after.

        The first layer is there already.
        """
        with progress.bar(len(self.layers), "quantize", "layer") as bar:
            for number in numbers:
                if number:
                    self.load(number)
                yield number
                self.write(number, target)
                bar.update()

    def finish(
        self, target: Path, quantization: dict[str, Any], dtype: torch.dtype | None = None, more: dict[str, Any] | None = None
    ) -> None:
        """What is no layer, the index over all files, and the configuration.

        `dtype`: what it says of weights that are not quantized, by default the one that was computed in; `more`: further keys.
        """
        ends = {name: self.weights.read(name) for name in self.weights if not name.startswith(self.prefix)}
        save_file(ends, target / "model-ends.safetensors", metadata={"format": "pt"})
        config = json.loads((self.source / "config.json").read_text())
        named = str(dtype or self.dtype).removeprefix("torch.")
        config |= {"quantization_config": quantization, "dtype": named, **(more or {})}
        (target / "config.json").write_text(json.dumps(config, indent=1))
        write_index(target)


def write_index(folder: Path) -> None:
    """Write `model.safetensors.index.json` over a folder's files.

    Without it transformers takes one file for the model.
    """
    places: dict[str, str] = {}
    size = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            places |= dict.fromkeys(file.keys(), path.name)
        size += path.stat().st_size
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": places}, indent=1))
