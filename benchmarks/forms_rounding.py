"""Which part of `w4a8` costs label probabilities: weights, activations, or how they are rounded.

    python benchmarks/forms_rounding.py --model FOLDER --battles CSV [--calibration 24] [--rows 24] [--cap 256] [--layers N]

Every way goes through the same layers at once: weights alone to the nearest (symmetric; with zero points), activations alone,
both to the nearest, and both as the stage makes them. Mean KL divergence of the labels' probabilities from the unquantized
model's, in float32, on held-out rows and on the calibration rows. With `--layers` the first layers alone are rounded.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.contracts import Held, Selection
from zoo.data.battles import read_battles
from zoo.data.splits import select_rows, select_training
from zoo.entries.load import load_entry
from zoo.models.prompts import encode_battles, load_codec
from zoo.scores.metrics import mean_and_error
from zoo.stages.quantize import eight_bit
from zoo.stages.quantize.forms import Form
from zoo.stages.quantize.layerwise import LayerwiseModel
from zoo.stages.quantize.prompt_pass import PromptPass
from zoo.stages.quantize.rounded_layer import RoundedLayer
from zoo.stages.quantize.smoothing import sites_of


@dataclass(frozen=True)
class Way:
    name: str
    weights: str = ""  # "", "nearest", "zero points" or "compensated"
    activations: bool = False
    smoothed: bool = False


WAYS = (
    Way("weights, symmetric", weights="nearest"),
    Way("weights, zero points", weights="zero points"),
    Way("activations", activations=True),
    Way("activations, smoothed", activations=True, smoothed=True),
    Way("both, to the nearest", weights="nearest", activations=True),
    Way("both, to the nearest, smoothed", weights="nearest", activations=True, smoothed=True),
    Way("both, smoothed, compensated", weights="compensated", activations=True, smoothed=True),
)


def with_zero_points(weight: torch.Tensor, size: int) -> torch.Tensor:
    """A weight (out, in) rounded to 16 levels between a group's least and largest value, 0 among them."""
    grouped = weight.unflatten(1, (-1, size))
    low, high = grouped.amin(-1, keepdim=True).clamp_max(0), grouped.amax(-1, keepdim=True).clamp_min(0)
    scale = ((high - low) / 15).clamp_min(1e-9)
    zero = (-low / scale).round()
    return ((((grouped / scale).round() + zero).clamp(0, 15) - zero) * scale).flatten(1)


def through_layer(
    way: Way, whole: LayerwiseModel, number: int, form: Form, prompts: PromptPass, streams: dict[str, Any]
) -> None:
    """Move a way's streams (`calibration`, `held out`) through a layer."""
    whole.load(number)
    rounding = RoundedLayer(whole.layers[number], form, whole.linear_names())
    sites, few = sites_of(rounding.layer, whole.head_dim), prompts.few(streams["plain"], eight_bit.SEARCH_TOKENS)
    if way.smoothed:
        eight_bit._smoothed(rounding, sites, prompts, number, few)
    if way.weights == "compensated":
        eight_bit._compensate(rounding, sites, prompts, number, streams["calibration"], clip=True)
    with rounding.active(rounding.names):
        for name, linear in rounding.linears.items():
            if way.weights == "zero points":
                linear.weight.data = with_zero_points(rounding.weight(name), form.group_size or 1)
            elif not way.weights:
                linear.weight.data = rounding.weight(name)
        if not way.activations:
            rounding.remove()
        prompts.run(rounding.layer, number, streams["calibration"])
        streams["rows"].run(rounding.layer, number, streams["held out"])
    rounding.remove()


def encoded(frame, model: Path, cap: int) -> list[list[int]]:  # type: ignore[no-untyped-def]
    prompt = load_entry("smollm2-135m").prompt
    assert prompt is not None
    turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    return [row.ids for row in encode_battles(turns, load_codec(model, prompt), prompt, "ab", cap)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--battles", type=Path, required=True)
    parser.add_argument("--calibration", type=int, default=24)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--cap", type=int, default=256)
    parser.add_argument("--group-size", type=int, default=32)
    parser.add_argument("--layers", type=int)
    asked = parser.parse_args()
    battles = read_battles(asked.battles)
    training, _ = select_training(battles, Held(), say=print)
    training = training.iloc[np.random.default_rng(0).permutation(len(training))[: asked.calibration]]
    whole = LayerwiseModel(asked.model, torch.float32)
    prompts = PromptPass(whole, encoded(training, asked.model, asked.cap))
    rows = PromptPass(whole, encoded(select_rows(battles, Selection(max_rows=asked.rows), Held()), asked.model, asked.cap))
    form, entry_prompt = Form("w4a8", asked.group_size), load_entry("smollm2-135m").prompt
    assert entry_prompt is not None
    label_ids = load_codec(asked.model, entry_prompt).label_ids
    plain, plain_rows = prompts.start(), rows.start()
    ways: dict[Way, dict[str, Any]] = {
        way: {"calibration": prompts.start(), "held out": rows.start(), "rows": rows} for way in WAYS
    }
    with torch.no_grad():
        for number in range(len(whole.layers)):
            for way, streams in ways.items():
                if asked.layers is None or number < asked.layers:
                    through_layer(way, whole, number, form, prompts, {**streams, "plain": plain})
                else:
                    whole.load(number)
                    prompts.run(whole.layers[number], number, streams["calibration"])
                    rows.run(whole.layers[number], number, streams["held out"])
            whole.load(number)
            prompts.run(whole.layers[number], number, plain)
            rows.run(whole.layers[number], number, plain_rows)
            whole.drop(number)
            print(f"layer {number}", flush=True)
        expected, of_training = rows.label_logits(plain_rows, label_ids), prompts.label_logits(plain, label_ids)
        for way, streams in ways.items():
            p, q = expected.log_softmax(-1), rows.label_logits(streams["held out"], label_ids).log_softmax(-1)
            kl, error = mean_and_error((p.exp() * (p - q)).sum(-1).numpy())
            seen = eight_bit._divergence(of_training, prompts.label_logits(streams["calibration"], label_ids))
            print(f"{way.name}: KL {kl:.5f} ± {error:.5f} held out, {seen:.5f} on calibration rows", flush=True)


if __name__ == "__main__":
    main()
