"""Model folders that are not what they should be: one line that names the file, in bounded time and memory, and no entry."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.model_folders import model
from zoo.checks import check_entry
from zoo.entries import chat_template
from zoo.entries.load import read_entry
from zoo.entries.register import register
from zoo.errors import ZooError
from zoo.models import bounded
from zoo.targets import load_target

DEEP = 100_000
LOOPS = {
    "loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "long loop that writes": "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
}
GREEDY = {
    "text": "{{ 'a' * 20000000000 }}",
    "doubling": "{% set n = namespace(t='x') %}{% for i in range(60) %}{% set n.t = n.t + n.t %}{% endfor %}",
    "list": "{{ [0] * 20000000000 }}",
}
FAILS = {
    "zero": "{{ 1 / 0 }}",
    "key": "{{ messages[9]['x'] }}",
    "no words": "{{ raise_exception('') }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "overflow": "{{ (10.0 ** 300) ** 300 }}",
    "import": "{% include '/etc/passwd' %}",
    "nested": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "much": "{{ messages[0]['content'] }}{{ 'x' * 100000 }}",
    "surrogate": "{{ messages[0]['content'] }}\ud800",
    "field": "{prompt} {{ messages[0]['content'] }}",
    "nothing": " ",
}


def refused(folder: Path, out: Path) -> str:
    """The one line in which `register` refuses a folder."""
    with pytest.raises(ZooError) as caught:
        register("m", str(folder), "cpu", out / "entries")
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
    assert not (out / "entries").exists()
    return str(caught.value)


@pytest.mark.parametrize("chat", LOOPS.values(), ids=LOOPS)
def test_a_template_that_loops_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chat: str) -> None:
    monkeypatch.setattr(chat_template, "TEMPLATE_SECONDS", 1)
    folder = model(tmp_path / "m", chat=None)
    (folder / "chat_template.jinja").write_text(chat)
    told = refused(folder, tmp_path)
    assert told.startswith(f"{folder}/chat_template.jinja: ") and told.endswith("write the entry by hand")
    assert "takes more than 1 s" in told


@pytest.mark.parametrize("chat", GREEDY.values(), ids=GREEDY)
def test_a_template_that_takes_gigabytes_is_ended(tmp_path: Path, chat: str) -> None:
    told = refused(model(tmp_path / "m", chat=chat), tmp_path)
    assert "tokenizer_config.json: takes more than 1 GiB of memory" in told


@pytest.mark.parametrize("chat", FAILS.values(), ids=FAILS)
def test_a_template_that_fails_is_one_line(tmp_path: Path, chat: str) -> None:
    assert str(tmp_path / "m") in refused(model(tmp_path / "m", chat=chat), tmp_path)


def test_an_answer_that_never_ends_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "ANSWER_BYTES", 100)
    assert "makes more than 0 MiB" in refused(model(tmp_path / "m"), tmp_path)


def test_a_child_that_waits_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "START_SECONDS", 0)
    assert "takes too long" in refused(model(tmp_path / "m"), tmp_path)


# --- files ----------------------------------------------------------------------------------------------------------------


THINGS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "words": lambda path: path.write_text("not json"),
    "list": lambda path: path.write_text("[1, 2]"),
    "number": lambda path: path.write_text("3"),
    "null": lambda path: path.write_text("null"),
    "deep": lambda path: path.write_text("[" * DEEP),
    "deep object": lambda path: path.write_text('{"a":' * DEEP),
    "digits": lambda path: path.write_text('{"hidden_size": ' + "9" * 5000 + "}"),
    "bytes": lambda path: path.write_bytes(b"\xff\xfe\x00{"),
    "nul": lambda path: path.write_bytes(bytes(64)),
    "folder": lambda path: path.mkdir(),
    "fifo": os.mkfifo,
    "loop": lambda path: path.symlink_to(path.name),
    "nowhere": lambda path: path.symlink_to("nowhere"),
    "device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
@pytest.mark.parametrize("thing", THINGS)
def test_a_file_that_is_something_else_is_named(tmp_path: Path, name: str, thing: str) -> None:
    folder = model(tmp_path / "m")
    (folder / name).unlink()
    THINGS[thing](folder / name)
    assert name in refused(folder, tmp_path)


@pytest.mark.parametrize("thing", ["bytes", "folder", "fifo", "loop", "device"])
def test_a_template_file_that_is_something_else_is_named(tmp_path: Path, thing: str) -> None:
    folder = model(tmp_path / "m")
    THINGS[thing](folder / "chat_template.jinja")
    assert "chat_template.jinja" in refused(folder, tmp_path)


CONFIGS: dict[str, dict[str, Any]] = {
    "name alone": {"architectures": "LlamaForCausalLM"},
    "names in an object": {"architectures": {"a": 1}},
    "names of numbers": {"architectures": [3]},
    "text": {"hidden_size": "576"},
    "list": {"num_hidden_layers": [2]},
    "negative": {"vocab_size": -300},
    "none": {"num_attention_heads": 0},
    "fraction": {"intermediate_size": 1536.5},
    "huge": {"num_hidden_layers": 10**400},
    "infinite": {"hidden_size": float("inf")},
    "not a number": {"attn_logit_softcapping": float("nan")},
    "truth": {"num_key_value_heads": True},
    "more heads than sizes": {"num_attention_heads": 10_000},
    "head": {"head_dim": {"x": 1}},
    "context of one": {"max_position_embeddings": 1},
    "control": {"architectures": ["\x1b[2J"]},
}


@pytest.mark.parametrize("change", CONFIGS.values(), ids=CONFIGS)
def test_a_config_of_other_types_is_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    told = refused(model(tmp_path / "m", **change), tmp_path)
    assert "\x1b" not in told and ("config.json" in told or "LlamaForCausalLM" in told or str(tmp_path) in told)


HEADERS: dict[str, Any] = {
    "list": [],
    "no shape": {"w": {}},
    "no tensor": {"w": 3},
    "negative": {"w": {"shape": [-3, 2]}},
    "fraction": {"w": {"shape": [1.5]}},
    "text": {"w": {"shape": "ab"}},
    "huge": {"w": {"shape": [10**40]}},
    "many": {"w": {"shape": [2] * 1000}},
    "nothing": {"__metadata__": {}},
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_of_other_types_is_one_line(tmp_path: Path, header: Any) -> None:
    folder, data = model(tmp_path / "m"), json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(data)) + data)
    assert "safetensors" in refused(folder, tmp_path)


@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 10**8, 5])
def test_a_header_that_says_it_is_longer_than_the_file(tmp_path: Path, size: int) -> None:
    folder = model(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", size) + b"{}")
    assert "model.safetensors: not a safetensors file" in refused(folder, tmp_path)


TOKENIZERS: dict[str, Any] = {
    "no model": {"version": "1.0"},
    "unknown model": {"model": {"type": "Nothing"}},
    "empty model": {"model": {"type": "BPE", "vocab": {}, "merges": []}},
    "merges of nothing": {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["b c"]}},
    "unigram": {"model": {"type": "Unigram", "vocab": [], "unk_id": 7}},
    "wordpiece": {"model": {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "[UNK]", "max_input_chars_per_word": 100}},
    "negative": {"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}},
}


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_a_tokenizer_of_other_types_is_one_line(tmp_path: Path, tokenizer: Any) -> None:
    folder = model(tmp_path / "m")
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], **tokenizer}))
    assert str(folder) in refused(folder, tmp_path)


def test_settings_of_other_types_leave_a_template_out(tmp_path: Path) -> None:
    """A chat template that is none is as good as none: the prompt is plain text."""
    for number, chat in enumerate([3, [1, {"name": "default"}], {"a": 1}, [], None]):
        folder = model(tmp_path / f"m{number}", chat=None)
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": chat, "bos_token": [1]}))
        prompt = read_entry(register(f"m{number}", str(folder), "cpu", tmp_path / "entries").path).prompt
        assert prompt is not None and "Verdict" in prompt.template


def test_a_folder_s_name_stays_in_its_comment(tmp_path: Path) -> None:
    """A line break in it would end the comment, and what follows would be a key."""
    made = register("m", str(model(tmp_path / 'm\nversion = 7\x1b"')), "cpu", tmp_path / "entries")
    entry = read_entry(made.path)
    assert entry.version == 1 and entry.base is not None and "\n" not in entry.base.hub_id


def test_check_opens_a_tokenizer_within_bounds(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    entry = read_entry(register("m", str(folder), "cpu", tmp_path / "entries").path)
    found = {f.check: f for f in check_entry(entry, load_target("cpu"), model_folder=folder)}
    assert found["labels"].verdict == "ok"
    (folder / "tokenizer.json").write_text("{}")
    found = {f.check: f for f in check_entry(entry, load_target("cpu"), model_folder=folder)}
    assert found["labels"].verdict == "fail" and "tokenizer.json" in found["labels"].what
