"""What the soak counts, kept after every case, so that a run that is stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path


@dataclass
class Counts:
    """Faults seen in one case. All are wanted to be 0."""

    rows_lost: int = 0
    rows_doubled: int = 0
    half_artifacts: int = 0
    tracking_broken: int = 0
    late: int = 0
    invalid_files: int = 0
    tracebacks: int = 0
    hangs: int = 0
    notes: list[str] = field(default_factory=list)  # what happened, so that a fault can be followed up

    @property
    def total(self) -> int:
        return sum(getattr(self, name) for name in COLUMNS)

    def add(self, column: str, note: str, count: int = 1) -> None:
        """Count a fault and say what it was."""
        setattr(self, column, getattr(self, column) + count)
        self.notes.append(f"{column}: {note}")


COLUMNS = tuple(f.name for f in fields(Counts) if f.name != "notes")


class Ledger:
    """The finished cases of a soak: a line of JSON each, in one file."""

    def __init__(self, path: Path, seed: int) -> None:
        self._path, self._seed = path, seed
        self._done: dict[str, Counts] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                record = json.loads(line)
                case = record.pop("case")
                if record.pop("seed") == seed:
                    self._done[case] = Counts(**record)

    def run(self, case: str, act: Callable[[Counts], None], say: Callable[[str], None]) -> None:
        """Run a case unless it is done, and keep what it counted."""
        if case in self._done:
            return
        counts = Counts()
        act(counts)
        self._done[case] = counts
        with self._path.open("a") as file:
            file.write(json.dumps({"case": case, "seed": self._seed, **asdict(counts)}) + "\n")
        faults = "ok" if not counts.total else "FAULTS"
        say(f"{case}: {faults}" + "".join(f"\n    {note}" for note in counts.notes))

    @property
    def faults(self) -> int:
        return sum(counts.total for counts in self._done.values())

    def table(self) -> str:
        """A row for each kind of case (`part/kind/number`), and the sum, as markdown."""
        kinds: dict[str, list[Counts]] = {}
        for case, counts in self._done.items():
            kinds.setdefault(case.rpartition("/")[0], []).append(counts)
        head = ["case", "times", *(name.replace("_", " ") for name in COLUMNS)]
        rows = [_row(kind, found) for kind, found in kinds.items()]
        rows.append(_row("**all**", list(self._done.values())))
        lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(name: str, found: Iterable[Counts]) -> list[str]:
    found = list(found)
    return [name, str(len(found)), *(str(sum(getattr(c, column) for c in found)) for column in COLUMNS)]
