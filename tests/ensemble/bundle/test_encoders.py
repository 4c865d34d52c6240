"""Encoders in a bundle: wheels without vLLM where nothing else needs it, checks on the target, and the script's own run."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pytest

from ensemble.bundle import dry_run as dry
from ensemble.bundle.check import check_bundle
from ensemble.bundle.make import Asked, make_bundle
from ensemble.plan import PlanMember, load_plan
from tests.ensemble.bundle.conftest import ANY, ENGINE, LEXICAL, MODEL
from tests.ensemble.predict.test_predict_lexical import trained  # noqa: F401
from tests.helpers.manifests import finished, partial_folder
from tests.helpers.model_folders import model
from tests.helpers.plans import plan_member, plan_of, plan_pool, written
from tests.helpers.tiny_encoders import TEMPLATES, write_encoder, write_encoder_tokenizer
from tests.helpers.tiny_models import TEMPLATE, write_tiny_llama
from zoo.bundle.check import read_bundle
from zoo.bundle.contracts import Bundle
from zoo.checks.finding import Finding
from zoo.contracts import (
    Held,
    Input,
    MergeRequest,
    MergeSpec,
    PromptSpec,
    QuantizeRequest,
    QuantizeSpec,
    ScoreRequest,
    ScoreSpec,
    Variant,
    changed,
)
from zoo.data.sample import write_sample
from zoo.entries.load import load_entry

BASE, LARGE = "deberta-v3-base", "deberta-v3-large"


def encoder(store: Path, name: str = BASE, *, tokenizer: bool = True, **spec: object) -> PlanMember:
    """A member whose checkpoint has a declared encoder's shape: a config, a tokenizer, and headers without weights."""
    entry = load_entry(name)
    assert entry.base and entry.shape and entry.prompt and entry.score
    merge = MergeRequest(entry=name, base=ANY, adapter=ANY, spec=MergeSpec())
    folder = partial_folder(store, merge) / "model"
    write_encoder_tokenizer(folder, "DebertaV2")
    if not tokenizer:
        (folder / "tokenizer.json").unlink()
    config = {"model_type": "deberta-v2", "architectures": [entry.base.architecture], **entry.shape.model_dump(mode="json")}
    (folder / "config.json").write_text(json.dumps(config))
    header = json.dumps({"w": {"dtype": "F32", "shape": [entry.base.parameters], "data_offsets": [0, 0]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    variant = entry.score.variants[0]
    return scored(
        f"{name}@{variant.slug}",
        finished(store, merge).fingerprint,
        entry.prompt,
        changed(entry.score, variants=(variant,), **spec),
    )


def scored(name: str, checkpoint: str, prompt: PromptSpec, spec: ScoreSpec) -> PlanMember:
    """A member that an engine scores."""
    request = ScoreRequest(
        entry=name.partition("@")[0],
        model=Input(fingerprint=checkpoint),
        battles=ANY,
        held=Held(),
        prompt=prompt,
        spec=spec,
        target="cpu",
    )
    return plan_member(name, variant=spec.variants[0], checkpoint=checkpoint, request=request)


def plan_with(path: Path, members: Sequence[PlanMember]) -> Path:
    """A plan for two T4s that has a pool of whatever is left of these members."""
    names = [member.name for member in members]
    subsets = [some for size in range(1, len(names) + 1) for some in combinations(names, size)]
    pools = [plan_pool(some, 1 - len(some) / 10) for some in subsets]
    return written(plan_of(members, pools, target={"name": "t4x2", "gpus": 2}, budget_seconds=32400), path)


def made_of(asked: Asked, folder: Path, members: Sequence[PlanMember]) -> tuple[Bundle, dict[str, Finding]]:
    """The bundle of a plan of these members, and what is found about it by check."""
    path = plan_with(folder / "plan-of-it.json", members)
    bundle = make_bundle(changed_plan(asked, path), folder / "bundle", print)
    assert read_bundle(folder / "bundle") == bundle
    return bundle, {finding.check: finding for finding in check_bundle(folder / "bundle")}


def changed_plan(asked: Asked, path: Path) -> Asked:
    return Asked(path, asked.competition, asked.user, asked.store)


def wheels_of(bundle: Bundle) -> dict[str, str]:
    """Version by name of the wheels."""
    files = [file.path.split("-") for file in bundle.part("wheels").files if file.path.endswith(".whl")]
    return {name: version for name, version, *_ in files}


def failing(findings: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.what for name, finding in findings.items() if finding.verdict == "fail"}


def test_encoders_and_lexical_members_bring_torch_and_no_vllm(asked: Asked, store: Path, tmp_path: Path) -> None:
    lexical = load_plan(asked.plan).member(LEXICAL)
    bundle, findings = made_of(asked, tmp_path, [lexical, encoder(store)])
    wheels = wheels_of(bundle)
    assert {"torch", "transformers", "tokenizers", "safetensors", "scikit_learn"} <= wheels.keys() and "vllm" not in wheels
    assert bundle.image.driver == 580, "torch's wheels are of CUDA 13, too"
    assert "torch" not in {name.partition("-")[0] for name in bundle.light}
    part = bundle.part("model-1")
    assert part.members == (f"{BASE}@ab-512",) and part.artifact is not None and part.artifact.startswith("merge-")
    assert {file.licence for file in part.files} == {"MIT"}
    assert failing(findings) == {} and "attention" not in findings
    told = findings[f"{BASE}@ab-512"]
    assert told.verdict == "ok" and f"transformers {wheels['transformers']}" in told.what
    assert "float16 on GPUs" in told.what and "of 14.6 GiB a device" in told.what


def test_a_mixed_plan_has_both_engines_with_one_torch(asked: Asked, store: Path, tmp_path: Path) -> None:
    plan, member = load_plan(asked.plan), encoder(store)
    alone, _ = made_of(asked, tmp_path, [plan.member(LEXICAL), member])
    mixed, findings = made_of(asked, tmp_path, [*plan.members, member])
    assert wheels_of(alone).items() <= wheels_of(mixed).items(), "what encoders are scored with is one set of versions"
    assert wheels_of(mixed)["vllm"] == ENGINE and [part.name for part in mixed.parts] == ["wheels", "model-1", "model-2"]
    assert failing(findings) == {} and findings["attention"].verdict == "warn"
    assert findings[MODEL].verdict == "ok" and f"vLLM {ENGINE}" in findings[MODEL].what
    assert findings[f"{BASE}@ab-512"].what.startswith("model-2; transformers ")


@pytest.mark.parametrize(
    ("name", "spec", "usable", "said"),
    [
        (LARGE, {}, None, ""),
        (BASE, {}, 10**9, "memory, replicas: "),
        (BASE, {"dtype": "bfloat16"}, None, "dtype: t4x2 has no bfloat16"),
    ],
    ids=["large fits", "too small a card", "no such numbers"],
)
def test_an_encoder_is_held_against_the_card(
    asked: Asked, store: Path, tmp_path: Path, name: str, spec: dict[str, object], usable: int | None, said: str
) -> None:
    member = encoder(store, name, **spec)
    made_of(asked, tmp_path, [member])
    path = tmp_path / "bundle" / "job" / "bundle.json"
    if usable is not None:
        told = json.loads(path.read_text())
        path.write_text(json.dumps({**told, "target": {**told["target"], "usable_bytes": usable}}))
    (finding,) = [finding for finding in check_bundle(tmp_path / "bundle") if finding.check == member.name]
    assert (finding.verdict == "fail") == bool(said) and said in finding.what
    assert bool(finding.mend) == bool(said)


def test_a_checkpoint_without_its_tokenizer_is_found_before_it_is_uploaded(asked: Asked, store: Path, tmp_path: Path) -> None:
    member = encoder(store, tokenizer=False)
    _, findings = made_of(asked, tmp_path, [member])
    assert "template: " in failing(findings)[member.name] and "tokenizer" in failing(findings)[member.name]


def test_a_decoder_s_classifier_is_bundled_and_says_with_what_version_it_was_tried(
    asked: Asked, store: Path, tmp_path: Path
) -> None:
    quantize = QuantizeRequest(
        entry="smollm2-135m",
        model=ANY,
        battles=ANY,
        held=Held(),
        prompt=PromptSpec(template=TEMPLATE, max_tokens=160),
        spec=QuantizeSpec(group_size=64),
    )
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2}
    model(partial_folder(store, quantize) / "model", architectures=["LlamaForSequenceClassification"], **sizes)
    member = scored(
        "smollm2-135m@ab-160",
        finished(store, quantize).fingerprint,
        quantize.prompt,
        ScoreSpec(variants=(Variant(max_tokens=160),), dtype="float16"),
    )
    _, findings = made_of(asked, tmp_path, [member])
    assert failing(findings) == {} and "vllm" in wheels_of(read_bundle(tmp_path / "bundle"))
    assert findings[member.name].verdict == "warn" and "classifiers were tried with 0.32 only" in findings[member.name].what
    path = tmp_path / "bundle" / "job" / "bundle.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "target": {**told["target"], "engine": "0.32.0"}}))
    (finding,) = [finding for finding in check_bundle(tmp_path / "bundle") if finding.check == member.name]
    assert "classifiers were tried" not in finding.what


# --- the script's own run -----------------------------------------------------------------------------------------------


def tiny_encoder(store: Path) -> PlanMember:
    """A member of a tiny real encoder."""
    merge = MergeRequest(entry="tiny-encoder", base=ANY, adapter=ANY, spec=MergeSpec())
    folder = partial_folder(store, merge) / "model"
    write_encoder(folder, "DebertaV2", head="ForSequenceClassification", labels=3)
    variants = (Variant(max_tokens=96),)
    spec = ScoreSpec(engine="transformers", variants=variants, chunk_rows=8, max_seqs=4, max_batched_tokens=320)
    prompt = PromptSpec(template=TEMPLATES["DebertaV2"], max_tokens=96)
    return scored("tiny-encoder@ab-96", finished(store, merge).fingerprint, prompt, spec)


def tiny_classifier(store: Path) -> PlanMember:
    """A member of a tiny real decoder with a classifier, which vLLM serves by its pooling runner."""
    import torch
    from transformers import AutoModelForSequenceClassification

    prompt = PromptSpec(template=TEMPLATE, max_tokens=160)
    quantize = QuantizeRequest(
        entry="tiny", model=ANY, battles=ANY, held=Held(), prompt=prompt, spec=QuantizeSpec(group_size=32)
    )
    folder = write_tiny_llama(partial_folder(store, quantize) / "model")
    torch.manual_seed(0)
    made = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, dtype=torch.bfloat16)
    with torch.no_grad():
        made.score.weight.normal_(std=0.3)
    made.save_pretrained(folder)
    spec = ScoreSpec(variants=(Variant(max_tokens=160),), chunk_rows=8, max_seqs=4, max_batched_tokens=512)
    return scored("tiny@ab-160", finished(store, quantize).fingerprint, prompt, spec)


@pytest.mark.chain
@pytest.mark.timeout(900)
def test_the_script_s_submission_is_that_of_predict_here(
    asked: Asked,
    store: Path,
    tmp_path: Path,
    trained: tuple[Path, Path],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A lexical member, an encoder by transformers and a classifier by vLLM, from the bundle's own files without a network."""
    for folder in trained[0].glob("lexical-train-*"):
        shutil.copytree(folder, store / folder.name)
    members = [*load_plan(trained[1]).members, tiny_encoder(store), tiny_classifier(store)]
    bundle, _ = made_of(asked, tmp_path, members)
    write_sample(tmp_path / "battles.csv", 30, 5)
    outcome = dry._outcome

    def kept(scene: dry.Scene, test: Path, code: int, tried: int) -> tuple[str, bool]:
        shutil.copy(scene.work / "kept" / "submission.csv", tmp_path / "of-the-script.csv")
        shutil.copy(test, tmp_path / "test.csv")
        return outcome(scene, test, code, tried)

    monkeypatch.setattr(dry, "_outcome", kept)
    (trial,) = dry.dry_run(tmp_path / "bundle", tmp_path / "battles.csv", only=["20 rows"])
    names = " + ".join(member.name for member in members)
    assert trial.whole and f"20 rows {names}" in trial.came and "left out" not in trial.came, trial.line()
    monkeypatch.delenv("OMP_NUM_THREADS")  # of the tests; a notebook's cell has none, and sums depend on it
    command = [sys.executable, "-m", "ensemble", "predict", str(tmp_path / "plan-of-it.json"), str(tmp_path / "test.csv")]
    command += ["-o", str(tmp_path / "here.csv"), "--store", str(store)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "of-the-script.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()
    assert bundle.part("model-1").members == ("tiny-encoder@ab-96",)
