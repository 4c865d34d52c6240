"""Checkpoints of a training run: whatever step of saving one is cut short, a whole one is found."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from zoo.stages.train import checkpoint
from zoo.stages.train.checkpoint import BEST, CHECKPOINT, STATE, Progress, remove_checkpoints, resume, save_checkpoint

RMTREE = shutil.rmtree


class Killed(BaseException):
    """What no cleanup of the code under test may survive either."""


class Faults:
    """Ends the process, as it were, at the `at`-th step of the file system: before it, after it, or a folder half removed."""

    def __init__(self, at: int, when: str) -> None:
        self.at, self.when, self.seen = at, when, 0

    def wrap(self, step: Any) -> Any:
        def wrapped(*args: Any, **options: Any) -> Any:
            self.seen += 1
            if self.seen != self.at:
                return step(*args, **options)
            if step is RMTREE and self.when == "half" and Path(args[0]).exists():
                for path in Path(args[0]).iterdir():
                    if path.name != STATE:  # what says that a folder is whole may go last
                        path.unlink()
            elif self.when == "after":
                step(*args, **options)
            raise Killed

        return wrapped

    def set(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Path, "rename", self.wrap(Path.rename))
        patch.setattr(Path, "mkdir", self.wrap(Path.mkdir))
        patch.setattr(Path, "hardlink_to", self.wrap(Path.hardlink_to))
        for name in ("save_file", "write_atomic"):
            patch.setattr(checkpoint, name, self.wrap(getattr(checkpoint, name)))
        patch.setattr(checkpoint.shutil, "rmtree", self.wrap(RMTREE))


def trained_for(steps: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for step in range(steps):
        torch.manual_seed(step)
        model(torch.randn(3, 4)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def save(steps: int, folder: Path) -> None:
    """Every second checkpoint has the best weights so far."""
    model, optimizer = trained_for(steps)
    best = steps % 2 == 0
    state = Progress(step=steps, best=float(steps if best else max(0, steps - 1)))
    save_checkpoint(model, optimizer, state, folder, best=best)


def resumed(folder: Path) -> int:
    """The step that a run goes on from; its weights, optimizer state and best weights are that step's."""
    model, optimizer = trained_for(0)
    found = resume(model, optimizer, folder)
    assert found is not None
    best, _ = trained_for(int(found.best))
    kept = load_file(folder / CHECKPOINT / BEST)
    assert all(torch.equal(kept[name], value) for name, value in best.named_parameters()), "the best that the state speaks of"
    expected, states = trained_for(found.step)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))
    ours, theirs = (checkpoint.flatten(o.state_dict()["state"]) for o in (optimizer, states))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    return found.step


@pytest.mark.parametrize("when", ["before", "after", "half"])
def test_a_kill_at_any_step_of_saving_loses_at_most_that_checkpoint(when: str, tmp_path: Path) -> None:
    steps = set()
    for at in itertools.count(1):
        folder = tmp_path / str(at)
        folder.mkdir()
        save(0, folder)
        save(1, folder)
        faults = Faults(at, when)
        with pytest.MonkeyPatch.context() as patch:
            faults.set(patch)
            try:
                save(2, folder)
            except Killed:
                ended = False
            else:
                ended = True
        steps.add(resumed(folder))
        if ended:
            break
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):  # a second kill, at the same step
            Faults(at, when).set(patch)
            save(3, folder)
        assert resumed(folder) in (1, 2, 3)
        save(4, folder)
        assert resumed(folder) == 4
        remove_checkpoints(folder)
        assert not list(folder.iterdir())
    assert steps == {1, 2} and at > 8, "steps of the file system were met"
