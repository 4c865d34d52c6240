"""Blends as a plan holds them: how members' probabilities become one triple a row.

`ensemble.pools.blend` fits and applies them. Nothing is pickled: trees too are lists of numbers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from zoo.contracts import Contract, Fraction, added_later

Temperature = Annotated[float, Field(ge=0.01, le=100)]  # fitted ones lie between 0.05 and 20
Triple = tuple[float, float, float]
PoolKind = Literal["linear", "log", "logistic", "second_order", "trees", "geometric"]
Matrix = tuple[tuple[float, ...], ...]

# What boosted trees read of a row before its members' leads and pulls: `ensemble.pools.trees.tree_features` computes them.
TREE_FEATURES = ("lead", "log-odds of a tie", "mean entropy", "spread of leads", "spread of pulls")
# What they read beside these of battles whose texts are known; the lead is the log of the answers' lengths' ratio.
LENGTH_FEATURES = ("log characters of the prompt", "mean log characters of the answers", "lead in log characters")


class Products(Contract):
    """What a second-order pool adds to a logistic one: quadratic forms of coordinates.

    Of each of `members` a row has the lead u = log p_a - log p_b over `lead_scale`, and the pull to a tie
    e = log p_tie - (log p_a + log p_b) / 2, less `pull_center`, over `pull_scale`. The lead of the blend gains
    sum_jk odd_jk u_j e_k, its pull sum_jk (leads_jk u_j u_k + pulls_jk e_j e_k): the former changes sign where A and B are
    exchanged, the latter does not. Where no battle can be a tie, |u_k| takes the place of e_k, and there is no pull.
    """

    members: tuple[str, ...]
    lead_scale: tuple[float, ...]
    pull_center: tuple[float, ...]
    pull_scale: tuple[float, ...]
    odd: Matrix
    leads: Matrix
    pulls: Matrix


class Tree(Contract):
    """A decision tree.

    Node i sends a row to `left` where its feature is at most the threshold, else to `right`. A child of zero or more is
    another node, one below zero the leaf ~child, whose value is the row's.
    """

    features: tuple[int, ...]
    thresholds: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    values: tuple[float, ...]


class Trees(Contract):
    """Boosted trees that correct the lead and the log-odds of a tie of another blend.

    `reads` names what they read of a row before its members' leads and pulls, `ensemble.pools.trees.tree_features` computes
    it; `n_features`: how many numbers that is in all. They see a row from the side that the corrected blend favours, with
    `position_bias` from A's. Where they read lengths, a row whose texts are not known is not corrected.
    """

    n_features: int
    reads: tuple[str, ...] = added_later(TREE_FEATURES, description="TREE_FEATURES, and LENGTH_FEATURES after them or not")
    position_bias: bool = False
    lead: tuple[Tree, ...]
    tie: tuple[Tree, ...]

    @property
    def read_lengths(self) -> bool:
        """Whether they read the lengths of a row's texts."""
        return self.reads != TREE_FEATURES


class Blend(Contract):
    """How the probabilities of `members` become one triple a row.

    `ensemble.pools.blend.apply_blend` carries it out.

    Each member's triple is first mixed with `floor` of the uniform one (tables hold exact zeros), then raised to
    1 / its temperature. `linear`: (1 - uniform) * sum_j weights_j p_j + uniform of the uniform triple. `log`: softmax of
    sum_j weights_j log p_j + biases. `logistic`: softmax of sum_j coefficients_j @ log p_j + biases; its `weights` are shares
    of influence, for reading only. `second_order`: the same with `products` added. `trees`: the blend `parts[0]`, corrected by
    boosted `trees`. `geometric`: the mean of the logs of `parts`, weighted by `part_weights`, each row scaled to sum 1. The
    weights of the last two are those of their first part, for reading only. The result is raised to 1 / `temperature`. Last,
    `least` keeps a share of every row for labels that the fitting rows lacked: (1 - sum(least)) * result + least. Without
    `ties` the uniform triple is (1/2, 1/2, 0), every softmax is over A and B alone, and what comes out of tables whose p_tie
    is 0 has a p_tie of 0.
    """

    pool: PoolKind
    members: tuple[str, ...]
    weights: tuple[float, ...]
    temperatures: tuple[Temperature, ...]
    uniform: Fraction = 0.0
    coefficients: tuple[tuple[Triple, Triple, Triple], ...] = Field(
        (), description="logistic: member, output label, input label"
    )
    biases: Triple = (0.0, 0.0, 0.0)
    temperature: Temperature = 1.0
    floor: Fraction = 0.0
    ties: bool = added_later(True, description="whether a battle can be a tie")
    least: tuple[Fraction, Fraction, Fraction] = (0.0, 0.0, 0.0)
    products: Products | None = added_later(None, description="second_order: what it adds to a logistic pool")
    trees: Trees | None = added_later(None, description="trees: the corrections of the first part")
    parts: tuple[Blend, ...] = added_later((), description="trees, geometric: blends of the same members")
    part_weights: tuple[float, ...] = added_later((), description="geometric: one number a part")

    @property
    def reads_lengths(self) -> bool:
        """Whether any of its trees reads the lengths of a row's texts."""
        return (self.trees is not None and self.trees.read_lengths) or any(part.reads_lengths for part in self.parts)

    @model_validator(mode="after")
    def _check(self) -> Blend:
        expected = len(self.members)
        if len(self.weights) != expected or len(self.temperatures) != expected:
            raise ValueError(f"weights and temperatures need one number for each of the {expected} members")
        if self.pool in ("logistic", "second_order") and len(self.coefficients) != expected:
            raise ValueError(f"a {self.pool} pool needs coefficients for each of its {expected} members")
        if (self.products is not None) != (self.pool == "second_order"):
            raise ValueError("products belong to second_order pools, which need them")
        if (self.trees is not None) != (self.pool == "trees") or (self.pool == "trees" and len(self.parts) != 1):
            raise ValueError("trees belong to pools of that kind, which need them and one part that they correct")
        if self.pool == "geometric" and (not self.parts or len(self.parts) != len(self.part_weights)):
            raise ValueError("a geometric pool needs parts, and a number for each in part_weights")
        return self
