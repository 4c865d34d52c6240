"""The transformers engine: token ids in, raw logits of an encoder's three classes out.

Batches are sorted by length. It runs inside an engine process like vLLM's, and answers the same calls. A batch is padded to its
longest row; what is padding is masked, so that a row's logits do not depend on its neighbours but by rounding. A chunk always
holds the same rows, and its batches follow from them: a resumed run ends with the same table. In float32 on processors and
float16 on GPUs unless the entry says otherwise; the classifier is in float32 everywhere.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.contracts import ScoreSpec, ServeSpec
from zoo.models.batches import micro_batches
from zoo.models.shapes import read_config, shape_of_config
from zoo.stages.score.chunks import Answer
from zoo.stages.score.second_start import SecondStart

ENGINE = "transformers"
ABSOLUTE_POSITIONS = ("Bert", "Roberta")  # have no embedding for a position beyond those that they were made with


def engine_arguments(folder: Path, spec: ScoreSpec, serve: ServeSpec) -> dict[str, Any]:
    """What an engine process is told: the model, its dtype, and how large a batch may be."""
    return {
        "engine": ENGINE,
        "model": str(folder),
        "dtype": serve.dtype if serve.dtype != "auto" else spec.dtype,
        "max_batched_tokens": spec.max_batched_tokens,
        "max_seqs": spec.max_seqs,
    }


def second_starts(spec: ScoreSpec) -> tuple[SecondStart, ...]:
    """What can be tried where the engine has not loaded for want of memory: half the batch."""
    half = {"max_batched_tokens": max(1, spec.max_batched_tokens // 2), "max_seqs": max(1, spec.max_seqs // 2)}
    told = f"started again with batches of {half['max_batched_tokens']:,} tokens, which takes longer: how much is not measured"
    return (SecondStart("memory", told, half),)


class Engine:
    """A loaded encoder that answers with raw logits of its three classes."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        import torch

        from zoo.stages.device import device
        from zoo.stages.encoders import load_encoder, widen_head

        folder, self._place = Path(arguments["model"]), device()
        on_gpu = self._place.type == "cuda"
        declared = arguments["dtype"]
        dtype = getattr(torch, declared) if declared != "auto" else torch.float16 if on_gpu else torch.float32
        self._model = load_encoder(folder, dtype=dtype, place=self._place).eval()
        widen_head(self._model)
        self._loading_bytes = torch.cuda.max_memory_allocated() if on_gpu else 0
        self._most_tokens, self._most_rows = int(arguments["max_batched_tokens"]), int(arguments["max_seqs"])
        shape = shape_of_config(read_config(folder))
        self._longest = shape.max_position_embeddings if shape.encoder in ABSOLUTE_POSITIONS else None

    def score(self, rows: Sequence[np.ndarray], step: Callable[[int, int], None] = lambda rows, tokens: None) -> Answer:
        """Raw logits of each row of token ids.

        `step` hears of the rows and tokens that each batch finished.
        """
        started = time.monotonic()
        logits, cached = np.full((len(rows), 3), np.nan), np.zeros(len(rows), dtype=np.int64)
        lengths = [len(row) for row in rows]
        refused = {
            i: f"{n} tokens, and the model has positions for {self._longest}"
            for i, n in enumerate(lengths)
            if self._longest is not None and n > self._longest
        }
        for batch in batches(lengths, self._most_tokens, self._most_rows, without=refused):
            logits[batch] = self._logits([rows[i] for i in batch])
            step(len(batch), sum(lengths[i] for i in batch))
        return Answer(logits, cached, refused, time.monotonic() - started)

    def _logits(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Logits (rows, 3) of one batch."""
        import torch

        from zoo.stages.encoders import encoder_logits
        from zoo.stages.train.label_head import pad

        ids, mask = pad([row.tolist() for row in rows], self._place)
        with torch.inference_mode():
            found: np.ndarray = encoder_logits(self._model, ids, mask).cpu().numpy().astype(np.float64)
        return found

    def memory(self) -> dict[str, int]:
        """Bytes of the GPU as vLLM's engine tells them (`gpu_memory`); zeros on processors."""
        import torch

        if self._place.type != "cuda":
            return {"loading_bytes": 0, "allocated_bytes": 0, "card_bytes": 0}
        free, total = torch.cuda.mem_get_info()
        beside = total - free - torch.cuda.memory_reserved()
        return {
            "loading_bytes": self._loading_bytes,
            "allocated_bytes": torch.cuda.max_memory_allocated(),
            "card_bytes": beside + torch.cuda.max_memory_reserved(),
        }


def batches(lengths: Sequence[int], most_tokens: int, most_rows: int, without: Mapping[int, str]) -> list[list[int]]:
    """Rows by length in batches of at most so many rows and padded tokens.

    The longest come first: what memory they take shows at once.
    """
    order = sorted((i for i in range(len(lengths)) if i not in without), key=lambda i: lengths[i])
    by_tokens = micro_batches(order, list(lengths), most_tokens)
    return [batch[i : i + most_rows] for batch in by_tokens for i in range(0, len(batch), most_rows)][::-1]


def engine_version() -> str:
    """`transformers 5.19.0`."""
    return f"{ENGINE} {importlib.metadata.version(ENGINE)}"
