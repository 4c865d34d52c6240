"""Artifacts by the names that people give: a fingerprint, a folder, or a member."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zoo.contracts import ScoreCard
from zoo.errors import ZooError
from zoo.scores.tables import CARD, read_card
from zoo.store import artifact_folders, fingerprint_of, leave_out, names_fingerprint


def cards_of(folder: Path) -> list[ScoreCard]:
    """The cards of the score tables in an artifact that can be read; none for other artifacts."""
    cards = []
    for path in sorted(folder.glob(f"*/{CARD}")):
        try:
            cards.append(read_card(path))
        except ZooError as error:
            leave_out(error)
    return cards


def artifacts_named(store: Path, names: Sequence[str]) -> list[Path]:
    """The artifacts that each name means, once each; without names all of the store.

    A fingerprint (its first digits are enough), STAGE-FINGERPRINT, or a member, which means all its score tables. ZooError
    where a name means none, or a fingerprint several.
    """
    folders = artifact_folders(store)
    if not names:
        return folders
    found: dict[Path, None] = {}
    for name in names:
        found |= dict.fromkeys(_one(store, folders, name.strip()))
    return list(found)


def _one(store: Path, folders: Sequence[Path], name: str) -> list[Path]:
    by_digits = [f for f in folders if name == f.name or names_fingerprint(name, fingerprint_of(f))]
    if len(by_digits) > 1:
        raise ZooError(f"{name}: the beginning of {len(by_digits)} fingerprints: {', '.join(f.name for f in by_digits)}")
    found = by_digits or [f for f in folders if any(card.member == name for card in cards_of(f))]
    if not found:
        raise ZooError(f"{name}: no artifact of {store}, nor a member that `zoo leaderboard` lists")
    return found
