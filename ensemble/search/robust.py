"""Groups of the fitting rows that a rehearsal leaves out in turn to compare candidates.

Ordinary folds say what a plan loses on more battles of the same mixture. Groups say what it loses on a source, a language or
a length that it was built without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.members.rows import FEWEST_ROWS
from ensemble.members.table import FOLDS, Members
from ensemble.members.texts import COLUMN, SCRIPT
from ensemble.plan import HeldGroup, Robust, RobustBy
from zoo.errors import ZooError
from zoo.scores.metrics import mean_and_error

LENGTH, LANGUAGE = "length", "language"  # columns that need not be in the file
ROBUST_BY: tuple[RobustBy, ...] = ("worst", "mean")
BANDS = 4  # of lengths, with equally many rows
LEAST_ROWS, MOST_GROUPS = 50, 20  # a smaller group says too little alone; every group is a build
_NAMED = 3  # groups in one, beyond which they are called others


@dataclass(frozen=True)
class AskedGroups:
    """`--robust COLUMN` and `--robust-by`."""

    column: str
    by: RobustBy = "worst"


@dataclass(frozen=True)
class Groups:
    """The group (rows,) of each row as a number, and the groups' names."""

    asked: AskedGroups
    names: tuple[str, ...]
    of: np.ndarray

    def report(self, losses: np.ndarray, prompts: np.ndarray) -> Robust:
        """Losses (rows,) by group, for the plan."""
        groups = []
        for place, name in enumerate(self.names):
            rows = self.of == place
            loss, error = mean_and_error(losses[rows], prompts[rows])
            known = None if np.isnan(error) else error
            groups.append(HeldGroup(name=name, rows=int(rows.sum()), log_loss=loss, log_loss_se=known))
        return Robust(column=self.asked.column, by=self.asked.by, groups=tuple(groups))


def groups_of(members: Members, asked: AskedGroups) -> Groups:
    """The groups of the members' rows by a column of their battles, by language or by length.

    Groups of fewer than LEAST_ROWS rows are put together, the smallest first. ZooError where the column is not there, has too
    many values, leaves one group, or where a group has nearly all prompts, so that nothing is left to build without it.
    """
    values = _values(members, asked.column)
    names, of = np.unique(values, return_inverse=True)
    if len(names) > MOST_GROUPS:
        raise ZooError(
            f"--robust {asked.column}: {len(names):,} values, and each is a build of its own; give a column with {MOST_GROUPS} "
            "at most"
        )
    groups = [([str(name)], of == place) for place, name in enumerate(names)]
    while len(groups) > 1 and min(rows.sum() for _, rows in groups) < LEAST_ROWS:
        groups.sort(key=lambda group: int(group[1].sum()))
        (some, rows), (more, others) = groups[:2]
        groups[:2] = [([*some, *more], rows | others)]
    if len(groups) < 2:
        raise ZooError(f"--robust {asked.column}: fewer than two groups of {LEAST_ROWS} rows; give another column")
    together = [" and ".join(some) if len(some) <= _NAMED else "others" for some, _ in groups]
    for name, (_, rows) in zip(together, groups, strict=True):
        left = members.groups[~np.isin(members.groups, members.groups[rows])]
        if len(left) < FEWEST_ROWS or len(np.unique(left)) < FOLDS:
            raise ZooError(
                f"--robust {asked.column}: without the prompts of {name} {len(left)} rows are left, too few to build on; give "
                "a column whose values share fewer prompts"
            )
    return Groups(asked, tuple(together), np.argmax([rows for _, rows in groups], axis=0))


def _values(members: Members, column: str) -> np.ndarray:
    """The value (rows,) of the column in each row, as text."""
    about = members.about
    if about is not None and COLUMN in about.columns:
        return np.array([value or "(empty)" for value in about[COLUMN].astype(str)])
    if column == LENGTH and members.characters.any():
        edges = np.quantile(members.characters, np.linspace(0, 1, BANDS + 1)[1:-1])
        bounds = [0, *edges.astype(int).tolist(), int(members.characters.max())]
        names = np.array([f"{place + 1}: to {high:,} characters" for place, high in enumerate(bounds[1:])])
        bands: np.ndarray = names[np.searchsorted(edges, members.characters, side="left")]
        return bands
    if column == LANGUAGE and about is not None and SCRIPT in about.columns:
        return about[SCRIPT].to_numpy(dtype=str)
    if column in (LENGTH, LANGUAGE):
        raise ZooError(f"--robust {column}: the members' battles came without texts; give --data a file with texts")
    theirs = "beside their ids, models, texts and winners"  # which nothing holds as groups
    raise ZooError(f"--robust {column}: the battles have no such column {theirs}; give one of theirs, {LANGUAGE} or {LENGTH}")


def score(losses: np.ndarray, of: np.ndarray, by: RobustBy) -> float:
    """The mean loss of the worst group, or the mean of the groups' means.

    `losses` and `of`, the groups: (rows,).
    """
    means = _means(losses, of)
    return float(means.max() if by == "worst" else means.mean())


def score_and_error(losses: np.ndarray, of: np.ndarray, prompts: np.ndarray, by: RobustBy) -> tuple[float, float]:
    """What `score` says, and the error of that by prompt.

    Of the worst group's rows, or with every group weighing the same.
    """
    if by == "worst":
        rows = _worst(losses, of)
        return mean_and_error(losses[rows], prompts[rows])
    return score(losses, of, by), _error_of_mean(losses, of, prompts)


def beyond_by_group(
    ours: np.ndarray, theirs: np.ndarray, of: np.ndarray, prompts: np.ndarray, by: RobustBy
) -> tuple[float, float]:
    """How much our score is above theirs, and the error of that; all arrays (rows,).

    By the worst groups the error is that of the paired difference on their worst one; by the mean every group weighs the same.
    """
    difference = score(ours, of, by) - score(theirs, of, by)
    if by == "worst":
        rows = _worst(theirs, of)
        return difference, mean_and_error((ours - theirs)[rows], prompts[rows])[1]
    return difference, _error_of_mean(ours - theirs, of, prompts)


def _worst(losses: np.ndarray, of: np.ndarray) -> np.ndarray:
    """The rows, bool (rows,), of the group of the highest loss."""
    worst: np.ndarray = of == np.unique(of)[_means(losses, of).argmax()]
    return worst


def _error_of_mean(values: np.ndarray, of: np.ndarray, prompts: np.ndarray) -> float:
    """The error of the mean of groups' means: of the rows around their group's, since how large groups are is no chance."""
    groups, places, counts = np.unique(of, return_inverse=True, return_counts=True)
    weights = len(of) / (len(groups) * counts)
    return mean_and_error(((values - _means(values, of)[places]) * weights[places]), prompts)[1]


def _means(losses: np.ndarray, of: np.ndarray) -> np.ndarray:
    _, places = np.unique(of, return_inverse=True)
    means: np.ndarray = np.bincount(places, weights=losses) / np.bincount(places)
    return means


def words(asked: AskedGroups, names: Sequence[str]) -> str:
    """By what candidates were compared, for the plan."""
    which = "the worst" if asked.by == "worst" else "the mean"
    return f"{which} of {len(names)} groups of {asked.column}, each left out of the build in turn"
