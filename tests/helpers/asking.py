"""Requests for answers, run as the runner would, with a stand-in for the engine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.helpers.paths import HELPERS
from zoo.contracts import GenerateRequest, Input, Sampling
from zoo.data.prompts import read_prompts
from zoo.stages.generate import stage
from zoo.store import PARTIAL, REQUEST, write_atomic

TALKER = (sys.executable, str(HELPERS / "stand_in_talker.py"))  # for `stage.COMMAND`


class Asking:
    """One store, one model: requests of it, run as the runner would, and what the engines answered."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root, self.model, self.log = root, model, root / "answered"
        self.log.touch()

    def request(self, name: str, prompts: list[Any], **fields: Any) -> GenerateRequest:
        path = self.root / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"prompt": turns}) + "\n" for turns in prompts))
        return GenerateRequest(
            entry="tiny",
            model=Input(path=self.model, fingerprint=fields.pop("model", "m")),
            prompts=Input(path=path, fingerprint=read_prompts(path).digest),
            sampling=fields.pop("sampling", None) or Sampling(max_tokens=fields.pop("max_tokens", 24)),
            licence="none",
            source=name,
            **fields,
        )

    def run(self, request: GenerateRequest, name: str, **place: str) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Metrics and rows."""
        out = self.root / "store" / PARTIAL / f"generate-{name}"
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / REQUEST, request.model_dump_json())
        result = stage.generate(request, out, ({"ANSWERED": str(self.log), **place},))
        return result.metrics, [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]

    def answered(self) -> list[list[Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]
