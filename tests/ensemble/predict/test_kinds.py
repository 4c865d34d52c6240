"""Files to predict and to judge of a kind that has no ties, or has them where the plan has none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble.plan import load_plan, save_plan
from ensemble.predict.board import Submission
from ensemble.predict.run import predict
from ensemble.report.evaluate import evaluate, evaluation_table, is_apart
from tests.helpers.battles_files import Row, as_csv, competition, named, write
from tests.helpers.plans import of_two_outcomes
from tests.helpers.predictions import ROWS, make_plan, member, run
from zoo.data.battles import read_battles
from zoo.errors import ZooError
from zoo.pipeline.submissions import read_sample
from zoo.report.text import as_text
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import read_submission, without_ties, write_submission


def of_wsdm(place: Path) -> None:
    """The battles to predict, as WSDM Cup's test file has them."""
    rows: list[Row] = [(str(i), [f"why {i}"], ["yes"], ["no"], 0) for i in range(ROWS)]
    frame = named(rows).drop(columns="winner").assign(scored=True)
    write(place / "battles.csv", as_csv(frame))


def given(place: Path) -> dict[str, Path]:
    (place / "table.csv").write_text("id,p_a,p_b,p_tie\n" + "".join(f"{i},0.3,0.1,0.6\n" for i in range(ROWS - 1)))
    return {"good@ab-512": place / "table.csv"}


def imported_plan(place: Path, *, ties: bool) -> Path:
    path = make_plan(place, [member(place, "good@ab-512").model_copy(update={"request": None})])
    if not ties:
        save_plan(of_two_outcomes(load_plan(path)), path)
    return path


@pytest.mark.parametrize("ties", [True, False])
def test_a_file_of_a_kind_without_ties_gets_none(place: Path, ties: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Whichever plan there is; the row that no member scored gets the prior without its tie."""
    of_wsdm(place)
    done = run(place, imported_plan(place, ties=ties), scores=given(place))
    p = read_submission(place / "out.csv")[["p_a", "p_b", "p_tie"]].to_numpy()
    assert (p[:, 2] == 0).all()
    np.testing.assert_allclose(p[:-1], [[0.75, 0.25, 0]] * (ROWS - 1), atol=1e-4 if ties else 1e-12)
    np.testing.assert_allclose(p[-1], without_ties(np.array(load_plan(place / "plan.json").prior)), atol=1e-12)
    said = capsys.readouterr().err
    assert ("p_tie is 0 in every row, p_a and p_b are scaled to 1" in said) == ties
    assert not any("ties" in warning for warning in done.warnings)


def test_a_plan_without_ties_on_a_file_whose_kind_has_them_is_told_loudly(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(place, imported_plan(place, ties=False), scores=given(place))
    assert (read_submission(place / "out.csv")["p_tie"] == 0).all()
    assert any("the plan is of battles that have no ties" in warning for warning in done.warnings)
    assert "warning: the plan is of battles that have no ties" in capsys.readouterr().err


def test_the_sample_s_columns_are_written_from_the_prior_on(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prior that stands there before any member runs has them, too; ids that differ are one line."""
    of_wsdm(place)
    sample = read_sample(
        write(place / "sample.csv", b"id,winner\n" + b"".join(b"%d,model_a\n" % i for i in range(1, ROWS + 2)))
    )
    seen: list[list[str]] = []
    write_whole = Submission.write

    def noted(submission: Submission, planned: Mapping[str, np.ndarray]) -> None:
        write_whole(submission, planned)
        seen.append((place / "out.csv").read_text().splitlines())

    monkeypatch.setattr(Submission, "write", noted)
    plan = imported_plan(place, ties=False)
    done = predict(plan, place / "battles.csv", place / "out.csv", started_at=0.0, scores=given(place), like=sample)
    assert len(seen) >= 2 and all(lines[0] == "id,winner" and len(lines) == ROWS + 1 for lines in seen)
    assert seen[-1][1:-1] == [f"{i},model_a" for i in range(ROWS - 1)] and done.exit_code == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "sample.csv" in line]
    assert len(told) == 1 and "first 40" in told[0] and "first 0" in told[0]
    with pytest.raises(ZooError, match="holds winners"):
        evaluate(plan, write(place / "l.csv", as_csv(labelled_rows())), place / "out.csv")


def labelled_rows() -> pd.DataFrame:
    return named([(str(i), [f"why {i}"], ["yes"], ["no"], i % 2) for i in range(ROWS)], language="English")


def test_what_was_read_is_said_in_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_wsdm(place)
    run(place, imported_plan(place, ties=False), scores=given(place))
    said = [line for line in capsys.readouterr().err.splitlines() if "WSDM" in line]
    assert len(said) == 1 and said[0].endswith(
        f"{ROWS} rows; WSDM Cup's columns; CSV, commas, UTF-8; plain text, one turn each"
    )


def test_a_judgement_without_ties_has_accuracy_and_takes_no_tie_into_account(place: Path) -> None:
    rows: list[Row] = [(str(i), [f"why {i}"], ["yes"], ["no"], i % 4 // 3) for i in range(40)]
    p = np.tile([0.3, 0.1, 0.6], (40, 1))
    write_submission([row[0] for row in rows], p, place / "out.csv")
    plan = imported_plan(place, ties=False)
    labelled = write(place / "labelled.csv", as_csv(named(rows, language="English")))
    lines = {line.name: line for line in evaluate(plan, labelled, place / "out.csv")}
    y = read_battles(labelled).frame["label"].to_numpy()
    assert lines["uniform"].log_loss == np.log(2)
    assert lines["blend"].log_loss == pytest.approx(log_loss_rows(np.tile([0.75, 0.25, 0], (40, 1)), y).mean())
    assert lines["blend"].accuracy == 0.75 and lines["label prior of the training data"].accuracy == 0.5
    assert "accuracy" in as_text([evaluation_table(list(lines.values()))])
    with_ties = evaluate(plan, write(place / "c.csv", as_csv(competition(rows))), place / "out.csv")
    assert {line.accuracy for line in with_ties} == {None} and "accuracy" not in as_text([evaluation_table(with_ties)])


def test_a_judgement_tells_rows_that_cannot_be_used_and_stops_at_too_many(place: Path) -> None:
    plan = imported_plan(place, ties=True)
    write_submission([str(i) for i in range(ROWS)], np.tile([0.5, 0.3, 0.2], (ROWS, 1)), place / "out.csv")
    said: list[str] = []
    lines = evaluate(plan, place / "battles.csv", place / "out.csv", say=said.append)
    assert {line.rows for line in lines if not is_apart(line)} == {ROWS - 1}
    assert any(f"{ROWS - 1} of {ROWS} rows used; 1 cannot be: 39 (" in line for line in said)
    with pytest.raises(ZooError, match="allow more with --max-bad-rows"):
        evaluate(plan, place / "battles.csv", place / "out.csv", most_bad=0.0)
