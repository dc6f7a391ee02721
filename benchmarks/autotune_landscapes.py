"""Synthetic landscapes for the autotuner: cost models over real ConfigSpecs, with failures and noise.

Each landscape is a ConfigSpec as a kernel of its kind has it, and a function from a Config to a time or a
failure.  The costs are roofline models of a GPU with 132 multiprocessors, 228 KiB of shared memory and 64 Ki
registers each, 3.3 TB/s and 900 TFLOP/s (about an H100): work in waves over the multiprocessors, memory and tensor
cores overlapped as far as the pipeline allows, penalties for spilled registers and uncoalesced access, failures where
shared memory or threads run out.  On top, what models leave out: a fixed ruggedness per landscape that depends
on pairs of tunables, a few pairs that crash, and noise in every measurement.

They stand in for a GPU when searches are compared; they say nothing about the speed of a real kernel.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import random
from collections.abc import Callable
from typing import Any

from helion.autotuner.space import Point
from helion.autotuner.space import SearchSpace
from helion.autotuner.trial import Status
from helion.autotuner.trial import Trial
from helion.backends.triton.starts import product_starts
from helion.config import Config
from helion.config_keys import EVICTION_POLICIES
from helion.config_keys import INDEXING_TYPES
from helion.config_keys import PID_TYPES
from helion.config_spec import ConfigSpec
from helion.fragments import BooleanFragment
from helion.fragments import EnumFragment
from helion.fragments import IntegerFragment
from helion.fragments import ListOf
from helion.fragments import OneOrPerItem
from helion.fragments import PermutationFragment
from helion.fragments import PowerOfTwoFragment

SMS = 132
SHARED_BYTES = 227 * 1024
REGISTERS = 65536
BYTES_PER_MS = 3.3e9
FLOPS_PER_MS = 9e11


class Failed(Exception):
    """A candidate that does not run."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


def _unit(*parts: object) -> float:
    """A fixed number in [0, 1) for these parts: the same in every process."""
    digest = hashlib.blake2b(json.dumps(parts, default=str).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def _waves(programs: float, resident: int) -> float:
    """How much longer than perfectly spread the programs take: the last wave is not full."""
    slots = SMS * max(resident, 1)
    return math.ceil(programs / slots) * slots / programs


def _resident(registers_per_thread: float, warps: int, shared: float) -> int:
    threads = warps * 32
    by_registers = REGISTERS / (min(max(registers_per_thread, 24), 255) * threads)
    by_shared = SHARED_BYTES / max(shared, 1)
    return int(max(1, min(16, 64 / warps, by_registers, by_shared)))


def _spill(registers_per_thread: float, limit: int = 255) -> float:
    """Slow-down from spilled registers."""
    return 1.0 + 1.5 * max(0.0, registers_per_thread / limit - 1.0)


def _check_shared(shared: float) -> None:
    if shared > SHARED_BYTES:
        raise Failed(Status.COMPILE_ERROR, f"out of resource: shared memory, required {int(shared)}")


def _indexing_gain(config: Config, accesses: int, wide: float) -> float:
    """Descriptor accesses save address arithmetic on wide tiles and cost set-up on narrow ones."""
    indexing = config["indexing"]
    kinds = indexing if isinstance(indexing, list) else [indexing] * accesses
    factor = 1.0
    for kind in kinds:
        factor *= {"pointer": 1.0, "block_ptr": 1.01, "tensor_descriptor": 0.96 if wide >= 64 else 1.06}[kind]
    return factor


def _eviction_gain(config: Config, wanted: list[str]) -> float:
    policies = config["load_eviction_policies"]
    return math.prod(0.985 if p == w else (1.0 if p == "" else 1.015) for p, w in zip(policies, wanted))


def _persistent(config: Config, programs: float, tail: float) -> tuple[float, float]:
    """(slow-down of the last wave, launch overhead in ms) under the program-id type."""
    kind = config["pid_type"]
    if kind == "xyz":
        return tail * 1.02, 2e-3
    if kind == "flat":
        return tail, 2e-3
    per_sm = config["num_sm_multiplier"]
    if kind == "persistent_blocked":
        return 1 + 0.3 * (tail - 1) + 0.02 * abs(math.log2(per_sm)), 2.5e-3
    return 1 + 0.2 * (tail - 1) + 0.03 * abs(math.log2(per_sm) - 1), 2.5e-3


@dataclasses.dataclass(frozen=True)
class Landscape:
    """One tuning problem.

    Attributes:
        name: for the report.
        spec: the schedules.
        model: Config -> milliseconds without ruggedness; raises Failed.
        rugged: relative size of the ruggedness.
        crash_share: share of the pairs of values that crash.
        noise: relative standard deviation of one measurement.
        best_ms: the best true time known, found by `find_best(landscape, starts=40)`.
        roles: of the block sizes in matrix products, as the Triton backend finds them.
    """

    name: str
    spec: ConfigSpec
    model: Callable[[Config], float]
    rugged: float = 0.04
    crash_share: float = 0.004
    noise: float = 0.015
    best_ms: float = math.nan
    roles: tuple[set[str], ...] = ()

    def space(self, starts: bool = False) -> SearchSpace:
        """The search space of the spec; with what the Triton backend suggests to begin with, if that is asked for."""
        if not starts:
            return SearchSpace(self.spec)
        suggested = product_starts(self.spec, self.roles, itemsize=2)
        return SearchSpace(dataclasses.replace(self.spec, find_starts=lambda: suggested))

    def pairs(self) -> list[tuple[int, int]]:
        """The pairs of dimensions that the ruggedness couples: each dimension with two others."""
        count = len(self.space().dimensions)
        rng = random.Random(f"{self.name}/pairs")
        return [(a, b) for a in range(count) for b in rng.sample(range(count), min(2, count)) if a != b]

    def true_ms(self, config: Config) -> float:
        """The time without noise; raises Failed."""
        point = _space(self).point(config)
        rough = 0.0
        for a, b in _pairs(self):
            if _unit(self.name, "crash", a, b, point[a], point[b]) < self.crash_share:
                raise Failed(Status.CRASH, "CUDA error: an illegal memory access was encountered")
            rough += _unit(self.name, "rough", a, b, point[a], point[b]) - 0.5
        scale = self.rugged * math.sqrt(12 / max(len(_pairs(self)), 1))
        return self.model(config) * math.exp(scale * rough)

    def measure(self, config: Config, rng: random.Random) -> Trial:
        """One noisy trial."""
        try:
            exact = self.true_ms(config)
        except Failed as failure:
            return Trial(config, failure.status, message=str(failure))
        # Measured times are skewed: interruptions only ever add.
        noisy = exact * (1 + abs(rng.gauss(0, self.noise)))
        return Trial(config, Status.OK, noisy, self.noise)


_SPACES: dict[str, SearchSpace] = {}
_PAIRS: dict[str, list[tuple[int, int]]] = {}


def _space(landscape: Landscape) -> SearchSpace:
    return _SPACES.setdefault(landscape.name, landscape.space())


def _pairs(landscape: Landscape) -> list[tuple[int, int]]:
    if landscape.name not in _PAIRS:
        _PAIRS[landscape.name] = landscape.pairs()
    return _PAIRS[landscape.name]


def _threads_limit(config: dict[str, Any]) -> str | None:
    tile = math.prod(config["block_sizes"])
    return "tile too small for num_warps" if tile < config["num_warps"] * 16 else None


# -- matmul ------------------------------------------------------------------------------------------


def _matmul_spec() -> ConfigSpec:
    return ConfigSpec(
        "matmul",
        {
            "block_sizes": ListOf(
                [PowerOfTwoFragment(16, 512, 64), PowerOfTwoFragment(16, 512, 64), PowerOfTwoFragment(16, 256, 32)]
            ),
            "loop_orders": ListOf(PermutationFragment(2), 1),
            "l2_groupings": ListOf(PowerOfTwoFragment(1, 64), 1),
            "range_unroll_factors": ListOf([IntegerFragment(0, 4), IntegerFragment(0, 4)]),
            "range_num_stages": ListOf([IntegerFragment(0, 4), IntegerFragment(0, 4)]),
            "range_multi_buffers": ListOf(EnumFragment([None, False, True]), 2),
            "range_flattens": ListOf(EnumFragment([None, False, True]), 2),
            "num_warps": PowerOfTwoFragment(1, 16, 4),
            "num_stages": IntegerFragment(1, 8),
            "indexing": OneOrPerItem(EnumFragment(INDEXING_TYPES), 3),
            "pid_type": EnumFragment(PID_TYPES),
            "num_sm_multiplier": PowerOfTwoFragment(1, 8),
            "load_eviction_policies": ListOf(EnumFragment(EVICTION_POLICIES), 2),
        },
        constraints=[_threads_limit],
    )


def _matmul(m: int, n: int, k: int) -> Callable[[Config], float]:
    def model(config: Config) -> float:
        bm, bn, bk = config["block_sizes"]
        warps, stages = config["num_warps"], config["num_stages"]
        shared = stages * (bm + bn) * bk * 2
        _check_shared(shared)
        registers = (bm * bn + (bm + bn) * bk / 4) / (warps * 32) + 40
        if registers > 255 * 8:
            raise Failed(Status.COMPILE_TIMEOUT, "compiling took longer than 60 s")
        resident = _resident(registers, warps, shared)
        programs = math.ceil(m / bm) * math.ceil(n / bn)
        tail, overhead = _persistent(config, programs, _waves(programs, resident))
        # A tensor core wants wide tiles per warp group; narrow ones are bound by shared-memory bandwidth.
        intensity = bm * bn / (bm + bn)
        core = (
            min(1.0, intensity / 64) ** 0.7
            * min(1.0, bk / 32) ** 0.3
            * (1 - 0.08 * abs(math.log2(warps) - math.log2(max(bm * bn / 2048, 1))) / 2)
        )
        group = config["l2_groupings"][0]
        reuse = 1 + 0.25 * (abs(math.log2(group) - 3) / 6)
        traffic = (m * n * k * 2 * (1 / bm + 1 / bn)) * reuse / 6 + m * n * 2
        compute = 2.0 * m * n * k / (FLOPS_PER_MS * max(core, 0.02))
        memory = traffic / BYTES_PER_MS
        overlap = 1 - 0.75 * math.exp(-(stages - 1) / 1.3) - (0.02 * max(0, stages - 5))
        body = max(compute, memory) + (1 - overlap) * min(compute, memory)
        unroll, inner_stages = config["range_unroll_factors"][1], config["range_num_stages"][1]
        body *= 1 + 0.01 * abs(unroll - 2) + (0.03 if inner_stages == 1 else 0.0)
        body *= 1.02 if config["range_multi_buffers"][1] is False else 1.0
        body *= 0.98 if config["range_flattens"][0] is True and config["pid_type"].startswith("persistent") else 1.0
        body *= 1.03 if config["loop_orders"][0] == [1, 0] else 1.0
        return (
            body * tail * _spill(registers) * _indexing_gain(config, 3, bk) * _eviction_gain(config, ["", "last"])
            + overhead
        )

    return model


# -- row reductions (softmax, rms_norm) --------------------------------------------------------------------


def _rows_spec(name: str, columns: int, loads: int) -> ConfigSpec:
    loops = [None, *(1 << e for e in range(4, columns.bit_length() - 1))]
    return ConfigSpec(
        name,
        {
            "block_sizes": ListOf(PowerOfTwoFragment(1, 128), 1),
            "reduction_loops": ListOf(EnumFragment(loops), 1),
            "range_unroll_factors": ListOf(IntegerFragment(0, 4), 1),
            "range_num_stages": ListOf(IntegerFragment(0, 4), 1),
            "range_multi_buffers": ListOf(EnumFragment([None, False, True]), 1),
            "num_warps": PowerOfTwoFragment(1, 32, 4),
            "num_stages": IntegerFragment(1, 8),
            "indexing": OneOrPerItem(EnumFragment(INDEXING_TYPES), loads + 1),
            "pid_type": EnumFragment(PID_TYPES),
            "num_sm_multiplier": PowerOfTwoFragment(1, 32),
            "load_eviction_policies": ListOf(EnumFragment(EVICTION_POLICIES), loads),
        },
    )


def _rows(rows: int, columns: int, loads: int, passes: int) -> Callable[[Config], float]:
    def model(config: Config) -> float:
        block = config["block_sizes"][0]
        warps, stages = config["num_warps"], config["num_stages"]
        loop = config["reduction_loops"][0]
        width = columns if loop is None else min(loop, columns)
        if block * width > 1 << 20:
            raise Failed(Status.COMPILE_ERROR, "numel exceeds triton maximum tensor numel (1048576)")
        registers = block * width * 1.6 / (warps * 32) + 24
        if registers > 255 * 10:
            raise Failed(Status.COMPILE_TIMEOUT, "compiling took longer than 60 s")
        shared = block * warps * 8 + (0 if loop is None else stages * block * width * 2 * 0.5)
        _check_shared(shared)
        resident = _resident(registers, warps, shared)
        programs = math.ceil(rows / block)
        tail, overhead = _persistent(config, programs, _waves(programs, resident))
        reads = 1 if loop is None else passes
        # The second pass of a looped reduction mostly hits the L2 cache.
        bytes_moved = rows * columns * 2 * (loads * (1 + 0.35 * (reads - 1)) + 1)
        in_flight = resident * warps * 32 * min(block * width / (warps * 32), 16)
        bandwidth = 1 - math.exp(-in_flight / 9000)
        coalesced = min(1.0, width / 128) ** 0.5
        iterations = 1 if loop is None else columns / width
        reduce_cost = 1 + 0.015 * math.log2(warps) + 0.004 * iterations / max(1, min(stages, 4))
        reduce_cost *= 1 + 0.012 * abs(config["range_unroll_factors"][0] - 2) * (loop is not None)
        ms = bytes_moved / (BYTES_PER_MS * max(bandwidth * coalesced, 0.01)) * reduce_cost
        return (
            ms
            * tail
            * _spill(registers)
            * _indexing_gain(config, loads + 1, width)
            * _eviction_gain(config, ["first"] + ["last"] * (loads - 1))
            + overhead
        )

    return model


# -- attention --------------------------------------------------------------------------------------


def _attention_spec() -> ConfigSpec:
    return ConfigSpec(
        "attention",
        {
            "block_sizes": ListOf(
                [PowerOfTwoFragment(1, 16), PowerOfTwoFragment(16, 256, 32), PowerOfTwoFragment(16, 256, 32)]
            ),
            "loop_orders": ListOf(PermutationFragment(2), 1),
            "l2_groupings": ListOf(PowerOfTwoFragment(1, 64), 1),
            "range_unroll_factors": ListOf([IntegerFragment(0, 4), IntegerFragment(0, 4)]),
            "range_warp_specializes": ListOf(EnumFragment([None, False, True]), 2),
            "range_num_stages": ListOf([IntegerFragment(0, 4), IntegerFragment(0, 4)]),
            "range_multi_buffers": ListOf(EnumFragment([None, False, True]), 2),
            "num_warps": PowerOfTwoFragment(1, 16, 4),
            "num_stages": IntegerFragment(1, 8),
            "indexing": OneOrPerItem(EnumFragment(INDEXING_TYPES), 4),
            "pid_type": EnumFragment(PID_TYPES),
            "num_sm_multiplier": PowerOfTwoFragment(1, 8),
            "maxnreg": EnumFragment([None, 64, 96, 128, 168, 224]),
            "load_eviction_policies": ListOf(EnumFragment(EVICTION_POLICIES), 3),
        },
        constraints=[_threads_limit],
    )


def _attention(batch_heads: int, sequence: int, head: int) -> Callable[[Config], float]:
    def model(config: Config) -> float:
        bb, bm, bn = config["block_sizes"]
        warps, stages = config["num_warps"], config["num_stages"]
        shared = bb * (bm * head * 2 + stages * 2 * bn * head * 2)
        _check_shared(shared)
        registers = bb * (bm * bn * 1.5 + bm * head) / (warps * 32) + 48
        if registers > 255 * 8:
            raise Failed(Status.COMPILE_TIMEOUT, "compiling took longer than 60 s")
        if config["range_warp_specializes"][1] is True and warps < 4:
            raise Failed(Status.COMPILE_ERROR, "warp specialization needs num_warps >= 4")
        limit = config.get("maxnreg", 255)
        if limit * warps * 32 > REGISTERS:
            raise Failed(Status.COMPILE_ERROR, "maxnreg exceeds the register file")
        resident = _resident(min(registers, limit), warps, shared)
        programs = math.ceil(batch_heads / bb) * math.ceil(sequence / bm)
        tail, overhead = _persistent(config, programs, _waves(programs, resident))
        flops = 4.0 * batch_heads * sequence * sequence * head
        core = (
            min(1.0, bm / 64) ** 0.8 * min(1.0, bn / 64) ** 0.5 * (1 - 0.05 * abs(math.log2(warps * 16 / max(bm, 16))))
        )
        compute = flops / (FLOPS_PER_MS * max(core, 0.02) * 0.8)
        softmax = batch_heads * sequence * sequence * 8 / 6e10 * (1 + 0.1 * (warps > 8))
        hidden = 0.6 if config["range_warp_specializes"][1] is True else 0.35 + 0.1 * min(resident, 3)
        body = compute + (1 - hidden) * softmax
        body *= 1 + 0.25 * math.exp(-(stages - 1) / 1.0) + 0.01 * abs(config["range_unroll_factors"][1] - 1)
        body *= 1 + 0.08 * (abs(math.log2(config["l2_groupings"][0]) - 2) / 4)
        body *= 1.04 if config["loop_orders"][0] == [1, 0] else 1.0
        body *= 1.03 if config["range_multi_buffers"][1] is True else 1.0
        return (
            body
            * tail
            * _spill(registers, limit)
            * _indexing_gain(config, 4, head)
            * _eviction_gain(config, ["first", "last", "last"])
            + overhead
        )

    return model


# -- pointwise with a transposed operand ---------------------------------------------------------------


def _pointwise_spec() -> ConfigSpec:
    return ConfigSpec(
        "pointwise",
        {
            "block_sizes": ListOf([PowerOfTwoFragment(1, 1024, 32), PowerOfTwoFragment(1, 1024, 32)]),
            "loop_orders": ListOf(PermutationFragment(2), 1),
            "flatten_loops": ListOf(BooleanFragment(), 1),
            "l2_groupings": ListOf(PowerOfTwoFragment(1, 64), 1),
            "num_warps": PowerOfTwoFragment(1, 32, 4),
            "num_stages": IntegerFragment(1, 8),
            "indexing": OneOrPerItem(EnumFragment(INDEXING_TYPES), 3),
            "pid_type": EnumFragment(PID_TYPES),
            "num_sm_multiplier": PowerOfTwoFragment(1, 32),
            "load_eviction_policies": ListOf(EnumFragment(EVICTION_POLICIES), 2),
        },
        constraints=[_threads_limit],
    )


def _pointwise(rows: int, columns: int) -> Callable[[Config], float]:
    def model(config: Config) -> float:
        b0, b1 = config["block_sizes"]
        warps = config["num_warps"]
        tile = b0 * b1
        if tile > 1 << 20:
            raise Failed(Status.COMPILE_ERROR, "numel exceeds triton maximum tensor numel (1048576)")
        flat = config["flatten_loops"][0]
        registers = tile * 2.2 / (warps * 32) + 20
        if registers > 255 * 12:
            raise Failed(Status.COMPILE_TIMEOUT, "compiling took longer than 60 s")
        resident = _resident(registers, warps, 1)
        programs = math.ceil(rows / b0) * math.ceil(columns / b1)
        tail, overhead = _persistent(config, programs, _waves(programs, resident))
        straight = 1.0 if flat else min(1.0, b1 * 2 / 128)
        transposed = 0.25 if flat else min(1.0, b0 * 2 / 128)
        per_thread = tile / (warps * 32)
        in_flight = resident * warps * 32 * min(per_thread, 16)
        bandwidth = 1 - math.exp(-in_flight / 9000)
        order = 1.0 if config["loop_orders"][0] == [0, 1] else 1.04
        near = 1 + 0.06 * abs(math.log2(config["l2_groupings"][0]) - 3) / 3
        size = rows * columns * 2
        ms = (2 * size / max(straight, 0.03) + size * near / max(transposed, 0.03)) / (
            BYTES_PER_MS * max(bandwidth, 0.01)
        )
        ms *= order * (1.1 if flat else 1.0)
        return (
            ms
            * tail
            * _spill(registers)
            * _indexing_gain(config, 3, min(b0, b1))
            * _eviction_gain(config, ["first", "last"])
            + overhead
            + programs * 4e-7
        )

    return model


_MATMUL = ({"m"}, {"n"}, {"k"})
_ATTENTION = (set[str](), {"m"}, {"n", "k"})

LANDSCAPES: tuple[Landscape, ...] = (
    Landscape("matmul 4096^3", _matmul_spec(), _matmul(4096, 4096, 4096), best_ms=0.12578910614886044, roles=_MATMUL),
    Landscape(
        "matmul 64x4096x8192", _matmul_spec(), _matmul(64, 4096, 8192), best_ms=0.007710309849047612, roles=_MATMUL
    ),
    Landscape(
        "softmax 4096x8192", _rows_spec("softmax", 8192, 1), _rows(4096, 8192, 1, 2), best_ms=0.04481556318518053
    ),
    Landscape(
        "rms_norm 32768x1024", _rows_spec("rms_norm", 1024, 2), _rows(32768, 1024, 2, 2), best_ms=0.05716811675029826
    ),
    Landscape(
        "attention 64x4096x128",
        _attention_spec(),
        _attention(64, 4096, 128),
        best_ms=0.6325622446958459,
        roles=_ATTENTION,
    ),
    Landscape("pointwise 8192x8192^T", _pointwise_spec(), _pointwise(8192, 8192), best_ms=0.1162670913454962),
)


def find_best(landscape: Landscape, starts: int = 60, seed: int = 0) -> tuple[Config, float]:
    """The best Config known, without noise: descents over one- and two-step neighbours from many starts.

    Returns:
        The Config and its time in milliseconds.
    """
    space = _space(landscape)
    rng = random.Random(seed)
    known: dict[Point, float] = {}

    def cost(point: Point) -> float:
        if point not in known:
            config = space.config(point)
            try:
                known[point] = math.inf if config is None else landscape.true_ms(config)
            except Failed:
                known[point] = math.inf
        return known[point]

    best = min((space.random_point(rng) for _ in range(2000)), key=cost)
    pool = sorted(known, key=cost)[: starts // 2]
    pool += [space.mutate(best, rng, 6) for _ in range(starts - len(pool))]
    for point in pool:
        while True:
            near = min(space.neighbor_points(point), key=cost)
            if cost(near) >= cost(point):
                jumps = [space.mutate(point, rng, rng.choice((2, 3))) for _ in range(150)]
                near = min(jumps, key=cost)
                if cost(near) >= cost(point):
                    break
            point = near
        if cost(point) < cost(best):
            best = point
    config = space.config(best)
    assert config is not None
    return config, cost(best)
