"""The lexical model: logistic regressions that are exactly symmetric in A and B.

There are two, on features and TF-IDF. The first says whether there is a winner, from what A and B have together; the second who
it is, from their differences and without an intercept: p_tie = s(t), p_a = (1 - p_tie) s(d), p_b = (1 - p_tie) s(-d), s the
logistic function. Exchanging the answers changes the sign of d and nothing else. The log loss is the sum of the two parts', so
each is fitted by itself.

Models are kept as plain arrays (npz and JSON): nothing is unpickled.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import expit, logit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from zoo.contracts import LexicalSpec
from zoo.errors import ZooError
from zoo.stages.lexical.features import Features

TIE = 2
MIN_DOCUMENTS = 3  # a word or pair of words in fewer texts is not used
UNSEEN = 0.5  # of a row, that a label which no row has is counted as (Krichevsky and Trofimov 1981, IEEE Trans. Inf. Theory 27)
LENGTH = 0  # column of log_characters in ANSWER_FEATURES


@dataclass(frozen=True)
class Terms:
    """TF-IDF of each text of a frame of battles: sparse matrices (rows, vocabulary)."""

    prompt: sparse.csr_matrix
    a: sparse.csr_matrix
    b: sparse.csr_matrix


@dataclass(frozen=True)
class FoldModel:
    """Coefficients of one fold's two regressions, on scaled features and on TF-IDF."""

    length_mean: np.ndarray
    length_scale: np.ndarray
    win_scale: np.ndarray
    win_features: np.ndarray
    win_terms: np.ndarray
    tie_mean: np.ndarray
    tie_scale: np.ndarray
    tie_features: np.ndarray
    tie_terms: np.ndarray
    tie_prompt_terms: np.ndarray
    tie_intercept: np.ndarray


def fit_vectorizer(features: Features, spec: LexicalSpec) -> TfidfVectorizer:
    """Words and pairs of words of all texts.

    Shared by the folds: it reads no labels, and texts are tokenized once.
    """
    texts = [*features.prompt_texts, *features.a_texts, *features.b_texts]
    try:
        return _vectorizer(min_df=min(MIN_DOCUMENTS, len(texts)), max_features=spec.max_features).fit(texts)
    except ValueError as error:
        raise ZooError(f"the battles hold too few words for a lexical model ({error}); give more rows") from error


def _vectorizer(**options: Any) -> TfidfVectorizer:
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", **options)


def terms_of(vectorizer: TfidfVectorizer, features: Features) -> Terms:
    return Terms(*(vectorizer.transform(texts) for texts in (features.prompt_texts, features.a_texts, features.b_texts)))


@dataclass(frozen=True)
class Cases:
    """What a regression learns, case by case, each array (cases,).

    Rows, whether each is one of its kind, and the weight of that. A row with a share of both is two cases.
    """

    rows: np.ndarray
    truth: np.ndarray
    weight: np.ndarray


def cases_of(yes: np.ndarray, no: np.ndarray) -> Cases:
    """The cases of rows, in their order.

    `yes`, `no` (rows,): how much of each row is of the kind, and how much is not.
    """
    row, truth = np.tile(np.arange(len(yes)), 2), np.repeat([True, False], len(yes))
    weight = np.concatenate([yes, no])
    order = np.argsort(row, kind="stable")
    order = order[weight[order] > 0]
    return Cases(row[order], truth[order], weight[order])


def fit_fold(features: Features, terms: Terms, targets: np.ndarray, rows: np.ndarray, spec: LexicalSpec) -> FoldModel:
    """Fit on the rows of a boolean mask.

    `targets` (rows, 3): what each row counts, split into A, B and tie; one row of 0, 0, 1 is a tie.
    """
    learned = np.where(rows[:, None], targets, 0.0)
    winners, ties = cases_of(learned[:, 0], learned[:, 1]), cases_of(learned[:, TIE], learned[:, :TIE].sum(axis=1))
    weight = learned.sum(axis=1)[rows]
    lengths = (features.a[rows, LENGTH] + features.b[rows, LENGTH]) / 2
    length_mean = _mean(lengths, weight)
    length = {"length_mean": np.atleast_1d(length_mean), "length_scale": np.atleast_1d(_scale(lengths, length_mean, weight))}
    win, tie = _win_features(features, **length), _tie_features(features)
    won = win[winners.rows]
    win_scale = _scale(won, 0.0, winners.weight)
    tie_mean = _mean(tie[rows], weight)
    tie_scale = _scale(tie[rows], tie_mean, weight)
    win_terms_of = [terms.a[winners.rows] - terms.b[winners.rows]]
    win_features, (win_terms,), _ = _fit(won / win_scale, win_terms_of, winners, spec, intercept=False)
    tie_features, (tie_terms, tie_prompt_terms), tie_intercept = _fit(
        (tie[ties.rows] - tie_mean) / tie_scale,
        [terms.a[ties.rows] + terms.b[ties.rows], terms.prompt[ties.rows]],
        ties,
        spec,
        intercept=True,
    )
    return FoldModel(
        **length,
        win_scale=win_scale,
        win_features=win_features,
        win_terms=win_terms,
        tie_mean=tie_mean,
        tie_scale=tie_scale,
        tie_features=tie_features,
        tie_terms=tie_terms,
        tie_prompt_terms=tie_prompt_terms,
        tie_intercept=tie_intercept,
    )


def _mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted mean over rows; 0 of none, which `_fit` then refuses."""
    mean: np.ndarray = np.average(values, axis=0, weights=weight) if len(values) else np.zeros(values.shape[1:])
    return mean


def _scale(values: np.ndarray, centre: np.ndarray | float, weight: np.ndarray) -> np.ndarray:
    """Root of the mean square about a centre, never zero."""
    scale: np.ndarray = np.sqrt(_mean((values - centre) ** 2, weight)) + 1e-9
    return scale


def _fit(
    dense: np.ndarray, blocks: list[sparse.csr_matrix], cases: Cases, spec: LexicalSpec, *, intercept: bool
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Coefficients of the dense features and of each TF-IDF block, and the intercept.

    The two kinds have a strength of regularization each: a column multiplied by sqrt(C) under C = 1 is one under C.
    """
    target = cases.truth
    if intercept and not target.any():  # no battle is a tie: near 0, since one to come may be
        rate = UNSEEN / (cases.weight.sum() + 1)
        return np.zeros(dense.shape[1]), [np.zeros(block.shape[1]) for block in blocks], np.array([logit(rate)])
    if target.all() or not target.any():
        lacking = (
            "no battle that has a winner" if intercept or not len(target) else "no battle that A wins, or none that B wins"
        )
        raise ZooError(f"a fold's training rows have {lacking}; give more labelled battles or fewer folds")
    scales = [np.sqrt(spec.features_c), *(np.sqrt(spec.regularization_c) for _ in blocks)]
    columns = [sparse.csr_matrix(dense), *blocks]
    design = sparse.hstack([block * scale for block, scale in zip(columns, scales, strict=True)], format="csr")
    regression = LogisticRegression(C=1.0, fit_intercept=intercept, max_iter=1000, tol=1e-4)
    fit = regression.fit(design, target, sample_weight=cases.weight)
    ends = np.cumsum([block.shape[1] for block in columns])[:-1]
    first, *rest = (part * scale for part, scale in zip(np.split(fit.coef_[0], ends), scales, strict=True))
    return first, rest, np.atleast_1d(np.asarray(fit.intercept_, dtype=np.float64))


def _win_features(features: Features, length_mean: np.ndarray, length_scale: np.ndarray) -> np.ndarray:
    """Differences A - B, and these times the battle's length.

    What a list is worth depends on how long the answers are.
    """
    difference = features.a - features.b
    length = ((features.a[:, LENGTH] + features.b[:, LENGTH]) / 2 - length_mean) / length_scale
    return np.hstack([difference, difference * np.clip(length, -2, 2)[:, None]])


def _tie_features(features: Features) -> np.ndarray:
    return np.hstack([np.abs(features.a - features.b), features.a + features.b, features.prompt, features.pair])


def predict(model: FoldModel, features: Features, terms: Terms) -> np.ndarray:
    """p_a, p_b, p_tie of each row: (rows, 3), summing to 1."""
    win = _win_features(features, model.length_mean, model.length_scale) / model.win_scale
    difference = win @ model.win_features + (terms.a @ model.win_terms - terms.b @ model.win_terms)
    tie = (_tie_features(features) - model.tie_mean) / model.tie_scale
    together = terms.a @ model.tie_terms + terms.b @ model.tie_terms
    tied = tie @ model.tie_features + together + terms.prompt @ model.tie_prompt_terms + model.tie_intercept
    return np.column_stack([expit(-tied) * expit(difference), expit(-tied) * expit(-difference), expit(tied)])


def save_vectorizer(vectorizer: TfidfVectorizer, folder: Path) -> None:
    """vocabulary.json and idf.npz; terms in the order of their columns."""
    terms = vectorizer.get_feature_names_out().tolist()
    (folder / "vocabulary.json").write_text(json.dumps(terms), encoding="utf-8")
    np.savez_compressed(folder / "idf.npz", idf=vectorizer.idf_)


def load_vectorizer(folder: Path) -> TfidfVectorizer:
    terms = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    vectorizer = _vectorizer(vocabulary={term: i for i, term in enumerate(terms)})
    with np.load(folder / "idf.npz", allow_pickle=False) as arrays:
        vectorizer.idf_ = arrays["idf"]
    return vectorizer


def save_fold(model: FoldModel, path: Path) -> None:
    np.savez_compressed(path, **asdict(model))


def load_fold(path: Path) -> FoldModel:
    with np.load(path, allow_pickle=False) as arrays:
        return FoldModel(**{field.name: arrays[field.name] for field in fields(FoldModel)})
