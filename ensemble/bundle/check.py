"""What a bundle's plan asks of its machine: engine, memory, time and competition."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ensemble.bundle.contents import engines_of
from ensemble.bundle.make import FLASHINFER
from ensemble.plan import Plan, PlanMember, load_plan
from zoo.bundle.assemble import JOB
from zoo.bundle.check import AGAIN, check_folder, read_bundle
from zoo.bundle.contracts import Bundle, Part
from zoo.checks.encoders import check_encoder
from zoo.checks.finding import Finding, Verdict, fail, ok, warn
from zoo.checks.kernels import check_attention, check_dtype, check_engine, check_kernel
from zoo.checks.layouts import check_layout, check_memory, layout_memory
from zoo.checks.model import check_group_size
from zoo.contracts import AdoptRequest, Base, QuantizeRequest, QuantizeSpec, ScoreRequest, changed
from zoo.entries.load import load_entry
from zoo.errors import ZooError
from zoo.models.heads import causal_name, head_of
from zoo.models.shapes import (
    count_parameters,
    embedding_parameters,
    first_architecture,
    linear_parameters,
    read_config,
    shape_of_config,
)
from zoo.scores.metric_names import FINER_SHARE
from zoo.store import file_sha256, read_manifest
from zoo.targets import Target, load_target
from zoo.targets.capabilities import AMPERE

# Competitions that ask row by row through a server (`kaggle_evaluation`) instead of reading a file, as far as they are known:
# the notebook's script refuses any other when it finds one.
ROW_BY_ROW = (
    *("ai-mathematical-olympiad-progress-prize-2", "ai-mathematical-olympiad-progress-prize-3", "konwinski-prize"),
    *("jane-street-real-time-market-data-forecasting", "drawing-with-llms", "hull-tactical-market-prediction"),
    *("mitsui-commodity-prediction-challenge", "cmi-detect-behavior-with-sensor-data"),
)
# Bytes a second that wheels are installed at: 5 GB took 82 s on a machine with an RTX Pro 6000 (a notebook's log of 2026, id
# 60296735822 of the reference's list); a third of it is reckoned with for a notebook's two cores, which is not measured.
INSTALL_BYTES_PER_SECOND = 5e9 / 82 / 3
SEVERITY: dict[Verdict, int] = {"ok": 0, "info": 1, "warn": 2, "fail": 3}


def check_bundle(folder: Path) -> list[Finding]:
    """Every finding about a bundle; ZooError where the folder is none."""
    bundle = read_bundle(folder)
    return [*check_plan(folder, bundle), *check_folder(folder, bundle)]


def check_plan(folder: Path, bundle: Bundle) -> Iterator[Finding]:
    """Whether the job's plan is the bundled one, and can run with the bundled engine."""
    yield check_competition(bundle.competition)
    path = folder / JOB / bundle.plan
    try:
        plan = load_plan(path)
        if file_sha256(path) != bundle.plan_sha256:
            raise ZooError(f"{path} is not the plan that was bundled")
    except ZooError as error:
        yield fail("plan", str(error), AGAIN)
        return
    yield check_budget(plan, bundle)
    if "vllm" in engines_of(plan):
        yield check_modules(bundle)
    parts = {name: part for part in bundle.parts for name in part.members}
    for member in plan.members:
        if isinstance(member.request, ScoreRequest):
            yield check_member(folder, bundle, member, member.request, parts.get(member.name))
        else:
            yield ok(member.name, "no GPU needed")


def check_competition(slug: str) -> Finding:
    """Whether the competition reads a file, as far as that is known."""
    if slug in ROW_BY_ROW:
        what = f"{slug} asks row by row through a server; a bundle writes a file"
        return fail("competition", what, "give a competition that reads submission.csv")
    return ok("competition", f"{slug}, which has to read submission.csv: the script looks again where it runs")


def check_budget(plan: Plan, bundle: Bundle) -> Finding:
    """Whether installing the wheels leaves the plan the time that it counts on."""
    size = sum(file.bytes for part in bundle.parts if part.kind == "wheels" for file in part.files)
    install = size / INSTALL_BYTES_PER_SECOND
    needed = plan.predicted_seconds * plan.margin
    left = plan.budget_seconds - needed - install
    what = (
        f"{plan.budget_seconds / 3600:.2f} h from the notebook's start: {needed / 3600:.2f} h with the plan's margin, "
        f"{install / 60:.1f} minutes to install {size / 1e9:.2f} GB (an estimate)"
    )
    if left < 0:
        mend = f"build with that much less: ensemble build --budget {int(plan.budget_seconds - install)}s"
        return warn("budget", f"{what}: {-left / 60:.1f} minutes too many, for which members are cut short", mend)
    return ok("budget", what)


def check_modules(bundle: Bundle) -> Finding:
    """Whether attention runs on tensor cores: below 8.0 by FlashInfer's modules alone."""
    count = sum(file.path.startswith(f"{FLASHINFER}/") for file in bundle.files)
    if bundle.target.compute_capability is None or bundle.target.compute_capability >= AMPERE:
        return ok("attention", "the engine's own")
    if not count:
        what = "by TRITON_ATTN, without tensor cores on these cards: the bundle has no FlashInfer modules compiled for them"
        return warn("attention", what, "give them: ensemble bundle PLAN --flashinfer FOLDER")
    return ok("attention", f"by FlashInfer, {count} modules compiled beforehand; by TRITON_ATTN where they do not load")


def check_member(folder: Path, bundle: Bundle, member: PlanMember, request: ScoreRequest, part: Part | None) -> Finding:
    """One member on the target with the bundled engine: the worst of what is found."""
    if part is None:
        return fail(member.name, "no part has its checkpoint", AGAIN)
    encoder = request.spec.engine == "transformers"
    try:
        findings = list((_encoded if encoder else _served)(folder / part.name, bundle, request))
    except (ZooError, OSError) as error:
        return fail(member.name, str(error), AGAIN)
    worst = max(findings, key=lambda finding: SEVERITY[finding.verdict])
    if worst.verdict in ("ok", "info"):
        told = {finding.check: finding.what for finding in findings}
        engine = f"transformers {told['transformers']}" if encoder else f"vLLM {bundle.target.engine}"
        how = told["dtype" if encoder else "kernel"]
        return ok(member.name, f"{part.name}; {engine}; {how}; {told[f'memory, {request.serve.layout}']}")
    what = "; ".join(f"{f.check}: {f.what}" for f in findings if f.verdict == worst.verdict)
    return Finding(check=member.name, verdict=worst.verdict, what=f"{part.name}; {what}", mend=worst.mend)


def _served(folder: Path, bundle: Bundle, request: ScoreRequest) -> Iterator[Finding]:
    """The checks of `zoo check`, of the checkpoint itself."""
    target, model = machine_of(bundle), folder / "model"
    config = read_config(model)
    shape = shape_of_config(config)
    parameters = linear_parameters(shape) + embedding_parameters(shape)
    base = Base(
        hub_id="bundled", architecture=causal_name(first_architecture(config, model)), parameters=parameters, licence=""
    )
    quantize = quantized_by(folder)
    yield check_transformers(config, bundle)
    yield check_engine(request.serve, bundle.target.engine, head_of(config))
    yield check_dtype(base, request.spec, request.serve, target)
    yield check_kernel(quantize, target)
    yield check_attention(shape, request.serve, target, bundle.target.engine)
    yield check_group_size(quantize, shape)
    yield check_layout(quantize, request.serve, shape, target)
    yield from check_memory(layout_memory(base, quantize, request.spec, shape, target), request.serve, request.spec, target)


def _encoded(folder: Path, bundle: Bundle, request: ScoreRequest) -> Iterator[Finding]:
    """The checks of `zoo check` for an encoder, of the checkpoint itself."""
    model = folder / "model"
    config = read_config(model)
    architecture = first_architecture(config, model)
    base = Base(hub_id="bundled", architecture=architecture, parameters=count_parameters(model), licence="")
    yield check_transformers(config, bundle)
    yield from check_encoder(
        base,
        request.prompt,
        request.spec,
        None,
        shape_of_config(config),
        serve=request.serve,
        target=machine_of(bundle),
        model_folder=model,
    )


def check_transformers(config: dict[str, Any], bundle: Bundle) -> Finding:
    """Whether the bundled transformers is of the generation that wrote a checkpoint's config.

    Of 5 it has `rope_parameters`, which 4 passes over: positions would be another model's, and nothing would say so.
    """
    written = str(config.get("transformers_version", ""))
    wheels = [file.path for part in bundle.parts if part.kind == "wheels" for file in part.files]
    found = next((path.split("-")[1] for path in wheels if path.startswith("transformers-")), None)
    if found is None:
        return fail("transformers", "not among the wheels", AGAIN)
    if written and int(found.partition(".")[0]) < int(written.partition(".")[0]):
        return fail("transformers", f"{found} cannot read the config that {written} wrote", "remove ZOO_HOME/wheels; " + AGAIN)
    return ok("transformers", found)


def machine_of(bundle: Bundle) -> Target:
    """The bundle's machine as a target, by the facts that the bundle states.

    The rest is as the target of that name has it.
    """
    stated = bundle.target
    return changed(
        load_target(stated.name),
        gpus=stated.gpus,
        gpu=stated.gpu,
        compute_capability=stated.compute_capability,
        usable_bytes=stated.usable_bytes,
        engine=stated.engine,
    )


def quantized_by(folder: Path) -> QuantizeSpec:
    """How a checkpoint was quantized, by its manifest.

    By its entry where that was done elsewhere. Where it was chosen what stays in 16 bits, `finer_share` is what does.
    """
    manifest = read_manifest(folder)
    request = manifest.request
    if isinstance(request, AdoptRequest) and (declared := load_entry(request.entry).quantize):
        return declared
    if not isinstance(request, QuantizeRequest):
        raise ZooError(f"{folder}: made by `{request.stage}`, not quantized")
    kept = manifest.metrics.get(FINER_SHARE)
    return request.spec if kept is None else changed(request.spec, finer_share=min(1.0, kept))
