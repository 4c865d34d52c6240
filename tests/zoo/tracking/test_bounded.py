"""Calls of a tracking store: made again where two processes write one key, and only then."""

from __future__ import annotations

import pytest

from zoo.tracking.bounded import ATTEMPTS, Patient

CLASH = 'BAD_REQUEST: (psycopg.errors.UniqueViolation) duplicate key value violates unique constraint "experiment_tag_pk"'


class Store:
    """Fails so many times with a message, then answers."""

    name = "store"

    def __init__(self, failures: int, message: str) -> None:
        self.failures, self.message, self.calls = failures, message, 0

    def write(self, value: str) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise RuntimeError(self.message)
        return value


@pytest.mark.parametrize("seconds", [None, 30.0])
def test_a_write_that_clashes_is_made_again(seconds: float | None) -> None:
    store = Store(ATTEMPTS - 1, CLASH)
    client = Patient(store, seconds)
    assert client.write("tag") == "tag" and store.calls == ATTEMPTS
    assert client.name == "store"


@pytest.mark.parametrize(("message", "calls"), [(CLASH, ATTEMPTS), ("connection refused", 1)])
def test_another_error_and_the_last_clash_are_raised(message: str, calls: int) -> None:
    store = Store(ATTEMPTS, message)
    with pytest.raises(RuntimeError, match=message[:9]):
        Patient(store, None).write("tag")
    assert store.calls == calls
