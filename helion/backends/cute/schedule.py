"""How one matrix kernel is run: tiles, clusters, pipeline depths; what fits into shared and tensor memory.

The same arithmetic serves the search space (`max_ab_stages_that_fit`, `default_schedule`) and the validation of a
schedule somebody gave (`MatmulSchedule.check`), so that the two cannot disagree.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from ... import exc
from .spec import FP8
from .spec import MatmulSpec
from .spec import element_bytes
from .spec import refuse

__all__ = [
    "MAX_AB_STAGES",
    "SHARED_MEMORY_BYTES",
    "Arch",
    "MatmulSchedule",
    "default_ab_stages",
    "default_schedule",
    "max_ab_stages_that_fit",
    "promotes",
    "search_values",
]

Arch = Literal["sm_90a", "sm_100a", "sm_103a"]

# Shared memory one CTA may use: 228 KiB a multiprocessor less 1 KiB the system keeps for each CTA (CUDA C++ programming
# guide, technical specifications, compute capabilities 9.0 and 10.0).
SHARED_MEMORY_BYTES = 227 * 1024
# Columns of tensor memory of one multiprocessor.
TMEM_COLUMNS = 512
# Deepest A/B ring that is tried: at 12 stages of 16 KiB shared memory is full, and nothing was gained beyond 10.
MAX_AB_STAGES = 12
# mbarriers, the tensor memory address and the padding behind them; `print` allocates at most this.
BARRIER_BYTES = 512
TENSOR_ALIGNMENT = 1024
# Largest portable cluster (CUDA C++ programming guide, thread block clusters).
MAX_CLUSTER = 8


@dataclasses.dataclass(frozen=True)
class MatmulSchedule:
    """A schedule of one `MatmulSpec`.

    Args:
        tile_m, tile_n, tile_k: the tile one MMA works on, in elements. ``tile_m=256`` on sm_100a is a pair of CTAs,
            each with 128 rows; on sm_90a a consumer warpgroup has 64 rows.
        cluster_m, cluster_n: CTAs of a cluster along each axis. A pair needs an even ``cluster_m``. Beyond the pair, A
            tiles are multicast along n and B tiles along m.
        ab_stages: depth of the shared memory ring of A and B tiles.
        acc_stages: accumulators in tensor memory; 2 lets the epilogue of one tile overlap the next tile's MMA. 1 on
            sm_90a, whose accumulators are registers.
        c_stages: output buffers in shared memory between the epilogue and the TMA store.
        epilogue_n: columns of the output one epilogue step converts and stores.
        l2_swizzle: width, in tiles along n, of the bands in which tiles are visited; 1 visits column by column.
        arch: what is compiled for.
    """

    tile_m: int = 256
    tile_n: int = 128
    tile_k: int = 128
    cluster_m: int = 2
    cluster_n: int = 1
    ab_stages: int = 8
    acc_stages: int = 2
    c_stages: int = 4
    epilogue_n: int = 32
    l2_swizzle: int = 1
    arch: Arch = "sm_100a"

    @property
    def blackwell(self) -> bool:
        return self.arch != "sm_90a"

    @property
    def ctas_per_mma(self) -> int:
        return 2 if self.blackwell and self.tile_m == 256 else 1

    @property
    def cta_m(self) -> int:
        """Rows of the output that one CTA computes."""
        return self.tile_m // self.ctas_per_mma

    @property
    def consumer_warpgroups(self) -> int:
        """sm_90a: warpgroups that share the tile's rows, 64 each."""
        return self.tile_m // 64

    @property
    def acc_columns(self) -> int:
        """Columns of tensor memory to allocate: a power of two, at least 32."""
        return max(32, 1 << (self.acc_stages * self.tile_n - 1).bit_length())

    def tiles(self, spec: MatmulSpec) -> tuple[int, int]:
        """Cluster tiles along m and n."""
        along_m = self.cta_m * self.cluster_m
        along_n = self.tile_n * self.cluster_n
        return -(-spec.m // along_m), -(-spec.n // along_n)

    def k_tiles(self, spec: MatmulSpec) -> int:
        return -(-spec.k // self.tile_k)

    def tile_count(self, spec: MatmulSpec) -> int:
        """Cluster tiles of the whole problem; a grid of more clusters than this would idle."""
        tiles_m, tiles_n = self.tiles(spec)
        return tiles_m * tiles_n * spec.batch

    def grid(self, spec: MatmulSpec, multiprocessors: int) -> tuple[int, int, int]:
        """One CTA a multiprocessor, in whole clusters, or one cluster a tile if there are fewer tiles."""
        clusters = max(multiprocessors // (self.cluster_m * self.cluster_n), 1)
        return self.cluster_m, self.cluster_n, min(clusters, self.tile_count(spec))

    def ab_stage_bytes(self, spec: MatmulSpec) -> int:
        """Shared memory one CTA needs for one stage: its rows of A, its share of the columns of B."""
        columns = self.tile_n // self.ctas_per_mma
        return self.tile_k * (self.cta_m * element_bytes(spec.a.dtype) + columns * element_bytes(spec.b.dtype))

    def c_stage_bytes(self, spec: MatmulSpec) -> int:
        """Shared memory of one output buffer; nothing where threads store directly."""
        if not spec.store_through_tma:
            return 0
        return self.cta_m * self.epilogue_n * element_bytes(spec.out.dtype)

    def shared_bytes(self, spec: MatmulSpec) -> int:
        """Dynamic shared memory of one CTA, in bytes, as the printed kernel allocates it."""
        tensors = self.ab_stages * self.ab_stage_bytes(spec) + self.c_stages * self.c_stage_bytes(spec)
        return -(-tensors // TENSOR_ALIGNMENT) * TENSOR_ALIGNMENT + BARRIER_BYTES

    def check(self, spec: MatmulSpec) -> None:
        """Raise InvalidConfig, naming the key, its value and what is allowed, unless this schedule can run ``spec``."""
        for rule in (_check_tiles, _check_cluster, _check_stages, _check_memory):
            rule(self, spec)


def promotes(spec: MatmulSpec) -> bool:
    """Whether sm_90a sums each k tile in fp32 registers, outside the tensor core.

    The fp8 accumulator of wgmma keeps about 14 bits; adding each tile's sum in fp32 bounds the error by one tile's.
    """
    return spec.a.dtype in FP8 and not spec.fast_accumulate


def _invalid(reason: str, fix: str) -> exc.InvalidConfig:
    return exc.InvalidConfig(reason=reason, fix=fix)


def _one_of(key: str, value: int, allowed: tuple[int, ...], why: str = "") -> None:
    if value not in allowed:
        tail = f" ({why})" if why else ""
        raise _invalid(
            f"{key}={value} is not supported by the cute backend{tail}",
            f"choose one of {', '.join(map(str, allowed))}.",
        )


def _check_tiles(s: MatmulSchedule, spec: MatmulSpec) -> None:
    if s.blackwell:
        _one_of("block size of m", s.tile_m, (128, 256), "128 rows a CTA, 256 a pair of CTAs")
        step = 32 if s.ctas_per_mma == 2 else 16
    else:
        _one_of("block size of m", s.tile_m, (64, 128), "64 rows a warpgroup, at most two of them")
        step = 8
        if promotes(spec) and s.tile_n > 128:
            raise _invalid(
                f"block size of n={s.tile_n} for fp8 on sm_90a needs two fp32 accumulators of "
                f"{s.tile_n // 2} registers a thread",
                "use a block size of n up to 128, or the settings' fast_math.",
            )
    step = max(step, s.epilogue_n)
    if not (step <= s.tile_n <= 256 and s.tile_n % step == 0):
        raise _invalid(
            f"block size of n={s.tile_n} is not supported by the cute backend",
            f"choose a multiple of {step} from {step} to 256.",
        )
    size = max(element_bytes(spec.a.dtype), element_bytes(spec.b.dtype))
    allowed = tuple(b // size for b in (64, 128, 256))
    _one_of("block size of k", s.tile_k, allowed, "64, 128 or 256 bytes of each row")
    _one_of("epilogue_subtile columns", s.epilogue_n, (16, 32, 64))
    if not s.blackwell and spec.a.dtype in FP8:
        for label, operand in (("A", spec.a), ("B", spec.b)):
            if not operand.inner_major:
                raise refuse(
                    f"operand {label} is fp8 and not contiguous along k, which wgmma on sm_90a cannot read",
                    f'pass {label} with k contiguous (for B: column-major), or use backend="triton".',
                )


def _check_cluster(s: MatmulSchedule, spec: MatmulSpec) -> None:
    _one_of("tcgen05_cluster_m", s.cluster_m, (1, 2, 4, 8))
    _one_of("tcgen05_cluster_n", s.cluster_n, (1, 2, 4, 8))
    if s.cluster_m * s.cluster_n > MAX_CLUSTER:
        raise _invalid(
            f"tcgen05_cluster_m={s.cluster_m} times tcgen05_cluster_n={s.cluster_n} is "
            f"{s.cluster_m * s.cluster_n} CTAs",
            f"a cluster has at most {MAX_CLUSTER}.",
        )
    if s.cluster_m % s.ctas_per_mma:
        raise _invalid(
            f"tcgen05_cluster_m={s.cluster_m} with a block size of m={s.tile_m}: the pair of CTAs of a 256-row tile"
            " lies in one cluster",
            "use an even tcgen05_cluster_m, or block size 128 for m.",
        )
    # The toolkit gives an axis of one tile the stride 0, so that a CTA beside it would compute and store that tile
    # again.
    if s.cluster_n > 1 and spec.n <= s.tile_n:
        raise _invalid(
            f"tcgen05_cluster_n={s.cluster_n} for n={spec.n}, which is one tile of {s.tile_n}",
            "use tcgen05_cluster_n=1.",
        )
    if s.cluster_m > s.ctas_per_mma and spec.m <= s.tile_m:
        raise _invalid(
            f"tcgen05_cluster_m={s.cluster_m} for m={spec.m}, which is one tile of {s.tile_m}",
            f"use tcgen05_cluster_m={s.ctas_per_mma}.",
        )
    if s.l2_swizzle not in (1, 2, 4, 8, 16):
        raise _invalid(f"tcgen05_l2_swizzle_size={s.l2_swizzle} is not supported", "choose one of 1, 2, 4, 8, 16.")


def _check_stages(s: MatmulSchedule, spec: MatmulSpec) -> None:
    if not 2 <= s.ab_stages <= MAX_AB_STAGES:
        raise _invalid(f"tcgen05_ab_stages={s.ab_stages} is out of range", f"choose 2 to {MAX_AB_STAGES}.")
    if not 1 <= s.c_stages <= 8:
        raise _invalid(f"tcgen05_c_stages={s.c_stages} is out of range", "choose 1 to 8.")
    if not s.blackwell:
        _one_of("tcgen05_acc_stages", s.acc_stages, (1,), "sm_90a accumulates in registers")
        return
    if s.acc_stages < 1 or s.acc_stages * s.tile_n > TMEM_COLUMNS:
        raise _invalid(
            f"tcgen05_acc_stages={s.acc_stages} of {s.tile_n} columns each need {s.acc_stages * s.tile_n}"
            f" columns of tensor memory; there are {TMEM_COLUMNS}",
            f"choose 1 to {TMEM_COLUMNS // s.tile_n}.",
        )


def _check_memory(s: MatmulSchedule, spec: MatmulSpec) -> None:
    need = s.shared_bytes(spec)
    if need <= SHARED_MEMORY_BYTES:
        return
    ab, c = s.ab_stage_bytes(spec), s.c_stage_bytes(spec)
    fits = max_ab_stages_that_fit(s, spec)
    advice = (
        f"use at most tcgen05_ab_stages={fits}." if fits >= 2 else "use smaller block sizes or fewer tcgen05_c_stages."
    )
    raise _invalid(
        f"tcgen05_ab_stages={s.ab_stages} is too deep: {s.ab_stages} A/B stages of {ab} bytes and {s.c_stages} output"
        f" buffers of {c} bytes need {need} bytes of shared memory; a CTA has {SHARED_MEMORY_BYTES}",
        advice,
    )


def max_ab_stages_that_fit(schedule: MatmulSchedule, spec: MatmulSpec) -> int:
    """The deepest A/B ring beside the schedule's output buffers, at most `MAX_AB_STAGES`; may be less than the 2 a
    kernel needs.
    """
    without = dataclasses.replace(schedule, ab_stages=0).shared_bytes(spec)
    # Rounding to the alignment of the tensors can cost one partial kilobyte either way, so test the candidate itself.
    guess = min(MAX_AB_STAGES, (SHARED_MEMORY_BYTES - without) // schedule.ab_stage_bytes(spec) + 1)
    while guess > 0 and dataclasses.replace(schedule, ab_stages=guess).shared_bytes(spec) > SHARED_MEMORY_BYTES:
        guess -= 1
    return max(guess, 0)


def default_schedule(spec: MatmulSpec, arch: Arch) -> MatmulSchedule:
    """A schedule that runs ``spec`` on ``arch``, deep and wide as it fits: the default Config and the search's first
    guess.

    Args:
        spec: the kernel.
        arch: architecture.
    """
    size = max(element_bytes(spec.a.dtype), element_bytes(spec.b.dtype))
    # Blocks of 128 bytes along k: one swizzle atom, so a stage is one TMA box a tile.
    tile_k = 128 // size
    if arch == "sm_90a":
        wide = 128 if promotes(spec) or spec.n <= 128 else 256
        tile_m, tile_n, cluster_m, acc_stages = (128 if spec.m > 64 else 64), wide, 1, 1
    else:
        pair = spec.m > 128
        tile_m, tile_n = (256 if pair else 128), (128 if spec.n > 64 else 64)
        cluster_m, acc_stages = (2 if pair else 1), 2
    schedule = MatmulSchedule(
        tile_m=tile_m,
        tile_n=tile_n,
        tile_k=tile_k,
        cluster_m=cluster_m,
        ab_stages=2,
        acc_stages=acc_stages,
        c_stages=4 if element_bytes(spec.out.dtype) <= 2 else 2,
        arch=arch,
    )
    return dataclasses.replace(schedule, ab_stages=default_ab_stages(schedule, spec))


def default_ab_stages(schedule: MatmulSchedule, spec: MatmulSpec) -> int:
    """The depth of the ring for a schedule that says all but that: what fits, and twice the tiles along k."""
    return min(max_ab_stages_that_fit(schedule, spec), max(2, schedule.k_tiles(spec) * 2))


def search_values(schedule: MatmulSchedule, spec: MatmulSpec) -> dict[str, tuple[int, ...]]:
    """For each tcgen05 Config key, the values that `MatmulSchedule.check` accepts with the rest of ``schedule``
    fixed.
    """
    fields = {
        "tcgen05_ab_stages": ("ab_stages", range(2, MAX_AB_STAGES + 1)),
        "tcgen05_acc_stages": ("acc_stages", range(1, 5)),
        "tcgen05_c_stages": ("c_stages", range(1, 9)),
        "tcgen05_cluster_m": ("cluster_m", (1, 2, 4, 8)),
        "tcgen05_cluster_n": ("cluster_n", (1, 2, 4, 8)),
        "tcgen05_l2_swizzle_size": ("l2_swizzle", (1, 2, 4, 8, 16)),
    }
    out: dict[str, tuple[int, ...]] = {}
    for key, (field, candidates) in fields.items():
        good = []
        for value in candidates:
            try:
                dataclasses.replace(schedule, **{field: value}).check(spec)  # type: ignore[arg-type]
            except exc.InvalidConfig:
                continue
            good.append(value)
        out[key] = tuple(good)
    return out
