"""One fold rule for a chain: a stage reads nothing that was made with folds by another."""

from __future__ import annotations

from pathlib import Path

from zoo.contracts import FoldRule, Request, fold_rule, rule_name
from zoo.errors import ZooError
from zoo.scores.tables import CARD, read_card
from zoo.store import MANIFEST, read_manifest


def check_fold_rules(request: Request) -> None:
    """ZooError where an artifact that a stage reads has folds by another rule than its own.

    Its held-out rows, or near-copies of them, would be among those that the artifact has learned from. Stages that take no
    fold, as where listed rows are scored, may read any.
    """
    if not has_folds(request):
        return
    for name, given in request.inputs.items():
        if given.place is None or not (given.path / MANIFEST).exists():
            continue
        made = read_manifest(given.path).request
        if has_folds(made) and fold_rule(made) != fold_rule(request):
            theirs, ours = rule_name(fold_rule(made)), rule_name(fold_rule(request))
            raise ZooError(
                f"{request.entry}: {request.stage} is asked for folds by {ours}, and its {name} {given.path.name} has folds by "
                f"{theirs}; a chain has one fold rule: make all of it by {ours}, or ask for --fold-rule {theirs}"
            )


def check_teacher(path: Path, rule: FoldRule | None) -> None:
    """ZooError where a teacher's table has folds by another rule than the training.

    As far as its card says by which it has them.
    """
    card = read_card(path.parent / CARD) if (path.parent / CARD).is_file() else None
    if card is not None and card.request is not None and has_folds(card.request) and card.fold_rule != rule:
        theirs, ours = rule_name(card.fold_rule), rule_name(rule)
        raise ZooError(
            f"train.teacher: {path} has folds by {theirs}, this run by {ours}; a chain has one fold rule: "
            f"score the teacher by {ours}, or run with --fold-rule {theirs}"
        )


def has_folds(request: Request) -> bool:
    """Whether a request holds rows out by folds."""
    selection = getattr(request, "selection", None)
    by_fold = selection is None or selection.rows == "held_out"
    return by_fold and not type(request).model_fields.keys().isdisjoint({"held", "rule"})
