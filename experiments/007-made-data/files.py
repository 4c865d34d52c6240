"""Files that the recipe learns from and no command of the zoo makes.

    python experiments/007-made-data/files.py raw MAPPED.csv.gz PREFERENCES.csv.gz RAW.csv.gz
    python experiments/007-made-data/files.py prompts LOG.jsonl.gz BATTLES.csv.gz PROMPTS.jsonl
    python experiments/007-made-data/files.py samples ANSWERS.jsonl SEED SEED LOG.jsonl
    python experiments/007-made-data/files.py part LABELLED.csv.gz ROWS OUT.csv.gz
    python experiments/007-made-data/files.py join PAIRS.parquet PAIRS.parquet... OUT.parquet

`raw`: the rows of a file that `zoo data label` made of preferences, with the verdict itself as their winner: below 0.4 A,
above 0.6 B, else a tie. `prompts`: what the users of a log and of battles ask, each once. `samples`: of the answers of two
models with several seeds the first model's of one seed and the second one's of another, since `zoo data mine` takes a model's
first answer to a prompt. `part`: so many rows, those whose ids have the smallest hashes. `join`: the pairs of several files.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.data.votes import VOTES

WINNERS = ["winner_model_a", "winner_model_b", "winner_tie"]
DECIDED = 0.1  # a preference this far from one half is no tie


def raw(mapped: Path, preferences: Path) -> pd.DataFrame:
    """The rows of `mapped` with the verdicts of `preferences` as winners, without shares."""
    rows = pd.read_csv(mapped, dtype=str)
    given = pd.read_csv(preferences)
    shares: dict[tuple[str, str, str, str], float] = {}
    for one in given.itertuples():
        shares.setdefault((one.prompt_id, one.model_a, one.model_b, one.judge), one.share_b)
        shares.setdefault((one.prompt_id, one.model_b, one.model_a, one.judge), 1 - one.share_b)
    prompts = rows["log_id_a"].str.split("-", n=1).str[0]
    keys = zip(prompts, rows["generator_a"], rows["generator_b"], rows["judge"], strict=True)
    b = np.array([shares[key] for key in keys])
    places = np.where(b < 0.5 - DECIDED, 0, np.where(b > 0.5 + DECIDED, 1, 2))
    rows[WINNERS] = np.eye(3, dtype=int)[places]
    return rows.drop(columns=[*VOTES, "consistency"])


def prompts(log: Path, battles: Path, out: Path) -> None:
    """The user's turns of each conversation and battle, with source and licence where a row has them; a prompt once."""
    found: dict[str, dict[str, object]] = {}
    with gzip.open(log, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            asked = [turn["content"] for turn in row["conversation"] if turn["role"] == "user"]
            found.setdefault(json.dumps(asked), {"prompt": asked, "source": row["source"], "licence": row["licence"]})
    for row in pd.read_csv(battles, dtype=str).itertuples():
        asked = json.loads(row.prompt)
        found.setdefault(json.dumps(asked), {"prompt": asked, "source": row.dataset, "licence": row.licence})
    out.write_text("".join(json.dumps(row) + "\n" for row in found.values()))


def samples(answers: Path, first: int, second: int, out: Path) -> None:
    """The log of one seed's answers of the first model and another's of the second."""
    rows = [json.loads(line) for line in answers.open(encoding="utf-8")]
    models = list(dict.fromkeys(row["model"] for row in rows))
    wanted = dict(zip(models, (first, second), strict=True))
    out.write_text("".join(json.dumps(row) + "\n" for row in rows if row["seed"] == wanted[row["model"]]))


def part(labelled: Path, count: int, out: Path) -> None:
    """`count` rows by the SHA-256 of their ids, in the order of the file."""
    rows = pd.read_csv(labelled, dtype=str)
    order = rows["id"].map(lambda row_id: hashlib.sha256(row_id.encode()).hexdigest()).argsort(kind="stable")
    rows.iloc[sorted(order[:count])].to_csv(out, index=False)


def main() -> None:
    what, *given = sys.argv[1:]
    if what == "raw":
        made = raw(Path(given[0]), Path(given[1]))
        made.to_csv(given[2], index=False)
        print(f"{given[2]}: {len(made):,} rows")
    elif what == "prompts":
        prompts(*map(Path, given))
    elif what == "samples":
        samples(Path(given[0]), int(given[1]), int(given[2]), Path(given[3]))
    elif what == "part":
        part(Path(given[0]), int(given[1]), Path(given[2]))
    elif what == "join":
        pd.concat(map(pd.read_parquet, given[:-1])).to_parquet(given[-1], index=False)
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
