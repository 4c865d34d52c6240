"""Take weights that were trained elsewhere: into the store, and an entry of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from zoo.contracts import LABELS, Elsewhere, Head, PromptSpec, Say, explain
from zoo.entries.chat_template import template_prompt
from zoo.entries.public_prompts import PUBLIC_PROMPTS, public_prompt
from zoo.entries.register import Made, Registered, new_entry_path, register
from zoo.errors import ZooError, printable
from zoo.models.foreign import Classes, ForeignAdapter, ForeignCheckpoint, Quantized, read_adapter, read_checkpoint
from zoo.models.prompts import bounded_label_ids
from zoo.pipeline.adopted import adopt_request
from zoo.pipeline.runner import run_stage
from zoo.reading import read_bytes, read_json_object
from zoo.store import file_sha256, folder_fingerprint
from zoo.targets import load_target

MOST_TEMPLATE_BYTES = 1 << 20
PROMPT = "prompt.json"  # beside weights that `zoo export` wrote: the prompt that they read
# What stands beside it there.
NOT_OF_A_PROMPT = ("label_ids", "order", "head", "classes", "reads", "softcap", "pad_token_id")
NONE = "none"
N_FOLDS = 5  # of a run that scores every row
# What [quantize] says of a checkpoint that is quantized already: what it costs and needs, since nothing is quantized.
QUANTIZE: dict[Quantized, dict[str, Any]] = {
    "awq": {},
    "gptq": {},
    "w4a16": {"backend": "llm-compressor"},
    "int8": {"scheme": "int8"},
    "w4a8": {"scheme": "w4a8"},
    "fp8": {"scheme": "fp8"},
}
GROUPED = ("awq", "gptq", "w4a16", "w4a8")


@dataclass(frozen=True)
class Offered:
    """What somebody gives: adapters or a checkpoint, and what they know of it.

    Several adapters are of folds, in order.

    `base`: the model folder or ORG/MODEL that adapters are of, or whose tokenizer a checkpoint has. `template`: a file with the
    prompt, or the name of a public one. `classes`: what a classifier's outputs stand for, as text. `trained_on`: a file of
    battles, or `none`.
    """

    adapters: tuple[Path, ...] = ()
    checkpoint: Path | None = None
    base: str | None = None
    template: Path | None = None
    classes: str | None = None
    trained_on: str | None = None

    @property
    def is_made(self) -> bool:
        """Whether weights are given. ZooError where both kinds of them are."""
        if self.adapters and self.checkpoint is not None:
            raise ZooError("--adapter and --checkpoint: give one of them")
        return bool(self.adapters) or self.checkpoint is not None

    @property
    def folds(self) -> int:
        """How many folds a run of the entry goes over, so that every row is scored."""
        return len(self.adapters) if len(self.adapters) > 1 else N_FOLDS

    def check_plain(self, battles: Path | None) -> str:
        """The base of an entry that is trained here.

        ZooError where it is missing, or is given what is of weights.
        """
        of_weights = {"--template": self.template, "--classes": self.classes, "--trained-on": self.trained_on}
        of_weights["--battles"] = battles
        if other := next((option for option, value in of_weights.items() if value is not None), None):
            raise ZooError(f"{other}: is of weights that were trained elsewhere; give them with --adapter or --checkpoint")
        if self.base is None:
            raise ZooError("give a model with --base, an adapter with --adapter, or a whole model with --checkpoint")
        return self.base


@dataclass(frozen=True)
class Adopted:
    """The entry that was written, the base that its adapters are of, and what was assumed."""

    registered: Registered
    base: str | None
    notes: tuple[str, ...]


def parse_adapters(given: Sequence[str]) -> tuple[Path, ...]:
    """The folders of `--adapter FOLDER`, or of several in the order of their folds.

    ZooError where a fold is missing, or is there twice.
    """
    found = [re.fullmatch(r"(\d{1,3})=(.+)", text) for text in given]
    if len(given) < 2 and not any(found):
        return tuple(map(Path, given))
    if not all(found):
        raise ZooError(f"--adapter {given[0]}: several adapters are of folds; write --adapter 0=FOLDER --adapter 1=FOLDER ...")
    folds = {int(match[1]): Path(match[2]) for match in found if match}
    if sorted(folds) != list(range(len(given))) or len(given) < 2:
        raise ZooError(f"--adapter: folds {', '.join(m[1] for m in found if m)}; give each from 0 on once, and at least two")
    return tuple(folds[fold] for fold in range(len(folds)))


def adopt(name: str, offered: Offered, target: str, out_folder: Path, store: Path, say: Say) -> Adopted:
    """Copy weights from elsewhere into the store, and write and check an entry for them.

    ZooError where they cannot be read, merged or served, with the mend; then no entry is written.
    """
    new_entry_path(name, out_folder)
    load_target(target)
    if offered.checkpoint is None:
        return _adopt_adapters(name, offered, target, out_folder, store, say)
    return _adopt_checkpoint(name, offered, offered.checkpoint, target, out_folder, store, say)


def _adopt_adapters(name: str, offered: Offered, target: str, out_folder: Path, store: Path, say: Say) -> Adopted:
    facts = [read_adapter(folder) for folder in offered.adapters]
    head, base = _same_head(facts), offered.base or facts[0].base
    if not base:
        raise ZooError(f"{facts[0].folder}: does not name its base; give it with --base")
    if offered.base is None and Path(base).is_absolute() and not Path(base).is_dir():
        raise ZooError(f"{facts[0].folder}: its base is {printable(base)[:80]}, which is not here; give it with --base")
    classes, notes = _classes(offered, head, None)
    made = _elsewhere("adapter", offered.adapters, classes, offered)
    prompt = _prompt(offered.template or _beside(offered.adapters[0]), head)
    _take(name, head, made, offered, store, say)
    settings = {"head": head, "merge": {"into": "original"}, "elsewhere": made.model_dump(mode="json", exclude_defaults=True)}
    registered = register(name, base, target, out_folder, Made(settings, prompt))
    return Adopted(registered, base, notes)


def _adopt_checkpoint(
    name: str, offered: Offered, folder: Path, target: str, out_folder: Path, store: Path, say: Say
) -> Adopted:
    facts = read_checkpoint(folder)
    classes, notes = _classes(offered, facts.head, facts.classes)
    tokenizer = None if (folder / "tokenizer.json").exists() else _tokenizer(offered, folder)
    made = _elsewhere("checkpoint", (folder,), classes, offered, quantized=bool(facts.quantized), tokenizer=tokenizer)
    prompt = _prompt(offered.template or _beside(folder), facts.head)
    place = _take(name, facts.head, made, offered, store, say, tokenizer=tokenizer)
    settings: dict[str, Any] = {"head": facts.head, "elsewhere": made.model_dump(mode="json", exclude_defaults=True)}
    if facts.quantized:
        settings["quantize"] = _quantize(facts)
    if facts.packed:
        kind = facts.packed if facts.packed == "int8" else facts.packed.upper()
        notes += (f"dequantized from {kind} of bitsandbytes; the loss is that of its {kind} weights",)
    label = printable(folder.resolve().name)
    registered = register(name, str(place / "model"), target, out_folder, Made(settings, prompt, label=label))
    return Adopted(registered, None, notes)


def _quantize(facts: ForeignCheckpoint) -> dict[str, Any]:
    grouped = {"group_size": facts.group_size} if facts.quantized in GROUPED and facts.group_size else {}
    return QUANTIZE[facts.quantized] | grouped


def _same_head(facts: Sequence[ForeignAdapter]) -> Head:
    if len({one.head for one in facts}) > 1:
        other = next(one for one in facts if one.head != facts[0].head)
        raise ZooError(f"{other.folder}: has head = {other.head!r}, {facts[0].folder} {facts[0].head!r}; folds have one head")
    return facts[0].head


def _elsewhere(
    kind: str,
    folders: Sequence[Path],
    classes: Classes,
    offered: Offered,
    *,
    quantized: bool = False,
    tokenizer: Path | None = None,
) -> Elsewhere:
    trained_on = offered.trained_on
    if trained_on not in (None, NONE):
        if not Path(trained_on).is_file():
            raise ZooError(f"--trained-on {trained_on}: no such file; give the battles that it learned from, or none")
        trained_on = file_sha256(Path(trained_on))[:16]
    return Elsewhere.model_validate(
        {
            "kind": kind,
            "folders": [folder_fingerprint(folder) for folder in folders],
            "quantized": quantized,
            "classes": classes,
            "tokenizer": file_sha256(tokenizer)[:16] if tokenizer else None,
            "trained_on": trained_on,
        }
    )


def _take(
    name: str, head: Head, made: Elsewhere, offered: Offered, store: Path, say: Say, *, tokenizer: Path | None = None
) -> Path:
    """Run the adopt stage for each folder; the last one's artifact."""
    folders = [folder.absolute() for folder in offered.adapters or [cast(Path, offered.checkpoint)]]
    trained_on = None if offered.trained_on in (None, NONE) else Path(offered.trained_on).absolute()
    for fold in range(len(folders)):
        request = adopt_request(
            name,
            head,
            made,
            fold=fold if made.by_fold else None,
            folders=folders,
            trained_on=trained_on,
            tokenizer=tokenizer.absolute() if tokenizer else None,
        )
        artifact = run_stage(request, store, say=say)
    return artifact.path


def _tokenizer(offered: Offered, folder: Path) -> Path:
    """The tokenizer.json of the base's folder, for a checkpoint without one."""
    path = Path(offered.base or "") / "tokenizer.json"
    if offered.base is None or not path.is_file():
        raise ZooError(f"{folder}: no tokenizer.json; give the folder of its base, which has one, with --base")
    return path


def _classes(offered: Offered, head: Head, told: Classes | None) -> tuple[Classes, tuple[str, ...]]:
    """What a classifier's outputs stand for: as the user says, else as the folder does, else assumed and told."""
    if offered.classes is not None and head == "labels":
        raise ZooError(f"--classes {offered.classes}: is of a classifier, and this answers by label tokens; leave it out")
    if offered.classes is not None:
        named = tuple(part.strip() for part in offered.classes.split(","))
        if sorted(named) != sorted(LABELS):
            raise ZooError(f"--classes {offered.classes}: write a, b and tie in the order of its outputs, as in b,a,tie")
        return (named[0], named[1], named[2]), ()
    if head == "labels" or told is not None:
        return told or LABELS, ()
    return LABELS, ("nothing says what its three outputs stand for: taken as a, b, tie (--classes says another order)",)


def _beside(folder: Path) -> Path | None:
    return folder / PROMPT if (folder / PROMPT).is_file() else None


def _prompt(template: Path | None, head: Head) -> Callable[[Path], tuple[PromptSpec, tuple[int, ...]]] | None:
    """How the prompt is found: by a public one's name, of a prompt.json, of a text, or as of a base of its kind (None)."""
    if template is None:
        return None
    if str(template) in PUBLIC_PROMPTS:
        return partial(public_prompt, name=str(template), classifier=head == "classifier")
    if not template.exists():
        raise ZooError(f"--template {template}: no such file; give one, or a public prompt's name: {', '.join(PUBLIC_PROMPTS)}")
    if template.suffix == ".json":
        return partial(_prompt_of_json, template)
    return partial(template_prompt, template=read_template(template, "--template"), classifier=head == "classifier")


def _prompt_of_json(path: Path, folder: Path) -> tuple[PromptSpec, tuple[int, ...]]:
    found = read_json_object(path, mend="give a prompt.json as `zoo export` writes it, or a text file with a template")
    try:
        spec = PromptSpec.model_validate({key: value for key, value in found.items() if key not in NOT_OF_A_PROMPT})
    except ValidationError as error:
        raise ZooError(f"{path}: {explain(error, PromptSpec)}") from error
    return spec, bounded_label_ids(folder, spec)


def read_template(path: Path, option: str) -> str:
    """A text file with a prompt's template. ZooError, naming the option, where it is none."""
    try:
        text = read_bytes(path, MOST_TEMPLATE_BYTES, mend="give a text file with a template").decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ZooError(f"{option} {path}: not UTF-8 text; save it as UTF-8") from None
    missing = [field for field in ("{prompt}", "{response_a}", "{response_b}") if text.count(field) != 1]
    if missing:
        raise ZooError(f"{option} {path}: must hold {', '.join(missing)} exactly once")
    return text
