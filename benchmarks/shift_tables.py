"""Members for ensemble_shift.py: a lexical model and three of scikit-learn, fitted by prompt folds, scored on a second file.

Each table of the fitting file is out of fold; that of the second file is the mean of the fold models, which is what serves.
Tables are kept as CSV in a folder and made once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ensemble_coverage import boosted_model, texts_of, tfidf_model

from zoo.contracts import LexicalSpec
from zoo.data.battles import read_battles
from zoo.data.splits import assign_folds
from zoo.scores.tables import PROBABILITIES, swap_sides
from zoo.stages.lexical.features import Features
from zoo.stages.lexical.model import fit_fold, fit_vectorizer, predict, terms_of

FOLDS, RULE = 5, "near-prompts-1"
MODELS = {
    "words": lambda: tfidf_model("word", 2**16, 1e-3),
    "characters": lambda: tfidf_model("char_wb", 2**17, 1e-3),
    "topics": boosted_model,
}


def make_tables(fitting: Path, other: Path, folder: Path) -> dict[str, tuple[Path, Path]]:
    """The tables (out of fold on `fitting`, fold models' mean on `other`) of each member, made where they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: (folder / f"{name}.fit.csv", folder / f"{name}.other.csv") for name in ("lexical", *MODELS)}
    missing = [name for name, pair in paths.items() if not all(path.exists() for path in pair)]
    if not missing:
        return paths
    ours, theirs = read_battles(fitting).frame, read_battles(other).frame
    folds = assign_folds(ours, FOLDS, RULE)
    for name in missing:
        print(f"fitting {name}", flush=True)
        made = _lexical(ours, theirs, folds) if name == "lexical" else _scikit(MODELS[name], ours, theirs, folds)
        for path, frame, p in zip(paths[name], (ours, theirs), made, strict=True):
            pd.DataFrame(p, columns=list(PROBABILITIES)).assign(id=frame["id"].to_numpy()).to_csv(path, index=False)
    return paths


def _lexical(ours: pd.DataFrame, theirs: pd.DataFrame, folds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    spec, y = LexicalSpec(), ours["label"].to_numpy()
    features, new = Features(ours), Features(theirs)
    vectorizer = fit_vectorizer(features, spec)
    terms, new_terms = terms_of(vectorizer, features), terms_of(vectorizer, new)
    p, others = np.empty((len(y), 3)), []
    for fold in range(FOLDS):
        held = folds == fold
        model = fit_fold(features, terms, y, ~held, spec)
        p[held] = predict(model, features, terms)[held]
        others.append(predict(model, new, new_terms))
    return p, np.mean(others, axis=0)


def _scikit(make: Any, ours: pd.DataFrame, theirs: pd.DataFrame, folds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both orders are shown in training and averaged in prediction."""
    texts, new, y = texts_of(ours), texts_of(theirs), ours["label"].to_numpy()
    p, others = np.empty((len(y), 3)), []
    for fold in range(FOLDS):
        held = folds == fold
        labels = np.concatenate([y[~held], np.array([1, 0, 2])[y[~held]]])
        model = make().fit(pd.concat([texts[~held], _exchanged(texts[~held])]), labels)
        p[held], other = _both_orders(model, texts[held]), _both_orders(model, new)
        others.append(other)
    return p, np.mean(others, axis=0)


def _exchanged(texts: pd.DataFrame) -> pd.DataFrame:
    return texts.rename(columns={"response_a": "response_b", "response_b": "response_a"})[list(texts.columns)]


def _both_orders(model: Any, texts: pd.DataFrame) -> np.ndarray:
    p: np.ndarray = (model.predict_proba(texts) + swap_sides(model.predict_proba(_exchanged(texts)))) / 2
    return p
