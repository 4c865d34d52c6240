"""Requests as one union: told apart by stage, without paths where they travel, and older JSON of them still read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.helpers.manifests import finished, manifest
from tests.helpers.requests import quantize_request
from zoo.contracts import (
    REQUESTS,
    Held,
    Input,
    Manifest,
    MergeRequest,
    MergeSpec,
    PromptSpec,
    ScoreRequest,
    ScoreSpec,
    Selection,
    TrainSpec,
    changed,
    parse_request,
    without_paths,
)
from zoo.store import fingerprint, list_artifacts

KNOWN = json.loads((Path(__file__).with_name("fingerprints.json")).read_text())["requests"]


@pytest.fixture
def asked() -> ScoreRequest:
    inputs = {key: Input(path=Path(f"/builder/{key}"), fingerprint=key) for key in ("model", "battles")}
    return ScoreRequest(
        entry="tiny",
        held=Held(),
        selection=Selection(rows="listed", ids=Input(path=Path("/builder/ids.txt"), fingerprint="ids")),
        prompt=PromptSpec(template="{prompt}{response_a}{response_b}"),
        spec=ScoreSpec(),
        target="cpu",
        **inputs,
    )


@pytest.mark.parametrize("known", KNOWN[::7], ids=lambda known: f"{known['stage']}: {known['set']}")
def test_json_becomes_the_request_of_its_stage_and_the_same_json_again(known: dict[str, Any]) -> None:
    request = parse_request({"stage": known["stage"], **known["given"]})
    assert type(request) is REQUESTS[known["stage"]]
    text = request.model_dump_json()
    assert parse_request(text) == request and parse_request(text).model_dump_json() == text


@pytest.mark.parametrize("given", [{"stage": "unheard-of"}, {"entry": "tiny"}, {"stage": "merge", "entry": "tiny"}])
def test_what_is_no_request_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        parse_request(given)


def test_without_paths_nothing_of_the_machine_is_left_and_the_identity_stays(asked: ScoreRequest) -> None:
    bare = without_paths(asked)
    assert "/builder" in asked.model_dump_json() and "/builder" not in bare.model_dump_json()
    assert fingerprint(bare) == fingerprint(asked)
    assert json.loads(bare.model_dump_json())["model"] == {"path": "", "fingerprint": "model"}
    assert parse_request(bare.model_dump_json()) == bare
    with pytest.raises(ValueError, match="the input model has no path"):
        print(bare.model.path)


def test_inputs_are_found_by_their_field(asked: ScoreRequest) -> None:
    assert {name: given.fingerprint for name, given in asked.inputs.items()} == {"model": "model", "battles": "battles"}


def test_a_changed_copy_is_checked_like_a_new_request(asked: ScoreRequest) -> None:
    assert changed(asked, target="t4x2") == asked.model_copy(update={"target": "t4x2"})
    with pytest.raises(ValidationError):
        changed(asked.spec, variants=())
    with pytest.raises(ValidationError):
        changed(asked, unheard_of=1)


def test_a_field_that_was_added_later_is_in_json_only_where_it_is_used() -> None:
    assert "gpus" not in TrainSpec().model_dump(mode="json") and "gpus" not in TrainSpec(gpus=1).model_dump(mode="json")
    assert TrainSpec(gpus=2).model_dump(mode="json")["gpus"] == 2


def test_manifests_of_an_earlier_revision_and_without_fields_that_have_defaults_are_read(tmp_path: Path) -> None:
    base = Input(path=tmp_path, fingerprint="b")
    artifact = finished(tmp_path, MergeRequest(entry="tiny", base=base, adapter=base, spec=MergeSpec()))
    path = artifact.path / "manifest.json"
    raw = json.loads(path.read_text())
    older = {key: raw["request"][key] for key in ("stage", "entry", "base", "adapter")}
    path.write_text(json.dumps({**raw, "request": {**older, "spec": {}, "revision": 7}}))
    (found,) = list_artifacts(tmp_path)
    assert isinstance(found.manifest.request, MergeRequest) and found.manifest.request.revision == 7


def test_a_form_that_is_made_otherwise_than_before_has_a_revision_of_its_own(tmp_path: Path) -> None:
    """A checkpoint of the earlier code is read as what it is, and not taken for one that is asked for now."""
    asked = {scheme: quantize_request(tmp_path, tmp_path, scheme=scheme) for scheme in ("awq", "int8", "w4a8", "fp8")}
    assert {scheme: request.revision for scheme, request in asked.items()} == {"awq": 2, "int8": 2, "w4a8": 3, "fp8": 2}
    text = asked["w4a8"].model_dump_json()
    assert parse_request(text) == asked["w4a8"]
    older = parse_request({**json.loads(text), "revision": 2})
    assert older.revision == 2 and fingerprint(older) != fingerprint(asked["w4a8"])


def test_a_manifest_s_json_holds_the_request_s_own(asked: ScoreRequest) -> None:
    text = manifest(stage="score", request=asked).model_dump_json()
    assert asked.model_dump_json() in text
    assert Manifest.model_validate_json(text).model_dump_json() == text
