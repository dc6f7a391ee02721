"""A random valid Config for a program, and which keys of one say something."""

from __future__ import annotations

import random
from typing import Any

import helion
from helion import exc
from helion.autotuner.space import SearchSpace
from helion.bound_kernel import BoundKernel
from helion.config_keys import LOAD_CACHE_MODIFIERS
from helion.config_keys import STORE_CACHE_MODIFIERS
from helion.target import Target

from .program import Program

#: Statements that ref mode runs for one program: it took half of the time of all, most of it for a few programs.
_MOST_STEPS = 500


#: `Program.work` that a thread of a GPU has of one: one of 4,000 took Triton two minutes.
_MOST_WORK = 400


def limit(program: Program, bound: BoundKernel, capability: int) -> None:
    """Make the smallest tiles larger while a program has very many, and the largest smaller while those are too large
    to be compiled."""
    sizes = program.config.get("block_sizes", [])

    def resize(at: int, size: int) -> bool:
        nonlocal sizes
        other = {**program.config, "block_sizes": [*sizes[:at], size, *sizes[at + 1 :]]}
        try:
            bound.backend(Target("nvidia", capability)).spec.normalize(helion.Config(**other))
        except exc.InvalidConfig:
            return False
        program.config, sizes = other, other["block_sizes"]
        return True

    while sizes and program.steps() > _MOST_STEPS and min(sizes) < 32:
        if not resize(sizes.index(min(sizes)), 2 * min(sizes)):
            break
    while sizes and program.work() > _MOST_WORK and max(sizes) > 16:
        if not resize(sizes.index(max(sizes)), max(sizes) // 2):
            break


def draw(bound: BoundKernel, capability: int, rng: random.Random) -> dict[str, Any]:
    """A Config that the kernel accepts at a compute capability; the default one if no other was found.

    About a third of the keys are drawn, so that a fault does not hide behind ten others.

    Args:
        bound: the kernel, bound to its arguments.
        capability: 80, 90 or 100.
        rng: decides.
    """
    spec = bound.backend(Target("nvidia", capability)).spec
    default = dict(spec.default_config())
    products = "epilogue_subtile" in spec.fields
    space = SearchSpace(spec)
    for attempt in range(40):
        config: dict[str, Any] = {}
        for key, value in space.values(space.random_point(rng)).items():
            if rng.random() >= (0.8 if key == "block_sizes" else 0.35):
                continue
            if key == "block_sizes":
                items = spec.fields[key].items  # type: ignore[attr-defined]
                value = [max(min(v, rng.choice((4, 16, 32, 64, 128))), item.low) for v, item in zip(value, items)]
            elif key == "range_warp_specializes" and not products:
                # Triton's pass partitions loops around products; on others it fails, or ends the process.
                value = [v and None for v in value]
            elif key == "num_warps":
                value = rng.choice((1, 2, 4, 8))
            config[key] = value
        for key, modifiers in (("load", LOAD_CACHE_MODIFIERS), ("store", STORE_CACHE_MODIFIERS)):
            if rng.random() < 0.15:
                config[f"{key}_cache_modifiers"] = [rng.choice(modifiers) for _ in range(rng.randint(1, 3))]
        if "block_sizes" in default:
            config.setdefault("block_sizes", [min(v, 32) for v in default["block_sizes"]])
        if attempt > 25:
            config = {k: v for k, v in config.items() if k == "block_sizes"}
        try:
            normal = spec.normalize(helion.Config(**config))
        except exc.InvalidConfig:
            continue
        if spec.is_promising(normal):
            return config
    return {key: default[key] for key in ("block_sizes", "num_warps") if key in default}
