"""Calls of a tracking store: bounded in time, and made again where two write at once."""

from __future__ import annotations

import re
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


CLASH = re.compile("unique|duplicate|deadlock", re.IGNORECASE)  # what databases say to the second of two that write one key
ATTEMPTS = 4


def repeated_on_clash(call: Callable[[], _Answer]) -> _Answer:
    """Make a write once more where another process wrote the same key at the same moment.

    MLflow looks whether a tag, data or a name is there and then inserts it: of two clients that are the first, one fails on the
    database's unique key, and its transaction is rolled back. The next time it finds what the other wrote.
    """
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except Exception as error:
            if attempt == ATTEMPTS - 1 or not CLASH.search(str(error)):
                raise
    raise AssertionError("the last attempt returns or raises")


class Patient:
    """A client whose calls come back in time, and are made again where two write at once.

    `seconds`: the longest that a call may take before it raises TimeoutError; None for a file's, which always answers. What it
    answers is what the client answers; attributes that are no methods are the client's own.
    """

    def __init__(self, client: Any, seconds: float | None) -> None:
        self._client, self._seconds = client, seconds

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            if self._seconds is None:
                return repeated_on_clash(lambda: found(*arguments, **named))
            seconds = max(self._seconds, FILES_SECONDS) if name == "log_artifacts" else self._seconds
            return repeated_on_clash(lambda: answered_within(seconds, lambda: found(*arguments, **named)))

        return call
