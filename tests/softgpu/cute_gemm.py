"""Matrix kernels of the CuTe backend as test input for the software GPU: PTX, launch dimensions, tensor maps, operands.

``pair()`` is the one to read first: a 2-CTA fp8 tcgen05 kernel with a TMA ring, an accumulator in tensor memory and a
TMA store. The compiler's output is kept for the length of the process; nothing here needs a GPU.
"""

from __future__ import annotations

import dataclasses
import functools

import torch

from helion.backends.cute.compile import CompiledMatmul
from helion.backends.cute.compile import compile_matmul
from helion.backends.cute.schedule import MatmulSchedule
from helion.backends.cute.spec import Epilogue
from helion.backends.cute.spec import MatmulSpec
from helion.backends.cute.spec import Operand
from tests.backends.cute.problems import hopper as hopper_schedule
from tests.backends.cute.problems import matmul
from tests.backends.cute.problems import small as single_schedule
from tests.caches import cute_cache

__all__ = ["Gemm", "build", "hopper", "pair", "single"]


@dataclasses.dataclass(frozen=True)
class Gemm:
    """A compiled kernel and what it computes.

    Args:
        spec: sizes, types and strides.
        compiled: ``compiled.assembly.ptx`` (and ``.cubin``, ``.symbol``); ``compiled.facts`` has block, cluster,
            dynamic shared memory in bytes, and the parameters in order (``map`` with its TensorMap, ``pointer``,
            ``value``). The grid is (cluster x, cluster y, any number of clusters up to ``facts.tiles``).
    """

    spec: MatmulSpec
    compiled: CompiledMatmul

    @property
    def ptx(self) -> str:
        return self.compiled.assembly.ptx

    def operands(self, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Random A (batch, m, k) and B (batch, n, k) of the right types and strides, and an output full of NaN."""
        generator = torch.Generator().manual_seed(seed)
        s = self.spec
        a = self._random(generator, s.a, s.m, s.k)
        b = self._random(generator, s.b, s.n, s.k)
        out = torch.empty_strided((s.batch, s.m, s.n), (s.out.batch, s.out.outer, s.out.inner), dtype=s.out.dtype)
        return a, b, out.fill_(float("nan"))

    def reference(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """The product in float64, before any epilogue."""
        return a.double() @ b.double().transpose(-1, -2)

    def _random(self, generator: torch.Generator, operand: Operand, outer: int, inner: int) -> torch.Tensor:
        values = torch.randn((self.spec.batch, outer, inner), generator=generator) / 2
        place = torch.empty_strided(values.shape, (operand.batch, operand.outer, operand.inner), dtype=operand.dtype)
        return place.copy_(values)


@functools.cache
def build(spec: MatmulSpec, schedule: MatmulSchedule) -> Gemm:
    """Compile ``spec`` under ``schedule``."""
    return Gemm(spec, compile_matmul(spec, schedule, cute_cache()))


def pair(m: int = 512, n: int = 256, k: int = 512, epilogue: Epilogue = Epilogue()) -> Gemm:
    """fp8, 2-CTA pairs, tile 256x128x128, four stages. Launch few clusters, so that each computes several tiles."""
    spec = dataclasses.replace(matmul(m, n, k, torch.float8_e4m3fn), epilogue=epilogue)
    return build(spec, MatmulSchedule(ab_stages=4))


def single(m: int = 256, n: int = 256, k: int = 256, b_major: str = "k") -> Gemm:
    """bf16, one CTA a tile, tile 128x128x64, three stages."""
    return build(matmul(m, n, k, torch.bfloat16, b_major=b_major), single_schedule())


def hopper(m: int = 256, n: int = 256, k: int = 256) -> Gemm:
    """bf16 wgmma, tile 128x128x64, three stages."""
    return build(matmul(m, n, k, torch.bfloat16), hopper_schedule(ab_stages=3))
