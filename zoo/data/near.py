"""Near-copies of texts: found by MinHash, decided exactly.

The rule `near-prompts-1` of `zoo.contracts.FoldRule`. Two texts, as `zoo.data.splits.normal_text` gives them, are near-copies
where the Jaccard similarity of their sets of five-character shingles is at least 0.7; near-copies of near-copies are one group.
Characters and not words, so that no language without spaces is left out.

Candidates are found by MinHash (Broder 1997) with 128 permutations in 32 bands of 4 (Leskovec et al., Mining of Massive
Datasets, section 3.4): of pairs at the threshold one in 3,000 is missed, above it fewer still. Each candidate is then judged
by its shingles, so no estimate decides.

Why 0.7: of 1,871 real prompts 109 pairs are at least so similar. 105 lie in one family of 15 that differ by the name of a dish,
the other four are the same question twice, among them one with "let's think step by step" behind it (0.76), which 0.8 would
miss. At 0.5 prompts join that share their instructions and ask different things (ten of them in one group).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from zoo.errors import ZooError

SHINGLE = 5  # characters
THRESHOLD = 0.7
PERMUTATIONS, BANDS, SEED = 128, 32, 1
ALGORITHM = 2  # of rensa's permutations; another one would find other candidates
BLOCK, KEPT = 4096, 32_768  # texts whose shingles are in memory at once, and that are kept for the next comparison
WORTH_A_LOOK = 70  # of the permutations must agree: at the threshold, 90 are expected with a standard error of 5


def near_groups(texts: Sequence[str]) -> np.ndarray:
    """The group of each text: the place of its first text. int64, (texts,)."""
    parents = np.arange(len(texts))
    candidates = _Candidates(texts)

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = int(parents[i])
        return i

    for band, bucket in candidates.buckets():
        rest = bucket
        while len(rest) > 1:
            # From one text on to all that hang together with it: what has joined is not compared with the others that have.
            reached, rest = [int(rest[0])], rest[1:]
            while reached and len(rest):
                i = reached.pop()
                joined = np.array([root(int(j)) == root(i) for j in rest])
                joined[~joined] = candidates.near(i, rest[~joined], band)
                for j in rest[joined]:
                    first, last = sorted((root(i), root(int(j))))
                    parents[last] = first
                reached += rest[joined].tolist()
                rest = rest[~joined]
    return np.array([root(i) for i in range(len(texts))], dtype=np.int64)


def near_places(texts: Sequence[str], others: Sequence[str]) -> list[list[int]]:
    """For each text the places of those `others` that are near-copies of it, in order."""
    candidates = _Candidates([*texts, *others])
    found: list[list[int]] = [[] for _ in texts]
    for band, bucket in candidates.buckets():
        ours, theirs = bucket[bucket < len(texts)], bucket[bucket >= len(texts)]
        for i in ours if len(theirs) else ():
            found[i] += (theirs[candidates.near(int(i), theirs, band)] - len(texts)).tolist()
    return [sorted(places) for places in found]


def shingles(text: str) -> np.ndarray:
    """Hashes of a text's runs of SHINGLE characters: uint64; a text that is shorter is one."""
    padded = text.ljust(SHINGLE, "\0").encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(padded, dtype=np.uint32).astype(np.uint64)
    count = len(codes) - SHINGLE + 1
    hashes = codes[:count]
    for k in range(1, SHINGLE):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + codes[k : k + count]
    return _mixed(hashes)


class _Candidates:
    """Some texts' buckets, and which texts of a bucket are near-copies. Shingles of those asked for lately are kept."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._sketches = _sketches(texts)
        self._shingles = lru_cache(maxsize=KEPT)(lambda i: np.unique(shingles(texts[i])))

    def buckets(self) -> Iterator[tuple[int, np.ndarray]]:
        """The bands, each with places of texts whose sketches agree in it, in order of place."""
        for number, band in enumerate(np.split(self._sketches, BANDS, axis=1)):
            keys = np.zeros(len(band), dtype=np.uint64)
            for column in band.T:
                keys = _mixed(keys + column)
            order = np.argsort(keys, kind="stable")
            starts = np.flatnonzero(np.diff(keys[order], prepend=~keys[order[:1]]))
            sizes = np.diff(starts, append=len(keys))
            for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
                yield number, order[start : start + size]

    def near(self, i: int, places: np.ndarray, band: int) -> np.ndarray:
        """Which texts are near-copies of text `i`: bool, (places,). False where a band before has had both in one bucket."""
        agree = self._sketches[places] == self._sketches[i]
        before = agree[:, : band * PERMUTATIONS // BANDS].reshape(len(places), band, PERMUTATIONS // BANDS)
        near: np.ndarray = (agree.sum(axis=1) >= WORTH_A_LOOK) & ~before.all(axis=2).any(axis=1)
        if near.any():
            mine = self._shingles(i)
            theirs = [self._shingles(j) for j in places[near].tolist()]
            sizes = np.array([len(each) for each in theirs])
            together = np.concatenate(theirs)
            found = mine[np.minimum(np.searchsorted(mine, together), len(mine) - 1)] == together
            shared = np.add.reduceat(found, np.cumsum(sizes) - sizes, dtype=np.int64)
            near[near] = shared >= THRESHOLD * (len(mine) + sizes - shared)
        return near


def _sketches(texts: Sequence[str]) -> np.ndarray:
    """MinHash sketches: uint32, (texts, PERMUTATIONS)."""
    from rensa import RMinHash

    if RMinHash.ALGORITHM_VERSION != ALGORITHM:
        raise ZooError(
            f"rensa's algorithm is {RMinHash.ALGORITHM_VERSION}, folds by near-prompts-1 need {ALGORITHM}; install rensa 0.5"
        )
    found = np.empty((len(texts), PERMUTATIONS), dtype=np.uint32)
    for start in range(0, len(texts), BLOCK):
        sets = [shingles(text) for text in texts[start : start + BLOCK]]
        ends = np.cumsum([0, *map(len, sets)]).astype(np.uint64)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(sets), ends, PERMUTATIONS, SEED)
        found[start : start + BLOCK] = matrix.to_rows()
    return found


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """Each bit of a result depends on all bits: the finalizer of SplitMix64 (Steele et al. 2014), without its last step."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed: np.ndarray = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed
