"""One fold rule for a blend: members whose folds go by different rules are not mixed."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.contracts import FoldRule, rule_name
from zoo.errors import ZooError
from zoo.pipeline.members import Table
from zoo.scores.tables import NO_FOLD


def of_one_rule(tables: Sequence[Table], left_out: dict[str, str]) -> tuple[list[Table], FoldRule | None]:
    """The tables whose folds go by one rule, or by nobody knows which, and that rule.

    A member that was scored by several rules is taken by the one that all members have; where they have two in common, by that
    of the newest table. ZooError where no rule is common to all: one member would be judged on near-copies of what it has
    learned, the other not, and the blend would trust the first too much. `gather` lists the oldest first.
    """
    known = [table for table in tables if says_its_rule(table)]
    rules = list(dict.fromkeys(table.card.fold_rule for table in reversed(known)))
    if len(rules) < 2:
        return list(tables), rules[0] if rules else None
    names = {table.name for table in tables}
    for rule in rules:
        chosen = [table for table in tables if not says_its_rule(table) or table.card.fold_rule == rule]
        if {table.name for table in chosen} == names:
            for table in tables:
                if not any(table is one for one in chosen):
                    reason = f"its folds are by {rule_name(table.card.fold_rule)}, the others' by {rule_name(rule)}"
                    left_out[f"{table.name} ({table.which})"] = reason
            return chosen, rule
    by_rule = {rule: sorted({table.name for table in known if table.card.fold_rule == rule}) for rule in rules}
    named = "; ".join(f"{', '.join(found)}: folds by {rule_name(rule)}" for rule, found in by_rule.items())
    raise ZooError(f"members of different fold rules ({named}); score all by one of them: zoo run NAME --fold-rule RULE")


def says_its_rule(table: Table) -> bool:
    """Whether it is known by which rule a table's folds go.

    It is not of one that was imported, nor of one without folds.
    """
    return table.card.request is not None and bool((table.frame["fold"] != NO_FOLD).any())
