"""Streams whose other end stalls, is slow or is gone: who writes never waits and never fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from ensemble.predict.streams import MOST_WAITING, Unblocked, unblocked


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for end in (read, write):
        with suppress(OSError):
            os.close(end)


def stream_to(descriptor: int) -> Unblocked:
    with open(descriptor, "w", closefd=False) as original:
        return Unblocked(original)


def test_everything_arrives_in_order_where_somebody_reads(pipe: tuple[int, int]) -> None:
    read, write = pipe
    stream = stream_to(write)
    for number in range(500):
        print(f"line {number} é", file=stream)
    stream.drain(60)
    stream.end()
    os.close(write)
    with open(read, closefd=False, encoding="utf-8") as end:
        assert end.read().splitlines() == [f"line {number} é" for number in range(500)]


def test_a_stalled_stream_loses_what_comes_and_holds_nobody_up(pipe: tuple[int, int]) -> None:
    """More than a pipe and the queue hold: a stream that waited for its reader would never return."""
    stream = stream_to(pipe[1])
    for _ in range(3 * MOST_WAITING):
        stream.write("x" * 1000)
    stream.drain(60)
    assert len(stream._waiting) <= MOST_WAITING


def test_a_broken_stream_swallows_what_is_written(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    stream = stream_to(pipe[1])
    for _ in range(100):
        stream.write("nobody is there")
    stream.drain(60)
    assert not stream._waiting


def test_within_the_block_both_streams_are_replaced_and_then_put_back(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = pipe
    with open(write, "w", closefd=False) as own:
        monkeypatch.setattr(sys, "stderr", own)
        with unblocked():
            inner = sys.stderr
            assert isinstance(inner, Unblocked)
            with unblocked():
                assert sys.stderr is inner
            print("told", file=sys.stderr)
        assert sys.stderr is own
    assert os.read(read, 100) == b"told\n"
