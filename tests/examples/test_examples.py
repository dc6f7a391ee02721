"""Every example: against PyTorch in float64, with static and dynamic shapes, as a script, and on a GPU at its realistic
size.

The basic ones, which between them use most of the language, are also swept over dtypes and sizes.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from typing import Any

import pytest
import torch

import helion
from examples import bench
from examples.catalog import EXAMPLES
from examples.entry import Example
from helion.backends.cute._compat import installed as toolkit_installed
from tests.support import CAPABILITIES
from tests.support import compile_for
from tests.support import run_everywhere

pytestmark = pytest.mark.gpu  # with a GPU, every kernel runs on it too

#: Examples swept over dtypes and sizes.
BASIC = (
    "add", "add_8", "add_16", "add_all", "broadcast_add", "exp", "softmax", "softmax_looped", "softmax_online",
    "sum_rows", "long_sum", "sum_all", "rms_norm", "layer_norm", "matmul", "matmul_epilogue", "matmul_split_k", "bmm",
    "embedding", "cross_entropy", "attention",
)  # fmt: skip

basic_example = pytest.mark.parametrize("example", [EXAMPLES[name] for name in BASIC], ids=lambda e: e.name)
other_example = pytest.mark.parametrize(
    "example", [e for e in EXAMPLES.values() if e.name not in BASIC], ids=lambda e: e.name
)

#: Triton has no float8_e4m3fn before compute capability 8.9.
FP8 = {"fp8_matmul", "fp8_scaled_mm", "attention_fp8"}

#: Sizes of each example around n. Sizes that a test does not vary are small.
SIZES: dict[str, Any] = {
    "embedding": lambda n: (1, n, 10, n),
    "attention": lambda n: (1, 2, min(n, 129), min(n, 129), 16),
    "bmm": lambda n: (2, min(n, 129), 33, 17),
    "matmul_split_k": lambda n: (5, n, 17),
    "long_sum": lambda n: (2, n),
    "matmul": lambda n: (min(n, 129), n, 17),
    "matmul_epilogue": lambda n: (5, 17, n),
}


def size_of(example: Example, n: int) -> tuple[int, ...]:
    if example.name in SIZES:
        return SIZES[example.name](n)
    return (n,) if len(example.small) == 1 else (5, n)


def run(example: Example, args: tuple[Any, ...], dtype: torch.dtype, **options: Any) -> None:
    run_everywhere(
        options.pop("kernel", example.kernel),
        args,
        example.reference,
        error_scale=example.error_scale,
        input_dtype=dtype,
        uses_dot=example.uses_dot,
        **options,
    )


@other_example
@pytest.mark.slow
def test_example_matches_pytorch_on_every_capability(example: Example, seed: int) -> None:
    dtype = torch.bfloat16 if example.name in FP8 else example.dtype
    run(example, example.args(), dtype, capabilities=[c for c in CAPABILITIES if c > 80 or example.name not in FP8])


@other_example
@pytest.mark.slow
def test_example_under_dynamic_shapes(example: Example, seed: int) -> None:
    dtype = torch.bfloat16 if example.name in FP8 else example.dtype
    kernel = helion.kernel(example.kernel.fn, static_shapes=False)
    run(example, example.args(), dtype, kernel=kernel, capabilities=[])


@basic_example
@pytest.mark.parametrize(
    ("dtype", "capabilities"),
    [(torch.float32, CAPABILITIES), (torch.float16, [90]), (torch.bfloat16, [100])],
    ids=["float32", "float16", "bfloat16"],
)
def test_example_matches_pytorch(example: Example, dtype: torch.dtype, capabilities: list[int], seed: int) -> None:
    run(example, example.args(dtype=dtype), dtype, capabilities=capabilities)


@basic_example
@pytest.mark.parametrize("n", [1, 3, 127, 129, 1000])
@pytest.mark.slow
def test_size_that_is_no_multiple_of_a_tile(example: Example, n: int, seed: int) -> None:
    dtype = torch.float32
    capabilities = {1: [80], 3: [], 127: [90], 129: [], 1000: [100]}[n]
    run(example, example.args(size_of(example, n), dtype), dtype, capabilities=capabilities)


@basic_example
@pytest.mark.slow
def test_one_kernel_serves_many_sizes_under_dynamic_shapes(example: Example, seed: int) -> None:
    kernel = helion.kernel(example.kernel.fn, static_shapes=False)
    for size, capabilities in (((example.small), [90]), (size_of(example, 70), []), (size_of(example, 129), [80])):
        run(example, example.args(size, torch.float32), torch.float32, kernel=kernel, capabilities=capabilities)


@basic_example
@pytest.mark.compiles
def test_default_config_compiles_for_every_capability(example: Example) -> None:
    # Sizes and strides that are multiples of 16 make Triton vectorize and use asynchronous copies.
    size = tuple(-(-n // 32) * 32 for n in example.small)
    args = example.args(size)
    compile_for(example.kernel, args)
    compile_for(helion.kernel(example.kernel.fn, static_shapes=False), args, capabilities=[90])


if torch.cuda.is_available():

    @pytest.mark.parametrize("example", EXAMPLES.values(), ids=lambda e: e.name)
    def test_example_at_its_realistic_size(example: Example, seed: int) -> None:
        row = bench.run_example(example, "cuda", contextlib.nullcontext)
        assert row.ok, row.message


SCRIPTS = sorted({example.kernel.fn.__module__ for example in EXAMPLES.values()})


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.slow
def test_script_prints_small_errors(name: str, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    kernels = [value for value in vars(importlib.import_module(name)).values() if isinstance(value, helion.Kernel)]
    if torch.cuda.is_available() and not toolkit_installed() and any(k.settings.backend == "cute" for k in kernels):
        # What its user is told on a GPU, where such a kernel is compiled.
        with pytest.raises(helion.exc.BackendUnsupported, match="is not installed"):
            importlib.import_module(name).main()
        return
    importlib.import_module(name).main()
    results = [line for line in capsys.readouterr().out.splitlines() if "HELION_TEST_SEED" not in line]
    assert results
    for line in results:
        error = re.search(r"error (\S+)( of the largest value)?$", line)
        assert line.endswith("equal") if error is None else float(error[1]) < 3e-2, line
