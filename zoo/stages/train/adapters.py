"""LoRA adapters on a base in NF4, 16 or 32 bits, and the trained weights as files.

An encoder is in float32 whole, and multiplied in 16 bits by autocast where the device has them: at the learning rates that it
takes, 2e-5, weights in bfloat16 would round most of an update away.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from zoo.contracts import TrainSpec
from zoo.errors import ZooError
from zoo.models.encoders import folder_encoder
from zoo.stages.device import compute_dtype, device
from zoo.stages.encoders import head_modules, is_encoder, linear_modules, load_encoder, widen_head
from zoo.stages.train.attention import training_attention
from zoo.stages.train.classifier import MODULE, LabelIds, load_classifier

BASE_FORMAT = "base_format.json"  # beside an adapter: which of the base's weights it saw rounded to NF4
ALL_LINEAR = "linear"  # for a list of names: all linear layers of the base, as NF4 training of others would have them


def load_model(base: Path, spec: TrainSpec, start: LabelIds | None = None) -> Any:
    """The base in the form its method trains, with adapters injected where it trains adapters.

    `start` as in `load_base`.
    """
    model = load_base(base, spec, start)
    model = model if spec.method == "full" else with_adapters(model, spec)
    if is_encoder(causal_model(model)):
        widen_head(causal_model(model))
    return model


def load_base(base: Path, spec: TrainSpec, start: LabelIds | None = None) -> Any:
    """The base's weights: NF4 with double quantization for QLoRA, else as they are.

    `start`: the tokens whose rows of the vocabulary's head a classifier begins as; None: the vocabulary's head stays. An
    encoder's classifier begins at random, by the seed.
    """
    if folder_encoder(base):
        return load_encoder(base, dtype=torch.float32, place=device(), seed=spec.seed)
    from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

    dtype = compute_dtype()
    # All weights in training are kept in float32, as adapters are: 16 bits would lose updates of 1e-5.
    options: dict[str, Any] = {"dtype": torch.float32 if spec.method == "full" else dtype}
    if spec.method == "qlora":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=[MODULE] if start else None,
        )
    options |= {"device_map": {"": device()}, **training_attention(AutoConfig.from_pretrained(base))}
    return load_classifier(base, start, **options) if start else AutoModelForCausalLM.from_pretrained(base, **options)


def with_adapters(model: Any, spec: TrainSpec) -> Any:
    """Inject LoRA adapters; a classifier is trained whole, as peft's `modules_to_save`.

    So is all that an encoder has between its layers and its classifier. Their weights are kept in float32: updates of 1e-4
    would be lost in 16 bits.
    """
    from peft import LoraConfig, get_peft_model

    targets = spec.target_modules if isinstance(spec.target_modules, str) else list(spec.target_modules)
    saved = [MODULE] if hasattr(model, MODULE) else None
    if is_encoder(model):
        targets, saved = linear_modules(model) if targets == "all-linear" else targets, head_modules(model)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        use_rslora=spec.rslora,
        use_dora=spec.dora,
        target_modules=targets,
        bias="none",
        task_type="SEQ_CLS" if saved else "CAUSAL_LM",
        modules_to_save=saved,
    )
    adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def start_from(model: Any, adapter: Path) -> None:
    """Put the weights of a saved adapter into the adapters of a model.

    ZooError where they are not of the same tensors.
    """
    from peft import set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = set_peft_model_state_dict(model, load_file(adapter / "adapter_model.safetensors"))
    except KeyError as error:  # peft's of a module that is saved whole
        raise ZooError(f"{adapter}: has no tensor {error.args[0]}, which is trained here; start from another") from error
    except (OSError, RuntimeError, SafetensorError) as error:  # torch names the tensors of other shapes
        raise ZooError(f"{adapter}: not an adapter to start from ({str(error).splitlines()[-1].strip()})") from error
    missing = [name for name in found.missing_keys if "lora_" in name or "modules_to_save" in name]
    if missing or found.unexpected_keys:
        name = [*missing, *found.unexpected_keys][0]
        raise ZooError(f"{adapter}: its tensors are not those that are trained here, first {name}; start from another")


def causal_model(model: Any) -> Any:
    """The transformers model under a peft wrapper, an encoder too, adapters injected.

    The model itself where there is none.
    """
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def trained_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def save_weights(model: Any, spec: TrainSpec, base: Path, out_dir: Path) -> None:
    """The trained weights as safetensors, all of them in the base's dtype.

    An encoder's are in float32.     No path of this machine in the adapter's config.
    """
    if spec.method == "full":
        from transformers import AutoConfig

        if is_encoder(model):
            model.save_pretrained(out_dir / "model")
            return
        model.to(AutoConfig.from_pretrained(base).dtype or compute_dtype()).save_pretrained(out_dir / "model")
        return
    model.save_pretrained(out_dir / "adapter", save_embedding_layers=False)
    config = out_dir / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": None}, indent=1, sort_keys=True))
    (out_dir / "adapter" / "README.md").unlink(missing_ok=True)
    (out_dir / BASE_FORMAT).write_text(json.dumps({"nf4": nf4_names(model)}, indent=1))


def nf4_names(model: Any) -> list[str]:
    """Names, in the base's files, of the weights that training holds in NF4."""
    modules = causal_model(model).named_modules()  # peft's wrapper of a Linear4bit bears the same name
    return sorted({f"{n.removesuffix('.base_layer')}.weight" for n, m in modules if type(m).__name__ == "Linear4bit"})
