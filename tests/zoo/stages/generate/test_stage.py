"""Who is asked what, once: conversations by a stand-in for the engine, which repeats what it is asked, dies and is resumed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.asking import Asking
from tests.helpers.tiny_models import write_chat_template, write_tiny_llama
from zoo.contracts import Sampling, changed
from zoo.data.logs import Conversation, Unusable, read_log
from zoo.errors import ZooError
from zoo.pipeline.runners import fleet
from zoo.stages.generate.answers import earlier_files, read_answers, write_answers
from zoo.stages.generate.work import token_seed
from zoo.stages.score import engines
from zoo.stages.score.engines import EngineError
from zoo.store import PARTIAL

pytestmark = pytest.mark.timeout(300)


TURNS = [["one"], ["two", "and then"], ["three", "and then", "at last"], ["four"], ["five", "and then"]]


def test_conversations_go_turn_by_turn_and_those_of_most_turns_first(asking: Asking) -> None:
    metrics, rows = asking.run(asking.request("p", TURNS), "a")
    order = [len(rows[row]["conversation"]) // 2 for row, turn, *_ in asking.answered() if turn == 0]
    assert order == [3, 2, 2, 1, 1]
    for row, asked in zip(rows, TURNS, strict=True):  # in the file's order
        said = row["conversation"]
        assert [m["role"] for m in said] == ["user", "assistant"] * len(asked) and row["status"] == "ok"
        assert [m["content"] for m in said[::2]] == asked and row["turn"] == len(asked)
        assert all(answer["content"].startswith(question) for answer, question in zip(said[1::2], asked, strict=True))
        assert row["stop_reasons"] == ["stop"] * len(asked) and len(row["answer_tokens"]) == len(asked)
    assert metrics["generate/made"] == sum(map(len, TURNS)) and metrics["generate/ok_rows"] == len(TURNS)


def test_a_model_reads_its_own_earlier_answers(asking: Asking) -> None:
    _, rows = asking.run(asking.request("p", [["one", "and then"]]), "a")
    second = asking.answered()[1][3]
    from zoo.models.tokenizer_file import open_tokenizer

    text = open_tokenizer(asking.model / "model" / "tokenizer.json").decode(second, skip_special_tokens=False)
    first = rows[0]["conversation"][1]["content"]
    assert text == f"<|user|>one<|end|>\nAnswer: {first}<|end|>\n<|user|>and then<|end|>\nAnswer: "


def test_samples_are_rows_with_seeds_in_turn(asking: Asking) -> None:
    _, rows = asking.run(asking.request("p", TURNS[:2], samples=3, seed=7), "a")
    assert [(row["seed"], row["prompt_id"]) for row in rows] == [(s, rows[i]["prompt_id"]) for s in (7, 8, 9) for i in (0, 1)]
    assert len({row["conversation_id"] for row in rows}) == 6
    seeds = [seed for _, _, seed, _ in asking.answered()]
    assert len(set(seeds)) == len(seeds) == 9  # no two answers are drawn alike
    assert token_seed(["a"], 1) == token_seed(["a"], 1) != token_seed(["b"], 1)


def test_other_settings_give_other_ids(asking: Asking) -> None:
    """Two logs of one model at two temperatures can be mined together: no id is doubled."""
    _, warm = asking.run(asking.request("p", TURNS), "a")
    _, cold = asking.run(changed(asking.request("p", TURNS), sampling=Sampling(temperature=0.1, max_tokens=24)), "b")
    ids = [[row["conversation_id"] for row in rows] for rows in (warm, cold)]
    assert set(ids[0]).isdisjoint(ids[1]) and len({*ids[0], *ids[1]}) == 2 * len(TURNS)
    _, again = asking.run(asking.request("q", TURNS[:2]), "c")
    assert [row["conversation_id"] for row in again] == ids[0][:2], "of the answer, whichever file asked"


def test_every_kind_of_end_is_a_status(asking: Asking) -> None:
    prompts = [["well"], ["cut x", "more"], ["loop x", "more"], ["nothing x", "more"], ["word " * 400, "more"]]
    metrics, rows = asking.run(asking.request("p", prompts), "a")
    assert [row["status"] for row in rows] == ["ok", "cut", "loop", "empty", "too long: turn 1"]
    assert [len(row["stop_reasons"]) for row in rows] == [1, 2, 1, 1, 0]  # a loop is not gone on with, a cut answer is
    assert rows[4]["conversation"] == [{"role": "user", "content": "word " * 400}]
    assert metrics["generate/rows"] == 5 and metrics["generate/too_long_rows"] == 1


def test_pairs_are_mined_from_whole_answers_and_the_others_are_counted(asking: Asking) -> None:
    """The log of every kind of end, as `zoo data mine` reads it."""
    asking.run(asking.request("p", [["well", "more"], ["cut x"], ["loop x"], ["nothing x"], ["word " * 400]]), "a")
    found = list(read_log(asking.root / "store" / PARTIAL / "generate-a" / "answers.jsonl", 10**6))
    whole = [row for row in found if isinstance(row, Conversation)]
    assert [(row.asked, row.model, row.source) for row in whole] == [(["well", "more"], "tiny", "p"), (["cut x"], "tiny", "p")]
    assert [row.reason for row in found if isinstance(row, Unusable)] == [
        "status 'loop'",
        "status 'empty'",
        "status 'too long'",
    ]


def test_nothing_is_asked_of_a_model_without_a_chat_template(asking: Asking, tmp_path: Path) -> None:
    asking.model = tmp_path / "plain"
    write_chat_template(write_tiny_llama(asking.model / "model"), None)
    metrics, rows = asking.run(asking.request("p", TURNS), "a")
    assert {row["status"] for row in rows} == {"no chat template"} and metrics["generate/no_chat_template_rows"] == 5
    assert not asking.answered()


def test_an_engine_that_dies_is_started_again_and_no_answer_is_made_twice(asking: Asking) -> None:
    metrics, rows = asking.run(asking.request("p", TURNS * 1, samples=4), "a", DIE_AFTER="9")
    assert metrics["engine/restarts"] == 1 and {row["status"] for row in rows} == {"ok"}
    made = Counter((row, turn) for row, turn, *_ in asking.answered())
    assert set(made.values()) == {1} and len(made) == 4 * 9


def test_a_killed_run_loses_no_finished_file(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    request = asking.request("p", TURNS, samples=4, chunk_answers=2)
    monkeypatch.setattr(engines, "RUN_RESTARTS", 0)
    with pytest.raises(EngineError, match=r"exit code 9; 9 answers are kept$"):
        asking.run(request, "a", DIE_AFTER="9")
    metrics, rows = asking.run(request, "a")
    made = Counter((row, turn) for row, turn, *_ in asking.answered())
    assert set(made.values()) == {1} and len(made) == 36 == metrics["generate/made"]
    again, whole = asking.run(request, "a")  # killed once more, after its last answer: no engine is started
    assert len(asking.answered()) == 36 and whole == rows and again["generate/made"] == 36


def test_other_requests_take_what_is_there(asking: Asking) -> None:
    _, first = asking.run(asking.request("p", TURNS), "a")
    before = len(asking.answered())
    prompts = [["new"], ["two", "another end"], *TURNS[2:]]  # the first turn of the second is known
    metrics, rows = asking.run(asking.request("q", prompts), "b")
    assert len(asking.answered()) == before + 2 == before + metrics["generate/made"]
    assert metrics["generate/reused"] == 1 + sum(len(turns) for turns in TURNS[2:])
    known = {row["prompt_id"]: row["conversation"] for row in first}
    assert all(row["conversation"] == known[row["prompt_id"]] for row in rows[2:])
    assert rows[1]["conversation"][:2] == first[1]["conversation"][:2]
    third, _ = asking.run(asking.request("r", prompts), "c")  # of the second's own file as well
    assert third["generate/made"] == 0 and len(asking.answered()) == before + 2


@pytest.mark.parametrize("other", [{"model": "n"}, {"max_tokens": 25}, {"seed": 1}])
def test_answers_of_another_model_settings_or_seed_are_not_these(asking: Asking, other: dict[str, Any]) -> None:
    asking.run(asking.request("p", TURNS), "a")
    metrics, _ = asking.run(asking.request("p", TURNS, **other), "b")
    assert metrics["generate/reused"] == 0 and metrics["generate/made"] == 9


def test_another_machine_s_answers_are_kept_under_its_name_and_not_in_this_one_s_speed(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = asking.request("p", TURNS, samples=4, chunk_answers=2)
    monkeypatch.setattr(engines, "RUN_RESTARTS", 0)
    with pytest.raises(EngineError):
        asking.run(request, "a", DIE_AFTER="9")
    monkeypatch.setattr(fleet, "machine_fingerprint", lambda: "another machine")
    metrics, _ = asking.run(request, "a")
    assert metrics["generate/made"] == 27 and metrics["generate/reused"] == 9
    out = asking.root / "store" / PARTIAL / "generate-a"
    assert {a.machine for file in out.glob("chunks/*/*.parquet") for a in read_answers(file)} > {"another machine"}
    assert len(read_answers(out / "reused.parquet")) == 9


def test_a_prompt_that_ends_engines_is_recorded_and_the_others_are_answered(asking: Asking) -> None:
    prompts = [[f"fine {i}"] for i in range(20)]
    prompts.insert(5, ["poison"])
    metrics, rows = asking.run(asking.request("p", prompts), "a", POISON="yes")
    assert [row["status"].partition(":")[0] for row in rows] == ["ok"] * 5 + ["crashed"] + ["ok"] * 15
    assert metrics["generate/crashed_rows"] == 1 and metrics["generate/made"] == 20
    again, rows = asking.run(asking.request("p", prompts), "a")  # a crash is no answer: it is asked again
    assert rows[5]["status"] == "ok" and again["generate/made"] == 21


def test_memory_that_is_too_small_is_told_and_no_prompt_s_fault(asking: Asking) -> None:
    with pytest.raises(EngineError, match=r"failed 3 times in a row, last: .*CUDA out of memory; 0 answers are kept$"):
        asking.run(asking.request("p", TURNS), "a", LACK_MEMORY="yes")


def test_a_changed_file_is_refused(asking: Asking) -> None:
    request = asking.request("p", TURNS)
    request.prompts.path.write_text(json.dumps({"prompt": "other"}))
    with pytest.raises(ZooError, match="other prompts than when this was asked for"):
        asking.run(request, "a")


def test_a_file_that_cannot_be_read_costs_its_answers_alone(asking: Asking) -> None:
    request = asking.request("p", TURNS, chunk_answers=3)
    asking.run(request, "a")
    files = sorted((asking.root / "store" / PARTIAL / "generate-a").glob("chunks/*/*.parquet"))
    files[0].write_bytes(b"PAR1 not a table")
    asking.run(request, "a")
    assert len(asking.answered()) == 9 + 3


def test_more_tokens_than_the_model_has_are_refused(asking: Asking) -> None:
    with pytest.raises(ZooError, match="max_tokens 512 leaves nothing of this model's 512 tokens"):
        asking.run(asking.request("p", TURNS, max_tokens=512), "a")


def test_requests_outside_a_store_have_no_earlier_ones(asking: Asking, tmp_path: Path) -> None:
    assert list(earlier_files(asking.request("p", TURNS), tmp_path / "out")) == []
    write_answers([], tmp_path / "none.parquet")
    assert read_answers(tmp_path / "none.parquet") == []
