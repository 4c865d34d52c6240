"""The train stage: fine-tuning on the labels, with early stopping and resuming.

NF4 QLoRA, plain LoRA, or all weights, by one setting. The objective is cross-entropy over the three label rows of the output
embedding at the last position, or over a classifier that began as these rows (`request.head`), or over an encoder's, or on
request that of the whole text (zoo/stages/train/objectives.py); held-out rows are judged by their labels in all cases. Battles
come in random response order each epoch, labels swapped to match; rows of similar length share a forward pass, so little is
padding. A killed run goes on from its last checkpoint with the same batches.
"""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path

import numpy as np
import torch

from zoo.contracts import Measurements, StageResult, TrainRequest, TrainSpec
from zoo.data.battles import read_battles
from zoo.data.votes import VOTES
from zoo.errors import ZooError
from zoo.models.batches import all_steps, dealt, padded_tokens, padding_share, schedule, total_steps
from zoo.models.encoders import folder_encoder
from zoo.models.prompts import load_codec
from zoo.scores.metric_names import (
    FLOAT16,
    HELD_OUT_LOSS,
    LOG_LOSS,
    LOSS_SCALE,
    ROWS,
    SKIPPED_STEPS,
    TRAIN_LOSS,
    TRAIN_SHARE,
    TRAIN_SPEED,
)
from zoo.scores.metrics import uniform_loss
from zoo.scores.tables import swap_sides
from zoo.stages import progress
from zoo.stages.device import emulating, gpu_peak_bytes, keep_to_share
from zoo.stages.train.adapters import load_model, save_weights, start_from
from zoo.stages.train.checkpoint import Progress, load_best, remove_checkpoints, resume, save_checkpoint
from zoo.stages.train.classifier import note_start
from zoo.stages.train.data_parallel import check_gpus, device_sum, join, launch, shared_folder
from zoo.stages.train.examples import Example
from zoo.stages.train.fused import refresh
from zoo.stages.train.hours import Hours
from zoo.stages.train.learner import Learner, evaluate
from zoo.stages.train.rows import read_examples
from zoo.stages.train.scaling import SCALED_LOSS, choose_scale
from zoo.targets import load_target, process_age_seconds

DIVERGED_STEPS, DIVERGED_NATS = 20, 1.0
LEAST_SCALE = 1.0  # of the loss in float16: gradients that overflow unscaled are no matter of the scale


def run(request: TrainRequest, out_dir: Path) -> StageResult:
    """Write `out_dir/adapter` (or `out_dir/model` for full fine-tuning) and curves of the loss.

    On a GPU without bfloat16, or as one (`request.emulates`), in float16 with loss scaling.
    """
    with emulating(load_target(request.emulates) if request.emulates else None):
        return _run(request, out_dir)


def _run(request: TrainRequest, out_dir: Path) -> StageResult:
    base, spec = request.base.path / "model", request.spec
    ranks = join()
    if spec.gpus > 1 and ranks.count == 1:
        check_gpus(spec.gpus)
        return launch(request, out_dir, spec.gpus)
    out_dir = shared_folder(out_dir, ranks)
    keep_to_share()
    codec = load_codec(base, request.prompt)
    battles = read_battles(request.battles.path, keep=VOTES)
    rows = read_examples(request, codec, battles)
    train, held = rows.train, rows.held
    torch.manual_seed(spec.seed)
    starts_as_labels = request.head == "classifier" and not folder_encoder(base)
    classifier = codec.label_ids if starts_as_labels else None
    model = load_model(base, spec, classifier)
    if request.start:
        start_from(model, request.start.path / "adapter")
    learner = Learner(model, codec, spec, ranks=ranks, ties=battles.can_tie)
    memory = learner.fit_memory(train)
    load_seconds = process_age_seconds()
    state = fit(learner, train, held, out_dir)
    scale: dict[str, float] = {}
    if ranks.main and spec.scales:
        scale, state.curves[SCALED_LOSS] = choose_scale(learner, rows.apart, held, out_dir)
    if ranks.main:
        save_weights(learner.model, spec, base, out_dir)
        if classifier and spec.method != "full":
            note_start(classifier, out_dir)
        shutil.copy2(base / "tokenizer.json", out_dir / "tokenizer.json")
        if not state.out_of_hours:  # else a training with more hours goes on from the checkpoint
            remove_checkpoints(out_dir)
    return StageResult(
        metrics={
            **rows.counts,
            **memory,
            **scale,
            **final_metrics(state, spec),
            TRAIN_SHARE: state.step / total_steps(len(train), spec),
            FLOAT16: float(learner.scaler.is_enabled()),
            "train/rows": len(train),
            "train/padding_share": padding_share([len(e.ab) for e in train], spec),
            ROWS: len(held),
        },
        curves={name: tuple(points) for name, points in state.curves.items()},
        measurements=Measurements(
            load_seconds=load_seconds,
            run_seconds=state.seconds,
            rows=state.rows,
            tokens=state.tokens,
            peak_bytes=gpu_peak_bytes(),
        ),
    )


def final_metrics(state: Progress, spec: TrainSpec) -> dict[str, float]:
    """Where the training ended.

    Loss, speed, and the held-out log loss of the weights that are kept.
    """
    held_out = state.curves[HELD_OUT_LOSS]
    return {
        TRAIN_LOSS: state.curves[TRAIN_LOSS][-1][1],
        TRAIN_SPEED: state.tokens / max(state.seconds, 1e-9),
        LOG_LOSS: state.best if ends_with_best(state, spec) else held_out[-1][1],
        "val/log_loss_before": held_out[0][1],
        **({} if state.loss_scale is None else {LOSS_SCALE: state.loss_scale, SKIPPED_STEPS: float(state.skipped_steps)}),
    }


def ends_with_best(state: Progress, spec: TrainSpec) -> bool:
    """Whether the artifact has the best weights instead of the last.

    Where that is asked for, or where the hours are over.
    """
    return spec.keep == "best" or state.out_of_hours


def keeps_best(spec: TrainSpec) -> bool:
    """Whether checkpoints have the best weights beside the last."""
    return spec.keep == "best" or spec.max_hours is not None


def fit(learner: Learner, train: list[Example], held: list[Example], out_dir: Path) -> Progress:
    """Train to the end, from the last checkpoint if there is one.

    Returns where it ended and its curves.
    """
    spec = learner.spec
    steps_per_epoch = math.ceil(len(train) / spec.batch_rows)
    total = total_steps(len(train), spec)
    every = max(1, steps_per_epoch // spec.evals_per_epoch)
    with learner.ranks.main_first():
        state = resume(learner.model, learner.optimizer, out_dir) or Progress()
    refresh(learner.adapted)
    if state.loss_scale:
        learner.restore_scaler(state.loss_scale, state.growth_tracker, state.skipped_steps)
    elif learner.scaler.is_enabled():
        progress.note(f"in float16, without bfloat16 here: the loss is scaled by {learner.scaler.get_scale():g} to begin with")
    hours, state.out_of_hours = Hours(spec.max_hours, state.wall_seconds, learner.ranks), False
    with progress.bar(total, "train", "step", initial=state.step) as bar:
        if not state.curves:
            with hours.timing("evaluation"):
                start_is_best = note_held_out(state, held_out_loss(learner, held, state, [], train))
            if keeps_best(spec) and learner.ranks.main:  # if training only makes it worse, the untrained weights are kept
                save_checkpoint(learner.model, learner.optimizer, state, out_dir, best=start_is_best)
        for step, batches in enumerate(all_steps([len(e.ab) for e in train], spec, total)):
            if step < state.step or state.out_of_hours or has_stalled(state, spec):
                continue
            started = time.monotonic()
            rate = spec.learning_rate * schedule(step, total, spec.warmup_fraction)
            with hours.timing("step"):
                loss = train_step(learner, batches, train, step, rate)
            state.step, state.rows = step + 1, state.rows + sum(map(len, batches))
            state.tokens += sum(len(train[i].ab) for batch in batches for i in batch)
            state.seconds += time.monotonic() - started
            state.log(TRAIN_LOSS, loss)
            state.log("train/learning_rate", rate)
            note_loss_scale(learner, state)
            refuse_divergence(state, loss_before(state, spec, ties=learner.ties), batches, train)
            state.out_of_hours = state.step < total and hours.over()
            if state.step % every == 0 or state.step == total or state.out_of_hours:
                with hours.timing("evaluation"):
                    log_loss = held_out_loss(learner, held, state, batches, train)
                state.wall_seconds = hours.spent_seconds()
                finish_part(learner, state, log_loss, out_dir)
            held_out = state.curves[HELD_OUT_LOSS][-1][1]
            speed = f"{state.tokens / state.seconds:.0f}"
            bar.set_postfix(loss=f"{loss:.3f}", held_out=f"{held_out:.4f}", tokens_s=speed, refresh=False)
            bar.update()
    if state.out_of_hours:
        mend = "raise train.max_hours or leave it out to go on from here"
        progress.note(
            f"the hours are over at step {state.step} of {total}: the best weights are kept ({state.best:.4f}); {mend}"
        )
    if ends_with_best(state, spec) and learner.ranks.main:
        load_best(learner.model, out_dir)
    return state


def finish_part(learner: Learner, state: Progress, log_loss: float, out_dir: Path) -> None:
    """Note a held-out log loss with speed and memory, and save a checkpoint.

    The weights are kept as the best if they are.
    """
    best = note_held_out(state, log_loss)
    state.log(TRAIN_SPEED, state.tokens / max(state.seconds, 1e-9))
    if peak := gpu_peak_bytes():
        state.log("mem/allocated_peak_gib", peak / 2**30)
    if learner.ranks.main:
        save_checkpoint(learner.model, learner.optimizer, state, out_dir, best=best and keeps_best(learner.spec))
    if has_stalled(state, learner.spec):
        progress.note(f"stopped at step {state.step}: {state.stale} evaluations without a lower held-out log loss")


def note_loss_scale(learner: Learner, state: Progress) -> None:
    """Note by how much the next loss is scaled in float16, and tell a step that was left out."""
    if not learner.scaler.is_enabled():
        return
    found = learner.scaler.state_dict()
    state.loss_scale, state.growth_tracker = found["scale"], found["_growth_tracker"]
    state.log(LOSS_SCALE, found["scale"])
    if learner.skipped_steps > state.skipped_steps:
        state.skipped_steps = learner.skipped_steps
        state.log(SKIPPED_STEPS, state.skipped_steps)
        progress.note(
            f"step {state.step}: gradients overflowed float16, left out; the loss is now scaled by {found['scale']:g}"
        )


def held_out_loss(
    learner: Learner, held: list[Example], state: Progress, batches: list[list[int]], train: list[Example]
) -> float:
    """Log loss of the held-out rows.

    ZooError where it is not finite, with the `batches` of the step before it, if any.
    """
    log_loss: float = evaluate(learner, held)
    if not math.isfinite(log_loss) and state.step == 0:
        raise ZooError(f"held-out log loss {log_loss} before training; train where there is bfloat16, or from another base")
    if not math.isfinite(log_loss):
        raise diverged(state.step, f"held-out log loss {log_loss}", [i for batch in batches for i in batch], train)
    return log_loss


def note_held_out(state: Progress, log_loss: float) -> bool:
    """Note a held-out log loss.

    Returns whether it is the lowest so far, that of the untrained model among them.
    """
    state.log(HELD_OUT_LOSS, log_loss)
    lowest = log_loss < state.best
    state.best, state.stale = (log_loss, 0) if lowest else (state.best, state.stale + 1)
    return lowest


def has_stalled(state: Progress, spec: TrainSpec) -> bool:
    return spec.patience is not None and state.stale >= spec.patience


def train_step(learner: Learner, batches: list[list[int]], train: list[Example], step: int, learning_rate: float) -> float:
    """One optimizer step, `step` of them before it, over its micro-batches.

    Returns mean loss of its rows. A loss that is not finite stops with the rows' ids.
    """
    spec, ranks = learner.spec, learner.ranks
    learner.model.train()
    swapped = {i: s for batch in batches for i, s in zip(batch, draw_swaps(spec, step, batch), strict=True)}
    lengths = {i: len(train[i].ab) for i in swapped}
    batches = dealt(batches, lengths, ranks.count)
    mine = ranks.share([padded_tokens(batch, lengths) for batch in batches])
    losses = []
    for position in mine:
        # Dropout is the same in a resumed run, and whichever rank has the micro-batch.
        torch.manual_seed((spec.seed << 20) + step + (position << 48))
        pairs = [(train[i], swapped[i]) for i in batches[position]]
        shown = [e.ba if s else e.ab for e, s in pairs]
        targets = [tuple(swap_sides(np.array(e.target))) if s else e.target for e, s in pairs]
        losses.append(learner.backward(shown, targets, 1 / len(swapped)))
    # The step's one wait for the GPU before its update.
    found = [float(loss) for loss in torch.stack(losses).tolist()] if losses else []
    for position, loss in zip(mine, found, strict=True):
        if not math.isfinite(loss):
            raise diverged(step + 1, f"loss {loss}", batches[position], train)
    ranks.add_up_gradients(learner.parameters)
    total = float(device_sum([sum(found)], ranks)[0])
    least = not learner.scaler.is_enabled() or learner.scaler.get_scale() <= LEAST_SCALE
    norm = learner.update(learning_rate)
    if least and not torch.isfinite(norm):
        raise diverged(step + 1, f"gradient norm {float(norm)}", [i for batch in batches for i in batch], train)
    return total / len(swapped)


def draw_swaps(spec: TrainSpec, step: int, batch: list[int]) -> list[bool]:
    """Which rows of a micro-batch are shown with their answers exchanged.

    Drawn by seed, step and its first row.
    """
    if not spec.swap_orders:
        return [False] * len(batch)
    return [bool(s) for s in np.random.default_rng((spec.seed, step, batch[0])).random(len(batch)) < 0.5]


def diverged(step: int, what: str, rows: list[int], train: list[Example]) -> ZooError:
    """`step` counts from 1, as in the curves."""
    ids = ", ".join(train[i].id for i in rows[:5])
    return ZooError(f"training diverged at step {step}: {what} on rows {ids}; lower train.learning_rate")


def loss_before(state: Progress, spec: TrainSpec, *, ties: bool) -> float:
    """The objective's loss before training, at least chance's.

    For labels the held-out one, for text the first step's. Without `ties` the held-out one is of A and B alone, while the
    objective is over three labels: then it is the first step's again.
    """
    first = state.curves[TRAIN_LOSS][0][1]
    if spec.objective == "text":
        return first
    return max(uniform_loss(ties=ties), state.curves[HELD_OUT_LOSS][0][1] if ties else first)


def refuse_divergence(state: Progress, before: float, batches: list[list[int]], train: list[Example]) -> None:
    """Stop where the last steps' mean loss is well above `before`.

    `before` is what the model had before it was trained.
    """
    last = [loss for _, loss in state.curves[TRAIN_LOSS][-DIVERGED_STEPS:]]
    mean = sum(last) / len(last)
    if len(last) == DIVERGED_STEPS and mean > before + DIVERGED_NATS:
        what = f"mean loss {mean:.2f} of the last {DIVERGED_STEPS} steps, {before:.2f} before training,"
        raise diverged(state.step, what, [i for batch in batches for i in batch], train)
