"""Rows of a made file to read by eye: some of each kind, the same for the same seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zoo.data.battles import Battles, read_battles
from zoo.data.columns import MODEL_COLUMNS
from zoo.data.filters import COIN_FLIP
from zoo.data.formats import read_records
from zoo.data.keys import battle_digests
from zoo.data.made import OK
from zoo.data.turns import questions_and_answers
from zoo.report.made_facts import CONSISTENCY, GENERATORS, JUDGE, KEPT, SOURCE, characters, column, vote_shares
from zoo.report.made_file import MadeFile, input_files
from zoo.report.rows_to_read import Shown, texts
from zoo.scores.tables import swap_sides

AGREE, DIFFER = "label and humans agree", "label and humans differ"
ORDERS_AGREE, ORDERS_DIFFER = "the judge's tables agree most", "the judge's tables contradict each other most"
CLOSE, LONGEST, ANY = "near coin-flips", "the longest", "any rows"
NAMES = ("A wins", "B wins", "tie")


def pair_strata(made: MadeFile, battles: Battles, seed: int, count: int) -> dict[str, list[Shown]]:
    """Pairs to read, by kind.

    Agreeing and contradicting, near coin-flips, longest, any, and those left out by reason.
    """
    rng = np.random.default_rng(seed)
    shares = vote_shares(battles)
    kinds: dict[str, np.ndarray] = {}
    human = _human_labels(made, battles)
    if shares is not None and human is not None and (human >= 0).any():
        likeliest = shares.argmax(axis=1)
        kinds[AGREE], kinds[DIFFER] = (np.flatnonzero((human >= 0) & same) for same in (likeliest == human, likeliest != human))
    agreed = column(battles, CONSISTENCY)
    if agreed and any(agreed):
        values = pd.to_numeric(pd.Series(agreed), errors="coerce").to_numpy(dtype=float)
        order = np.argsort(values, kind="stable")[: np.isfinite(values).sum()]
        kinds[ORDERS_AGREE], kinds[ORDERS_DIFFER] = order[::-1][:count], order[:count]
    if shares is not None:
        ordered = np.sort(shares, axis=1)
        lead = ordered[:, 2] - ordered[:, 1]
        close = np.flatnonzero(lead <= COIN_FLIP)
        kinds[CLOSE] = close if len(close) else np.argsort(lead, kind="stable")[:count]
    kinds[LONGEST] = np.argsort(-characters(battles.frame).sum(axis=1), kind="stable")[:count]
    kinds[ANY] = np.arange(len(battles.frame))
    found = {}
    for name, places in kinds.items():
        chosen = places if len(places) <= count else np.sort(rng.choice(places, count, replace=False))
        found[name] = [_pair(battles, int(place), shares, human) for place in chosen]
    return {**found, **_left_out(made, rng, count)}


def _pair(battles: Battles, place: int, shares: np.ndarray | None, human: np.ndarray | None) -> Shown:
    row = battles.frame.iloc[place]
    kept = battles.kept.loc[row["id"]]
    facts = [] if shares is None else [("label", ", ".join(f"{n} {s:.0%}" for n, s in zip(NAMES, shares[place], strict=True)))]
    if human is not None and human[place] >= 0:
        facts.append(("humans", NAMES[human[place]]))
    for name in (*JUDGE, *CONSISTENCY, SOURCE[0]):
        if name in kept and str(kept[name]).strip() not in ("", "nan"):
            facts.append((name, str(kept[name])))
    names = next((names for names in (MODEL_COLUMNS, GENERATORS) if set(names) <= set(battles.kept)), None)
    models = ["", ""] if names is None else [str(kept[name]) for name in names]
    answers = [
        (f"{side}{f': {model}' if model else ''}", texts(row[name]))
        for side, model, name in zip("AB", models, ("response_a", "response_b"), strict=True)
    ]
    return Shown(str(row["id"]), facts, texts(row["prompt"]), answers)


def _human_labels(made: MadeFile, battles: Battles) -> np.ndarray | None:
    """The human label of each pair that humans judged too, in its own A and B; -1 elsewhere. None without their file."""
    path = next((path for step in made.last for path in input_files(step, "human")), None)
    if path is None:
        return None
    human = read_battles(path)
    known: dict[tuple[bytes, frozenset[bytes]], tuple[bytes, int]] = {}
    for (prompt, a, b), label in zip(battle_digests(human.frame), human.frame["label"].tolist(), strict=True):
        if label >= 0 and a != b:
            known[prompt, frozenset((a, b))] = (a, label)
    found = np.full(len(battles.frame), -1, dtype=np.int64)
    for place, (prompt, a, b) in enumerate(battle_digests(battles.frame)):
        first, label = known.get((prompt, frozenset((a, b))), (a, -1))
        if label >= 0:
            own = np.eye(3)[label]
            found[place] = int((own if first == a else swap_sides(own)).argmax())
    return found


def _left_out(made: MadeFile, rng: np.random.Generator, count: int) -> dict[str, list[Shown]]:
    """Pairs that a stage read and left without a label, some for each reason."""
    found: dict[str, list[Shown]] = {}
    for step in made.last:
        table = step.artifact.path / "rows.parquet" if step.artifact else None
        path = next(input_files(step, "pairs"), None)
        if table is None or not table.is_file() or path is None:
            continue
        pairs = read_battles(path, keep=KEPT, models=True)
        place = {row_id: number for number, row_id in enumerate(pairs.frame["id"])}
        rows = pd.read_parquet(table)
        for reason, own in rows[rows["status"] != OK].groupby("status", sort=True):
            ids = [row_id for row_id in own["id"] if row_id in place]
            chosen = ids if len(ids) <= count else [ids[i] for i in np.sort(rng.choice(len(ids), count, replace=False))]
            found[f"left out: {reason}"] = [_pair(pairs, place[row_id], None, None) for row_id in chosen]
    return {reason: shown for reason, shown in found.items() if shown}


def answer_strata(path: Path, seed: int, count: int) -> dict[str, list[Shown]]:
    """Conversations of a log by status, and the longest."""
    rng = np.random.default_rng(seed)
    records = [record for record in answer_records(path) if isinstance(record, dict)]
    status = np.array([str(record.get("status") or OK) for record in records], dtype=object)
    kinds = {f"status {name}": np.flatnonzero(status == name) for name in sorted(set(status.tolist()))}
    sizes = np.array([sum(len(text) for text in _turns(record)[1]) for record in records])
    kinds[LONGEST] = np.argsort(-sizes, kind="stable")[:count]
    found = {}
    for name, places in kinds.items():
        chosen = places if len(places) <= count else np.sort(rng.choice(places, count, replace=False))
        found[name] = [_answer(records[int(place)]) for place in chosen]
    return found


def answer_records(path: Path) -> Iterator[Mapping[str, Any] | str]:
    """The rows of a log of answers with what the page shows of them."""
    shown = ("status", "seed", "stop_reasons", "answer_tokens", "source", "licence")
    names = ("conversation_id", "prompt_id", "model", "conversation", *shown)
    return (record for _, record in read_records(path, names))


def _answer(record: Mapping[str, Any]) -> Shown:
    asked, answered = _turns(record)
    facts = [(name, _cell(record[name])) for name in ("status", "seed", "stop_reasons", "answer_tokens") if name in record]
    return Shown(str(record.get("conversation_id")), facts, texts(asked), [(str(record.get("model")), texts(answered))])


def _turns(record: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[str]]:
    try:
        asked, answered = questions_and_answers(record.get("conversation"))
    except ValueError:
        return [], []
    return [turn or "" for turn in asked], [turn or "" for turn in answered]


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    plain = value.tolist() if hasattr(value, "tolist") else value
    return ", ".join(map(str, plain)) if isinstance(plain, list) else json.dumps(plain)
