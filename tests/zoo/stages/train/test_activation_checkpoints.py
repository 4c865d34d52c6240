"""What is computed again: which batches are tried, and what is decided from them on a card of a few hundred bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.tiny_models import write_tiny_llama
from zoo.contracts import TrainSpec
from zoo.errors import ZooError
from zoo.models import batches
from zoo.stages.train import activation_checkpoints as recompute
from zoo.stages.train.activation_checkpoints import Later
from zoo.stages.train.data_parallel import ALONE
from zoo.stages.train.examples import Example
from zoo.stages.train.learner import Learner

LAYERS, WEIGHTS, LITTLE, WHOLE = 4, 1000, 10, 110  # bytes of the weights, and of a layer that is computed again or kept


def learner_of(spec: TrainSpec) -> Learner:
    made = Learner.__new__(Learner)
    made.spec, made.ranks = spec, ALONE
    return made


def examples_of(lengths: list[int]) -> list[Example]:
    return [Example(str(i), [5] * n, [5] * (n + 1), 0, (1.0, 0.0, 0.0)) for i, n in enumerate(lengths)]


def test_short_rows_fill_a_batch_that_a_long_one_does_not() -> None:
    shapes = learner_of(TrainSpec(micro_batch_tokens=4096, batch_rows=16)).largest_shapes(examples_of([2100] + [256] * 63))
    assert max(rows * (tokens - 1) for rows, tokens in shapes) == 4096 and (1, 2101) in shapes


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=60),
    st.integers(20, 400),
    st.integers(1, 9),
    st.sampled_from([0.5, 1, 3]),
)
def test_no_batch_of_the_training_is_larger_than_what_is_tried(
    lengths: list[int], tokens: int, rows: int, epochs: float
) -> None:
    spec = TrainSpec(micro_batch_tokens=tokens, batch_rows=rows, epochs=epochs)
    shapes = learner_of(spec).largest_shapes(examples_of(lengths))
    steps = list(batches.all_steps(lengths, spec, batches.total_steps(len(lengths), spec)))
    costs = [batches.padded_tokens(batch, lengths) for step in steps for batch in step]
    assert max(costs) <= max(n * longest for n, longest in shapes)
    assert max(longest for _, longest in shapes) == max(lengths) + 1


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, Any]:
    """A model whose layers pretend to take GPU memory, a pass of it, and a function that gives the card so many bytes."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(write_tiny_llama(tmp_path / "model", num_hidden_layers=LAYERS))
    state: dict[str, Any] = {"used": WEIGHTS, "peak": 0, "size": 0, "weights": WEIGHTS, "whole": [WHOLE] * LAYERS}
    layers = recompute.decoder_layers(model)

    def take(layer: Any, *_: Any) -> None:
        state["used"] += LITTLE if layer.gradient_checkpointing else state["whole"][layers.index(layer)]
        if state["used"] > state["size"]:
            raise torch.cuda.OutOfMemoryError("the card is full")
        state["peak"] = max(state["peak"], state["used"])

    for layer in layers:
        layer.register_forward_hook(take)

    def one_pass() -> None:
        state["used"] = state["weights"]
        with torch.no_grad():
            model(input_ids=torch.tensor([[5, 6, 7]]))

    def sized(size: int, **changes: Any) -> None:
        state.update(size=size, **changes)
        monkeypatch.setattr(recompute, "_room", lambda _: float(size))

    monkeypatch.setattr(recompute, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: state.update(peak=0))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: state["peak"])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: state["used"])
    return model, one_pass, sized


@pytest.mark.parametrize(
    ("size", "later", "computed_again"),
    [
        (WEIGHTS + LAYERS * WHOLE, Later(), 0),
        (WEIGHTS + LAYERS * LITTLE + 250, Later(), 2),
        (WEIGHTS + LAYERS * LITTLE + 250, Later(states=100), 3),  # what the optimizer's first step will take
        (WEIGHTS + LAYERS * LITTLE + 250, Later(states=400, paged=True), 4),  # it moves to the host
        (WEIGHTS + LAYERS * LITTLE + 50, Later(), 4),  # no room to try even one layer that is kept
    ],
)
def test_as_many_layers_are_kept_as_there_is_room_for(card: Any, size: int, later: Later, computed_again: int) -> None:
    model, one_pass, sized = card
    sized(size)
    found = recompute.fit_memory(model, [], [one_pass], None, later)
    assert found["memory/checkpointed_layers"] == computed_again and found["memory/on_host_gib"] == 0
    kept = found.get("memory/kept_mib_a_layer")  # None where there was no room to measure it
    assert kept == (WHOLE - LITTLE) / 2**20 or (kept is None and computed_again == LAYERS)
    assert sum(layer.gradient_checkpointing for layer in recompute.decoder_layers(model)) == computed_again
    sized(size - later.states * (not later.paged))
    one_pass()  # as decided, it fits beside the states


def test_states_for_which_there_is_no_room_are_refused(card: Any) -> None:
    model, one_pass, sized = card
    sized(WEIGHTS + LAYERS * LITTLE + 250)
    with pytest.raises(ZooError, match=r"lower train\.micro_batch_tokens"):
        recompute.fit_memory(model, [], [one_pass], None, Later(states=300))


class Matrices:
    """What stands for an embedding on the card of 150 bytes."""

    modules, bytes = ("embedding",), 150

    def __init__(self, sized: Any) -> None:
        self.move = lambda: sized(weights=WEIGHTS - self.bytes)


@pytest.mark.parametrize(
    ("room", "computed_again", "moved"),
    [
        (140, 2, True),  # 3 without
        (250, 0, True),  # 2 without
        (400, 0, False),  # nothing is computed again anyhow
        (-100, 4, True),  # else not even a pass with all of them computed again would fit
    ],
)
def test_matrices_go_to_the_host_where_that_saves_computing_layers_again(
    card: Any, room: int, computed_again: int, moved: bool
) -> None:
    model, one_pass, sized = card
    size = WEIGHTS + LAYERS * LITTLE + room
    sized(size)
    host: Any = Matrices(lambda **changes: sized(size, **changes))
    found = recompute.fit_memory(model, [], [one_pass], None, host=host)
    assert (found["memory/checkpointed_layers"], found["memory/on_host_gib"]) == (computed_again, moved * 150 / 2**30)
    one_pass()


@pytest.mark.parametrize(
    ("whole", "computed_again"),
    [
        ([190, WHOLE, WHOLE, WHOLE], 2),  # 1 by the second layer's
        ([5, WHOLE, 20, 20], 0),  # 2 by the second layer's
    ],
)
def test_what_was_reckoned_is_tried(card: Any, whole: list[int], computed_again: int) -> None:
    """A layer that keeps more or less than the one that was measured: neither too many are kept, nor too few."""
    model, one_pass, sized = card
    sized(WEIGHTS + LAYERS * LITTLE + (310 if computed_again else 250), whole=whole)
    found = recompute.fit_memory(model, [], [one_pass], None)
    one_pass()
    assert found["memory/checkpointed_layers"] == computed_again
