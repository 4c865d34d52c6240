"""A member whose model was trained elsewhere, of which nobody said on what: in a build only where it is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble.members.vetting import suspects
from tests.helpers.manifests import score_card
from tests.helpers.requests import PROMPT, given
from zoo.contracts import Held, ScoreRequest, ScoreSpec, changed
from zoo.data.learned import POSSIBLY
from zoo.errors import ZooError
from zoo.pipeline.members import Member, Table
from zoo.pipeline.suspicion import suspects_of_data
from zoo.pipeline.truth import Truth
from zoo.scores.tables import score_table


def scored(name: str, ids: list[str], suspect: str) -> Table:
    """What our own stage scored: its card has the request, and what was said of its weights."""
    asked = ScoreRequest(
        entry=name, model=given(Path("m")), battles=given(Path("b")), held=Held(), prompt=PROMPT, spec=ScoreSpec(), target="cpu"
    )
    rng = np.random.default_rng(len(name))
    frame = score_table(ids, rng.dirichlet((2, 2, 2), len(ids)), fold=0)
    return Table(Path(name), score_card(name, request=asked, suspect=suspect), frame, None)


def test_it_is_left_out_and_marked_unless_it_is_asked_for() -> None:
    ids = [f"r{i}" for i in range(60)]
    tables = [scored("theirs", ids, POSSIBLY), scored("ours", ids, "")]
    labels = pd.Series(np.arange(60) % 3, index=ids)
    groups = {row_id: i for i, row_id in enumerate(ids)}
    frames = [table.usable.set_index("id") for table in tables]
    assert suspects(tables, frames, labels, groups, []) == {0: f"{POSSIBLY}; --include asks for it"}
    assert suspects(tables, frames, labels, groups, ["theirs"]) == {}
    with pytest.raises(ZooError, match=r"possibly in-sample.*ask for one with --include"):
        suspects(tables[:1], frames[:1], labels, groups, [])

    truth = Truth(labels, pd.Series(groups), ties=True)
    members = [Member((table,)) for table in tables]
    for known in (truth, None):
        assert suspects_of_data(members, known) == {0: POSSIBLY}, "on the leaderboard"
    plain = replace(tables[0], card=changed(tables[0].card, suspect=""))
    assert suspects_of_data([Member((plain,)), members[1]], truth) == {}
