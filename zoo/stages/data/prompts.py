"""The prompts stage: which prompts of a pool models are to answer.

So that they are like a target's in language, length, turns and topic, or where held-out loss is worst; with a floor that
chance alone decides. Every row has the chance that it had. Prompts that the target asks, or the battles whose loss was looked
at, are left out with their near-copies: they would be masked wherever those are held out.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zoo.contracts import Measurements, PromptsRequest, StageResult, inputs_of
from zoo.data.battles import Battles, read_battles
from zoo.data.draw import drawn, inclusion_probabilities, with_floor
from zoo.data.judges import VERDICTS, read_table
from zoo.data.languages import language_of_turns
from zoo.data.likeness import FEATURES, LENGTH, TOPIC, Bins, distance, features_of, raked, shares
from zoo.data.made import CHOSEN, REPORT
from zoo.data.masks import asked_in, why_masked
from zoo.data.prompts import Prompt, read_prompts
from zoo.data.splits import NEAR_PROMPTS, prompt_groups
from zoo.data.tally import Tally
from zoo.data.topics import TOPIC_PROMPTS, topics_of
from zoo.errors import ZooError
from zoo.scores.loss_cells import LossCells, loss_cells
from zoo.scores.metric_names import MADE_ROWS
from zoo.scores.metrics import log_loss_rows
from zoo.stages import progress
from zoo.store import replacing, write_atomic
from zoo.targets import process_age_seconds

PROMPTS, NOT_DRAWN, OF_NO_LABEL = "prompts", "not drawn: --rows ended it", "of no labelled battle"
LENGTHS = ("short", "middle", "long")  # thirds of the battles' prompts
MOST_SHOWN = 12


@dataclass(frozen=True)
class Pull:
    """What draws prompts.

    Their weights, what each is counted under, and what the report says of it.
    """

    weights: np.ndarray
    kinds: pd.DataFrame
    told: dict[str, Any] = field(default_factory=dict)


def run(request: PromptsRequest, out_dir: Path) -> StageResult:
    """Write `prompts.jsonl` and `report.json`.

    The rows are in the order in which a growing sample takes them.
    """
    load_seconds, started, tally = process_age_seconds(), time.monotonic(), Tally()
    pool, read = usable_pool(request, tally)
    pull = like_target(request, pool) if request.like else worst_of(request, pool, tally)
    weights = with_floor(pull.weights, request.floor)
    chances = inclusion_probabilities(weights, request.rows)
    places = drawn([prompt.id for prompt in pool], weights, request.rows, request.seed)
    tally.add(PROMPTS, NOT_DRAWN, count=len(pool) - len(places))
    with replacing(out_dir / CHOSEN) as file:
        for place in places.tolist():
            record = _record(pool[place], pull.kinds.iloc[place], float(chances[place]))
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
    report = {
        "stage": request.stage,
        "rows": len(places),
        "pool": len(pool),
        "totals": {PROMPTS: read},
        "kept": {PROMPTS: len(places)},
        "counts": tally.records(),
        "floor": request.floor,
        "least_chance": float(chances.min()),
        "certain": int((chances >= 1).sum()),
        **pull.told,
        **_before_and_after(request, pull, places),
        "settings": {"rows": request.rows, "seed": request.seed, "floor": request.floor},
        "inputs": [{"file": given.path.name, "digest": given.fingerprint} for given in inputs_of(request)],
        "seconds": round(time.monotonic() - started, 3),
    }
    write_atomic(out_dir / REPORT, json.dumps(report, indent=1, ensure_ascii=False))
    measured = Measurements(load_seconds=load_seconds, run_seconds=time.monotonic() - started, rows=len(pool))
    return StageResult(metrics={MADE_ROWS: float(len(places))}, measurements=measured)


def usable_pool(request: PromptsRequest, tally: Tally) -> tuple[list[Prompt], int]:
    """The pool's prompts but those that must never be used, and how many rows were read.

    What is left out is counted. ZooError where none is left.
    """
    read = read_prompts(request.pool.path)
    for reason, count in read.left_out.items():
        tally.add(PROMPTS, reason, read.first[reason], count)
    progress.note(f"{read.path}: {read.told}")
    held = [given.path for given in (request.like, request.battles, *request.never) if given]
    pool = []
    for prompt, reason in zip(read.prompts, why_masked([p.turns for p in read.prompts], asked_in(held)), strict=True):
        if reason:
            tally.add(PROMPTS, reason.replace("--never", "the target, the battles or --never"), prompt.turns[0])
        else:
            pool.append(prompt)
    if not pool:
        raise ZooError(f"{read.path}: every prompt is one of the target's, the battles' or --never's; give another pool")
    return pool, read.rows


def like_target(request: PromptsRequest, pool: Sequence[Prompt]) -> Pull:
    """Weights under which the pool is like the target."""
    assert request.like is not None
    target = read_prompts(request.like.path).prompts
    progress.note(f"comparing {len(pool):,} prompts with {len(target):,} of {request.like.path.name}")
    ours, theirs = topics_of([_text(p.turns) for p in pool], [_text(p.turns) for p in target])
    theirs_whole = features_of([p.turns for p in target], theirs)
    bins = Bins.of(theirs_whole)
    kinds, wanted = bins.apply(features_of([p.turns for p in pool], ours)), bins.apply(theirs_whole)
    return Pull(raked(kinds, wanted), kinds, {"target": {name: shares(wanted[name]) for name in FEATURES}})


def worst_of(request: PromptsRequest, pool: Sequence[Prompt], tally: Tally) -> Pull:
    """Weights by the held-out loss of such prompts.

    By how far it is above the mean, as far as that is not chance.
    """
    assert request.battles is not None
    battles, losses = held_out_losses(request, tally)
    asked = battles.frame.set_index("id").loc[losses.index].reset_index()
    progress.note(f"{len(losses):,} rows with a held-out loss, mean {losses.mean():.4f}")
    groups = prompt_groups(asked, NEAR_PROMPTS)
    firsts = asked.groupby(groups)["prompt"].first()  # near-copies are one prompt, of one cell
    texts = [_text(turns) for turns in firsts]
    ours, theirs = topics_of([_text(p.turns) for p in pool], texts, len(LENGTHS) * TOPIC_PROMPTS)
    edges = np.quantile([len(text) for text in texts], (1 / 3, 2 / 3))
    cell_of = dict(zip(firsts.index, _cells(texts, theirs, edges), strict=True))
    cells = loss_cells(losses.to_numpy(), groups, [cell_of[group] for group in groups])
    own = _cells([_text(p.turns) for p in pool], ours, edges)
    kinds = pd.DataFrame({TOPIC: [str(topic) for topic, _ in own], LENGTH: [length for _, length in own]})
    kinds.insert(0, "language", [language_of_turns(prompt.turns) for prompt in pool])
    weights = cells.excess(own)
    if not cells.differ:
        progress.note(f"no kind of prompt has a loss that chance does not explain (p {cells.chance:.2f}): all have one chance")
    return Pull(weights, kinds, {"loss": _loss_record(cells, own, len(losses)), "wanted": int((weights > 0).sum())})


def held_out_losses(request: PromptsRequest, tally: Tally) -> tuple[Battles, pd.Series]:
    """The battles, and the log loss of their labelled rows that the tables score, by id.

    It is the mean of the tables that score a row. What of them says nothing of any is counted.
    """
    assert request.battles is not None
    battles = read_battles(request.battles.path)
    labels = battles.frame[battles.frame["label"] >= 0].set_index("id")["label"]
    found: dict[str, list[float]] = {}
    for given in request.worst_of:
        rows = read_table(given.path, tally).rows
        table = {row_id: p for row_id, (p, _) in rows.items() if row_id in labels.index}
        tally.add(VERDICTS, OF_NO_LABEL, next((row_id for row_id in rows if row_id not in table), ""), len(rows) - len(table))
        p = np.array([*table.values()]).reshape(-1, 3)
        for row_id, loss in zip(table, log_loss_rows(p, labels[list(table)].to_numpy()), strict=True):
            found.setdefault(row_id, []).append(float(loss))
    if not found:
        raise ZooError(
            f"{request.worst_of[0].path}: no row of it is a labelled battle of {battles.path}; give the out-of-fold table of "
            "these battles"
        )
    return battles, pd.Series({row_id: float(np.mean(each)) for row_id, each in found.items()})


def _cells(texts: Sequence[str], topics: np.ndarray, edges: np.ndarray) -> list[tuple[int, str]]:
    """Topic and length of each prompt."""
    places = np.searchsorted(edges, [len(text) for text in texts])
    return [(topic, LENGTHS[place]) for topic, place in zip(topics.tolist(), places.tolist(), strict=True)]


def _loss_record(cells: LossCells, own: Sequence[tuple[int, str]], rows: int) -> dict[str, Any]:
    counts = Counter(own)
    worst = cells.table.sort_values("loss", ascending=False).head(MOST_SHOWN)
    return {
        "rows": rows,
        "prompts": int(cells.table["prompts"].sum()),
        "mean": cells.mean,
        "chance": cells.chance,
        "worst": [
            {
                "topic": topic,
                "length": length,
                "prompts": int(row["prompts"]),
                "mean": row["mean"],
                "shrunken": row["loss"],
                "in_pool": counts[topic, length],
            }
            for (topic, length), row in zip(worst.index.tolist(), worst.to_dict("records"), strict=True)
        ],
    }


def _before_and_after(request: PromptsRequest, pull: Pull, places: np.ndarray) -> dict[str, Any]:
    """Shares of the pool and of what was chosen, and how far each is from the target's."""
    before = {name: shares(pull.kinds[name]) for name in pull.kinds}
    after = {name: shares(pull.kinds[name].iloc[places]) for name in pull.kinds}
    if request.like is None:
        return {"before": before, "after": after}
    target = pull.told["target"]
    apart = {
        name: {"before": distance(before[name], target[name]), "after": distance(after[name], target[name])} for name in target
    }
    lacks = {name: sorted(set(target[name]) - set(before[name])) for name in target}
    return {
        "before": before,
        "after": after,
        "distance": apart,
        "pool_lacks": {name: own for name, own in lacks.items() if own},
    }


def _record(prompt: Prompt, kinds: pd.Series, chance: float) -> dict[str, Any]:
    return {
        "prompt": list(prompt.turns),
        "prompt_id": prompt.id,
        "source": prompt.source,
        "licence": prompt.licence or None,
        "language": language_of_turns(prompt.turns),
        "topic": kinds[TOPIC],
        "inclusion_probability": round(chance, 9),
    }


def _text(turns: Sequence[str | None]) -> str:
    return "\n".join(turn for turn in turns if turn)
