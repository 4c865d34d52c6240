"""CUDA compute capabilities of NVIDIA's GPU generations, by name.

What a card can do by its capability stands here; how fast a card is stands in its target's file (`zoo/targets/t4x2.toml`).
"""

from __future__ import annotations

Capability = tuple[int, int]
TURING: Capability = (7, 5)  # T4: tensor cores for float16, no bfloat16
AMPERE: Capability = (8, 0)  # the first with bfloat16
ADA: Capability = (8, 9)  # L4, RTX 40: tensor cores for fp8
HOPPER: Capability = (9, 0)  # H100, H200
BLACKWELL = 10  # major capability of B200 and its kin; consumer cards have 12
