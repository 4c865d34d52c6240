"""Classifier heads against label tokens: log loss over seeds, and the gain, paired by row and seed.

    python experiments/009-head-or-labels/compare.py STORE DATA_FOLDER

STORE has what `zoo experiment` of this folder left; DATA_FOLDER the recipe's files. Of each model and file: mean log loss over
seeds as it stands and recalibrated by other prompts' rows (a temperature and biases), and what the classifier gains on both,
with the error and 95 % interval of `zoo/scores/gains.py`: prompts and seeds.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from zoo.contracts import EvaluateRequest, TrainRequest
from zoo.data.splits import prompt_groups
from zoo.data.usable import usable_battles
from zoo.experiments.scored import Labels, scored_rows
from zoo.scores.gains import Gain, cross_recalibrated_losses, paired_gain
from zoo.scores.metrics import log_loss_rows
from zoo.store import list_artifacts

FILES = ("human_train.csv.gz", "lmsys_dev.csv")
HEADS = ("labels", "classifier")
COLUMNS = ("model", "battles", "seeds", "labels (range)", "classifier (range)", "gained", "both, recalibrated", "gained then")


def shown(gain: Gain) -> str:
    mark = "**" if gain.told else ""
    return f"{mark}{gain.mean:+.4f} ± {gain.error:.4f}{mark} ({gain.low:+.3f} to {gain.high:+.3f})"


def main() -> None:
    store, data = Path(sys.argv[1]), Path(sys.argv[2])
    artifacts = list_artifacts(store)
    trained = {a.fingerprint: a.manifest.request for a in artifacts if isinstance(a.manifest.request, TrainRequest)}
    print(
        "| model | battles | seeds | labels (range) | classifier (range) | gained | recalibrated: labels, classifier | gained |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in FILES:
        battles = usable_battles(data / name)
        frame = battles.frame
        by_id = {i: int(label) for i, label in zip(frame["id"], frame["label"], strict=True) if label >= 0}
        groups = dict(zip(frame["id"], prompt_groups(frame).tolist(), strict=True))
        labels = Labels(by_id, groups, battles.can_tie)
        found: dict[str, dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]] = defaultdict(dict)
        ids: dict[str, list[object]] = {}
        for artifact in artifacts:
            request = artifact.manifest.request
            if not isinstance(request, EvaluateRequest) or request.trained is None or request.battles.path.name != name:
                continue
            train = trained[request.trained.fingerprint]
            scored = scored_rows(artifact, labels)
            assert ids.setdefault(request.entry, list(scored.ids)) == list(scored.ids)
            rows = np.array([groups[i] for i in scored.ids])
            raw = log_loss_rows(scored.p, scored.y)
            found[request.entry][train.head, train.spec.seed] = raw, cross_recalibrated_losses(scored.p, scored.y, rows)
        for entry, runs in sorted(found.items()):
            seeds = sorted({seed for _, seed in runs if all((head, seed) in runs for head in HEADS)})
            if not seeds:
                continue
            rows = np.array([groups[i] for i in ids[entry]])
            both = [np.stack([[runs[head, seed][k] for seed in seeds] for head in HEADS]) for k in (0, 1)]
            gains = [paired_gain(losses[0].T, losses[1].T, rows) for losses in both]
            means = both[0].mean(axis=2)
            cells = [f"{one.mean():.4f} ({one.min():.3f} to {one.max():.3f})" for one in means]
            fitted = ", ".join(f"{one:.4f}" for one in both[1].mean(axis=(1, 2)))
            print(
                f"| {entry} | {name} | {len(seeds)} | {' | '.join(cells)} | {shown(gains[0])} | {fitted} | {shown(gains[1])} |"
            )


if __name__ == "__main__":
    main()
