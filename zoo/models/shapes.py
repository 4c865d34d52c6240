"""A model's shape: parameters, bytes of weights and of the KV cache, operations.

A shape comes from an entry's `[shape]` or a folder's config.json; parameters are counted from safetensors headers.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.contracts import LABELS, Head, QuantizeSpec, Shape, changed
from zoo.errors import ZooError
from zoo.models.config_defaults import completed, is_tied
from zoo.models.encoders import encoder_of
from zoo.models.heads import head_of
from zoo.reading import parse_json, read_head, read_json_object

GPU_BLOCK_TOKENS = 16  # vLLM's unit of keys and values on a GPU
CPU_BLOCK_TOKENS = 128  # and on a CPU
MOST = 2**40  # no size of a model comes near
MOST_HEADER_BYTES = 100_000_000  # that safetensors itself takes
SCHEME_KEY = "zoo_scheme"  # of config.json: the form of a checkpoint that this project quantized other than to AWQ
SHOWN = 60  # characters of a value in a message


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder, as it stands.

    What it means by keys that it leaves out: `zoo.models.config_defaults`. ZooError where there is none.
    """
    path = folder / "config.json"
    if not os.path.lexists(path):
        raise ZooError(f"{path}: no such file; give the folder of a model saved by `save_pretrained`")
    return read_json_object(path, mend="copy the model's config again")


def first_architecture(config: dict[str, Any], folder: Path) -> str:
    """The class that the weights of a model folder were saved from, by its config.

    ZooError where none is named.
    """
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise ZooError(
            f"{folder / 'config.json'}: no `architectures`, a list of names; add the class the weights were saved from"
        )
    return names[0]


def shape_of_config(config: dict[str, Any]) -> Shape:
    """The shape of a decoder or an encoder from its config.json.

    What it leaves out is as its family has it. ZooError names a key that is missing, or that is no size.
    """
    config = completed(config)
    sizes = {key: _size(config, key) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")}
    missing = next((key for key, size in sizes.items() if size is None), None)
    if missing:
        raise ZooError(
            f"config.json: key {missing!r} is missing; only encoders, and decoders with Llama-like configs, are supported"
        )
    hidden, layers, heads, vocabulary = (size or 0 for size in sizes.values())
    head_dim = _size(config, "head_dim") or hidden // heads
    if head_dim == 0:
        raise ZooError(f"config.json: {heads} attention heads for a hidden size of {hidden}; copy the model's config again")
    cap = config.get("attn_logit_softcapping")
    if cap is not None and not (isinstance(cap, int | float) and 0 < cap < MOST):
        raise ZooError(f"config.json: `attn_logit_softcapping` is no number above 0 ({_shown(cap)}); copy the config again")
    classifier, encoder = head_of(config) == "classifier", encoder_of(config)
    longest = _size(config, "max_position_embeddings")
    if longest and encoder == "Roberta":  # its positions begin behind the padding token's
        longest -= 1 + (_size(config, "pad_token_id") or 1)
    return Shape(
        hidden_size=hidden,
        intermediate_size=_size(config, "intermediate_size") or 4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=_size(config, "num_key_value_heads") or heads,
        head_dim=head_dim,
        vocab_size=vocabulary,
        classes=len(LABELS) if classifier else None,
        max_position_embeddings=longest,
        # A classifier has no second matrix.
        tie_word_embeddings=classifier or encoder is not None or is_tied(config),
        attn_logit_softcapping=cap,
        encoder=encoder,
        position_buckets=_size(config, "position_buckets") if encoder == "DebertaV2" else None,
    )


def _size(config: dict[str, Any], key: str) -> int | None:
    """A whole number from 1 of a config; None where the key is absent or null.

    ZooError where it is anything else.
    """
    found = config.get(key)
    if found is None:
        return None
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 < found < MOST:
        raise ZooError(f"config.json: `{key}` is no size ({_shown(found)}); copy the model's config again")
    return found


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def count_parameters(folder: Path) -> int:
    """Parameters of a model folder by its safetensors headers (8 bytes of length, then JSON).

    ZooError where there are none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ZooError(f"{folder}: no *.safetensors files; save the weights in that format")
    found = sum(_parameters_of(path) for path in files)
    if not found:
        raise ZooError(f"{folder}: its *.safetensors files hold no weights; copy the model again")
    return found


def tensor_shapes(folder: Path, pattern: str = "*.safetensors") -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a folder's safetensors files by name, from their headers alone."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob(pattern)):
        for name, tensor in _header(path).items():
            _tensor_parameters(path, name, tensor)
            found[name] = tuple(tensor["shape"])
    return found


def _parameters_of(path: Path) -> int:
    return sum(_tensor_parameters(path, name, tensor) for name, tensor in _header(path).items())


def _header(path: Path) -> dict[str, Any]:
    """The tensors in the header of a safetensors file."""
    mend = "not a safetensors file; copy it again"
    head = read_head(path, 8, mend=mend)
    size = int.from_bytes(head, "little")
    if len(head) < 8 or size > MOST_HEADER_BYTES:
        raise ZooError(f"{path}: not a safetensors file (header longer than the file); copy it again")
    data = read_head(path, 8 + size, mend=mend)[8:]
    if len(data) < size:
        raise ZooError(f"{path}: not a safetensors file (header longer than the file); copy it again")
    header = parse_json(data, path, mend=mend)
    if not isinstance(header, dict):
        raise ZooError(f"{path}: not a safetensors file (its header is no object); copy it again")
    return {name: tensor for name, tensor in header.items() if name != "__metadata__"}


def _tensor_parameters(path: Path, name: str, tensor: Any) -> int:
    shape = tensor.get("shape") if isinstance(tensor, dict) else None
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < MOST for size in shape) or len(shape) > 8:
        raise ZooError(f"{path}: not a safetensors file (the shape of {name[:SHOWN]!r}: {_shown(shape)}); copy it again")
    return math.prod(shape)


# --- parameters -------------------------------------------------------------------------------------------------------


def linear_layers(shape: Shape) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of the linear layers of a layer, by transformers' names."""
    if shape.encoder:
        return _encoder_layers(shape)
    queries = shape.num_attention_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    return {
        "q_proj": (shape.hidden_size, queries),
        "k_proj": (shape.hidden_size, keys),
        "v_proj": (shape.hidden_size, keys),
        "o_proj": (queries, shape.hidden_size),
        "gate_proj": (shape.hidden_size, shape.intermediate_size),
        "up_proj": (shape.hidden_size, shape.intermediate_size),
        "down_proj": (shape.intermediate_size, shape.hidden_size),
    }


def _encoder_layers(shape: Shape) -> dict[str, tuple[int, int]]:
    """The same of an encoder.

    ModernBERT's feed-forward part is gated, that of the others has two matrices.
    """
    hidden, wide = shape.hidden_size, shape.intermediate_size
    if shape.encoder == "ModernBert":
        return {"Wqkv": (hidden, 3 * hidden), "attn.Wo": (hidden, hidden), "Wi": (hidden, 2 * wide), "mlp.Wo": (wide, hidden)}
    suffix = "_proj" if shape.encoder == "DebertaV2" else ""
    attention = {f"{name}{suffix}": (hidden, hidden) for name in ("query", "key", "value")}
    feed_forward = {"intermediate.dense": (hidden, wide), "output.dense": (wide, hidden)}
    return {**attention, "attention.output.dense": (hidden, hidden), **feed_forward}


def linear_inputs(shape: Shape) -> tuple[int, ...]:
    """Input sizes of the linear layers, which AWQ's groups must divide."""
    return tuple(sorted({inputs for inputs, _ in linear_layers(shape).values()}))


def linear_parameters(shape: Shape) -> int:
    """Parameters that quantization touches.

    The linear layers of all layers (dense, not a mixture of experts).
    """
    return shape.num_hidden_layers * sum(inputs * outputs for inputs, outputs in linear_layers(shape).values())


def embedding_parameters(shape: Shape) -> int:
    """Parameters of the embedding, and of the output head where it is another matrix."""
    one = shape.vocab_size * shape.hidden_size
    if shape.classes:
        return one + shape.classes * shape.hidden_size
    return one * (1 if shape.tie_word_embeddings else 2)


def of_head(shape: Shape, head: Head) -> Shape:
    """The shape of a base with the head that an entry puts on it."""
    return shape if head == "labels" else changed(shape, classes=len(LABELS))


def with_head(parameters: int, shape: Shape) -> int:
    """Parameters of a base of so many with the head that its shape has.

    A classifier replaces the vocabulary's matrix, where that is not the embedding.
    """
    if not shape.classes or shape.encoder:  # an encoder's is there already, or of much the same size
        return parameters
    replaced = 0 if shape.tie_word_embeddings else shape.vocab_size * shape.hidden_size
    return parameters - replaced + shape.classes * shape.hidden_size


# --- bytes ------------------------------------------------------------------------------------------------------------


def awq_bits(group_size: int) -> float:
    """Bits a weight of a 4-bit AWQ layer: each group has a 16-bit scale and a 4-bit zero."""
    return 4 + (16 + 4) / group_size


def weight_bits(quantize: QuantizeSpec) -> float:
    """Bits a weight of a linear layer in a form, scales included.

    At most: of what may stay in 16 bits beside 8 bit activations all is counted.
    """
    if quantize.scheme == "awq":
        return awq_bits(quantize.group_size)
    bits = 4 + 16 / quantize.group_size if quantize.scheme == "w4a8" else 8.0
    return bits + quantize.most_finer * (16 - bits)


def quantized_bytes(shape: Shape, parameters: int, bits: float) -> int:
    """Bytes of a quantized checkpoint of `parameters` in all: embedding and head stay in 16 bit."""
    rest = embedding_parameters(shape)
    return round((parameters - rest) * bits / 8 + 2 * rest)


def kv_bytes_per_token(shape: Shape, dtype_bytes: int = 2) -> int:
    """Bytes of one token's keys and values in all layers.

    2 x layers x key-value heads x head size x bytes each.
    """
    return 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim * dtype_bytes


def cached_tokens(
    *, max_batched_tokens: int, longest: int, max_seqs: int, block_tokens: int = GPU_BLOCK_TOKENS, batches: int = 1
) -> int:
    """Tokens in the KV cache when one position is read and nothing generated.

    One full batch, one longest row that is cut between two batches, and the unfilled end of each row's last block. With
    `batches` in flight, as in a pipeline of that many cards, each has its own.
    """
    return batches * (max_batched_tokens + max_seqs * block_tokens) + longest + 1


# --- operations -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of scoring a row of n tokens.

    per_row + per_token * n + per_token_sq * n**2. Each weight of a linear layer is one multiply and one add a token (Kaplan et
    al. 2020, arXiv 2001.08361, table 1); attention multiplies queries with keys and weights with values, 2 * 2 * heads * head
    size a pair and layer, and half of the pairs are masked. The head is computed at one position.
    """

    per_row: float
    per_token: float
    per_token_sq: float

    def split(self, totals: np.ndarray) -> np.ndarray:
        """Linear and attention operations (2,) of a file with `totals` (3,).

        Rows, tokens and tokens squared.
        """
        return np.array([self.per_row * totals[0] + self.per_token * totals[1], self.per_token_sq * totals[2]])


def flops_of_shape(shape: Shape) -> Flops:
    """Operations of a dense decoder with gated feed-forward layers, or of an encoder.

    Whatever its weights are stored in.
    """
    if shape.encoder:
        return _encoder_flops(shape)
    return Flops(
        per_row=2.0 * shape.hidden_size * (shape.classes or shape.vocab_size),
        per_token=2.0 * linear_parameters(shape),
        per_token_sq=2.0 * shape.num_hidden_layers * shape.num_attention_heads * shape.head_dim,
    )


def _encoder_flops(shape: Shape) -> Flops:
    """Operations of an encoder's pass, without padding.

    The product of hidden x hidden in its head is per row. No pair of tokens is masked: 2 * 2 * hidden a pair and layer.
    ModernBERT's local layers read 128 tokens (Warner et al. 2024, arXiv 2412.13663, section 2.1); torch's attention computes
    the others too, and masks them, and so does this count. DeBERTa multiplies each token's query and key with the 2 *
    `position_buckets` distances (He et al. 2020, arXiv 2006.03654, equations 4 and 5), 2 * 2 * hidden * 2 * buckets a token and
    layer; it projects these distances once a layer and row of a batch, which is left out.
    """
    hidden, layers = shape.hidden_size, shape.num_hidden_layers
    distances = 2 * (shape.position_buckets or 0)
    return Flops(
        per_row=2.0 * hidden * (hidden + (shape.classes or 0)),
        per_token=2.0 * linear_parameters(shape) + 4.0 * layers * hidden * distances,
        per_token_sq=4.0 * layers * hidden,
    )
