"""Checkpoints as logged models, and registered models with versions and aliases.

Every stage that makes weights leaves a logged model that stands for them: its files stay in the store. A checkpoint that was
scored becomes a version of the registered model called like its entry, with the alias `candidate`; `champion` is the version
that `zoo promote` or a build picked.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from zoo.pipeline.stage_table import stage_of
from zoo.scores.metric_names import ACCURACY, HOURS_25K, LOG_LOSS, LOG_LOSS_SE, ROWS
from zoo.store import write_atomic
from zoo.tracking.client.models import (
    add_version,
    describe_model,
    ensure_registered,
    external_model,
    link_model,
    registered_version,
)
from zoo.tracking.describe import DESCRIBED, NOTE, is_our_note, note_tags, run_link, version_note
from zoo.tracking.facts import Data, Facts
from zoo.tracking.home import aliases_file
from zoo.tracking.kept import Aliases, read_kept, set_file_aside

if TYPE_CHECKING:
    from zoo.tracking.client.connection import MlflowClient

CANDIDATE, CHAMPION = "candidate", "champion"
SCORED_AT = "zoo.scored_at"


def log_checkpoint(client: MlflowClient, experiment: str, fact: Facts, run_id: str) -> None:
    """The weights that a stage left, as an external logged model.

    Nothing for stages that leave none.
    """
    kind = stage_of(fact.tags["zoo.stage"]).leaves
    kind = fact.params.get("quantize.scheme", kind) if kind == "awq" else kind
    if not kind:
        return
    name = f"{fact.tags['zoo.entry']}-{kind}".replace(".", "_")
    tags = {key: value for key, value in fact.tags.items() if key in ("zoo.entry", "zoo.entry_version", "zoo.git_commit")}
    fingerprint = fact.tags["zoo.fingerprint"]
    model = external_model(client, experiment, fingerprint, name=name, kind=kind, run_id=run_id, tags=tags)
    link_model(client, run_id, model.model_id, output=True)


def register_scored(client: MlflowClient, experiment: str, fact: Facts, data: Data | None, run_id: str, scored_at: str) -> None:
    """The scored checkpoint as a version of its entry's registered model.

    The `candidate`, unless a later one is. A version's tags say which members it stands for: `zoo.members`, separated by
    commas. Scored again, in another variant or on other data, it stays the same version. `scored_at`: ISO 8601, UTC, since a
    stage may be logged long after it ended.
    """
    if fact.card is None:
        return
    entry, checkpoint = fact.card.entry, fact.card.checkpoint
    name = f"{entry}-scored".replace(".", "_")
    model = external_model(client, experiment, checkpoint, name=name, kind="scored", run_id=run_id, tags={"zoo.entry": entry})
    link_model(client, run_id, model.model_id)
    describe_model(client, model, run_id, fact.params, fact.metrics, data)
    ensure_registered(client, entry, f"Entry {entry} of the zoo: a version for each checkpoint that was scored.")
    version = registered_version(client, entry, checkpoint)
    if version is None:
        tags = {"zoo.checkpoint": checkpoint, "zoo.dataset": fact.card.dataset_digest, "zoo.members": "", SCORED_AT: ""}
        version = add_version(client, entry, model, run_id, tags)
    members = members_of(version.tags) | {fact.card.member}
    client.set_model_version_tag(entry, version.version, "zoo.members", ",".join(sorted(members)))
    is_newer = scored_at > version.tags.get(SCORED_AT, "")
    if is_newer:
        client.set_model_version_tag(entry, version.version, SCORED_AT, scored_at)
    if is_newer or not version.description:
        _describe_version(client, entry, version, fact, data, run_link(fact.name, experiment, run_id))
    now = candidate_of(client, entry)
    if now is None or scored_at >= now.tags.get(SCORED_AT, ""):
        client.set_registered_model_alias(entry, CANDIDATE, version.version)


def _describe_version(client: MlflowClient, entry: str, version: Any, fact: Facts, data: Data | None, run: str) -> None:
    """Its description and figures, of the scoring that came last; what people wrote over the description stays."""
    tags = version.tags | {NOTE: version.description or ""}
    if is_our_note(tags):
        note = version_note(fact, data, run)
        client.update_model_version(entry, version.version, note)
        client.set_model_version_tag(entry, version.version, DESCRIBED, note_tags(note)[DESCRIBED])
    told = {name: f"{fact.metrics[name]:.6g}" for name in _OF_VERSION if name in fact.metrics}
    told |= {"data": data.name} if data else {}
    for name, value in told.items():
        client.set_model_version_tag(entry, version.version, name.replace("/", "."), value)


_OF_VERSION = (LOG_LOSS, LOG_LOSS_SE, ROWS, ACCURACY, HOURS_25K)


def candidate_of(client: MlflowClient, entry: str) -> Any:
    """The version of an entry's registered model that is the candidate, or None."""
    number = client.get_registered_model(entry).aliases.get(CANDIDATE)
    return client.get_model_version(entry, str(number)) if number else None


def members_of(tags: dict[str, str]) -> set[str]:
    """The members that a registered version stands for, by its tags."""
    return set(filter(None, tags.get("zoo.members", "").split(",")))


def crown(client: MlflowClient, entry: str, checkpoint: str, at: str) -> None:
    """Make a scored checkpoint its entry's `champion`.

    Nothing where it is not registered, or where another was made champion after `at`.
    """
    version = registered_version(client, entry, checkpoint)
    if version is not None and at >= kept_aliases().get(entry, {}).get(CHAMPION, {}).get("at", ""):
        give_alias(client, entry, CHAMPION, version, at)


def give_alias(client: MlflowClient, entry: str, alias: str, version: Any, at: str) -> None:
    """Give a registered version an alias, and keep that in the home.

    No store of MLflow is the only one that knows it. `at`: ISO 8601, UTC, when that was decided. Hold the lock.
    """
    client.set_registered_model_alias(entry, alias, version.version)
    keep_alias(entry, alias, version.tags.get("zoo.checkpoint", ""), at)


def keep_alias(entry: str, alias: str, checkpoint: str, at: str) -> None:
    """Note in the home which checkpoint an alias was given to, and when."""
    kept = kept_aliases()
    kept.setdefault(entry, {})[alias] = {"checkpoint": checkpoint, "at": at}
    write_atomic(aliases_file(), json.dumps(kept, indent=1, sort_keys=True))


def restore_aliases(client: MlflowClient) -> None:
    """Give the aliases that the home keeps where the tracking store lacks them.

    It was made again, or is another one.
    """
    given = {model.name: model.aliases for model in client.search_registered_models()}
    for entry, aliases in kept_aliases().items():
        for alias in aliases.keys() - given.get(entry, aliases).keys():
            version = registered_version(client, entry, aliases[alias]["checkpoint"])
            if version is not None:
                client.set_registered_model_alias(entry, alias, version.version)


def kept_aliases() -> dict[str, dict[str, dict[str, str]]]:
    """Entry -> alias -> `checkpoint`, the fingerprint that it was given to, and `at`, when."""
    path = aliases_file()
    if not path.exists():
        return {}
    kept: dict[str, dict[str, dict[str, str]]] | None = read_kept(path, Aliases)
    if kept is None:
        set_file_aside(path, "give the aliases again with `zoo promote`")
    return kept or {}
