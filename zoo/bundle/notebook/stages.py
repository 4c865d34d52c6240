"""The stages of the script: look, prepare, predict; each leaves a whole submission."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import train
from .checks import check_working
from .child import run_told
from .ending import first_file, leave, put, standing
from .engine import variables
from .environment import Environment
from .places import Refused, say
from .rates import measure
from .session import Session, choose_environment, look_around
from .submission import USUAL
from .weights import engine_of, make_store, read_plan

SHORTEST_SECONDS = 5.0  # `ensemble predict` takes no shorter budget


def look(session: Session) -> None:
    """Write the prior of every row at once; then say what is here, what is wrong, and the mend."""
    found, places = session.found, session.places
    rows = first_file(found, session.form, places)
    say(standing(found, session.form, places)[1])
    say(f"job {found.bundle['name']} at {found.job}; {found.battles}: {rows:,} rows; {session.told_of_form}")
    working = check_working(places, rows)
    look_around(session, working)
    session.state.direct = working.state == "ok"


def _stand(session: Session) -> None:
    """Say what is on disk, in the first line of a stage; write the prior where nothing whole is."""
    whole, line = standing(session.found, session.form, session.places)
    if not whole:
        first_file(session.found, session.form, session.places)
        line = standing(session.found, session.form, session.places)[1]
    say(line)


def prepare(session: Session) -> None:
    """Make the environment to predict in, or say why there is none."""
    _stand(session)
    plan, wrong = read_plan(session.found)
    if plan is None:
        say(f"fail  {wrong}; the prior stays")
        return
    wanted = tuple(sorted({engine_of(member) for member in plan["members"]} - {""}))
    chosen = choose_environment(session, engines=wanted)
    state = session.state
    if chosen is None:
        say("fail  no environment to predict in; the prior stays")
        return
    state.python, state.product, state.engines = str(chosen.python), chosen.product, list(chosen.engines)
    state.on_processors = chosen.on_processors
    engines = " and ".join(chosen.engines) or "no engine"
    where = " on processors, whatever the cards" if chosen.on_processors else ""
    say(f"predicting with {chosen.python} and {engines}{where}")


def predict(session: Session) -> None:
    """Predict within the budget what can be predicted, and leave it with what was done."""
    _stand(session)
    said: dict[str, Any] = {"told": list(session.found.told), "left_out": {}}
    code: int | None = None
    try:
        code = _predicted(session, said)
    except Exception:
        traceback.print_exc()
        said["error"] = traceback.format_exc(limit=3)
    leave(session.found, session.form, session.places, session.state, code, said)


def _predicted(session: Session, said: dict[str, Any]) -> int | None:
    """Run `ensemble predict`; its exit code, None where it was not begun."""
    found, places, state = session.found, session.places, session.state
    plan, wrong = read_plan(found)
    if plan is None or not state.python:
        say(f"fail  {wrong or 'no environment to predict in: run `prepare` first'}; the prior stays")
        return None
    chosen = Environment(Path(state.python), state.product, tuple(state.engines), on_processors=state.on_processors)
    serving = chosen.engines if state.serves or chosen.on_processors else ()
    left_out = make_store(found, plan, places, serving=serving, why_not=state.why_not)
    said["left_out"] = left_out
    for name, why in left_out.items():
        say(f"warn  {name} is left out: {why}")
    if len(left_out) == len(plan["members"]):
        say("no member can run here; the prior stays")
        return None
    seconds = session.ends - time.time()
    if seconds < SHORTEST_SECONDS:
        say(f"the budget of {found.bundle['budget_seconds']:g} s is spent; the prior stays")
        return None
    environment = variables(os.environ, found.job, places, chosen, state)
    if serving and not chosen.on_processors and (rates := measure(found, chosen, environment, seconds)):
        said["rates"] = rates
        seconds = session.ends - time.time()
    output = places.submission if state.direct else places.scratch / "submission.csv"
    code, _ = run_told(_command(session, chosen, output), environment, places.log, seconds + SHORTEST_SECONDS)
    if not state.direct and output.exists() and (why := put(output, places.submission)):
        say(f"fail  {why}")
    return code


def _command(session: Session, chosen: Environment, output: Path) -> list[str]:
    """`ensemble predict` with hours that began with the session, and checkpoints where they are mounted."""
    found, places, state = session.found, session.places, session.state
    budget = session.ends - state.started_at
    command = [str(chosen.python), "-m", "ensemble", "predict", str(found.job / found.bundle["plan"]), str(found.battles)]
    command += ["-o", str(output), "--budget", f"{budget:.0f}s", "--started-at", f"{state.started_at:.3f}"]
    command += ["--store", str(places.scratch / "store")]
    return command + (["--like", str(found.sample)] if session.form.columns != USUAL else [])


PREDICT: dict[str, Callable[[Session], None]] = {"look": look, "prepare": prepare, "predict": predict}
TASKS = {"predict": PREDICT, "train": train.STAGES}


def main(names: Sequence[str]) -> int:
    """Run the stages named, or all of the job's task; 0 where what it is to leave is whole."""
    if unknown := [name for name in names if not any(name in stages for stages in TASKS.values())]:
        say(f"no stage {unknown[0]}; there are {', '.join(PREDICT)} or {', '.join(train.STAGES)}, and all without a name")
        return 2
    try:
        session = Session()
        task = session.found.bundle["task"]
        if other := [name for name in names if name not in TASKS[task]]:
            raise Refused(f"{other[0]}: the job's task is to {task}: {', '.join(TASKS[task])}")
        for name in names or TASKS[task]:
            _run(session, TASKS[task][name])
    except Refused as refused:
        say(f"REFUSED: {refused}")
        return 1
    except OSError as error:
        say(f"NOTHING IS LEFT: {error}")
        return 1
    if task == "train":
        return 0 if "train" not in (names or TASKS[task]) or train.left_archive(session) else 1
    return 0 if standing(session.found, session.form, session.places)[0] else 1


def _run(session: Session, stage: Callable[[Session], None]) -> None:
    """One stage. What goes wrong in it is told, and is its end where no whole submission lies there already."""
    try:
        stage(session)
    except Refused:
        raise
    except Exception:
        if session.found.bundle["task"] == "predict" and not standing(session.found, session.form, session.places)[0]:
            raise
        traceback.print_exc()
    finally:
        session.state.save(session.places)
