"""The caps stage: paired errors by prompt, what was cut and shared, and a figure that shows all of it."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest

from zoo.contracts import (
    CapsRequest,
    Held,
    Input,
    Manifest,
    Measurements,
    PricedVariant,
    PromptSpec,
    ScoreRequest,
    ScoreSpec,
    Variant,
)
from zoo.data.battles import read_battles
from zoo.data.splits import NEAR_PROMPTS, group_hashes
from zoo.errors import ZooError
from zoo.report.caps import caps_figure, caps_page
from zoo.report.text import as_text
from zoo.scores.caps import CAPS, CapsReport
from zoo.scores.metric_names import find_metric
from zoo.scores.metrics import log_loss_rows, mean_and_error
from zoo.scores.tables import score_table, write_scores
from zoo.stages.compare.caps import run
from zoo.store import MANIFEST

VARIANTS = tuple(Variant(max_tokens=cap, keep=keep) for keep in (None, "both_ends") for cap in (64, 128, 256))  # type: ignore[arg-type]
HOURS = [1.0, 2.0, 3.0] * 2


def scored(folder: Path, ids: list[str], p: np.ndarray) -> Input:
    """A score artifact of made probabilities (variants, rows, 3)."""
    request = ScoreRequest(
        entry="tiny",
        model=Input(fingerprint="m"),
        battles=Input(fingerprint="b"),
        held=Held(),
        prompt=PromptSpec(template="{prompt}{response_a}{response_b}"),
        spec=ScoreSpec(variants=VARIANTS),
        target="cpu",
    )
    for variant, own in zip(VARIANTS, p, strict=True):
        path = folder / variant.slug / "scores.parquet"
        path.parent.mkdir(parents=True)
        cap = variant.max_tokens or 0
        write_scores(score_table(ids, own, n_tokens=np.full(len(ids), cap), n_truncated_tokens=np.arange(len(ids)) % 2), path)
    manifest = Manifest(
        stage="score",
        fingerprint="s",
        request=request,
        files={},
        metrics={f"{variant.slug}:rows/shared": float(place) for place, variant in enumerate(VARIANTS)},
        measurements=Measurements(),
        hardware={},
        packages={},
        git_commit=None,
        argv=(),
        created_at=datetime.datetime.now(datetime.UTC),
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return Input(path=folder, fingerprint="s")


def request_for(table: Input, csv: Path) -> CapsRequest:
    priced = [PricedVariant(variant=v, hours=(h / 2, h, 2 * h)) for v, h in zip(VARIANTS, HOURS, strict=True)]
    return CapsRequest(
        entry="tiny",
        scored=table,
        battles=Input(path=csv, fingerprint="b"),
        held=Held(),
        priced=tuple(priced),
        reference=VARIANTS[1],
        target="t4x2",
        rows=25_000,
    )


def test_the_stage_compares_on_the_same_rows_with_errors_by_prompt(sample_csv: Path, tmp_path: Path) -> None:
    frame = read_battles(sample_csv).frame.iloc[:80]
    generator = np.random.default_rng(0)
    p = generator.dirichlet((3, 3, 3), (len(VARIANTS), len(frame)))
    out = tmp_path / "out"
    out.mkdir()
    result = run(request_for(scored(tmp_path / "scored", frame["id"].tolist(), p), sample_csv), out)
    report = CapsReport.model_validate_json((out / CAPS).read_text())
    whole = read_battles(sample_csv).frame
    groups = group_hashes(whole, NEAR_PROMPTS)[:80]
    labels = frame["label"].to_numpy()
    losses = np.stack([log_loss_rows(own, labels) for own in p], axis=1)
    assert report.battles == 80 and report.prompts == len(np.unique(groups)) < 80 and report.reference == "ab-128"
    for place, one in enumerate(report.readings):
        expected = mean_and_error(losses[:, place] - losses[:, 1], groups)
        assert (one.change, one.change_se) == pytest.approx(expected) and one.log_loss == pytest.approx(losses[:, place].mean())
        assert (one.cut, one.shared, one.likely_hours) == (40, place, HOURS[place])
    assert all(find_metric(name) for name in result.metrics) and (out / "caps.png").stat().st_size > 1000
    assert (report.readings[1].change, report.readings[1].change_se) == (0, 0)
    text = as_text(caps_page(report, ["assumed"]))
    assert all(variant.slug in text for variant in VARIANTS) and "t4x2" in text
    (axes,) = caps_figure(report).axes
    assert {line.get_text() for line in axes.get_legend().get_texts()} == {"ab", "ab-both_ends", "worth its hours"}
    assert {text.get_text() for text in axes.texts} == {"64", "128", "256"}


def test_rows_that_one_variant_lacks_are_compared_nowhere_and_none_is_an_error(sample_csv: Path, tmp_path: Path) -> None:
    frame = read_battles(sample_csv).frame.iloc[:20]
    p = np.full((len(VARIANTS), len(frame), 3), 1 / 3)
    (tmp_path / "out").mkdir()
    request = request_for(scored(tmp_path / "scored", frame["id"].tolist(), p), sample_csv)
    p[2, :5] = np.nan
    path = tmp_path / "scored" / VARIANTS[2].slug / "scores.parquet"
    status = ["refused: odd"] * 5 + ["ok"] * 15
    write_scores(score_table(frame["id"].tolist(), p[2], status=status), path)
    run(request, tmp_path / "out")
    assert CapsReport.model_validate_json((tmp_path / "out" / CAPS).read_text()).battles == 15
    p[2] = np.nan
    write_scores(score_table(frame["id"].tolist(), p[2], status=["refused: odd"] * 20), path)
    with pytest.raises(ZooError, match="score more rows"):
        run(request, tmp_path / "out")
