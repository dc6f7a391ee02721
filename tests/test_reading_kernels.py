"""What a bound kernel tells about itself: its source as a script, its decorator, its place in Triton's cache; and how
kernels go with decorators of other libraries.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc

CONFIG = helion.Config(block_sizes=[16])
ROOT = Path(__file__).resolve().parents[1]


@helion.kernel(config=CONFIG)
def add(x: torch.Tensor, y: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.numel()):
        out[t] = x[t] + y[t] * alpha
    return out


def doubling(fn: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @functools.wraps(fn)
    def doubled(*args: Any) -> torch.Tensor:
        return fn(*args) * 2

    return doubled


@pytest.mark.spawns
def test_source_with_a_caller_is_a_script_that_calls(tmp_path: Path) -> None:
    source = add.bind((torch.randn(20), torch.randn(20))).to_code(emit_repro_caller=True)
    script = tmp_path / "script.py"
    # There is no GPU to launch on: the launch is left out.
    script.write_text(source.replace("    _launcher(", "    (lambda *args, **options: print('launched'))("))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=env, timeout=300)
    assert done.stdout.startswith("launched\ntensor("), done.stderr


def test_lines_of_the_kernel_function_are_named_as_asked() -> None:
    bound = add.bind((torch.randn(20), torch.randn(20)))
    line = "test_reading_kernels.py"
    assert line in bound.to_triton_code(CONFIG, output_origin_lines=True)
    assert line not in bound.to_triton_code(CONFIG, output_origin_lines=False)
    assert bound.to_triton_code(output_origin_lines=True) == bound.to_triton_code()


def test_decorator_makes_the_same_kernel() -> None:
    quiet = helion.kernel(add.fn, static_shapes=False)
    bound = quiet.bind((torch.randn(20), torch.randn(20)))
    text = bound.format_kernel_decorator(CONFIG, bound.settings)
    made = eval(text.removeprefix("@"), {"helion": helion})(add.fn)
    assert made.configs == [CONFIG] and made.settings == quiet.settings


def test_environment_of_a_bound_kernel() -> None:
    bound = add.bind((torch.randn(20), torch.randn(20)))
    assert bound.kernel is add and bound.env.config_spec is bound.config_spec
    assert bound.env.device == torch.device("cpu") and bound.env.settings is add.settings


@pytest.mark.softgpu(capability=80)
@pytest.mark.compiles
def test_cache_key_is_a_folder_of_tritons_cache(softgpu: Any) -> None:
    from triton import knobs

    kernel = helion.kernel(add.fn, config=CONFIG)
    x = torch.randn(20, device=softgpu.device if hasattr(softgpu, "device") else None)
    bound = kernel.bind((x, x))
    assert bound.backend_cache_key() is None
    kernel(x, x)
    key = bound.backend_cache_key()
    assert key is not None and (Path(knobs.cache.dir) / key).is_dir()
    assert bound.backend_cache_key(helion.Config(block_sizes=[32])) is None


def test_cpu_tensors_have_no_binary() -> None:
    x = torch.randn(20)
    add(x, x)
    assert add.bind((x, x)).backend_cache_key() is None


def test_a_decorator_below_is_refused_at_bind_and_one_above_is_fine() -> None:
    @helion.kernel(config=CONFIG)
    @doubling
    def below(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.numel()):
            out[t] = x[t]
        return out

    @doubling
    @helion.kernel(config=CONFIG)
    def above(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.numel()):
            out[t] = x[t]
        return out

    x = torch.randn(20)
    with pytest.raises(exc.DecoratorAfterHelionKernelDecorator, match=r"@doubling stands below @helion\.kernel"):
        below.bind((x,))
    assert torch.equal(above(x), x * 2)


def test_a_kernel_is_a_custom_operator() -> None:
    op = torch.library.custom_op("helion_tests::add", mutates_args=())(add)
    op.register_fake(lambda x, y, alpha=1.0: torch.empty_like(x))
    x = torch.randn(20)
    torch.testing.assert_close(op(x, x, 2.0), x * 3)
    compiled = torch.compile(lambda x: op(x, x) + 1, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), x * 2 + 1)


def test_a_decorator_can_be_pasted_whatever_its_settings() -> None:
    given = {
        "ref_mode": helion.RefMode.EAGER,
        "ignore_warnings": [helion.exc.TensorOperationInWrapper],
        "index_dtype": torch.int64,
        "autotune_config_overrides": {"num_warps": 4},
        "autotune_seed_configs": [helion.Config(num_warps=8)],
    }
    settings = helion.Settings(**given)  # type: ignore[arg-type]
    bound = add.bind((torch.randn(20), torch.randn(20)))
    decorate = eval(bound.format_kernel_decorator(CONFIG, settings)[1:], {"helion": helion, "torch": torch})
    made = decorate(add.fn)
    assert made.settings == settings and made.configs == [CONFIG]
