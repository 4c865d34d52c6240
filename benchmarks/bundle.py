"""What a bundle takes: sizes and GPU code of an engine's wheels, and the bundle of a plan with models of random weights.

    python benchmarks/bundle.py wheels [--engine 0.21.0]      # a table a library with GPU code; downloads what the home lacks
    python benchmarks/bundle.py plan llama-3-8b -o plan.json  # adds random AWQ weights of the shape to the home's store, and
                                                              # writes a plan of every checkpoint there
    ensemble bundle plan.json --competition lmsys-chatbot-arena --user NAME -o bundle

The home is `ZOO_HOME`. A plan that is made so is good for its size alone: its weights are equal, its log losses not measured.
"""

from __future__ import annotations

import argparse
import datetime
import time
from pathlib import Path

from random_weights import SHAPES, write_awq

from ensemble.plan import Blend, Job, Plan, PlanMember, PlanTarget, Pool, save_plan
from zoo.bundle import Image
from zoo.bundle.check import scan
from zoo.bundle.fatbins import NEVER_LAUNCHED
from zoo.bundle.wheels import Models, wheels_for
from zoo.contracts import (
    Cost,
    Held,
    Input,
    LexicalScoreRequest,
    LexicalTrainRequest,
    Manifest,
    Measurements,
    PromptSpec,
    QuantizeRequest,
    ScoreRequest,
    ScoreSpec,
    ScoringRequest,
    Variant,
)
from zoo.entries.load import load_entry
from zoo.report.text import Column, Format, Table, as_text
from zoo.settings import store_folder
from zoo.store import PARTIAL, Artifact, artifact_name, commit, fingerprint, list_artifacts
from zoo.targets import load_target

ANY = Input(fingerprint="any")
TARGET, BUDGET_SECONDS, ROWS = "t4x2", 9 * 3600.0, 25_000


def wheels(engine: str) -> None:
    """Download the engine's wheels, count their GPU code, and print it by library."""
    started = time.monotonic()
    _, found = wheels_for(Models(engine), Image(), print)
    downloaded = time.monotonic()
    libraries = scan([wheel.path for wheel in found])
    size = sum(wheel.path.stat().st_size for wheel in found)
    print(f"{len(found)} wheels, {size:,} bytes; {downloaded - started:.0f} s to have them, ", end="")
    print(f"{time.monotonic() - downloaded:.0f} s to look for GPU code\n")
    columns = ("wheel", "library", "cubins 7.5", "PTX to 7.5", "cubins of others", "runs on 7.5")
    rows = []
    for library in libraries:
        ptx = sum(count for arch, count in library.ptx.items() if arch <= 75)
        others = ", ".join(f"{arch}: {count}" for arch, count in library.cubins.items() if arch != 75)
        runs = "yes" if library.runs_on((7, 5)) else f"no: {NEVER_LAUNCHED.get(library.file, 'NEEDED')}"
        rows.append((library.wheel.partition("-")[0], library.file, library.cubins.get(75, 0), ptx, others, runs))
    print(as_text(Table([Column(title) for title in columns], rows), Format.markdown))


def add_random(shape: str, store: Path) -> Artifact:
    """An artifact of AWQ weights in the shape of a model, whose bits are random; the tokenizer is one that is in the store."""
    entry = load_entry(shape)
    assert entry.prompt is not None and entry.quantize is not None
    request = QuantizeRequest(
        entry=shape, model=Input(fingerprint="random"), battles=ANY, held=Held(), prompt=entry.prompt, spec=entry.quantize
    )
    final = store / artifact_name(request)
    if final.exists():
        return next(artifact for artifact in list_artifacts(store, "quantize") if artifact.path == final)
    tokenizer = next(store.glob("*/model/tokenizer.json"))
    partial = store / PARTIAL / final.name
    write_awq(partial / "model", tokenizer, SHAPES[shape], entry.quantize.group_size)
    return commit(
        partial,
        final,
        lambda files: Manifest(
            stage="quantize",
            fingerprint=fingerprint(request),
            request=request,
            files=files,
            metrics={},
            measurements=Measurements(),
            hardware={},
            packages={},
            git_commit=None,
            argv=(),
            created_at=datetime.datetime.now(datetime.UTC),
        ),
    )


def plan_of(artifacts: list[Artifact]) -> Plan:
    """A plan of equal weights in which every checkpoint is a member of its own."""
    members = [_member(artifact, 1 / len(artifacts)) for artifact in artifacts]
    names = tuple(member.name for member in members)
    devices = tuple(range(load_target(TARGET).gpus))
    jobs = [
        Job(members=(name,), devices=devices, start_seconds=600.0 * place, end_seconds=600.0 * (place + 1))
        for place, name in enumerate(names)
    ]
    return Plan(
        created_at=datetime.datetime.now(datetime.UTC),
        target=PlanTarget(name=TARGET, gpus=len(devices)),
        budget_seconds=BUDGET_SECONDS,
        margin=1.5,
        margin_reason="not measured",
        predicted_seconds=600.0 * len(names),
        overhead_seconds=60.0,
        rows=ROWS,
        dataset_digest="none",
        fitted_rows=1,
        oof_log_loss=1.0,
        oof_log_loss_se=0.0,
        prior=(0.35, 0.34, 0.31),
        members=tuple(members),
        pools=(_pool(names), *(_pool((name,)) for name in names if len(names) > 1)),
        schedule=tuple(jobs),
    )


def _member(artifact: Artifact, weight: float) -> PlanMember:
    made_by, model = artifact.manifest.request, Input(fingerprint=artifact.fingerprint)
    if isinstance(made_by, QuantizeRequest):
        request: ScoringRequest = _score_request(made_by.entry, made_by.prompt, model)
        variant = request.spec.variants[0] if isinstance(request, ScoreRequest) else Variant()
    else:
        request, variant = LexicalScoreRequest(entry=made_by.entry, model=model, battles=ANY, target="cpu"), Variant()
    return PlanMember(
        name=f"{made_by.entry}@{variant.slug}",
        entry=made_by.entry,
        variant=variant,
        weight=weight,
        coverage=1.0,
        predicted_seconds=600.0,
        oof_log_loss=1.0,
        checkpoint=artifact.fingerprint,
        cost=Cost(target=TARGET, load_seconds=60.0),
        request=request,
    )


def _score_request(entry: str, prompt: PromptSpec, model: Input) -> ScoreRequest:
    """As the entry is served on the target."""
    known = load_entry(entry)
    spec, serve = known.score or ScoreSpec(), known.serve
    return ScoreRequest(
        entry=entry,
        model=model,
        battles=ANY,
        held=Held(),
        prompt=prompt,
        spec=spec,
        target=TARGET,
        **({"serve": serve[TARGET]} if TARGET in serve else {}),
    )


def _pool(names: tuple[str, ...]) -> Pool:
    count = len(names)
    blend = Blend(pool="linear", members=names, weights=(1 / count,) * count, temperatures=(1.0,) * count)
    return Pool(members=names, blend=blend, log_loss=1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("wheels").add_argument("--engine", default="0.21.0")
    planning = parts.add_parser("plan")
    planning.add_argument("shape", choices=SHAPES)
    planning.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args()
    if asked.part == "wheels":
        wheels(asked.engine)
        return
    started = time.monotonic()
    store = store_folder()
    add_random(asked.shape, store)
    artifacts = [a for a in list_artifacts(store) if isinstance(a.manifest.request, QuantizeRequest | LexicalTrainRequest)]
    save_plan(plan_of(artifacts), asked.output)
    print(f"{asked.output}: {len(artifacts)} members; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
