"""What `pip install` of the built wheel gives: the Python API, with no other packages than the wheel requires."""

from __future__ import annotations

import importlib.metadata
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

from tests.helpers.slim import run_slim, slim_environment
from zoo.bundle.product import make_wheel

PROGRAM = """
import importlib.util
import numpy as np
import pandas as pd
import preference_zoo as pz

rng = np.random.default_rng(0)
y = rng.integers(0, 3, size=90)
labels = pd.DataFrame(np.eye(3, dtype=int)[y], columns=["winner_model_a", "winner_model_b", "winner_tie"])
labels.insert(0, "id", [f"row-{i}" for i in range(90)])
labels.to_csv("labels.csv", index=False)
for name in ("one", "two"):
    p = np.exp(0.6 * np.eye(3)[y] + 0.5 * rng.normal(size=(90, 3)))
    table = pd.DataFrame(p / p.sum(axis=1, keepdims=True), columns=["p_a", "p_b", "p_tie"])
    table.insert(0, "id", labels["id"])
    table.to_csv(f"{name}.csv", index=False)
plan = pz.build(scores={"one": "one.csv", "two": "two.csv"}, labels="labels.csv", trials=0)
print(repr(plan), len(plan.predict(scores={"one": "one.csv", "two": "two.csv"})), len(plan._repr_html_()) > 10_000)
print([name for name in ("torch", "vllm", "transformers", "peft") if importlib.util.find_spec(name)], pz.__file__)
"""


def test_two_tables_become_a_plan_with_the_light_packages_alone(tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(make_wheel(tmp_path)).extractall(site)
    assert (site / "preference_zoo" / "py.typed").exists()
    needed = [Requirement(text) for text in importlib.metadata.requires("preference-zoo") or ()]
    light = [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    environment = slim_environment(tmp_path / "slim", light) | {"PYTHONPATH": str(site)}
    done = run_slim(environment, "-c", PROGRAM, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plan, packages = done.stdout.splitlines()[-2:]
    assert plan.startswith("Plan('plan.json': ") and plan.endswith(" 90 True")
    assert packages == f"[] {site}/preference_zoo/__init__.py"
