"""The real chain on a tiny model: QLoRA, merge, AWQ, vLLM, build, predict. Minutes, nearly all of it loading engines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.exports import answers_of, card_code
from tests.helpers.tiny_models import TINY_ENTRY
from tests.helpers.waiting import wait_until
from zoo.bundle.export import export
from zoo.contracts import Entry, Held, ScoreRequest, Selection
from zoo.data.battles import read_battles
from zoo.data.splits import assign_folds
from zoo.entries.load import load_entry
from zoo.entries.toml import contract_toml
from zoo.errors import ZooError
from zoo.experiments.run import run_chain
from zoo.pipeline.chain import battles_input, chain
from zoo.pipeline.runner import start_stage
from zoo.report.run_report import find_run, report_of
from zoo.scores.tables import probabilities, read_card, read_scores
from zoo.store import REQUEST, read_manifest, write_atomic
from zoo.tracking.facts import curves_of
from zoo.tracking.recipe import stage_params

pytestmark = [pytest.mark.chain, pytest.mark.timeout(900)]

HELD = Held(rule="near-prompts-1")  # as `zoo run` has it


@pytest.fixture(scope="module")
def scored(tiny_llama: Path, sample_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list]:
    """The finished chain in a store of its own: (store, artifacts)."""
    store = tmp_path_factory.mktemp("chain") / "store"
    entry = Entry.model_validate(TINY_ENTRY)
    requests = chain(entry, battles_input(sample_csv), "cpu", store, held=HELD, selection=Selection(), source=str(tiny_llama))
    return store, run_chain(requests, entry, store, say=lambda _: None, track=False)


def score_request(scored: tuple[Path, list]) -> ScoreRequest:
    return ScoreRequest.model_validate(scored[1][-1].manifest.request)


def test_every_stage_leaves_a_whole_artifact(scored: tuple[Path, list]) -> None:
    store, artifacts = scored
    assert [a.manifest.stage for a in artifacts] == ["fetch", "train", "merge", "quantize", "score"]
    assert not any((store / ".partial").iterdir())
    for artifact in artifacts:
        assert artifact.manifest.measurements.peak_bytes > 0
        assert artifact.manifest.packages["torch"]


def test_both_orders_are_scored_in_the_battle_s_own_labels(scored: tuple[Path, list], sample_csv: Path) -> None:
    folder = scored[1][-1].path
    ab, ba = (read_scores(folder / slug / "scores.parquet") for slug in ("ab-160", "ba-160"))
    assert ab["id"].tolist() == ba["id"].tolist() and (ab["status"] == "ok").all() and (ab["fold"] == 0).all()
    frame = read_battles(sample_csv).frame
    assert set(ab["id"]) == set(frame["id"][assign_folds(frame, 5, HELD.rule) == 0])
    card = read_card(folder / "ab-160" / "scores.json")
    assert card.member == "tiny@ab-160" and card.cost.load_seconds > 0
    total = card.cost.seconds_per_row * len(ab) + card.cost.seconds_per_token * ab["n_tokens"].sum()
    assert total + card.cost.seconds_per_token_sq * (ab["n_tokens"] ** 2).sum() > 0


def test_exported_folders_are_asked_by_their_cards_alone(scored: tuple[Path, list], tmp_path: Path) -> None:
    """The code of each card runs as it stands, by peft, transformers and vLLM, in a process that cannot import this project."""
    store, artifacts = scored
    run = find_run(store, artifacts[-1].path.name)
    made = export(run, report_of(store, run, stage_params, curves_of).sections, tmp_path / "out", [], lambda _: None)
    assert [one.form for one in made] == ["adapter", "merged", "awq"]
    answers = {}
    # vLLM by itself has no kernel of 4 bits for processors without AVX-512: docs/quantization.md.
    alone = [["awq"]] if "avx512f" in Path("/proc/cpuinfo").read_text() else []
    for forms in (["adapter", "merged"], *alone):  # a process each: one loads transformers and peft, the other vLLM
        codes = []
        for form in forms:
            folder = tmp_path / "out" / form
            texts = "".join(path.read_text() for path in folder.iterdir() if path.suffix in (".md", ".json"))
            assert str(store.parent) not in texts, "no place of this machine"
            codes.append("\n".join(card_code(folder, base=artifacts[0].path / "model")[:2]))
        told = answers_of(codes, tmp_path)
        answers |= dict(zip(forms, told, strict=True))
    assert all(sum(answer.values()) == pytest.approx(1) for answer in answers.values())
    assert answers["adapter"] == pytest.approx(answers["merged"], abs=0.02), "merged into what training saw"
    assert not alone or answers["awq"] == pytest.approx(answers["merged"], abs=0.15)
    with pytest.raises(ZooError, match="there is something already"):
        export(run, [], tmp_path / "out", [], lambda _: None)
    with pytest.raises(ZooError, match="no form 'int8'; there are adapter, merged, awq"):
        export(run, [], tmp_path / "other", ["int8"], lambda _: None)


def test_vllm_agrees_with_dequantized_weights_in_float32(scored: tuple[Path, list], sample_csv: Path) -> None:
    """Oracle: the AWQ checkpoint's weights, dequantized by our own reading, in transformers at float32."""
    import torch
    from transformers import AutoModelForCausalLM

    from zoo.models.prompts import encode_battles, load_codec
    from zoo.scores.tables import label_probabilities
    from zoo.stages.quantize.awq_format import write_dequantized
    from zoo.stages.train.label_head import label_logits, pad

    request = score_request(scored)
    source = request.model.path / "model"
    plain = scored[0] / "plain"
    write_dequantized(source, plain)
    model = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32).eval()
    codec = load_codec(source, request.prompt)
    frame = read_battles(sample_csv).frame.set_index("id", drop=False)
    for order in ("ab", "ba"):
        table = read_scores(scored[1][-1].path / f"{order}-160" / "scores.parquet")
        rows = frame.loc[table["id"]]
        turns = list(zip(rows["prompt"], rows["response_a"], rows["response_b"], strict=True))
        encoded = encode_battles(turns, codec, request.prompt, order, 160)  # type: ignore[arg-type]
        with torch.no_grad():
            logits = torch.cat([label_logits(model, *pad([e.ids], "cpu"), codec.label_ids) for e in encoded]).numpy()
        expected = label_probabilities(logits, order)  # type: ignore[arg-type]
        assert np.abs(expected - probabilities(table)).max() < 0.02  # bfloat16 engine against float32


def test_a_killed_scoring_run_loses_and_repeats_no_row(scored: tuple[Path, list], tmp_path: Path) -> None:
    request, out = score_request(scored), tmp_path / "again"
    out.mkdir()
    write_atomic(out / REQUEST, request.model_dump_json())
    process = start_stage(request, out)
    wait_until(lambda: len(list(out.glob("*/chunks/*.parquet"))) >= 3, "three chunks", process)
    process.kill()
    process.wait()
    first = {p: p.stat().st_mtime_ns for p in out.glob("*/chunks/*.parquet")}
    assert len(first) >= 3 and not (out / "result.json").exists()
    assert start_stage(request, out).wait() == 0
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in first.items())  # none was scored twice
    for slug in ("ab-160", "ba-160"):
        again, whole = (read_scores(folder / slug / "scores.parquet") for folder in (out, scored[1][-1].path))
        pd.testing.assert_frame_equal(again, whole)  # none lost, and the same numbers to the last bit


def test_an_unchanged_pipeline_takes_all_from_the_store(scored: tuple[Path, list], tiny_llama: Path, sample_csv: Path) -> None:
    store, artifacts = scored
    entry = Entry.model_validate(TINY_ENTRY)
    requests = chain(entry, battles_input(sample_csv), "cpu", store, held=HELD, selection=Selection(), source=str(tiny_llama))
    notes: list[str] = []
    again = run_chain(requests, entry, store, say=notes.append, track=False)
    assert [a.path for a in again] == [a.path for a in artifacts]
    assert all("in the store" in note for note in notes)


def run_cli(*arguments: str, home: Path) -> str:
    """A command line as a user runs it; its stdout."""
    module, *rest = arguments
    environment = {**os.environ, "ZOO_HOME": str(home)}
    done = subprocess.run([sys.executable, "-m", module, *rest], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_build_and_predict_from_the_command_line(scored: tuple[Path, list], sample_csv: Path, tmp_path: Path) -> None:
    """A blend of the tiny model and the lexical entry, a plan for this machine, and a submission for every id."""
    from zoo.data.sample import write_sample
    from zoo.scores.tables import read_submission

    home = scored[0].parent
    write_sample(tmp_path / "test.csv", 40, 9)
    run_cli("zoo", "run", "lexical", "--data", str(sample_csv), home=home)
    plan = tmp_path / "plan.json"
    built = ["build", "--budget", "5m", "--target", "cpu", "--rows", "40", "--battles", str(sample_csv), "-o", str(plan)]
    run_cli("ensemble", *built, home=home)
    run_cli("ensemble", "predict", str(plan), str(tmp_path / "test.csv"), "-o", str(tmp_path / "sub.csv"), home=home)
    submission = read_submission(tmp_path / "sub.csv")
    assert submission["id"].tolist() == pd.read_csv(tmp_path / "test.csv", dtype=str)["id"].tolist()
    assert np.allclose(submission[["p_a", "p_b", "p_tie"]].sum(axis=1), 1)


def test_a_classifier_s_orders_are_predicted_as_their_tables_say(tiny_llama: Path, sample_csv: Path, tmp_path: Path) -> None:
    """Its held-out rows again, by a plan of each order, and the same battles with their answers exchanged."""
    from tests.helpers.battles_files import mirrored
    from zoo.scores.tables import swap_sides

    home, store = tmp_path / "home", tmp_path / "home" / "store"
    entry = Entry.model_validate({**TINY_ENTRY, "name": "head", "head": "classifier"})
    asked = {"held": HELD, "selection": Selection(), "source": str(tiny_llama)}
    requests = chain(entry, battles_input(sample_csv), "cpu", store, **asked)
    folder = run_chain(requests, entry, store, say=lambda _: None, track=False)[-1].path
    given = {order: read_scores(folder / f"{order}-160" / "scores.parquet").set_index("id") for order in ("ab", "ba")}
    frame = pd.read_csv(sample_csv, dtype=str)
    files = {"same": tmp_path / "same.csv", "mirrored": tmp_path / "mirrored.csv"}
    frame[frame["id"].isin(given["ab"].index)].to_csv(files["same"], index=False)
    mirrored(files["same"], files["mirrored"])
    found = {}
    for order, other in (("ab", "ba"), ("ba", "ab")):
        plan = tmp_path / f"{order}.json"
        built = ["build", "--budget", "1h", "--target", "cpu", "--rows", "40", "--battles", str(sample_csv), "-o", str(plan)]
        run_cli("ensemble", *built, "--exclude", f"head@{other}-160", home=home)
        for name, file in files.items():
            out = tmp_path / f"{name}-{order}"
            run_cli("ensemble", "predict", str(plan), str(file), "--scores-only", "-o", str(out), home=home)
            found[name, order] = read_scores(out / f"head@{order}-160.parquet").set_index("id").loc[given["ab"].index]
    p = {key: probabilities(table) for key, table in found.items()}
    for order, other in (("ab", "ba"), ("ba", "ab")):
        table = given[order].loc[given["ab"].index]
        assert np.abs(p["same", order] - probabilities(table)).max() < 0.01, "in 16 bits, beside other rows"
        assert np.abs(p["same", order] - swap_sides(p["mirrored", other])).max() < 0.01, "the same prompts, sides put back"
    assert np.abs(p["same", "ab"] - p["same", "ba"]).max() > 0.02, "the order is seen"


def test_caps_of_a_trained_model_are_compared_and_the_worthwhile_ones_written(
    scored: tuple[Path, list], tiny_llama: Path, sample_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from the command line: one engine scores what differs, and the same command again takes all from the store."""
    store, own = scored[0], tmp_path / "own"
    own.mkdir()
    (own / "tiny.toml").write_text(contract_toml(Entry.model_validate(TINY_ENTRY)))
    monkeypatch.setenv("ZOO_ENTRIES", str(own))
    asked = ["--caps", "70,300", "--keep", "both_ends", "--target", "cpu", "--source", str(tiny_llama), "--json", "--write"]
    report = json.loads(run_cli("zoo", "caps", "tiny", "--data", str(sample_csv), *asked, home=store.parent))
    caps, readings = Path(report["figure"]).parent, {one["variant"]["max_tokens"]: one for one in report["readings"][:3]}
    assert list(readings) == [70, 160, 300] and len(report["readings"]) == 6 and report["reference"] == "ab-160"
    assert readings[70]["cut"] > readings[160]["cut"] > readings[300]["cut"] and readings[160]["change"] == 0
    folder = store / f"score-{read_manifest(caps).request.inputs['scored'].fingerprint}"
    tables = {slug: read_scores(folder / slug / "scores.parquet").set_index("id") for slug in ("ab-70", "ab-160", "ab-300")}
    for shorter, longer in (("ab-70", "ab-160"), ("ab-160", "ab-300")):
        whole = tables[shorter].index[tables[shorter]["n_truncated_tokens"] == 0]
        pd.testing.assert_frame_equal(tables[shorter].loc[whole], tables[longer].loc[whole])  # scored once, to the last bit
    every = sum(read_scores(path)["n_tokens"].sum() for path in folder.glob("*/scores.parquet"))
    assert read_manifest(folder).measurements.tokens < every, "of all six, rows that are whole in two are scored once"
    assert "tiny@ab-300" not in run_cli("zoo", "leaderboard", home=store.parent), "a comparison's tables are no members"
    score = load_entry("tiny").score
    assert score is not None and {variant.slug for variant in score.variants} >= {"ab-160", "ba-160", *report["written"]}
    again = json.loads(run_cli("zoo", "caps", "tiny", "--data", str(sample_csv), *asked[:-1], home=store.parent))
    assert Path(again["figure"]).parent == caps and again["readings"] == report["readings"]
    assert (store.parent / ".logged" / caps.name).exists() or list((store.parent / ".logged").rglob(caps.name))


@pytest.fixture(scope="module")
def bundled(scored: tuple[Path, list], sample_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny model and the lexical entry."""
    from ensemble.plan import load_plan
    from tests.helpers.bundles import small_bundle

    store, folder = scored[0], tmp_path_factory.mktemp("bundled")
    run_cli("zoo", "run", "lexical", "--data", str(sample_csv), home=store.parent)
    plan = folder / "plan.json"
    built = ["build", "--budget", "1h", "--target", "cpu", "--rows", "40", "--battles", str(sample_csv), "-o", str(plan)]
    run_cli("ensemble", *built, "--include", "tiny@ab-160", "--include", "lexical@ab", home=store.parent)
    members = {member.name: member.checkpoint for member in load_plan(plan).members}
    quantized, lexical = (next(store.glob(f"*-{members[name]}")).name for name in ("tiny@ab-160", "lexical@ab"))
    tiny = [name for name in members if name.startswith("tiny@")]
    small_bundle(folder / "bundle", plan, store, in_job=[lexical], models={quantized: tiny}, budget_seconds=3600)
    return folder / "bundle"


def test_a_bundle_is_run_dry_with_an_engine(bundled: Path, sample_csv: Path) -> None:
    """The script of a bundle predicts with the tiny model, and without it where its part is not there or damaged."""
    from ensemble.bundle.dry_run import dry_run

    only = ("20 rows", "one missing", "one damaged")
    trials = {trial.name: trial for trial in dry_run(bundled, sample_csv, only=only)}
    assert [trial.line() for trial in trials.values() if not trial.whole] == []
    assert "20 rows lexical@ab + tiny@ab-160" in trials["20 rows"].came
    for name in only[1:]:
        assert "20 rows lexical@ab;" in trials[name].came and "left out (model-1" in trials[name].came


def test_a_bundle_s_file_that_is_too_long_is_cut(bundled: Path, sample_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two minutes for 25,000 rows are not enough: the file is whole, with what was scored in time."""
    from ensemble.bundle.dry_run import dry_run

    monkeypatch.setattr("ensemble.bundle.dry_run.CUT_SECONDS", 120.0)
    (trial,) = dry_run(bundled, sample_csv, only=["25,000 rows"])
    assert trial.whole and "ALL the plan's prior" not in trial.came, trial.line()
    assert " rows lexical@ab + tiny@" in trial.came and " rows lexical@ab," in trial.came, "the model had time for some rows"
