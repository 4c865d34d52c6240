"""A question with a bound on the time to its answer."""

from __future__ import annotations

import threading
from collections.abc import Callable

SECONDS = 4.0  # that a tracking store may take for an answer, or for one request: tracking never holds a stage up


def answered_within(seconds: float, question: Callable[[], None]) -> None:
    """Ask in a thread, which is left behind where no answer comes in time.

    No setting of a client bounds names that do not resolve. Raises what the question raises, and TimeoutError.
    """
    outcome: list[Exception | None] = []

    def ask() -> None:
        try:
            question()
            outcome.append(None)
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:g} s")
    if outcome[0] is not None:
        raise outcome[0]
