"""Memory of a GPU, by part: scoring with vLLM in each layout, training with QLoRA.

Arithmetic on shapes; nothing runs. Scoring counts what vLLM's Llama and Gemma code holds at once
(vllm/model_executor/models/llama.py, read at 0.32): in the feed-forward part of one layer that is the residual stream, the
layer's input and output, gate and up, and their product. Loading counts what vLLM unpacks of one matrix to change AWQ's order
of weights; nothing of a batch is there then. Calibrated against runs on one H100 and one H200 (benchmarks/gpu_chain.md); each
constant says what it stands for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.contracts import Shape, TrainSpec
from zoo.models.shapes import (
    cached_tokens,
    embedding_parameters,
    kv_bytes_per_token,
    linear_layers,
    linear_parameters,
    with_head,
)

GIB = 2**30
Layout = Literal["replicas", "pipeline", "tensor"]

# cuBLAS workspace, the model runner's buffers, rotary tables: what torch held of 10.35 GiB beyond the parts computed below.
WORKSPACE_BYTES = 2**27
# CUDA context, kernels, and what torch's allocator keeps unused: 12.5 GiB used by the 8B shape on an H200, less allocated.
CONTEXT_BYTES = 5 * 2**28
# Beside that on each card of a copy over several: NCCL's buffers and what its worker holds. The 34B shape over two H100 took
# 1.43 GiB more than the parts computed below as a pipeline, 1.17 with tensor parallelism (benchmarks/engine_versions.md).
COMMUNICATION_BYTES = 23 * 2**26
EVALUATION_TOKENS = 8192  # of a batch in transformers (zoo/stages/compare/in_transformers.py)
SCORE_BLOCK = 2**23  # soft-capped attention scores that training makes at once (zoo/stages/train/attention.py)
LOGIT_POSITIONS = 1024  # whose full-vocabulary logits training on text holds at once (zoo/stages/train/objectives.py)
GEMMA_NORMS = 4  # of a layer of Gemma 2 and 3; others have 2
UNFUSED_NORM = 10  # bytes a value: float32 input and normalized input, and the 16-bit product
LARGE_STATES = 2**26  # trained weights from which 8-bit optimizer states are worth their slower step: 512 MiB in 32 bits
# Peak of vLLM's _convert_awq_to_standard_format (layers/quantization/auto_awq.py) by the int32 size of the matrix that it
# unpacks: its values and their shifted copy, and the eighth that they are packed into.
CONVERSION_COPIES = 2.125
LOGIT_COPIES = 4  # float32 logits, their raw copy, the sampler's copy and its argmax (vllm/v1/sample/sampler.py)
# Scores, and those of content to position and of position to content as they are multiplied, gathered and added
# (DisentangledSelfAttention in transformers 5.19).
DEBERTA_SCORES = 6
# What a layer of DeBERTa-v3-base keeps of a pass, in bytes: a token and hidden unit (whole, and with adapters and dropout), and
# a head and pair of tokens, by autograd's own account under autocast to 16 bits, rows of 128 and 256 tokens. That had 6.6 a
# pair: the rest is for softmax, which is in float32 on a GPU. Other families' attention keeps no scores; else they are taken
# to keep as much.
ENCODER_KEPT, ENCODER_KEPT_ADAPTED, ENCODER_KEPT_SCORES = 81, 116, 11
# NF4 with double quantization: 4 bits, an 8-bit scale for 64 weights, a float32 scale for 256 of those (arXiv 2305.14314, 3).
NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)


@dataclass(frozen=True)
class CardMemory:
    """Bytes on the fullest card. `total` is what the card must have.

    `loading` and `serving` are torch's own peaks until the weights are as kernels read them, and from then on; `allocated` is
    the larger. `conversion` is what loading unpacks of one matrix, 0 where nothing is converted.
    """

    weights: int
    cache: int
    activations: int
    conversion: int = 0
    workspace: int = WORKSPACE_BYTES
    context: int = CONTEXT_BYTES

    @property
    def loading(self) -> int:
        return self.weights + self.conversion

    @property
    def serving(self) -> int:
        return self.weights + self.cache + self.activations + self.workspace

    @property
    def allocated(self) -> int:
        return max(self.loading, self.serving)

    @property
    def least(self) -> int:
        """What the card must have however small the batch."""
        return max(self.loading, self.weights + self.workspace) + self.context

    @property
    def total(self) -> int:
        return self.allocated + self.context


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on the one card that trains.

    States in 8 bits are paged: they may move to the host's memory.
    """

    base: int
    adapters: int
    optimizer: int
    checkpoints: int
    activations: int
    paged: bool
    logits: int = 0
    workspace: int = WORKSPACE_BYTES
    context: int = CONTEXT_BYTES

    @property
    def allocated(self) -> int:
        """What torch's own peak shows; paged optimizer states are not torch's."""
        return self.total - self.context - (self.optimizer if self.paged else 0)

    @property
    def total(self) -> int:
        passes = self.checkpoints + self.activations + self.logits + self.workspace
        return self.base + self.adapters + self.optimizer + passes + self.context


# --- scoring ----------------------------------------------------------------------------------------------------------


def scoring_memory(
    shape: Shape,
    *,
    parameters: int,
    bits: float,
    layout: Layout,
    gpus: int,
    max_batched_tokens: int,
    max_seqs: int,
    longest: int,
    kv_cache_bytes: int | None = None,
    converted: bool = True,
) -> CardMemory:
    """What quantized weights of a shape take on each card, with 16-bit activations.

    A copy of a layer's inputs in 8 bits is smaller than what was freed before it is made.

    `bits` of a linear layer's weight, scales included (`zoo.models.shapes.weight_bits`).
    `kv_cache_bytes`: of one card, where it is set. `converted`: whether vLLM brings the checkpoint's weights into another order
    (`zoo.checks.rules.awq_converted`).
    """
    parts = 1 if layout == "replicas" else gpus
    batch = max(max_batched_tokens, longest + 1)
    batches = parts if layout == "pipeline" else 1  # a card works on one while the next is under way
    tokens = cached_tokens(max_batched_tokens=batch, longest=longest, max_seqs=max_seqs, batches=batches)
    return CardMemory(
        weights=_weights(shape, with_head(parameters, shape), bits, layout, parts),
        cache=kv_cache_bytes or kv_bytes_per_token(shape) * tokens // parts,
        activations=_activations(shape, batch, max_seqs, layout, parts),
        conversion=_conversion(shape, parts if layout == "tensor" else 1) if converted else 0,
        context=CONTEXT_BYTES + (COMMUNICATION_BYTES if parts > 1 else 0),
    )


def encoder_memory(shape: Shape, *, parameters: int, max_batched_tokens: int, longest: int, wide: bool) -> CardMemory:
    """What an encoder takes of a card in transformers, in 16 bits, or `wide` in 32.

    Of one layer: the residual stream and a norm's output, queries, keys, values and context, the feed-forward part before and
    after its activation. DeBERTa's plain attention beside that holds `DEBERTA_SCORES` scores a head and pair of tokens. Not
    held against a card: nothing was measured.
    """
    batch, size = max(max_batched_tokens, longest), 4 if wide else 2
    layer = batch * (7 * shape.hidden_size + 3 * shape.intermediate_size)
    scores = DEBERTA_SCORES * batch * longest * shape.num_attention_heads if shape.encoder == "DebertaV2" else 0
    return CardMemory(weights=size * parameters, cache=0, activations=size * (layer + scores))


def _weights(shape: Shape, parameters: int, bits: float, layout: Layout, parts: int) -> int:
    """Bytes of the weights on the fullest card.

    Layers are shared out, whole or in slices; a pipeline's first and last card hold embedding and head, each a matrix.
    """
    rest = embedding_parameters(shape)
    layers = (parameters - rest) * bits / 8
    if layout == "pipeline" and parts > 1:
        deepest = -(-shape.num_hidden_layers // parts) / shape.num_hidden_layers
        return round(layers * deepest + 2 * shape.vocab_size * shape.hidden_size)
    return round((layers + 2 * rest) / parts)


def _activations(shape: Shape, batch: int, max_seqs: int, layout: Layout, parts: int) -> int:
    """Bytes of the activations that serving holds at once.

    The larger of the feed-forward part and attention in one layer, or the last hidden states with the sampler's logits.
    """
    slices = parts if layout == "tensor" else 1
    queries, keys = (heads * shape.head_dim for heads in (shape.num_attention_heads, shape.num_key_value_heads))
    feed_forward = 3 * shape.hidden_size + 3 * shape.intermediate_size // slices
    attention = 3 * shape.hidden_size + (2 * queries + 2 * keys) // slices
    # What the neighbour's card sends: hidden states and residual. Tensor parallel: the sum over cards is another tensor.
    passed = {"replicas": 0, "pipeline": 2 * shape.hidden_size, "tensor": shape.hidden_size}[layout] if parts > 1 else 0
    layer = 2 * batch * (max(feed_forward, attention) + passed)
    sampler = 2 * batch * shape.hidden_size + 4 * LOGIT_COPIES * max_seqs * (shape.classes or shape.vocab_size)
    return max(layer, sampler)


def _conversion(shape: Shape, slices: int) -> int:
    """Bytes of the largest matrix of a layer, unpacked.

    vLLM joins queries with keys and values, and gate with up.
    """
    sizes = {name: inputs * outputs for name, (inputs, outputs) in linear_layers(shape).items()}
    attention = sizes["q_proj"] + sizes["k_proj"] + sizes["v_proj"]
    largest = max(attention, sizes["gate_proj"] + sizes["up_proj"], sizes["o_proj"], sizes["down_proj"])
    return round(CONVERSION_COPIES * 4 * largest / slices)


# --- training ---------------------------------------------------------------------------------------------------------


def training_memory(shape: Shape, spec: TrainSpec, *, parameters: int, norms: int = 2, float16: bool = False) -> TrainingMemory:
    """What training one micro-batch takes on one card.

    `norms` of a layer are 2, in Gemma 2 and 3 they are 4, whose residual stream is in 32 bits where the 16 are `float16`. With
    checkpointing every layer is computed again, and embedding and head are in the host's memory, the least that training can do
    with; the layer that is gone back through takes what peft's layers keep: an upper bound for fused ones. Against torch's peak
    for the 8B shape: 9.3 GiB and 2.0 for embedding and head where 11.27 were measured (H100, rank 64, 8,192 tokens, peft's
    layers, both on the card). The loss of labels makes no full-vocabulary logits; those of a loss of text are added to all
    else, though with checkpointing they are gone before a layer is computed again.
    """
    parameters = with_head(parameters, shape)
    trained = parameters if spec.method == "full" else adapter_parameters(shape, spec)
    states, paged = optimizer_states(spec, trained)
    layers, tokens = shape.num_hidden_layers, spec.micro_batch_tokens
    again = kept_layer_bytes if shape.encoder else _full_bytes if spec.method == "full" else _unfused_bytes
    kept = again(shape, spec, norms) if spec.gradient_checkpointing else layers * kept_layer_bytes(shape, spec, norms, float16)
    inputs = layers * _residual_bytes(spec, norms, float16)
    return TrainingMemory(
        base=_base_bytes(shape, spec, parameters),
        adapters=8 * trained,  # float32 weights and gradients
        optimizer=states,
        checkpoints=inputs * shape.hidden_size * tokens if spec.gradient_checkpointing else 0,
        activations=kept * tokens,
        paged=paged,
        logits=_text_bytes(shape, spec) if spec.objective == "text" else 0,
    )


def evaluation_bytes(shape: Shape, parameters: int) -> int:
    """What evaluating a model in transformers takes of a card.

    It is read in 16 bits, and nothing is kept for a backward pass. Of one layer: the residual stream, a norm's float32 input
    and product, queries, keys and values before and after rotation, gate, up and their product.
    """
    queries, keys = (heads * shape.head_dim for heads in (shape.num_attention_heads, shape.num_key_value_heads))
    layer = 12 * shape.hidden_size + 6 * (queries + 2 * keys) + 8 * shape.intermediate_size
    return 2 * parameters + EVALUATION_TOKENS * layer + WORKSPACE_BYTES + CONTEXT_BYTES


def optimizer_states(spec: TrainSpec, trained: int) -> tuple[int, bool]:
    """Bytes of AdamW's two states of so many trained weights, and whether they are 8-bit.

    8-bit states are paged; on a GPU.
    """
    paged = spec.optimizer == "adamw8bit" or (spec.optimizer == "auto" and trained >= LARGE_STATES)
    return (2 if paged else 8) * trained, paged


def adapter_parameters(shape: Shape, spec: TrainSpec) -> int:
    """Weights of all LoRA pairs: rank x (inputs + outputs) of each adapted layer.

    A pattern of names counts as all layers.
    """
    sizes = linear_layers(shape)
    named = set(sizes) if isinstance(spec.target_modules, str) else set(spec.target_modules)
    return spec.rank * shape.num_hidden_layers * sum(sum(size) for name, size in sizes.items() if name in named)


def _base_bytes(shape: Shape, spec: TrainSpec, parameters: int) -> int:
    """Frozen weights: linear layers in NF4 for QLoRA, all else in 16 bits.

    Where all are trained, in 32 bits: the copies of linear layers that autocast multiplies by, which a pass keeps to its end.
    """
    if spec.method == "full":
        return 2 * linear_parameters(shape)
    if shape.encoder:  # in 32 bits too, with autocast's copies
        return 4 * parameters + 2 * linear_parameters(shape)
    linear = linear_parameters(shape) if spec.method == "qlora" else 0
    return round(linear * NF4_BITS / 8 + 2 * (parameters - linear)) - host_bytes(shape, spec)


def host_bytes(shape: Shape, spec: TrainSpec) -> int:
    """Bytes of embedding and vocabulary's head that training holds in the host's memory.

    Where the card's is short, in 16 bits, and neither is trained; a loss of text reads all of the head
    (zoo/stages/train/host_matrices.py).
    """
    if shape.encoder or spec.method == "full" or not spec.gradient_checkpointing or "lm_head" in spec.target_modules:
        return 0
    is_one = shape.tie_word_embeddings or bool(shape.classes)
    matrices = (1 if is_one else 2) - (spec.objective == "text")
    return 2 * matrices * shape.vocab_size * shape.hidden_size


def _text_bytes(shape: Shape, spec: TrainSpec) -> int:
    """Bytes that the loss of text holds at once.

    They are a chunk's logits and their gradient in float32, and the hidden states' gradient. A head that is trained has its
    gradient as a sum and as the term to add, and the 16-bit copy that is multiplied.
    """
    chunk = 8 * min(LOGIT_POSITIONS, spec.micro_batch_tokens) * shape.vocab_size
    head = (8 + 2) * shape.vocab_size * shape.hidden_size if spec.method == "full" else 0
    return chunk + 2 * shape.hidden_size * spec.micro_batch_tokens + head


def kept_layer_bytes(shape: Shape, spec: TrainSpec, norms: int, float16: bool = False) -> int:
    """Bytes a token that one layer keeps for its backward pass, in 16 bits.

    With fused layers (zoo/stages/train/fused.py): of a norm its input, from which linear layers compute theirs again; of
    attention rotated queries and keys, values and the output; of the feed-forward part gate and up; of each adapter what its
    first half gave.
    """
    if shape.encoder:
        return _encoder_kept_bytes(shape, spec)
    queries, keys = (heads * shape.head_dim for heads in (shape.num_attention_heads, shape.num_key_value_heads))
    if spec.method == "full":
        return _full_bytes(shape, spec, norms)
    if spec.dora:
        return _unfused_bytes(shape, spec, norms)
    adapters = 2 * spec.rank * len(linear_layers(shape))
    normed = 2 * (norms - 2) + 2 * _residual_bytes(spec, norms, float16)  # two of them read the residual stream
    return normed * shape.hidden_size + 4 * (queries + keys) + 4 * shape.intermediate_size + adapters


def _encoder_kept_bytes(shape: Shape, spec: TrainSpec) -> int:
    """The same of an encoder, whose rows are as long as it was made for."""
    a_token = (ENCODER_KEPT if spec.method == "full" else ENCODER_KEPT_ADAPTED) * shape.hidden_size
    longest = min(shape.max_position_embeddings or spec.micro_batch_tokens, spec.micro_batch_tokens)
    scores = ENCODER_KEPT_SCORES * shape.num_attention_heads * longest if shape.encoder == "DebertaV2" else 0
    return a_token + scores


def _unfused_bytes(shape: Shape, spec: TrainSpec, norms: int) -> int:
    """The same as transformers' Llama and peft compute it.

    Of attention: queries, keys and values before and after rotation, and the output. Of the feed-forward part: gate, its
    activation, up and their product. Of each adapter with dropout: the dropped input and a byte a value of mask.
    """
    queries, keys = (heads * shape.head_dim for heads in (shape.num_attention_heads, shape.num_key_value_heads))
    inputs = sum(size[0] for size in linear_layers(shape).values())
    dropped = 3 * inputs if spec.dropout else 0
    return norms * UNFUSED_NORM * shape.hidden_size + 6 * (queries + 2 * keys) + 8 * shape.intermediate_size + dropped


def _full_bytes(shape: Shape, spec: TrainSpec, norms: int) -> int:
    """The same where all weights are trained: in 32 bits, multiplied in 16 by autocast.

    Of a norm: its input, which is the residual stream, and the normalized input. A 16-bit copy of the input of queries, keys,
    values, gate and up, each its own. Of attention and the feed-forward part as above, without what is before rotation.
    """
    queries, keys = (heads * shape.head_dim for heads in (shape.num_attention_heads, shape.num_key_value_heads))
    normed = (norms * 2 * _residual_bytes(spec, norms) + 5 * 2) * shape.hidden_size
    return normed + 4 * (queries + keys) + 8 * shape.intermediate_size


def _residual_bytes(spec: TrainSpec, norms: int, float16: bool = False) -> int:
    """Bytes of a value of the residual stream, as wide as weights that are trained.

    Float16 does not hold Gemma's (zoo/stages/gemma_float16.py).
    """
    return 4 if spec.method == "full" or (float16 and norms == GEMMA_NORMS) else 2
