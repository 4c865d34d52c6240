"""Members from files alone: tables of scores that somebody has, in no store.

They are read and checked as `zoo import` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from zoo.contracts import Cost, Say, ScoreCard, Variant
from zoo.data.battles import Battles, dataset_digest
from zoo.data.usable import MOST_BAD, usable_battles
from zoo.errors import ZooError
from zoo.pipeline.import_checks import checked_table
from zoo.pipeline.members import Table
from zoo.scores.tables import OK
from zoo.store import file_sha256

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".json", ".jsonl", ".gz", ".zip", ".bz2", ".xz", ".zst")
IMPOSSIBLE = (" + ", "=", ",")  # in a name: plans and options use them


def named_files(given: Sequence[str], option: str = "--scores") -> dict[str, Path]:
    """Files by the members' names: `NAME=FILE`, or FILE, which is named by its stem.

    ZooError where two have one name, or a name is none.
    """
    found: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            name, path = _stem(Path(text)), text
        if not name.strip() or not name.isprintable() or any(part in name for part in IMPOSSIBLE) or not path:
            raise ZooError(f"{option} {text}: give FILE or NAME=FILE, the name in letters, digits, '.', '_', '@' and '-'")
        if name in found:
            raise ZooError(f"{option}: {found[name]} and {path} are both called {name}; name one of them: NAME=FILE")
        found[name] = Path(path)
    return found


def _stem(path: Path) -> str:
    """A file's name without what says of which format it is, and how it is packed."""
    while path.suffix.lower() in SUFFIXES:
        path = path.with_suffix("")
    return path.name


def labelled_file(path: Path, *, most_bad: float = MOST_BAD, say: Say = lambda _: None) -> Battles:
    """The labels that tables are fitted to: battles, or ids and winners alone.

    ZooError where none has a winner.
    """
    battles = usable_battles(path, say=say, most_bad=most_bad, need_texts=False)
    if not battles.labelled:
        raise ZooError(f"{path}: has no winner columns; give the ids with their winners (`zoo data --help` names the columns)")
    return battles


def tables_of_files(
    files: Mapping[str, Path],
    labels: Path,
    target: str,
    *,
    columns: Mapping[str, str] | None = None,
    most_bad: float = MOST_BAD,
    say: Say = lambda _: None,
) -> list[Table]:
    """Each file as a member's table for the battles of `labels`; they have no price.

    A file may lack rows, which are not fitted on, and have others; that is said, and what was mended in reading. ZooError, with
    row ids, for what cannot be right.
    """
    battles = labelled_file(labels, most_bad=most_bad)
    return [_table(name, path, battles, target, columns, say) for name, path in files.items()]


def _table(name: str, path: Path, battles: Battles, target: str, columns: Mapping[str, str] | None, say: Say) -> Table:
    read = checked_table(path, battles, columns, whole=False)
    if read.notes:
        say(f"{path}: {'; '.join(read.notes)}")
    content = file_sha256(path)[:16]
    card = ScoreCard(
        member=name,
        entry=name,
        variant=Variant(),
        target=target,
        engine="file",
        dataset_digest=dataset_digest(battles),
        rows=len(read.table),
        failed_rows=int((read.table["status"] != OK).sum()),
        checkpoint=content,
        cost=Cost(target=target, load_seconds=0.0, gpus=0, priced=False),
    )
    return Table(path, card, read.table, battles.path, content)
