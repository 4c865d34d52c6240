"""The score tables of a store, and which of them each member stands for.

This is the one rule of builds, the leaderboard and figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.contracts import Manifest, Request, ScoreCard, ScoreRequest, ScoringRequest
from zoo.errors import ZooError
from zoo.pipeline.stage_table import SCORING
from zoo.scores.metric_names import ROWS
from zoo.scores.tables import CARD, NO_FOLD, OK, SCORES, read_card, read_scores, variant_metrics
from zoo.store import leave_out, list_artifacts, names_fingerprint, recipe_of

if TYPE_CHECKING:
    import pandas as pd


NEARLY = 0.95  # of the most rows: out-of-fold rows are worth that many of those whose folds nobody knows


@dataclass(frozen=True)
class Table:
    """A score table on disk with its card.

    `fingerprint` and `manifest` are its artifact's, where it is of one. `battles_path` is where its labelled battles were.
    `recipe`: what all folds of one way to make an entry share, by `zoo.store.lineage.recipe_of`; empty where that is not known.
    """

    path: Path
    card: ScoreCard
    frame: pd.DataFrame
    battles_path: Path | None
    fingerprint: str = ""
    recipe: str = ""
    manifest: Manifest | None = None

    @property
    def held_fold(self) -> int | None:
        """The fold that the checkpoint did not see; None where it is not one fold's."""
        request = self.card.request
        if isinstance(request, ScoreRequest) and request.selection.rows == "held_out":
            return request.held.fold
        return None

    @property
    def name(self) -> str:
        return self.card.member

    @property
    def which(self) -> str:
        """What tells it from others of its name.

        The artifact's fingerprint, or its folder where it is of no artifact.
        """
        return self.fingerprint or self.path.name

    @property
    def metrics(self) -> dict[str, float]:
        """Its own metrics as its stage left them."""
        return variant_metrics(self.manifest, self.path.name) if self.manifest else {}

    @property
    def usable(self) -> pd.DataFrame:
        """Rows scored without a fault; out of fold where the table knows folds."""
        frame = self.frame[self.frame["status"] == OK]
        return frame[frame["fold"] >= 0] if (frame["fold"] >= 0).any() else frame

    @cached_property
    def rows(self) -> int:
        """How many usable rows it has.

        No more than were labelled, where its stage counted those.
        """
        return min(len(self.usable), int(self.metrics.get(ROWS, len(self.frame))))

    @cached_property
    def knows_folds(self) -> bool:
        return bool((self.frame["fold"] >= 0).any())

    @property
    def says_its_rule(self) -> bool:
        """Whether it is known by which rule its folds go.

        It is not of a table that was imported, nor of one without folds.
        """
        return self.card.request is not None and bool((self.frame["fold"] != NO_FOLD).any())

    def is_called(self, text: str) -> bool:
        """Whether `text` is its fingerprint, or the beginning of it."""
        return text == self.which or names_fingerprint(text, self.fingerprint)


@dataclass(frozen=True)
class Member:
    """What a member's name stands for: one table, or those of one recipe's folds.

    Of `parts` the last one serves.
    """

    parts: tuple[Table, ...]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def table(self) -> Table:
        """All parts as one table, under the last one's card."""
        import pandas as pd

        last = self.parts[-1]
        return replace(last, frame=pd.concat([part.frame for part in self.parts], ignore_index=True))


@dataclass(frozen=True)
class Standing:
    """Which tables are members', and why the others are not (table, reason)."""

    members: tuple[Member, ...]
    superseded: tuple[tuple[Table, str], ...]


def score_tables(store: Path) -> list[Table]:
    """Score tables of all finished artifacts of a store, oldest first.

    Those that predictions left behind do not count, nor those of a ladder's few rows.
    """
    tables = []
    for artifact in list_artifacts(store, *SCORING):
        request = artifact.manifest.request
        if isinstance(request, ScoringRequest) and (request.selection.rows == "listed" or request.selection.diagnostic):
            continue
        folders = [path.parent for path in sorted(artifact.path.glob(f"*/{CARD}"))]
        folders += [artifact.path] if (artifact.path / CARD).exists() else []
        recipe = recipe_of(artifact.manifest, artifact.path)
        for folder in folders:
            try:
                table = load_table(folder, request, artifact.fingerprint)
            except ZooError as error:  # one table that cannot be read keeps no other member out
                leave_out(error)
                continue
            tables.append(replace(table, recipe=recipe, manifest=artifact.manifest))
    return tables


def load_table(folder: Path, request: Request | None = None, fingerprint: str = "") -> Table:
    """One folder with a table and its card.

    `request` and `fingerprint` of the artifact it is of, if it is of one.
    """
    card = read_card(folder / CARD)
    source = request or card.request
    battles = source.inputs.get("battles") if source else None
    return Table(folder, card, read_scores(folder / SCORES), battles.place if battles else None, fingerprint)


def standing(tables: Sequence[Table], prefer: Sequence[str] = ()) -> Standing:
    """For each member, data set and target the table that it stands for.

    `tables`: the oldest first. The tables of one recipe's folds count as one. Preferred tables (fingerprints) come before
    others. One that the zoo scored without folds comes last, however many its rows: its checkpoint may have learned from them.
    Of the others, those with at least NEARLY as many usable rows as the largest are taken first; of these the ones that know
    their folds, then those with more rows, then newer ones.
    """
    rivals: dict[tuple[str, str, str, str | None], list[Table]] = {}
    for table in tables:
        card = table.card
        rivals.setdefault((table.name, card.dataset_digest, card.target, card.emulates), []).append(table)
    members: list[Member] = []
    superseded: list[tuple[Table, str]] = []
    for group in rivals.values():
        by_recipe: dict[object, list[Table]] = {}
        for place, table in enumerate(group):
            by_recipe.setdefault(_kinship(table) or place, []).append(table)
        candidates = []
        for kin in by_recipe.values():
            member, replaced = _joined(kin, prefer)
            candidates.append(member)
            superseded += replaced
        most = _most_rows([(member.parts, member.rows) for member in candidates])
        best = max(candidates, key=lambda member: _strength(member.parts, member.rows, group, prefer, most))
        members.append(best)
        for other in candidates:
            if other is not best:
                reason = _reason(best, other, group, prefer, most)
                superseded += [(part, reason) for part in other.parts]
    return Standing(tuple(members), tuple(superseded))


def check_names(tables: Sequence[Table], options: dict[str, Sequence[str]]) -> None:
    """ZooError where an option names a member or a table that there is none of.

    `options`: option -> what it was given: fingerprints for `--prefer`, names for `--include`, either for others.
    """
    for option, given in options.items():
        for text in given:
            by_name = option != "--prefer" and any(table.name == text for table in tables)
            by_fingerprint = option != "--include" and any(table.is_called(text) for table in tables)
            if not by_name and not by_fingerprint:
                known = sorted({table.which if option == "--prefer" else table.name for table in tables})
                raise ZooError(f"{option} {text}: no score table is called that; there are {', '.join(known[:20])}")


def _kinship(table: Table) -> tuple[object, ...] | None:
    """What the tables of one recipe's folds share, each of rows that its checkpoint did not see; None for any other table."""
    request = table.card.request
    if not (table.recipe and table.held_fold is not None and table.knows_folds and isinstance(request, ScoreRequest)):
        return None
    return (table.recipe, request.held.model_copy(update={"fold": 0}))


def _joined(kin: Sequence[Table], prefer: Sequence[str]) -> tuple[Member, list[tuple[Table, str]]]:
    """The strongest table of each fold as one member, and the others with the reason."""
    by_fold: dict[int | None, list[Table]] = {}
    for table in kin:
        by_fold.setdefault(table.held_fold, []).append(table)
    kept, replaced = [], []
    for same in by_fold.values():
        most = _most_rows([((table,), table.rows) for table in same])
        best = max(same, key=lambda table: _strength((table,), table.rows, same, prefer, most))
        kept.append(best)
        others = [table for table in same if table is not best]
        replaced += [(table, _reason(Member((best,)), Member((table,)), same, prefer, most)) for table in others]
    ordered = [table for table in kin if any(table is part for part in kept)]
    return Member(tuple(ordered)), replaced


def _most_rows(candidates: Sequence[tuple[Sequence[Table], int]]) -> int:
    """The most rows of those whose checkpoint cannot have learned from them, as far as is known."""
    return max((rows for parts, rows in candidates if not may_have_learned(parts)), default=0)


def _strength(
    parts: Sequence[Table], rows: int, order: Sequence[Table], prefer: Sequence[str], most: int
) -> tuple[bool, bool, bool, bool, int, int]:
    age = max(place for place, table in enumerate(order) if table is parts[-1])
    knows_folds = all(part.knows_folds for part in parts)
    return _is_preferred(parts, prefer), not may_have_learned(parts), rows >= NEARLY * most, knows_folds, rows, age


def may_have_learned(parts: Sequence[Table]) -> bool:
    """Whether the zoo scored every row with one checkpoint, which may have learned from some."""
    return any(part.card.request is not None and not part.knows_folds for part in parts)


def _is_preferred(parts: Sequence[Table], prefer: Sequence[str]) -> bool:
    return any(part.is_called(text) for part in parts for text in prefer)


def _reason(best: Member, own: Member, order: Sequence[Table], prefer: Sequence[str], most: int) -> str:
    """Why a table is not its member's."""
    winner = _strength(best.parts, best.rows, order, prefer, most)
    loser = _strength(own.parts, own.rows, order, prefer, most)
    if winner[0] != loser[0]:
        kind = "preferred "
    elif winner[1] != loser[1] or (winner[2] == loser[2] and winner[3] != loser[3]):
        kind = "out-of-fold "
    else:
        kind = "newer " if best.rows == own.rows else ""
    which = " + ".join(part.which for part in best.parts)
    tables, verb = ("tables", "are") if len(best.parts) > 1 else ("table", "is")
    return f"the {kind}{tables} {which} with {best.rows:,} rows {verb} taken; this has {own.rows:,}"
