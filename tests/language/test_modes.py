"""The same kernels in ref mode, in the tile executor and on the (software) GPU, against PyTorch in float64."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from kernels import CASES
from kernels import Case

import helion
from helion.backends.tiles import TileBackend
from helion.frontend.trace import trace_kernel
from helion.runtime.eager.ref_mode import run_ref
from helion.settings import Settings
from helion.target import CPU


def run_tiles(kernel: Any, args: tuple[Any, ...], config: Any, static: bool) -> Any:
    """Trace, print the host function, and call it on the tile executor."""
    bound = inspect.signature(kernel).bind(*args)
    bound.apply_defaults()
    settings = Settings(static_shapes=static)
    ir = trace_kernel(kernel, dict(bound.arguments), settings, torch.device("cpu"))
    if config is not None:
        used = {axis.block.id for axis in ir.device.space.axes if axis.kind.value == "tile"}
        tunable = [b for b in ir.device.space.blocks if b.fixed is None and b.id in used]
        config = {"block_sizes": [config["block_sizes"][0]] * len(tunable)}
    source = TileBackend(ir, settings, CPU).generate(helion.Config(**(config or {})))
    namespace = dict(source.injected)
    exec(source.text, namespace)
    return namespace[source.function](*args)


def widened(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype.is_floating_point and value.dtype is not torch.bfloat16:
        return value.double()
    return value.clone() if isinstance(value, torch.Tensor) else value


def check(case: Case, got: Any, args: tuple[Any, ...]) -> None:
    expected = case.expected(*(widened(a) for a in args))
    got, expected = (v if isinstance(v, tuple) else (v,) for v in (got, expected))
    assert len(got) == len(expected)
    for g, e in zip(got, expected, strict=True):
        assert g.shape == e.shape
        torch.testing.assert_close(g.double(), e.double(), rtol=case.tolerance, atol=case.tolerance)


@pytest.mark.parametrize("name", CASES)
def test_ref_mode(name, rng, blocks):
    case = CASES[name]
    args = case.make(rng)
    check(case, run_ref(case.kernel, copy.deepcopy(args), config=blocks), args)


@pytest.mark.parametrize("static", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", CASES)
def test_tile_executor(name, rng, blocks, static):
    case = CASES[name]
    args = case.make(rng)
    check(case, run_tiles(case.kernel, copy.deepcopy(args), blocks, static), args)


def on(device: torch.device, value: Any) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value


@pytest.mark.filterwarnings("ignore::helion.exc.NoConfigGiven")
@pytest.mark.softgpu(capability=80)
@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.compiles
def test_gpu(name, rng, static, softgpu):
    case = CASES[name]
    args = case.make(rng)
    kernel = helion.kernel(case.kernel, static_shapes=static, dot_precision="ieee")
    got = kernel(*(on(softgpu.device, a) for a in copy.deepcopy(args)))
    softgpu.synchronize()
    results = tuple(on(torch.device("cpu"), g) for g in (got if isinstance(got, tuple) else (got,)))
    check(case, results if isinstance(got, tuple) else results[0], args)
