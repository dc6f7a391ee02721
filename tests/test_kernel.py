"""`Kernel` and `BoundKernel`: specializations, guards, configs, sources, the code cache, ref mode."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import check

ROOT = Path(__file__).parents[1]


def scale(x, factor: float = 2.0):
    out = torch.empty_like(x)
    for tile in hl.tile(x.size()):
        out[tile] = x[tile] * factor
    return out


def branchy(x):
    out = torch.empty_like(x)
    if x.size(0) > 100:
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] + 1
    else:
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] - 1
    return out


def run_python(code: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process that can import helion, the tests and the examples."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HELION_CACHE_DIR": str(cache), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


# -- specializations
# -------------------------------------------------------------------------------------------------------


def test_static_shapes_make_a_specialization_per_shape() -> None:
    kernel = helion.kernel(scale)
    first = kernel.bind((torch.ones(5),))
    assert kernel.bind((torch.zeros(5),)) is first
    assert kernel.bind((torch.ones(6),)) is not first
    assert kernel.bind((torch.ones(5, dtype=torch.float16),)) is not first


def test_dynamic_shapes_share_a_specialization() -> None:
    kernel = helion.kernel(scale, static_shapes=False, output_origin_lines=False)
    first = kernel.bind((torch.ones(501, 707),))
    assert kernel.bind((torch.ones(64, 33),)) is first
    assert not re.search("501|707", first.to_triton_code())


def test_a_branch_on_a_size_is_guarded() -> None:
    kernel = helion.kernel(branchy, static_shapes=False)
    for n in (50, 150, 100, 101, 70, 3000):
        x = torch.zeros(n)
        assert kernel(x).unique().tolist() == [1.0 if n > 100 else -1.0]
    assert kernel.variant((torch.zeros(60),)) is kernel.variant((torch.zeros(70),))
    assert kernel.variant((torch.zeros(60),)) is not kernel.variant((torch.zeros(160),))
    assert kernel.bind((torch.zeros(60),)) is kernel.bind((torch.zeros(160),))


def test_specialize_makes_a_size_constant_under_dynamic_shapes() -> None:
    @helion.kernel(static_shapes=False)
    def rows(x):
        n = hl.specialize(x.size(1))
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile, :] = x[tile, :] * n
        return out

    first = rows.bind((torch.ones(4, 8),))
    assert rows.bind((torch.ones(9, 8),)) is first
    assert rows.bind((torch.ones(4, 16),)) is not first
    assert rows(torch.ones(3, 8)).unique().tolist() == [8.0]
    assert rows(torch.ones(3, 16)).unique().tolist() == [16.0]


def test_constexpr_argument_is_part_of_the_specialization() -> None:
    @helion.kernel
    def power(x, n: hl.constexpr):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size()):
            value = x[tile]
            for _ in range(n - 1):
                value = value * x[tile]
            out[tile] = value
        return out

    x = torch.full([5], 2.0)
    assert power(x, 3).tolist() == [8.0] * 5
    assert power(x, 5).tolist() == [32.0] * 5
    assert power.bind((x, 3)) is not power.bind((x, 5))


def test_a_key_function_tells_specializations_apart() -> None:
    kernel = helion.kernel(scale, key=lambda x, factor=2.0: factor > 1)
    x = torch.ones(5)
    assert kernel.bind((x, 2.0)) is kernel.bind((x, 3.0))
    assert kernel.bind((x, 2.0)) is not kernel.bind((x, 0.5))


def test_reset_forgets_specializations() -> None:
    kernel = helion.kernel(scale)
    x = torch.ones(5)
    first = kernel.bind((x,))
    kernel.reset()
    assert kernel.bind((x,)) is not first
    assert kernel(x).tolist() == [2.0] * 5


# -- calling
# -----------------------------------------------------------------------------------------------------------------


def test_defaults_and_keywords() -> None:
    kernel = helion.kernel(scale)
    x = torch.ones(3)
    assert kernel(x).tolist() == [2.0] * 3
    assert kernel(x, factor=4.0).tolist() == [4.0] * 3
    assert kernel(factor=5.0, x=x).tolist() == [5.0] * 3


def test_wrong_arguments_are_a_type_error_that_names_the_kernel() -> None:
    with pytest.raises(TypeError, match="scale"):
        helion.kernel(scale)(torch.ones(3), 1.0, 2.0)
    with pytest.raises(TypeError, match="scale"):
        helion.kernel(scale)()


@pytest.mark.parametrize(
    "decorate", [helion.kernel, helion.kernel(), helion.jit, helion.kernel(settings=helion.Settings())]
)
def test_forms_of_the_decorator(decorate) -> None:
    assert decorate(scale)(torch.ones(3)).tolist() == [2.0] * 3


def test_a_kernel_without_a_config_hints_once_how_to_tune() -> None:
    def hinted(x):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size()):
            out[tile] = x[tile]
        return out

    kernel = helion.kernel(hinted)
    with pytest.warns(exc.NoConfigGiven, match="autotune"):
        kernel(torch.ones(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernel(torch.ones(4))
        helion.kernel(hinted, config=helion.Config())(torch.ones(3))


# -- configs
# -----------------------------------------------------------------------------------------------------------------


def test_set_config_counts_from_the_next_call() -> None:
    bound = helion.kernel(scale).bind((torch.ones(100),))
    bound.set_config({"block_sizes": [16]})
    assert "BLOCK_0 = 16" in bound.to_triton_code() or "= 16\n" in bound.to_triton_code()
    assert bound(torch.ones(100), 2.0).tolist() == [2.0] * 100


def test_compile_config_leaves_the_config_in_use() -> None:
    bound = helion.kernel(scale, config=helion.Config(block_sizes=[32])).bind((torch.ones(100),))
    run = bound.compile_config({"block_sizes": [64]})
    assert run(torch.ones(100), 3.0).tolist() == [3.0] * 100
    assert "= 32\n" in bound.to_triton_code()


def test_one_config_fits_small_and_large_arguments() -> None:
    kernel = helion.kernel(scale, config=helion.Config(block_sizes=[128, 128]))
    for shape in ((1, 1), (3, 500), (500, 3)):
        x = torch.randn(shape)
        check(kernel(x), x.double() * 2, "tile executor")


def test_default_config_is_valid_and_survives_json() -> None:
    spec = helion.kernel(scale).bind((torch.ones(100, 3),)).config_spec
    config = spec.default_config()
    assert spec.normalize(config) == config
    assert helion.Config.from_json(config.to_json()) == config


# -- source
# ------------------------------------------------------------------------------------------------------------------


@pytest.mark.spawns
def test_source_is_the_same_in_two_processes(tmp_path: Path) -> None:
    code = """
        from examples.catalog import EXAMPLES
        for name in ("matmul_epilogue", "softmax_online", "attention", "matmul_split_k"):
            example = EXAMPLES[name]
            print(example.kernel.bind(example.args()).to_triton_code())
    """
    first, second = (run_python(code, tmp_path, PYTHONHASHSEED=seed) for seed in ("1", "2"))
    assert first.returncode == 0, first.stderr
    assert "@triton.jit" in first.stdout
    assert first.stdout == second.stdout


def test_source_names_the_line_it_comes_from() -> None:
    text = helion.kernel(scale).bind((torch.ones(100),)).to_triton_code()
    line = scale.__code__.co_firstlineno + 3
    assert f"# test_kernel.py:{line}: out[tile] = x[tile] * factor" in text
    plain = helion.kernel(scale, output_origin_lines=False).bind((torch.ones(100),)).to_triton_code()
    assert "test_kernel.py" not in plain


def test_print_output_code_writes_the_source_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    helion.kernel(scale)(torch.ones(100))
    assert "@triton.jit" not in capsys.readouterr().err
    kernel = helion.kernel(scale, print_output_code=True)
    kernel(torch.ones(100))
    captured = capsys.readouterr()
    assert kernel.bind((torch.ones(100),)).to_triton_code() in captured.err
    assert "@triton.jit" not in captured.out


@pytest.mark.spawns
def test_print_output_code_from_the_environment(tmp_path: Path) -> None:
    code = "import torch\nfrom examples.vector_add import add\nadd(torch.ones(5), torch.ones(5))"
    result = run_python(code, tmp_path, HELION_PRINT_OUTPUT_CODE="1")
    assert result.returncode == 0, result.stderr
    assert "def _add_kernel(" in result.stderr


def test_kernel_source_is_the_users_text() -> None:
    assert helion.kernel(scale).kernel_source().startswith("def scale(x, factor: float = 2.0):\n")


# -- the code cache
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.spawns
def test_two_processes_compile_the_same_kernel_at_once(tmp_path: Path) -> None:
    code = """
        import os, time
        from pathlib import Path
        import torch
        from examples.softmax import softmax_online as kernel
        x = torch.arange(600.0).reshape(20, 30)
        bound = kernel.bind((x,))
        ready = Path({ready!r})
        (ready / str(os.getpid())).touch()
        while len(list(ready.iterdir())) < 2:
            time.sleep(0.001)
        from helion.cross_compile import cross_compile
        assert cross_compile(bound, (x,), capability=90)[0]["cubin"]
        assert torch.allclose(kernel(x), x.softmax(1))
        print(bound.get_cached_path())
    """
    ready = tmp_path / "ready"
    ready.mkdir()
    cache = tmp_path / "cache"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HELION_CACHE_DIR": str(cache),
        "TRITON_CACHE_DIR": str(tmp_path / "triton"),
    }
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code).replace("{ready!r}", repr(str(ready)))]
    processes = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    results = [process.communicate(timeout=300) for process in processes]
    for process, (_, err) in zip(processes, results):
        assert process.returncode == 0, err
    (first, _), (second, _) = results
    assert first == second
    assert Path(first.strip()).read_text().count("@triton.jit") == 1
    assert not list(cache.rglob("*.tmp"))


@pytest.mark.compiles
def test_cached_path_holds_the_source_once_it_is_compiled() -> None:
    from helion.cross_compile import cross_compile

    x = torch.ones(100)
    bound = helion.kernel(scale).bind((x,))
    cross_compile(bound, (x, 2.0))
    assert Path(bound.get_cached_path()).read_text() == bound.to_triton_code()


# -- ref mode
# ----------------------------------------------------------------------------------------------------------------


STEPS = torch.arange(16.0)


def from_outside(x: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = STEPS[x[t].to(torch.int32)] * factor
    return out


@pytest.mark.parametrize("mode", helion.RefMode)
@pytest.mark.parametrize("static", [True, False])
def test_all_that_runs_a_bound_kernel_takes_its_arguments_as_the_kernel_does(
    static: bool, mode: helion.RefMode
) -> None:
    x = torch.tensor([3.0, 2.0, 1.0])
    kernel = helion.kernel(from_outside, static_shapes=static, ref_mode=mode)
    bound = kernel.bind((x,))
    ways = [kernel, bound, bound.run_ref, bound.compile_config(), bound.compile_config({"block_sizes": [2]})]
    bound.set_config({"block_sizes": [2]})
    for run in ways:
        assert torch.equal(run(x), x)
        assert torch.equal(run(x, 2.0), x * 2)
        assert torch.equal(run(x, factor=3.0), x * 3)
        assert torch.equal(run(factor=4.0, x=x), x * 4)


def test_a_config_that_is_set_counts_in_ref_mode_and_nothing_is_tuned_there() -> None:
    def sizes(x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = t.block_size
        return out

    kernel = helion.kernel(sizes, ref_mode=helion.RefMode.EAGER, config=helion.Config(block_sizes=[4]))
    x = torch.empty(8)
    bound = kernel.bind((x,))
    assert bound(x).tolist() == [4.0] * 8
    bound.set_config({"block_sizes": [2]})
    assert bound(x).tolist() == kernel(x).tolist() == [2.0] * 8
    for tune in (kernel.autotune, bound.autotune):
        with pytest.raises(exc.InvalidAPIUsage, match="is in ref mode"):
            tune((x,))


def test_run_ref_gives_what_the_kernel_gives(seed: int) -> None:
    x = torch.randn(37, 5)
    bound = helion.kernel(scale).bind((x,))
    assert torch.equal(bound.run_ref(x, 3.0), bound(x, 3.0))


@pytest.mark.spawns
def test_interpret_runs_the_users_function_where_print_works(tmp_path: Path) -> None:
    source = tmp_path / "printing.py"
    source.write_text(
        textwrap.dedent("""
            import torch, helion, helion.language as hl

            @helion.kernel
            def printing(x):
                out = torch.empty_like(x)
                for tile in hl.tile(x.size(0)):
                    print("tile of", x[tile].tolist())
                    out[tile] = x[tile] + 1
                return out

            print(printing(torch.tensor([1.0, 2.0])).tolist())
        """)
    )
    code = f"import runpy; runpy.run_path({str(source)!r})"
    result = run_python(code, tmp_path, HELION_INTERPRET="1")
    assert result.returncode == 0, result.stderr
    assert "tile of [1.0, 2.0]" in result.stdout
    assert "[2.0, 3.0]" in result.stdout


def test_names_that_are_loaded_when_first_asked_for() -> None:
    assert helion.autotuner.PatternSearch is not None
    assert helion.experimental.aot_kernel is helion.aot_kernel
    assert not hasattr(helion, "no_such_name")


# -- the autotune cache
# ------------------------------------------------------------------------------------------------------


def test_from_cache_gives_the_tuned_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from helion.autotuner.bound import BoundTarget
    from helion.autotuner.cache import Entry
    from helion.autotuner.cache import LocalAutotuneCache

    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path))
    kernel, args = helion.kernel(scale), (torch.ones(100),)
    with pytest.raises(exc.NoConfigFound, match="autotune cache has none for these arguments"):
        helion.from_cache(kernel, args)
    target = BoundTarget(kernel.bind(args))
    tuned = target.config_spec.normalize({"block_sizes": [32], "num_warps": 8})
    LocalAutotuneCache().put(target.cache_key(kernel.normalize_args(*args)), Entry(tuned))
    assert dict(helion.from_cache(kernel, args)) == dict(tuned)
    with pytest.raises(exc.NoConfigFound):
        helion.from_cache(kernel, (torch.ones(101),))
    with pytest.raises(exc.InvalidAPIUsage, match="needs a kernel and its arguments, got function"):
        helion.from_cache(scale, args)


def test_a_given_config_is_used_though_it_is_the_default_one():
    @helion.kernel
    def places(x):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0), block_size=hl.register_block_size(1, 16)):
            out[tile] = tile.id
        return out

    x = torch.zeros(12, dtype=torch.int64)
    bound = places.bind((x,))
    default = bound.config_spec.default_config()
    block = default["block_sizes"][0]
    assert places(x).max() <= 11 // block  # nobody chose: the tile executor may take larger tiles
    expected = torch.arange(12) // block
    assert torch.equal(bound.compile_config(default)(x), expected)
    bound.set_config(default)
    assert torch.equal(places(x), expected)


@pytest.mark.parametrize(
    "value, advice",
    [
        (np.float64(0.5), lambda v: v.item()),  # which is a float to Python
        (np.float32(0.5), lambda v: v.item()),
        (np.int64(3), lambda v: v.item()),
        (np.ones(4, np.float32), torch.from_numpy),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_numpy_makes_is_refused_with_what_to_pass(value, advice):
    @helion.kernel(config=helion.Config(block_sizes=[4]))
    def times(x: torch.Tensor, a: float | torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = x[t] * (a[t] if isinstance(a, torch.Tensor) else a)
        return out

    x = torch.ones(4)
    fix = "from_numpy" if isinstance(value, np.ndarray) else r"value\.item\(\)"
    with pytest.raises(exc.InvalidAPIUsage, match=fix):
        times(x, value)
    assert torch.equal(times(x, advice(value)), x * torch.as_tensor(value))
