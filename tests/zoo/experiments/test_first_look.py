"""A first look at somebody's encoder: the prompt that it was trained with is found out by its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.tiny_encoders import CLS_SEP, write_encoder
from zoo.contracts import PromptSpec
from zoo.data.battles import read_battles
from zoo.data.sample import write_sample
from zoo.entries.load import read_entry
from zoo.entries.public_prompts import PUBLIC_PROMPTS, TAGS, public_prompt
from zoo.errors import ZooError
from zoo.experiments.first_look import first_look
from zoo.models.prompts import encode_battles, load_codec
from zoo.pipeline.adoption import Offered, adopt

NAME = "lmsys-model-a-b"


def silent(_: str) -> None:
    """Where nobody is told."""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder whose answers by a public prompt are as sure as they are right: `battles.csv` is drawn from them."""
    import torch
    from tokenizers import Tokenizer, processors
    from transformers import AutoModelForSequenceClassification

    place = tmp_path_factory.mktemp("theirs")
    folder = write_encoder(place / "model", "Bert", head="ForSequenceClassification", labels=3)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_sample(place / "drawn.csv", 220, 3)
    spec = public_prompt(folder, NAME, classifier=True)[0].model_copy(update={"max_tokens": 160, "keep": "both_ends"})
    frame = read_battles(place / "drawn.csv").frame
    turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    rows = [one.ids for one in encode_battles(turns, load_codec(folder, spec), spec, "ab")]
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        states = torch.cat([model.bert(torch.tensor([row])).pooler_output for row in rows])
        mean = states.mean(0)
        axes = torch.linalg.svd(states - mean, full_matrices=False).Vh[:3]
        head = 2.5 * axes / ((states - mean) @ axes.T).std(0)[:, None]
        model.classifier.weight.copy_(head)
        model.classifier.bias.copy_(-head @ mean)
        p = torch.softmax(model.classifier(states), dim=1).numpy().astype(np.float64)
    model.save_pretrained(folder)
    winners = (p.cumsum(axis=1) > np.random.default_rng(1).random((len(p), 1))).argmax(axis=1)
    table = pd.read_csv(place / "drawn.csv", dtype=str)
    for number, name in enumerate(("winner_model_a", "winner_model_b", "winner_tie")):
        table[name] = (winners == number).astype(int)
    table.to_csv(place / "battles.csv", index=False)
    return place


def warnings(theirs: Path, name: str, template: Path | None) -> list[str]:
    offered = Offered(checkpoint=theirs / "model", template=template, trained_on="none")
    path = adopt(name, offered, "cpu", theirs / "entries", theirs / "store", silent).registered.path
    found = first_look(path, theirs / "battles.csv", None, "cpu", theirs / "store", say=silent)
    return [text for one in found for text in one.warnings if "the prompt" in text and "fits better" in text]


def test_a_public_prompt_that_fits_better_is_named(theirs: Path) -> None:
    (told,) = warnings(theirs, "wrong", None)
    assert f"the prompt {NAME} fits better" in told and told.endswith(f"register it with --template {NAME}")
    assert read_entry(theirs / "entries" / "wrong.toml").prompt.template == CLS_SEP  # type: ignore[union-attr]


def test_the_prompt_that_it_was_trained_with_is_the_best(theirs: Path) -> None:
    assert warnings(theirs, "right", Path(NAME)) == []
    prompt = read_entry(theirs / "entries" / "right.toml").prompt
    assert prompt is not None and prompt.template == f"[CLS]{PUBLIC_PROMPTS[NAME]}[SEP]"
    assert (prompt.turn_separator, prompt.empty_text) == (" ", "")


def test_an_end_of_the_text_is_the_model_s_own(tiny_llama: Path, tmp_path: Path) -> None:
    spec, labels = public_prompt(tiny_llama, "lmsys-tags-end", classifier=True)
    assert spec.template == TAGS + "<|end|>" and len(set(labels)) == 3
    assert PromptSpec.model_validate(spec.model_dump()) == spec
    (tmp_path / "tokenizer.json").write_bytes((tiny_llama / "tokenizer.json").read_bytes())
    with pytest.raises(ZooError, match=r"tokenizer_config\.json: names no eos_token"):
        public_prompt(tmp_path, "lmsys-tags-end", classifier=True)


def test_a_name_that_is_no_file_and_no_prompt_is_told_with_the_known_ones(theirs: Path) -> None:
    with pytest.raises(ZooError, match=r"--template lmsys-tag: no such file.*lmsys-tags, lmsys-tags-end, lmsys-model-a-b"):
        adopt("x", Offered(checkpoint=theirs / "model", template=Path("lmsys-tag")), "cpu", theirs, theirs / "store", silent)
