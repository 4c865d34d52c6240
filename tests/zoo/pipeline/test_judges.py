"""Which models of a store an entry's name stands for as a judge, and what is told where they cannot judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.manifests import finished, input_of
from tests.helpers.requests import BASE, quantize_request, train_request
from zoo.contracts import FetchRequest, Held, Input, MergeRequest, MergeSpec, ScoreRequest, ScoreSpec, Selection, Variant
from zoo.data.sample import write_sample
from zoo.errors import ZooError
from zoo.pipeline.chain import battles_input
from zoo.pipeline.judges import judges_named, pairs_request
from zoo.store import Artifact, find

FOLDS = 3
SPEC = ScoreSpec(variants=(Variant(order="ab", max_tokens=160), Variant(order="ba", max_tokens=160)))


@pytest.fixture
def human(tmp_path: Path) -> Input:
    return battles_input(write_sample(tmp_path / "human.csv", 60, 0).path)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def trained(store: Path, human: Input, fold: int, *, quantized: bool = True, seed: int = 0) -> list[Artifact]:
    """The artifacts of one fold: trained, merged, quantized; as their stages leave them, without weights."""
    fetch = FetchRequest(entry="tiny", base=BASE, source="hub")
    fetched = input_of(find(store, fetch) or finished(store, fetch))
    held, asked = Held(n_folds=FOLDS, fold=fold, rule="near-prompts-1"), train_request(store, store)
    spec = asked.spec.model_copy(update={"seed": seed})
    request = asked.model_copy(update={"base": fetched, "battles": human, "held": held, "spec": spec})
    train = finished(store, request)
    merged = finished(store, MergeRequest(entry="tiny", base=fetched, adapter=input_of(train), spec=MergeSpec()))
    if not quantized:
        return [train, merged]
    small = quantize_request(store, store).model_copy(update={"model": input_of(merged), "battles": human, "held": held})
    return [train, merged, finished(store, small)]


def scored(store: Path, human: Input, checkpoint: Artifact, fold: int) -> ScoreRequest:
    request = ScoreRequest(
        entry="tiny",
        model=input_of(checkpoint),
        battles=human,
        held=Held(n_folds=FOLDS, fold=fold, rule="near-prompts-1"),
        prompt=train_request(store, store).prompt,
        spec=SPEC,
        target="cpu",
        selection=Selection(diagnostic=checkpoint.manifest.stage == "merge"),
    )
    finished(store, request)
    return request

    return Selection(diagnostic=checkpoint.manifest.stage == "merge")


def test_an_entry_is_its_quantized_checkpoints_and_entry_at_merge_the_merged_ones(store: Path, human: Input) -> None:
    made = [trained(store, human, fold) for fold in range(FOLDS)]
    for fold, (_, merged, small) in enumerate(made):
        scored(store, human, merged, fold)
        scored(store, human, small, fold)
    for name, stage, suffix in (("tiny", 2, ""), ("tiny@quantize", 2, ".quantize"), ("tiny@merge", 1, ".merge")):
        (judge,) = judges_named([name], human, store, None)
        assert judge.name == f"tiny{suffix}" and [model.held.fold for model in judge.models] == [0, 1, 2]
        assert [model.checkpoint.path for model in judge.models] == [each[stage].path for each in made]
        assert all(request.selection.diagnostic == (stage == 1) for request in judge.human), "merged: no member's table"
        asked = pairs_request(judge, 1, Input(fingerprint="pairs"), Input(fingerprint="ids"))
        assert asked.model.fingerprint == made[1][stage].fingerprint and asked.selection.rows == "listed"
    with pytest.raises(ZooError, match=r"no stage 'train'; write tiny, tiny@merge or tiny@quantize"):
        judges_named(["tiny@train"], human, store, None)
    with pytest.raises(ZooError, match="the same models as an earlier --judge"):
        judges_named(["tiny", "tiny@quantize"], human, store, None)
    assert len(judges_named(["tiny", "tiny@merge"], human, store, None)) == 2


def test_without_a_quantized_checkpoint_of_every_fold_the_merged_ones_judge(store: Path, human: Input) -> None:
    made = [trained(store, human, fold, quantized=fold > 0) for fold in range(FOLDS)]
    for fold, each in enumerate(made):
        scored(store, human, each[1], fold)
    (judge,) = judges_named(["tiny"], human, store, None)
    assert [model.checkpoint.manifest.stage for model in judge.models] == ["merge"] * FOLDS
    with pytest.raises(ZooError, match=r"--judge tiny@quantize: of 3 folds of human\.csv the store has 1, 2 and lacks 0"):
        judges_named(["tiny@quantize"], human, store, None)


def test_folds_that_are_missing_are_named_with_the_command_that_makes_them(store: Path, human: Input) -> None:
    for fold in (0, 2):
        trained(store, human, fold)
    mend = (
        r"of 3 folds of human\.csv the store has 0, 2 and lacks 1; run `zoo run tiny --data human\.csv --folds 3` with the same"
    )
    for name in ("tiny", "tiny@merge"):
        with pytest.raises(ZooError, match=mend):
            judges_named([name], human, store, None)
    trained(store, human, 1, seed=1)
    with pytest.raises(ZooError, match="lacks"):  # folds of two recipes are no whole judge
        judges_named(["tiny"], human, store, None)


def test_an_average_of_folds_is_no_judge(store: Path, human: Input) -> None:
    """It has seen every prompt."""
    folds = [trained(store, human, fold, quantized=False)[0] for fold in range(FOLDS)]
    for manifest in store.glob("merge-*/manifest.json"):
        manifest.unlink()
    first, *others = map(input_of, folds)
    base = folds[0].manifest.request.inputs["base"]
    finished(store, MergeRequest(entry="tiny", base=base, adapter=first, more_adapters=tuple(others), spec=MergeSpec()))
    with pytest.raises(ZooError, match=r"its 1 checkpoints in the store were not trained on folds of human\.csv"):
        judges_named(["tiny"], human, store, None)
