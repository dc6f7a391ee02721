"""Dispatcher: which calls a plan serves, and that all others take the Python path with the same outcome."""

from __future__ import annotations

import gc
import inspect
import weakref

import pytest
import torch

from helion import exc
from helion.runtime.launch import plan_data

from .support import SCALE
from .support import pair

pytestmark = pytest.mark.softgpu(capability=90, software_only=True)

TWO_NUMBERS = """\
def host(x, n: int, m=3, *, _launcher=_default_launcher):
    out = torch.empty_like(x)
    _launcher(_scale_kernel, (x.numel() // BLOCK_0 // m,), x, out, n, num_warps=4, num_stages=1)
    return out
"""


# -- what a plan serves
# ---------------------------------------------------------------------------------------------------


def test_third_call_of_a_signature_runs_as_a_plan(make):
    kernel = make()
    x, y = pair()
    for _ in range(2):
        torch.testing.assert_close(kernel(x, y), x + y)
    assert (kernel.plan_count, kernel.plan_hits) == (1, 0)
    torch.testing.assert_close(kernel(x, y), x + y)
    assert (kernel.plan_count, kernel.plan_hits, kernel.plan_launches) == (1, 1, 1)
    assert kernel.stats.snapshot().layers["plan"] == 1


def test_shape_that_never_comes_again_is_not_recorded(make):
    kernel = make()
    for n in range(1, 6):
        kernel(*pair(128 * n))
    assert kernel.plan_count == 0


def test_each_signature_has_its_plan(make):
    kernel = make()
    for n in (128, 256, 384):
        x, y = pair(n)
        torch.testing.assert_close(kernel.warm(x, y), x + y)
    assert kernel.plan_count == 3
    for n in (384, 128, 256, 128):
        x, y = pair(n)
        torch.testing.assert_close(kernel(x, y), x + y)
    assert kernel.plan_hits == 3 + 4


def test_each_call_returns_new_memory(make):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    first, second = kernel(x, y), kernel(x, y)
    assert first is not second and first.data_ptr() != second.data_ptr()


def test_one_tensor_for_both_parameters_does_not_bind_the_next_call(make):
    kernel = make()
    x, y = pair()
    torch.testing.assert_close(kernel.warm(x, x), x + x)
    assert kernel.plan_count == 1
    torch.testing.assert_close(kernel(x, y), x + y)
    torch.testing.assert_close(kernel(y, x), x + y)
    assert kernel.plan_hits == 3


def test_parameters_and_tensors_have_plans_of_their_own(make):
    kernel = make()
    x, y = pair()
    weight = torch.nn.Parameter(y, requires_grad=False)
    torch.testing.assert_close(kernel.warm(x, weight), x + y)
    torch.testing.assert_close(kernel.warm(x, y), x + y)
    assert kernel.plan_count == 2


def test_output_of_a_plan_is_a_plain_tensor(make):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    out = kernel(x, y)
    assert type(out) is torch.Tensor and not out.requires_grad and out._version == 0 and out._base is None
    assert not out.is_inference()


def test_inference_mode_gives_inference_tensors(make):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    with torch.inference_mode():
        torch.testing.assert_close(kernel.warm(x, y), x + y)
        assert kernel(x, y).is_inference()
    assert not kernel(x, y).is_inference()


@pytest.mark.guard("default_dtype")
def test_default_dtype_is_part_of_what_a_plan_assumes(make):
    kernel = make(
        "def host(x, y, *, _launcher=_default_launcher):\n"
        "    out = torch.empty(x.numel())\n"
        "    _launcher(_add_kernel, (x.numel() // BLOCK_0,), x, y, out, num_warps=4, num_stages=1)\n"
        "    return out\n"
    )
    x, y = pair()
    assert kernel.warm(x, y).dtype == torch.float32
    hits = kernel.plan_hits
    torch.set_default_dtype(torch.float64)
    try:
        assert kernel(x, y).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert kernel.plan_hits == hits
    assert kernel(x, y).dtype == torch.float32


# -- arguments
# --------------------------------------------------------------------------------------------------------------


def test_keywords_and_defaults_share_the_plan_of_positional_calls(make):
    kernel = make(SCALE)
    x = torch.ones(256)
    for call in (lambda: kernel(x, 2.0), lambda: kernel(x), lambda: kernel(x=x), lambda: kernel(n=2.0, x=x)):
        before = x.clone()
        assert call() is x
        torch.testing.assert_close(x, before * 2)
    assert kernel.plan_hits == 2


def test_keywords_that_are_not_interned(make):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    hits = kernel.plan_hits
    names = {"".join(["x"]): x, "".join(list("y")): y}
    torch.testing.assert_close(kernel(**names), x + y)
    assert kernel.plan_hits == hits + 1


def test_number_that_is_only_passed_on_is_not_part_of_the_signature(make):
    kernel = make(SCALE)
    kernel.warm(torch.ones(256), 2.0)
    for n in (0.5, 3.0, -1.0):
        x = torch.ones(256)
        torch.testing.assert_close(kernel(x, n), torch.full((256,), n))
    assert kernel.plan_count == 1 and kernel.plan_hits == 4


@pytest.mark.guard("value")
def test_number_that_host_code_computes_with_is_part_of_the_signature(make):
    kernel = make(TWO_NUMBERS)
    x = torch.randn(768)
    for m in (1, 3, 2):
        out = kernel.warm(x, 5, m)
        torch.testing.assert_close(out[: 768 // m], 5 * x[: 768 // m])
    # m by value, n by type.
    assert kernel.plan_count >= 2
    hits = kernel.plan_hits
    torch.testing.assert_close(kernel(x, 7, 3)[:256], 7 * x[:256])
    assert kernel.plan_hits == hits + 1


@pytest.mark.guard("int_bucket")
def test_int_of_another_bucket_is_not_served_by_the_plan(make):
    kernel = make(SCALE)
    kernel.warm(torch.ones(128), 5)
    hits = kernel.plan_hits
    for n in (1, 16, 2**40):
        x = torch.ones(128)
        torch.testing.assert_close(kernel(x, n), torch.full((128,), float(n)))
    assert kernel.plan_hits == hits


@pytest.mark.parametrize(("first", "second"), [(5, 1), (1, 5), (16, 17), (5, 2**40), (5, -7), (5, True), (5, 2.5)])
def test_numbers_that_triton_tells_apart(make, first, second):
    kernel = make(SCALE)
    for n in (first, first, first, second, second, second, first):
        x = torch.ones(128)
        torch.testing.assert_close(kernel(x, n), torch.full((128,), float(n)))


@pytest.mark.guard("value")
def test_constexpr_number_is_part_of_the_signature(make):
    kernel = make(SCALE, constexpr=("n",))
    x = torch.ones(128)
    kernel.warm(x, 2.0)
    assert kernel.plan_count == 1
    kernel(x, 3.0)
    assert kernel.plan_hits == 1


@pytest.mark.guard("alignment")
def test_misaligned_argument_gets_a_binary_of_its_own(make):
    kernel = make()
    x, y = pair(256)
    shifted = torch.randn(257)[1:]
    assert shifted.data_ptr() % 16 == 4
    for _ in range(4):
        torch.testing.assert_close(kernel(x, y), x + y)
        torch.testing.assert_close(kernel(x, shifted), x + shifted)
        torch.testing.assert_close(kernel(shifted, y), shifted + y)
    assert kernel.plan_count == 3 and kernel.plan_hits == 6


def test_offset_within_the_storage_does_not_matter_otherwise(make):
    kernel = make()
    whole = torch.randn(1024)
    for start in (0, 128, 256, 512):
        x = whole[start : start + 256]
        torch.testing.assert_close(kernel(x, x), x + x)
    assert kernel.plan_hits == 2


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1, 2), {"z": 3}), ((), {"y": 1})],
)
def test_arguments_that_do_not_fit_raise_the_python_paths_error(make, args, kwargs):
    kernel = make()
    kernel.warm(*pair())
    with pytest.raises(TypeError) as fast:
        kernel(*args, **kwargs)
    with pytest.raises(TypeError) as slow:
        kernel.python(*args, **kwargs)
    assert str(fast.value) == str(slow.value)


@pytest.mark.parametrize(
    "extra", [None, "text", torch.float32, torch.device("cpu"), (1, 2), [1, "a", (None,)], 2**70, ...]
)
def test_other_types_of_arguments(make, extra):
    kernel = make(
        "def host(x, y, extra, *, _launcher=_default_launcher):\n"
        "    out = torch.empty_like(x)\n"
        "    _launcher(_add_kernel, (x.numel() // BLOCK_0,), x, y, out, num_warps=4, num_stages=1)\n"
        "    return out\n"
    )
    x, y = pair()
    for _ in range(4):
        torch.testing.assert_close(kernel(x, y, extra), x + y)
    torch.testing.assert_close(kernel(x, y, "another"), x + y)


def test_numbers_count_by_value_if_that_was_refused_before(make):
    """As where another thread has dropped the plans meanwhile: what is taken for known must be what C goes by."""
    kernel = make(
        "def host(x, n=2, *, _launcher=_default_launcher):\n"
        "    out = torch.empty_like(x)\n"
        "    _launcher(_scale_kernel, (x.numel() // BLOCK_0,), x, out, n if n < 8 else 0, num_warps=4, num_stages=1)\n"
        "    return out\n"
    )
    stale = kernel.plan_generation
    kernel._invalidate()
    assert kernel.count_by_value([1], stale) is None
    x = torch.randn(256)
    for n in (2, 2, 2, 3, 3, 3, 9):
        torch.testing.assert_close(kernel(x, n), x * (n if n < 8 else 0))
    assert kernel.plan_hits > 0


def test_strings_count_by_value(make):
    kernel = make(
        "def host(x, mode, *, _launcher=_default_launcher):\n"
        "    out = torch.empty_like(x)\n"
        "    _launcher(_scale_kernel, (x.numel() // BLOCK_0,), x, out, 2.0 if mode == 'double' else 3.0, "
        "num_warps=4, num_stages=1)\n"
        "    return out\n"
    )
    x = torch.ones(128)
    assert kernel.warm(x, "double")[0] == 2
    assert kernel.warm(x, "".join(["tri", "ple"]))[0] == 3
    hits = kernel.plan_hits
    assert kernel(x, "".join(["dou", "ble"]))[0] == 2
    assert kernel.plan_hits == hits + 1


def test_tensors_in_a_list(make):
    kernel = make(
        "def host(xs, *, _launcher=_default_launcher):\n"
        "    out = torch.empty_like(xs[0])\n"
        "    _launcher(_add_kernel, (out.numel() // BLOCK_0,), xs[0], xs[1], out, num_warps=4, num_stages=1)\n"
        "    return out\n"
    )
    x, y = pair()
    torch.testing.assert_close(kernel.warm([x, y]), x + y)
    assert kernel.plan_count == 1
    torch.testing.assert_close(kernel([y, y]), y + y)
    torch.testing.assert_close(kernel((x, y)), x + y)
    assert kernel.plan_hits == 2


def test_list_that_holds_itself_takes_the_python_path(make):
    kernel = make()
    endless: list = []
    endless.append(endless)
    with pytest.raises((RecursionError, exc.BaseError)):
        kernel(endless, endless)


def test_key_function_is_asked_on_every_call(make):
    threshold = 10
    kernel = make(key=lambda x, y: threshold)
    x, y = pair()
    kernel.warm(x, y)
    assert kernel.plan_count == 1 and kernel.runners == 1
    threshold = 11
    kernel(x, y)
    assert kernel.runners == 2 and kernel.plan_hits == 1


def test_key_function_that_raises(make):
    fail = False

    def key(x, y):
        if fail:
            raise ZeroDivisionError
        return 1

    kernel = make(key=key)
    x, y = pair()
    kernel.warm(x, y)
    fail = True
    with pytest.raises(ZeroDivisionError):
        kernel(x, y)


def test_key_that_is_not_hashable_raises_the_python_paths_error(make):
    kernel = make(key=lambda x, y: [1])
    with pytest.raises(exc.InvalidAPIUsage, match="not hashable"):
        kernel(*pair())


# -- errors, change, bounds
# -------------------------------------------------------------------------------------------------


def test_driver_error_names_the_error_and_the_kernel_and_the_next_call_works(make):
    from tests import softgpu

    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    softgpu.inject("launch", 1, 999)
    with pytest.raises(RuntimeError, match=r"Triton Error \[CUDA\].*_add_kernel"):
        kernel(x, y)
    torch.testing.assert_close(kernel(x, y), x + y)


def test_clear_plans_brings_the_python_path_back(make):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    kernel._invalidate()
    assert kernel.plan_count == 0
    torch.testing.assert_close(kernel(x, y), x + y)
    assert kernel.runners == 2


@pytest.mark.guard("generation")
def test_plan_of_an_older_generation_is_not_installed(make, C):
    kernel = make()
    x, y = pair()
    kernel(x, y)
    generation = kernel.plan_generation
    plan = C.LaunchPlan(2, 0, (), (), plan_data.Object(None))
    kernel._invalidate()
    assert kernel.install_plan((x, y), plan, generation) is False
    assert kernel.install_plan((x, y), plan, kernel.plan_generation) is True
    assert kernel(x, y) is None


def test_least_recently_used_plan_goes_first(make):
    kernel = make(max_entries=3)
    calls = {n: pair(n) for n in (128, 256, 384, 512)}
    for n in (128, 256, 384):
        kernel.warm(*calls[n])
    kernel(*calls[128])
    kernel.warm(*calls[512])
    assert kernel.plan_count == 3 and kernel.plan_evictions == 1
    hits = kernel.plan_hits
    for n in (128, 384, 512):
        kernel(*calls[n])
    assert kernel.plan_hits == hits + 3
    kernel(*calls[256])
    assert kernel.plan_hits == hits + 3


def test_disabled_dispatcher_takes_the_python_path(make):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    hits = kernel.plan_hits
    kernel.dispatch_enabled = False
    kernel(x, y)
    assert kernel.plan_hits == hits


def test_skip_fast_launcher_leaves_everything_to_triton(make, monkeypatch):
    monkeypatch.setenv("HELION_SKIP_FAST_LAUNCHER", "1")
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    assert kernel.stats.snapshot().layers == {"default_launcher": 3}


@pytest.mark.guard("memory")
def test_tensor_whose_memory_was_freed_is_refused(make):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    x.untyped_storage().resize_(0)
    with pytest.raises(exc.InvalidAPIUsage, match="without memory"):
        kernel(x, y)
    torch.testing.assert_close(kernel(y, y), y + y)


def test_more_parameters_than_c_reads_stay_in_python_even_if_switched_on_again(make):
    names = [f"n{i}" for i in range(198)]
    host = (
        f"def host(x, y, {', '.join(names)}, *, _launcher=_default_launcher):\n    out = torch.empty_like(x)\n"
        "    _launcher(_add_kernel, (2,), x, y, out, num_warps=4, num_stages=1)\n    return out\n"
    )
    kernel = make(host)
    kernel.dispatch_enabled = True
    x, y = pair(256)
    for _ in range(4):
        torch.testing.assert_close(kernel(x, y, *range(198)), x + y)
    assert kernel.plan_count == 0


@pytest.mark.guard("generation")
def test_config_set_while_a_plan_by_value_is_recorded_is_not_swallowed(make, monkeypatch):
    kernel = make(
        "def host(x, y, n, *, _launcher=_default_launcher):\n    out = torch.empty_like(x)\n    m = n * 128\n"
        "    _launcher(_add_kernel, (m // 128,), x, y, out, num_warps=4, num_stages=1)\n    return out\n"
    )
    x, y = pair(256)
    kernel(x, y, 2)
    configure = kernel._configure

    def in_between(*args):
        kernel._invalidate()  # what another thread's set_config does
        return configure(*args)

    kernel._configure = in_between
    torch.testing.assert_close(kernel(x, y, 2), x + y)
    assert kernel.plan_count == 0
    del kernel._configure
    for _ in range(3):
        torch.testing.assert_close(kernel(x, y, 2), x + y)
    assert kernel.plan_count == 1


@pytest.mark.guard("overlap")
def test_arguments_that_overlap_are_another_signature_where_that_counts(make):
    kernel = make()
    kernel._assume_apart(frozenset({(0, 1)}))
    base = torch.randn(512)
    x, y = base[:256], base[256:]
    assert torch.equal(kernel.warm(x, y), x + y)
    runners = kernel.runners
    for second in (x, base[4:260]):
        for _ in range(3):
            assert torch.equal(kernel(x, second), x + second)
    assert kernel.runners == runners + 2  # Python was asked for each of them
    assert kernel.plan_count == 3
    hits = kernel.plan_hits
    for second in (y, x, base[4:260], torch.randn(256)):
        kernel(x, second)
    assert kernel.plan_hits == hits + 4


def test_pairs_of_arguments_that_are_not_there_are_refused(make):
    kernel = make()
    for apart in (((0, 2),), ((0, -1),), (0,), ((0, "1"),)):
        with pytest.raises((ValueError, TypeError, OverflowError)):
            kernel.configure_dispatch(("x", "y"), (), (False, False), None, 8, None, apart)


def test_call_that_raised_while_it_was_recorded_is_recorded_again(make):
    from tests import softgpu

    kernel = make()
    x, y = pair()
    kernel(x, y)
    for _ in range(3):
        softgpu.inject("launch", 1, 999)
        with pytest.raises(RuntimeError, match="Triton Error"):
            kernel(x, y)
    for _ in range(3):
        torch.testing.assert_close(kernel(x, y), x + y)
    assert kernel.plan_count == 1 and kernel.plan_hits == 2


# -- the type
# ---------------------------------------------------------------------------------------------------------------


def test_python_call_is_what_inspection_sees(make):
    kernel = make()
    assert inspect.isfunction(type(kernel).__call__)
    x, y = pair()
    torch.testing.assert_close(type(kernel).__call__(kernel, x, y), x + y)


def test_kernel_can_be_collected(make):
    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    gone = weakref.ref(kernel)
    del kernel
    gc.collect()
    assert gone() is None


def test_unconfigured_dispatcher_calls_python(C):
    class Plain(C.Dispatcher):
        def _call_python(self, *args, **kwargs):
            return args, kwargs

    assert Plain()(1, a=2) == ((1,), {"a": 2})


def test_configure_checks_its_arguments(make):
    kernel = make()
    with pytest.raises(ValueError, match="do not fit"):
        kernel.configure_dispatch(("a",), (1, 2), (False,), None, 1)
    with pytest.raises(TypeError):
        kernel.configure_dispatch((1,), (), (False,), None, 1)
    with pytest.raises(ValueError, match="one argument for each"):
        kernel.install_plan((1,), kernel_plan(kernel), kernel.plan_generation)


def kernel_plan(kernel):
    from helion import _extension

    return _extension.C.LaunchPlan(2, 0, (), (), plan_data.Object(None))
