"""GPUs are dealt to replicas, and split copies get all of them."""

from __future__ import annotations

import pytest

from zoo.contracts import ServeSpec
from zoo.errors import ZooError
from zoo.stages.score.placement import places
from zoo.targets import load_target


def test_replicas_get_a_gpu_each_and_split_copies_all_of_them() -> None:
    two, cpu = load_target("t4x2"), load_target("cpu")
    assert places(ServeSpec(), two, ("0", "1", "2")) == ({"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"})
    assert places(ServeSpec(), two, ("GPU-x",)) == ({"CUDA_VISIBLE_DEVICES": "GPU-x"},)
    assert places(ServeSpec(layout="pipeline"), two, ("4", "5")) == ({"CUDA_VISIBLE_DEVICES": "4,5"},)
    assert places(ServeSpec(), two, ()) == places(ServeSpec(), cpu, ("0",)) == ({},)
    with pytest.raises(ZooError, match="has 2 GPUs, 1 are visible"):
        places(ServeSpec(layout="tensor"), two, ("0",))
