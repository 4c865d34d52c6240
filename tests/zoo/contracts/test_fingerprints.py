"""Requests keep their fingerprints: what a store of an earlier version holds is found again.

`fingerprints.json` was made by the code of version 0.1.0: every stage with each optional field set and unset. A change of
what a stage makes raises that stage's `revision` and its lines in that file, and CHANGELOG says so.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from zoo.contracts import REQUESTS
from zoo.data.battles import dataset_digest, read_battles
from zoo.data.votes import VOTES, votes_digest
from zoo.store import fingerprint

KNOWN = json.loads((Path(__file__).with_name("fingerprints.json")).read_text())


@pytest.mark.parametrize("known", KNOWN["requests"], ids=lambda known: f"{known['stage']}: {known['set']}")
def test_a_request_has_the_bytes_and_the_fingerprint_that_it_always_had(known: dict) -> None:
    request = REQUESTS[known["stage"]].model_validate(known["given"])
    canonical = json.dumps(request.model_dump(mode="json"), sort_keys=True)
    assert fingerprint(request) == known["fingerprint"]
    assert hashlib.sha256(canonical.encode()).hexdigest()[:16] == known["canonical_sha256"]


def test_every_stage_is_in_the_list() -> None:
    assert {known["stage"] for known in KNOWN["requests"]} == set(REQUESTS)


def test_battles_keep_their_digests(tmp_path: Path) -> None:
    path = tmp_path / "battles.csv"
    path.write_text(KNOWN["battles"]["text"])
    assert dataset_digest(read_battles(path)) == KNOWN["battles"]["dataset_digest"]
    assert votes_digest(read_battles(path, keep=VOTES)) == KNOWN["battles"]["votes_digest"]
