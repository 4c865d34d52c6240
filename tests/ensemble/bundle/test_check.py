"""`ensemble bundle check`: each thing that costs a day on the host is found before, by its name, with a mend."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensemble.bundle import check as plan_checks
from ensemble.bundle.check import check_bundle, check_competition, machine_of, quantized_by
from ensemble.bundle.make import Asked, make_bundle
from ensemble.cli import main
from tests.ensemble.bundle.conftest import MODEL
from tests.helpers.command_lines import run_command
from tests.helpers.manifests import finished
from tests.helpers.requests import quantize_request
from tests.helpers.wheels import library, write_wheel
from zoo.bundle.check import read_bundle
from zoo.contracts import AdoptRequest, Entry, Input
from zoo.entries.load import load_entry
from zoo.errors import ZooError
from zoo.models.shapes import weight_bits
from zoo.scores.metric_names import FINER_SHARE

pytestmark = pytest.mark.usefixtures("script")


@pytest.fixture
def script(request: pytest.FixtureRequest) -> None:
    """A bundle whose script is there."""
    assert (request.getfixturevalue("made") / "job" / "script" / "__main__.py").exists()


def failures(folder: Path) -> dict[str, str]:
    """What fails of a bundle: the text by the check's name; each has a mend."""
    found = [finding for finding in check_bundle(folder) if finding.verdict == "fail"]
    assert all(finding.mend for finding in found)
    return {finding.check: finding.what for finding in found}


def test_a_bundle_as_it_was_made(made: Path) -> None:
    findings = {finding.check: finding for finding in check_bundle(made)}
    assert {name for name, finding in findings.items() if finding.verdict == "fail"} == set()
    assert "14.6 GiB a device" in findings[MODEL].what and "vLLM 0.21.0" in findings[MODEL].what
    assert "sm_75 in 1 libraries" in findings["GPU code"].what and "_flashmla_C.abi3.so" in findings["GPU code"].what
    assert "internet off" in findings["notebook's metadata"].what and "minutes to install" in findings["budget"].what
    assert findings["attention"].verdict == "warn" and "--flashinfer" in findings["attention"].mend
    assert findings["licences"].verdict == "info" and "MIT" in findings["licences"].what


def edited(path: Path, **changes: Any) -> None:
    found = {key: value for key, value in {**json.loads(path.read_text()), **changes}.items() if value is not None}
    path.write_text(json.dumps(found))


def without(path: Path) -> None:
    path.unlink()


def rewritten(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.unlink()  # a link to the store's file: what is damaged here is this bundle
    path.write_text(text.replace(before, after))


DAMAGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a wheel is gone": (lambda b: without(next((b / "wheels").glob("scipy-*"))), "lock", "scipy"),
    "a wheel for another Python": (
        lambda b: write_wheel(b / "wheels", "more", tag="cp313-cp313-manylinux_2_28_x86_64"),
        "tags",
        "not for Python 3.12",
    ),
    "a wheel that nobody locked": (lambda b: write_wheel(b / "wheels", "more"), "lock", "more is there and not locked"),
    "a lock with another hash": (
        lambda b: (
            rewritten(b / "wheels" / "requirements.lock", "numpy==2.1 --hash=sha256:", "numpy==2.1 --hash=sha256:00")
            or rewritten(b / "wheels" / "requirements.lock", "scipy", "scipy")
        ),
        "lock",
        "is not NAME==VERSION",
    ),
    "no code for the card": (
        lambda b: write_wheel(
            b / "wheels",
            "vllm",
            "0.21.0",
            tag="cp38-abi3-manylinux_2_24_x86_64",
            files={"vllm/_C.abi3.so": library(80, 90)},
            requires=["torch==2.11.0"],
        ),
        "GPU code",
        "vllm/_C.abi3.so has none for sm_75",
    ),
    "the internet is on": (
        lambda b: edited(b / "notebook" / "kernel-metadata.json", enable_internet=True),
        "notebook's metadata",
        "enable_internet",
    ),
    "the key of the internet is gone": (
        lambda b: edited(b / "notebook" / "kernel-metadata.json", enable_internet=None),
        "notebook's metadata",
        "takes for true",
    ),
    "a source that is not here": (
        lambda b: edited(b / "notebook" / "kernel-metadata.json", dataset_sources=["me/else"]),
        "notebook's metadata",
        "me/else, which no folder here makes",
    ),
    "a name that nothing defines": (
        lambda b: rewritten(b / "notebook" / "notebook.ipynb", 'run(\\"predict\\")', "run(predict)"),
        "notebook",
        "`predict` is not defined",
    ),
    "a cell lost a key": (
        lambda b: rewritten(b / "notebook" / "notebook.ipynb", '"outputs"', '"output"'),
        "notebook",
        "lacks `outputs`",
    ),
    "a script with a wrong name": (
        lambda b: (b / "job" / "script" / "__main__.py").write_text("sy.exit()"),
        "script",
        "`sy` is not defined",
    ),
    "a title too short": (lambda b: edited(b / "model-1" / "dataset-metadata.json", title="m"), "data sets", "6 to 50"),
    "two licences": (
        lambda b: edited(b / "wheels" / "dataset-metadata.json", licenses=[{"name": "other"}] * 2),
        "data sets",
        "exactly one",
    ),
    "another part's marker": (lambda b: edited(b / "model-1" / "part.json", digest="0" * 64), "data sets", "another part"),
    "weights were changed": (
        lambda b: rewritten(b / "model-1" / "model" / "config.json", "hidden_size", "hidden_siZe"),
        "files",
        "model-1/model/config.json was changed",
    ),
    "a file that nobody recorded": (lambda b: (b / "job" / "notes.txt").write_text("x"), "files", "notes.txt is not recorded"),
    "another plan": (
        lambda b: rewritten(b / "job" / "plan.json", '"margin_reason": "test"', '"margin_reason": "x"'),
        "plan",
        "not the",
    ),
    "the checkpoint's config is no config": (
        lambda b: rewritten(b / "model-1" / "model" / "config.json", '"architectures"', '"architecture"'),
        MODEL,
        "architectures",
    ),
    "a file the host renames": (lambda b: (b / "job" / "a b.txt").write_text("x"), "sizes", "a b.txt"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_is_found(made: Path, damage: str) -> None:
    change, check, said = DAMAGES[damage]
    change(made)
    found = failures(made)
    assert said in found[check], found


def test_what_the_target_cannot_serve(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is what the bundle states: bytes of its cards, its engine."""
    bundle = read_bundle(made)
    assert machine_of(bundle).usable_bytes == 15636037632
    path = made / "job" / "bundle.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "target": {**said["target"], "usable_bytes": 10**8}}))
    assert "memory, replicas" in failures(made)[MODEL]
    path.write_text(json.dumps({**said, "target": {**said["target"], "engine": "0.19.1"}}))
    assert "logprob_token_ids" in failures(made)[MODEL]


def test_a_form_takes_what_its_own_checkpoint_keeps_in_16_bits(tmp_path: Path) -> None:
    """Not all that its entry would have let stay so."""
    bits = {}
    for scheme, kept in (("int8", 0.0), ("int8", 0.25), ("w4a8", 0.0)):
        request = quantize_request(tmp_path, tmp_path, scheme=scheme, seed=int(4 * kept))
        made = finished(tmp_path, request, metrics={FINER_SHARE: kept})
        bits[scheme, kept] = weight_bits(quantized_by(made.path))
    assert bits == {("int8", 0.0): 8, ("int8", 0.25): 10, ("w4a8", 0.0): 4.5}


def test_a_checkpoint_that_was_quantized_elsewhere_is_what_its_entry_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = (Input(fingerprint="0" * 16),)
    adopted = finished(tmp_path, AdoptRequest(entry="theirs", kind="checkpoint", folders=folders, learned_none=True))
    told = load_entry("smollm2-135m").model_dump(mode="json", exclude_none=True, exclude={"train"})
    told |= {"name": "theirs", "elsewhere": {"kind": "checkpoint", "folders": ["0" * 16], "quantized": True}}
    told["quantize"]["scheme"] = "int8"
    monkeypatch.setattr(plan_checks, "load_entry", lambda name: Entry.model_validate(told) if name == "theirs" else None)
    assert quantized_by(adopted.path).scheme == "int8"


def test_compiled_modules_are_told(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "modules" / "prefill").mkdir(parents=True)
    (tmp_path / "modules" / "prefill" / "prefill.so").write_bytes(b"so")
    make_bundle(dataclasses.replace(asked, modules=tmp_path / "modules"), tmp_path / "with", print)
    (finding,) = [finding for finding in check_bundle(tmp_path / "with") if finding.check == "attention"]
    assert finding.verdict == "ok" and "1 modules" in finding.what


def test_a_budget_that_installing_eats(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_checks, "INSTALL_BYTES_PER_SECOND", 10.0)
    (finding,) = [finding for finding in check_bundle(made) if finding.check == "budget"]
    assert finding.verdict == "warn" and "too many" in finding.what and "--budget" in finding.mend


def test_competitions_that_ask_row_by_row() -> None:
    assert check_competition("konwinski-prize").verdict == "fail"
    assert check_competition("llm-classification-finetuning").verdict == "ok"


@pytest.mark.parametrize("content", [None, "{", "{}", '{"schema_version": 1}'])
def test_what_is_no_bundle(made: Path, content: str | None) -> None:
    path = made / "job" / "bundle.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ZooError, match=r"is no bundle|bundle\.json: "):
        check_bundle(made)


def test_the_commands(plan: Path, store: Path, tmp_path: Path) -> None:
    """`ensemble bundle PLAN` is `ensemble bundle make PLAN`; the exit code of a bundle with a fault is 1."""
    options = ("--competition", "lmsys-chatbot-arena", "--user", "me", "-o", "out")
    for words in (("bundle", str(plan)), ("bundle", "make", str(plan))):
        done = run_command(main, "ensemble", *words, *options, home=store.parent, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "kaggle datasets create -p out/wheels" in done.stdout and "kaggle competitions submit" in done.stdout
    done = run_command(
        main, "ensemble", "bundle", *options[:4], str(plan), "-o", "more", "--json", home=store.parent, folder=tmp_path
    )
    assert {"findings", "commands"} == json.loads(done.stdout).keys()
    done = run_command(main, "ensemble", "bundle", "check", "out", home=store.parent, folder=tmp_path)
    assert done.returncode == 0 and "kaggle" not in done.stdout
    (tmp_path / "out" / "notebook" / "notebook.ipynb").write_text("{}")
    done = run_command(main, "ensemble", "bundle", "check", "out", home=store.parent, folder=tmp_path)
    assert done.returncode == 1 and "no notebook of nbformat 4" in done.stdout
