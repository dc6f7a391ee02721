"""Running matrix kernels in tests: operands, launch, and the reference with its tolerance."""

from __future__ import annotations

import dataclasses

import torch

from helion.backends.cute.compile import CompiledMatmul
from helion.backends.cute.compile import compile_matmul
from helion.backends.cute.schedule import MatmulSchedule
from helion.backends.cute.spec import Aux
from helion.backends.cute.spec import MatmulSpec
from helion.backends.cute.spec import Operand
from tests import softgpu
from tests.caches import cute_cache


def compiled(spec: MatmulSpec, schedule: MatmulSchedule) -> CompiledMatmul:
    """Compile, and tell the software GPU which PTX the binary was made from."""
    result = compile_matmul(spec, schedule, cute_cache())
    softgpu.register(result.assembly.cubin, result.assembly.ptx)
    return result


@dataclasses.dataclass
class Problem:
    """Operands of one spec, with room around every tensor that must stay as it is."""

    spec: MatmulSpec
    a: torch.Tensor
    b: torch.Tensor
    out: torch.Tensor
    aux: list[torch.Tensor | float]

    @staticmethod
    def random(spec: MatmulSpec, seed: int) -> Problem:
        print(f"seed {seed}")
        g = torch.Generator().manual_seed(seed)
        a = _matrix(g, spec.a, spec.batch, spec.m, spec.k)
        b = _matrix(g, spec.b, spec.batch, spec.n, spec.k)
        out = torch.empty_strided(
            (spec.batch, spec.m, spec.n), (spec.out.batch, spec.out.outer, spec.out.inner), dtype=spec.out.dtype
        )
        out.view(torch.uint8 if out.dtype.itemsize == 1 else out.dtype).fill_(
            0x7F if out.dtype.itemsize == 1 else float("nan")
        )
        return Problem(spec, a, b, out, [_aux(g, aux, spec) for aux in spec.epilogue.aux])

    def launch(self, schedule: MatmulSchedule, clusters: int) -> torch.Tensor:
        """Run the kernel; returns the output, (batch, m, n)."""
        launcher = compiled(self.spec, schedule).launcher()
        launcher(self.a, self.b, self.out, *self.aux, clusters=clusters, stream=0)
        return self.out

    def product(self) -> torch.Tensor:
        """A @ B in float64, (batch, m, n)."""
        return self.a.double() @ self.b.double().transpose(-1, -2)

    def broadcast(self, name: str) -> torch.Tensor:
        """An epilogue operand in float64, of a shape that broadcasts to the output."""
        for aux, value in zip(self.spec.epilogue.aux, self.aux):
            if aux.name == name:
                return torch.as_tensor(value).double()
        raise KeyError(name)


def _matrix(g: torch.Generator, operand: Operand, batch: int, outer: int, inner: int) -> torch.Tensor:
    values = torch.randn((batch, outer, inner), generator=g)
    if operand.batch == 0:
        values = values[:1].expand(batch, outer, inner)
    place = torch.empty_strided(
        (batch if operand.batch else 1, outer, inner),
        (operand.batch, operand.outer, operand.inner),
        dtype=operand.dtype,
    )
    place.copy_(values[: place.size(0)])
    return place


def _aux(g: torch.Generator, aux: Aux, spec: MatmulSpec) -> torch.Tensor | float:
    if aux.kind == "value":
        return 0.75
    shape = (spec.batch if aux.batch else 1, spec.m if aux.m else 1, spec.n if aux.n else 1)
    place = torch.empty_strided(shape, (aux.batch, aux.m, aux.n), dtype=aux.dtype)
    return place.copy_(torch.randn(shape, generator=g))


def check(got: torch.Tensor, want: torch.Tensor, k: int, magnitude: torch.Tensor | float = 1.0) -> None:
    """Compare with a float64 reference: one rounding to the output's type, and fp32 sums of k products.

    Args:
        got: the kernel's output.
        want: the reference in float64.
        k: terms of each sum.
        magnitude: what the sum was multiplied with afterwards, which its error is too.
    """
    # fp32 sums in any order: k * 2^-24 of the sum of magnitudes, for operands of size 1 about k^0.5 of it; with room
    # for a tensor core that truncates instead of rounding.
    absolute = 4 * k * 2.0**-23 * k**0.5
    relative = {
        torch.float32: 1e-6,
        torch.float16: 2**-10,
        torch.bfloat16: 2**-7,
        torch.float8_e4m3fn: 2**-3,
        torch.float8_e5m2: 2**-2,
    }[got.dtype]
    smallest = {torch.float8_e4m3fn: 2.0**-9, torch.float8_e5m2: 2.0**-16}.get(got.dtype, 0.0)
    limit = absolute * torch.as_tensor(magnitude).double().abs() + relative * want.abs() + smallest
    if got.dtype.itemsize == 1:
        largest = torch.finfo(got.dtype).max
        want = want.clamp(-largest, largest)
    error = (got.double() - want).abs()
    worst = (error / limit).nan_to_num(float("inf")).max().item()
    assert worst <= 1, (
        f"largest error is {worst:.2f} times what is allowed; at {(error / limit).nan_to_num(1e9).argmax().item()}"
    )
