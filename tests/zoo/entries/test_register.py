"""From a model's own files to an entry that validates, with a prompt its tokenizer reads as meant; the rest is refused."""

from __future__ import annotations

import json
import struct
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.model_folders import model
from zoo.checks import check_entry
from zoo.contracts import Entry, PromptSpec
from zoo.entries.chat_template import QUESTION
from zoo.entries.load import load_entry, read_entry
from zoo.entries.register import next_steps, register
from zoo.entries.toml import document
from zoo.errors import ZooError
from zoo.models.prompts import load_codec
from zoo.report.text import Column, Table, as_text
from zoo.targets import load_target


def test_a_chat_model_becomes_an_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model(tmp_path / "tiny")
    made = register("tiny-llama", str(folder), "t4x2", tmp_path / "entries")
    monkeypatch.setenv("ZOO_ENTRIES", str(tmp_path / "entries"))
    entry = load_entry("tiny-llama")
    assert entry == read_entry(made.path) and made.failed == 0
    assert entry.base is not None and entry.prompt is not None and entry.quantize is not None
    assert entry.base.parameters == 300 * 576 and entry.base.architecture == "LlamaForCausalLM" and entry.base.hub_id == "tiny"
    assert entry.prompt.template == f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    assert entry.quantize.group_size == 32, "a model below 3 billion parameters has small groups"
    assert entry.serve["t4x2"].layout == "replicas" and entry.serve["t4x2"].dtype == "float16"
    findings = check_entry(entry, load_target("t4x2"), model_folder=folder)
    assert [f.check for f in findings if f.verdict != "ok"] == [], "heads of 64 have FlashInfer's attention there"


def test_committed_entries_use_the_question_that_register_writes() -> None:
    for name in ("smollm2-135m", "llama-3-8b", "gemma-2-9b", "yi-34b"):
        prompt = load_entry(name).prompt
        assert prompt is not None and QUESTION in prompt.template


def test_a_base_model_gets_a_plain_prompt_with_its_start_token(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    folder = model(tmp_path / "base", chat=None)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    start = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
    tokenizer.save(str(folder / "tokenizer.json"))
    prompt = read_entry(register("base", str(folder), "cpu", tmp_path / "entries").path).prompt
    assert prompt is not None
    assert prompt.template == f"<s>{QUESTION}\nVerdict:\n"
    assert load_codec(folder, prompt).literals[0][0] == start


def test_labels_with_a_space_where_only_those_are_single_tokens(tmp_path: Path) -> None:
    spaced = tuple(f"Ġ{label}" for label in ("A", "B", "tie"))
    folder = model(tmp_path / "spaced", chat=None, words=spaced)
    prompt = read_entry(register("spaced", str(folder), "cpu", tmp_path / "entries").path).prompt
    assert prompt is not None and prompt.labels == (" A", " B", " tie") and prompt.template.endswith("Verdict:\n")
    assert len(set(load_codec(folder, prompt).label_ids)) == 3


def test_layout_and_settings_follow_the_target(tmp_path: Path) -> None:
    large = {"hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "num_hidden_layers": 80}
    folder = model(tmp_path / "large", **large)
    header = json.dumps({"w": {"shape": [34, 10**9]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    entry = read_entry(register("large", str(folder), "t4x2", tmp_path / "a").path)
    assert entry.serve["t4x2"].layout == "pipeline"
    assert entry.train is not None and entry.train.rank == 64 and entry.train.gradient_checkpointing
    assert entry.quantize is not None and entry.quantize.group_size == 128 and entry.quantize.apply_clip
    small = read_entry(register("small", str(model(tmp_path / "small")), "cpu", tmp_path / "b").path)
    assert small.quantize is not None and not small.quantize.apply_clip and small.serve["cpu"].dtype == "auto"


@pytest.mark.parametrize(
    ("architecture", "backend"), [("Gemma3ForCausalLM", "llm-compressor"), ("Gemma2ForCausalLM", "autoawq")]
)
def test_the_backend_is_one_that_quantizes_the_architecture(tmp_path: Path, architecture: str, backend: str) -> None:
    folder = model(tmp_path / "m", architectures=[architecture])
    made = register("m", str(folder), "l4x2", tmp_path / "entries")
    quantize = read_entry(made.path).quantize
    assert quantize is not None and quantize.backend == backend
    assert next(f for f in made.findings if f.check == "architecture").verdict == "ok"


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "architecture",
        {"architectures": ["MambaForCausalLM"]},
        "no quantization backend knows MambaForCausalLM; .* Bloom",
    ),
    ("no architecture", {"architectures": []}, "no `architectures`"),
    ("quantized", {"quantization_config": {"bits": 4}}, "quantized already"),
    ("groups", {"hidden_size": 600, "num_attention_heads": 10}, "none of AWQ's group sizes .* divides its layers"),
    ("labels", {"words": ("ti",)}, "no labels that are one token each .*'tie' is not one token"),
    (
        "template",
        {"chat": "{{ raise_exception('no user turns') }}"},
        "config.json: the chat template fails .no user turns.",
    ),
    ("broken template", {"chat": "{% for %}"}, "the chat template fails"),
    ("shouting", {"chat": "{{ messages[0]['content'].upper() }}"}, "changes the text of a message"),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = model(tmp_path / "m", **change)
    with pytest.raises(ZooError, match=message) as caught:
        register("m", str(folder), "cpu", tmp_path / "entries")
    assert "\n" not in str(caught.value) and not (tmp_path / "entries").exists()


def test_a_template_cannot_reach_out_of_its_sandbox(tmp_path: Path) -> None:
    escape = "{{ messages.__class__.__mro__[1].__subclasses__() }}{{ messages[0]['content'] }}"
    with pytest.raises(ZooError, match="the chat template fails"):
        register("m", str(model(tmp_path / "m", chat=escape)), "cpu", tmp_path / "entries")


def test_missing_files_names_and_existing_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = model(tmp_path / "m"), tmp_path / "entries"
    with pytest.raises(ZooError, match="is not an entry's name"):
        register("Big Model", str(folder), "cpu", out)
    with pytest.raises(ZooError, match="there is an entry 'lexical' already"):
        register("lexical", str(folder), "cpu", out)
    with pytest.raises(ZooError, match="neither a folder nor ORG/MODEL"):
        register("m", str(tmp_path / "absent"), "cpu", out)
    register("m", str(folder), "cpu", out)
    with pytest.raises(ZooError, match="there is an entry 'm' already"):
        register("m", str(folder), "cpu", out)
    for name, message in (("model.safetensors", "no .*safetensors files"), ("config.json", "config.json: no such file")):
        (folder / name).rename(tmp_path / name)
        with pytest.raises(ZooError, match=message):
            register("n", str(folder), "cpu", out)
        (tmp_path / name).rename(folder / name)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ZooError, match=r"tokenizer\.json: no such file"):
        register("n", str(folder), "cpu", out)


def test_an_unreachable_hub_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ZooError, match=r"org/model: the hub gave nothing .*; give a model folder with --base"):
        register("m", "org/model", "cpu", tmp_path)


def test_next_steps_name_the_folder_and_the_source(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    steps = next_steps(register("m", str(folder), "cpu", tmp_path / "entries").path, "cpu", str(folder))
    assert steps[0] == f"export ZOO_ENTRIES={tmp_path / 'entries'}"
    assert steps[1] == f"zoo run m --data BATTLES.csv --target cpu --source {folder}"


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from('\n\t"\\\r'), max_size=40))
def test_any_template_survives_toml(text: str) -> None:
    template = f"{text}{{prompt}}{{response_a}}{{response_b}}{text}"
    if not all(template.count(f"{{{field}}}") == 1 for field in ("prompt", "response_a", "response_b")):
        return
    parsed = tomllib.loads(document({"template": template}))["template"]
    assert PromptSpec(template=parsed).template == template


def test_a_short_context_leaves_room_for_the_label(tmp_path: Path) -> None:
    made = register("short", str(model(tmp_path / "m", max_position_embeddings=512)), "cpu", tmp_path / "entries")
    entry = read_entry(made.path)
    assert entry.prompt is not None and entry.prompt.max_tokens == 511 and made.failed == 0


def test_tables_print_brackets_as_they_are() -> None:
    text = "lower max_tokens in [prompt] and [score] :smile:"
    assert "[prompt] and [score] :smile:" in as_text(Table([Column("what")], [[text]]))


def test_register_checks_and_says_what_fails(tmp_path: Path) -> None:
    """Too large for the target: the entry is written, the checks say why, and the next step is to mend it."""
    large = {"hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "num_hidden_layers": 80}
    folder = model(tmp_path / "large", **large)
    header = json.dumps({"w": {"shape": [90, 10**9]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    made = register("large", str(folder), "t4x2", tmp_path / "entries")
    assert made.path.exists() and any(f.check.startswith("memory") for f in made.findings if f.verdict == "fail")
    assert made.findings == check_entry(read_entry(made.path), load_target("t4x2"), model_folder=folder)
    steps = next_steps(made.path, "t4x2", str(folder), failed=made.failed)
    assert steps[-1].startswith("zoo check large --target t4x2") and not any(step.startswith("zoo run") for step in steps)


def test_the_written_entry_is_commented_toml(tmp_path: Path) -> None:
    text = register("m", str(model(tmp_path / "m")), "t4x2", tmp_path / "entries").path.read_text()
    assert text.startswith("# Written by `zoo register`") and "divides every linear layer: 576, 1536" in text
    assert str(tmp_path) not in text
    assert isinstance(Entry.model_validate(tomllib.loads(text)), Entry)
