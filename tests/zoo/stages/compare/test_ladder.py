"""The ladder: paired steps, the gate that names what broke, and every form of a real tiny model on the same rows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.tiny_models import TEMPLATE, write_tiny_llama
from zoo.contracts import (
    Base,
    Entry,
    FetchRequest,
    Held,
    Input,
    LadderRequest,
    LadderSpec,
    MergeRequest,
    MergeSpec,
    PromptSpec,
    QuantizeRequest,
    QuantizeSpec,
    Selection,
    TrainRequest,
    TrainSpec,
    Variant,
)
from zoo.data.battles import read_battles
from zoo.data.splits import select_rows
from zoo.entries.load import load_entry
from zoo.errors import ZooError
from zoo.pipeline.chain import battles_input, chain, ladder_request
from zoo.report.ladder import ladder_figure, ladder_page
from zoo.report.text import as_text
from zoo.scores.ladder import (
    ADAPTER,
    AWQ,
    BASE,
    ENGINE,
    MERGED,
    broken_step,
    check_gate,
    ladder_metrics,
    steps_from_metrics,
    steps_of,
)
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import score_table, write_scores


def tables(rows: int = 200, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    generator = np.random.default_rng(seed)
    p = {form: generator.dirichlet((2, 2, 2), rows) for form in (BASE, ADAPTER, MERGED, AWQ, ENGINE)}
    return p, generator.integers(0, 3, rows)


def test_steps_are_paired_differences_of_the_same_rows() -> None:
    p, y = tables()
    steps = steps_of(p, y)
    losses = {form: log_loss_rows(values, y) for form, values in p.items()}
    assert [step.form for step in steps] == list(p) and steps[0].change is None
    difference = losses[MERGED] - losses[ADAPTER]
    assert steps[2].change == pytest.approx(difference.mean())
    assert steps[2].change_se == pytest.approx(difference.std(ddof=1) / math.sqrt(len(y)))
    assert steps[2].largest == pytest.approx(np.abs(p[MERGED] - p[ADAPTER]).max())
    assert steps_from_metrics(ladder_metrics(steps)) == steps
    assert "AWQ in vLLM" in as_text(ladder_page(steps, Path("ladder.png")))
    (axes,) = ladder_figure(steps, len(y)).axes
    changes = [text for text in axes.texts if "±" in text.get_text()]
    assert len(changes) == 4 and all(text.get_bbox_patch() for text in changes), "the line does not run through a label"
    for ties, outcomes in ((True, 3), (False, 2)):
        (guessing,) = (t for t in ladder_figure(steps, len(y), ties=ties).axes[0].texts if t.get_text() == "guessing")
        assert guessing.xy[1] == pytest.approx(math.log(outcomes))


@given(st.floats(0, 0.5), st.integers(0, 20))
def test_the_gate_names_the_first_step_after_training_that_costs_more(most: float, seed: int) -> None:
    steps = steps_of(*tables(40, seed))
    broken = broken_step(steps, most)
    after = [step for step in steps if step.form in (MERGED, AWQ, ENGINE)]
    over = [step for step in after if (step.change or 0) > most]
    assert broken == (over[0] if over else None)


def test_a_broken_gate_says_which_step_and_what_to_do() -> None:
    p, y = tables()
    p[MERGED] = p[ADAPTER]
    p[AWQ] = np.full_like(p[AWQ], 1e-3) + np.eye(3)[(y + 1) % 3]
    p[AWQ] /= p[AWQ].sum(axis=1, keepdims=True)
    entry = load_entry("smollm2-135m").model_copy(update={"ladder": LadderSpec(max_ladder_loss=0.01)})
    with pytest.raises(ZooError, match=r"from 'merged' to 'AWQ, dequantized, .* rises by .* apply_clip") as error:
        check_gate(entry, steps_of(p, y))
    assert error.value.exit_code == 1
    check_gate(entry.model_copy(update={"ladder": LadderSpec()}), steps_of(p, y))


def test_a_gate_changes_no_artifact_and_a_lexical_entry_has_no_ladder(sample_csv: Path, tmp_path: Path) -> None:
    def requests_of(entry: Entry) -> list:
        return chain(entry, battles_input(sample_csv), "cpu", tmp_path, held=Held(), selection=Selection(), source="hub")

    entry = load_entry("smollm2-135m")
    gated = entry.model_copy(update={"ladder": LadderSpec(max_ladder_loss=0.01)})
    assert requests_of(entry) == requests_of(gated)
    request = ladder_request(gated, requests_of(gated), tmp_path)
    assert request.variant == Variant(order="ab", max_tokens=512) and request.trained.path.name.startswith("train-")
    with pytest.raises(ZooError, match="has no ladder"):
        ladder_request(load_entry("lexical"), requests_of(load_entry("lexical")), tmp_path)


@pytest.fixture
def climbed(tiny_llama: Path, sample_csv: Path, tmp_path: Path) -> tuple[LadderRequest, Path]:
    """A chain on a tiny model up to AWQ; what the engine said is put in by hand: it has tests of its own."""
    from zoo.stages.quantize import stage as quantize
    from zoo.stages.train import stage as train
    from zoo.stages.weights import fetch, merge

    prompt = PromptSpec(template=TEMPLATE, max_tokens=160)
    made = {name: Input(path=tmp_path / name, fingerprint=name) for name in ("base", "train", "merge", "awq", "score")}
    for source in made.values():
        source.path.mkdir()
    battles = Input(path=sample_csv, fingerprint="data")
    base = Base(hub_id="test/tiny", architecture="LlamaForCausalLM", parameters=300_000, licence="none")
    folder = Input(path=tiny_llama, fingerprint="x")
    fetch.run(FetchRequest(entry="tiny", base=base, source="folder", folder=folder), made["base"].path)
    spec = TrainSpec(rank=4, learning_rate=5e-3, eval_rows=20, max_rows=48, batch_rows=8, dropout=0.0)
    asked = {"entry": "tiny", "battles": battles, "held": Held(), "prompt": prompt}
    train.run(TrainRequest(base=made["base"], spec=spec, **asked), made["train"].path)
    merge.run(MergeRequest(entry="tiny", base=made["base"], adapter=made["train"], spec=MergeSpec()), made["merge"].path)
    quantization = QuantizeSpec(group_size=32, calibration_rows=4, calibration_tokens=64, apply_clip=False)
    quantize.run(QuantizeRequest(model=made["merge"], spec=quantization, **asked), made["awq"].path)
    frame = select_rows(read_battles(sample_csv), Selection(), Held())
    uniform = np.full((len(frame), 3), 1 / 3)
    variant = Variant(order="ba", max_tokens=120)
    (made["score"].path / variant.slug).mkdir()
    write_scores(score_table(frame["id"].tolist(), uniform, fold=0), made["score"].path / variant.slug / "scores.parquet")
    names = {"base": "base", "trained": "train", "merged": "merge", "quantized": "awq", "scored": "score"}
    inputs = {key: made[name] for key, name in names.items()}
    return LadderRequest(**inputs, variant=variant, method="qlora", max_rows=25, **asked), made["train"].path


def test_each_quantized_form_is_compared_with_the_merged_model_and_its_engine_with_it() -> None:
    """Whatever stands between them; a ladder of one form has the steps that it always had."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 50)
    forms = ("base", "adapter", "merged", "awq", "engine", "int8", "int8_engine")
    p = {form: generator.dirichlet([2, 2, 2], 50) for form in forms}
    steps = {step.form: step for step in steps_of(p, y)}
    before = {"adapter": "base", "merged": "adapter", "awq": "merged", "engine": "awq", "int8": "merged", "int8_engine": "int8"}
    for form, source in before.items():
        assert steps[form].change == pytest.approx(steps[form].loss - steps[source].loss)
        assert steps[form].largest == pytest.approx(np.abs(p[form] - p[source]).max())
    alone = steps_of({form: p[form] for form in forms[:5]}, y)
    assert alone == list(steps.values())[:5]


def test_weights_are_counted_and_not_their_bytes(tmp_path: Path, monkeypatch) -> None:
    """A card of which float32 weights take just less or more than the share that they may, stored in 16 bits and in 32."""
    import torch
    from transformers import AutoModelForCausalLM

    from zoo.stages.compare import in_transformers

    narrow = write_tiny_llama(tmp_path / "narrow")
    model = AutoModelForCausalLM.from_pretrained(narrow, dtype=torch.float32)
    model.save_pretrained(tmp_path / "wide")
    size = 4 * sum(parameter.numel() for parameter in model.parameters()) / in_transformers.WIDE_SHARE
    monkeypatch.setattr(in_transformers, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(in_transformers, "compute_dtype", lambda: torch.bfloat16)
    for free, dtype in ((1.01 * size, torch.float32), (0.99 * size, torch.bfloat16)):
        monkeypatch.setattr(in_transformers, "free_bytes", lambda _, free=free: free)
        assert [in_transformers.dtype_for(folder) for folder in (narrow, tmp_path / "wide")] == [dtype, dtype]


def test_every_form_of_a_model_on_the_same_rows(climbed: tuple[LadderRequest, Path], tmp_path: Path, monkeypatch) -> None:
    """The dtype is decided once, whatever is free later, and what a killed run left is not in the artifact."""
    import torch

    from zoo.stages.compare import ladder

    asked, dtypes = iter([torch.float32]), []
    monkeypatch.setattr(ladder, "dtype_for", lambda _: next(asked))
    plain = ladder.plain_model
    monkeypatch.setattr(ladder, "plain_model", lambda folder, dtype: (dtypes.append(dtype), plain(folder, dtype))[1])
    (tmp_path / "out" / "scratch" / "plain").mkdir(parents=True)
    (tmp_path / "out" / "scratch" / "plain" / "left.safetensors").touch()
    (tmp_path / "out" / f"{BASE}-bfloat16.npy").touch()
    result = ladder.run(climbed[0], tmp_path / "out")
    assert dtypes == [torch.float32] * 3
    steps = {step.form: step for step in steps_from_metrics(result.metrics)}
    assert list(steps) == [BASE, ADAPTER, MERGED, AWQ, ENGINE]
    assert steps[ENGINE].loss == pytest.approx(math.log(3)) and result.metrics["ladder/rows"] == 25
    # Merging rounds to bfloat16 and no more; 4 bits move probabilities further than that.
    assert (steps[MERGED].largest or 1) < 0.01 < (steps[ADAPTER].largest or 0)
    assert (steps[MERGED].largest or 1) < (steps[AWQ].largest or 0)
    table = pd.read_parquet(tmp_path / "out" / "ladder.parquet")
    assert len(table) == 25 and np.allclose(table[[f"{MERGED}_{n}" for n in ("p_a", "p_b", "p_tie")]].sum(axis=1), 1)
    assert (tmp_path / "out" / "ladder.png").stat().st_size > 5000
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ladder.parquet", "ladder.png"]


def test_one_row_has_no_standard_error_and_its_ladder_is_kept() -> None:
    one = np.array([[0.5, 0.3, 0.2]])
    steps = steps_of({MERGED: one, AWQ: one}, np.array([0]))
    metrics = ladder_metrics(steps)
    assert all(map(math.isfinite, metrics.values())) and "ladder/awq/log_loss_se" not in metrics
    assert [step.form for step in steps_from_metrics(metrics)] == [MERGED, AWQ]
