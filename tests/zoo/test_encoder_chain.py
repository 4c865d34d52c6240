"""An encoder end to end by the commands: registered, checked, run, built into a plan, predicted with, exported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.helpers.exports import CARD_BATTLE, card_code
from tests.helpers.tiny_encoders import encoder_answers, write_encoder
from zoo.contracts import PromptSpec
from zoo.data.battles import Battles, read_battles
from zoo.data.sample import write_sample
from zoo.entries.load import read_entry
from zoo.models.prompts import encode_battles, join_turns, load_codec
from zoo.scores.tables import label_probabilities, probabilities, read_scores

pytestmark = [pytest.mark.chain, pytest.mark.timeout(1500)]


def run_cli(*arguments: str, home: Path, code: int = 0) -> str:
    command = [sys.executable, "-m", arguments[0], *arguments[1:]]
    environment = {**os.environ, "ZOO_HOME": str(home), "ZOO_ENTRIES": str(home.parent / "entries")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == code, f"{arguments}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def test_an_encoder_goes_from_its_folder_into_a_prediction(sample_csv: Path, tmp_path: Path) -> None:
    home, entries, data = tmp_path / "home", tmp_path / "entries", str(sample_csv)
    folder = write_encoder(tmp_path / "model", "ModernBert")
    told = run_cli("zoo", "register", "tiny", "--base", str(folder), "--target", "cpu", "--out", str(entries), home=home)
    assert "float32 on processors" in told and "fail" not in told
    assert "ModernBert" in run_cli("zoo", "check", "tiny", "--target", "t4x2", "--train", home=home)
    settings = ["--set", "train.max_rows=48", "--set", "train.learning_rate=1e-3"]
    run_cli("zoo", "run", "tiny", "--data", data, "--target", "cpu", "--source", str(folder), *settings, home=home)
    run_cli("zoo", "run", "lexical", "--data", data, "--target", "cpu", home=home)
    assert "tiny@ab" in run_cli("zoo", "leaderboard", home=home).replace("\n", "")
    assert "measured" in run_cli("zoo", "cost", "tiny", "--target", "cpu", home=home)
    plan = tmp_path / "plan.json"
    built = ["build", "--budget", "5m", "--target", "cpu", "--rows", "40", "--battles", data, "--include", "tiny@ab-160"]
    run_cli("ensemble", *built, "-o", str(plan), home=home)
    members = {member["name"] for member in json.loads(plan.read_text())["members"]}
    assert any(name.startswith("tiny@") for name in members), members
    write_sample(tmp_path / "test.csv", 40, 9)
    run_cli("ensemble", "predict", str(plan), str(tmp_path / "test.csv"), "-o", str(tmp_path / "sub.csv"), home=home)
    submission = pd.read_csv(tmp_path / "sub.csv")
    columns = ["winner_model_a", "winner_model_b", "winner_tie"]
    assert len(submission) == 40 and np.allclose(submission[columns].sum(axis=1), 1, atol=1e-6)
    refused = run_cli("zoo", "ladder", "tiny", "--data", data, home=home, code=2)
    assert "tiny: an encoder entry has no ladder" in refused and "Traceback" not in refused
    run_cli("zoo", "report", "tiny@ab-160", "-o", str(tmp_path / "report.html"), home=home)
    assert "ModernBert" in (tmp_path / "report.md").read_text()
    assert "Traceback" not in run_cli("zoo", "verify", "tiny@ab-160", home=home)
    run_cli("zoo", "export", "tiny@ab-160", "-o", str(tmp_path / "export"), home=home)
    (scored,) = home.glob("store/score-*/ab-160/scores.parquet")
    table = read_scores(scored)
    found = asked_alone(tmp_path / "export" / "merged", read_battles(sample_csv), table["id"])
    assert np.abs(found - probabilities(table)).max() < 1e-4


def test_somebody_s_encoder_answers_as_their_weights_say(sample_csv: Path, tmp_path: Path) -> None:
    """Registered, looked at and run by the commands; its outputs stand for tie, b, a there."""
    home, entries, data = tmp_path / "home", tmp_path / "entries", str(sample_csv)
    folder = write_encoder(tmp_path / "theirs", "Roberta", head="ForSequenceClassification", labels=3)
    given = [
        "--checkpoint",
        str(folder),
        "--classes",
        "tie,b,a",
        "--trained-on",
        "none",
        "--target",
        "cpu",
        "--out",
        str(entries),
    ]
    told = run_cli("zoo", "register", "brought", *given, "--battles", data, home=home)
    assert "log loss" in told and "fail" not in told
    run_cli("zoo", "run", "brought", "--data", data, "--target", "cpu", "--score-rows", "24", home=home)
    entry = read_entry(entries / "brought.toml")
    assert entry.prompt is not None
    frame = read_battles(sample_csv).frame.set_index("id")
    for order in ("ab", "ba"):
        found = [path for path in home.glob(f"store/score-*/{order}-160/scores.parquet") if len(read_scores(path)) == 24]
        table = read_scores(*found)
        battles = frame.loc[table["id"]]
        turns = list(zip(battles["prompt"], battles["response_a"], battles["response_b"], strict=True))
        rows = [one.ids for one in encode_battles(turns, load_codec(folder, entry.prompt), entry.prompt, order)]
        expected = label_probabilities(encoder_answers(folder, rows)[:, [2, 1, 0]], order)
        assert np.abs(probabilities(table) - expected).max() < 1e-5


def asked_alone(folder: Path, battles: Battles, ids: pd.Series) -> np.ndarray:
    """Probabilities (rows, 3) by an exported folder: its card's code reads each battle, and transformers answers."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    asked = json.loads((folder / "prompt.json").read_text())
    spec = PromptSpec.model_validate({key: value for key, value in asked.items() if key in PromptSpec.model_fields})
    found = []
    for _, row in battles.frame.set_index("id").loc[ids].iterrows():
        names: dict[str, Any] = {}
        battle = {field: join_turns(row[field], spec) for field in CARD_BATTLE}
        exec(card_code(folder, battle=battle)[0], names)
        with torch.no_grad():
            found.append(torch.softmax(model(torch.tensor([names["ids"]])).logits[0], dim=-1).numpy())
    return np.stack(found)


def test_a_tight_budget_takes_an_encoder_s_table_priced_like_its_entry(tmp_path: Path) -> None:
    """Of made tables: nothing is said of an encoder's strength, only of what it costs."""
    home, data = tmp_path / "home", str(tmp_path / "battles.csv")
    write_sample(tmp_path / "battles.csv", 400, 5)
    truth = pd.read_csv(tmp_path / "battles.truth.csv")
    p, rng = truth[["p_a", "p_b", "p_tie"]].to_numpy(), np.random.default_rng(0)
    for name, part, like in (("encoder", 0.45, "deberta-v3-base"), ("decoder", 0.6, "llama-3-8b")):
        odds = np.exp(np.log(p) * part + rng.normal(0, 0.3, p.shape))
        table = pd.DataFrame(odds / odds.sum(axis=1, keepdims=True), columns=["p_a", "p_b", "p_tie"])
        table.insert(0, "id", truth["id"])
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        run_cli("zoo", "import", name, "--scores", str(tmp_path / f"{name}.csv"), "--labels", data, "--like", like, home=home)
    plan = tmp_path / "plan.json"
    told = run_cli(
        *("ensemble", "build", "--budget", "20m", "--target", "t4x2", "--battles", data, "-o", str(plan), "--rows", "25000"),
        home=home,
    )
    assert [member["name"] for member in json.loads(plan.read_text())["members"]] == ["encoder"], told
    assert "deberta-v3-base@ab-512 on t4x2, its shape and published run times" in told
