"""Peers' ensembling on tables of `ensemble_search.py`, in an interpreter that has them: python ensemble_peers.py tables.npz

Writes predictions of the held-out rows beside the tables and prints a JSON list of what was run, or why not.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np


def hillclimbers(p: np.ndarray, y: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, float]:
    """hillclimbers 0.1.x takes one column a model, so its climb runs on the probabilities of one label at a time."""
    import pandas as pd
    from hillclimbers import climb_hill, partial
    from sklearn.metrics import log_loss

    started, out = time.monotonic(), np.zeros(held.shape[1:])
    for label in range(3):
        target = (y == label).astype(int)
        columns = [f"m{j}" for j in range(len(p))]
        train = pd.DataFrame({"target": target})
        oof = pd.DataFrame(p[:, :, label].T, columns=columns)
        test = pd.DataFrame(held[:, :, label].T, columns=columns)
        predicted, _ = climb_hill(
            train=train,
            oof_pred_df=oof,
            test_pred_df=test,
            target="target",
            objective="minimize",
            eval_metric=partial(log_loss),
            negative_weights=False,
            precision=0.01,
            plot_hill=False,
            plot_hist=False,
            return_oof_preds=True,
        )
        out[:, label] = np.asarray(predicted)
    seconds = time.monotonic() - started
    out = np.clip(out, 1e-6, None)
    return out / out.sum(axis=1, keepdims=True), seconds


def autogluon(p: np.ndarray, y: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, float]:
    """AutoGluon's greedy weighted ensemble (EnsembleSelection, 25 rounds), as TabularPredictor uses it on log loss."""
    from autogluon.core.metrics import log_loss
    from autogluon.core.models.greedy_ensemble.ensemble_selection import EnsembleSelection

    started = time.monotonic()
    model = EnsembleSelection(ensemble_size=25, problem_type="multiclass", metric=log_loss)
    model.fit(list(p), y)
    return np.tensordot(np.asarray(model.weights_), held, axes=1), time.monotonic() - started


def main() -> None:
    path = Path(sys.argv[1])
    data = np.load(path)
    results = []
    for method, run in (("hillclimbers, one label at a time", hillclimbers), ("AutoGluon weighted ensemble", autogluon)):
        try:
            predicted, seconds = run(data["p"], data["y"], data["held_p"])
            file = path.with_name(f"{run.__name__}.npy")
            np.save(file, predicted)
            results.append({"method": method, "file": str(file), "seconds": seconds})
        except Exception as error:  # a peer that does not run is a result of its own
            results.append({"method": method, "note": f"{type(error).__name__}: {error}"[:120]})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
