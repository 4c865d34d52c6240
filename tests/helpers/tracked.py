"""Finished stages to log, with secrets and private paths planted in them, and what MLflow then holds."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.manifests import CREATED, finished, input_of, partial_folder, score_card
from zoo.contracts import (
    Cost,
    Held,
    Input,
    Measurements,
    MergeRequest,
    MergeSpec,
    PromptSpec,
    Request,
    ScoreRequest,
    ScoreSpec,
    TrainRequest,
    TrainSpec,
    Variant,
)
from zoo.data.battles import dataset_digest, read_battles
from zoo.data.sample import write_sample
from zoo.scores.tables import score_table, write_card, write_scores
from zoo.store import Artifact
from zoo.tracking.client import connection as tracking_client

SECRET = "hunter2"
HOME = "/home/somebody/private"
PROMPT = PromptSpec(template="{prompt}{response_a}{response_b}")
BATTLES = Input(path=Path(f"{HOME}/my_battles.csv.gz"), fingerprint="d" * 64)


def logged(store: Path, request: Request, *, curves: dict[str, Any] | None = None, **fields: Any) -> Artifact:
    """A finished artifact with measurements, a machine, and a secret in its command line."""
    (partial_folder(store, request) / "result.json").write_text(json.dumps({"curves": curves or {}}))
    usual: dict[str, Any] = {
        "measurements": Measurements(load_seconds=2, run_seconds=10, rows=5, tokens=50, peak_bytes=2**31),
        "hardware": {"machine": "an abacus, 2 cores"},
        "packages": {"torch": "2.13.0", "vllm": "0.32.0"},
        "git_commit": "c0ffee+",
        "argv": ("zoo", f"--token={SECRET}"),
    }
    return finished(store, request, **{**usual, **fields})


def train_request(seed: int = 0, learning_rate: float = 3e-4) -> TrainRequest:
    base = Input(path=Path(f"{HOME}/base"), fingerprint="b" * 16)
    return TrainRequest(
        entry="smollm2-135m",
        base=base,
        battles=BATTLES,
        held=Held(),
        prompt=PROMPT,
        spec=TrainSpec(seed=seed, learning_rate=learning_rate),
    )


def trained(store: Path, seed: int = 0) -> Artifact:
    curves = {"train/loss": [[0, 2.0], [1, 1.5]], "val/log_loss": [[0, 1.2], [5, 1.05]]}
    return logged(store, train_request(seed), metrics={"val/log_loss": 1.05, "train/loss": 1.5}, curves=curves)


def merged(store: Path) -> Artifact:
    """A merge whose data are known only through the training it comes from."""
    adapter = trained(store)
    base = Input(path=Path("base"), fingerprint="b" * 16)
    return logged(store, MergeRequest(entry="smollm2-135m", base=base, adapter=input_of(adapter), spec=MergeSpec()))


def scored(
    store: Path, model: str = "m" * 16, created: datetime.datetime = CREATED, *, figures: bool = False, loss: float = 1.0
) -> Artifact:
    """A score stage of two variants on 100 labelled battles, whose file lies in a folder of the user's.

    The second one's log loss is 0.1 above the first's, `loss`. Without `figures` the file is gone when the stage is logged:
    drawing takes seconds.
    """
    battles = store.parent / "private" / "my_battles.csv"
    if not battles.exists():
        battles.parent.mkdir(parents=True, exist_ok=True)
        write_sample(battles, 100, 3)
    frame = read_battles(battles)
    digest, ids = dataset_digest(frame), frame.frame["id"].tolist()
    variants = (Variant(order="ab", max_tokens=512), Variant(order="ba", max_tokens=512))
    request = ScoreRequest(
        entry="smollm2-135m",
        model=Input(path=Path(f"{HOME}/model"), fingerprint=model),
        battles=Input(path=battles, fingerprint=digest),
        held=Held(),
        prompt=PROMPT,
        spec=ScoreSpec(variants=variants),
        target="cpu",
    )
    partial = partial_folder(store, request)
    rng = np.random.default_rng(0)
    metrics: dict[str, float] = {}
    for number, variant in enumerate(variants):
        (partial / variant.slug).mkdir(parents=True, exist_ok=True)
        table = score_table(ids, rng.dirichlet((1, 1, 1), size=len(ids)), fold=0, n_tokens=100)
        write_scores(table, partial / variant.slug / "scores.parquet")
        card = score_card(
            f"smollm2-135m@{variant.slug}",
            variant,
            target="cpu",
            engine="vllm 0.32.0",
            dataset_digest=digest,
            rows=len(ids),
            checkpoint=model,
            cost=Cost(target="cpu", load_seconds=36, seconds_per_row=0.1, seconds_per_token=0.001),
            request=request,
        )
        write_card(card, partial / variant.slug / "scores.json")
        metrics |= {f"{variant.slug}:val/log_loss": loss + number / 10, f"{variant.slug}:rows/failed": 0}
    if not figures:
        battles.unlink()
    return logged(store, request, metrics=metrics, created_at=created)


def digest_of(artifact: Artifact) -> str:
    return artifact.manifest.request.inputs["battles"].fingerprint


def all_runs(kind: str | None = None) -> list[Any]:
    client = tracking_client.connect()
    experiments = tracking_client.experiments_of_ours(client)
    runs = client.search_runs(experiments, max_results=1000) if experiments else []
    return [r for r in runs if kind is None or r.data.tags["zoo.kind"] == kind]
