"""Which model people mean by a name, and what is asked of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.manifests import manifest, partial_folder
from zoo.contracts import FetchRequest, Input, MergeRequest, MergeSpec, Request, Sampling
from zoo.data.prompts import read_prompts
from zoo.entries.load import load_entry
from zoo.errors import ZooError
from zoo.pipeline.generators import Asked, generate_request, generator, generators
from zoo.store import Artifact, artifact_name, commit, fingerprint

ENTRY = "smollm2-135m"


def put(store: Path, request: Request) -> Artifact:
    def record(files: dict) -> object:  # type: ignore[type-arg]
        return manifest(stage=request.stage, fingerprint=fingerprint(request), request=request, files=files)

    return commit(partial_folder(store, request), store / artifact_name(request), record)  # type: ignore[arg-type]


@pytest.fixture
def fetched(tmp_path: Path) -> Artifact:
    base = load_entry(ENTRY).base
    assert base is not None
    return put(tmp_path / "store", FetchRequest(entry=ENTRY, base=base, source="hub"))


def merge_of(fetched: Artifact, adapter: str) -> MergeRequest:
    base = Input(path=fetched.path, fingerprint=fetched.fingerprint)
    return MergeRequest(entry=ENTRY, base=base, adapter=Input(fingerprint=adapter), spec=MergeSpec())


def test_an_entry_is_its_base_weights_and_their_licence(fetched: Artifact) -> None:
    found = generator(ENTRY, fetched.path.parent)
    assert (found.name, found.artifact.path, found.licence) == (ENTRY, fetched.path, load_entry(ENTRY).base.licence)  # type: ignore[union-attr]


def test_checkpoints_are_named_by_stage_or_by_artifact(fetched: Artifact) -> None:
    store = fetched.path.parent
    old, new = put(store, merge_of(fetched, "a")), put(store, merge_of(fetched, "b"))
    names = [f"{ENTRY}@merge", new.path.name, new.fingerprint, new.fingerprint[:8]]
    assert {generator(name, store).artifact.path for name in names} <= {old.path, new.path}
    assert {generator(name, store).artifact.path for name in names[1:]} == {new.path}
    assert generator(new.path.name, store).name == f"{ENTRY}.{new.path.name}"
    with pytest.raises(ZooError, match="the same weights as an earlier --model"):
        generators([new.path.name, new.fingerprint], store)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("lexical", "a lexical entry writes no answers"),
        ("gemma-3-270m", "run `zoo fetch gemma-3-270m` first"),
        (f"{ENTRY}@merge", f"`zoo merge {ENTRY} --data BATTLES` makes one"),
        (f"{ENTRY}@train", "no stage 'train' has models|no stage 'train'"),
        ("nothing", "no entry and no artifact of that name"),
        ("merge-0123456789", "no entry and no artifact of that name"),
    ],
)
def test_a_name_of_no_model_is_refused_with_the_mend(name: str, why: str, fetched: Artifact) -> None:
    with pytest.raises(ZooError, match=why):
        generator(name, fetched.path.parent)


def test_a_classifier_writes_no_answers(fetched: Artifact) -> None:
    store, request = fetched.path.parent, merge_of(fetched, "a")
    model = partial_folder(store, request) / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"architectures": ["LlamaForSequenceClassification"]}))
    merged = put(store, request)
    for name in (f"{ENTRY}@merge", merged.path.name):
        with pytest.raises(ZooError, match=f"classifier head and writes no answers; give {ENTRY}, its base"):
            generator(name, store)


def test_prompts_without_a_licence_ask_for_one(fetched: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ({"prompt": "a", "license": "CC0"}, {"prompt": "b"})))
    prompts, model = read_prompts(path), generator(ENTRY, fetched.path.parent)
    with pytest.raises(ZooError, match=r"p.jsonl: 1 prompts name no licence .* --licence"):
        generate_request(model, Asked(prompts, Sampling()))
    asked = generate_request(model, Asked(prompts, Sampling(), licence="mine"))
    assert (asked.prompt_licence, asked.prompts.fingerprint) == ("mine", prompts.digest)


def test_a_file_s_place_is_no_part_of_what_is_asked(fetched: Artifact, tmp_path: Path) -> None:
    requests = []
    for place in ("x", "y"):
        (tmp_path / place).mkdir()
        path = tmp_path / place / "p.jsonl"
        path.write_text('{"prompt": "a"}\n')
        requests.append(
            generate_request(generator(ENTRY, fetched.path.parent), Asked(read_prompts(path), Sampling(), licence="x"))
        )
    assert fingerprint(requests[0]) == fingerprint(requests[1])
