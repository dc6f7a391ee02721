"""The Config keys of a matrix kernel: which values there are, and the schedule a Config means.

Every combination is judged by `MatmulSchedule.check`, in the search as for a Config somebody wrote.
"""

from __future__ import annotations

from typing import Any

from ... import exc
from ...config_spec import ConfigSpec
from ...fragments import EnumFragment
from ...fragments import Fragment
from ...fragments import IntegerFragment
from ...fragments import ListOf
from ...fragments import PowerOfTwoFragment
from ...ir.block_sizes import tunable_blocks
from ...ir.device_ir import BlockSize
from ...ir.device_ir import DeviceIR
from ...numbers import next_power_of_2
from .match import Match
from .schedule import MAX_AB_STAGES
from .schedule import Arch
from .schedule import MatmulSchedule
from .schedule import default_ab_stages
from .schedule import default_schedule
from .spec import element_bytes
from .spec import refuse

__all__ = ["build_config_spec", "schedule_of", "tunable_blocks"]


def build_config_spec(ir: DeviceIR, found: Match, arch: Arch) -> ConfigSpec:
    """The schedules of one matrix kernel.

    Raises:
        BackendUnsupported: the function fixes a block size that no schedule has.
    """
    default = default_schedule(found.spec, arch)
    spec = ConfigSpec(kernel_name=found.spec.name)
    blocks = tunable_blocks(ir)
    ranges = _block_ranges(found, default)
    for block in blocks:
        if block.id not in ranges:
            raise refuse(f"no tile of the product has the registered block size {block.name!r}")
    spec.fields["block_sizes"] = ListOf(
        [_block_fragment(block, ranges.get(block.id)) for block in blocks], labels=[block.name for block in blocks]
    )
    spec.fields["tcgen05_ab_stages"] = IntegerFragment(2, MAX_AB_STAGES, default.ab_stages)
    spec.fields["tcgen05_acc_stages"] = IntegerFragment(1, 4 if default.blackwell else 1, default.acc_stages)
    spec.fields["tcgen05_c_stages"] = IntegerFragment(1, 8, default.c_stages)
    spec.fields["tcgen05_cluster_m"] = PowerOfTwoFragment(1, 8, default.cluster_m)
    spec.fields["tcgen05_cluster_n"] = PowerOfTwoFragment(1, 8, default.cluster_n)
    spec.fields["tcgen05_l2_swizzle_size"] = PowerOfTwoFragment(1, 16, default.l2_swizzle)
    spec.fields["epilogue_subtile"] = EnumFragment(
        [default.epilogue_n, *(c for c in (16, 32, 64) if c != default.epilogue_n)]
    )

    def check(config: dict[str, Any]) -> str | None:
        try:
            schedule_of(config, ir, found, arch).check(found.spec)
        except (exc.InvalidConfig, exc.BackendUnsupported) as error:
            return f"{error.message.removeprefix('invalid config: ')}; {error.advice}"
        return None

    def beside(given: dict[str, Any]) -> dict[str, Any]:
        """The pair of CTAs that a tile of 256 rows needs, and the deepest ring that fits the tiles of a Config."""
        said = {**spec.neutral_config(), **given}
        if "tcgen05_cluster_m" not in given:
            said["tcgen05_cluster_m"] = schedule_of(said, ir, found, arch).ctas_per_mma
        depth = default_ab_stages(schedule_of(said, ir, found, arch), found.spec)
        return {"tcgen05_ab_stages": max(2, depth), "tcgen05_cluster_m": said["tcgen05_cluster_m"]}

    spec.beside = beside
    spec.constraints.append(check)
    problem = check(dict(spec.default_config()))
    if problem is not None:
        raise refuse(f"no schedule fits its fixed block sizes: {problem}")
    return spec


def _block_ranges(found: Match, default: MatmulSchedule) -> dict[int, tuple[int, int, int]]:
    """Block id -> (smallest, largest, default)."""
    size = max(element_bytes(found.spec.a.dtype), element_bytes(found.spec.b.dtype))
    ranges = {
        found.m.block.id: (128, 256, default.tile_m) if default.blackwell else (64, 128, default.tile_m),
        found.n.block.id: (16, 256, default.tile_n),
        found.k.block.id: (64 // size, 256 // size, default.tile_k),
    }
    if found.batch is not None:
        ranges[found.batch.block.id] = (1, 1, 1)
    return ranges


def _block_fragment(block: BlockSize, bounds: tuple[int, int, int] | None) -> Fragment:
    if bounds is None:  # registered, and no tile's
        low = next_power_of_2(block.low)
        return PowerOfTwoFragment(low, max(low, next_power_of_2(block.high or block.low)))
    low, high, default = bounds
    if (block.high is not None and block.high < low) or block.low > high:
        raise refuse(
            f"the block size of {block.name!r} is limited to {block.low}..{block.high}; tiles of this "
            f"backend are {low} to {high}"
        )
    return PowerOfTwoFragment(low, high, default)


def schedule_of(config: Any, ir: DeviceIR, found: Match, arch: Arch) -> MatmulSchedule:
    """The schedule a normalized Config means."""
    sizes = {block.id: size for block, size in zip(tunable_blocks(ir), config["block_sizes"])}

    def size(block: BlockSize) -> int:
        if block.id in sizes:
            return int(sizes[block.id])
        if not isinstance(block.fixed, int):
            raise refuse(f"the block size of {block.name!r} is not a compile-time constant")
        return block.fixed

    if found.batch is not None and size(found.batch.block) != 1:
        raise refuse(f"a tile of the batch loop {found.batch.name!r} holds {size(found.batch.block)} matrices, not one")
    return MatmulSchedule(
        tile_m=size(found.m.block),
        tile_n=size(found.n.block),
        tile_k=size(found.k.block),
        cluster_m=config["tcgen05_cluster_m"],
        cluster_n=config["tcgen05_cluster_n"],
        ab_stages=config["tcgen05_ab_stages"],
        acc_stages=config["tcgen05_acc_stages"],
        c_stages=config["tcgen05_c_stages"],
        epilogue_n=min(config["epilogue_subtile"], size(found.n.block)),  # a narrow tile is done in one step
        l2_swizzle=config["tcgen05_l2_swizzle_size"],
        arch=arch,
    )
