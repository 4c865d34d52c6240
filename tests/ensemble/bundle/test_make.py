"""A bundle of a plan: what is in it, that it is whole or not there, and what cannot be bundled."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ensemble.bundle.check import check_bundle
from ensemble.bundle.commands import commands_of
from ensemble.bundle.make import Asked, make_bundle
from ensemble.plan import load_plan, save_plan
from tests.ensemble.bundle.conftest import LEXICAL, MODEL
from tests.helpers.paths import ROOT
from zoo.bundle.check import read_bundle
from zoo.bundle.contracts import BUNDLE
from zoo.errors import ZooError
from zoo.store import read_manifest


def test_the_folder_has_what_the_contract_says(made: Path, plan: Path, store: Path) -> None:
    bundle = read_bundle(made)
    assert sorted(path.name for path in made.iterdir()) == ["job", "model-1", "notebook", "wheels"]
    assert (made / "job" / "plan.json").read_bytes() == plan.read_bytes()
    (lexical,) = (made / "job" / "store").iterdir()
    assert lexical.name.startswith("lexical-train-") and read_manifest(lexical).stage == "lexical-train"
    part = bundle.part("model-1")
    assert part.members == (MODEL,) and part.artifact is not None and (store / part.artifact).is_dir()
    assert read_manifest(made / "model-1") == read_manifest(store / part.artifact)
    assert {file.licence for file in part.files} == {"Apache-2.0"}, "as the entry says, where its fetching is not in the store"
    assert bundle.target.usable_bytes == 15636037632 and bundle.target.engine == "0.21.0" and bundle.budget_seconds == 32400
    assert (made / "job" / "script" / "__main__.py").is_file()


def test_light_wheels_are_those_that_need_no_engine(made: Path) -> None:
    light = set(read_bundle(made).light)
    names = {name.partition("-")[0] for name in light}
    assert {"numpy", "scipy", "scikit_learn", "preference_zoo"} <= names and not names & {"vllm", "torch", "uv", "tokenizers"}
    assert light <= {path.name for path in (made / "wheels").iterdir()}


def test_no_place_and_no_host_s_name_in_what_is_uploaded_about_wheels(made: Path) -> None:
    for path in (made / "wheels" / "requirements.lock", made / "wheels" / "part.json", made / "job" / BUNDLE):
        assert "://" not in path.read_text() and str(made.parent) not in path.read_text()


def test_another_plan_has_the_same_wheels(made: Path, asked: Asked, tmp_path: Path) -> None:
    save_plan(load_plan(asked.plan).model_copy(update={"budget_seconds": 9000.0}), tmp_path / "other.json")
    other = make_bundle(dataclasses.replace(asked, plan=tmp_path / "other.json"), tmp_path / "other", print)
    first = read_bundle(made)
    assert other.name != first.name and other.part("wheels") == first.part("wheels")
    assert other.part("model-1").digest == first.part("model-1").digest


def test_the_commands_name_what_is_there(made: Path) -> None:
    commands = commands_of(read_bundle(made), made)
    assert [line.split()[:3] for line in commands[:4]] == [["kaggle", "datasets", "create"]] * 3 + [
        ["kaggle", "kernels", "push"]
    ]
    assert "-r tar" in commands[1] and "-r tar" in commands[2] and "-r" not in commands[0].split()
    assert "--accelerator NvidiaTeslaT4" in commands[3]
    kernel = json.loads((made / "notebook" / "kernel-metadata.json").read_text())["id"]
    assert all(kernel in line for line in commands[4:]) and "competitions submit lmsys-chatbot-arena" in commands[-1]


def test_a_bundle_is_made_again_in_its_place_and_nothing_else_is(made: Path, asked: Asked, tmp_path: Path) -> None:
    (made / "job" / "more.txt").write_text("x")
    make_bundle(asked, made, print)
    assert not (made / "job" / "more.txt").exists() and list(tmp_path.glob(".bundle*")) == []
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").touch()
    with pytest.raises(ZooError, match="no bundle lies there"):
        make_bundle(asked, mine, print)
    assert (mine / "thesis.tex").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
import ensemble.bundle.make as made
import zoo.bundle.assemble as m
from tests.helpers.wheels import PURE
m.make_wheel = lambda folder: Path(__import__("shutil").copy(sys.argv[4], folder))
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
where = sys.argv[5]
before = getattr(m, where)
setattr(m, where, kill)
made.make_bundle(made.Asked(Path(sys.argv[1]), "comp", "me", Path(sys.argv[2])), Path(sys.argv[3]), print)
"""


@pytest.mark.parametrize("where", ["write_metadata", "write_notebook", "replace_folder"])
def test_a_bundle_that_was_killed_half_way_is_none(
    where: str, asked: Asked, product: Path, tmp_path: Path, store: Path
) -> None:
    output = tmp_path / "bundle"
    arguments = [str(asked.plan), str(store), str(output), str(product), where]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, env={**os.environ}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not output.exists()
    with pytest.raises(ZooError, match="is no bundle, or was not finished"):
        check_bundle(output)
    make_bundle(asked, output, print)
    assert list(tmp_path.glob(".bundle*")) == [] and read_bundle(output).owner == "me"


def test_members_without_a_checkpoint_are_named_with_the_mend(asked: Asked, tmp_path: Path) -> None:
    plan = load_plan(asked.plan)
    imported = plan.members[1].model_copy(update={"request": None})
    path = tmp_path / "imported.json"
    save_plan(plan.model_copy(update={"members": (plan.members[0], imported)}), path)
    with pytest.raises(ZooError, match=rf"{MODEL} was imported.*--exclude {MODEL}"):
        make_bundle(dataclasses.replace(asked, plan=path), tmp_path / "out", print)
    only = plan.members[0].model_copy(update={"request": None})
    save_plan(plan.model_copy(update={"members": (only, imported)}), path)
    with pytest.raises(ZooError, match="consists of imported tables"):
        make_bundle(dataclasses.replace(asked, plan=path), tmp_path / "out", print)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target": "t4"}, "t4 has 1.*ensemble build --target t4"),
        ({"target": "v100"}, "no target"),
        ({"user": "Me Myself"}, "--user"),
        ({"competition": "https://x"}, "--competition"),
        ({"modules": Path("nowhere")}, "FlashInfer"),
    ],
)
def test_what_cannot_be_bundled(asked: Asked, tmp_path: Path, change: dict[str, object], said: str) -> None:
    with pytest.raises(ZooError, match=said):
        make_bundle(dataclasses.replace(asked, **change), tmp_path / "out", print)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_is_not_in_the_store_or_damaged(asked: Asked, tmp_path: Path, store: Path) -> None:
    (folder,) = store.glob("quantize-*")
    (folder / "model" / "config.json").write_text("{}")
    with pytest.raises(ZooError, match=r"config\.json has 2 bytes"):
        make_bundle(asked, tmp_path / "out", print)
    folder.rename(tmp_path / "away")
    with pytest.raises(ZooError, match=f"{MODEL}: checkpoint .* is not in"):
        make_bundle(asked, tmp_path / "out", print)


def test_modules_and_own_targets_go_into_the_job(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    (tmp_path / "modules" / "75" / "prefill").mkdir(parents=True)
    (tmp_path / "modules" / "75" / "prefill" / "prefill.so").write_bytes(b"so")
    (tmp_path / "modules" / "75" / "prefill" / "build.ninja").write_text("x")
    own = store.parent / "targets"
    own.mkdir()
    (own / "my-box.toml").write_text('name = "my-box"\ngpus = 0\ndtypes = ["float32"]\nmargin = 1\n')
    plan = load_plan(asked.plan)
    member = plan.members[1]
    assert member.request is not None
    changed = member.model_copy(update={"request": member.request.model_copy(update={"target": "my-box"})})
    save_plan(plan.model_copy(update={"members": (plan.members[0], changed)}), tmp_path / "own.json")
    bundle = make_bundle(
        dataclasses.replace(asked, plan=tmp_path / "own.json", modules=tmp_path / "modules"), tmp_path / "out", print
    )
    paths = {file.path for file in bundle.files}
    assert {"flashinfer/prefill/prefill.so", "targets/my-box.toml"} <= paths and not any("ninja" in path for path in paths)


def test_a_plan_without_language_models_brings_no_engine(asked: Asked, tmp_path: Path) -> None:
    plan = load_plan(asked.plan)
    pools = tuple(pool for pool in plan.pools if pool.members == (LEXICAL,))
    lexical = plan.members[0].model_copy(update={"weight": 1.0})
    schedule = tuple(job for job in plan.schedule if job.members == (LEXICAL,))
    save_plan(plan.model_copy(update={"members": (lexical,), "pools": pools, "schedule": schedule}), tmp_path / "small.json")
    bundle = make_bundle(dataclasses.replace(asked, plan=tmp_path / "small.json"), tmp_path / "out", print)
    assert [part.name for part in bundle.parts] == ["wheels"] and bundle.image.driver is None
    assert not list((tmp_path / "out" / "wheels").glob("vllm*"))
