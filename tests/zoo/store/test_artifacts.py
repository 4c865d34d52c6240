"""The store: what is a request's identity, and that drift and loss are refused by name."""

import json
from pathlib import Path

import pytest

from tests.helpers.manifests import finished, partial_folder
from tests.helpers.requests import merge_request
from zoo.contracts import Held, Input, QuantizeRequest
from zoo.errors import ZooError
from zoo.store import artifact_name, differing_field, find, fingerprint, identity, write_atomic


def test_paths_are_not_identity_and_everything_else_is(tmp_path: Path) -> None:
    here, there = merge_request(tmp_path), merge_request(tmp_path / "elsewhere")
    assert fingerprint(here) == fingerprint(there)
    assert fingerprint(here) != fingerprint(merge_request(tmp_path, fingerprint="b2"))
    assert fingerprint(here) != fingerprint(merge_request(tmp_path, into="original"))
    assert fingerprint(json.loads(here.model_dump_json())) == fingerprint(here)


def test_differing_field_names_the_place() -> None:
    assert differing_field({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}) == "a.b"
    assert differing_field({"a": 1}, {"a": 1}) is None


def test_identity_strips_only_inputs(tmp_path: Path) -> None:
    battles = Input(path=tmp_path / "b.csv", fingerprint="d1")
    from zoo.contracts import PromptSpec, QuantizeSpec

    template = "{prompt}{response_a}{response_b}"
    request = QuantizeRequest(
        entry="tiny", model=battles, battles=battles, held=Held(), prompt=PromptSpec(template=template), spec=QuantizeSpec()
    )
    kept = identity(request)
    assert kept["battles"] == "d1" and kept["prompt"]["template"] == template
    assert str(tmp_path) not in json.dumps(kept)
    assert artifact_name(request).startswith("quantize-")


def test_drift_and_lost_files_are_refused_by_name(tmp_path: Path) -> None:
    store, request = tmp_path / "store", merge_request(tmp_path)
    (partial_folder(store, request) / "work.txt").write_text("done")
    artifact = finished(store, request)
    manifest = artifact.path / "manifest.json"
    raw = json.loads(manifest.read_text())
    write_atomic(manifest, json.dumps({**raw, "request": {**raw["request"], "spec": {"into": "original"}}}))
    with pytest.raises(ZooError, match=r"`spec.into` differs"):
        find(store, request)
    write_atomic(manifest, json.dumps(raw))
    (artifact.path / "work.txt").unlink()
    with pytest.raises(ZooError, match=r"work\.txt is missing"):
        find(store, request)
