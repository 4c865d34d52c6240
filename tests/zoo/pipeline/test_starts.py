"""A training that goes on from an adapter: which it may, in two trainings of one entry and by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.manifests import finished
from zoo.contracts import Entry, Held, Input, MergeRequest, Request, Selection, TrainRequest, changed
from zoo.entries.load import load_entry, override, with_files_from
from zoo.errors import ZooError
from zoo.pipeline.chain import battles_input, chain
from zoo.pipeline.folds import average_chain, fold_chains
from zoo.pipeline.starts import check_start
from zoo.store import artifact_name, find, fingerprint, recipe_of

FIRST = ['train.first.extra="made.csv"', "train.first.epochs=2", "train.targets=hard", "train.label_smoothing=0.1"]


@pytest.fixture
def made(sample_csv: Path, tmp_path: Path) -> Path:
    path = tmp_path / "made.csv"
    path.write_text(sample_csv.read_text() + "\n")
    return path


def entry_with(settings: list[str], folder: Path) -> Entry:
    return with_files_from(override(load_entry("smollm2-135m"), settings), folder)


def chain_of(settings: list[str], csv: Path, store: Path, held: Held = Held()) -> list[Request]:
    entry = entry_with(settings, store)
    return chain(entry, battles_input(csv), "cpu", store, held=held, selection=Selection(), source="hub")


def trains_of(requests: list[Request]) -> list[TrainRequest]:
    return [request for request in requests if isinstance(request, TrainRequest)]


def test_two_trainings_of_one_entry(sample_csv: Path, made: Path, tmp_path: Path) -> None:
    requests = chain_of([*FIRST, "train.epochs=3", "train.max_rows=9"], sample_csv, tmp_path)
    assert [request.stage for request in requests] == ["fetch", "train", "train", "merge", "quantize", "score"]
    first, last = trains_of(requests)
    assert first.extra is not None and first.extra.path == made and first.start is None
    assert first.spec.only_extra and (first.spec.epochs, first.spec.label_smoothing) == (2, 0.1)
    assert last.extra is None and not last.spec.only_extra and (last.spec.epochs, last.spec.max_rows) == (3, 9)
    assert last.start is not None and last.start.fingerprint == fingerprint(first)
    assert last.start.path == tmp_path / artifact_name(first)
    merge = next(request for request in requests if isinstance(request, MergeRequest))
    assert merge.adapter.fingerprint == fingerprint(last)
    (plain,) = trains_of(chain_of(["train.epochs=3", "train.max_rows=9", "train.label_smoothing=0.1"], sample_csv, tmp_path))
    assert changed(last, start=None) == plain, "the last training is the entry's own but for where it starts"


def test_every_fold_has_an_earlier_training_of_its_own(sample_csv: Path, made: Path, tmp_path: Path) -> None:
    entry = entry_with(FIRST, tmp_path)
    battles = battles_input(sample_csv)
    chains = fold_chains(entry, battles, "cpu", tmp_path, held=Held(n_folds=3), selection=Selection(), source="hub")
    pairs = [trains_of(requests) for requests in chains]
    assert [(first.held.fold, last.held.fold) for first, last in pairs] == [(0, 0), (1, 1), (2, 2)]
    assert all(last.start and last.start.fingerprint == fingerprint(first) for first, last in pairs)
    merge = average_chain(chains, tmp_path)[0]
    assert isinstance(merge, MergeRequest)
    averaged = [merge.adapter.fingerprint, *(more.fingerprint for more in merge.more_adapters)]
    assert averaged == [fingerprint(last) for _, last in pairs]
    recipes = set()
    for requests in chains:
        artifacts = [find(tmp_path, request) or finished(tmp_path, request) for request in requests]
        recipes.add(recipe_of(artifacts[-1].manifest, artifacts[-1].path))
    assert len(recipes) == 1 and "" not in recipes
    other = chain_of([*FIRST, "train.first.epochs=1"], sample_csv, tmp_path, Held(n_folds=3))
    last = [finished(tmp_path, request) for request in other[1:]][-1]
    assert recipe_of(last.manifest, last.path) not in recipes, "another first training is another recipe"


@pytest.fixture
def start(sample_csv: Path, made: Path, tmp_path: Path) -> str:
    """A finished training on the second of three folds, from made rows alone."""
    settings = ['train.extra="made.csv"', "train.only_extra=true"]
    request = trains_of(chain_of(settings, sample_csv, tmp_path, Held(n_folds=3, fold=1)))[0]
    return finished(tmp_path, request).path.name


def test_an_adapter_is_named(sample_csv: Path, start: str, tmp_path: Path) -> None:
    held = Held(n_folds=3, fold=1)
    for name in (start, start.removeprefix("train-")[:10]):
        (request,) = trains_of(chain_of([f"train.start={name}"], sample_csv, tmp_path, held))
        assert request.start == Input(path=tmp_path / start, fingerprint=start.removeprefix("train-"))
        assert request.spec.start is None
        check_start(request)
    first, last = trains_of(chain_of([f"train.start={start}", *FIRST], sample_csv, tmp_path, held))
    assert first.start == request.start and last.start and last.start.fingerprint == fingerprint(first)


@pytest.mark.parametrize(
    ("settings", "held", "expected"),
    [
        (
            [],
            Held(n_folds=3),
            "held out fold 1 of 3 by prompts, this training fold 0 of 3 by prompts: it has seen prompts that",
        ),
        ([], Held(n_folds=5, fold=1), "held out fold 1 of 3 by prompts, this training fold 1 of 5 by prompts"),
        ([], Held(n_folds=3, fold=1, rule="near-prompts-1"), "this training fold 1 of 3 by near-prompts-1"),
        (["train.rank=4"], Held(n_folds=3, fold=1), "has train.rank = 16, this training 4; set it to 16"),
        (["train.alpha=16"], Held(n_folds=3, fold=1), "has train.alpha = 32, this training 16"),
        (
            ['train.target_modules=["q_proj"]'],
            Held(n_folds=3, fold=1),
            "has train.target_modules = 'all-linear', this training",
        ),
        (["train.method=lora"], Held(n_folds=3, fold=1), "has train.method = 'qlora', this training 'lora'"),
        (["train.dora=true"], Held(n_folds=3, fold=1), "has train.dora = False, this training True"),
        (["base.revision=v2"], Held(n_folds=3, fold=1), "is an adapter of another base"),
    ],
)
def test_an_adapter_that_may_not_be_started_from_is_refused(
    sample_csv: Path, start: str, tmp_path: Path, settings: list[str], held: Held, expected: str
) -> None:
    with pytest.raises(ZooError) as error:
        chain_of([f"train.start={start}", *settings], sample_csv, tmp_path, held)
    assert expected in str(error.value) and start in str(error.value) and "\n" not in str(error.value)


def test_what_else_may_not_be_started_from(sample_csv: Path, made: Path, start: str, tmp_path: Path) -> None:
    held = Held(n_folds=3, fold=1)
    with pytest.raises(ZooError, match="held out prompts of another file; train it on this one"):
        chain_of([f"train.start={start}"], made_other(made), tmp_path, held)
    with pytest.raises(ZooError, match="no artifact of"):
        chain_of(["train.start=train-0000000000000000"], sample_csv, tmp_path, held)
    merge = finished(tmp_path, chain_of([], sample_csv, tmp_path, held)[2])
    with pytest.raises(ZooError, match="is not one train artifact; name one as `zoo train` does"):
        chain_of([f"train.start={merge.path.name}"], sample_csv, tmp_path, held)
    (old,) = trains_of(chain_of(['train.extra="made.csv"'], sample_csv, tmp_path, held))
    exact = finished(tmp_path, changed(old, extra_rule=None))
    with pytest.raises(ZooError, match="before near-copies of held-out prompts were left out; train it again"):
        chain_of([f"train.start={exact.path.name}"], sample_csv, tmp_path, held)


def made_other(made: Path) -> Path:
    path = made.with_name("other.csv")
    path.write_text("".join(made.read_text().splitlines(keepends=True)[:-4]))
    return path


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["train.only_extra=true"], "train.only_extra = true learns from train.extra alone; name its files"),
        (["train.first.epochs=1"], "key `train.first.extra` is missing"),
        (["train.first.extra=x.csv", "train.first.rank=4"], "unknown key `train.first.rank`"),
        (["train.first.extra=x.csv", "train.method=full"], "train.first and train.start go on from an adapter"),
        (["train.start=train-01", "train.method=full"], "train.first and train.start go on from an adapter"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: list[str], expected: str) -> None:
    with pytest.raises(ZooError) as error:
        override(load_entry("smollm2-135m"), settings)
    assert expected in str(error.value)


def test_a_missing_file_is_named_by_its_section(sample_csv: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"train\.first\.extra: .*none\.csv: no such file; give a file of labelled battles"):
        chain_of(["train.first.extra=none.csv"], sample_csv, tmp_path)


def test_requests_without_a_start_keep_their_fingerprint(sample_csv: Path, tmp_path: Path) -> None:
    dumped = trains_of(chain_of([], sample_csv, tmp_path))[0].model_dump(mode="json")
    assert not {"start", "first", "only_extra"} & {*dumped, *dumped["spec"]}
