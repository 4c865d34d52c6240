"""Topics of prompts: clusters of the words that they use.

TF-IDF of words and of runs of characters within words, which need no spaces between words, in DIMENSIONS by truncated singular
value decomposition (latent semantic analysis, Deerwester et al. 1990), then k-means on the unit sphere. No model is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DIMENSIONS = 50
TOPICS, TOPIC_PROMPTS = 24, 15  # at most so many topics, of so many prompts of the target in the mean
READ_CHARACTERS = 4_000  # of a prompt
FITTED = 20_000  # prompts that topics are found with; the rest are assigned
SEED = 0


def topics_of(pool: Sequence[str], target: Sequence[str], prompts_each: int = TOPIC_PROMPTS) -> tuple[np.ndarray, np.ndarray]:
    """The topic of each prompt of a pool and of a target, numbered: int64.

    As many topics as the target can tell apart, with `prompts_each` of its prompts in the mean.
    """
    texts = [text[:READ_CHARACTERS] for text in (*pool, *target)]
    count = max(1, min(TOPICS, len(target) // prompts_each))
    topics = clusters(vectors(texts), count)
    return topics[: len(pool)], topics[len(pool) :]


def vectors(texts: Sequence[str]) -> np.ndarray:
    """A vector for each text: float64, (texts, up to DIMENSIONS).

    Of length 1, or 0 where a text has no words.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union
    from sklearn.preprocessing import normalize

    settings = {"sublinear_tf": True, "max_features": 30_000, "dtype": np.float32}
    words = TfidfVectorizer(min_df=2 if len(texts) > 50 else 1, max_df=0.5, token_pattern=r"(?u)\b\w+\b", **settings)
    runs = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4), **settings)
    both = make_union(words, runs)
    fitted = _some(len(texts))
    try:
        both.fit([texts[place] for place in fitted])
    except ValueError:  # no words at all
        return np.zeros((len(texts), 1))
    counts = both.transform(texts)
    size = min(DIMENSIONS, counts.shape[1] - 1, len(fitted) - 1)
    if size < 1:
        return np.zeros((len(texts), 1))
    reduced = TruncatedSVD(size, random_state=SEED).fit(counts[fitted]).transform(counts)
    found: np.ndarray = normalize(reduced.astype(np.float64))
    return found


def clusters(points: np.ndarray, count: int) -> np.ndarray:
    """The cluster of each point, numbered by size, the largest first: int64."""
    from sklearn.cluster import KMeans

    fitted = points[_some(len(points))]
    count = min(count, len(np.unique(fitted, axis=0)))
    found = KMeans(count, n_init=4, random_state=SEED).fit(fitted).predict(points)
    order = np.argsort(-np.bincount(found, minlength=count), kind="stable")
    places: np.ndarray = np.argsort(order)[found]
    return places


def _some(count: int) -> np.ndarray:
    """Places of at most FITTED of them, the same each time."""
    return np.sort(np.random.default_rng(SEED).permutation(count)[:FITTED])
