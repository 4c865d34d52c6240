"""The tally of a scoring run: time, rows and tokens over all its parts.

It is kept beside the chunks, so that a run in several parts is accounted for as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from zoo.store import write_atomic

TALLY = "tally.json"
MEMORY = ("loading_bytes", "allocated_bytes", "card_bytes")


@dataclass
class Tally:
    """Sums over the parts of a run.

    `load_seconds`: from the start of the process to an engine that has answered a row, of the slowest replica in the last part
    that started one, without loads that failed; `prepare_seconds`: of reading and tokenizing, done while the engine loads;
    `run_seconds`: of scoring, on the wall clock, the wait for rows included. `cached_tokens`: of `tokens` that the engine was
    given, those it did not compute. The bytes are those of `engine.gpu_memory`, of the fullest GPU.
    """

    load_seconds: float = 0.0
    prepare_seconds: float = 0.0
    run_seconds: float = 0.0
    tokens: int = 0
    cached_tokens: int = 0
    restarts: int = 0
    replicas: int = 0
    loading_bytes: int = 0
    allocated_bytes: int = 0
    card_bytes: int = 0

    def save(self, folder: Path) -> None:
        write_atomic(folder / TALLY, json.dumps(asdict(self)))

    def see_memory(self, memory: Mapping[str, int]) -> None:
        """Keep the largest use of any one GPU."""
        for name in MEMORY:
            setattr(self, name, max(getattr(self, name), memory[name]))

    def metrics(self) -> dict[str, float]:
        """For the manifest of the stage."""
        numbers = {
            "engine/replicas": self.replicas,
            "engine/restarts": self.restarts,
            "engine/cached_tokens": self.cached_tokens,
            "engine/cached_share": self.cached_tokens / max(1, self.tokens),
        }
        if self.card_bytes:
            numbers |= {f"engine/{name}": getattr(self, name) for name in MEMORY}
        return {name: float(value) for name, value in numbers.items()}


def load_tally(folder: Path) -> Tally:
    path = folder / TALLY
    return Tally(**json.loads(path.read_text())) if path.exists() else Tally()
