"""`zoo check`: what holds for an entry on a target, and mends that mend."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from zoo.checks import Finding, check_entry, entry_shape
from zoo.checks.layouts import layout_memory
from zoo.checks.rules import BEST_ON_TURING, attention_backend, parse_version
from zoo.contracts import Entry
from zoo.entries.load import entry_names, load_entry, override
from zoo.errors import ZooError
from zoo.models.shapes import flops_of_shape
from zoo.targets import Target, list_targets, load_target

REAL = ("llama-3-8b", "gemma-2-9b", "yi-34b")
SERVED = "0.32.0"


def findings(entry: Entry, target: str | Target, **options: Any) -> dict[str, Finding]:
    machine = load_target(target) if isinstance(target, str) else target
    return {finding.check: finding for finding in check_entry(entry, machine, **{"engine": SERVED, **options})}


def failed(entry: Entry, target: str | Target, **options: Any) -> set[str]:
    return {name for name, finding in findings(entry, target, **options).items() if finding.verdict == "fail"}


def mended(entry: Entry, finding: Finding) -> Entry:
    """The entry after the settings that a mend names."""
    changes = re.findall(r'([a-z_0-9]+(?:\.[a-z_0-9]+)+ = (?:"\w+"|\w+))', finding.mend)
    assert changes, finding.mend
    return override(entry, [change.replace(" = ", "=") for change in changes])


@pytest.mark.parametrize("entry", map(load_entry, entry_names()), ids=lambda e: e.name)
@pytest.mark.parametrize("target", list_targets(), ids=lambda t: t.name)
def test_every_entry_can_be_checked_on_every_target(entry: Entry, target: Target) -> None:
    for engine in (None, "0.19.1", "0.21.0", "0.23.0", "0.33.0"):
        for finding in check_entry(entry, target, train=True, engine=engine):
            assert finding.what and (finding.verdict in ("ok", "info") or finding.mend)


@pytest.mark.parametrize("name", REAL)
def test_two_t4s_serve(name: str) -> None:
    assert not failed(load_entry(name), "t4x2")


# --- memory -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "fitting"), [("llama-3-8b", 3), ("gemma-2-9b", 3), ("yi-34b", 2)])
def test_each_layout_is_shown_and_one_is_taken(name: str, fitting: int) -> None:
    entry = load_entry(name)
    layouts = {n: f for n, f in findings(entry, "t4x2").items() if n.startswith("memory, ")}
    assert set(layouts) == {"memory, replicas", "memory, pipeline", "memory, tensor"}
    assert [n for n, f in layouts.items() if "(taken)" in f.what] == [f"memory, {entry.serve['t4x2'].layout}"]
    assert sum("would not fit" not in f.what for f in layouts.values()) == fitting
    assert all((f.verdict == "info") == ("would not fit" in f.what) for f in layouts.values()), "no `ok` on what does not fit"
    assert set(findings(entry, "t4")) & set(layouts) == {"memory, replicas"}


@pytest.mark.parametrize(
    ("name", "setting", "check"),
    [
        ("yi-34b", "serve.t4x2.layout=replicas", "memory, replicas"),
        ("llama-3-8b", "score.max_batched_tokens=131072", "memory, replicas"),
        ("gemma-2-9b", "serve.t4x2.dtype=bfloat16", "dtype"),
        ("llama-3-8b", "serve.t4x2.dtype=float32", "dtype"),
        ("llama-3-8b", "quantize.group_size=96", "group size"),
    ],
)
def test_a_mend_that_names_a_setting_mends(name: str, setting: str, check: str) -> None:
    entry = override(load_entry(name), [setting])
    finding = findings(entry, "t4x2")[check]
    assert finding.verdict == "fail"
    if finding.mend.startswith("lower "):
        assert not failed(override(entry, ["score.max_batched_tokens=8192"]), "t4x2")
        return
    assert check not in failed(mended(entry, finding), "t4x2")


@pytest.mark.parametrize("dtype", ["auto", "float16", "bfloat16", "float32"])
def test_gemma_needs_rescaling_on_turing_whatever_its_dtype(dtype: str) -> None:
    raw = load_entry("gemma-2-9b").model_dump()
    plain = Entry.model_validate({**raw, "serve": {name: {"dtype": dtype} for name in ("t4x2", "l4x2")}})
    finding = findings(plain, "t4x2")["dtype"]
    assert finding.verdict == "fail"
    assert mended(plain, finding).serve["t4x2"].float16_rescale_bits == 4
    assert not failed(mended(plain, finding), "t4x2")
    on_ampere = findings(plain, "l4x2")["dtype"]
    assert on_ampere.verdict == ("fail" if dtype in ("float16", "float32") else "ok")
    assert on_ampere.verdict == "ok" or on_ampere.mend == 'set serve.l4x2.dtype = "bfloat16"'


def test_a_model_that_no_layout_takes_is_refused_with_what_is_left_to_do() -> None:
    entry = load_entry("yi-34b")
    finding = findings(override(entry, ["serve.t4.layout=replicas"]), "t4")["memory, replicas"]
    assert finding.verdict == "fail" and finding.mend == "choose a smaller model or a larger target"


def test_fewer_tokens_a_batch_are_no_mend_for_what_loading_takes() -> None:
    """A card that holds Yi 34B's half but not one of its matrices unpacked beside it."""
    entry = load_entry("yi-34b")
    card = load_target("t4x2").model_copy(update={"usable_bytes": round(13.85 * 2**30)})
    pipeline = findings(entry, card)["memory, pipeline"]
    assert pipeline.verdict == "fail" and "to load" in pipeline.what and "one matrix unpacked" in pipeline.what
    assert pipeline.mend == 'set serve.t4x2.layout = "tensor"'
    assert failed(override(entry, ["score.max_batched_tokens=1100"]), card), "as much"
    assert "memory, tensor" not in failed(mended(entry, pipeline), card)
    tight = findings(entry, load_target("t4x2").model_copy(update={"usable_bytes": round(14.05 * 2**30)}))["memory, pipeline"]
    assert tight.verdict == "warn" and "lower" not in tight.mend
    packed = override(entry, ["quantize.backend=llm-compressor"])
    assert findings(packed, card)["memory, pipeline"].verdict == "warn", "its checkpoint needs no conversion"


@given(st.integers(1, 40))
def test_memory_fails_exactly_where_the_card_is_smaller_than_the_need(gibibytes: int) -> None:
    """The verdict follows from the printed need and room alone."""
    machine = load_target("t4").model_copy(update={"usable_bytes": gibibytes * 2**30})
    finding = findings(load_entry("llama-3-8b"), machine)["memory, replicas"]
    need, room = (float(number) for number in re.findall(r"(?:^|of )([\d.]+)", finding.what))
    assert room == gibibytes
    assert (finding.verdict == "fail") == (need > room)


def test_layouts_that_cannot_be() -> None:
    tensor = override(load_entry("yi-34b"), [f"serve.{name}.layout=tensor" for name in ("t4x2", "h200x2", "t4")])
    assert findings(tensor, "t4x2")["layout"].verdict == "warn", "no NVLink"
    assert findings(tensor, "h200x2")["layout"].verdict == "ok"
    assert findings(tensor, "t4")["layout"].verdict == "fail", "one card"
    three = load_target("h200x2").model_copy(update={"gpus": 3})
    assert "56 attention heads" in findings(tensor, three)["layout"].what
    coarse = override(tensor, ["quantize.group_size=7168"])
    assert "groups of 7168" in findings(coarse, "h200x2")["layout"].what


@pytest.mark.parametrize("name", REAL)
def test_training_is_checked_only_where_asked(name: str) -> None:
    entry = load_entry(name)
    assert "training memory" not in findings(entry, "t4x2")
    assert "training memory" not in failed(entry, "h200", train=True)
    assert ("training memory" in failed(entry, "t4x2", train=True)) == (name != "llama-3-8b")


def test_gemma_trains_on_a_t4_with_smaller_batches_and_yi_does_not() -> None:
    gemma, yi = load_entry("gemma-2-9b"), load_entry("yi-34b")
    finding = findings(gemma, "t4x2", train=True)["training memory"]
    assert "training memory" not in failed(mended(gemma, finding), "t4x2", train=True)
    assert "larger card" in findings(yi, "t4x2", train=True)["training memory"].mend, "16 GiB of weights in NF4"


@pytest.mark.parametrize("setting", ["train.gradient_checkpointing=false", "train.micro_batch_tokens=65536"])
def test_training_that_does_not_fit_names_the_setting_that_makes_it_fit(setting: str) -> None:
    entry = override(load_entry("llama-3-8b"), [setting])
    finding = findings(entry, "t4x2", train=True)["training memory"]
    assert finding.verdict == "fail"
    assert "training memory" not in failed(mended(entry, finding), "t4x2", train=True)


# --- engine -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "check", "verdict"),
    [
        ("0.13.0", "engine", "fail"),
        ("0.19.1", "engine", "fail"),
        ("0.20.2+cu129", "engine", "ok"),
        ("0.21.0", "attention", "ok"),
        ("0.22.1", "attention", "fail"),
        ("0.23.0", "attention", "fail"),
        ("0.24.0", "attention", "warn"),
        ("0.33.0", "attention", "warn"),
    ],
)
def test_versions_known_bad_on_turing(engine: str, check: str, verdict: str) -> None:
    assert findings(load_entry("llama-3-8b"), "t4x2", engine=engine)[check].verdict == verdict
    if check == "attention":
        assert findings(load_entry("llama-3-8b"), "l4x2", engine=engine)[check].verdict == "ok", "Ampere and later"


def test_rescaling_needs_an_engine_that_it_was_tried_with() -> None:
    versions = {"0.20.2": "warn", "0.21.0": "ok", "0.25.1": "warn", "0.26.0": "ok", "0.32.1": "ok", "0.33.0": "warn"}
    assert {e: findings(load_entry("gemma-2-9b"), "t4x2", engine=e)["engine"].verdict for e in versions} == versions
    assert findings(load_entry("llama-3-8b"), "t4x2", engine="0.33.0")["engine"].verdict == "ok", "nothing is rescaled"


@pytest.mark.parametrize("target", ["t4", "t4x2"])
def test_a_target_is_checked_with_the_engine_that_runs_there(target: str) -> None:
    assert load_target(target).engine == BEST_ON_TURING
    found = {finding.check: finding.what for finding in check_entry(load_entry("llama-3-8b"), load_target(target))}
    assert found["engine"] == f"vLLM {BEST_ON_TURING}" and "FLASHINFER" in found["attention"], "whatever is installed here"
    assert "TRITON_ATTN" in findings(load_entry("llama-3-8b"), target, engine="0.32.0")["attention"].what, "--engine says more"


def test_a_version_that_is_none() -> None:
    with pytest.raises(ZooError, match="--engine newest: not a version"):
        findings(load_entry("llama-3-8b"), "t4x2", engine="newest")
    assert parse_version("0.20.2+cu129") == (0, 20)


def test_rescaling_is_for_gemma_alone() -> None:
    entry = override(load_entry("llama-3-8b"), ["serve.t4x2.float16_rescale_bits=4"])
    finding = findings(entry, "t4x2")["dtype"]
    assert finding.verdict == "fail" and "remove serve.t4x2.float16_rescale_bits" in finding.mend


def test_small_heads_have_no_soft_cap_on_turing() -> None:
    entry = override(load_entry("gemma-2-9b"), ["shape.head_dim=16"])
    assert attention_backend((0, 32), (7, 5), 16) == "FLEX_ATTENTION"
    assert findings(entry, "t4x2")["attention"].verdict == "fail"
    assert findings(entry, "l4x2")["attention"].verdict == "ok"


def test_old_gpus_have_no_awq_kernel() -> None:
    volta = load_target("t4").model_copy(update={"compute_capability": (7, 0)})
    assert findings(load_entry("llama-3-8b"), volta)["kernel"].verdict == "fail"


def test_the_second_backend_has_its_own_architectures_and_kernels() -> None:
    entry, target = load_entry("llama-3-8b"), load_target("t4x2")
    packed = override(entry, ["quantize.backend=llm-compressor"])
    assert findings(packed, target)["architecture"].verdict == "ok" and "Marlin" in findings(packed, target)["kernel"].what
    coarse = findings(override(packed, ["quantize.group_size=512"]), target)["kernel"]
    assert coarse.verdict == "fail" and "zero points" in coarse.what
    gemma = override(entry, ["base.architecture=Gemma3ForCausalLM"])
    assert 'quantize.backend = "llm-compressor"' in findings(gemma, target)["architecture"].mend


def test_the_third_backend_has_autoawqs_layout_and_so_its_kernels_and_memory() -> None:
    entry, target = load_entry("llama-3-8b"), load_target("t4x2")
    learned = override(entry, ["quantize.backend=auto-round"])
    ours, theirs = findings(entry, target), findings(learned, target)
    assert theirs["architecture"].verdict == "ok"
    by_backend = {"architecture", "backend"}
    assert {name: theirs[name] for name in theirs if name not in by_backend} == {
        name: ours[name] for name in ours if name not in by_backend
    }
    falcon = override(learned, ["base.architecture=FalconForCausalLM"])
    assert 'quantize.backend = "autoawq"' in findings(falcon, target)["architecture"].mend


@pytest.mark.parametrize(("backend", "name"), [("llm-compressor", "llmcompressor"), ("auto-round", "autoround")])
def test_a_backend_elsewhere_is_told_with_its_interpreter_or_what_makes_it(
    backend: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, python = tmp_path / "settings.toml", tmp_path / "python"
    settings.write_text(f'[environments]\n{backend} = "{python}"\n')
    monkeypatch.setenv("ZOO_SETTINGS", str(settings))
    entry = override(load_entry("llama-3-8b"), [f"quantize.backend={backend}"])
    lacking = findings(entry, "t4x2")["backend"]
    assert lacking.verdict == "warn" and str(python) in lacking.what and f"make setup-{name}" in lacking.mend
    python.touch()
    found = findings(entry, "t4x2")["backend"]
    assert found.verdict == "ok" and str(python) in found.what
    assert findings(load_entry("llama-3-8b"), "t4x2")["backend"].verdict == "ok", "autoawq is in this environment"
    assert "backend" not in findings(override(entry, ["quantize.scheme=int8"]), "t4x2"), "made by this project"


# --- model --------------------------------------------------------------------------------------------------------------


def model_folder(folder: Path, **config: Any) -> Path:
    shape = load_entry("llama-3-8b").shape
    assert shape is not None
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**shape.model_dump(exclude_none=True), **config}))
    return folder


def test_a_fetched_model_s_own_files_come_before_the_declared_shape(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", hidden_size=576, num_attention_heads=9, head_dim=64, intermediate_size=1536)
    finding = findings(load_entry("llama-3-8b"), "t4x2", model_folder=folder)["group size"]
    assert finding.verdict == "fail" and "quantize.group_size = 64" in finding.mend
    folder = model_folder(tmp_path / "m", max_position_embeddings=2048)
    assert "context" in failed(load_entry("llama-3-8b"), "t4x2", model_folder=folder), "no room for the token after"
    assert "labels" in failed(load_entry("llama-3-8b"), "t4x2", model_folder=folder), "no tokenizer.json"
    assert "shape" in failed(load_entry("llama-3-8b"), "t4x2", model_folder=tmp_path)


def test_without_a_shape_what_depends_on_it_is_said_to_be_unchecked() -> None:
    entry = load_entry("llama-3-8b").model_copy(update={"shape": None})
    found = findings(entry, "t4x2")
    assert found["shape"].verdict == "warn" and not [name for name in found if name.startswith("memory")]


# --- command ------------------------------------------------------------------------------------------------------------


def test_the_command_ends_with_1_exactly_where_something_fails() -> None:
    from zoo.cli.main import app

    good = CliRunner().invoke(app, ["check", "gemma-2-9b", "--target", "t4x2", "--json"])
    bad = CliRunner().invoke(app, ["check", "yi-34b", "--target", "t4x2", "--train", "--engine", "0.23.0", "--json"])
    assert (good.exit_code, bad.exit_code) == (0, 1)
    assert {f["verdict"] for f in json.loads(good.stdout)} <= {"ok", "info", "warn"}
    assert {f["check"] for f in json.loads(bad.stdout) if f["verdict"] == "fail"} == {"attention", "training memory"}
    assert "mend" in CliRunner().invoke(app, ["check", "yi-34b"]).stdout


# --- forms ----------------------------------------------------------------------------------------------------------------

FORM = "score.variants=[{{order='ab',max_tokens=1024}},{{order='ab',max_tokens=1024,form='{}'}}]"


@pytest.mark.parametrize(
    ("form", "target", "verdict", "told"),
    [
        ("int8", "t4x2", "ok", "CUTLASS on sm_75"),
        ("int8", "l4x2", "ok", "CUTLASS on sm_89"),
        ("int8", "cpu", "ok", "AMX or oneDNN"),
        ("fp8", "t4x2", "warn", "activations stay in 16 bits"),
        ("fp8", "a10g", "warn", "activations stay in 16 bits"),
        ("fp8", "l4x2", "ok", "CUTLASS"),
        ("fp8", "cpu", "warn", "AMX-FP8"),
        ("w4a8", "t4x2", "ok", "Marlin on sm_75"),
        ("w4a8", "h200", "warn", "slower than AWQ there"),
    ],
)
def test_a_form_needs_a_kernel_that_multiplies_in_8_bits(form: str, target: str, verdict: str, told: str) -> None:
    found = findings(override(load_entry("llama-3-8b"), [FORM.format(form)]), target)
    assert found[f"kernel, {form}"].verdict == verdict and told in found[f"kernel, {form}"].what
    assert "kernel, awq" in found and "kernel" not in found


def test_a_form_that_does_not_run_fails_the_check_only_where_no_other_does() -> None:
    both = findings(override(load_entry("llama-3-8b"), [FORM.format("fp8")]), "t4x2")
    assert all(finding.verdict != "fail" for finding in both.values())
    assert "those of other forms do" in both["kernel, fp8"].what and "score.variants" in both["kernel, fp8"].mend
    alone = findings(override(load_entry("llama-3-8b"), ["quantize.scheme=fp8"]), "t4x2")
    assert alone["kernel"].verdict == "fail"
    neither = [FORM.format("int8"), "quantize.scheme=fp8"]
    card = load_target("t4x2").model_copy(update={"compute_capability": (7, 0)})
    found = findings(override(load_entry("llama-3-8b"), neither), card)
    assert {found["kernel, fp8"].verdict, found["kernel, int8"].verdict} == {"fail"}


def test_there_are_no_int8_kernels_on_blackwell() -> None:
    card = load_target("h200").model_copy(update={"compute_capability": (10, 0)})
    entry = override(load_entry("llama-3-8b"), ["quantize.scheme=int8"])
    finding = findings(entry, card)["kernel"]
    assert finding.verdict == "fail" and '"fp8"' in finding.mend


def test_eight_bits_of_an_8b_model_fit_a_t4_and_those_of_a_34b_model_do_not() -> None:
    for name, fits in (("llama-3-8b", True), ("yi-34b", False)):
        found = findings(override(load_entry(name), ["quantize.scheme=int8"]), "t4x2")
        layout = load_entry(name).serve["t4x2"].layout
        assert (found[f"memory, {layout}"].verdict != "fail") == fits, name


# --- heads --------------------------------------------------------------------------------------------------------------


def test_a_classifier_saves_the_vocabulary_s_matrix_and_nothing_else() -> None:
    """Llama 3 8B has a head of its own, which a classifier replaces; what else is held is the same."""
    entry = load_entry("llama-3-8b")
    shape, both = entry.shape, [entry, override(entry, ["head=classifier"])]
    assert shape is not None
    cards = [
        layout_memory(e.base, e.quantize, e.score, entry_shape(e), load_target("t4x2"))["replicas"]  # type: ignore[arg-type]
        for e in both
    ]
    assert cards[0].weights - cards[1].weights == 2 * (shape.vocab_size - 3) * shape.hidden_size
    assert cards[0].cache == cards[1].cache and cards[0].activations >= cards[1].activations
    flops = [flops_of_shape(entry_shape(e)) for e in both]  # type: ignore[arg-type]
    assert flops[0].per_row - flops[1].per_row == 2 * (shape.vocab_size - 3) * shape.hidden_size
    assert flops[0].per_token == flops[1].per_token


def test_a_head_that_cannot_be_is_refused_with_a_mend_that_can() -> None:
    entry = load_entry("llama-3-8b")
    assert findings(override(entry, ["head=classifier"]), "t4x2")["head"].verdict == "ok"
    assert findings(override(entry, ["head=classifier"]), "t4x2", engine="0.21.0")["engine"].verdict == "warn"
    falcon = override(entry, ["head=classifier", "base.architecture=FalconForCausalLM"])
    assert "FalconForCausalLM has no classifier" in findings(falcon, "t4x2")["head"].what
    gemma3 = override(entry, ["head=classifier", "base.architecture=Gemma3ForCausalLM"])  # autoawq does not quantize it
    found = findings(gemma3, "h200")["architecture"]
    assert found.verdict == "fail" and findings(mended(gemma3, found), "h200")["architecture"].verdict == "ok"
