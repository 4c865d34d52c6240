"""The table of stages: its functions exist, its sections are those of an entry, and each has a type of request."""

from __future__ import annotations

import ast

from tests.helpers.paths import ROOT
from zoo.contracts import REQUESTS, Entry
from zoo.pipeline.stage_table import SCORING, STAGES, Stage, stage_of


def test_every_stage_has_a_request_and_the_other_way_round() -> None:
    assert STAGES.keys() == REQUESTS.keys() and SCORING == ("score", "lexical-score", "import")
    assert stage_of("of another version") == Stage()


def test_every_function_is_where_the_table_says() -> None:
    """Read, not imported: stages load torch."""
    for name, stage in STAGES.items():
        if not stage.function:
            assert name == "import"
            continue
        module, function = stage.function.split(":")
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


def test_sections_are_those_of_an_entry() -> None:
    """Where a stage follows a section of the entry, its request holds that section as `spec`."""
    for name, stage in STAGES.items():
        if stage.section:
            assert stage.section in Entry.model_fields and "spec" in REQUESTS[name].model_fields
