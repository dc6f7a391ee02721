"""The TMA load role, the same on both architectures, and which tiles are multicast."""

from __future__ import annotations

from .schedule import MatmulSchedule
from .spec import MatmulSpec
from .text import call

__all__ = ["arguments", "masks", "role"]


def multicast(s: MatmulSchedule) -> tuple[bool, bool]:
    """Whether A tiles (along n), B tiles (along m) go to several CTAs of a cluster."""
    return s.cluster_n > 1, s.cluster_m > s.ctas_per_mma


def masks(s: MatmulSchedule) -> list[str]:
    """Lines that compute who receives a multicast tile; ``cluster`` is its layout, ``place`` this CTA's coordinate."""
    lines = []
    for wanted, name, mode in zip(multicast(s), ("a_mask", "b_mask"), (2, 1)):
        if wanted:
            lines.append(f"{name} = cpasync.create_tma_multicast_mask(cluster, place, mcast_mode={mode})")
    return lines


def arguments(s: MatmulSchedule) -> list[str]:
    """What the kernel passes to ``load_role``."""
    names = ["tma_a", "tiles_a", "stages_a", "tma_b", "tiles_b", "stages_b", "ab_pipeline"]
    names += [name for wanted, name in zip(multicast(s), ("a_mask", "b_mask")) if wanted]
    return [*names, "cluster_x", "cluster_y", "first", "clusters"]


def role(spec: MatmulSpec, s: MatmulSchedule) -> str:
    """The load warp's function: one rolled loop over k, paced by the ring alone."""
    a, b = multicast(s)
    head = call("def load_role", arguments(s), ":", 0)
    a_mask = ", mcast_mask=a_mask" if a else ""
    b_mask = ", mcast_mask=b_mask" if b else ""
    a_batch = "batch" if spec.a.batch else "0"
    b_batch = "batch" if spec.b.batch else "0"
    return f'''@cute.jit
{head}
    """One warp: fill the ring, one A and one B tile a stage. It waits only for a stage to be empty."""
    state = pipeline.make_pipeline_state(pipeline.PipelineUserType.Producer, AB_STAGES)
    for tile in cutlass.range(first, TILES, clusters, unroll=1):
        m, n, batch = tile_coordinates(tile, cluster_x, cluster_y)
        a_tile = tiles_a[(None, m, None, {a_batch})]
        b_tile = tiles_b[(None, n, None, {b_batch})]
        for k in cutlass.range(K_TILES, unroll=1):
            ab_pipeline.producer_acquire(state)
            full = ab_pipeline.producer_get_barrier(state)
            cute.copy(tma_a, a_tile[(None, k)], stages_a[(None, state.index)], tma_bar_ptr=full{a_mask})
            cute.copy(tma_b, b_tile[(None, k)], stages_b[(None, state.index)], tma_bar_ptr=full{b_mask})
            state.advance()
    # Stay until every stage is released: its readers still signal this CTA's barriers.
    for _ in cutlass.range(AB_STAGES, unroll=1):
        ab_pipeline.sync_object_empty.wait(state.index, state.phase)
        state.advance()'''
