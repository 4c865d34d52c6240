"""How an exported folder is asked, by its files: the facts of its prompt.json and card.

transformers reads a decoder's classifier at the last token of a row that is not `pad_token_id`. So that this is the row's own
last one, whatever the template ends with, the padding token of an exported classifier is another than that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.contracts import LABELS, Encoder, Head, Order, PromptSpec
from zoo.errors import ZooError
from zoo.models.config_defaults import completed
from zoo.models.encoders import encoder_of
from zoo.models.heads import causal_name, head_of, label_names, softcap_of, without_softcap
from zoo.models.plain_text import control_ids, read_tokenizer_file, unknown_token
from zoo.models.prompts import Codec, load_codec
from zoo.models.shapes import first_architecture, read_config
from zoo.reading import read_json_object
from zoo.store import write_atomic

FIRST, LAST, MEAN = "first token", "last token", "mean of all tokens"  # what a head reads
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"


@dataclass(frozen=True)
class Asking:
    """What decides how a form is asked.

    `architecture`: the causal class of which vLLM makes a decoder's classifier; `label_ids`: of a head of label tokens;
    `reads`, `softcap` (which no library applies) and `pad_token_id`: of a classifier. `eager`: whether transformers' usual
    attention would leave out a soft-cap of the attention. `nf4`: an adapter that learned on weights rounded to NF4.
    """

    form: str
    prompt: PromptSpec
    head: Head
    encoder: Encoder | None
    architecture: str
    label_ids: tuple[int, ...]
    reads: str
    softcap: float | None
    pad_token_id: int
    eager: bool
    nf4: bool

    def facts(self, order: Order) -> dict[str, Any]:
        """The content of prompt.json.

        `order`: that in which the run's numbers were measured.
        """
        facts = {**self.prompt.model_dump(mode="json"), "keep": self.prompt.keep, "order": order}
        if self.head == "labels":
            return {**facts, "label_ids": list(self.label_ids)}
        return {
            **facts,
            "head": self.head,
            "classes": list(LABELS),
            "reads": self.reads,
            "softcap": self.softcap,
            "pad_token_id": self.pad_token_id,
        }


def asking_of(folder: Path, model: Path, form: str, prompt: PromptSpec, *, nf4: bool, capped: bool) -> Asking:
    """How a folder with its tokenizer is asked.

    `model`: the folder with its config.json, of an adapter its base's. `capped`: whether a classifier learned with its family's
    final soft-cap, as all do that are trained here. ZooError where a label is not one token.
    """
    config = read_config(model)
    head = head_of(config) if folder == model else _adapter_head(folder)
    encoder = encoder_of(config)
    codec, classifier = load_codec(model, prompt), head == "classifier"
    padding = 0  # of label tokens, which no library pads here
    if encoder:
        padding = _encoder_padding(config, encoder)
    elif classifier:
        padding = padding_of(config, codec, read_tokenizer_file(folder / TOKENIZER))
    return Asking(
        form=form,
        prompt=prompt,
        head=head,
        encoder=encoder,
        architecture="" if encoder else causal_name(first_architecture(config, model)),
        label_ids=codec.label_ids if head == "labels" else (),
        reads=_reads(config, encoder),
        softcap=softcap_of(config if capped else without_softcap(config)) if classifier and not encoder else None,
        pad_token_id=padding,
        eager=not encoder and bool(completed(config).get("attn_logit_softcapping")),
        nf4=nf4,
    )


def complete_classifier(folder: Path, asking: Asking) -> None:
    """Name classes and padding in a classifier's folder.

    transformers then takes batches of it, and its AutoTokenizer reads tokenizer.json as it stands: by a family's own class it
    would make another tokenizer of the same vocabulary. An adapter has no config of a model, and is told beside its base what
    it needs.
    """
    path = folder / "config.json"
    if path.is_file():
        config = {**read_config(folder), **label_names(), "pad_token_id": asking.pad_token_id}
        write_atomic(path, json.dumps(config, indent=1))
    name = control_ids(read_tokenizer_file(folder / TOKENIZER)).get(asking.pad_token_id)
    for path in (folder / TOKENIZER_CONFIG, folder / "special_tokens_map.json"):  # the second goes before the first
        found = read_json_object(path, mend="copy the model again") if path.is_file() else {}
        if path.name == TOKENIZER_CONFIG:
            found = {
                "model_input_names": ["input_ids", "attention_mask"],
                **found,
                "tokenizer_class": "PreTrainedTokenizerFast",
            }
        elif not found:
            continue
        found.pop("pad_token", None)  # an ordinary token named there would be split off in every text
        write_atomic(path, json.dumps(found | ({"pad_token": name} if name is not None else {}), indent=1))


def padding_of(config: Mapping[str, Any], codec: Codec, content: dict[str, Any]) -> int:
    """A token to pad a decoder's rows with that is never the last of one.

    `content`: of tokenizer.json. Special where there is such a one: the model's own, else what is called padding. The end of a
    template that ends with a field is text of a battle, of which any token may come, the unknown one included, but no other
    special one. ZooError where none is left.
    """
    controls, own, size = control_ids(content), config.get("pad_token_id"), int(config["vocab_size"])
    if codec.literals[-1]:
        taken, last = set[int](), codec.literals[-1][-1:]
        fits = {*controls, *range(2), own}
    else:  # a field may be empty, too: its row ends with a piece before
        taken, last = set(unknown_token(content)), tuple(piece[-1] for piece in codec.literals if piece)
        taken |= {token for token, name in controls.items() if token in codec.encode_text([name])[0]}
        fits = set(controls)
    free = [token for token in fits - taken - {*last} if isinstance(token, int) and 0 <= token < size]
    if not free:
        raise ZooError("the template ends in a field, and no special token could pad rows; end it in text, and train again")
    return min(free, key=lambda one: (one not in controls, one != own, "pad" not in controls.get(one, "").lower(), one))


def _encoder_padding(config: Mapping[str, Any], encoder: Encoder) -> int:
    """An encoder's own padding token.

    Where config.json says nothing, as transformers has it for the family.
    """
    own = config.get("pad_token_id")
    return own if isinstance(own, int) else 1 if encoder == "Roberta" else 0


def _reads(config: Mapping[str, Any], encoder: Encoder | None) -> str:
    if encoder is None:
        return LAST
    return MEAN if encoder == "ModernBert" and config.get("classifier_pooling") == "mean" else FIRST


def _adapter_head(folder: Path) -> Head:
    config = json.loads((folder / "adapter_config.json").read_text())
    return "classifier" if config.get("task_type") == "SEQ_CLS" else "labels"
