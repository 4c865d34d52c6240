"""What cross-validation chooses of a blend: pool, shrinkage, what is done to a table first."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ensemble.plan import PoolKind
from ensemble.pools.greedy import GREEDY_ROUNDS


@dataclass(frozen=True)
class BlendSpec:
    """What cross-validation chooses: the pool, its shrinkage, and what is done to a table first.

    `shrinkage`: linear, the Dirichlet prior toward equal weights; log pools, the ridge toward the log pool with equal weights
    times `center`, so that 0 is toward the uniform triple. `products`: second_order, how many times stronger the ridge on
    products is. `parts`: trees, the pool that they correct; geometric, the pools whose mean it is, weighted by `part_weights`.
    `tree_rounds`: how many trees for the side and for whether it is a tie. `tempered`: the linear pool's temperatures, one a
    member and one on the blend. `floor`: share of the uniform triple mixed into each member's; the linear pool has the uniform
    triple as a member of its own instead. `position_bias`: let the log pools favour a side, for battles whose order is not
    random. `rounds`: the linear pool's weights are those of so many rounds of greedy selection, 0: the best ones. `ties`:
    whether a battle can be a tie; where not, the tables' p_tie must be 0, and the blend's is. Not `fitted`: equal weights and
    nothing else, of one member its table as it is but for a small floor; on few rows every fit may cost more than it gains.
    """

    pool: PoolKind = "linear"
    shrinkage: float = 0.0
    tempered: bool = False
    floor: float = 0.0
    position_bias: bool = False
    fitted: bool = True
    rounds: int = 0
    ties: bool = True
    center: float = 1.0
    products: float = 1.0
    parts: tuple[BlendSpec, ...] = ()
    part_weights: tuple[float, ...] = ()
    tree_rounds: tuple[int, int] = (0, 0)

    @property
    def labels(self) -> int:
        """How many outcomes there are: A, B and, where there are ties, a tie."""
        return 3 if self.ties else 2

    @property
    def base(self) -> BlendSpec:
        """The pool itself, or of one that is made of others their first, which costs little to fit."""
        return self.parts[0].base if self.parts else self

    def of_kind(self, *, ties: bool, position_bias: bool) -> BlendSpec:
        """The same pool for battles of another kind.

        With or without ties, and with a bias between the sides where it can have one.
        """
        parts = tuple(part.of_kind(ties=ties, position_bias=position_bias) for part in self.parts)
        return replace(self, ties=ties, position_bias=position_bias and self.pool != "linear", parts=parts)


AS_IS = BlendSpec(fitted=False)
GREEDY = BlendSpec("linear", rounds=GREEDY_ROUNDS)
RIDGED_LOG = BlendSpec("log", 0.01, floor=1e-2)  # of one member: its temperature and the bias of a tie
RIDGED_LOGISTIC = BlendSpec("logistic", 0.01, floor=1e-2)
SPECS: tuple[BlendSpec, ...] = (
    AS_IS,
    *(BlendSpec("linear", shrinkage, tempered) for shrinkage in (0.0, 0.01) for tempered in (False, True)),
    *(BlendSpec("log", shrinkage, floor=floor) for shrinkage in (0.0, 0.01) for floor in (1e-4, 1e-2)),
    *(BlendSpec("logistic", shrinkage, floor=floor) for shrinkage in (1e-4, 1e-2) for floor in (1e-4, 1e-2)),
)
