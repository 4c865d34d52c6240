"""GPU code in libraries: counted where it is, nothing invented where it is not."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.wheels import fatbin, library, write_wheel
from zoo.bundle.fatbins import CUBIN, MAGIC, NEVER_LAUNCHED, PTX, GpuLibrary, code_of, gpu_libraries, lacking

TURING = (7, 5)
entries = st.lists(
    st.tuples(st.sampled_from([PTX, CUBIN]), st.sampled_from([70, 75, 80, 86, 90, 100, 120]), st.binary(max_size=200)),
    max_size=6,
)
noise = st.binary(max_size=300).filter(lambda data: MAGIC not in data)


@given(st.lists(st.tuples(noise, entries), max_size=4), noise)
def test_every_entry_of_every_fatbin_is_counted(pieces: list[tuple[bytes, list[tuple[int, int, bytes]]]], rest: bytes) -> None:
    data = b"".join(before + fatbin(found) for before, found in pieces) + rest
    expected = Counter((kind, arch) for _, found in pieces for kind, arch, _ in found)
    assert code_of(data) == expected


@given(entries, st.integers(0, 400))
def test_a_library_that_is_cut_off_adds_nothing(found: list[tuple[int, int, bytes]], kept: int) -> None:
    whole = fatbin(found)
    counts = code_of(whole[: min(kept, len(whole) - 1)])
    assert counts == Counter()


@given(st.binary(max_size=500))
def test_any_bytes_are_read_to_the_end(data: bytes) -> None:
    code_of(data)
    code_of(MAGIC + data)
    code_of(data + MAGIC)


def test_code_in_code_is_counted_once() -> None:
    """A fatbin's code may hold the magic number: what lies in it is no fatbin of the library."""
    inner = fatbin([(CUBIN, 90, b"x")])
    assert code_of(fatbin([(CUBIN, 75, inner)])) == {(CUBIN, 75): 1}


@pytest.mark.parametrize(
    ("cubins", "ptx", "runs"),
    [
        ((75,), (), True),
        ((70,), (), True),  # same major version, earlier minor
        ((80, 90), (), False),
        ((80,), (70,), True),  # the driver compiles it
        ((80,), (80,), False),
        ((), (), False),
        ((76,), (), False),
    ],
)
def test_what_a_turing_card_runs(cubins: tuple[int, ...], ptx: tuple[int, ...], runs: bool) -> None:
    found = GpuLibrary(wheel="w", path="a.so", cubins=dict.fromkeys(cubins, 1), ptx=dict.fromkeys(ptx, 1))
    assert found.runs_on(TURING) is runs


def test_a_wheel_s_libraries(tmp_path: Path) -> None:
    """Libraries by their names; what has no GPU code, or is no library, is none of them."""
    files = {
        "v/_C.abi3.so": library(75, 80, ptx=(80,)),
        "v/libx.so.12": library(80, 80),
        "v/plain.so": b"\x7fELF" + b"\0" * 100,
        "v/data.bin": library(90),
        "v/_flashmla_C.abi3.so": library(90),
    }
    read: list[int] = []
    found = gpu_libraries(write_wheel(tmp_path, "v", files=files), read=read.append)
    assert [(g.path, g.cubins, g.ptx) for g in found] == [
        ("v/_C.abi3.so", {75: 1, 80: 1}, {80: 1}),
        ("v/libx.so.12", {80: 2}, {}),
        ("v/_flashmla_C.abi3.so", {90: 1}, {}),
    ]
    assert len(read) == len(files) + 4 and sum(read) > 0
    assert [g.path for g in lacking(found, TURING)] == ["v/libx.so.12"] and "_flashmla_C.abi3.so" in NEVER_LAUNCHED
    assert [g.path for g in lacking(found, (8, 0))] == ["v/_flashmla_C.abi3.so"], "not launched on 7.5 alone"
