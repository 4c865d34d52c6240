"""Kill, starve and crowd the commands for hours, and count what is lost.

    python -m tests.soak [--part kills|chain|predictions|crowd ...] [--seed 0] [--folder /tmp/soak] [-o table.md]

Every part takes less than an hour on two cores. What was done is kept in FOLDER/ledger.jsonl: the same command goes on where a
stopped one was. At the end a table says how many rows were lost or doubled, artifacts left half, databases broken, predictions
late, files invalid, commands ended by a traceback or hung. Exit code 1 where any was.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from pathlib import Path

from tests.soak import chain, crowd, kills, predictions
from tests.soak.ledger import Ledger
from zoo.targets import machine_fingerprint

PARTS = {"kills": kills.run_part, "chain": chain.run_part, "predictions": predictions.run_part, "crowd": crowd.run_part}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="default: all, one after the other")
    parser.add_argument("--seed", type=int, default=0, help="other moments, other faults")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "soak", help="homes and the ledger")
    parser.add_argument("-o", "--output", type=Path, help="write the table here too")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(options.folder / "ledger.jsonl", options.seed)
    for part in options.part or PARTS:
        PARTS[part](options.folder.absolute() / part, ledger, options.seed, _say)
    text = f"{datetime.date.today()}, {machine_fingerprint()}, seed {options.seed}\n\n{ledger.table()}\n"
    print(text)
    if options.output:
        options.output.write_text(text)
    return int(ledger.faults > 0)


if __name__ == "__main__":
    sys.exit(main())
