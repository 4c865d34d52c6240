"""The stages of the script: look, prepare, predict; each leaves a whole submission."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import environment as environments
from .checks import cards_at_hand, check_cards, check_image, check_working, left
from .child import run_told
from .ending import first_file, leave, put, standing
from .engine import variables
from .environment import Environment
from .find import find
from .places import Refused, load_state, places_of, say
from .rates import measure
from .submission import USUAL, form_of
from .weights import file_fault, make_store, needs_engine, read_plan

LONGEST_ENDING_SECONDS, ENDING_SHARE = 30.0, 0.02  # kept of the budget for what comes after predicting
SHORTEST_SECONDS = 5.0  # `ensemble predict` takes no shorter budget
INSTALL_SHARE = 0.25  # of the time that is left; 5 GB of wheels took 82 s on such a machine
AMPERE = (8, 0)  # compute capability of the first cards with attention that needs no modules of ours


class Session:
    """What every stage knows: places, what is attached, the form, and what earlier stages left."""

    def __init__(self) -> None:
        self.places = places_of(os.environ)
        self.state = load_state(self.places, os.environ)
        self.found = find(self.places.inputs)
        self.form, self.told_of_form = form_of(self.found.sample)

    @property
    def ends(self) -> float:
        """Unix seconds at which predicting has to be done."""
        budget = float(self.found.bundle["budget_seconds"])
        return self.state.started_at + budget - min(LONGEST_ENDING_SECONDS, ENDING_SHARE * budget)


def look(session: Session) -> None:
    """Write the prior of every row at once; then say what is here, what is wrong, and the mend."""
    found, places, state = session.found, session.places, session.state
    rows = first_file(found, session.form, places)
    say(standing(found, session.form, places)[1])
    say(f"job {found.bundle['name']} at {found.job}; {found.test}: {rows:,} rows; {session.told_of_form}")
    for line in found.told:
        say(f"warn  {line}")
    cards = cards_at_hand()
    working = check_working(places, rows)
    checks = [*check_cards(found.bundle, cards), *check_image(found.bundle, places), working]
    for check in checks:
        say(check.line())
    state.installs, state.serves, state.why_not = left(checks)
    state.turing = bool(cards) and all(card.capability and card.capability < AMPERE for card in cards)
    state.direct = working.state == "ok"
    state.checks = [asdict(check) for check in checks]


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
    wants = any(needs_engine(member) for member in plan["members"])
    chosen = _environment(session, engine=wants)
    state = session.state
    if chosen is None:
        say("fail  no environment to predict in; the prior stays")
        return
    state.python, state.product, state.engine = str(chosen.python), chosen.product, chosen.engine
    state.on_processors = chosen.on_processors
    engine = (
        "an engine for processors, whatever the cards"
        if chosen.on_processors
        else "an engine"
        if chosen.engine
        else "no engine"
    )
    say(f"predicting with {chosen.python} and {engine}")


def _environment(session: Session, *, engine: bool) -> Environment | None:
    """The environment that there can be: given, of all wheels, of the light ones, or the image's own Python."""
    places, state, found = session.places, session.state, session.found
    if places.environment is not None:
        say(f"PZ_ENVIRONMENT: {places.environment} is taken, no wheel is installed or tried")
        return environments.given(places.environment)
    wheels = found.parts.get("wheels")
    if wheels is not None and state.installs:
        part = next(part for part in found.bundle["parts"] if part["name"] == "wheels")
        if fault := file_fault(wheels, part["files"]):
            say(f"warn  wheels: {fault}; upload that data set again")
        for with_engine in [True, False] if engine and state.serves else [False]:
            began, seconds = time.time(), INSTALL_SHARE * max(0.0, session.ends - time.time())
            made, wrong = environments.make(found, wheels, places, seconds, engine=with_engine)
            if made is not None:
                say(f"wheels are installed, {time.time() - began:.0f} s")
                return made
            say(f"fail  {wrong}")
            state.why_not = state.why_not or wrong
    elif wheels is not None:
        say(f"no wheel is installed: {state.why_not}")
    say("members that need no engine are tried in the image's own Python")
    return environments.of_the_image(wheels, places)


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
    chosen = Environment(Path(state.python), state.product, engine=state.engine, on_processors=state.on_processors)
    serves = chosen.engine and (state.serves or chosen.on_processors)
    left_out = make_store(found, plan, places, serves=serves, why_not=state.why_not or f"{chosen.python} has none")
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
    if serves and not chosen.on_processors and (rates := measure(found, chosen, environment, seconds)):
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
    command = [str(chosen.python), "-m", "ensemble", "predict", str(found.job / found.bundle["plan"]), str(found.test)]
    command += ["-o", str(output), "--budget", f"{budget:.0f}s", "--started-at", f"{state.started_at:.3f}"]
    command += ["--store", str(places.scratch / "store")]
    return command + (["--like", str(found.sample)] if session.form.columns != USUAL else [])


STAGES: dict[str, Callable[[Session], None]] = {"look": look, "prepare": prepare, "predict": predict}


def main(names: Sequence[str]) -> int:
    """Run the stages named, or all; 0 where the submission is whole, whatever else happened."""
    if unknown := [name for name in names if name not in STAGES]:
        say(f"no stage {unknown[0]}; there are {', '.join(STAGES)}, and all without a name")
        return 2
    try:
        session = Session()
        if session.found.bundle["task"] != "predict":
            raise Refused(f"task {session.found.bundle['task']!r}: this script only predicts")
        for name in names or STAGES:
            _run(name, session)
    except Refused as refused:
        say(f"REFUSED: {refused}")
        return 1
    except OSError as error:
        say(f"NO SUBMISSION: {error}")
        return 1
    return 0 if standing(session.found, session.form, session.places)[0] else 1


def _run(name: str, session: Session) -> None:
    """One stage. What goes wrong in it is told; what it is about, the submission, is there already."""
    try:
        STAGES[name](session)
    except Refused:
        raise
    except Exception:
        if name == "look":
            raise
        traceback.print_exc()
    finally:
        session.state.save(session.places)
