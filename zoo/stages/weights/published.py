"""Encoders as first published, made into safetensors and tokenizer.json.

Of DeBERTa v3 the hub has `pytorch_model.bin` and `spm.model` alone. A .bin file is a pickle, which may hold a
program: torch reads it with `weights_only`, which takes tensors and plain containers and refuses all else.
"""

from __future__ import annotations

from pathlib import Path

from zoo.errors import ZooError
from zoo.stages import progress

WEIGHTS, PIECES = "pytorch_model.bin", "spm.model"


def convert_published(folder: Path) -> None:
    """Give a model folder what it lacks of safetensors and tokenizer.json.

    The pickle is removed afterwards. ZooError where a file cannot be read.
    """
    if (folder / WEIGHTS).exists() and not list(folder.glob("*.safetensors")):
        progress.note(f"converting {WEIGHTS} to safetensors")
        _convert_weights(folder / WEIGHTS, folder / "model.safetensors")
    (folder / WEIGHTS).unlink(missing_ok=True)
    if (folder / PIECES).exists() and not (folder / "tokenizer.json").exists():
        progress.note(f"converting {PIECES} to tokenizer.json")
        _convert_tokenizer(folder)


def _convert_weights(path: Path, target: Path) -> None:
    from safetensors.torch import save_file

    from zoo.stages.weights.foreign_tensors import unpickled

    tensors = {name: value.contiguous().clone() for name, value in unpickled(path).items()}
    save_file(tensors, target, metadata={"format": "pt"})


def _convert_tokenizer(folder: Path) -> None:
    from transformers import AutoTokenizer

    try:
        AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    except Exception as error:  # protobuf's, sentencepiece's and transformers' own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise ZooError(
            f"{folder / PIECES}: not a tokenizer of sentencepiece ({reason}); give the folder with tokenizer.json"
        ) from error
