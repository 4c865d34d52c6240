"""Both tables of stages name the same stages, and what is said of them fits entries and requests."""

from __future__ import annotations

from zoo.contracts import REQUESTS, Entry
from zoo.pipeline.stage_kinds import KINDS, SCORING, StageKind, kind_of
from zoo.stages import STAGES


def test_every_stage_has_a_kind() -> None:
    assert set(KINDS) == {*STAGES, "import"} and SCORING == ("score", "lexical-score", "import")
    assert kind_of("of another version") == StageKind()


def test_sections_are_those_of_an_entry() -> None:
    """Where a stage follows a section of the entry, its request holds that section as `spec`."""
    for name, kind in KINDS.items():
        if kind.section:
            assert kind.section in Entry.model_fields and "spec" in REQUESTS[name].model_fields
