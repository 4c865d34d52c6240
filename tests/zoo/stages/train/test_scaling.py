"""A trained update scaled: exact in every stage that scales it, and chosen where nothing is judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.requests import PROMPT, SPEC, given, train_request
from zoo.contracts import EvaluateRequest, ExtraBattles, Held, Input, MergeRequest, MergeSpec, TrainSpec, changed
from zoo.data.battles import read_battles
from zoo.data.splits import MOST_APART, apart_share, assign_folds, group_hashes, kept_out, select_apart, select_training
from zoo.entries.load import load_entry, override
from zoo.errors import ZooError
from zoo.models.prompts import load_codec
from zoo.scores.tables import EVALUATED, probabilities, read_scores
from zoo.stages.compare import evaluate
from zoo.stages.train import adapters, scaling
from zoo.stages.train import stage as train
from zoo.stages.train.learner import Learner
from zoo.stages.train.rows import read_examples
from zoo.stages.weights import merge

pytestmark = pytest.mark.usefixtures("float32")
NEAR = "near-prompts-1"
ROWS = [[5, 6, 7, 30, 31, 90], [9, 3, 4, 8, 20, 11, 41, 77, 12]]


# --- merged ---------------------------------------------------------------------------------------------------------------


def merged_with(base: Path, trained: Path, out: Path, *more: Path, **spec: object) -> dict[str, torch.Tensor]:
    out.mkdir()
    adapters = {"adapter": given(trained), "more_adapters": tuple(map(given, more))}
    request = MergeRequest(entry="tiny", base=given(base), **adapters, spec=MergeSpec(**spec))  # type: ignore[arg-type]
    merge.run(request, out)
    return load_file(out / "model" / "model.safetensors")


@pytest.mark.parametrize("into", ["trained", "original"])
@pytest.mark.parametrize("scale", [0.5, 0.8, 1.5])
def test_merging_adds_so_much_of_the_update(base: Path, trained: Path, tmp_path: Path, into: str, scale: float) -> None:
    """Oracle: W + s * (alpha / rank) * B A from the adapter's own file, with W as training saw it or as it is."""
    ours = merged_with(base, trained, tmp_path / "scaled", into=into, scale=scale)
    tensors = load_file(trained / "adapter" / "adapter_model.safetensors")
    weights = load_file(base / "model" / "model.safetensors")
    assert len(tensors) == 2 * 14
    for name in (n for n in tensors if ".lora_A." in n):
        key = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
        before = merge.nf4_there_and_back(weights[key]) if into == "trained" else weights[key].float()
        update = SPEC.alpha / SPEC.rank * tensors[name.replace("lora_A", "lora_B")] @ tensors[name]
        expected = before + scale * update
        assert ((ours[key].float() - expected).abs() <= 2**-8 * expected.abs() + 1e-7).all(), key  # stored in bfloat16


def test_each_adapter_of_an_average_has_the_scale_that_it_chose(base: Path, trained: Path, tmp_path: Path) -> None:
    """The same adapter twice, with 0.5 and 1 chosen, is 0.75 of it."""
    for name, chosen in (("half", 0.5), ("whole", 1.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter").symlink_to(trained / "adapter")
        (tmp_path / name / "scales.json").write_text(json.dumps({"chosen": chosen}))
    both = merged_with(base, tmp_path / "half", tmp_path / "both", tmp_path / "whole", scale="chosen")
    expected = merged_with(base, tmp_path / "half", tmp_path / "fixed", scale=0.75)
    for key, weight in expected.items():
        assert torch.allclose(both[key].float(), weight.float(), rtol=2**-7, atol=1e-7), key


def test_a_scale_that_nobody_chose_is_refused(base: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"merge\.scale = 'chosen': .* has chosen none; set train\.scales and train again"):
        merged_with(base, trained, tmp_path / "out", scale="chosen")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["merge.scale=0"], "`merge.scale`: give a factor above 0 and up to 2, or 'chosen' with train.scales, got 0"),
        (["merge.scale=best"], "`merge.scale`: give a factor above 0 and up to 2, or 'chosen' with train.scales, got 'best'"),
        (["merge.scale=chosen"], "merge.scale = 'chosen' needs train.scales"),
        (["merge.scale=0.5", "train.method=full"], "merge.scale is of a low-rank update"),
        (["merge.scale=0.5", "train.dora=true"], "merge.scale is of a low-rank update"),
        (["train.scales=[0.5, 1]", "train.dora=true"], "train.scales scale a low-rank update"),
        (["train.scales=[0]"], "`train.scales.0`: Input should be greater than 0, got 0"),
    ],
)
def test_scales_that_mean_nothing_are_refused(settings: list[str], expected: str) -> None:
    with pytest.raises(ZooError) as error:
        override(load_entry("smollm2-135m"), settings)
    assert expected in str(error.value)


# --- chosen ---------------------------------------------------------------------------------------------------------------


def test_scaling_in_training_is_that_of_the_update_and_is_undone(base: Path, trained: Path) -> None:
    model = adapters.load_model(base / "model", SPEC)
    adapters.start_from(model, trained / "adapter")
    learner = Learner(model, load_codec(base / "model", PROMPT), SPEC)
    before = {name: p.detach().clone() for name, p in adapters.trained_parameters(model).items()}

    def logits(factor: float) -> np.ndarray:
        model.eval()
        with torch.no_grad(), scaling.scaled(learner, factor):
            return learner.logits(ROWS).numpy()

    whole, half = logits(1.0), logits(0.5)
    plain = Learner(adapters.load_model(base / "model", SPEC), learner.codec, SPEC)  # B is zero: the base alone
    plain.model.eval()
    with torch.no_grad():
        zero = plain.logits(ROWS).numpy()
    assert np.allclose(logits(1e-9), zero, atol=1e-5)
    assert np.abs(whole - zero).max() > 1e-3 and not np.allclose(half, whole, atol=1e-4)
    assert all(torch.equal(p, before[name]) for name, p in adapters.trained_parameters(model).items())
    assert np.array_equal(logits(1.0), whole)


def test_the_best_scale_is_written_and_merged_and_the_adapter_stays_whole(base: Path, sample_csv: Path, tmp_path: Path) -> None:
    """A training that overshoots: less of it is better. Oracle: the merged and the evaluated model, each by itself."""
    spec = changed(SPEC, method="lora", learning_rate=0.05, scales=(0.05, 0.5), eval_rows=20, max_rows=32)
    for name in ("plain", "out", "evaluated"):
        (tmp_path / name).mkdir()
    request = train_request(base, sample_csv, spec)
    result = train.run(request, tmp_path / "out")
    curve = dict(result.curves["scale/log_loss"])
    record = json.loads((tmp_path / "out" / "scales.json").read_text())
    assert set(curve) == {5, 50, 100} and record["chosen"] == result.metrics["scale/chosen"] < 1
    assert curve[round(100 * record["chosen"])] == min(curve.values()) < curve[100]
    assert result.metrics["scale/rows"] == record["rows"] > 0
    assert scaling.scale_of("chosen", tmp_path / "out") == record["chosen"] and scaling.scale_of(0.3, tmp_path) == 0.3

    rows = read_examples(request, load_codec(base / "model", PROMPT), read_battles(sample_csv))
    ask = EvaluateRequest(
        entry="tiny",
        base=given(base),
        trained=given(tmp_path / "out"),
        battles=given(sample_csv),
        held=Held(),
        prompt=PROMPT,
        scale="chosen",
    )
    evaluate.run(ask, tmp_path / "evaluated")
    table = read_scores(tmp_path / "evaluated" / EVALUATED).set_index("id")
    labels = np.array([row.label for row in rows.held])
    p = probabilities(table.loc[[row.id for row in rows.held]])
    loss = -np.log(p[np.arange(len(p)), labels]).mean()
    assert loss == pytest.approx(result.metrics["scale/held_out_log_loss"], abs=1e-4)
    again = evaluate.run(changed(ask, scale=1.0), tmp_path / "plain")
    assert again.metrics != {} and not np.allclose(
        probabilities(read_scores(tmp_path / "plain" / EVALUATED)), probabilities(table.reset_index())
    )
    merged_with(base, tmp_path / "out", tmp_path / "merged", scale="chosen")


def test_what_a_scale_is_chosen_by_is_neither_learned_from_nor_judged(base: Path, sample_csv: Path, tmp_path: Path) -> None:
    """Also not through extra files, whose rows hold every battle again."""
    lines = sample_csv.read_text().splitlines(keepends=True)
    more = tmp_path / "more.csv"
    more.write_text(
        "".join([lines[0], *(line.replace(line.split(",")[0], str(10**6 + i), 1) for i, line in enumerate(lines[1:]))])
    )
    (tmp_path / "main.csv").write_text("".join(lines[:161]))
    battles = read_battles(tmp_path / "main.csv")
    spec = TrainSpec(scales=(0.5,), eval_rows=40, rank=2)
    request = changed(
        train_request(base, tmp_path / "main.csv", spec),
        more_extra=(ExtraBattles(battles=Input(path=more, fingerprint="x")),),
        extra_rule=NEAR,
        held=Held(rule=NEAR),
    )
    rows = read_examples(request, load_codec(base / "model", PROMPT), battles)
    frame = read_battles(sample_csv).frame
    prompts = {row_id: tuple(turns) for row_id, turns in zip(frame["id"], frame["prompt"], strict=True)}
    prompts |= {str(10**6 + i): tuple(turns) for i, turns in enumerate(frame["prompt"])}
    learned, held, apart = ({prompts[row.id] for row in part} for part in (rows.train, rows.held, rows.apart))
    assert learned and held and apart
    assert not learned & held and not learned & apart and not held & apart
    assert any(int(row.id) >= 10**6 for row in rows.train)
    groups = dict(zip(battles.frame["id"], group_hashes(battles.frame, NEAR), strict=True))
    of_main = [{groups[row.id] for row in part if row.id in groups} for part in (rows.train, rows.held, rows.apart)]
    assert all(of_main) and not of_main[0] & of_main[2] and not of_main[0] & of_main[1]


def test_a_small_part_is_set_apart_by_prompt(sample_csv: Path) -> None:
    battles, held = read_battles(sample_csv), Held(n_folds=4, fold=2)
    share = apart_share(battles.frame, held, 10**6)
    assert share == MOST_APART and apart_share(battles.frame, held, 1) < 0.01
    hashes = group_hashes(battles.frame)
    assert ((kept_out(hashes, held)) == (assign_folds(battles.frame, 4) == 2)).all()
    plain, held_out = select_training(battles, held)
    train_rows, same = select_training(battles, held, apart=share)
    apart = select_apart(battles, held, share)
    assert sorted([*train_rows["id"], *apart["id"]]) == sorted(plain["id"]) and (same["id"] == held_out["id"]).all()
    generator = np.random.default_rng(0)
    many = generator.integers(0, 2**63, 20_000, dtype=np.uint64)
    assert 0.09 < (kept_out(many, held, 0.1) & ~kept_out(many, held)).sum() / (~kept_out(many, held)).sum() < 0.11
