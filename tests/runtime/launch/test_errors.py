"""What is said of a launch that Triton refuses."""

from __future__ import annotations

import errno
import types

import pytest
import torch
from triton.runtime.errors import OutOfResources

import helion
import helion.language as hl
from helion import exc
from helion.cross_compile import cross_compile
from helion.runtime.launch import launcher


def test_a_config_that_needs_too_much_shared_memory_is_a_clear_error(monkeypatch):
    def refuse(*args, **kwargs):
        raise OutOfResources(270336, 232448, "shared memory")

    monkeypatch.setattr(launcher, "default_launcher", refuse)
    call = launcher.Call(types.SimpleNamespace(__name__="_k_kernel"), (1,), (), 4, 2, {})
    with pytest.raises(exc.InvalidConfig, match="_k_kernel needs 270336 of shared memory, the GPU has 232448"):
        launcher.FastLauncher("k")._default("first call", call)


def test_a_kernel_on_which_a_pass_of_tritons_fails_is_a_clear_error(monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("PassManager::run failed")

    monkeypatch.setattr(launcher, "default_launcher", refuse)
    kernel = types.SimpleNamespace(__name__="_k_kernel", fn=refuse)
    call = launcher.Call(kernel, (1,), (), 4, 2, {})
    with pytest.raises(exc.TritonError, match="'_k_kernel' with num_warps=4, num_stages=2: one of Triton's passes"):
        launcher.FastLauncher("k")._default("first call", call)
    kernel.src = "for i in tl.range(0, 8, 1, loop_unroll_factor=2, flatten=True):"
    with pytest.raises(exc.InvalidConfig, match=r"(?s)factors of 2.*leave range_unroll_factors, range_flattens out"):
        launcher.FastLauncher("k")._default("first call", call)


def test_a_full_disk_is_a_clear_error_and_a_hooks_own_error_stays_what_it_is(monkeypatch):
    error = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(launcher, "default_launcher", refuse)
    call = launcher.Call(types.SimpleNamespace(__name__="_k_kernel"), (1,), (), 4, 2, {})
    with pytest.raises(exc.TritonError, match=r"(?s)No space left on device.*TRITON_CACHE_DIR"):
        launcher.FastLauncher("k")._default("first call", call)
    error = ConnectionResetError(errno.ECONNRESET, "of a hook")
    with pytest.raises(ConnectionResetError):
        launcher.FastLauncher("k")._default("first call", call)


@pytest.mark.compiles
def test_a_config_with_too_few_registers_is_a_clear_error(monkeypatch):
    """ptxas' own words came, with all of the PTX behind them."""

    @helion.kernel(config=helion.Config(block_sizes=[64, 64], maxnreg=32, pid_type="persistent_blocked"))
    def product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0), y.size(1)], dtype=torch.float32, device=x.device)
        for tile_m, tile_n in hl.tile([x.size(0), y.size(1)]):
            out[tile_m, tile_n] = hl.dot(x[tile_m, :], y[:, tile_n])
        return out

    args = (torch.zeros(64, 32, dtype=torch.float16), torch.zeros(32, 64, dtype=torch.float16))
    with pytest.raises(exc.TritonError, match="Insufficient registers") as refused:
        cross_compile(product.bind(args), args, capability=90)
    assert len(str(refused.value)) < 1500
    said = refused.value.__cause__

    def refuse(*args, **kwargs):
        raise said

    monkeypatch.setattr(launcher, "default_launcher", refuse)
    call = launcher.Call(types.SimpleNamespace(__name__="_product_kernel"), (1,), (), 4, 2, {"maxnreg": 32})
    with pytest.raises(exc.InvalidConfig, match=r"needs \d+ registers a thread, maxnreg allows 32"):
        launcher.FastLauncher("product")._default("first call", call)
