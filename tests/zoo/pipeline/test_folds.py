"""Folds of an entry: one chain a fold, the whole file scored out of fold, adapters averaged for serving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.manifests import manifest
from zoo.contracts import Entry, Held, MergeRequest, Request, Selection
from zoo.data.battles import read_battles
from zoo.data.splits import assign_folds, prompt_groups
from zoo.entries.load import load_entry, override
from zoo.errors import ZooError
from zoo.pipeline.chain import battles_input, chain
from zoo.pipeline.folds import average_chain, fold_chains
from zoo.report.folds import folds_table
from zoo.report.text import as_text
from zoo.scores.metrics import log_loss_rows
from zoo.scores.out_of_fold import out_of_fold
from zoo.scores.tables import score_table, write_scores
from zoo.store import Artifact, fingerprint


@pytest.fixture
def entry() -> Entry:
    return load_entry("smollm2-135m")


def chains_of(entry: Entry, csv: Path, store: Path, n_folds: int = 3) -> list[list[Request]]:
    return fold_chains(entry, battles_input(csv), "cpu", store, held=Held(n_folds=n_folds), selection=Selection(), source="hub")


def test_folds_share_their_base_and_nothing_else(entry: Entry, sample_csv: Path, tmp_path: Path) -> None:
    chains = chains_of(entry, sample_csv, tmp_path)
    assert [request.stage for request in chains[0]] == ["fetch", "train", "merge", "quantize", "score"]
    names = [[fingerprint(request) for request in requests] for requests in chains]
    assert len({fetch for fetch, *_ in names}) == 1
    assert len({name for _, *rest in names for name in rest}) == 3 * 4


def test_a_lexical_entry_scores_every_row_in_one_run(sample_csv: Path, tmp_path: Path) -> None:
    chains = chains_of(load_entry("lexical"), sample_csv, tmp_path, n_folds=4)
    assert len(chains) == 1 and chains[0][0].spec.folds == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["lexical", "smollm2-135m"])
def test_a_target_is_known_before_anything_runs(name: str, sample_csv: Path, tmp_path: Path) -> None:
    """By its name, or as a TOML file that need not lie where targets are looked for."""
    given = {"entry": load_entry(name), "battles": battles_input(sample_csv), "store": tmp_path}
    given |= {"held": Held(), "selection": Selection(), "source": "hub"}
    with pytest.raises(ZooError, match="no target 'nope'; known: "):
        chain(**given, target="nope")
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\ngpus = 0\ndtypes = ["float32"]\nmargin = 1.5\n')
    assert chain(**given, target=str(path))[-1].target == str(path)


def test_the_averaged_checkpoint_is_made_of_all_adapters(entry: Entry, sample_csv: Path, tmp_path: Path) -> None:
    chains = chains_of(entry, sample_csv, tmp_path)
    merge, quantize = average_chain(chains, tmp_path)
    assert isinstance(merge, MergeRequest)
    adapters = [merge.adapter, *merge.more_adapters]
    assert [given.fingerprint for given in adapters] == [fingerprint(requests[1]) for requests in chains]
    assert fingerprint(merge) not in {fingerprint(requests[2]) for requests in chains}
    assert quantize.model.fingerprint == fingerprint(merge)  # type: ignore[attr-defined]


def test_merging_one_adapter_keeps_the_fingerprint_it_always_had(entry: Entry, sample_csv: Path, tmp_path: Path) -> None:
    assert "more_adapters" not in chains_of(entry, sample_csv, tmp_path)[0][2].model_dump()


@pytest.mark.parametrize("method", ["full", None])
def test_what_has_no_adapters_is_not_averaged(entry: Entry, sample_csv: Path, tmp_path: Path, method: str | None) -> None:
    given = override(entry, [f"train.method={method}"]) if method else load_entry("lexical")
    with pytest.raises(ZooError, match="no adapters to average"):
        average_chain(chains_of(given, sample_csv, tmp_path), tmp_path)


def scored(folder: Path, table: pd.DataFrame) -> Artifact:
    (folder / "ab").mkdir(parents=True)
    write_scores(table, folder / "ab" / "scores.parquet")
    return Artifact(folder, manifest(fingerprint=folder.name))


def test_every_row_counts_once_out_of_fold(sample_csv: Path, tmp_path: Path) -> None:
    """Oracle: the mean of all rows' losses, by hand; and a fold's own mean."""
    frame = read_battles(sample_csv).frame
    folds, y = assign_folds(frame, 3), frame["label"].to_numpy()
    p = np.random.default_rng(0).dirichlet((2, 2, 2), len(frame))
    tables = [score_table(frame["id"][folds == f].tolist(), p[folds == f], fold=f) for f in range(3)]
    labels = frame.set_index("id")["label"]
    groups = pd.Series(prompt_groups(frame), index=frame["id"])
    found = out_of_fold([scored(tmp_path / str(f), table) for f, table in enumerate(tables)], labels, groups)[0]
    assert found.whole["val/rows"] == len(frame)
    assert found.whole["val/log_loss"] == pytest.approx(log_loss_rows(p, y).mean())
    assert found.by_fold[1]["val/log_loss"] == pytest.approx(log_loss_rows(p, y)[folds == 1].mean())
    assert "all, out of fold" in as_text(folds_table([found]))
    with pytest.raises(ZooError, match="scored in two folds"):
        out_of_fold([scored(tmp_path / name, tables[0]) for name in ("x", "y")], labels, groups)
