"""The Python API of zoo and ensembler: what the commands do, for notebooks and scripts.

It only hands on: each function calls what the command of its name calls, reads and leaves the same files, and takes DataFrames
where the command takes files. Whatever cannot be right is a `ZooError` with the command's own line. docs/python.md has a page
of examples, docs/notebooks/ three notebooks.
"""

from preference_zoo.building import Frontier, build, frontier
from preference_zoo.bundles import Bundle, bundle
from preference_zoo.entries import Ladder, Run, check, cost, ladder, run
from preference_zoo.plans import Plan
from preference_zoo.store import Leaderboard, Store, battles, import_scores, leaderboard, open_store
from zoo.errors import ZooError

__all__ = [
    "Bundle",
    "Frontier",
    "Ladder",
    "Leaderboard",
    "Plan",
    "Run",
    "Store",
    "ZooError",
    "battles",
    "build",
    "bundle",
    "check",
    "cost",
    "frontier",
    "import_scores",
    "ladder",
    "leaderboard",
    "open_store",
    "run",
]
