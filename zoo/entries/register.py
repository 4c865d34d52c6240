"""Write a new entry from a model's own config, tokenizer and safetensors headers.

Derived are the architecture, the parameter count, the prompt in the model's chat format, labels that are one token each, an
AWQ group size that divides every layer, and the layout on the target. The rest is what the best teams share, to be edited.
"""

from __future__ import annotations

import json
import re
import shlex
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.checks import ARCHITECTURES, AWQ_GROUP_SIZES, FLOAT16_REFUSED, RESCALABLE, RESCALE_BITS, Finding, check_entry
from zoo.contracts import Entry, PromptSpec, Shape
from zoo.entries.load import entry_names
from zoo.errors import ZooError
from zoo.models.prompts import load_codec
from zoo.models.shapes import awq_bytes, count_parameters, linear_inputs, read_config, shape_of_config
from zoo.store import write_atomic
from zoo.targets import Target, load_target

QUESTION = """Which of two answers to a prompt would people prefer?

# Prompt
{prompt}

# Answer A
{response_a}

# Answer B
{response_b}

Say A, B or tie."""
LABELS = (("A", "B", "tie"), (" A", " B", " tie"))
PLAIN_ENDS = ("\nVerdict:\n", "\nVerdict:", "\nVerdict: ")  # of models without a chat format
SMALL = 10**9  # parameters up to which an entry gets the settings of a small model


@dataclass(frozen=True)
class Source:
    """Where a model's small files are, what it is called, and how many parameters it has."""

    folder: Path
    hub_id: str
    parameters: int
    licence: str


@dataclass(frozen=True)
class Registered:
    """A new entry's file, and what `zoo check` found of it on the target.

    The check reads the model's own files.
    """

    path: Path
    findings: list[Finding]

    @property
    def failed(self) -> int:
        return sum(finding.verdict == "fail" for finding in self.findings)


def register(name: str, base: str, target: str, out_folder: Path) -> Registered:
    """Write `out_folder/NAME.toml` for a model, and check it on the target.

    The model is a folder, or ORG/MODEL on the hub.

    ZooError where the model cannot become an entry. One that fails a check is written all the same: another target or an
    edit may be the mend.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,79}", name):
        raise ZooError(f"{name!r} is not an entry's name; use lower-case letters, digits, '.', '_' and '-'")
    path = out_folder / f"{name}.toml"
    if path.exists() or name in entry_names():
        raise ZooError(f"there is an entry {name!r} already; choose another name, or edit {path.name}")
    machine = load_target(target)
    with tempfile.TemporaryDirectory() as temporary:
        source = _source(base, Path(temporary))
        text = entry_text(name, source, machine)
        entry = Entry.model_validate(tomllib.loads(text))
        findings = check_entry(entry, machine, model_folder=source.folder)
    out_folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)
    return Registered(path, findings)


def next_steps(path: Path, target: str, base: str, *, failed: int = 0) -> list[str]:
    """What to run after `register`, as command lines. `failed`: checks that did not pass."""
    name, first = path.stem, []
    from zoo.settings import entry_folders

    if path.parent.resolve() not in [folder.resolve() for folder in entry_folders()]:
        first = [f"export ZOO_ENTRIES={shlex.quote(str(path.parent.resolve()))}"]
    if failed:
        return [*first, f"zoo check {name} --target {target}    # after the mends above in {path.name}, or for another target"]
    source = f" --source {shlex.quote(base)}" if Path(base).is_dir() else ""
    return [*first, f"zoo run {name} --data BATTLES.csv --target {target}{source}", "zoo leaderboard"]


# --- where the model is -------------------------------------------------------------------------------------------------


def _source(base: str, temporary: Path) -> Source:
    folder = Path(base)
    if folder.is_dir():
        return Source(folder, folder.resolve().name, count_parameters(folder), "unknown: see the model's card")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", base) or folder.is_absolute():
        raise ZooError(f"{base}: neither a folder nor ORG/MODEL; give one of them with --base")
    return _hub_source(base, temporary)


def _hub_source(hub_id: str, temporary: Path) -> Source:
    """The small files of a model on the hub; its parameters are those that the hub counted in the safetensors headers."""
    from huggingface_hub import HfApi, snapshot_download

    small = ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    try:
        info = HfApi().model_info(hub_id, timeout=20)
        snapshot_download(hub_id, local_dir=temporary, allow_patterns=small)
    except Exception as error:  # the hub's own errors, the network's, and those of its file locks
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ZooError(f"{hub_id}: the hub gave nothing ({reason}); give a model folder with --base") from error
    if info.safetensors is None:
        raise ZooError(f"{hub_id}: no safetensors weights on the hub; choose a model that has them")
    licence = str((info.card_data or {}).get("license", "unknown: see the model's card"))
    return Source(temporary, hub_id, info.safetensors.total, licence)


# --- what follows from its files ----------------------------------------------------------------------------------------


def entry_text(name: str, source: Source, target: Target) -> str:
    """The TOML of an entry for a model."""
    config = read_config(source.folder)
    architecture = _architecture(config, source.folder)
    shape = shape_of_config(config)
    group_size = _group_size(shape, source.folder)
    prompt = _prompt(source.folder)
    small = source.parameters <= SMALL
    context = shape.max_position_embeddings or 2**20
    max_tokens = min(512 if small else 2048, context - 1)  # the label is a token too
    lines = [
        f"# Written by `zoo register` from the files of {source.hub_id}, to be edited; `zoo check {name}` says what holds.",
        f'name = "{name}"',
        "version = 1",
        f"description = {_quote(f'{source.hub_id}, {source.parameters / 1e9:.2g} billion parameters')}",
        "",
        "[base]",
        f"hub_id = {_quote(source.hub_id)}",
        f'architecture = "{architecture}"',
        f"parameters = {source.parameters}",
        f"licence = {_quote(source.licence)}",
        "",
        "[shape]  # of its config.json",
        *[f"{key} = {json.dumps(value)}" for key, value in shape.model_dump(exclude_none=True).items()],
        "",
        "[prompt]",
        f'template = """\n{_escape(prompt.template)}"""',
        f"labels = {json.dumps(list(prompt.labels))}  # one token each where they follow the template",
        f"max_tokens = {max_tokens}",
        "",
        *_train_lines(small),
        *_quantize_lines(group_size, shape, target),
        "[score]",
        f'variants = [{{ order = "ab", max_tokens = {max_tokens} }}, {{ order = "ba", max_tokens = {max_tokens} }}]',
        "",
        *_serve_lines(architecture, awq_bytes(shape, source.parameters, group_size), target),
    ]
    return "\n".join(lines)


def _train_lines(small: bool) -> list[str]:
    """QLoRA as the best teams' 8B to 9B models had it (LMSYS 3rd place), or for a small model faster and narrower."""
    rank, alpha, rate = (16, 32, "5e-4") if small else (64, 16, "1e-4")
    checkpointing = [] if small else ["gradient_checkpointing = true"]
    return [
        "[train]",
        f"rank = {rank}",
        f"alpha = {alpha}",
        'target_modules = "all-linear"',
        f"learning_rate = {rate}",
        *checkpointing,
        "",
    ]


def _quantize_lines(group_size: int, shape: Shape, target: Target) -> list[str]:
    on_cpu = [
        "calibration_rows = 8",
        "calibration_tokens = 256",
        "apply_clip = false  # on a CPU the clip search takes longest",
    ]
    return [
        "[quantize]",
        f"group_size = {group_size}  # divides every linear layer: {', '.join(map(str, linear_inputs(shape)))}",
        *(on_cpu if target.gpus == 0 else []),
        "",
    ]


def _architecture(config: dict[str, Any], folder: Path) -> str:
    names = config.get("architectures") or []
    if not names:
        raise ZooError(f"{folder / 'config.json'}: no `architectures`; add the class the weights were saved from")
    if "quantization_config" in config:
        raise ZooError(f"{folder}: the weights are quantized already; give the 16-bit model it was made from")
    if names[0] not in ARCHITECTURES:
        known = ", ".join(sorted(name.removesuffix("ForCausalLM") for name in ARCHITECTURES))
        raise ZooError(f"{folder}: AutoAWQ and vLLM do not both know {names[0]}; supported decoders: {known}")
    return str(names[0])


def _group_size(shape: Shape, folder: Path) -> int:
    fitting = [group for group in AWQ_GROUP_SIZES if all(size % group == 0 for size in linear_inputs(shape))]
    if not fitting:
        sizes, groups = ", ".join(map(str, linear_inputs(shape))), ", ".join(map(str, AWQ_GROUP_SIZES))
        raise ZooError(f"{folder}: none of AWQ's group sizes ({groups}) divides its layers ({sizes}); choose another model")
    return max(fitting)


def _serve_lines(architecture: str, weight_bytes: int, target: Target) -> list[str]:
    """`[serve.TARGET]`: replicas if half of a card takes the weights, else split; float16 where there is no bfloat16."""
    fits = weight_bytes <= target.device_bytes / 2
    layout = "replicas" if fits or target.gpus < 2 else "pipeline"
    needs_float16 = "bfloat16" not in target.dtypes and architecture not in FLOAT16_REFUSED
    rescaled = "bfloat16" not in target.dtypes and architecture in RESCALABLE
    return [
        f"[serve.{target.name}]",
        f'layout = "{layout}"  # {weight_bytes / 2**30:.2g} GiB of weights',
        f'dtype = "{"float16" if needs_float16 or rescaled else "auto"}"',
        *([f"float16_rescale_bits = {RESCALE_BITS}  # it overflows float16 without"] if rescaled else []),
        "",
    ]


# --- prompt -------------------------------------------------------------------------------------------------------------


def _prompt(folder: Path) -> PromptSpec:
    """The first prompt, of the model's chat format or in plain text, after which three labels are one token each."""
    reasons = []
    for template in _templates(folder):
        for labels in LABELS:
            spec = PromptSpec(template=template, labels=labels)
            try:
                load_codec(folder, spec)
            except ZooError as error:
                reasons.append(str(error))
                continue
            return spec
    raise ZooError(f"{folder}: no labels that are one token each ({reasons[0]})")


def _templates(folder: Path) -> list[str]:
    settings = _tokenizer_settings(folder)
    chat = _chat_template(folder, settings)
    if chat:
        rendered = render_chat(chat, settings, folder)
        return [rendered, rendered + "\n"]
    return [_start_token(folder) + QUESTION + end for end in PLAIN_ENDS]


def _tokenizer_settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    try:
        loaded = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ZooError(f"{path}: not JSON ({error}); copy it again") from error
    return loaded if isinstance(loaded, dict) else {}


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    found = settings.get("chat_template")
    if isinstance(found, list):  # named templates
        found = next((item.get("template") for item in found if item.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def render_chat(chat: str, settings: dict[str, Any], folder: Path) -> str:
    """A user turn with the question and the start of the model's, in its own chat format.

    The template is code of the model's makers: it runs in jinja's sandbox, with what transformers gives it.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: "2026-01-01"  # a date that does not change the prompt from day to day
    tokens = {key: _token_text(settings.get(key)) for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
    messages = [{"role": "user", "content": QUESTION}]
    try:
        text = environment.from_string(chat).render(
            messages=messages, add_generation_prompt=True, enable_thinking=False, tools=None, documents=None, **tokens
        )
    except (TemplateError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise ZooError(f"{folder}: its chat template fails ({reason}); write the entry by hand") from error
    if text.count(QUESTION) != 1:
        raise ZooError(f"{folder}: its chat template changes the text of a message; write the entry by hand")
    return text


def _token_text(token: Any) -> str:
    return str((token.get("content") if isinstance(token, dict) else token) or "")


def _start_token(folder: Path) -> str:
    """The token that the tokenizer itself puts before a text, or nothing."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.exists():
        raise ZooError(f"{path}: no such file; save the model's tokenizer in its fast form (tokenizer.json) there")
    tokenizer = Tokenizer.from_file(str(path))
    with_special = tokenizer.encode("x", add_special_tokens=True)
    starts = [token for token, special in zip(with_special.tokens, with_special.special_tokens_mask, strict=True) if special]
    return starts[0] if starts and with_special.special_tokens_mask[0] else ""


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _escape(text: str) -> str:
    """Text inside a multi-line TOML string."""
    return text.replace("\\", "\\\\").replace('"""', '""\\"').replace("\r", "\\r")
