"""A CuTe kernel's steady-state call runs in C: a plan that encodes tensor maps and launches clusters."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion.backends.cute import _compat
from helion.backends.cute import kernel as cute_kernel
from tests import softgpu as software
from tests.extension import required_extension

pytestmark = pytest.mark.compiles


@helion.kernel(backend="cute")
def scaled(x: torch.Tensor, y: torch.Tensor, scale: torch.Tensor, alpha: float) -> torch.Tensor:
    m, k = x.size()
    n = y.size(1)
    out = torch.empty([m, n], dtype=torch.bfloat16, device=x.device)
    for rows, columns in hl.tile([m, n]):
        acc = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(k):
            acc = hl.dot(x[rows, inner], y[inner, columns], acc=acc)
        out[rows, columns] = (acc * scale[rows, :] * alpha).to(torch.bfloat16)
    return out


@pytest.fixture(autouse=True)
def fresh(softgpu, monkeypatch: pytest.MonkeyPatch) -> None:
    if not softgpu.software and (softgpu.capability not in (90, 100, 103) or not _compat.installed()):
        pytest.skip("needs a GPU with wgmma or tcgen05, and the CuTe toolkit")
    required_extension()
    real = cute_kernel.compile_matmul

    def compile_and_register(*args):
        compiled = real(*args)
        if softgpu.software:
            software.register(compiled.assembly.cubin, compiled.assembly.ptx)
        return compiled

    monkeypatch.setattr(cute_kernel, "compile_matmul", compile_and_register)
    scaled.reset()


def arguments(seed: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(300, 128, generator=g).to(device, torch.float8_e4m3fn)
    y = torch.randn(144, 128, generator=g).to(device, torch.float8_e4m3fn).t()
    return x, y, torch.randn(300, 1, generator=g).to(device), 0.5 + seed


@pytest.mark.softgpu(capability=[90, 100])
def test_later_calls_run_in_c_and_give_the_same(softgpu) -> None:
    kept = []
    for seed in range(5):  # other tensors each time: other tensor maps
        args = x, y, scale, alpha = arguments(seed, softgpu.device)
        kept.append(args)
        want = (x.float() @ y.float()) * scale * alpha
        torch.testing.assert_close(scaled(*args).float(), want, rtol=2e-2, atol=5e-2)
    assert not softgpu.software or software.launches() == 5
    assert scaled.stats.snapshot().layers["plan"] >= 2


@pytest.mark.softgpu(capability=[90, 100], execute=False)
def test_launches_are_counted_from_the_first(softgpu) -> None:
    before = scaled.stats.snapshot().launches
    args = arguments(0, softgpu.device)
    for calls in range(1, 5):
        scaled(*args)
        assert scaled.stats.snapshot().launches == before + calls
    layers = scaled.stats.snapshot().layers
    assert layers["native_launcher"] >= 2 and layers["plan"] >= 2, layers


@pytest.mark.softgpu(capability=100, execute=False, software_only=True)
def test_a_refused_tensor_map_is_the_drivers_error(softgpu) -> None:
    # Tensors that stay alive have addresses of their own: an address seen before may find its tensor map in the cache.
    kept = [arguments(seed, softgpu.device) for seed in range(5)]
    results = [scaled(*args) for args in kept[:3]]
    software.inject("tensor_map", 1, 1)
    with pytest.raises(RuntimeError, match="scaled"):
        scaled(*kept[3])
    results.append(scaled(*kept[4]))
