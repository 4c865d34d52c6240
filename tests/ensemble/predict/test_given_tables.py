"""Tables that the user gives stand in for members."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensemble.plan import load_plan, save_plan
from ensemble.predict.board import Board, add_given
from tests.helpers.plans import of_two_outcomes
from tests.helpers.predictions import ROWS, make_plan, member, run
from zoo.errors import ZooError


def test_tables_given_by_the_user_stand_in_for_members(place: Path) -> None:
    imported = member(place, "good@ab-512").model_copy(update={"request": None})
    plan = make_plan(place, [imported, member(place, "good.b@ab-512")])
    with pytest.raises(ZooError, match="--scores good@ab-512=FILE"):
        run(place, plan)
    assert not (place / "out.csv").exists()
    rows = "".join(f"{i},0.8,0.1,0.1\n" for i in range(25))
    (place / "table.csv").write_text("id,p_a,p_b,p_tie\n" + rows)
    done = run(place, plan, scores={"good@ab-512": place / "table.csv"})
    assert done.patterns == {"good@ab-512 + good.b@ab-512": 25, "good.b@ab-512": ROWS - 26, "prior": 1}
    with pytest.raises(ZooError, match="no member 'nobody'"):
        run(place, plan, scores={"nobody": place / "table.csv"})


@pytest.mark.parametrize("names", ["p_a,p_b,p_tie", "winner_model_a,winner_model_b,winner_tie"])
def test_a_given_table_may_be_rounded_as_an_imported_one_may(place: Path, names: str) -> None:
    plan = make_plan(place, [member(place, "good@ab-512").model_copy(update={"request": None})])
    rows = "".join(f"{i},0.3333,0.3333,0.3333\n" for i in range(ROWS))
    (place / "table.csv").write_text(f"id,{names}\n{rows}")
    assert run(place, plan, scores={"good@ab-512": place / "table.csv"}).patterns == {"good@ab-512": ROWS}
    (place / "table.csv").write_text(f"id,{names}\n{rows}".replace("0,0.3333", "0,0.3300", 1))
    with pytest.raises(ZooError, match="do not sum to 1: 0"):
        run(place, plan, scores={"good@ab-512": place / "table.csv"})


def test_a_given_table_is_read_as_an_imported_one_is(place: Path) -> None:
    """Other usual names, a semicolon, decimal ids; what was done is told. Labels and arrays are refused."""
    plan = make_plan(place, [member(place, "good@ab-512").model_copy(update={"request": None})])
    rows = "".join(f"{i}.0;0.5;0.3;0.2\n" for i in range(ROWS))
    table = place / "table"
    table.write_text(f"ID;prob_model_a;prob_model_b;prob_tie\n{rows}")
    done = run(place, plan, scores={"good@ab-512": table})
    assert done.patterns == {"good@ab-512": ROWS}
    table.write_text("id,winner_model_a,winner_model_b,winner_tie\n" + "".join(f"{i},1,0,0\n" for i in range(ROWS)))
    with pytest.raises(ZooError, match="hold labels"):
        run(place, plan, scores={"good@ab-512": table})
    table.write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(ZooError, match="a NumPy array"):
        run(place, plan, scores={"good@ab-512": table})


def test_a_table_of_two_classes_stands_in_where_the_plan_knows_no_ties(place: Path) -> None:
    path = make_plan(place, [member(place, "good@ab-512").model_copy(update={"request": None})])
    (place / "table.csv").write_text("id,pred_a,pred_b\n" + "".join(f"{i},0.6,0.4\n" for i in range(ROWS)))
    with pytest.raises(ZooError, match="can be ties; add the column p_tie"):
        run(place, path, scores={"good@ab-512": place / "table.csv"})
    save_plan(of_two_outcomes(load_plan(path)), path)
    assert run(place, path, scores={"good@ab-512": place / "table.csv"}).patterns == {"good@ab-512": ROWS}


def test_a_given_table_of_0_and_1_is_called_hard_as_an_imported_one_is(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("id,p_a,p_b,p_tie\n0,1,0,0\n1,0,1,0\n2,0.5,0.3,0.2\n")
    told = add_given(Board(["0", "1", "2"], ["m"]), {"m": table}, ties=True)
    assert told["m"].endswith(", hard: 2 of 3 rows are a 1 and two 0")
