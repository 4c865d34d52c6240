"""A model's shapes, from its config.json or approximated from its parameter count, and the bytes they take.

Nothing here loads weights: parameter counts come from the headers of the safetensors files.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import ZooError


@dataclass(frozen=True)
class Shapes:
    """What memory depends on. `exact` is false where only the parameter count was known."""

    parameters: int
    unquantized: int  # embeddings and head, which AWQ leaves in 16 bit
    kv_bytes_per_token: int  # keys and values of all layers, 16 bit
    exact: bool
    linear_inputs: tuple[int, ...] = ()  # input sizes of the linear layers: AWQ's groups must divide them
    max_tokens: int | None = None  # context length


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder, the text model's own part where it is nested. ZooError where there is none."""
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ZooError(f"{path}: no such file; give the folder of a model saved by `save_pretrained`") from None
    except (OSError, ValueError) as error:
        raise ZooError(f"{path}: not a model's config ({str(error).splitlines()[0]})") from error
    if not isinstance(config, dict):
        raise ZooError(f"{path}: not a model's config (a JSON {type(config).__name__}, not an object)")
    return config


def count_parameters(folder: Path) -> int:
    """Parameters of a model folder by its safetensors headers (8 bytes of length, then JSON). ZooError where there are none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ZooError(f"{folder}: no *.safetensors files; save the weights in that format")
    return sum(_parameters_of(path) for path in files)


def _parameters_of(path: Path) -> int:
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > path.stat().st_size:
                raise ValueError("header longer than the file")
            header = json.loads(file.read(size))
        return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ZooError(f"{path}: not a safetensors file ({error}); copy it again") from error


def shapes_of_config(config: dict[str, Any], parameters: int) -> Shapes:
    """Exact shapes of a decoder from its config. ZooError names a key that is missing."""
    try:
        hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
        vocabulary = config["vocab_size"]
    except KeyError as error:
        raise ZooError(f"config.json: key {error} is missing; only decoders with Llama-like configs are supported") from error
    head_size = config.get("head_dim") or hidden // heads
    kv_heads = config.get("num_key_value_heads") or heads
    intermediate = config.get("intermediate_size") or 4 * hidden
    return Shapes(
        parameters=parameters,
        unquantized=vocabulary * hidden * (1 if config.get("tie_word_embeddings", True) else 2),
        kv_bytes_per_token=2 * layers * kv_heads * head_size * 2,
        exact=True,
        linear_inputs=tuple(sorted({hidden, intermediate, heads * head_size})),
        max_tokens=config.get("max_position_embeddings"),
    )


def approximate_shapes(parameters: int, architecture: str) -> Shapes:
    """Shapes of a usual decoder with that many parameters, erring on the large side.

    Body of 12 h^2 parameters a layer and h / 128 layers gives the hidden size h = (parameters * 128 / 12)^(1/3); embedding and
    head are 2 * 128,000 * h, at most a quarter of all (small models tie them); four query heads share a key head, and
    Gemma's heads are twice as wide. AWQ bytes against the true shapes: Llama 3 8B +2 %, Gemma 2 9B +6 %, Yi 34B +7 %.
    """
    hidden = (parameters * 128 / 12) ** (1 / 3)
    wide = 2.0 if architecture.startswith("Gemma") else 1.0
    return Shapes(
        parameters=parameters,
        unquantized=round(min(2 * 128_000 * hidden, parameters / 4)),
        kv_bytes_per_token=round(wide * hidden**2 / 128),
        exact=False,
    )


def awq_bytes(shapes: Shapes, group_size: int) -> int:
    """Bytes of a 4-bit AWQ checkpoint: a 16-bit scale and a 4-bit zero for each group of weights, 16 bit for the rest."""
    bits = 4 + (16 + 4) / group_size
    return round((shapes.parameters - shapes.unquantized) * bits / 8 + 2 * shapes.unquantized)
