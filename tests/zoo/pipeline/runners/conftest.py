"""A real Ray cluster of two hosts, both of them processes of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from zoo.pipeline.runners.ray_address import CLUSTERS

os.environ.setdefault(CLUSTERS, "0")  # read as Ray is imported: its processes listen on loopback alone

# A host that is killed is known to be gone after some five seconds, not after twenty.
HEALTH = {"health_check_initial_delay_ms": 5000, "health_check_period_ms": 1000, "health_check_failure_threshold": 5}


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """Head without processors and two hosts of one each; `RAY_ADDRESS` is its address."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # machines are shared
    os.environ.setdefault("RAY_worker_niceness", "0")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH})
    for _ in range(2):
        made.add_node(num_cpus=1)
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = made.address
    yield made
    os.environ.pop("RAY_ADDRESS")
    if before is not None:
        os.environ["RAY_ADDRESS"] = before
    made.shutdown()
