"""Training data from end to end on tiny real models: prompts to report; and killed in each stage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.helpers.logs import question, word
from tests.helpers.requests import BASE
from tests.helpers.tiny_models import TEMPLATE, write_chat_template, write_tiny_llama
from tests.helpers.tracked import all_runs
from tests.helpers.waiting import wait_until
from zoo.contracts import FetchRequest, Input
from zoo.data.battles import read_battles
from zoo.data.columns import WINNER_COLUMNS
from zoo.data.sample import write_sample
from zoo.pipeline.runner import run_stage
from zoo.stages.data.judge import AMONG_PAIRS, HUMAN_BATTLES
from zoo.store import PARTIAL, folder_fingerprint, list_artifacts

pytestmark = [pytest.mark.chain, pytest.mark.timeout(900)]

POOL, PROMPTS, VOTED, FOLDS = 60, 40, 12, 3
ENTRY = f"""name = "tiny"
kind = "causal_lm"
version = 1
description = "tiny"
[base]
hub_id = "test/tiny"
architecture = "LlamaForCausalLM"
parameters = 300_000
licence = "none"
[prompt]
template = {json.dumps(TEMPLATE)}
max_tokens = 160
[train]
rank = 4
alpha = 8
learning_rate = 5e-3
eval_rows = 10
max_rows = 48
method = "lora"
targets = "votes"
[quantize]
[score]
variants = [{{ order = "ab", max_tokens = 160 }}]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of prompts, a test file that has one of them, human battles of others, and an entry; homes are made in it."""
    root = tmp_path_factory.mktemp("made")
    (root / "entries").mkdir()
    (root / "entries" / "tiny.toml").write_text(ENTRY)
    for name, first, count in (("pool", 0, POOL), ("target", 3000, 30)):
        rows = [json.dumps({"prompt": question(first + n), "licence": "MIT"}) for n in range(count)]
        (root / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    test = {"id": ["1"], "prompt": [question(0) + " Please."], "response_a": ["a"], "response_b": ["b"]}
    pd.DataFrame(test).to_csv(root / "test.csv", index=False)
    write_sample(root / "main.csv", 60, 3)
    main = pd.read_csv(root / "main.csv")
    votes = dict(zip(WINNER_COLUMNS, ("votes_a", "votes_b", "votes_tie"), strict=True))
    main.assign(**{votes[name]: main[name] for name in votes}).to_csv(root / "main.csv", index=False)
    for seed, name in enumerate(("tiny-a", "tiny-b")):
        write_chat_template(write_tiny_llama(root / name, seed=seed))
    return root


class Home:
    """A home of its own, and commands in it."""

    def __init__(self, place: Path, name: str, *models: str) -> None:
        self.place, self.home, self.files = place, place / name, place / f"{name}-files"
        self.files.mkdir()
        self.models = []
        for model in models:
            given = Input(path=place / model, fingerprint=folder_fingerprint(place / model))
            self.models.append(run_stage(FetchRequest(entry=model, base=BASE, source="folder", folder=given), self.store).path)

    @property
    def store(self) -> Path:
        return self.home / "store"

    def start(self, *words: object) -> subprocess.Popen[str]:
        environment = {**os.environ, "ZOO_HOME": str(self.home), "ZOO_ENTRIES": str(self.place / "entries")}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-m", "zoo", *map(str, words)]
        return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)

    def run(self, *words: object) -> str:
        process = self.start(*words)
        out, errors = process.communicate()
        assert process.returncode == 0, errors[-3000:]
        return str(out)

    def kill_then_run(self, stage: str, begun: Callable[[Path], object], *words: object) -> str:
        """Kill a command and all its processes once its stage has `begun`, by its folder; then give it again."""
        process = self.start(*words)
        folders = self.store / PARTIAL

        def is_at_it() -> bool:
            return any(begun(folder) for folder in folders.glob(f"{stage}-*"))

        wait_until(is_at_it, f"{stage} to begin", process)
        group = os.getpgid(process.pid)
        os.killpg(group, signal.SIGKILL)
        process.communicate()
        for pid in stage_processes(folders):  # sessions of their own
            os.kill(pid, signal.SIGKILL)
        assert not list_artifacts(self.store, stage)
        return self.run(*words)

    def prompts(self) -> tuple[object, ...]:
        like, out = self.place / "target.jsonl", self.files / "prompts.jsonl"
        return ("data", "prompts", self.place / "pool.jsonl", "--like", like, "--rows", PROMPTS, "-o", out)

    def generate(self, *models: Path) -> tuple[object, ...]:
        named = [word for path in models for word in ("--model", path.name)]
        sampling = ("--temperature", "1.0", "--max-tokens", "24", "--licence", "MIT")
        return (
            "data",
            "generate",
            self.files / "prompts.jsonl",
            *named,
            *sampling,
            "-o",
            self.files / "answers.jsonl",
            "--json",
        )

    def mine(self) -> tuple[object, ...]:
        log, never = self.files / "answers.jsonl", self.place / "test.csv"
        return ("data", "mine", log, "-o", self.files / "pairs.csv.gz", "--never", never)

    def train_judge(self) -> tuple[object, ...]:
        return ("run", "lexical", "--data", self.files / "human.csv", "--folds", FOLDS)

    def judge(self) -> tuple[object, ...]:
        pairs, human, out = (self.files / name for name in ("pairs.csv.gz", "human.csv", "verdicts.parquet"))
        return ("data", "judge", pairs, "--judge", "lexical", "--data", human, "-o", out)

    def label(self) -> tuple[object, ...]:
        table, human, out = (self.files / name for name in ("verdicts.parquet", "human.csv", "labelled.csv.gz"))
        return ("data", "label", self.files / "pairs.csv.gz", "--judge", table, "--human", human, "-o", out)

    def train(self) -> tuple[object, ...]:
        extra = f"train.extra=[{{file='{self.files / 'labelled.csv.gz'}'}}]"
        folder = ("--source", self.place / "tiny-a", "--fold-rule", "prompts")
        return ("train", "tiny", "--data", self.place / "main.csv", *folder, "--set", extra)


def stage_processes(folders: Path) -> list[int]:
    """Processes that work in a folder of unfinished stages: by their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folders).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def write_votes(files: Path) -> None:
    """Humans who mostly like the longer answer, of some of the pairs and of battles of their own."""
    pairs = pd.read_csv(files / "pairs.csv.gz", dtype=str)[:VOTED]
    rng = np.random.default_rng(1)
    texts = [[json.dumps([word(n) + " because" * length]) for length in (rng.permutation(2) * 30 + 2)] for n in range(160)]
    own = pd.DataFrame(texts, columns=["response_a", "response_b"])
    own = own.assign(
        id=[f"own{n}" for n in range(len(own))], prompt=[json.dumps([question(5000 + n)]) for n in range(len(own))]
    )
    human = pd.concat([pairs[["id", "prompt", "response_a", "response_b"]], own])
    lengths = human[["response_a", "response_b"]].map(len).to_numpy()
    longer = np.where(lengths[:, 0] > lengths[:, 1], 0, 1)
    human[list(WINNER_COLUMNS)] = np.eye(3, dtype=int)[np.where(rng.random(len(human)) < 0.15, 2, longer)]
    human.to_csv(files / "human.csv", index=False)


def has(pattern: str) -> Callable[[Path], object]:
    return lambda folder: any(folder.glob(pattern))


@pytest.fixture(scope="module")
def killed(place: Path) -> Home:
    """Every stage killed once, and gone on with."""
    home = Home(place, "killed", "tiny-a", "tiny-b")
    home.kill_then_run("prompts", has("request.json"), *home.prompts())
    home.kill_then_run("generate", has("chunks/*/*.parquet"), *home.generate(*home.models))
    home.kill_then_run("mine", has("request.json"), *home.mine())
    write_votes(home.files)
    home.run(*home.train_judge())
    home.kill_then_run("judge", has("request.json"), *home.judge())
    home.kill_then_run("label", has("request.json"), *home.label())
    home.kill_then_run("train", has("request.json"), *home.train())
    return home


def test_the_chosen_prompts_are_answered_once_by_each_model_and_as_without_a_kill(killed: Home, place: Path) -> None:
    chosen = [json.loads(line) for line in (killed.files / "prompts.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (killed.files / "answers.jsonl").read_text().splitlines()]
    assert Counter(row["model"] for row in rows) == {"tiny-a": PROMPTS, "tiny-b": PROMPTS}
    assert {row["prompt_id"] for row in rows} == {row["prompt_id"] for row in chosen}
    assert len({row["conversation_id"] for row in rows}) == 2 * PROMPTS
    whole = Home(place, "whole", "tiny-a")
    whole.run(*whole.prompts())
    assert (whole.files / "prompts.jsonl").read_bytes() == (killed.files / "prompts.jsonl").read_bytes()
    whole.run(*whole.generate(whole.models[0]))
    again = [json.loads(line) for line in (whole.files / "answers.jsonl").read_text().splitlines()]
    assert again == rows[:PROMPTS]


def test_pairs_verdicts_and_labels_are_the_same_bytes_without_a_kill(killed: Home, place: Path) -> None:
    other = Home(place, "other")
    (other.files / "answers.jsonl").write_bytes((killed.files / "answers.jsonl").read_bytes())
    other.run(*other.mine())
    write_votes(other.files)
    for words in (other.train_judge(), other.judge(), other.label()):
        other.run(*words)
    for name in ("pairs.csv.gz", "verdicts.parquet", "labelled.csv.gz"):
        assert (other.files / name).read_bytes() == (killed.files / name).read_bytes()
    pairs = read_battles(killed.files / "pairs.csv.gz").frame
    assert 20 <= len(pairs) < PROMPTS and question(0) not in {turns[0] for turns in pairs["prompt"]}, "masked: --never"


def test_a_pair_that_humans_judged_too_is_judged_by_the_fold_that_held_it_out(killed: Home) -> None:
    table = pd.read_parquet(killed.files / "verdicts.parquet").set_index("id")
    pairs = read_battles(killed.files / "pairs.csv.gz").frame["id"]
    assert table["judged_by"][pairs[:VOTED]].str.fullmatch(r"fold \d").all()
    assert table["judged_by"][pairs[VOTED:]].eq(f"{FOLDS} folds").all()


def test_the_training_learns_from_every_label_and_knows_where_they_come_from(
    killed: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    (trained,), (label,) = list_artifacts(killed.store, "train"), list_artifacts(killed.store, "label")
    labels = len(read_battles(killed.files / "labelled.csv.gz").frame)
    metrics = trained.manifest.metrics
    assert metrics["train/extra_rows"] + metrics["train/extra_rows_left_out"] == labels > 20
    assert metrics["train/extra_rows_with_votes"] == metrics["train/extra_rows"]
    found = json.loads(killed.run("lineage", trained.path.name, "--json"))
    stages = Counter(node["stage"] for node in nodes(found[0]) if "stage" in node and not node.get("told_above"))
    once = dict.fromkeys(("train", "label", "judge", "lexical-train", "mine", "prompts"), 1)
    assert stages == {**once, "fetch": 3, "generate": 2, "lexical-score": FOLDS + 1}
    monkeypatch.setenv("ZOO_HOME", str(killed.home))
    lineage = {run.data.tags["zoo.fingerprint"]: run.data.tags.get("zoo.lineage", "") for run in all_runs("stage")}
    behind = [list_artifacts(killed.store, stage)[0] for stage in ("label", "judge", "mine", "generate", "prompts")]
    for artifact in behind:
        assert artifact.path.name in lineage[trained.fingerprint] and artifact.fingerprint in lineage
    assert behind[1].path.name in lineage[label.fingerprint]


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A lineage as plain data, node by node."""
    yield node
    for below in (*node.get("from", ()), *node.get("made_by", ())):
        yield from nodes(below)


def test_the_report_accounts_for_every_row_of_every_stage(killed: Home) -> None:
    page = killed.files / "page.html"
    told = json.loads(killed.run("data", "report", killed.files / "labelled.csv.gz", "-o", page, "--json"))
    assert {each["stage"] for each in told["accounts"]} == {"prompts", "generate", "mine", "judge", "label"}
    assert all(each["closes"] for each in told["accounts"])
    handed = {(each["stage"], each["read"], each["written"], each["rows"]) for each in told["handovers"]}
    pairs = len(read_battles(killed.files / "pairs.csv.gz").frame)
    read = {("judge", "pairs", pairs, pairs), ("label", "pairs", pairs, pairs)}
    assert handed == {("mine", "logs", 2 * PROMPTS, 2 * PROMPTS), *read}
    human = {
        part["reason"]: part["count"] for each in told["accounts"] if each["what"] == HUMAN_BATTLES for part in each["parts"]
    }
    assert human == {"ok": 160, AMONG_PAIRS: VOTED}
    assert sum(each["tokens"] for each in told["costs"]) > PROMPTS
    assert told["near"][0]["file"] == "test.csv" and told["near"][0]["exact"] == told["near"][0]["near"] == 0
    html = page.read_text()
    assert "may be used" in html and "Every row of every stage is accounted for" in html and "label and humans differ" in html


@pytest.mark.parametrize(("name", "stage"), [("prompts.jsonl", "prompts"), ("verdicts.parquet", "judge")])
def test_a_file_of_each_stage_on_the_way_has_a_report_of_its_own(killed: Home, name: str, stage: str) -> None:
    page = killed.files / "way.html"
    told = json.loads(killed.run("data", "report", killed.files / name, "-o", page, "--json"))
    assert told["stage"] == stage and told["facts"]["rows"] == {"prompts": PROMPTS}.get(stage, told["facts"]["rows"])
    own = [each for each in told["accounts"] if each["stage"] == stage]
    assert own and all(each["closes"] for each in own) and f"by {stage}, SHA-256" in page.read_text()
