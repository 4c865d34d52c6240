"""Model folders of random weights: a shape's speed and memory, measured without having the model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from zoo.models.heads import SCORE, classifier_config
from zoo.models.shapes import SCHEME_KEY
from zoo.stages.device import device
from zoo.stages.quantize.awq_format import pack
from zoo.stages.quantize.forms import Form

LLAMA_3_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
}

# Of the models' own config.json, whose weights are not needed for speed and memory.
YI_34B: dict[str, Any] = {
    **LLAMA_3_8B,
    "vocab_size": 64000,
    "hidden_size": 7168,
    "intermediate_size": 20480,
    "num_hidden_layers": 60,
    "num_attention_heads": 56,
    "max_position_embeddings": 4096,
    "rope_theta": 5000000.0,
}
GEMMA_2_9B: dict[str, Any] = {
    **LLAMA_3_8B,
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "vocab_size": 256000,
    "hidden_size": 3584,
    "intermediate_size": 14336,
    "num_hidden_layers": 42,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
SMOLLM2_135M: dict[str, Any] = {
    **LLAMA_3_8B,
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
}
SHAPES = {"llama-3-8b": LLAMA_3_8B, "smollm2-135m": SMOLLM2_135M, "gemma-2-9b": GEMMA_2_9B, "yi-34b": YI_34B}


def layer_shapes(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """(out, in) of a decoder layer's matrices."""
    width, hidden, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    keys, queries = config["num_key_value_heads"] * head, config["num_attention_heads"] * head
    shapes = {f"self_attn.{name}": (out, width) for name, out in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys))}
    shapes |= {"self_attn.o_proj": (width, queries), "mlp.down_proj": (width, hidden)}
    return shapes | {"mlp.gate_proj": (hidden, width), "mlp.up_proj": (hidden, width)}


def write_awq(folder: Path, tokenizer: Path, config: dict[str, Any], group_size: int = 128) -> None:
    """A folder in AWQ's GEMM layout whose 4-bit weights are random bits, scaled to a deviation of 0.02, a file a layer."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in tokenizer.parent.glob("tokenizer*.json"):
        shutil.copy2(file, folder / file.name)
    generator = torch.Generator(device()).manual_seed(0)
    gemma = config["model_type"] == "gemma2"
    width, deviation = config["hidden_size"], 0.02
    scale = deviation / (16**2 / 12) ** 0.5  # of integers 0 to 15

    def bits(*shape: int) -> torch.Tensor:
        return torch.randint(-(2**31), 2**31 - 1, shape, generator=generator, device=device(), dtype=torch.int64).int().cpu()

    norms = ["input_layernorm", "post_attention_layernorm"]
    norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"] if gemma else []
    norm = (torch.zeros if gemma else torch.ones)(width, dtype=torch.float16)
    for layer in range(config["num_hidden_layers"]):
        tensors = {f"model.layers.{layer}.{name}.weight": norm.clone() for name in norms}
        for name, (out, into) in layer_shapes(config).items():
            prefix = f"model.layers.{layer}.{name}"
            tensors[f"{prefix}.qweight"] = bits(into, out // 8)
            # Seven or eight at random: a mean of the weights that is not zero would grow from layer to layer, to infinity.
            tensors[f"{prefix}.qzeros"] = (bits(into // group_size, out // 8) & 0x11111111) + 0x77777777
            tensors[f"{prefix}.scales"] = torch.full((into // group_size, out), scale, dtype=torch.float16)
        save_file(tensors, folder / f"model-{layer:03d}.safetensors", metadata={"format": "pt"})
    shape = (config["vocab_size"], width)
    names = ["model.embed_tokens.weight"] + ([] if config["tie_word_embeddings"] else ["lm_head.weight"])
    ends = {name: (torch.randn(shape, generator=generator, device=device()) * deviation).half().cpu() for name in names}
    save_file({**ends, "model.norm.weight": norm.clone()}, folder / "model-ends.safetensors", metadata={"format": "pt"})
    write_index(folder)
    quantization = {"quant_method": "awq", "bits": 4, "group_size": group_size, "zero_point": True, "version": "gemm"}
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16", "quantization_config": quantization}))


def write_llama(folder: Path, tokenizer: Path, changes: dict[str, Any], form: Form | None = None) -> None:
    """A Llama folder of Gaussian weights with deviation 0.02, a file a layer, unless it is there.

    Its decoder layers are rounded to `form`, if given, as they are drawn: of 34 billion weights there is no 16-bit copy.
    """
    if (folder / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    config = {**LLAMA_3_8B, **changes}
    shutil.copy2(tokenizer, folder / "tokenizer.json")
    width, shapes = config["hidden_size"], layer_shapes(config)
    generator = torch.Generator(device()).manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device(), dtype=torch.float32) * 0.02

    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        tensors: dict[str, torch.Tensor] = {}
        for name, shape in shapes.items():
            parts = form.stored(draw(*shape)) if form else {"weight": draw(*shape).bfloat16()}
            tensors |= {f"{prefix}{name}.{part}": value.cpu().contiguous() for part, value in parts.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}{norm}.weight"] = torch.ones(width, dtype=torch.bfloat16)
        save_file(tensors, folder / f"model-{layer:03d}.safetensors", metadata={"format": "pt"})
    names = ("model.embed_tokens.weight", "lm_head.weight")
    ends = {name: draw(config["vocab_size"], width).bfloat16().cpu() for name in names}
    ends["model.norm.weight"] = torch.ones(width, dtype=torch.bfloat16)
    save_file(ends, folder / "model-ends.safetensors", metadata={"format": "pt"})
    write_index(folder)
    config |= {"quantization_config": form.config([]), SCHEME_KEY: form.scheme} if form else {}
    (folder / "config.json").write_text(json.dumps(config, indent=1))


def write_classifier(source: Path, target: Path) -> None:
    """The folder as a classifier of three classes: the same layers, a drawn `score.weight` in place of its head."""
    target.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / "config.json").read_text())
    for shard in sorted(source.glob("*.safetensors")):
        tensors = load_file(shard)
        if "lm_head.weight" not in tensors:
            (target / shard.name).symlink_to(shard.absolute())
            continue
        head = tensors.pop("lm_head.weight")
        tensors[SCORE] = torch.randn(3, head.shape[1], generator=torch.Generator().manual_seed(0)).to(head.dtype) * 0.02
        save_file(tensors, target / shard.name, metadata={"format": "pt"})
    write_index(target)
    shutil.copy2(source / "tokenizer.json", target / "tokenizer.json")
    if quantized := config.get("quantization_config"):  # the head stays as it is, as the quantize stage leaves it
        key = "modules_to_not_convert" if quantized["quant_method"] == "awq" else "ignore"
        quantized[key] = [*quantized.get(key, []), SCORE.removesuffix(".weight")]
    (target / "config.json").write_text(json.dumps(classifier_config(config), indent=1))


def write_form(source: Path, target: Path, form: Form, kept: tuple[str, ...] = ()) -> None:
    """The folder with its decoder layers rounded to a form with 8 bit activations, without any search.

    `kept`: linears of each layer that stay in 16 bits.
    """
    ignored: list[str] = []
    target.mkdir(parents=True, exist_ok=True)
    for shard in sorted(source.glob("*.safetensors")):
        tensors: dict[str, torch.Tensor] = {}
        for name, tensor in load_file(shard).items():
            module = name.removesuffix(".weight")
            if ".layers." in name and tensor.dim() == 2 and module.endswith(kept or ("?",)):
                ignored.append(module)
                tensors[name] = tensor
            elif ".layers." in name and tensor.dim() == 2:
                parts = form.stored(form.nearest(tensor.to(device()).float()))
                tensors |= {f"{name.removesuffix('weight')}{part}": value.cpu().contiguous() for part, value in parts.items()}
            else:
                tensors[name] = tensor
        save_file(tensors, target / shard.name, metadata={"format": "pt"})
    write_index(target)
    shutil.copy2(source / "tokenizer.json", target / "tokenizer.json")
    config = json.loads((source / "config.json").read_text())
    config |= {"quantization_config": form.config(ignored), SCHEME_KEY: form.scheme}
    (target / "config.json").write_text(json.dumps(config, indent=1))


def write_index(folder: Path) -> None:
    """model.safetensors.index.json over the folder's shards, without which transformers takes one shard for the model."""
    shards = sorted(folder.glob("*.safetensors"))
    places = {}
    for shard in shards:
        with safe_open(shard, framework="pt") as file:
            places |= dict.fromkeys(file.keys(), shard.name)
    size = sum(shard.stat().st_size for shard in shards)
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def round_weight(weight: torch.Tensor, group_size: int) -> dict[str, torch.Tensor]:
    """qweight, qzeros and scales of a weight (out, in), each group of inputs rounded to 16 levels between its ends."""
    groups = weight.float().T.reshape(-1, group_size, weight.shape[0])  # (groups, group, out)
    low, high = groups.amin(1).clamp_max(0), groups.amax(1).clamp_min(0)
    scales = ((high - low) / 15).clamp_min(1e-5).half()
    zeros = (-low / scales.float()).round().clamp(0, 15)
    levels = (groups / scales.float().unsqueeze(1) + zeros.unsqueeze(1)).round().clamp(0, 15).int()
    return {"qweight": pack(levels.reshape(-1, weight.shape[0])), "qzeros": pack(zeros.int()), "scales": scales}


def write_rounded(source: Path, target: Path, group_size: int) -> None:
    """The folder in AWQ's GEMM layout, decoder layers rounded to nearest."""
    target.mkdir(parents=True, exist_ok=True)
    for shard in sorted(source.glob("*.safetensors")):
        tensors: dict[str, torch.Tensor] = {}
        for name, tensor in load_file(shard).items():
            if ".layers." in name and tensor.dim() == 2:
                parts = round_weight(tensor.to(device()), group_size)
                tensors |= {f"{name.removesuffix('weight')}{part}": value.cpu().contiguous() for part, value in parts.items()}
            else:
                tensors[name] = tensor.half()
        save_file(tensors, target / shard.name, metadata={"format": "pt"})
    write_index(target)
    shutil.copy2(source / "tokenizer.json", target / "tokenizer.json")
    quantization = {"quant_method": "awq", "bits": 4, "group_size": group_size, "zero_point": True, "version": "gemm"}
    config = json.loads((source / "config.json").read_text())
    (target / "config.json").write_text(
        json.dumps({**config, "dtype": "float16", "quantization_config": quantization}, indent=1)
    )
