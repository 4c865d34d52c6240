"""What stages share: the session, the look at the machine, the choice of an environment."""

from __future__ import annotations

import os
import time
from dataclasses import asdict

from . import environment as environments
from .checks import Check, cards_at_hand, check_cards, check_image, left
from .environment import Environment
from .find import find
from .places import load_state, places_of, say
from .submission import form_of
from .weights import file_fault

LONGEST_ENDING_SECONDS, ENDING_SHARE = 30.0, 0.02  # kept of the budget for what comes after the work
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
        """Unix seconds at which the work has to be done."""
        budget = float(self.found.bundle["budget_seconds"])
        return self.state.started_at + budget - min(LONGEST_ENDING_SECONDS, ENDING_SHARE * budget)


def look_around(session: Session, *more: Check) -> None:
    """Say what is here, what is wrong, and the mend; keep in the state what follows of it."""
    found, state = session.found, session.state
    for line in found.told:
        say(f"warn  {line}")
    cards = cards_at_hand()
    checks = [*check_cards(found.bundle, cards), *check_image(found.bundle, session.places), *more]
    for check in checks:
        say(check.line())
    state.installs, state.serves, state.why_not = left(checks)
    state.turing = bool(cards) and all(card.capability and card.capability < AMPERE for card in cards)
    state.checks = [asdict(check) for check in checks]


def choose_environment(session: Session, *, engines: tuple[str, ...]) -> Environment | None:
    """The environment: given, of all wheels, of the light ones, or the image's own Python.

    `engines`: those that members need; where that is none, or the cards cannot serve, light wheels do.
    """
    places, state, found = session.places, session.state, session.found
    if places.environment is not None:
        say(f"PZ_ENVIRONMENT: {places.environment} is taken, no wheel is installed or tried")
        return environments.given(places.environment)
    wheels = found.parts.get("wheels")
    if wheels is not None and state.installs:
        part = next(part for part in found.bundle["parts"] if part["name"] == "wheels")
        if fault := file_fault(wheels, part["files"]):
            say(f"warn  wheels: {fault}; upload that data set again")
        for some in [engines, ()] if engines and state.serves else [()]:
            began, seconds = time.time(), INSTALL_SHARE * max(0.0, session.ends - time.time())
            made, wrong = environments.make(found, wheels, places, seconds, engines=some)
            if made is not None:
                say(f"wheels are installed, {time.time() - began:.0f} s")
                return made
            say(f"fail  {wrong}")
            state.why_not = state.why_not or wrong
    elif wheels is not None:
        say(f"no wheel is installed: {state.why_not}")
    say("members that need no engine are tried in the image's own Python")
    return environments.of_the_image(wheels, places)
