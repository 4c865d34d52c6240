"""Trees that read lengths: a prediction has those of the build, and where there are no texts rows get the pool they correct."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble.cli import main
from ensemble.members.files import tables_of_files
from ensemble.members.gather import align
from ensemble.plan import Blend, load_plan, save_plan
from ensemble.pools.blend import RIDGED_LOGISTIC, BlendSpec, apply_blend
from ensemble.pools.patterns import blend_for
from ensemble.search.build import pose_problem
from ensemble.search.fitting import carry_out, fit_candidate
from ensemble.search.problem import NOT_JUDGED, Candidate
from tests.helpers.battles_files import Row, as_csv, competition, write
from tests.helpers.command_lines import Done, run_command
from tests.helpers.members import request
from tests.helpers.plans import plan_member, plan_of
from zoo.scores.tables import probabilities, read_submission
from zoo.targets import load_target

NAMES, TEXTS = ("one", "other"), ["prompt", "response_a", "response_b"]
TREES = BlendSpec("trees", parts=(RIDGED_LOGISTIC,), tree_rounds=(20, 10))


def battles(rows: int) -> list[Row]:
    """Battles that the longer answer mostly wins; prompts are longer where it does not."""
    rng = np.random.default_rng(0)
    long = rng.integers(1, 400, size=(rows, 2))
    lead = np.log(long[:, 0] / long[:, 1])
    y = (np.column_stack([lead, -lead, np.zeros(rows)]) + rng.gumbel(size=(rows, 3))).argmax(axis=1)
    return [(str(i), [f"why {i}"], ["x" * long[i, 0]], ["y" * long[i, 1]], int(y[i])) for i in range(rows)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Battles, tables `NAME.csv` of them, their labels without texts, and a plan of trees; `built.csv`: its own blend."""
    folder, rows = tmp_path_factory.mktemp("lengths"), battles(900)
    frame, rng = competition(rows), np.random.default_rng(1)
    write(folder / "battles.csv", as_csv(frame.sample(frac=1, random_state=2)))
    write(folder / "labels.csv", as_csv(frame.drop(columns=TEXTS)))
    for name in NAMES:
        p = rng.dirichlet([3, 3, 2], len(rows))
        table = pd.DataFrame({"id": [row[0] for row in rows], "p_a": p[:, 0], "p_b": p[:, 1], "p_tie": p[:, 2]})
        table.to_csv(folder / f"{name}.csv", index=False)
    files = {name: folder / f"{name}.csv" for name in NAMES}
    problem = pose_problem(
        align(tables_of_files(files, folder / "battles.csv", "cpu")), request(60.0, target=load_target("cpu"))
    )
    candidate = Candidate((0, 1), TREES, 0.0, NOT_JUDGED)
    fitted, members = fit_candidate(problem, candidate), problem.members
    save_plan(plan_of([plan_member(name) for name in NAMES], fitted.pools), folder / "plan.json")
    p = carry_out(fitted, candidate, members, problem.prices.pricing.row_seconds, {})
    pd.DataFrame(p, index=pd.Index(members.ids, name="id")).to_csv(folder / "built.csv")
    return folder


def run(folder: Path, *arguments: str) -> Done:
    scores = [text for name in NAMES for text in ("--scores", f"{name}={name}.csv")]
    return run_command(main, "ensemble", *arguments, *scores, home=folder / "home", folder=folder)


def trees_of(folder: Path) -> Blend:
    blend = blend_for(load_plan(folder / "plan.json").pools, frozenset(NAMES))
    assert blend is not None and blend.reads_lengths
    return blend


def submitted(folder: Path, ids: list[str]) -> np.ndarray:
    return probabilities(read_submission(folder / "out.csv").set_index("id").loc[ids])


def pool_beneath(folder: Path, ids: list[str]) -> np.ndarray:
    """What the pool that the trees correct says of these rows."""
    tables = {name: pd.read_csv(folder / f"{name}.csv", dtype={"id": str}).set_index("id") for name in NAMES}
    return apply_blend(trees_of(folder).parts[0], {name: table.loc[ids].to_numpy() for name, table in tables.items()})


def test_a_prediction_reads_the_lengths_that_the_build_read(folder: Path) -> None:
    done = run(folder, "predict", "plan.json", "battles.csv", "-o", "out.csv")
    assert done.returncode == 0, done.stderr
    built = pd.read_csv(folder / "built.csv", dtype={"id": str}).set_index("id")
    np.testing.assert_allclose(submitted(folder, list(built.index)), built.to_numpy(), atol=1e-6)
    apart = np.abs(built.to_numpy() - pool_beneath(folder, list(built.index))).max(axis=1)
    assert np.median(apart) > 0.02, "the trees matter"


def test_a_row_whose_texts_cannot_be_read_gets_the_pool_that_the_trees_correct(folder: Path) -> None:
    frame = pd.read_csv(folder / "battles.csv", dtype=str)
    frame.loc[3, "response_a"] = "not a list"
    frame.to_csv(folder / "broken.csv", index=False)
    done = run(folder, "predict", "plan.json", "broken.csv", "-o", "out.csv")
    assert done.returncode == 0, done.stderr
    ids = frame["id"].tolist()
    apart = np.abs(submitted(folder, ids) - pool_beneath(folder, ids)).max(axis=1)
    assert apart[3] < 1e-6 < np.median(apart)


def test_tables_alone_are_blended_by_the_pool_that_the_trees_correct_and_that_is_said(folder: Path) -> None:
    done = run(folder, "predict", "plan.json", "-o", "out.csv")
    assert done.returncode == 0, done.stderr
    assert "the plan's trees read the lengths of prompt and answers" in done.stderr and "give the battles" in done.stderr
    ids = [str(i) for i in range(900)]
    np.testing.assert_allclose(submitted(folder, ids), pool_beneath(folder, ids), atol=1e-6)


def test_a_calibration_is_of_the_blend_with_lengths_where_the_file_has_texts_and_else_says_so(folder: Path) -> None:
    losses = {}
    for labels in ("battles.csv", "labels.csv"):
        done = run(folder, "recalibrate", "plan.json", "--labels", labels, "-o", "new.json")
        assert done.returncode == 0, done.stderr
        assert ("labels.csv: has no texts, whose lengths the plan's trees read" in done.stderr) == (labels == "labels.csv")
        calibration = load_plan(folder / "new.json").calibration
        assert calibration is not None
        losses[labels] = calibration.log_loss_before
    assert losses["battles.csv"] < losses["labels.csv"] - 0.02
