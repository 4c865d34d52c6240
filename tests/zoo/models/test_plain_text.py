"""Texts of a battle never hold an added token, whatever the tokenizer's model and whatever it calls special."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.helpers.tiny_models import TEMPLATE
from zoo.contracts import PromptSpec
from zoo.errors import ZooError
from zoo.models.plain_text import control_ids, plain_tokenizer, read_tokenizer_file
from zoo.models.prompts import load_codec

CORPUS = ["A B tie who wins the answer is [SEP] because", "call a <tool_call> or an <image> tool call im end unk </s>"] * 20
SPECIAL = ["<pad>", "<unk>", "</s>", "[SEP]", "<|im_end|>"]
ORDINARY = [
    AddedToken("<tool_call>", normalized=False, special=False),
    AddedToken("<image>", normalized=True, special=False),
    AddedToken("<left>", lstrip=True, special=False),
    AddedToken("<right>", rstrip=True, special=False),
    AddedToken("word", single_word=True, special=False),
    AddedToken("\n\n", normalized=False, special=False),
    AddedToken("answer", special=False),  # in every vocabulary that is trained on the corpus
]
KINDS = ("byte-level", "byte-level, whole words", "byte fallback", "word pieces", "unigram", "words")
LOSSLESS = KINDS[:3]
Encode = Callable[[Sequence[str]], list[list[int]]]


def built(kind: str) -> Tokenizer:
    if kind.startswith("byte-level"):
        tokenizer = Tokenizer(models.BPE(ignore_merges="whole" in kind))
        # Without its expression whole lines are words, `<tool_call>` among them.
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex="whole" not in kind)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet)
    elif kind == "byte fallback":
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
        tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
        bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=[*SPECIAL, *bytes_])
    elif kind == "word pieces":
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL)
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>")
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(special_tokens=SPECIAL)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens(ORDINARY)
    return tokenizer


@cache
def pair(kind: str) -> tuple[Tokenizer, Tokenizer, dict[str, Any]]:
    """The tokenizer as its library reads it, the plain one, and the file's content."""
    tokenizer = built(kind)
    content = json.loads(tokenizer.to_str())
    return tokenizer, plain_tokenizer(content), content


def forbidden(content: dict[str, Any]) -> set[int]:
    """Ids of all added tokens but white space, and those that stand for what the vocabulary lacks: bytes, the unknown one."""
    model = content["model"]
    unknown = model["vocab"][model["unk_id"]][0] if isinstance(model["vocab"], list) else model.get("unk_token")
    worded = [t for t in content["added_tokens"] if t["content"].strip() and not t["content"].startswith("<0x")]
    return {t["id"] for t in worded if t["content"] != unknown}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encode]:
    """How a battle's texts are encoded with each tokenizer, read from its file as stages read it."""
    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp("tokenizer")
        pair(kind)[0].save(str(folder / "tokenizer.json"))
        labels = {"word pieces": ("a", "who", "tie"), "words": ("A", "B", "who")}.get(kind, ("A", "B", "w"))
        template = "{prompt} {response_a} {response_b}" + (" " if kind in ("word pieces", "words") else "|")
        found[kind] = load_codec(folder, PromptSpec(template=template, labels=labels)).encode_text
    return found


NAMES = [*SPECIAL, *(token.content for token in ORDINARY)]
strings = st.sampled_from([*NAMES, "<0x41>", "\ufdd0", "\ufdd05\ufdd0", "<unk", ">", " "])
texts = st.lists(st.one_of(strings, st.text(max_size=4)), max_size=6).map("".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(text=texts)
@example(text="<tool_call>")
@example(text="a <image>word <left> b<right> [SEP] </s>")
@example(text="answer word \n\n answer")
def test_no_text_becomes_an_added_token(kind: str, text: str, encoders: dict[str, Encode]) -> None:
    tokenizer, _, content = pair(kind)
    ids = encoders[kind]([text])[0]
    assert not forbidden(content) & set(ids)
    if kind in LOSSLESS and "\u2581" not in text:
        assert tokenizer.decode(ids, skip_special_tokens=False) == text.replace("\ufdd0", "\ufffd")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet="ABtiewho nsarbcul. \n\u00e9\u4f60<|[]", max_size=30))
def test_other_texts_are_read_as_the_library_reads_them(kind: str, text: str) -> None:
    tokenizer, plain, _ = pair(kind)
    if not any(token.content.strip() and token.content in text for token in tokenizer.get_added_tokens_decoder().values()):
        assert plain.encode(text, add_special_tokens=False).ids == tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", ["words", "unigram"])
def test_a_model_that_finds_the_token_in_its_own_vocabulary_is_kept_from_it(kind: str) -> None:
    """The library's own switch, `encode_special_tokens`, is not enough here."""
    _, plain, content = pair(kind)
    switched = Tokenizer.from_str(json.dumps(content))
    switched.encode_special_tokens = True
    assert forbidden(content) & set(switched.encode("</s>", add_special_tokens=False).ids)
    assert not forbidden(content) & set(plain.encode("</s>", add_special_tokens=False).ids)


def test_a_character_that_is_a_token_of_its_own_stays_that_character() -> None:
    """Some fine-tuned models pad with `!`: nothing else writes it."""
    tokenizer = built("byte-level")
    tokenizer.add_special_tokens(["!"])
    tokenizer.add_tokens([AddedToken("?", lstrip=True, rstrip=True, special=False)])
    plain = plain_tokenizer(json.loads(tokenizer.to_str()))
    ids = plain.encode("a ! b ? c", add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == "a ! b ? c"


@pytest.mark.parametrize(
    ("label", "named"), [("<unk>", "'<unk>'"), ("\u2603", "'<unk>'"), ("</s>", "'</s>'"), ("A", None), ("tie", None)]
)
def test_labels_are_plain_tokens(label: str, named: str | None, tmp_path: Path) -> None:
    built("words").save(str(tmp_path / "tokenizer.json"))
    spec = PromptSpec(template="{prompt} {response_a} {response_b} who wins ", labels=("B", "who", label))
    if named is None:
        load_codec(tmp_path, spec)
        return
    with pytest.raises(ZooError, match=f"prompt.labels: {label!r} is the token {named}") as error:
        load_codec(tmp_path, spec)
    assert "\n" not in str(error.value)


def test_labels_that_share_a_token_are_refused(tmp_path: Path) -> None:
    built("word pieces").save(str(tmp_path / "tokenizer.json"))
    spec = PromptSpec(template="{prompt} {response_a} {response_b} ", labels=("A", "a", "tie"))
    with pytest.raises(ZooError, match="share a token"):
        load_codec(tmp_path, spec)


def test_the_unknown_token_is_a_control_token_in_each_kind() -> None:
    for kind in KINDS[2:]:
        assert "<unk>" in control_ids(pair(kind)[2]).values()


@pytest.mark.parametrize("text", ["", "{}", '{"model": 1}', "\x00"])
def test_what_is_no_tokenizer_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ZooError, match=r"tokenizer\.json: not"):
        read_tokenizer_file(tmp_path / "tokenizer.json")


def test_a_template_still_has_its_special_tokens(tiny_llama: Path) -> None:
    codec = load_codec(tiny_llama, PromptSpec(template=TEMPLATE))
    assert {1, 2} <= {i for literal in codec.literals for i in literal}
