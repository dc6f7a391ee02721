"""Kernel functions with ``backend="cute"`` called on tensors of a GPU, or the software GPU: front end to launch, and
the four examples.
"""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from examples import batched_matmul_residual
from examples import fp8_matmul
from examples import fp8_scaled_mm
from examples import linear_gelu
from helion import exc
from helion.backends.cute import _compat
from helion.backends.cute import kernel as cute_kernel
from tests import softgpu as software

pytestmark = pytest.mark.compiles

on_both = pytest.mark.softgpu(capability=[90, 100])


@pytest.fixture(autouse=True)
def binaries_are_known(softgpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """The software GPU runs the PTX of a binary: tell it which, where the launcher compiles or loads one."""
    if not softgpu.software and (softgpu.capability not in (90, 100, 103) or not _compat.installed()):
        pytest.skip("needs a GPU with wgmma or tcgen05, and the CuTe toolkit")
    real = cute_kernel.compile_matmul

    def compile_and_register(*args):
        compiled = real(*args)
        if softgpu.software:
            software.register(compiled.assembly.cubin, compiled.assembly.ptx)
        return compiled

    monkeypatch.setattr(cute_kernel, "compile_matmul", compile_and_register)
    # Bound for the GPU of the test before, otherwise.
    for kernel in (
        fp8_matmul.fp8_matmul,
        fp8_scaled_mm.fp8_scaled_mm,
        linear_gelu.linear_gelu,
        batched_matmul_residual.batched_matmul_residual,
        product,
    ):
        kernel.reset()


@on_both
@pytest.mark.parametrize("shape", [(256, 256, 128), (100, 272, 144)], ids=str)
def test_fp8_matmul(softgpu, shape: tuple[int, int, int]) -> None:
    args = fp8_matmul.make_args(*shape, device=softgpu.device)
    torch.testing.assert_close(fp8_matmul.fp8_matmul(*args), fp8_matmul.reference(*args), rtol=2e-2, atol=2e-2)
    assert not softgpu.software or software.launches() == 1


@on_both
@pytest.mark.parametrize("shape", [(256, 256, 128), (100, 272, 144)], ids=str)
def test_fp8_scaled_mm(softgpu, shape: tuple[int, int, int]) -> None:
    args = fp8_scaled_mm.make_args(*shape, device=softgpu.device)
    torch.testing.assert_close(fp8_scaled_mm.fp8_scaled_mm(*args), fp8_scaled_mm.reference(*args), rtol=2e-2, atol=2e-2)


@on_both
@pytest.mark.parametrize("shape", [(256, 128, 128), (100, 257, 72)], ids=str)
def test_linear_gelu(softgpu, shape: tuple[int, int, int]) -> None:
    args = linear_gelu.make_args(*shape, device=softgpu.device)
    torch.testing.assert_close(linear_gelu.linear_gelu(*args), linear_gelu.reference(*args), rtol=2e-2, atol=2e-2)


@on_both
def test_batched_matmul_residual(softgpu) -> None:
    args = batched_matmul_residual.make_args(3, 130, 72, 64, device=softgpu.device)
    got = batched_matmul_residual.batched_matmul_residual(*args)
    torch.testing.assert_close(got, batched_matmul_residual.reference(*args), rtol=2e-2, atol=2e-2)


@helion.kernel(backend="cute")
def product(x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    m, k = x.size()
    n = y.size(1)
    for rows, columns in hl.tile([m, n]):
        acc = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(k):
            acc = torch.addmm(acc, x[rows, inner], y[inner, columns])
        out[rows, columns] = (acc + bias[columns]).to(out.dtype)
    return out


def shifted(size: int, dtype: torch.dtype, by: int, device: torch.device) -> torch.Tensor:
    """``size`` elements that start ``by`` elements behind a 16-byte boundary."""
    return torch.zeros(size + by, dtype=dtype, device=device)[by:]


@on_both
def test_an_unaligned_output_and_bias_get_a_binary_of_their_own(softgpu) -> None:
    x = torch.randn(128, 64, device=softgpu.device).bfloat16()
    y = torch.randn(64, 136, device=softgpu.device).bfloat16()
    want = x.float() @ y.float()
    for by in (0, 1, 0):
        out = shifted(128 * 136, torch.bfloat16, by, softgpu.device).view(128, 136)
        bias = shifted(136, torch.bfloat16, by, softgpu.device).copy_(torch.randn(136))
        product(x, y, bias, out)
        torch.testing.assert_close(out.float(), want + bias.float(), rtol=2e-2, atol=2e-2)


@on_both
def test_an_unaligned_operand_is_a_clear_error(softgpu) -> None:
    x = shifted(128 * 64, torch.bfloat16, 1, softgpu.device).view(128, 64)
    y, bias, out = (torch.zeros(size, device=softgpu.device).bfloat16() for size in ((64, 136), (136,), (128, 136)))
    with pytest.raises(exc.InvalidAPIUsage, match="16 bytes do not divide"):
        product(x, y, bias, out)


@helion.kernel(backend="cute")
def load_role(A, B, M, stream, mask, kept, m_kept, b: float, otherwise: int):
    """Named as the printed code names things; an epilogue of operations that are several of the toolkit's."""
    m, k = A.size()
    n = B.size(1)
    out = torch.empty([m, n], dtype=torch.float32, device=A.device)
    for rows, columns in hl.tile([m, n]):
        acc = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(k):
            acc = torch.addmm(acc, A[rows, inner], B[inner, columns])
        chosen = torch.where(M[rows] > 0, M[rows], stream[rows])
        value = torch.add(acc * chosen[:, None], torch.sign(acc), alpha=3) - torch.full_like(acc, 0.25) * b
        at = mask[rows, columns] & ~(kept[columns][None, :] ^ m_kept[rows][:, None])
        out[rows, columns] = torch.where(at, value, otherwise)
    return out


@on_both
def test_names_of_the_printed_code_and_masks(softgpu) -> None:
    m, n, k = 70, 72, 64
    x, y = (torch.randn(shape, device=softgpu.device).bfloat16() for shape in ((m, k), (k, n)))
    first, second = (torch.randn(m, device=softgpu.device) for _ in range(2))
    mask, kept, m_kept = (torch.rand(shape, device=softgpu.device) > 0.4 for shape in ((m, n), (n,), (m,)))
    load_role.reset()
    got = load_role(x, y, first, second, mask, kept, m_kept, 1.5, -1)
    acc = x.float() @ y.float()
    value = acc * torch.where(first > 0, first, second)[:, None] + 3 * torch.sign(acc) - 0.25 * 1.5
    want = torch.where(mask & ~(kept ^ m_kept[:, None]), value, -1.0)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@helion.kernel(backend="cute")
def add_product(out: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    m, k = x.size()
    for rows, columns in hl.tile([m, y.size(1)]):
        acc = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(k):
            acc = torch.addmm(acc, x[rows, inner], y[inner, columns])
        out[rows, columns] = out[rows, columns] + acc
    return out


@on_both
@pytest.mark.parametrize("shape", [(64, 64, 64), (200, 72, 64)], ids=str)
def test_the_output_is_read_in_its_places_only(softgpu, shape: tuple[int, int, int]) -> None:
    """Past the edge the last row or column was read again, which another warp may have stored by then."""
    m, n, k = shape
    x, y, out = (torch.randn(size, device=softgpu.device).bfloat16() for size in ((m, k), (k, n), (m, n)))
    add_product.reset()
    want = out.float() + x.float() @ y.float()
    torch.testing.assert_close(add_product(out, x, y).float(), want, rtol=2e-2, atol=2e-2)


@pytest.mark.softgpu(capability=80, software_only=True)
def test_a_gpu_without_the_instructions_is_refused_when_bound(softgpu) -> None:
    args = (
        torch.zeros(128, 64).bfloat16(),
        torch.zeros(64, 136).bfloat16(),
        torch.zeros(136).bfloat16(),
        torch.zeros(128, 136).bfloat16(),
    )
    with pytest.raises(exc.BackendUnsupported, match=r"compute capability 8\.0"):
        product.bind(args)
