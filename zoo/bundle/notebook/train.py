"""The stages of a training: look, prepare, train; an archive is left."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .child import run_told
from .engine import variables
from .environment import Environment
from .find import TRAINED
from .places import Refused, say, write_whole
from .session import Session, choose_environment, look_around
from .weights import linked, read_plan

CONTENTS, LOG_BYTES = "trained.json", 200_000
TRAINS = "transformers"  # of the engines that wheels may have, what training needs
# Kept of the hours for the archive: some GB of adapters and optimizers are written once more, and nothing of a session that is
# ended by its hours is kept.
PACKING_SECONDS, PACKING_SHARE = 600.0, 0.1


def look(session: Session) -> None:
    """Say what is here, what is wrong with it, and the mend."""
    found = session.found
    say(f"job {found.bundle['name']} at {found.job}; trains on {found.battles}")
    for archive in found.earlier:
        say(f"an earlier run left {archive}")
    look_around(session)


def prepare(session: Session) -> None:
    """Make the environment to train in; refused where there can be none."""
    state = session.state
    chosen = choose_environment(session, engines=(TRAINS,))
    if chosen is None or not (chosen.engines or session.places.environment):
        raise Refused(f"no environment to train in: {state.why_not or 'the wheels are not mounted'}")
    state.python, state.product, state.engines = str(chosen.python), chosen.product, list(chosen.engines)
    state.on_processors = chosen.on_processors
    say(f"training with {chosen.python}")


def train(session: Session) -> None:
    """Train within the hours what can be trained, and leave it as an archive."""
    found, places, state = session.found, session.places, session.state
    plan, wrong = read_plan(found)
    if plan is None or not state.python:
        raise Refused(wrong or "no environment to train in: run `prepare` first")
    store, faults = linked(found, places)
    if faults:
        raise Refused("; ".join(f"{name}: {fault}" for name, fault in faults.items()))
    seconds = session.ends - time.time()
    ends_at = session.ends - min(PACKING_SECONDS, PACKING_SHARE * float(found.bundle["budget_seconds"]))
    orders = places.scratch / "orders.json"
    write_whole(orders, json.dumps({"store": str(store), "ends_at": ends_at, "earlier": [str(path) for path in found.earlier]}))
    chosen = Environment(Path(state.python), state.product, on_processors=state.on_processors)
    environment = variables(os.environ, found.job, places, chosen, state)
    command = [str(chosen.python), "-m", "zoo.bundle.training", str(found.job / found.bundle["plan"]), str(orders)]
    code, _ = run_told([*command, str(found.battles), str(places.working)], environment, places.log, seconds)
    with suppress(OSError), places.log.open("rb") as log:
        log.seek(max(0, places.log.stat().st_size - LOG_BYTES))
        write_whole(places.working / "train.log", log.read().decode("utf-8", "replace"))
    say(f"training ended with exit code {code}; " + _standing(session))


def left_archive(session: Session) -> bool:
    """Whether the archive is there, with its contents beside it, which are written last."""
    return all((session.places.working / name).is_file() for name in (TRAINED, CONTENTS))


def _standing(session: Session) -> str:
    if not left_archive(session):
        return "NO archive was left: see the log above"
    folds = json.loads((session.places.working / CONTENTS).read_text(encoding="utf-8"))["folds"]
    told = ", ".join(f"fold {f['fold']} " + ("finished" if f["finished"] else f"at step {f['steps']}") for f in folds)
    return f"{session.places.working / TRAINED}: {told or 'nothing yet'}"


STAGES: dict[str, Callable[[Session], None]] = {"look": look, "prepare": prepare, "train": train}
