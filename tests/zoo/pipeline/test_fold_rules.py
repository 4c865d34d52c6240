"""A chain has one fold rule; a mix is refused by name before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.manifests import finished
from zoo.contracts import Held, Input, LexicalScoreRequest, Request, Selection, changed, fold_rule
from zoo.entries.load import load_entry, override
from zoo.errors import ZooError
from zoo.experiments.run import run_chain
from zoo.pipeline.chain import battles_input, chain, ladder_request
from zoo.pipeline.fold_rules import check_fold_rules
from zoo.pipeline.folds import fold_chains
from zoo.scores.tables import CARD, SCORES, read_card, read_scores
from zoo.store import find, fingerprint

NEAR = "near-prompts-1"


def requests_of(name: str, csv: Path, store: Path, rule: str | None) -> list[Request]:
    held = Held(n_folds=3, rule=rule)
    settings = ["lexical.max_features=40"] if name == "lexical" else []
    entry = override(load_entry(name), settings)
    return fold_chains(entry, battles_input(csv), "cpu", store, held=held, selection=Selection(), source="hub")[0]


@pytest.mark.parametrize("name", ["lexical", "smollm2-135m"])
def test_every_request_of_a_chain_that_has_folds_has_the_rule(name: str, sample_csv: Path, tmp_path: Path) -> None:
    requests = requests_of(name, sample_csv, tmp_path, NEAR)
    if name != "lexical":
        requests.append(ladder_request(load_entry(name), requests, tmp_path))
    rules = {request.stage: fold_rule(request) for request in requests}
    assert set(rules.values()) - {None} == {NEAR}
    assert {stage for stage, rule in rules.items() if rule is None} <= {"fetch", "merge"}


def test_stages_of_two_rules_are_not_chained(sample_csv: Path, tmp_path: Path) -> None:
    requests = requests_of("smollm2-135m", sample_csv, tmp_path, NEAR)
    for request in requests[:-1]:
        check_fold_rules(request)
        finished(tmp_path, request)
    score = requests[-1]
    check_fold_rules(score)
    mixed = changed(score, held=Held(n_folds=3))
    with pytest.raises(ZooError, match=r"smollm2-135m: score is asked for folds by prompts, and its model quantize-\w+ has"):
        check_fold_rules(mixed)
    everything = changed(mixed, selection=Selection(rows="all"))
    check_fold_rules(everything)  # no fold is taken: a prediction, or the price of a row


def lexical_table(csv: Path, store: Path, rule: str | None) -> Path:
    requests = requests_of("lexical", csv, store, rule)
    return run_chain(requests, load_entry("lexical"), store, say=lambda _: None, track=False)[-1].path / "ab"


def test_a_lexical_entry_is_scored_by_the_rule_that_it_was_trained_by(sample_csv: Path, tmp_path: Path) -> None:
    folder = lexical_table(sample_csv, tmp_path, NEAR)
    card, table = read_card(folder / CARD), read_scores(folder / SCORES)
    assert card.fold_rule == NEAR and (table["fold"] >= 0).all()
    by_hash = lexical_table(sample_csv, tmp_path, None)
    assert read_card(by_hash / CARD).fold_rule is None
    assert (read_scores(by_hash / SCORES)["fold"] != table["fold"]).any()
    assert '"fold_rule"' not in (by_hash / CARD).read_text()  # the bytes that it always had
    train, score = requests_of("lexical", sample_csv, tmp_path, NEAR)
    mixed = changed(score, rule=None)
    assert isinstance(mixed, LexicalScoreRequest) and fingerprint(mixed) != fingerprint(score)
    with pytest.raises(ZooError, match="lexical: lexical-score is asked for folds by prompts, and its model lexical-train-"):
        run_chain([train, mixed], load_entry("lexical"), tmp_path, say=lambda _: None, track=False)


def test_groups_are_those_of_the_file_that_was_trained_on(sample_csv: Path, tmp_path: Path) -> None:
    """By another file's groups a row could be scored by a model that has learned its near-copies."""
    lexical_table(sample_csv, tmp_path, NEAR)
    _, score = requests_of("lexical", sample_csv, tmp_path, NEAR)
    fewer = tmp_path / "fewer.csv"
    fewer.write_text("".join(sample_csv.read_text().splitlines(keepends=True)[:-2]))
    other = changed(score, battles=battles_input(fewer))
    with pytest.raises(ZooError, match=r"fewer\.csv: folds by near-prompts-1 are those of the battles"):
        run_chain([other], load_entry("lexical"), tmp_path, say=lambda _: None, track=False)
    assert find(tmp_path, other) is None


def test_a_teacher_of_another_rule_is_refused(sample_csv: Path, tmp_path: Path) -> None:
    folder = lexical_table(sample_csv, tmp_path, NEAR)
    entry = override(load_entry("smollm2-135m"), [f"train.teacher={folder / SCORES}"])
    battles: Input = battles_input(sample_csv)

    def requests(rule: str | None) -> list[Request]:
        return chain(entry, battles, "cpu", tmp_path, held=Held(rule=rule), selection=Selection(), source="hub")

    assert requests(NEAR)
    with pytest.raises(ZooError, match=r"train\.teacher: .* has folds by near-prompts-1, this run by prompts") as error:
        requests(None)
    assert "--fold-rule near-prompts-1" in str(error.value) and "\n" not in str(error.value)
    (folder / CARD).unlink()  # nobody knows
    assert requests(None)
