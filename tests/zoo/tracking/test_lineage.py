"""From a training's run to the runs of all that its data were made of."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers.made import make_labels
from tests.helpers.manifests import finished
from tests.helpers.requests import train_request
from tests.helpers.tracked import all_runs
from zoo.contracts import Input, changed
from zoo.store import file_sha256, list_artifacts
from zoo.tracking.client import connection as tracking_client
from zoo.tracking.sync import log_stage


def test_a_training_s_run_names_the_runs_of_its_labels_and_pairs(tmp_path: Path, home: Path) -> None:
    labelled, store = make_labels(tmp_path), home / "store"
    (label,), (mine,) = list_artifacts(store, "label"), list_artifacts(store, "mine")
    extra = Input(path=labelled, fingerprint=file_sha256(labelled)[:16])
    artifact = finished(store, changed(train_request(tmp_path, tmp_path / "main.csv"), extra=extra))
    assert log_stage(artifact.manifest, artifact.path)
    runs = {run.data.tags["zoo.fingerprint"]: run for run in all_runs("stage")}
    run = runs[artifact.fingerprint]
    assert run.data.tags["zoo.lineage"] == f"{label.path.name} <- {mine.path.name}"
    read = {data.tags[0].value: data.dataset for data in run.inputs.dataset_inputs}
    assert set(read) == {"training", "extra"} and read["extra"].digest == extra.fingerprint
    assert json.loads(read["extra"].source) == {"uri": "labelled.csv.gz", "made_by": [label.path.name]}
    assert json.loads(read["extra"].profile) == {"num_rows": 147}
    path = tracking_client.connect().download_artifacts(run.info.run_id, "lineage.json", str(tmp_path))
    chain = json.loads(Path(path).read_text())
    assert chain["runs"] == {each.fingerprint: runs[each.fingerprint].info.run_id for each in (label, mine)}
    assert str(tmp_path) not in json.dumps(chain), "no place of this machine"
    of_label = {data.tags[0].value: data.dataset.name for data in runs[label.fingerprint].inputs.dataset_inputs}
    assert of_label == {"pairs": "pairs.csv.gz", "judges 1": "ab.csv", "judges 2": "ba.csv", "human": "human.csv"}
    assert {data.dataset.name for data in runs[mine.fingerprint].inputs.dataset_inputs} == {"log.jsonl", "never.csv"}


def test_what_has_no_made_data_behind_it_logs_no_lineage(tmp_path: Path, home: Path) -> None:
    artifact = finished(home / "store", train_request(tmp_path, tmp_path / "main.csv"))
    log_stage(artifact.manifest, artifact.path)
    (run,) = all_runs("stage")
    assert "zoo.lineage" not in run.data.tags and len(run.inputs.dataset_inputs) == 1
