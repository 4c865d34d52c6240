"""The score stage with engines that compute something simple: `python -m tests.helpers.stand_in_stage request.json OUT`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.helpers.paths import HELPERS
from zoo.contracts import ScoreRequest
from zoo.stages import progress
from zoo.stages.score import engine_handle, stage

if __name__ == "__main__":
    request, out = Path(sys.argv[1]), Path(sys.argv[2])
    progress.use_live(out / "live.jsonl")
    engine_handle.COMMAND = (sys.executable, str(HELPERS / "stand_in_engine.py"))
    result = stage.run(ScoreRequest.model_validate_json(request.read_text()), out)
    (out / "result.json").write_text(result.model_dump_json())
    sys.stdout.flush()
    os._exit(0)
