"""What a report has of a language model's chain: its curves, and the ladder over any of its forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.manifests import input_of
from tests.helpers.tracked import PROMPT, logged, scored, trained
from zoo.contracts import Held, Input, LadderForm, LadderRequest, Variant
from zoo.report.run_report import Report, find_run, report_of
from zoo.report.sections import sections_html
from zoo.scores.ladder import Step, ladder_metrics
from zoo.store import Artifact
from zoo.tracking.facts import curves_of
from zoo.tracking.recipe import stage_params

STEPS = [Step("base", 1.2, 0.01), Step("adapter", 1.0, 0.01, -0.2, 0.01, 0.5)]


def report(store: Path, artifact: Artifact) -> Report:
    return report_of(store, find_run(store, artifact.path.name), stage_params, curves_of)


@pytest.mark.parametrize("as_second_form", [False, True])
def test_a_ladder_is_in_the_report_of_each_form_that_it_climbed_to(tmp_path: Path, as_second_form: bool) -> None:
    store = tmp_path / "store"
    run, other = scored(store, figures=True), scored(store, model="n" * 16)
    first, second = (other, run) if as_second_form else (run, other)
    variant = Variant(order="ab", max_tokens=512)
    made = Input(path=Path("made"), fingerprint="c" * 16)
    form = LadderForm(scheme="int8", quantized=made, scored=input_of(second), variant=variant)
    request = LadderRequest(
        entry="smollm2-135m",
        base=made,
        trained=made,
        merged=made,
        quantized=made,
        scored=input_of(first),
        battles=Input(path=Path("battles.csv"), fingerprint="d" * 64),
        held=Held(),
        prompt=PROMPT,
        variant=variant,
        method="lora",
        more_forms=(form,) if as_second_form else (),
    )
    ladder = logged(store, request, metrics=ladder_metrics(STEPS) | {"ladder/rows": 100})
    own = report(store, run)
    (section,) = (section for section in own.sections if section.title == "Ladder")
    assert len(section.blocks) == 2
    page = sections_html(own.title, own.subtitle, own.tiles, own.sections)
    assert "base and adapter, as trained" in page and "The ladder, 100 held-out rows" in page
    assert any(section.title == "Ladder" for section in report(store, ladder).sections), "the ladder's own report, too"
    assert as_second_form == any(section.title == "Ladder" for section in report(store, other).sections)


def test_curves_are_drawn_and_told(tmp_path: Path) -> None:
    own = report(tmp_path / "store", trained(tmp_path / "store"))
    (section,) = (section for section in own.sections if section.title == "Curves")
    assert len(section.blocks) == 2
    page = sections_html(own.title, own.subtitle, own.tiles, own.sections)
    assert "Training curves" in page and "train/loss" in page
    assert own.title == "train smollm2-135m"
