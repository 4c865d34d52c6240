"""Real comparisons and out-of-fold tables of four text models on them, for `ensemble_pools.py`.

Votes of people (human_train.csv.gz), of GPT-4 (llm_judged.csv.gz) and its preferences between answers of a log
(judge_preferences.csv.gz, answers_log.jsonl.gz), sides shuffled where one side was always a reference. A preference between
0.35 and 0.65 is a tie. The models are scikit-learn's, fitted by prompt folds: they are weaker than language models, and GPT-4's
preferences in that log are easy to guess from the answers' style.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

UNSURE, CHARACTERS = 0.15, 1500  # a share of 0.5 +- UNSURE is a tie; so much of a text is read
MARKS = ("\n", "\n- ", "\n1.", "```", "**", "#", "?", "!", ",", "sorry", "I ")


def comparisons(folder: Path) -> pd.DataFrame:
    """Rows of prompt, a, b, y (0, 1, 2), group (of equal prompts) and source."""
    parts = [_votes(folder / "human_train.csv.gz", "people"), _votes(folder / "llm_judged.csv.gz", "judged")]
    frame = pd.concat([*parts, _log(folder)], ignore_index=True)
    frame["group"] = frame["prompt"].str.strip().str.lower().factorize()[0]
    return frame


def _votes(path: Path, source: str) -> pd.DataFrame:
    raw = pd.read_csv(path)
    texts = {side: raw[name].map(_joined) for side, name in (("prompt", "prompt"), ("a", "response_a"), ("b", "response_b"))}
    y = raw[["winner_model_a", "winner_model_b", "winner_tie"]].to_numpy().argmax(axis=1)
    return pd.DataFrame({**texts, "y": y, "source": source})


def _joined(turns: str) -> str:
    return "\n".join(text or "" for text in json.loads(turns))


def _log(folder: Path) -> pd.DataFrame:
    answers, prompts = {}, {}
    with gzip.open(folder / "answers_log.jsonl.gz", "rt") as lines:
        for item in map(json.loads, lines):
            turns = item["conversation"]
            answers[item["conversation_id"].partition("-")[0], item["model"]] = turns[1]["content"]
            prompts[item["conversation_id"].partition("-")[0]] = turns[0]["content"]
    raw = pd.read_csv(folder / "judge_preferences.csv.gz")
    pairs = [f"{r.prompt_id} {r.model_a} {r.model_b}" for r in raw.itertuples()]
    swap = np.array([hashlib.blake2b(pair.encode()).digest()[0] % 2 for pair in pairs])
    first = [answers.get((r.prompt_id, r.model_a)) for r in raw.itertuples()]
    second = [answers.get((r.prompt_id, r.model_b)) for r in raw.itertuples()]
    there = np.array([a is not None and b is not None for a, b in zip(first, second, strict=True)])
    share = np.where(swap == 1, 1 - raw["share_b"], raw["share_b"])
    frame = pd.DataFrame(
        {
            "prompt": [prompts.get(i, "") for i in raw["prompt_id"]],
            "a": [b if s else a for a, b, s in zip(first, second, swap, strict=True)],
            "b": [a if s else b for a, b, s in zip(first, second, swap, strict=True)],
            "y": np.where(np.abs(share - 0.5) <= UNSURE, 2, (share > 0.5).astype(int)),
            "source": "log",
        }
    )
    return frame[there]


def tables(frame: pd.DataFrame, folds: np.ndarray) -> dict[str, np.ndarray]:
    """Triples (rows, 3) of each model, each fold's by a fit to the others."""
    found = {"words": _features(frame, analyzer="word", ngram_range=(1, 1)), "characters": _features(frame, "char_wb", (3, 3))}
    out = {name: _by_folds(_linear, *features, frame["y"].to_numpy(), folds) for name, features in found.items()}
    shape = _shape(frame)
    out["shape"] = _by_folds(_boosted, *shape, frame["y"].to_numpy(), folds)
    out["topics"] = _by_folds(_boosted, *_topics(frame, shape), frame["y"].to_numpy(), folds)
    return out


def _features(frame: pd.DataFrame, analyzer: str, ngram_range: tuple[int, int]) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Odd and even features: differences of the answers' TF-IDF, and their sizes beside the prompt's."""
    hashed = HashingVectorizer(analyzer=analyzer, ngram_range=ngram_range, n_features=2**15, alternate_sign=False, norm=None)
    counts = [hashed.transform(frame[side].str[:CHARACTERS]) for side in ("prompt", "a", "b")]
    scale = TfidfTransformer(sublinear_tf=True).fit(sparse.vstack(counts[1:]))
    prompt, a, b = (scale.transform(part) for part in counts)
    return a - b, sparse.hstack([abs(a - b), prompt]).tocsr()


def _shape(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    def measure(texts: pd.Series) -> np.ndarray:
        counts = [texts.str.count(mark.replace("*", r"\*").replace("?", r"\?").replace(".", r"\.")) for mark in MARKS]
        return np.log1p(np.column_stack([texts.str.len(), *counts]).astype(float))

    a, b, prompt = measure(frame["a"]), measure(frame["b"]), measure(frame["prompt"])
    return a - b, np.hstack([np.abs(a - b), a + b, prompt])


def _topics(frame: pd.DataFrame, shape: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    hashed = HashingVectorizer(n_features=2**16, alternate_sign=False, stop_words="english")
    counts = [hashed.transform(frame[side].str[:CHARACTERS]) for side in ("prompt", "a", "b")]
    tfidf = TfidfTransformer(sublinear_tf=True).fit(sparse.vstack(counts))
    svd = TruncatedSVD(40, random_state=0).fit(tfidf.transform(sparse.vstack(counts)[::3]))
    prompt, a, b = (normalize(svd.transform(tfidf.transform(part))) for part in counts)
    near = [(prompt * side).sum(axis=1) for side in (a, b)]
    odd = np.column_stack([a - b, near[0] - near[1], shape[0][:, :1]])
    return odd, np.column_stack([np.abs(a - b), prompt, (a * b).sum(axis=1), near[0] + near[1]])


def _by_folds(fit, odd, even, y: np.ndarray, folds: np.ndarray) -> np.ndarray:
    out = np.empty((len(y), 3))
    for fold in np.unique(folds):
        held = folds == fold
        out[held] = fit(odd[~held], even[~held], y[~held], odd[held], even[held])
    return out


def _linear(odd, even, y: np.ndarray, held_odd, held_even) -> np.ndarray:
    decisive = y < 2
    lead = LogisticRegression(C=0.5, fit_intercept=False, solver="liblinear").fit(odd[decisive], y[decisive] == 0)
    tie = LogisticRegression(C=0.1, solver="liblinear").fit(even, y == 2)
    return _triples(lead.predict_proba(held_odd)[:, 1], tie.predict_proba(held_even)[:, 1])


def _boosted(odd: np.ndarray, even: np.ndarray, y: np.ndarray, held_odd: np.ndarray, held_even: np.ndarray) -> np.ndarray:
    """Boosted trees that see both orders of a decisive battle, and whether a battle is a tie."""
    decisive = y < 2
    both = np.vstack([np.hstack([s * odd[decisive], even[decisive]]) for s in (1, -1)])
    won = np.concatenate([y[decisive] == 0, y[decisive] == 1])
    model = HistGradientBoostingClassifier(max_iter=80, learning_rate=0.08, max_leaf_nodes=12, random_state=0).fit(both, won)
    orders = [model.predict_proba(np.hstack([s * held_odd, held_even]))[:, 1] for s in (1, -1)]
    tie = HistGradientBoostingClassifier(max_iter=60, learning_rate=0.06, max_leaf_nodes=8, random_state=0).fit(even, y == 2)
    return _triples((orders[0] + 1 - orders[1]) / 2, tie.predict_proba(held_even)[:, 1])


def _triples(lead: np.ndarray, tie: np.ndarray) -> np.ndarray:
    return np.column_stack([(1 - tie) * lead, (1 - tie) * (1 - lead), tie])
