"""One fold rule for a blend: members whose folds go by different rules are not mixed."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.contracts import FoldRule, rule_name
from zoo.errors import ZooError
from zoo.pipeline.members import Table, standing


def of_one_rule(
    tables: Sequence[Table], left_out: dict[str, str], prefer: Sequence[str] = ()
) -> tuple[list[Table], FoldRule | None]:
    """The tables whose folds go by one rule, or by nobody knows which, and that rule.

    A member that was scored by several rules is taken by the one that all members have. Where they have two in common, that of
    the preferred tables (fingerprints) is taken, else the one by which they keep most rows, else that of the newest table.
    ZooError where no rule is common to all, or none that the preferred tables go by: one member would be judged on near-copies
    of what it has learned, the other not, and the blend would trust the first too much. `gather` lists the oldest first.
    """
    known = [table for table in tables if table.says_its_rule]
    rules = list(dict.fromkeys(table.card.fold_rule for table in reversed(known)))
    if len(rules) < 2:
        return list(tables), rules[0] if rules else None
    names = {table.name for table in tables}
    by_rule = {rule: [t for t in tables if not t.says_its_rule or t.card.fold_rule == rule] for rule in rules}
    common = {rule: chosen for rule, chosen in by_rule.items() if {table.name for table in chosen} == names}
    if not common:
        of_rule = {rule: sorted({table.name for table in known if table.card.fold_rule == rule}) for rule in rules}
        named = "; ".join(f"{', '.join(found)}: folds by {rule_name(rule)}" for rule, found in of_rule.items())
        raise ZooError(f"members of different fold rules ({named}); score all by one of them: zoo run NAME --fold-rule RULE")
    asked = [table for table in known if any(table.is_called(text) for text in prefer)]
    allowed = [rule for rule in common if all(table.card.fold_rule == rule for table in asked)]
    if not allowed:
        named = ", ".join(f"{table.name} ({table.which}): folds by {rule_name(table.card.fold_rule)}" for table in asked)
        raise ZooError(f"--prefer: no fold rule of all members is that of {named}; prefer others")
    kept = {rule: sum(member.rows for member in standing(common[rule], prefer).members) for rule in allowed}
    rule = max(allowed, key=kept.__getitem__)  # of equal ones the first, which is the newest table's
    for table in tables:
        if not any(table is one for one in common[rule]):
            reason = f"its folds are by {rule_name(table.card.fold_rule)}, the others' by {rule_name(rule)}"
            left_out[f"{table.name} ({table.which})"] = reason + f", with {kept[rule]:,} rows of all members"
    return common[rule], rule
