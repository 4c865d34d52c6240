"""Encoders as they were first published: a .bin of weights and sentencepiece's model become safetensors and tokenizer.json."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from safetensors.torch import load_file

from tests.helpers.requests import given
from tests.helpers.tiny_encoders import CORPUS, TEMPLATES, encoder_entry, write_encoder
from zoo.contracts import Base, FetchRequest, PromptSpec
from zoo.errors import ZooError
from zoo.models.prompts import load_codec
from zoo.stages.encoders import encoder_logits, load_encoder
from zoo.stages.train.label_head import pad
from zoo.stages.weights import fetch

BASE = Base.model_validate(encoder_entry("DebertaV2")["base"])


def write_pieces(path: Path) -> None:
    """A model of sentencepiece with DeBERTa's special pieces."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=made,
        vocab_size=38,
        model_type="unigram",
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
        minloglevel=2,
    )
    path.write_bytes(made.getvalue())


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A DeBERTa as its makers put it: no safetensors, no tokenizer.json."""
    folder = write_encoder(tmp_path / "published", "DebertaV2")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).unlink()
    write_pieces(folder / "spm.model")
    return folder


def fetched(source: Path, out: Path) -> Path:
    out.mkdir()
    fetch.run(FetchRequest(entry="tiny", base=BASE, source="folder", folder=given(source)), out)
    return out / "model"


def test_published_files_become_a_folder_that_later_stages_read(published: Path, tmp_path: Path) -> None:
    """Weights answer as they did, and texts are the pieces that sentencepiece itself makes of them."""
    ids, mask = pad([[1, 5, 6, 7, 2]], "cpu")
    weights = torch.load(published / "pytorch_model.bin", weights_only=True)
    folder = fetched(published, tmp_path / "out")
    assert not (folder / "pytorch_model.bin").exists()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in load_file(folder / "model.safetensors").items())
    with torch.no_grad():
        assert np.isfinite(encoder_logits(load_encoder(folder, dtype=torch.float32).eval(), ids, mask).numpy()).all()
    codec = load_codec(folder, PromptSpec(template=TEMPLATES["DebertaV2"], max_tokens=64))
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    texts = ["what is the capital", "hot? cold", "who wins because it is"]
    assert codec.encode_text(texts) == pieces.encode(texts)
    assert [literal[0] for literal in codec.literals] == [pieces.piece_to_id(n) for n in ("[CLS]", "[SEP]", "[SEP]", "[SEP]")]


class Program:
    """What a pickle can do: run a program as it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("it ran",)


def test_a_pickle_with_a_program_is_refused(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (published / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Program()}))
    with pytest.raises(ZooError, match="holds more than tensors, or is damaged"):
        fetched(published, tmp_path / "out")
    assert "it ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "told"), [("spm.model", "not a tokenizer of sentencepiece"), ("pytorch_model.bin", "damaged")]
)
def test_a_damaged_file_is_named(published: Path, tmp_path: Path, name: str, told: str) -> None:
    path = published / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(ZooError, match=f"{name}: .*{told}"):
        fetched(published, tmp_path / "out")


@pytest.mark.parametrize("family", ["Bert", "Roberta"])
def test_weights_of_another_family_are_refused(tmp_path: Path, family: str) -> None:
    with pytest.raises(ZooError, match=f"base.architecture is DebertaV2ForSequenceClassification, its weights are {family}"):
        fetched(write_encoder(tmp_path / "other", family), tmp_path / "out")
