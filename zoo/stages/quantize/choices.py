"""What may stay in 16 bits beside 8 bit activations: the choices, and which is taken.

Joined matrices stay or go together, since engines multiply queries with keys and values, and gate with up, at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
PARTS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "output of attention": ("self_attn.o_proj",),
    "input of attention": ATTENTION,
    "attention": (*ATTENTION, "self_attn.o_proj"),
    "down_proj": ("mlp.down_proj",),
    "down_proj and output of attention": ("mlp.down_proj", "self_attn.o_proj"),
    "gate_proj and up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}
EDGES = "first two and last two layers"
EDGE = 2
CLOSE, CLOSE_NATS = 1.1, 1e-4  # less is kept where its divergence is within this factor, or so few nats, of the least


@dataclass(frozen=True)
class Choice:
    """Linears that stay in 16 bits.

    They are `parts` of every layer, and of `layers` all. `share`: of the products that they are.
    """

    name: str
    parts: tuple[str, ...]
    layers: frozenset[int]
    share: float

    def rounded(self, layer: int, names: Sequence[str]) -> list[str]:
        """Those of a layer's linears that are rounded."""
        return [] if layer in self.layers else [name for name in names if name not in self.parts]


def choices_of(sizes: Mapping[str, int], layers: int, names: Sequence[str], most: float) -> list[Choice]:
    """The choices that keep no more than `most` of the products in 16 bits.

    `sizes`: weights of a layer's linears by name; `names`: those that may be rounded at all.
    """
    total = sum(sizes.values())
    always = sum(size for name, size in sizes.items() if name not in names)

    def share(kept: Sequence[str], whole_layers: int = 0) -> float:
        of_layer = (always + sum(sizes[name] for name in kept if name in names)) / total
        return (whole_layers + (layers - whole_layers) * of_layer) / layers

    found = [Choice(title, parts, frozenset(), share(parts)) for title, parts in PARTS.items()]
    if layers > 2 * EDGE:
        edges = frozenset([*range(EDGE), *range(layers - EDGE, layers)])
        found.append(Choice(EDGES, (), edges, share((), len(edges))))
    return [choice for choice in found if choice.name == "nothing" or choice.share <= most + 1e-9]


def choose(divergence: Mapping[Choice, float]) -> Choice:
    """The choice with the least divergence; of those close to it, the one that keeps least."""
    least = min(divergence.values())
    close = [choice for choice, value in divergence.items() if value <= max(CLOSE * least, least + CLOSE_NATS)]
    return min(close, key=lambda choice: (choice.share, divergence[choice]))
