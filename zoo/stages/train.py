"""Fine-tuning on the label tokens: NF4 QLoRA, plain LoRA, or all weights, by one setting.

The objective is cross-entropy over the three label rows of the output embedding at the last position. Battles come in random
response order each epoch, labels swapped to match; rows of similar length share a forward pass, so little is padding. A
killed run goes on from its last checkpoint with the same batches.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.battles import read_battles, select_training
from zoo.contracts import Measurements, PromptSpec, StageResult, TrainRequest, TrainSpec
from zoo.errors import ZooError
from zoo.metrics import log_loss_rows
from zoo.prompts import Codec, encode_battles, label_probabilities, load_codec
from zoo.stages import progress
from zoo.stages.batches import all_steps, micro_batches, schedule
from zoo.stages.checkpoint import CHECKPOINT, Progress, resume, save_checkpoint
from zoo.stages.labels import compute_dtype, device, gpu_peak_bytes, label_logits, pad

BASE_FORMAT = "base_format.json"  # beside an adapter: which of the base's weights it saw rounded to NF4


@dataclass(frozen=True)
class Example:
    """One battle in both response orders, and its label (0 A, 1 B, 2 tie) in its own A/B."""

    id: str
    ab: list[int]
    ba: list[int]
    label: int


def run(request: TrainRequest, out_dir: Path) -> StageResult:
    """Write `out_dir/adapter` (or `out_dir/model` for full fine-tuning) and curves of the loss."""
    base = request.base.path / "model"
    codec = load_codec(base, request.prompt)
    battles = read_battles(request.battles.path)
    train_frame, held_frame = select_training(battles, request.held, max_rows=request.spec.max_rows, seed=request.spec.seed)
    if train_frame.empty or held_frame.empty:
        raise ZooError(
            f"{request.battles.path}: {len(train_frame)} rows to train on, {len(held_frame)} held out; label more rows"
        )
    train = examples(train_frame, codec, request.prompt)
    held = examples(held_frame.head(request.spec.eval_rows), codec, request.prompt)
    torch.manual_seed(request.spec.seed)
    model = load_model(base, request.spec)
    load_seconds = progress.process_age_seconds()
    state = fit(model, train, held, codec, request.spec, out_dir)
    save_weights(model, request.spec, base, out_dir)
    shutil.copy2(base / "tokenizer.json", out_dir / "tokenizer.json")
    shutil.rmtree(out_dir / CHECKPOINT, ignore_errors=True)
    final = state.curves["held_out/log_loss"][-1][1]
    return StageResult(
        metrics={
            "train/loss": state.curves["train/loss"][-1][1],
            "train/tokens_per_second": state.tokens / max(state.seconds, 1e-9),
            "train/rows": len(train),
            "val/log_loss": final,
            "val/rows": len(held),
            "val/log_loss_before": state.curves["held_out/log_loss"][0][1],
        },
        curves={name: tuple(points) for name, points in state.curves.items()},
        measurements=Measurements(
            load_seconds=load_seconds,
            run_seconds=state.seconds,
            rows=state.rows,
            tokens=state.tokens,
            peak_bytes=gpu_peak_bytes(),
        ),
    )


def examples(frame: Any, codec: Codec, prompt: PromptSpec) -> list[Example]:
    """Token ids of labelled battles in both response orders."""
    turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    ab, ba = (encode_battles(turns, codec, prompt, order) for order in ("ab", "ba"))
    rows = zip(frame["id"], ab, ba, frame["label"], strict=True)
    return [Example(str(id_), x.ids, y.ids, int(label)) for id_, x, y, label in rows]


def load_model(base: Path, spec: TrainSpec) -> Any:
    """The base in the form its method trains, with adapters injected where it trains adapters."""
    model = load_base(base, spec)
    if spec.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    return model if spec.method == "full" else with_adapters(model, spec)


def load_base(base: Path, spec: TrainSpec) -> Any:
    """The base's weights: NF4 with double quantization for QLoRA, else as they are."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = compute_dtype()
    # All weights in training are kept in float32, as adapters are: 16 bits would lose updates of 1e-5.
    options: dict[str, Any] = {"dtype": torch.float32 if spec.method == "full" else dtype}
    if spec.method == "qlora":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    return AutoModelForCausalLM.from_pretrained(base, device_map={"": device()}, **options)


def with_adapters(model: Any, spec: TrainSpec) -> Any:
    """Inject LoRA adapters. Their weights are kept in float32: updates of 1e-4 would be lost in 16 bits."""
    from peft import LoraConfig, get_peft_model

    targets = spec.target_modules if isinstance(spec.target_modules, str) else list(spec.target_modules)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def fit(model: Any, train: list[Example], held: list[Example], codec: Codec, spec: TrainSpec, out_dir: Path) -> Progress:
    """Train to the end, from the last checkpoint if there is one; returns where it ended and its curves."""
    steps_per_epoch = math.ceil(len(train) / spec.batch_rows)
    total = max(1, round(steps_per_epoch * spec.epochs))
    every = max(1, steps_per_epoch // spec.evals_per_epoch)
    optimizer = make_optimizer(model, spec)
    state = resume(model, optimizer, out_dir) or Progress()
    with progress.bar(total, "train", "step", initial=state.step) as bar:
        if state.step == 0:
            state.log("held_out/log_loss", evaluate(model, held, codec, spec))
        for step, batches in enumerate(all_steps([len(e.ab) for e in train], spec, total)):
            if step < state.step:
                continue
            started = time.monotonic()
            for group in optimizer.param_groups:
                group["lr"] = spec.learning_rate * schedule(step, total, spec.warmup_fraction)
            loss = train_step(model, optimizer, batches, train, codec, spec, step)
            state.step, state.rows = step + 1, state.rows + sum(map(len, batches))
            state.tokens += sum(len(train[i].ab) for batch in batches for i in batch)
            state.seconds += time.monotonic() - started
            state.log("train/loss", loss)
            state.log("train/learning_rate", optimizer.param_groups[0]["lr"])
            if state.step % every == 0 or state.step == total:
                state.log("held_out/log_loss", evaluate(model, held, codec, spec))
                save_checkpoint(model, optimizer, state, out_dir)
            held_out = state.curves["held_out/log_loss"][-1][1]
            bar.set_postfix(loss=f"{loss:.3f}", held_out=f"{held_out:.4f}", tokens_s=f"{state.tokens / state.seconds:.0f}")
            bar.update()
    return state


def make_optimizer(model: Any, spec: TrainSpec) -> torch.optim.Optimizer:
    """AdamW; on a GPU with paged 8-bit states (Dettmers et al. 2021, arXiv 2110.02861)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if torch.cuda.is_available():
        from bitsandbytes.optim import PagedAdamW8bit

        optimizer: torch.optim.Optimizer = PagedAdamW8bit(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay)
        return optimizer
    return torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay)


def causal_model(model: Any) -> Any:
    """The transformers model under a peft wrapper, adapters injected; the model itself where there is none."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def mixed_precision() -> AbstractContextManager[Any]:
    """On a GPU, matrix products in 16 bits: adapters are kept in float32 and would otherwise be multiplied in it."""
    return torch.autocast("cuda", dtype=compute_dtype()) if device().type == "cuda" else nullcontext()


def train_step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    batches: list[list[int]],
    train: list[Example],
    codec: Codec,
    spec: TrainSpec,
    step: int,
) -> float:
    """One optimizer step over its micro-batches; mean loss of its rows. A loss that is not finite stops with the rows' ids."""
    model.train()
    torch.manual_seed((spec.seed << 20) + step)  # dropout is the same in a resumed run
    rows = sum(map(len, batches))
    total = 0.0
    for batch in batches:
        generator = np.random.default_rng((spec.seed, step, batch[0]))
        swapped = generator.random(len(batch)) < 0.5 if spec.swap_orders else np.zeros(len(batch), bool)
        ids, mask = pad([train[i].ba if s else train[i].ab for i, s in zip(batch, swapped, strict=True)], device())
        labels = [swap_label(train[i].label) if s else train[i].label for i, s in zip(batch, swapped, strict=True)]
        with mixed_precision():
            logits = label_logits(causal_model(model), ids, mask, codec.label_ids)
        loss = torch.nn.functional.cross_entropy(
            logits, torch.tensor(labels, device=logits.device), reduction="sum", label_smoothing=spec.label_smoothing
        )
        if not torch.isfinite(loss):
            ids_text = ", ".join(train[i].id for i in batch[:5])
            raise ZooError(
                f"training diverged at step {step}: loss {loss.item()} on rows {ids_text}; lower train.learning_rate"
            )
        (loss / rows).backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total / rows


def swap_label(label: int) -> int:
    return (1, 0, 2)[label]


@torch.no_grad()
def evaluate(model: Any, held: list[Example], codec: Codec, spec: TrainSpec) -> float:
    """Log loss of the held-out rows in their own response order."""
    model.eval()
    rows = sorted(range(len(held)), key=lambda i: len(held[i].ab))
    losses = []
    for batch in micro_batches(rows, [len(e.ab) for e in held], 2 * spec.micro_batch_tokens):
        ids, mask = pad([held[i].ab for i in batch], device())
        with mixed_precision():
            logits = label_logits(causal_model(model), ids, mask, codec.label_ids)
        losses.append(log_loss_rows(label_probabilities(logits.cpu().numpy(), "ab"), np.array([held[i].label for i in batch])))
    return float(np.concatenate(losses).mean())


def save_weights(model: Any, spec: TrainSpec, base: Path, out_dir: Path) -> None:
    """The trained weights as safetensors, all of them in the base's dtype; no path of this machine in the adapter's config."""
    if spec.method == "full":
        from transformers import AutoConfig

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
