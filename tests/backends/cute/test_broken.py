"""The software GPU notices what is taken out of the printed kernels: hand-broken copies fault, hang or compute
something else.

Without these the tests of the intact kernels would say little: they could pass because nothing is checked.
"""

from __future__ import annotations

import dataclasses

import pytest

from helion.backends.cute.compile import compile_source
from helion.backends.cute.printer import print_module
from helion.backends.cute.schedule import MatmulSchedule
from helion.backends.cute.spec import MatmulSpec
from tests import softgpu as software
from tests.caches import cute_cache

from .gpu import Problem
from .gpu import check
from .problems import BF16
from .problems import FP8
from .problems import hopper
from .problems import matmul
from .problems import pair
from .problems import small

pytestmark = pytest.mark.compiles

#: Seeds of the order in which asynchronous operations complete; a missing wait need not show in every one.
SEEDS = range(6)


@dataclasses.dataclass(frozen=True)
class Break:
    """A change to the first place of a kernel's source where ``text`` stands."""

    text: str
    replacement: str = ""


LOAD_BREAKS = {
    "load starts in the wrong phase": Break(
        "PipelineUserType.Producer, AB_STAGES", "PipelineUserType.Consumer, AB_STAGES"
    ),
}
STORE_BREAKS = {
    "output buffer is not waited for": Break("                c_pipeline.producer_acquire()", "                pass"),
    "TMA stores before the buffer is whole": Break(
        "            epilogue_barrier.arrive_and_wait()\n            if warp == 0:\n", "            if warp == 0:\n"
    ),
}
TCGEN05_BREAKS = {
    **LOAD_BREAKS,
    **STORE_BREAKS,
    "MMA does not wait for the ring": Break("            ab_pipeline.consumer_wait(ab_state)\n"),
    "MMA sees a ring of one stage too few": Break(
        "PipelineUserType.Consumer, AB_STAGES)", "PipelineUserType.Consumer, AB_STAGES - 1)"
    ),
    "a stage is released before it is read": Break(
        "            for block in cutlass.range_constexpr(cute.size(a_fragment, mode=[2])):\n",
        (
            "            ab_pipeline.consumer_release(ab_state)\n"
            "            for block in cutlass.range_constexpr(cute.size(a_fragment, mode=[2])):\n"
        ),
    ),
    "MMA does not wait for the epilogue": Break("        acc_pipeline.producer_acquire(acc_state)\n"),
    "epilogue does not wait for the accumulator": Break("        acc_pipeline.consumer_wait(acc_state)\n"),
}
WGMMA_RING_BREAKS = {
    "consumer does not wait for the ring": Break("            ab_pipeline.consumer_wait(state)\n"),
}
WGMMA_BREAKS = {
    **LOAD_BREAKS,
    **STORE_BREAKS,
    **WGMMA_RING_BREAKS,
    "consumer sees a ring of one stage too few": Break(
        "state = pipeline.make_pipeline_state(pipeline.PipelineUserType.Consumer, AB_STAGES)",
        "state = pipeline.make_pipeline_state(pipeline.PipelineUserType.Consumer, AB_STAGES - 1)",
    ),
    "a stage is released while it is read": Break("            warpgroup.wait_group(1)\n"),
    "the accumulator is read before it is done": Break("        warpgroup.wait_group(0)\n"),
}
EXACT_BREAKS = {
    **WGMMA_RING_BREAKS,
    "a k tile's sum is read before it is done": Break("            warpgroup.wait_group(0)\n"),
    "a stage is released while it is read": Break(
        "            warpgroup.wait_group(0)\n            ab_pipeline.consumer_release(state)\n",
        "            ab_pipeline.consumer_release(state)\n            warpgroup.wait_group(0)\n",
    ),
}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel, and what can be taken out of it."""

    spec: MatmulSpec
    schedule: MatmulSchedule
    breaks: dict[str, Break]

    def goes_wrong(self, capability: int, change: Break | None) -> bool:
        """Whether under some order of completion the kernel with that change faults, hangs or computes something
        else.
        """
        source = print_module(self.spec, self.schedule)
        if change is not None:
            assert change.text in source
            source = source.replace(change.text, change.replacement, 1)
        compiled = compile_source(source, self.spec, self.schedule, cute_cache())
        software.register(compiled.assembly.cubin, compiled.assembly.ptx)
        for seed in SEEDS:
            software.install(capability=capability, seed=seed, max_instructions=20_000_000)
            problem = Problem.random(self.spec, seed)
            try:
                compiled.launcher()(problem.a, problem.b, problem.out, clusters=1, stream=0)
                check(problem.out, problem.product(), self.spec.k)
            except (RuntimeError, AssertionError):
                return True
        return False


BLACKWELL = {
    "fp8 pair": Kernel(matmul(512, 256, 512, FP8), pair(ab_stages=2, acc_stages=1, c_stages=1), TCGEN05_BREAKS),
    "bf16 single": Kernel(matmul(256, 256, 256, BF16), small(ab_stages=2, acc_stages=1, c_stages=1), TCGEN05_BREAKS),
}
HOPPER = {
    "bf16": Kernel(matmul(256, 256, 256, BF16), hopper(ab_stages=2, c_stages=1), WGMMA_BREAKS),
    # The kernel that sums each k tile of fp8 outside the tensor core.
    "exact fp8": Kernel(matmul(256, 256, 256, FP8), hopper(ab_stages=2, c_stages=1), EXACT_BREAKS),
}
blackwell = pytest.mark.softgpu(capability=100, software_only=True)
hopper_gpu = pytest.mark.softgpu(capability=90, software_only=True)


def _each_break(kernels: dict[str, Kernel]) -> list[tuple[str, str]]:
    return [(name, what) for name, kernel in kernels.items() for what in kernel.breaks]


@blackwell
@pytest.mark.parametrize(("name", "what"), _each_break(BLACKWELL))
def test_a_broken_tcgen05_kernel_is_caught(softgpu, name: str, what: str) -> None:
    kernel = BLACKWELL[name]
    assert kernel.goes_wrong(softgpu.capability, kernel.breaks[what])


@hopper_gpu
@pytest.mark.parametrize(("name", "what"), _each_break(HOPPER))
def test_a_broken_wgmma_kernel_is_caught(softgpu, name: str, what: str) -> None:
    kernel = HOPPER[name]
    assert kernel.goes_wrong(softgpu.capability, kernel.breaks[what])


@blackwell
@pytest.mark.parametrize("name", BLACKWELL)
def test_the_intact_tcgen05_kernel_is_right_in_every_order(softgpu, name: str) -> None:
    assert not BLACKWELL[name].goes_wrong(softgpu.capability, None)


@hopper_gpu
@pytest.mark.parametrize("name", HOPPER)
def test_the_intact_wgmma_kernel_is_right_in_every_order(softgpu, name: str) -> None:
    assert not HOPPER[name].goes_wrong(softgpu.capability, None)
