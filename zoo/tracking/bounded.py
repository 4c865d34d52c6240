"""A question with a bound on the time to its answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

SECONDS = 4.0  # that a tracking store may take for an answer, or for one request: tracking never holds a stage up


FILES_SECONDS = 60.0  # that files may take on their way
_Answer = TypeVar("_Answer")


def answered_within(seconds: float, question: Callable[[], _Answer]) -> _Answer:
    """Ask in a thread, which is left behind where no answer comes in time.

    No setting of a client bounds names that do not resolve, or a database that was stopped: its kernel goes on acknowledging
    what is sent. Raises what the question raises, and TimeoutError.
    """
    answers: list[_Answer] = []
    errors: list[Exception] = []

    def ask() -> None:
        try:
            answers.append(question())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return answers[0]


class Patient:
    """A client of a store somewhere else: a call is answered in time or raises TimeoutError.

    What it answers is what the client answers; attributes that are no methods are the client's own.
    """

    def __init__(self, client: Any, seconds: float) -> None:
        self._client, self._seconds = client, seconds

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found
        seconds = max(self._seconds, FILES_SECONDS) if name == "log_artifacts" else self._seconds
        return lambda *arguments, **named: answered_within(seconds, lambda: found(*arguments, **named))
