"""Checkpoints become models, scored ones are registered, and people promote them."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

import pytest

from tests.helpers.manifests import CREATED
from tests.helpers.tracked import (
    all_runs,
    scored,
    trained,
)
from zoo.entries.load import load_entry
from zoo.errors import ZooError
from zoo.tracking.client import connection as tracking_client
from zoo.tracking.promote import members_with_alias, promote
from zoo.tracking.sync import log_stage, sync


def test_checkpoints_are_models_and_scored_ones_are_registered(home: Path) -> None:
    """A scored checkpoint is a version whose alias is `candidate`; the files stay in the store; logging again adds none."""
    training, first = trained(home / "store"), scored(home / "store")
    later = scored(home / "store", model="n" * 16, created=CREATED + datetime.timedelta(days=1))
    for artifact in (training, later, first):  # out of order: the candidate is the one scored last, not logged last
        assert log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    shutil.rmtree(home / ".logged")
    assert sync(home / "store") == 0
    client = tracking_client.connect()
    (adapter,) = [r for r in all_runs("stage") if r.data.tags["zoo.stage"] == "train"]
    (output,) = adapter.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert model.name == "smollm2-135m-adapter" and model.tags["mlflow.model.isExternal"] == "true"
    assert not any(path.is_file() for path in (home / "artifacts").rglob("models/**/*")), "nothing is copied"
    versions = client.search_model_versions("name = 'smollm2-135m'")
    assert {v.tags["zoo.checkpoint"] for v in versions} == {"m" * 16, "n" * 16}
    assert {v.tags["zoo.members"] for v in versions} == {"smollm2-135m@ab-512,smollm2-135m@ba-512"}
    expected = {"smollm2-135m@ab-512": "n" * 16, "smollm2-135m@ba-512": "n" * 16}
    assert members_with_alias("candidate") == expected


def test_promote_makes_champions(home: Path) -> None:
    for model, day in (("m" * 16, 0), ("n" * 16, 1)):
        artifact = scored(home / "store", model=model, created=CREATED + datetime.timedelta(days=day))
        log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    with pytest.raises(ZooError, match="no scored entry has the alias 'champion'; give it with `zoo promote"):
        members_with_alias("champion")
    assert promote("smollm2-135m") == "2"
    assert set(members_with_alias("champion").values()) == {"n" * 16}
    assert promote("smollm2-135m", version="1") == "1"
    assert set(members_with_alias("champion").values()) == {"m" * 16}
    assert promote("smollm2-135m", version="2", alias="submitted") == "2"
    assert set(members_with_alias("submitted").values()) == {"n" * 16}
    for arguments, message in (
        ({"name": "absent"}, r"no scored checkpoint of 'absent' .*registered: smollm2-135m"),
        ({"name": "smollm2-135m", "version": "7"}, "no version 7; it has 1, 2"),
        ({"name": "smollm2-135m", "alias": "v1"}, "--alias v1: use letters"),
        ({"name": "o'b"}, "no scored checkpoint"),
    ):
        with pytest.raises(ZooError, match=message):
            promote(**arguments)
