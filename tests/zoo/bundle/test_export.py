"""Which forms of a run are exported, what lies in them, and that a card's code reads a battle as training does.

tests/test_chain.py has those of an entry that was trained.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.exports import Made, card_code, exported, make_store
from tests.helpers.requests import PROMPT
from tests.helpers.tiny_models import TINY_ENTRY
from zoo.contracts import Entry, changed
from zoo.errors import ZooError
from zoo.models.prompts import encode_battles, load_codec


@pytest.fixture
def made(tiny_llama: Path, tmp_path: Path) -> Callable[..., Made]:
    """Makes a store in which an entry is trained and merged on two folds, and averaged where it has adapters."""

    def make(method: str = "lora", **settings: Any) -> Made:
        train = {"rank": 4, "alpha": 8, "method": method}
        return make_store(Entry.model_validate({**TINY_ENTRY, "train": train, **settings}), tiny_llama, tmp_path / "store")

    return make


def test_one_of_several_averaged_adapters_is_not_the_average(made: Callable[..., Made], tmp_path: Path) -> None:
    own, _, average = made()["merge"]
    assert list(exported(own, tmp_path / "own")) == ["adapter", "merged"]
    assert list(exported(average, tmp_path / "average")) == ["merged"]
    with pytest.raises(ZooError, match="has no form 'adapter'; there are merged"):
        exported(average, tmp_path / "other", "adapter")


def test_only_what_the_manifest_has_is_handed_on_as_it_was_made(made: Callable[..., Made], tmp_path: Path) -> None:
    own = made()["merge"][0]
    (own.path / "model" / "notes.txt").write_text("mine")
    folder = exported(own, tmp_path / "own", "merged")["merged"].path
    assert not (folder / "notes.txt").exists() and (folder / "model.safetensors").exists()
    weights = own.path / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ZooError, match=r"model\.safetensors was changed"):
        exported(own, tmp_path / "changed", "merged")


def test_a_removed_training_is_said(made: Callable[..., Made], tmp_path: Path) -> None:
    found = made()
    shutil.rmtree(found["train"][0].path)
    with pytest.raises(ZooError, match="its training is no longer in the store, and with it the prompt"):
        exported(found["merge"][0], tmp_path / "out")


def test_whole_weights_of_a_training_have_the_base_s_tokenizer(made: Callable[..., Made], tmp_path: Path) -> None:
    folder = exported(made(method="full")["train"][0], tmp_path / "out")["merged"].path
    assert (folder / "tokenizer.json").exists() and (folder / "model.safetensors").exists()


LONG = "what is the capital of hot and cold " * 20
BATTLES = (
    {"prompt": "Fill in {response_b} and {prompt}", "response_a": " four\n", "response_b": "\nfive "},
    {"prompt": "who", "response_a": LONG, "response_b": "it is"},
    {"prompt": LONG, "response_a": LONG[:90], "response_b": LONG},
    {"prompt": LONG[:40], "response_a": "it", "response_b": LONG + " because"},
)


@pytest.mark.parametrize("keep", ["end", "both_ends"])
def test_a_card_s_code_reads_a_battle_as_training_does(made: Callable[..., Made], keep: str, tmp_path: Path) -> None:
    """Oracle: the project's own encoding. A battle may quote a field's name, no token spans two parts, long ones are cut."""
    prompt = changed(PROMPT, keep=keep)
    merge = made(prompt=prompt.model_dump())["merge"][0]
    folder = exported(merge, tmp_path / "out", "merged")["merged"].path
    whole = 0
    for battle in BATTLES:
        names: dict[str, Any] = {}
        exec(card_code(folder, battle=battle)[0], names)
        turns = [tuple([text] for text in battle.values())]
        (expected,) = encode_battles(turns, load_codec(folder, prompt), prompt, "ab")  # type: ignore[arg-type]
        assert names["ids"] == expected.ids
        whole += expected.n_truncated == 0
    assert whole == 1
