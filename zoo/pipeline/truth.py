"""What the rows of one data set are judged by: labels and prompts, by id.

Reading a large file and finding near-copies among its prompts takes longer than all else that a leaderboard does, so what came
out is kept in the store, for as long as the file is the one that was read.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.contracts import FoldRule, rule_name
from zoo.data.battles import Battles, count_characters, dataset_digest, labels_digest, read_battles
from zoo.data.splits import NEAR_PROMPTS, prompt_groups
from zoo.errors import ZooError
from zoo.pipeline.members import Table
from zoo.store import TRUTH, write_atomic

if TYPE_CHECKING:
    import pandas as pd

_FACTS = b"zoo"  # of a kept file: which file it was read from, and whether its battles can be ties


@dataclass(frozen=True)
class Truth:
    """Labels and prompts of the labelled rows of one data set, by id.

    `groups` is the same number for battles of one prompt: their losses count as dependent. `ties`: whether they can be ties.
    `characters`: of prompt and both responses; None where the file has no texts.
    """

    labels: pd.Series
    groups: pd.Series
    ties: bool
    characters: pd.Series | None = None


def truth_of(battles: Battles, rule: FoldRule | None = None) -> Truth:
    """Of a file's labelled rows. `rule`: as `zoo.data.splits.prompt_groups` takes it."""
    import pandas as pd

    frame = battles.frame.assign(group=prompt_groups(battles.frame, rule))
    known = frame[frame["label"] >= 0].set_index("id")
    characters = pd.Series(count_characters(known), index=known.index) if battles.has_texts else None
    return Truth(known["label"], known["group"], battles.can_tie, characters)


def rule_of(tables: Sequence[Table]) -> FoldRule | None:
    """The rule by which errors of these tables go: near-copies are one where any folds have it."""
    return NEAR_PROMPTS if any(table.says_its_rule and table.card.fold_rule == NEAR_PROMPTS for table in tables) else None


def truth_at_hand(store: Path, tables: Sequence[Table]) -> Truth | None:
    """That of the battles that tables of one data set are of; None where their file is gone."""
    rule, digest = rule_of(tables), tables[0].card.dataset_digest
    kept = store / TRUTH / f"{digest[:16]}-{rule_name(rule)}.parquet"
    for path in dict.fromkeys(table.battles_path for table in tables if table.battles_path):
        try:
            version = _version(path)
            found = _read(kept, version)
            if found is None:
                battles = read_battles(path, need_texts=False)
                if not battles.labelled or digest not in (dataset_digest(battles), labels_digest(battles)):
                    continue
                found = truth_of(battles, rule)
                _keep(found, kept, version)
        except (ZooError, OSError):
            continue
        return found
    return None


def _version(path: Path) -> list[object]:
    """What tells a file from the one that it was."""
    status = path.stat()
    return [str(path), status.st_mtime_ns, status.st_size]


def _read(kept: Path, version: list[object]) -> Truth | None:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(kept)
        facts = json.loads((table.schema.metadata or {})[_FACTS])
        frame = table.to_pandas().set_index("id")
        characters = frame["characters"] if facts["texts"] else None
        return Truth(frame["label"], frame["group"], bool(facts["ties"]), characters) if facts["version"] == version else None
    except (OSError, KeyError, ValueError, TypeError, pyarrow.ArrowException):  # none yet, or damaged
        return None


def _keep(truth: Truth, kept: Path, version: list[object]) -> None:
    import pandas as pd
    import pyarrow
    import pyarrow.parquet

    frame = pd.DataFrame({"id": truth.labels.index, "label": truth.labels.to_numpy(), "group": truth.groups.to_numpy()})
    if truth.characters is not None:
        frame["characters"] = truth.characters.to_numpy()
    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    facts = json.dumps({"version": version, "ties": truth.ties, "texts": truth.characters is not None}).encode()
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table.replace_schema_metadata({_FACTS: facts}), buffer, compression="zstd")
    with suppress(OSError):  # a store that may only be read is read the long way
        kept.parent.mkdir(exist_ok=True)
        write_atomic(kept, buffer.getvalue())
