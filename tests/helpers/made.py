"""Made data for tests: mined pairs, labels of a judge whom humans mostly agree with, by the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from typer.testing import CliRunner

from tests.helpers.logs import log_of, write_log
from zoo.cli.data import data_app
from zoo.errors import ZooError

MODELS = ("strong", "middling", "weak", "tiny")


def invoke(*words: object) -> str:
    """A command of `zoo data` in this process; its stdout."""
    result = CliRunner().invoke(data_app, [str(word) for word in words])
    if isinstance(result.exception, ZooError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def make_labels(folder: Path, prompts: int = 40) -> Path:
    """A log, pairs mined from it, two tables of a judge, and labels: all in one folder; the labelled file."""
    log, pairs, labelled = folder / "log.jsonl", folder / "pairs.csv.gz", folder / "labelled.csv.gz"
    write_log(log, ["{bad", *log_of(prompts, MODELS)])
    never = folder / "never.csv"
    never.write_text("prompt\nwhat is it that nobody has asked\n")
    invoke("mine", log, "-o", pairs, "--rows", 150, "--never", never)
    frame = pd.read_csv(pairs, dtype=str)
    y = np.array([sum(map(ord, row_id)) % 3 for row_id in frame["id"]])
    frame[["winner_model_a", "winner_model_b", "winner_tie"]] = np.eye(3, dtype=int)[y]
    frame.to_csv(folder / "human.csv", index=False)
    for number, table in enumerate(("ab", "ba")):
        said = np.where((np.arange(len(y)) + number) % 5, y, (y + 1) % 3)
        judge = pd.DataFrame(0.7 * np.eye(3)[said] + 0.1, columns=["p_a", "p_b", "p_tie"]).assign(id=frame["id"])
        judge[:-3].to_csv(folder / f"{table}.csv", index=False)
    judges = ("--judge", folder / "ab.csv", "--judge", folder / "ba.csv")
    invoke("label", pairs, *judges, "--human", folder / "human.csv", "-o", labelled)
    return labelled
