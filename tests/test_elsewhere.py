"""Weights of others in the real chain: plain peft's, transformers', AWQ's, GPTQ's and compressed-tensors' folders, by vLLM.

Minutes, nearly all of it loading engines.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.helpers.foreign import ROWS, bitsandbytes_folder, gptq_folder, last_logits, loaded, quantized_by, write_plain
from tests.helpers.requests import quantize_request
from tests.helpers.tiny_models import TEMPLATE, write_tiny_llama
from zoo.contracts import AdoptRequest, Held, Input, PromptSpec, Selection
from zoo.data.battles import read_battles
from zoo.data.learned import POSSIBLY
from zoo.data.sample import write_sample
from zoo.entries.load import read_entry
from zoo.entries.toml import contract_toml
from zoo.errors import ZooError
from zoo.experiments.first_look import first_look
from zoo.experiments.run import run_chain
from zoo.models.prompts import encode_battles, load_codec
from zoo.pipeline.adoption import Offered, adopt
from zoo.pipeline.chain import battles_input, chain
from zoo.scores.tables import probabilities, read_card, read_scores, swap_sides
from zoo.settings import backend_interpreter
from zoo.store import folder_fingerprint

pytestmark = [pytest.mark.chain, pytest.mark.timeout(900)]

PROMPT = PromptSpec(template=TEMPLATE, max_tokens=160)
RIGHT = ("b", "a", "tie")  # what the outputs of their classifier stand for


def silent(_: str) -> None:
    """Where nobody is told."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and a classifier on it by plain peft whose answers are as sure as they are right: battles are drawn from them.

    Its outputs are in another order than a, b, tie, and nothing in its folder says in which.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path_factory.mktemp("elsewhere")
    base = write_tiny_llama(folder / "base")
    write_sample(folder / "drawn.csv", 240, 3)
    rows = encoded(base, read_battles(folder / "drawn.csv"))
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="SEQ_CLS", modules_to_save=["score"])
    adapted = get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
        body = adapted.get_base_model().model
        states = torch.cat([body(torch.tensor([row])).last_hidden_state[:, -1] for row in rows])
        mean = states.mean(0) / states.mean(0).norm()
        apart = states - (states @ mean)[:, None] * mean  # what differs between rows, and not what all have
        axes = torch.linalg.svd(apart, full_matrices=False).Vh[:3]
        head = 2.0 * axes / (apart @ axes.T).std(0)[:, None]
        for name, parameter in adapted.named_parameters():
            if "score.modules_to_save" in name:
                parameter.copy_(head[[("a", "b", "tie").index(one) for one in RIGHT]])
        p = torch.softmax(states @ head.T, dim=1).numpy().astype(np.float64)
    adapted.save_pretrained(folder / "peft")
    np.save(folder / "p.npy", p)
    winners = (p.cumsum(axis=1) > np.random.default_rng(1).random((len(p), 1))).argmax(axis=1)
    frame = pd.read_csv(folder / "drawn.csv", dtype=str)
    for number, name in enumerate(("winner_model_a", "winner_model_b", "winner_tie")):
        frame[name] = (winners == number).astype(int)
    frame.to_csv(folder / "battles.csv", index=False)
    frame[:40].to_csv(folder / "learned.csv", index=False)
    (folder / "prompt.json").write_text(json.dumps({"template": TEMPLATE, "max_tokens": 160}))
    return folder


def encoded(folder: Path, battles: Any, order: Any = "ab") -> list[list[int]]:
    frame = battles.frame
    turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    return [one.ids for one in encode_battles(turns, load_codec(folder, PROMPT), PROMPT, order)]


def registered(place: Path, name: str, offered: Offered) -> Path:
    """The entry's file, its form the one that every processor serves; the order that its labels were drawn in comes first."""
    path = adopt(name, offered, "cpu", place / "entries", place / "store", silent).registered.path
    entry = read_entry(path)
    assert entry.quantize is not None
    data = entry.model_dump(mode="json", exclude_none=True)
    data["quantize"] |= {"scheme": "int8", "calibration_rows": 2, "calibration_tokens": 64}
    path.write_text(contract_toml(type(entry).model_validate(data)))
    return path


@pytest.fixture(scope="module")
def right(place: Path) -> Path:
    """The adapter with its classes as they are, and 40 rows that it says it learned from."""
    offered = Offered(
        (place / "peft",), None, str(place / "base"), place / "prompt.json", ",".join(RIGHT), str(place / "learned.csv")
    )
    return registered(place, "right", offered)


def table_of(store: Path, stage: str, slug: str) -> pd.DataFrame:
    return read_scores(store / stage / slug / "scores.parquet")


def test_a_wrong_order_of_classes_is_found_out_and_named(place: Path) -> None:
    offered = Offered((place / "peft",), None, str(place / "base"), place / "prompt.json", None, "none")
    path = registered(place, "wrong", offered)
    found = first_look(path, place / "battles.csv", str(place / "base"), "cpu", place / "store", say=silent)
    first = next(one for one in found if one.variant.startswith("ab"))
    assert first.rows == 200 and first.log_loss > first.label_shares
    assert any(f"register it with --classes {','.join(RIGHT)}" in warning for warning in first.warnings), first.warnings


def test_the_right_order_answers_as_peft_and_is_not_judged_on_what_it_learned(place: Path, right: Path) -> None:
    """Oracle: peft's forward pass in float32, of which the battles were drawn."""
    entry, store = read_entry(right), place / "store"
    sample = {"held": Held(rule="near-prompts-1"), "selection": Selection(rows="all")}
    requests = chain(entry, battles_input(place / "battles.csv"), "cpu", store, source=str(place / "base"), **sample)
    scored = run_chain(requests, entry, store, say=silent, track=False)[-1]
    table = table_of(store, scored.path.name, "ab-160")
    # int8 activations of a tiny model whose head is far from its body's scale: the mean row, not the worst.
    assert np.abs(probabilities(table) - np.load(place / "p.npy")).mean() < 0.04
    learned = set(read_battles(place / "learned.csv").ids)
    assert learned <= set(table["id"][table["fold"] == -1]) and (table["fold"] >= 0).sum() > 100
    metrics = scored.manifest.metrics
    assert metrics["ab-160:val/rows"] == (table["fold"] >= 0).sum()
    assert metrics["ab-160:rows/learned"] == (table["fold"] == -1).sum()
    assert metrics["ab-160:val/log_loss"] < metrics["ab-160:baseline/log_loss_prior"]
    assert read_card(scored.path / "ab-160" / "scores.json").suspect == ""

    folder = place / "int8"  # what was served, as the folder of somebody else, of which nobody says what it learned from
    shutil.copytree(requests[-1].model.path / "model", folder)
    offered = Offered(checkpoint=folder, template=place / "prompt.json")
    served = read_entry(adopt("served", offered, "cpu", place / "entries", store, silent).registered.path)
    assert served.head == "classifier" and served.elsewhere is not None and served.elsewhere.classes == ("a", "b", "tie")
    requests = chain(served, battles_input(place / "battles.csv"), "cpu", store, **sample)
    assert [request.stage for request in requests] == ["adopt", "score"]
    again = run_chain(requests, served, store, say=silent, track=False)[-1]
    theirs = table_of(store, again.path.name, "ab-160").set_index("id").loc[table["id"]].reset_index()
    assert np.abs(probabilities(theirs) - probabilities(table)).max() < 0.01, "the same weights, by the same engine"
    assert read_card(again.path / "ab-160" / "scores.json").suspect == POSSIBLY
    both = table_of(store, scored.path.name, "ba-160")
    assert not np.allclose(probabilities(both), swap_sides(probabilities(table)), atol=1e-3), "both orders were asked"


# --- formats of others ------------------------------------------------------------------------------------------------


def test_quantized_checkpoints_of_others_are_served_as_their_weights_say(tmp_path: Path) -> None:
    """Oracle: each folder's weights, dequantized by their definition, in transformers in float32."""
    from zoo.stages.quantize import stage as quantize
    from zoo.stages.quantize.awq_format import write_dequantized

    base = write_tiny_llama(tmp_path / "base" / "model", tie_word_embeddings=False)
    write_sample(tmp_path / "battles.csv", 60, 3)
    theirs, plain = {}, {}
    for scheme in ("int8", "awq", "w4a8"):
        (tmp_path / scheme).mkdir()
        quantize.run(quantize_request(base.parent, tmp_path / "battles.csv", scheme=scheme), tmp_path / scheme)
        theirs[scheme] = tmp_path / scheme / "model"
        plain[scheme] = tmp_path / f"{scheme}-plain"
        write_dequantized(theirs[scheme], plain[scheme])
    theirs["gptq"], plain["gptq"] = gptq_folder(base, tmp_path / "gptq", tmp_path / "gptq-plain", group=32)
    for name, difference in served_as_they_are(theirs, plain, tmp_path).items():
        assert difference < 0.02, name


# What is brought in of llm-compressor's forms; activations in 8 bits are rounded where the oracle's are not.
WRITTEN = {
    "autoawq/awq": 0.01,
    "llm-compressor/gptq": 0.01,
    "llm-compressor/gptq-int8": 0.02,
    "llm-compressor/awq": 0.01,
}


def test_what_other_libraries_write_is_brought_in_and_served(tmp_path: Path) -> None:
    """Of their own making, on this machine: autoawq's in this interpreter, llm-compressor's in that which quantizes for it.

    The same oracle. Of GPTQModel, which no interpreter of this project holds, benchmarks/elsewhere.md says how far it came.
    """
    pythons = {"autoawq": Path(sys.executable)}
    with suppress(ZooError):
        pythons["llm-compressor"] = backend_interpreter("llm-compressor")
    base = write_tiny_llama(tmp_path / "base" / "model", tie_word_embeddings=False)
    write_sample(tmp_path / "battles.csv", 16, 4)
    rows = encoded(base, read_battles(tmp_path / "battles.csv"))
    theirs, plain = {}, {}
    for name in WRITTEN:
        by, form = name.split("/")
        if by in pythons:
            theirs[name] = tmp_path / f"{by}-{form}"
            assert not quantized_by(pythons[by], by, form, base, theirs[name], rows, group=32)
            plain[name] = write_plain(theirs[name], tmp_path / f"{by}-{form}-plain")
    for name, difference in served_as_they_are(theirs, plain, tmp_path).items():
        assert difference < WRITTEN[name], name
    if len(pythons) == 1:
        pytest.skip("make setup-llmcompressor has not been run: autoawq's folder alone was looked at")


def test_what_bitsandbytes_packed_is_served_as_its_weights_say(tmp_path: Path) -> None:
    """Oracle: transformers' own dequantization of the model that it saved, in float32."""
    import torch

    base = write_tiny_llama(tmp_path / "base", tie_word_embeddings=False)
    packings: dict[str, dict[str, Any]] = {
        "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        "int8": {"load_in_8bit": True},
    }
    theirs, plain = {}, {}
    for name, settings in packings.items():
        theirs[name], plain[name] = tmp_path / name, tmp_path / f"{name}-plain"
        bitsandbytes_folder(base, theirs[name], **settings).dequantize(torch.float32).save_pretrained(plain[name])
    for name, difference in served_as_they_are(theirs, plain, tmp_path).items():
        assert difference < 0.01, name


def served_as_they_are(theirs: dict[str, Path], plain: dict[str, Path], place: Path) -> dict[str, float]:
    """By name the largest difference of a probability between vLLM, on a folder that was brought in, and its plain weights."""
    from zoo.stages.weights import adopt as adopting

    folders = {}
    for name, folder in theirs.items():
        out = place / "adopted" / name
        out.mkdir(parents=True)
        own = Input(path=folder, fingerprint=folder_fingerprint(folder))
        adopting.run(AdoptRequest(entry="theirs", kind="checkpoint", folders=(own,), learned_none=True), out)
        folders[name] = out / "model"
    asked = json.dumps([[str(folder), "bfloat16", None] for folder in folders.values()])
    command = [sys.executable, "-m", "tests.helpers.classifier_engine", asked]
    done = subprocess.run(command, input=json.dumps(ROWS), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    found = {}
    for (name, folder), logits in zip(plain.items(), answers, strict=True):
        expected = last_logits(loaded(folder))[:, :3]  # of the tokens 0, 1 and 2
        found[name] = float(np.abs(softmax(np.array(logits)) - softmax(expected)).max())
    return found


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = odds / odds.sum(axis=1, keepdims=True)
    return shares
