"""Host code around the loops: what it may do with the kernel's results, and with numbers read from tensors."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere


def positives(x: torch.Tensor) -> torch.Tensor:
    out = torch.full_like(x, float("inf"))
    count = torch.zeros([1], dtype=torch.int32, device=x.device)
    for tile in hl.tile(x.size(0)):
        value = x[tile]
        keep = value > 0
        place = torch.cumsum(keep.to(torch.int32), 0) - 1
        start = hl.atomic_add(count, [0], keep.to(torch.int32).sum())
        hl.store(out, [start + place], value, extra_mask=keep)
    found = int(count)
    if found == 0:
        return out[:0]
    return out.sort().values[:found]


@pytest.mark.parametrize("x", [torch.randn(50), -torch.ones(5)], ids=["some", "none"])
def test_host_code_reads_what_the_kernel_wrote(x):
    run_everywhere(
        positives, (x,), lambda x: x[x > 0].sort().values, error_scale=0, reference_args=(x,), capabilities=[90]
    )


def total_of(x: torch.Tensor) -> torch.Tensor:
    total = torch.zeros([1], device=x.device)
    for tile in hl.tile(x.size(0)):
        part = x[tile].sum()
        hl.atomic_add(total, [0], part)
    if total.item() > 0:
        return total
    return part


def test_device_variables_are_refused_after_a_read_too():
    with pytest.raises(exc.CannotReadDeviceVariableOnHost, match="'part'"):
        helion.kernel(total_of)(torch.ones(5))


def loop_after_read(x: torch.Tensor) -> torch.Tensor:
    total = torch.zeros([1], device=x.device)
    for tile in hl.tile(x.size(0)):
        hl.atomic_add(total, [0], x[tile].sum())
    scale = total.item()
    for tile in hl.tile(x.size(0)):
        x[tile] = x[tile] * scale
    return x


def test_a_read_between_loops_is_refused():
    with pytest.raises((exc.HostTensorRead, exc.TopLevelStatementBetweenLoops)):
        helion.kernel(loop_after_read)(torch.ones(5))


def doubled(x, y=None):
    out = torch.empty_like(x)
    if x.numel() == 0:
        return out
    if y is not None:
        if y.size(0) != x.size(0):
            return None, x
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] * 2
    return out


@pytest.mark.compiles
@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
def test_early_return_decides_for_each_call(static, seed):
    kernel = helion.kernel(doubled, config=helion.Config(block_sizes=[16]), static_shapes=static)
    for args in ((torch.randn(5),), (torch.empty(0),), (torch.randn(5), torch.randn(5)), (torch.randn(7),)):
        run_everywhere(kernel, args, lambda x, y=None: x * 2, configs=[{"block_sizes": [4]}], capabilities=[80])
    x, y = torch.randn(5), torch.randn(6)
    run_everywhere(
        kernel, (x, y), lambda x, y: (None, x), configs=[{"block_sizes": [4]}], capabilities=[80], error_scale=4
    )
    assert kernel(x, y)[1] is x


def test_early_return_needs_no_config_and_tunes_nothing():
    kernel = helion.kernel(doubled)
    assert kernel(torch.empty(0)).shape == (0,)
    assert dict(kernel.autotune((torch.empty(0),))) == {}


@pytest.mark.softgpu(capability=80)
def test_early_return_on_the_gpu_is_counted_as_no_launch(softgpu):
    kernel = helion.kernel(doubled, config=helion.Config(block_sizes=[16]))
    assert kernel(torch.empty(0, device=softgpu.device)).shape == (0,)
    assert kernel(torch.empty(0, device=softgpu.device)).device == softgpu.device
    (stats,) = [row for name, row in helion.runtime.launch_stats().items() if "doubled" in str(name)][-1:]
    assert stats.layers == {"host_only": 2}


@pytest.mark.parametrize("mode", [helion.RefMode.OFF, helion.RefMode.EAGER])
def test_an_underscore_is_nobodys_in_host_code_and_on_the_device(mode):
    @helion.kernel(config=helion.Config(block_sizes=[4]), ref_mode=mode)
    def kernel(x: torch.Tensor) -> torch.Tensor:
        rows, _ = x.shape
        out = torch.empty([rows], dtype=torch.int64, device=x.device)
        for t in hl.tile(rows):
            _, at = torch.max(x[t, :], dim=1)
            for _ in hl.grid(2):
                at = at + 1
            out[t] = at
        return out

    x = torch.randn(6, 5)
    assert torch.equal(kernel(x), x.argmax(1) + 2)


def test_a_tensor_that_host_code_makes_on_another_device_is_refused() -> None:
    def elsewhere(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty(x.shape, device="meta")
        for t in hl.tile(x.size(0)):
            out[t] = x[t]
        return out

    with pytest.raises(exc.DeviceMismatch, match="host code makes on meta"):
        helion.kernel(elsewhere)(torch.randn(4))
