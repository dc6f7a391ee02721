"""Tuning real kernels: through the tile executor, and as generated Triton code on a GPU (the software one
elsewhere).
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import helion
import helion.language as hl
from helion.autotuner import api
from helion.autotuner import searches
from helion.autotuner.bound import BoundTarget
from helion.autotuner.bound import KernelRecipe
from helion.autotuner.travel import unpack_kernel
from helion.backends.triton.candidate import TritonRecipe
from helion.config import Config

from . import gpu_kernels

ROOT = Path(__file__).resolve().parents[2]
QUICK = {"effort": "quick", "evaluations": 5, "search": "RandomSearch", "progress_bar": False}


@pytest.fixture(autouse=True)
def fresh() -> None:
    gpu_kernels.double.reset()
    gpu_kernels.row_sum.reset()


@pytest.mark.spawns
def test_a_kernel_is_tuned_on_cpu_tensors_in_worker_processes_and_then_uses_the_result() -> None:
    x = torch.randn(512, generator=torch.Generator().manual_seed(1))
    config = gpu_kernels.double.autotune((x,), **QUICK)
    bound = gpu_kernels.double.bind((x,))
    assert bound._config == config
    torch.testing.assert_close(gpu_kernels.double(x), x * 2)


def test_a_first_call_on_cpu_tensors_searches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searches, "run_search", lambda *a, **k: pytest.fail("searched"))
    x = torch.ones(64)
    torch.testing.assert_close(gpu_kernels.double(x), x * 2)


@pytest.mark.spawns
def test_a_first_call_searches_where_an_effort_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    @helion.kernel(autotune_effort="quick", autotune_progress_bar=False)
    def local(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] + 1
        return out

    seen: list[dict[str, object]] = []
    real = searches.run_search

    def few(target: object, args: object, **options: object) -> object:
        seen.append(options)
        return real(target, args, **{**options, "evaluations": 3, "search": "RandomSearch"})  # type: ignore[arg-type]

    monkeypatch.setattr(searches, "run_search", few)
    x = torch.ones(64)
    torch.testing.assert_close(local(x), x + 1)
    torch.testing.assert_close(local(x), x + 1)
    assert len(seen) == 1


@pytest.mark.spawns
def test_a_kernel_defined_in_a_function_is_tuned_in_worker_processes(caplog: pytest.LogCaptureFixture) -> None:
    offset = 3

    @helion.kernel
    def local(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] + offset
        return out

    x = torch.ones(64)
    result = api.run_search(BoundTarget(local.bind((x,))), (x,), **QUICK)
    assert {t.worker for t in result.trials} == {"measure"} and all(t.ok for t in result.trials), result.trials
    assert "without protection" not in caplog.text


@pytest.mark.spawns
def test_lambdas_and_closures_among_the_arguments_travel(caplog: pytest.LogCaptureFixture) -> None:
    bias = torch.randn(64, generator=torch.Generator().manual_seed(5))
    x = torch.ones(64)
    for epilogue in (lambda v: v + 1, lambda v, tile: v + bias[tile]):
        kernel = gpu_kernels.with_epilogue if epilogue.__code__.co_argcount == 1 else gpu_kernels.with_tiled_epilogue
        result = api.run_search(BoundTarget(kernel.bind((x, epilogue))), (x, epilogue), **QUICK)
        assert {t.worker for t in result.trials} == {"measure"}, result.trials
        assert all(t.ok for t in result.trials), result.trials
    assert "without protection" not in caplog.text


@pytest.mark.spawns
def test_a_kernel_that_holds_what_cannot_be_pickled_is_tuned_in_this_process_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = threading.Lock()

    @helion.kernel
    def local(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        assert held is not None
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] + 1
        return out

    x = torch.ones(64)
    local.autotune((x,), **QUICK)
    assert "without protection" in caplog.text and "lock" in caplog.text
    torch.testing.assert_close(local(x), x + 1)


def test_keys_tell_kernels_shapes_and_inlined_helpers_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(*shape: int) -> str:
        gpu_kernels.double.reset()
        x = torch.ones(*shape)
        return BoundTarget(gpu_kernels.double.bind((x,))).cache_key((x,)).digest()

    first = digest(64)
    assert digest(64) == first
    assert digest(128) != first
    monkeypatch.setattr(gpu_kernels, "twice", lambda v: v * 3)
    assert digest(64) != first


_KEY = """
import torch
from tests.autotuner import gpu_kernels
from helion.autotuner.bound import BoundTarget
x = torch.ones(64, 32)
print(BoundTarget(gpu_kernels.row_sum.bind((x,))).cache_key((x,)).digest())
"""


@pytest.mark.spawns
def test_the_key_of_a_kernel_is_the_same_in_another_process() -> None:
    x = torch.ones(64, 32)
    here = BoundTarget(gpu_kernels.row_sum.bind((x,))).cache_key((x,))
    assert here.unstable_part() is None
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", _KEY], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert other.stdout.strip() == here.digest(), other.stderr


def test_on_cpu_tensors_the_kernel_travels_by_its_name() -> None:
    target = BoundTarget(gpu_kernels.double.bind((torch.ones(64),)))
    assert target.isolation_problem() is None
    made = target.recipe(target.config_spec.default_config())
    assert isinstance(made, KernelRecipe) and unpack_kernel(made.kernel) is gpu_kernels.double


@pytest.mark.softgpu(capability=90)
def test_on_a_gpu_candidates_travel_as_generated_source(softgpu: object) -> None:
    x = torch.ones(64, device=softgpu.device)  # type: ignore[attr-defined]
    target = BoundTarget(gpu_kernels.double.bind((x,)))
    default = target.config_spec.default_config()
    made = target.recipe(default)
    assert isinstance(made, TritonRecipe) and "@triton.jit" in made.text
    assert made == target.recipe(default)
    assert made != target.recipe(target.config_spec.normalize({"num_warps": 8}))


@pytest.mark.softgpu(capability=90, software_only=True)
@pytest.mark.compiles
def test_precompiling_compiles_and_launches_nothing(softgpu: object) -> None:
    x = torch.arange(64.0, device=softgpu.device)  # type: ignore[attr-defined]
    target = BoundTarget(gpu_kernels.double.bind((x,)))
    made = target.recipe(Config(**{**dict(target.config_spec.default_config()), "block_sizes": [32]}))
    run = made.build((x,))
    from helion.backends.triton import candidate
    from tests import softgpu as gpu

    before = gpu.launches()
    compiled: list[object] = []

    def compile_only(kernel: object, *args: object, **options: object) -> None:
        candidate._compile_only(kernel, *args, **options)  # type: ignore[arg-type]
        compiled.append(kernel)

    assert isinstance(made, TritonRecipe)
    run(x, _launcher=compile_only)
    assert len(compiled) == 1 and gpu.launches() == before
    torch.testing.assert_close(run(x), x * 2)


@pytest.mark.softgpu(capability=90)
@pytest.mark.spawns
def test_generated_code_is_tuned_on_a_gpu(softgpu: object) -> None:
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(2)).to(softgpu.device)  # type: ignore[attr-defined]
    # The software GPU lives in this process; workers would not have it.
    configs = [Config(block_sizes=[b], num_warps=w) for b, w in ((8, 1), (32, 4))]
    config = gpu_kernels.row_sum.autotune((x,), effort="quick", configs=configs, isolate=False, progress_bar=False)
    assert config["block_sizes"] in ([8], [32])
    torch.testing.assert_close(gpu_kernels.row_sum(x), x.sum(-1))


@pytest.mark.softgpu(capability=90, software_only=True)
@pytest.mark.spawns
def test_generated_code_is_compiled_and_measured_in_worker_processes(
    softgpu: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("from tests import softgpu\nsoftgpu.install(capability=90)\n")
    monkeypatch.syspath_prepend(str(tmp_path))  # workers get it with PYTHONPATH: each has a software GPU of its own
    from tests import softgpu as gpu

    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(2))
    target = BoundTarget(gpu_kernels.row_sum.bind((x,)))
    configs = [Config(block_sizes=[b], num_warps=w) for b, w in ((8, 1), (32, 4))]
    before = gpu.launches()
    result = api.run_search(target, (x,), effort="quick", configs=configs, progress_bar=False)
    assert gpu.launches() == before
    assert [t.status.value for t in result.trials] == ["ok", "ok"], [t.message for t in result.trials]
    assert {t.worker for t in result.trials} == {"measure"} and all(t.compile_s > 0 for t in result.trials)


@pytest.mark.spawns
def test_all_autotune_options_are_settings_without_their_prefix() -> None:
    x = torch.ones(64)
    with pytest.raises(helion.exc.InvalidAPIUsage, match="autotune_effort"):
        gpu_kernels.double.autotune((x,), efort="quick")


@pytest.mark.softgpu(capability=90, software_only=True)
@pytest.mark.spawns
def test_compile_workers_need_no_copy_of_the_arguments(softgpu: object, tmp_path: Path) -> None:
    from tests import softgpu as gpu

    x = torch.randn(64, 32)
    torch.save((x, 3), tmp_path / "args.pt")
    args = torch.load(tmp_path / "args.pt", map_location="meta")
    assert args[0].device.type == "meta" and args[0].stride() == x.stride()
    target = BoundTarget(gpu_kernels.row_sum.bind((x,)))
    made = target.recipe(Config(**{**dict(target.config_spec.default_config()), "block_sizes": [16]}))
    before = gpu.launches()
    fn = made.build(args[:1])
    made.precompile(fn, args[:1])
    assert gpu.launches() == before
    # What was compiled for arguments without data is what a call with data needs: nothing more is compiled.
    (module_kernel,) = [v for v in fn.__globals__.values() if type(v).__name__ == "JITFunction"]
    compiled = sum(len(entry[0]) for entry in module_kernel.device_caches.values())
    torch.testing.assert_close(fn(x), x.sum(-1))
    assert sum(len(entry[0]) for entry in module_kernel.device_caches.values()) == compiled == 1


@pytest.mark.softgpu(capability=90, software_only=True)
@pytest.mark.parametrize(
    ("change", "promising"),
    [
        ({"block_sizes": [128, 128, 64], "num_warps": 8, "num_stages": 4}, True),
        ({"block_sizes": [256, 512, 16], "num_warps": 8}, False),  # 512 accumulator registers for each thread
        ({"block_sizes": [128, 256, 128], "num_warps": 16, "num_stages": 4}, False),  # 288 KiB of operands
        ({"block_sizes": [128, 256, 128], "num_warps": 16, "num_stages": 2}, True),
        ({"block_sizes": [128, 128, 64], "num_warps": 8, "range_num_stages": [0, 4], "num_stages": 8}, True),
        ({"block_sizes": [256, 128, 128], "num_warps": 8, "range_num_stages": [0, 4], "num_stages": 2}, False),
        ({"static_ranges": [True], "block_sizes": [64, 64, 16]}, False),  # 128 iterations
        ({"static_ranges": [True], "block_sizes": [64, 64, 256]}, True),
    ],
)
def test_configs_without_room_on_the_device_are_not_searched(
    softgpu: object, change: dict[str, object], promising: bool
) -> None:
    from examples.matmul import matmul

    a, b = torch.empty(2048, 2048, dtype=torch.bfloat16), torch.empty(2048, 2048, dtype=torch.bfloat16)
    spec = BoundTarget(matmul.bind((a, b))).config_spec
    assert spec.is_promising(spec.default_config())
    assert spec.is_promising(spec.normalize(change)) is promising


def _starts(kernel: helion.Kernel, *args: torch.Tensor) -> list[dict[str, object]]:
    return BoundTarget(kernel.bind(args)).config_spec.starts


@pytest.mark.softgpu(capability=90, software_only=True)
@pytest.mark.parametrize(
    ("dtype", "m", "first"),
    [
        (torch.bfloat16, 1024, [128, 128, 64]),
        (torch.float32, 1024, [128, 128, 32]),
        (torch.bfloat16, 32, [32, 128, 64]),
    ],
)
def test_searches_of_products_begin_with_tiles_for_tensor_cores(
    softgpu: object, dtype: torch.dtype, m: int, first: list[int]
) -> None:
    from examples.matmul import matmul

    starts = _starts(matmul, torch.empty(m, 512, dtype=dtype), torch.empty(512, 1024, dtype=dtype))
    assert starts[0] == {"block_sizes": first, "num_warps": 8, "num_stages": 4, "l2_groupings": [8]}
    spec = BoundTarget(matmul.bind((torch.empty(m, 512, dtype=dtype), torch.empty(512, 1024, dtype=dtype)))).config_spec
    assert 3 <= len(starts) <= 6 and all(spec.is_promising(spec.normalize(start)) for start in starts)
    tiles = [(start["block_sizes"], start["num_warps"]) for start in starts]
    assert all(tile not in tiles[:i] for i, tile in enumerate(tiles))


@pytest.mark.softgpu(capability=90, software_only=True)
def test_a_block_of_two_products_begins_with_the_smaller_of_what_they_want(softgpu: object) -> None:
    from examples.attention import attention

    q = torch.empty(1, 2, 512, 64, dtype=torch.bfloat16)
    assert [start["block_sizes"] for start in _starts(attention, q, q, q)][:1] == [[128, 64]]


@pytest.mark.softgpu(capability=90, software_only=True)
def test_kernels_without_products_begin_with_the_default_alone(softgpu: object) -> None:
    assert _starts(gpu_kernels.row_sum, torch.empty(64, 32)) == []
