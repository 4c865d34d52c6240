"""Near-copies of texts: found by MinHash, decided exactly.

The rule `near-prompts-1` of `zoo.contracts.FoldRule`. Two texts, as `zoo.data.splits.normal_text` gives them, are near-copies
where the Jaccard similarity of their sets of five-character shingles is at least 0.7; near-copies of near-copies are one group.
Characters and not words, so that no language without spaces is left out. Shingles that many of the texts have do not count (see
`common_shingles`): a system message or a template that is put around every question makes no two questions the same.

Candidates are found by MinHash (Broder 1997) with 128 permutations in 32 bands of 4 (Leskovec et al., Mining of Massive
Datasets, section 3.4): of pairs at the threshold one in 3,000 is missed, above it fewer still. Each candidate is then judged
by its shingles, so no estimate decides. In small buckets each text is compared with each; those of large ones, as files of
several templates have them, only with those that share rare shingles (`zoo.data.prefix_join`).

Why 0.7: counted exactly, of the 1,871 distinct prompts of four public files (the competition's, PandaLM's, Tulu-1's and
MT-Bench's, llmfao's and vicuna-80's battles, and a log of AlpacaEval's and Arena-Hard's prompts; 2026-11-26) 109 pairs are at
least so similar, three shingles being common; MinHash missed none. 105 lie in one family of 15 that differ by the name of a
dish, the other four are the same question twice, among them one with "let's think step by step" behind it (0.76). 0.8 would
miss that one and part the family. Further down prompts join that share their instructions and ask different things: four in
one group at 0.6 (112 pairs), ten at 0.5 (146 pairs).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from zoo.contracts import Say
from zoo.data.prefix_join import candidates
from zoo.errors import ZooError

SHINGLE = 5  # characters
THRESHOLD = 0.7
PERMUTATIONS, BANDS, SEED = 128, 32, 1
ALGORITHM = 2  # of rensa's permutations; another one would find other candidates
BLOCK, KEPT = 4096, 32_768  # texts whose shingles are in memory at once, and that are kept for the next comparison
WORTH_A_LOOK = 70  # of the permutations must agree: at the threshold, 90 are expected with a standard error of 5

LARGE = 128  # texts of a bucket that are compared each with each
MANY = 10_000  # texts: below, it is a matter of seconds
FEW = 64  # candidates that are looked at first
COMMON_SHARE, COMMON_LEAST = 0.25, 50  # of distinct texts: above all words of a language but the commonest
REMEMBERED = 4  # files whose groups are kept: a command asks for those of one file several times
_GROUPS: OrderedDict[bytes, np.ndarray] = OrderedDict()


def near_groups(texts: Sequence[str], say: Say = lambda _: None) -> np.ndarray:
    """The group of each text: the place of its first text. int64, (texts,).

    `say` is told where that takes more than seconds.
    """
    key = _digest(texts)
    if key not in _GROUPS:
        if len(texts) >= MANY:
            say(f"looking for near-copies among {len(texts):,} prompts; of 40,000 it takes about half a minute")
        _GROUPS[key] = _near_groups(texts)
        if len(_GROUPS) > REMEMBERED:
            _GROUPS.popitem(last=False)
    return _GROUPS[key].copy()


def _near_groups(texts: Sequence[str]) -> np.ndarray:
    distinct = list(dict.fromkeys(texts))
    group = np.arange(len(distinct), dtype=np.int64)
    small, large = _Candidates(distinct, common_shingles(distinct)).by_size()
    for bucket in small:
        _group_bucket(bucket, group)
    for bucket in large:
        _group_joined(bucket, group)
    place = {text: number for number, text in enumerate(distinct)}
    first = {text: number for number, text in reversed(list(enumerate(texts)))}
    places = np.array([first[text] for text in distinct], dtype=np.int64)
    return places[group[[place[text] for text in texts]]] if len(texts) else group


def _group_bucket(bucket: _Bucket, group: np.ndarray) -> None:
    """Join the groups of a bucket's near-copies, each text compared with all that have not joined."""
    rest = np.arange(len(bucket.places))
    while len(rest) > 1:
        # From one text on to all that hang together with it: what has joined is not compared with the others that have.
        reached, rest = [int(rest[0])], rest[1:]
        while reached and len(rest):
            i = reached.pop()
            joined = group[bucket.places[rest]] == group[bucket.places[i]]
            joined[~joined] = bucket.near(i, rest[~joined])
            _join(group, bucket.places[i], bucket.places[rest[joined]])
            reached += rest[joined].tolist()
            rest = rest[~joined]


def _group_joined(bucket: _Bucket, group: np.ndarray) -> None:
    """The same of many texts, each compared with those alone that have rare shingles of its.

    First all with one of them: where a template is nearly all of each, they are one group at once.
    """
    rest = np.arange(1, len(bucket.places))
    _join(group, bucket.places[0], bucket.places[rest[bucket.near(0, rest)]])
    if len(np.unique(group[bucket.places])) == 1:
        return
    for i, others in bucket.candidates():
        few = FEW
        while len(others := others[group[bucket.places[others]] != group[bucket.places[i]]]):
            # Few at first: where one of a large group is near, none of the rest of it needs to be looked at.
            asked, others = others[:few], others[few:]
            _join(group, bucket.places[i], bucket.places[asked[bucket.near(i, asked)]])
            few *= 2


def _join(group: np.ndarray, place: int, others: np.ndarray) -> None:
    for old in np.unique(group[others]):
        first, last = sorted((group[place], old))
        if first != last:
            group[group == last] = first


def near_places(texts: Sequence[str], others: Sequence[str]) -> list[list[int]]:
    """For each text the places of those `others` that are near-copies of it, in order.

    Shingles do not count that are common among both: one text may have many near-copies.
    """
    common = np.intersect1d(common_shingles(texts), common_shingles(others))
    found: list[list[int]] = [[] for _ in texts]
    small, large = _Candidates([*texts, *others], common).by_size()
    for bucket in small:
        ours, theirs = (np.flatnonzero(side) for side in (bucket.places < len(texts), bucket.places >= len(texts)))
        for i in ours if len(theirs) else ():
            found[bucket.places[i]] += (bucket.places[theirs[bucket.near(int(i), theirs)]] - len(texts)).tolist()
    for bucket in large:
        for i, rivals in bucket.candidates():
            is_ours = bucket.places[i] < len(texts)
            rivals = rivals[(bucket.places[rivals] < len(texts)) != is_ours]
            places = bucket.places[rivals[bucket.near(i, rivals)]] if len(rivals) else rivals
            for place in places.tolist():
                ours, theirs = (bucket.places[i], place) if is_ours else (place, bucket.places[i])
                found[ours].append(int(theirs) - len(texts))
    return [sorted(set(places)) for places in found]


def common_shingles(texts: Sequence[str]) -> np.ndarray:
    """Shingles of so many texts that they are around them: uint64, in order.

    At least COMMON_SHARE of the distinct texts have them, and COMMON_LEAST.
    """
    distinct = sorted(set(texts))
    if len(distinct) < COMMON_LEAST:
        return np.empty(0, dtype=np.uint64)
    blocks = [distinct[start : start + BLOCK] for start in range(0, len(distinct), BLOCK)]
    often = np.empty(0, dtype=np.uint64)
    for block in blocks:  # what is common to all is common to a block: few are counted over all
        found, counts = _counts(block)
        often = np.union1d(often, found[counts >= COMMON_SHARE * len(block)])
    totals = np.zeros(len(often), dtype=np.int64)
    for block in blocks:
        found, counts = _counts(block)
        _, ours, theirs = np.intersect1d(often, found, assume_unique=True, return_indices=True)
        totals[ours] += counts[theirs]
    return often[totals >= max(COMMON_LEAST, COMMON_SHARE * len(distinct))]


def _counts(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    found, counts = np.unique(np.concatenate([np.unique(shingles(text)) for text in texts]), return_counts=True)
    return found, counts


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
    """Some texts' buckets. Shingles of those asked for lately are kept; a text of common ones alone keeps them."""

    def __init__(self, texts: Sequence[str], common: np.ndarray) -> None:
        def own(text: str) -> np.ndarray:
            found = np.unique(shingles(text))
            rest = found[~np.isin(found, common, assume_unique=True)] if len(common) else found
            return rest if len(rest) else found

        self.sketches = _sketches(texts, own)
        self.shingles = lru_cache(maxsize=KEPT)(lambda i: own(texts[i]))

    def by_size(self) -> tuple[list[_Bucket], list[_Bucket]]:
        """Small buckets, and the texts of large ones, each with all that are in a large bucket with it or with such a one.

        A text that shares a large bucket with many shares one with about the same texts in most bands.
        """
        small: list[_Bucket] = []
        large: list[_Bucket] = []
        for bucket in self.buckets():
            (large if len(bucket.places) > LARGE else small).append(bucket)
        return small, [_Bucket(self, places, None) for places in _connected([bucket.places for bucket in large])]

    def buckets(self) -> Iterator[_Bucket]:
        """By band, places of texts whose sketches agree in it, in order of place."""
        for number, band in enumerate(np.split(self.sketches, BANDS, axis=1)):
            keys = np.zeros(len(band), dtype=np.uint64)
            for column in band.T:
                keys = _mixed(keys + column)
            order = np.argsort(keys, kind="stable")
            starts = np.flatnonzero(np.diff(keys[order], prepend=~keys[order[:1]]))
            sizes = np.diff(starts, append=len(keys))
            for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
                yield _Bucket(self, order[start : start + size], number)


class _Bucket:
    """Texts that agree in a band, and which of them are near-copies. Texts go by their number in the bucket.

    Without a band: texts of which some agree in one, some in another.
    """

    def __init__(self, candidates: _Candidates, places: np.ndarray, band: int | None) -> None:
        self.places = places
        self._candidates, self._band = candidates, band
        self._sketches = candidates.sketches[places]
        self._numbered: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def candidates(self) -> Iterator[tuple[int, np.ndarray]]:
        """Each text and those that may be near-copies of it; every pair of near-copies once."""
        return candidates([self._candidates.shingles(place) for place in self.places.tolist()], THRESHOLD)

    def near(self, i: int, others: np.ndarray) -> np.ndarray:
        """Which are near-copies of text `i`: bool, (others,).

        False where they agree in no band, and where a band before this has had both in one bucket.
        """
        agree = self._sketches[others] == self._sketches[i]
        bands = agree.reshape(len(others), BANDS, PERMUTATIONS // BANDS).all(axis=2)
        asked = bands.any(axis=1) if self._band is None else ~bands[:, : self._band].any(axis=1)
        near: np.ndarray = (agree.sum(axis=1) >= WORTH_A_LOOK) & asked
        if near.any():
            near[near] = self._exact(i, others[near])
        return near

    def _exact(self, i: int, others: np.ndarray) -> np.ndarray:
        numbers, starts, has = self._shingle_numbers()
        mine = numbers[starts[i] : starts[i + 1]]
        sizes = starts[others + 1] - starts[others]
        ends = np.cumsum(sizes)
        theirs = numbers[np.arange(ends[-1]) + np.repeat(starts[others] - (ends - sizes), sizes)]
        has[mine] = True
        shared = np.add.reduceat(has[theirs], ends - sizes, dtype=np.int64)
        has[mine] = False
        near: np.ndarray = shared >= THRESHOLD * (len(mine) + sizes - shared)
        return near

    def _shingle_numbers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Small numbers for the bucket's shingles, where each text's begin, and a table of which are asked for."""
        if self._numbered is None:
            sets = [self._candidates.shingles(place) for place in self.places.tolist()]
            distinct, numbers = np.unique(np.concatenate(sets), return_inverse=True)
            self._numbered = numbers, np.cumsum([0, *map(len, sets)]), np.zeros(len(distinct), dtype=bool)
        return self._numbered


def _connected(sets: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Unions of sets of places that hang together by common ones, each in order."""
    if not sets:
        return []
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    places, numbers = np.unique(np.concatenate(sets), return_inverse=True)
    first = np.repeat(numbers[np.cumsum([0, *map(len, sets[:-1])])], [len(one) for one in sets])
    count = len(places)
    _, label = connected_components(
        coo_array((np.ones(len(numbers), dtype=bool), (first, numbers)), shape=(count, count)), False
    )
    order = np.argsort(label, kind="stable")
    return [places[part] for part in np.split(order, np.flatnonzero(np.diff(label[order])) + 1)]


def _digest(texts: Sequence[str]) -> bytes:
    found = hashlib.sha256()
    for text in texts:
        found.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return found.digest()


def _sketches(texts: Sequence[str], shingles_of: Callable[[str], np.ndarray]) -> np.ndarray:
    """MinHash sketches: uint32, (texts, PERMUTATIONS)."""
    from rensa import RMinHash

    if RMinHash.ALGORITHM_VERSION != ALGORITHM:
        raise ZooError(
            f"rensa's algorithm is {RMinHash.ALGORITHM_VERSION}, folds by near-prompts-1 need {ALGORITHM}; install rensa 0.5"
        )
    found = np.empty((len(texts), PERMUTATIONS), dtype=np.uint32)
    for start in range(0, len(texts), BLOCK):
        sets = [shingles_of(text) for text in texts[start : start + BLOCK]]
        ends = np.cumsum([0, *map(len, sets)]).astype(np.uint64)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(sets), ends, PERMUTATIONS, SEED)
        found[start : start + BLOCK] = matrix.to_rows()
    return found


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """Each bit of a result depends on all bits: the finalizer of SplitMix64 (Steele et al. 2014), without its last step."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed: np.ndarray = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed
