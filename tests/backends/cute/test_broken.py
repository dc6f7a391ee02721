"""The software GPU notices what is taken out of the printed kernels: hand-broken copies fault, hang or compute something else.

Without these the tests of the intact kernels would say little: they could pass because nothing is checked.
"""

from __future__ import annotations

import pytest

from helion.backends.cute import _compat
from helion.backends.cute import cache
from helion.backends.cute.compile import CompiledMatmul
from helion.backends.cute.compile import launch_facts
from helion.backends.cute.launch import CuteLauncher
from helion.backends.cute.printer import entry_name
from helion.backends.cute.printer import print_module
from helion.backends.cute.schedule import MatmulSchedule
from helion.backends.cute.spec import MatmulSpec
from tests import softgpu as software

from .gpu import Problem
from .gpu import check
from .gpu import directory
from .problems import BF16
from .problems import FP8
from .problems import hopper
from .problems import matmul
from .problems import pair
from .problems import small

#: Seeds of the order in which asynchronous operations complete; a missing wait need not show in every one.
SEEDS = range(6)


def broken(spec: MatmulSpec, schedule: MatmulSchedule, old: str, new: str, occurrence: int = 0) -> CompiledMatmul:
    """The kernel with one place of its source changed."""
    source = print_module(spec, schedule)
    pieces = source.split(old)
    assert len(pieces) > occurrence + 1, f"{old!r} is not there {occurrence + 1} times"
    changed = old.join(pieces[: occurrence + 1]) + new + old.join(pieces[occurrence + 1 :])
    entry = cache.Entry.of(changed, schedule.arch, directory())
    assembly = entry.load()
    if assembly is None:
        assembly = _compat.compile_entry(entry.import_source(changed), entry_name(spec), schedule.arch)
        entry.store(assembly)
    software.register(assembly.cubin, assembly.ptx)
    return CompiledMatmul(launch_facts(spec, schedule), assembly, entry.source_path)


def caught(compiled: CompiledMatmul, spec: MatmulSpec, capability: int) -> bool:
    """Whether some order of completion makes the kernel fault, hang or compute something else."""
    for seed in SEEDS:
        software.install(capability=capability, seed=seed, max_instructions=20_000_000)
        problem = Problem.random(spec, seed)
        try:
            CuteLauncher(compiled)(problem.a, problem.b, problem.out, clusters=1, stream=0)
            check(problem.out, problem.product(), spec.k)
        except (RuntimeError, AssertionError):
            return True
    return False


PAIR = matmul(512, 256, 512, FP8), pair(ab_stages=2, acc_stages=1, c_stages=1)
SINGLE = matmul(256, 256, 256, BF16), small(ab_stages=2, acc_stages=1, c_stages=1)
HOPPER = matmul(256, 256, 256, BF16), hopper(ab_stages=2, c_stages=1)
EXACT = matmul(256, 256, 256, FP8), hopper(ab_stages=2, c_stages=1)

#: What is broken -> (text, replacement, which occurrence).
BLACKWELL_BREAKS = {
    "MMA does not wait for the ring": ("            ab_pipeline.consumer_wait(ab_state)\n", "", 0),
    "epilogue does not wait for the accumulator": ("        acc_pipeline.consumer_wait(acc_state)\n", "", 0),
    "MMA does not wait for the epilogue": ("        acc_pipeline.producer_acquire(acc_state)\n", "", 0),
    "load starts in the wrong phase": ("PipelineUserType.Producer, AB_STAGES", "PipelineUserType.Consumer, AB_STAGES", 0),
    "MMA sees a ring of one stage too few": ("PipelineUserType.Consumer, AB_STAGES)", "PipelineUserType.Consumer, AB_STAGES - 1)", 0),
    "a stage is released before it is read": (
        "            for block in cutlass.range_constexpr(cute.size(a_fragment, mode=[2])):\n",
        "            ab_pipeline.consumer_release(ab_state)\n            for block in cutlass.range_constexpr(cute.size(a_fragment, mode=[2])):\n",
        0,
    ),
    "output buffer is not waited for": ("                c_pipeline.producer_acquire()", "                pass", 0),
    "TMA stores before the buffer is whole": (
        "            epilogue_barrier.arrive_and_wait()\n            if warp == 0:\n", "            if warp == 0:\n", 0,
    ),
}  # fmt: skip

HOPPER_BREAKS = {
    "consumer does not wait for the ring": ("            ab_pipeline.consumer_wait(state)\n", "", 0),
    "load starts in the wrong phase": ("PipelineUserType.Producer, AB_STAGES", "PipelineUserType.Consumer, AB_STAGES", 0),
    "a stage is released while it is read": ("            warpgroup.wait_group(1)\n", "", 0),
    "the accumulator is read before it is done": ("        warpgroup.wait_group(0)\n", "", 0),
    "consumer sees a ring of one stage too few": (
        "state = pipeline.make_pipeline_state(pipeline.PipelineUserType.Consumer, AB_STAGES)",
        "state = pipeline.make_pipeline_state(pipeline.PipelineUserType.Consumer, AB_STAGES - 1)",
        0,
    ),
    "output buffer is not waited for": ("                c_pipeline.producer_acquire()", "                pass", 0),
    "TMA stores before the buffer is whole": (
        "            epilogue_barrier.arrive_and_wait()\n            if warp == 0:\n", "            if warp == 0:\n", 0,
    ),
}  # fmt: skip

# Of the kernel that sums each k tile of fp8 outside the tensor core.
EXACT_BREAKS = {
    "consumer does not wait for the ring": ("            ab_pipeline.consumer_wait(state)\n", "", 0),
    "a k tile's sum is read before it is done": ("            warpgroup.wait_group(0)\n", "", 0),
    "a stage is released while it is read": (
        "            warpgroup.wait_group(0)\n            ab_pipeline.consumer_release(state)\n",
        "            ab_pipeline.consumer_release(state)\n            warpgroup.wait_group(0)\n",
        0,
    ),
}


@pytest.mark.softgpu(capability=100, software_only=True)
@pytest.mark.parametrize("what", BLACKWELL_BREAKS)
@pytest.mark.parametrize("case", [PAIR, SINGLE], ids=["pair", "single"])
def test_a_broken_tcgen05_kernel_is_caught(softgpu, case: tuple[MatmulSpec, MatmulSchedule], what: str) -> None:
    spec, schedule = case
    assert caught(broken(spec, schedule, *BLACKWELL_BREAKS[what]), spec, 100)


@pytest.mark.softgpu(capability=90, software_only=True)
@pytest.mark.parametrize("what", HOPPER_BREAKS)
def test_a_broken_wgmma_kernel_is_caught(softgpu, what: str) -> None:
    spec, schedule = HOPPER
    assert caught(broken(spec, schedule, *HOPPER_BREAKS[what]), spec, 90)


@pytest.mark.softgpu(capability=90, software_only=True)
@pytest.mark.parametrize("what", EXACT_BREAKS)
def test_a_broken_exact_fp8_kernel_is_caught(softgpu, what: str) -> None:
    spec, schedule = EXACT
    assert caught(broken(spec, schedule, *EXACT_BREAKS[what]), spec, 90)


@pytest.mark.softgpu(capability=100, software_only=True)
@pytest.mark.parametrize("case", [PAIR, SINGLE], ids=["pair", "single"])
def test_the_intact_tcgen05_kernel_is_right_in_every_order(softgpu, case: tuple[MatmulSpec, MatmulSchedule]) -> None:
    spec, schedule = case
    assert not caught(broken(spec, schedule, "\n", "\n"), spec, 100)


@pytest.mark.softgpu(capability=90, software_only=True)
@pytest.mark.parametrize("case", [HOPPER, EXACT], ids=["bf16", "exact fp8"])
def test_the_intact_wgmma_kernel_is_right_in_every_order(softgpu, case: tuple[MatmulSpec, MatmulSchedule]) -> None:
    spec, schedule = case
    assert not caught(broken(spec, schedule, "\n", "\n"), spec, 90)
