"""Which fold models may judge a pair: none that has seen its prompt, in human battles, extra files or an earlier training."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.logs import question
from tests.helpers.manifests import finished
from tests.helpers.requests import train_request
from zoo.contracts import ExtraBattles, Held, Input, LexicalSpec, LexicalTrainRequest, TrainRequest
from zoo.data.battles import Battles, read_battles
from zoo.data.splits import assign_folds, fold_of, normal_text
from zoo.errors import ZooError
from zoo.stages.data.unseen import Training, training_of, unseen
from zoo.store import file_sha256, fingerprint

NEAR, FOLDS = "near-prompts-1", 3
COLUMNS = ["id", "prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"]


def write(path: Path, prompts: list[list[str]], answer: str = "answer") -> Path:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for number, turns in enumerate(prompts):
            answers = [json.dumps([f"{answer} {number} {side}"]) for side in "ab"]
            rows.writerow([f"{path.stem}{number}", json.dumps(turns), *answers, 1, 0, 0])
    return path


def models(requests: list[tuple[TrainRequest | LexicalTrainRequest, ...]] | None = None) -> list[Training]:
    helds = [Held(n_folds=FOLDS, fold=fold, rule=NEAR) for fold in range(FOLDS)]
    return [Training(held, requests[held.fold] if requests else ()) for held in helds]


def with_extra(human: Path, extra: Path, fold: int, **fields: Any) -> TrainRequest:
    held = Held(n_folds=FOLDS, fold=fold, rule=NEAR)
    given = Input(path=extra, fingerprint=file_sha256(extra)[:16])
    request = train_request(human, human).model_copy(update={"held": held, "extra": given, "extra_rule": NEAR})
    return request.model_copy(update=fields)


@pytest.fixture
def human(tmp_path: Path) -> Battles:
    return read_battles(write(tmp_path / "human.csv", [[question(n)] for n in range(12)]))


def lexical(human: Path, extra: Path) -> LexicalTrainRequest:
    given = ExtraBattles(battles=Input(path=extra, fingerprint=file_sha256(extra)[:16]))
    battles, spec = Input(path=human, fingerprint="h"), LexicalSpec(folds=FOLDS)
    return LexicalTrainRequest(entry="lexical", battles=battles, spec=spec, rule=NEAR, extra_files=(given,), extra_rule=NEAR)


def asked(tmp_path: Path, *prompts: list[str]) -> Any:
    return read_battles(write(tmp_path / "pairs.csv", list(prompts), "other")).frame


def test_a_human_prompt_is_left_to_the_model_that_held_it_out(tmp_path: Path, human: Battles) -> None:
    copies = [[question(n).upper() + "  " * (n % 2)] for n in range(12)]
    allowed = unseen(asked(tmp_path, *copies, [question(500)]), human, models())
    folds = assign_folds(human.frame, FOLDS, NEAR)
    assert [row.nonzero()[0].tolist() for row in allowed[:-1]] == [[fold] for fold in folds.tolist()]
    assert allowed[-1].all(), "a prompt of nobody is for all"


def test_near_copies_and_what_stands_around_a_prompt_are_seen_too(tmp_path: Path, human: Battles) -> None:
    first = question(0)
    rows = asked(
        tmp_path,
        [first + " Let us think step by step."],
        ["You are a helpful assistant that answers in French. " * 9 + first],
        [question(600), first],
    )
    fold = int(assign_folds(human.frame, FOLDS, NEAR)[0])
    for allowed in unseen(rows, human, models()):
        assert allowed.nonzero()[0].tolist() == [fold], "a question that is asked second was seen where it was asked first"


def test_a_prompt_of_two_folds_is_for_nobody(tmp_path: Path, human: Battles) -> None:
    folds = assign_folds(human.frame, FOLDS, NEAR).tolist()
    one, other = 0, next(n for n in range(12) if folds[n] != folds[0])
    assert not unseen(asked(tmp_path, [question(one), question(other)]), human, models()).any()


def test_extra_rows_that_a_fold_learned_count_as_seen(tmp_path: Path, human: Battles) -> None:
    """Made rows of a prompt of their own, which all folds learned but that of its hash, and of a human prompt."""
    made = write(tmp_path / "made.csv", [[question(700)], [question(1)]], "made")
    trained = [(with_extra(human.path, made, fold),) for fold in range(FOLDS)]
    rows = asked(tmp_path, [question(700)], [question(1)], [question(701)])
    allowed = unseen(rows, human, models(trained))
    fold = int(assign_folds(human.frame, FOLDS, NEAR)[1])
    assert (
        allowed[0].nonzero()[0].tolist() == [fold_of([question(700)], FOLDS)]
        and allowed[1].nonzero()[0].tolist() == [fold]
        and allowed[2].all()
    )
    learner = next(place for place in range(FOLDS) if not allowed[0][place])
    some = [one if place == learner else () for place, one in enumerate(trained)]
    left = [place for place in range(FOLDS) if place != learner]
    assert unseen(rows, human, models(some))[0].nonzero()[0].tolist() == left, "those that have not seen it may"


def test_a_further_extra_file_and_one_that_was_moved_count_as_well(tmp_path: Path, human: Battles) -> None:
    one, two = (write(tmp_path / f"made{n}.csv", [[question(800 + n)]], "made") for n in range(2))
    more = ExtraBattles(battles=Input(path=tmp_path / "gone" / two.name, fingerprint=file_sha256(two)[:16]))
    trained = [(with_extra(human.path, one, fold, more_extra=(more,)),) for fold in range(FOLDS)]
    rows = asked(tmp_path, [question(800)], [question(801)])
    allowed = unseen(rows, human, models(trained))
    expected = [fold_of([question(800 + n)], FOLDS) for n in range(2)]
    assert [row.nonzero()[0].tolist() for row in allowed] == [[fold] for fold in expected], "found beside the human battles"


def test_an_extra_file_that_changed_is_refused(tmp_path: Path, human: Battles) -> None:
    made = write(tmp_path / "made.csv", [[question(900)]], "made")
    trained = [(with_extra(human.path, made, fold),) for fold in range(FOLDS)]
    made.write_text(made.read_text() + "\n")
    with pytest.raises(ZooError, match=r"made\.csv: a judge has learned from it .* gone or changed"):
        unseen(asked(tmp_path, [question(1)]), human, models(trained))


def test_what_an_earlier_training_learned_is_known_from_the_store(tmp_path: Path, human: Battles) -> None:
    made = write(tmp_path / "made.csv", [[question(950)]], "made")
    first = finished(tmp_path / "store", with_extra(human.path, made, 0))
    start = Input(path=first.path, fingerprint=fingerprint(first.manifest.request))
    last = train_request(human.path, human.path).model_copy(update={"held": Held(n_folds=FOLDS, rule=NEAR), "start": start})
    artifact = finished(tmp_path / "store", last)
    assert [one.extra for one in training_of(artifact.path, 0).trainings] == [None, first.manifest.request.extra]
    (first.path / "manifest.json").unlink()
    with pytest.raises(ZooError, match="which the store has no more"):
        training_of(artifact.path, 0)


def test_a_training_that_let_near_copies_through_is_refused(tmp_path: Path, human: Battles) -> None:
    made = write(tmp_path / "made.csv", [[question(950)]], "made")
    artifact = finished(tmp_path / "store", with_extra(human.path, made, 0, extra_rule=None))
    with pytest.raises(ZooError, match="before near-copies of held-out prompts were left out"):
        training_of(artifact.path, 0)


def test_a_lexical_model_has_the_folds_of_its_spec(tmp_path: Path, human: Battles) -> None:
    request = LexicalTrainRequest(
        entry="lexical", battles=Input(path=human.path, fingerprint="h"), spec=LexicalSpec(folds=4), rule=NEAR
    )
    artifact = finished(tmp_path / "store", request)
    assert training_of(artifact.path, 2) == Training(Held(n_folds=4, fold=2, rule=NEAR), (request,))


def test_a_near_copy_of_a_human_prompt_in_an_extra_file_is_for_the_fold_that_held_the_prompt_out(
    tmp_path: Path, human: Battles
) -> None:
    """The other folds learned it there, in words that the human file does not have."""
    near = question(1) + " Please."
    made = write(tmp_path / "made.csv", [[near], [question(700)]], "made")
    fold = int(assign_folds(human.frame, FOLDS, NEAR)[1])
    for trained in (
        [(with_extra(human.path, made, each),) for each in range(FOLDS)],
        [(lexical(human.path, made),) for _ in range(FOLDS)],
    ):
        allowed = unseen(asked(tmp_path, [near], [question(700)]), human, models(trained))
        assert allowed[0].nonzero()[0].tolist() == [fold]
        assert allowed[1].nonzero()[0].tolist() == [fold_of([question(700)], FOLDS)], (
            "all others learned it from the extra file"
        )


def test_an_unlabelled_row_of_an_extra_file_hides_none_of_the_next_that_has_its_id(tmp_path: Path, human: Battles) -> None:
    """Training passes the unlabelled one over, and learns the other, whose prompt is another."""
    (tmp_path / "a").mkdir()
    one, two = write(tmp_path / "a" / "made.csv", [[question(800)]]), write(tmp_path / "made.csv", [[question(801)]], "made")
    one.write_text(one.read_text().replace(",1,0,0", ",,,"))
    more = ExtraBattles(battles=Input(path=two, fingerprint=file_sha256(two)[:16]))
    trained = [(with_extra(human.path, one, fold, more_extra=(more,)),) for fold in range(FOLDS)]
    allowed = unseen(asked(tmp_path, [question(801)]), human, models(trained))
    assert allowed[0].nonzero()[0].tolist() == [fold_of([question(801)], FOLDS)]


def test_a_start_from_a_training_of_another_split_is_refused(tmp_path: Path, human: Battles) -> None:
    first = finished(tmp_path / "store", train_request(human.path, human.path).model_copy(update={"held": Held(n_folds=7)}))
    start = Input(path=first.path, fingerprint=fingerprint(first.manifest.request))
    last = train_request(human.path, human.path).model_copy(update={"held": Held(n_folds=FOLDS), "start": start})
    with pytest.raises(ZooError, match=r"went on from a training that held out fold 0 of 7 .* seen prompts that it holds out"):
        training_of(finished(tmp_path / "store", last).path, 0)


TEXTS = st.lists(st.sampled_from([question(n) for n in range(6)] + ["go on", "Why?"]), min_size=1, max_size=3)


@given(st.lists(TEXTS, min_size=3, max_size=9), st.lists(TEXTS, min_size=1, max_size=6), st.booleans())
def test_no_turn_that_a_model_learned_is_judged_by_it(
    tmp_path_factory: pytest.TempPathFactory, main: list[list[str]], pairs: list[list[str]], near: bool
) -> None:
    folder = tmp_path_factory.mktemp("unseen")
    human, rule = read_battles(write(folder / "human.csv", main)), NEAR if near else None
    folds = assign_folds(human.frame, FOLDS, rule)
    trainings = [Training(Held(n_folds=FOLDS, fold=fold, rule=rule)) for fold in range(FOLDS)]
    frame = read_battles(write(folder / "pairs.csv", pairs)).frame
    for turns, allowed in zip(frame["prompt"], unseen(frame, human, trainings), strict=True):
        for fold in range(FOLDS):
            learned = {normal_text(t) for own, k in zip(human.frame["prompt"], folds, strict=True) if k != fold for t in own}
            assert not (allowed[fold] and learned & {normal_text(turn) for turn in turns})
