"""What errors and warnings are, and how they are shown."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc

MISSPELT = exc.MisspelledConfigKey(kernel="k", key="a", meant="b")


def copy(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile]
    return out


def test_errors_are_runtime_errors_that_report_their_name() -> None:
    error = exc.InvalidConfig(reason="no", fix="yes.")
    assert isinstance(error, RuntimeError) and isinstance(error, exc.Base)
    assert error.report() == "ERROR[InvalidConfig]: invalid config: no\nWhat to do: yes."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_every_class_of_the_module_is_of_the_family() -> None:
    for found in vars(exc).values():
        if isinstance(found, type) and issubclass(found, BaseException):
            assert issubclass(found, exc.Base)
            assert found in (exc.Base,) or issubclass(found, (exc.BaseError, exc.BaseWarning))


def test_a_warning_goes_to_stderr_with_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    exc.warn(MISSPELT)
    assert capsys.readouterr().err.startswith("WARNING[MisspelledConfigKey]: kernel 'k' has no config key 'a'")


def test_filters_of_the_user_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exc.MisspelledConfigKey)
        exc.warn(MISSPELT)
        assert capsys.readouterr().err == ""
        warnings.simplefilter("error", exc.MisspelledConfigKey)
        with pytest.raises(exc.MisspelledConfigKey):
            exc.warn(MISSPELT)
    with pytest.warns(exc.MisspelledConfigKey):
        exc.warn(MISSPELT)


def test_the_setting_leaves_out_a_class_and_what_is_derived_from_it(capsys: pytest.CaptureFixture[str]) -> None:
    exc.warn(MISSPELT, [exc.BaseWarning])
    exc.warn(MISSPELT, [exc.RequiresGradWarning])
    assert capsys.readouterr().err.count("WARNING[MisspelledConfigKey]") == 1


def test_ref_mode_has_no_code_to_print() -> None:
    kernel = helion.kernel(copy, ref_mode=helion.RefMode.EAGER, print_output_code=True)
    with pytest.raises(exc.RefEagerModeCodePrintError, match="ref_mode=EAGER and print_output_code=True"):
        kernel(torch.ones(3))


def test_two_interpreters_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("HELION_INTERPRET", "1")
    with pytest.raises(exc.IncompatibleInterpretModes, match="HELION_INTERPRET and TRITON_INTERPRET"):
        helion.kernel(copy)(torch.ones(3))


@pytest.mark.filterwarnings("ignore")
def test_fusion_is_refused_where_pytorch_has_no_hooks_and_eager_calls_work() -> None:
    kernel = helion.kernel(copy, torch_compile_fusion=True, config=helion.Config())
    x = torch.randn(5)
    torch.testing.assert_close(kernel(x), x)
    compiled = torch.compile(lambda x: kernel(x) + 1, backend="eager")
    with pytest.raises(RuntimeError, match=r"(?s)torch_compile_fusion=True.*PyTorch.*nightly"):
        compiled(x)
    torch._dynamo.reset()


# -- which error a mistake is --------------------------------------------------------------------------------------


def unpacked_tile(x: torch.Tensor, out: torch.Tensor) -> None:
    for a, b in hl.tile(8):  # type: ignore[attr-defined]
        out[a, b] = x[a, b]


def over_a_tensor(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile in hl.tile(8):
        for row in x[tile, :]:
            out[tile, :] = row


def without_effect(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile in hl.tile(8):
        _ = x[tile, :] + 1


@helion.kernel(config=helion.Config())
def other_kernel(x: torch.Tensor) -> torch.Tensor:
    return copy(x)


def kernel_in_device_code(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile in hl.tile(8):
        out[tile, :] = other_kernel(x[tile, :])


def item_of_a_device_value(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile in hl.tile(8):
        value = x[tile, :]
        value[0] = 1
        out[tile, :] = value


def barrier_inside(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile in hl.tile(8):
        hl.barrier()
        out[tile, :] = x[tile, :]


def two_ellipses(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile in hl.tile(8):
        out[tile, :] = x[..., ...]


def indices_beside_an_ellipsis(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile in hl.tile(8):
        out[tile, :] = x[tile, :, ..., 0]


def number_into_a_tuple(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile in hl.tile(8):
        values = (x[tile, 0], 1.0)
        for i in hl.grid(2):
            out[tile, i] = values[i]


def no_property_of_a_tile(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile in hl.tile(8):
        out[tile, :] = x[tile, :] + tile.stop


def no_property_of_a_value(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile in hl.tile(8):
        out[tile, :] = x[tile, :].flipped


def no_property_of_a_device(x: torch.Tensor, out: torch.Tensor) -> None:
    count = x.device.cores
    for tile in hl.tile(8):
        out[tile, :] = x[tile, :] * count


def mask_as_index(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile in hl.tile(8):
        value = x[tile, :]
        out[tile, :] = value[value > 0]


def places_of_nonzero(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile in hl.tile(8):
        out[tile, :] = torch.nonzero(x[tile, :]).sum()


def host_tensor_in_place(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile in hl.tile(8):
        out += x[tile, :]


@pytest.mark.parametrize(
    ("kernel", "error", "text"),
    [
        (unpacked_tile, exc.FailedToUnpackTile, "unpacked"),
        (over_a_tensor, exc.InvalidDeviceForLoop, "iterating over a tensor"),
        (without_effect, exc.EmptyDeviceLoopAfterDCE, "write nothing"),
        (kernel_in_device_code, exc.NestedKernelCallsNotSupported, "other_kernel"),
        (item_of_a_device_value, exc.DeviceTensorSubscriptAssignmentNotAllowed, "device value"),
        (barrier_inside, exc.BarrierOnlyAllowedAtTopLevel, "between two top-level"),
        (two_ellipses, exc.TypeInferenceError, "only one"),
        (indices_beside_an_ellipsis, exc.TypeInferenceError, "3 indices beside"),
        (number_into_a_tuple, exc.TypeInferenceError, "hl.static_range"),
        (no_property_of_a_tile, exc.TypeInferenceError, "no attribute 'stop'"),
        (no_property_of_a_value, exc.TypeInferenceError, "no attribute 'flipped'"),
        (no_property_of_a_device, exc.TypeInferenceError, "no attribute 'cores'"),
        (mask_as_index, exc.DataDependentOutputShapeNotSupported, "mask"),
        (places_of_nonzero, exc.DataDependentOutputShapeNotSupported, "nonzero"),
        (host_tensor_in_place, exc.CannotModifyHostVariableOnDevice, "'out'"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_mistake_has_an_error_of_its_own(kernel: Callable[..., None], error: type[exc.Base], text: str) -> None:
    with pytest.raises(error, match=text):
        helion.kernel(kernel, config=helion.Config())(torch.randn(8, 8), torch.zeros(8, 8))


@pytest.mark.parametrize("pid_type", ["flat", "xyz"])
def test_a_barrier_needs_persistent_programs(pid_type: str) -> None:
    @helion.kernel(config=helion.Config(pid_type=pid_type))
    def phases(x: torch.Tensor, out: torch.Tensor) -> None:
        for tile in hl.tile(8):
            out[tile, :] = x[tile, :]
        hl.barrier()
        for tile in hl.tile(8):
            x[tile, :] = out[tile, :] * 2

    with pytest.raises(exc.BarrierRequiresPersistent, match=f"pid_type='{pid_type}'.*persistent") as caught:
        phases(torch.randn(8, 8), torch.zeros(8, 8))
    assert isinstance(caught.value, exc.InvalidConfig)


@pytest.mark.parametrize("name", ["TensorOperationInWrapper", "TensorOperationsInHostCall", "WrongDevice"])
def test_warnings_of_other_projects_can_be_left_out(name: str) -> None:
    kernel = helion.kernel(copy, config=helion.Config(), ignore_warnings=[getattr(exc, name)])
    x = torch.randn(5)
    torch.testing.assert_close(kernel(x), x)


def in_host_code(x: torch.Tensor, work: bool) -> torch.Tensor:
    rows = x.contiguous().view(x.size(0), -1)
    scaled = helper(rows) + rows * 2 if work else rows
    out = torch.zeros_like(rows)
    for tile in hl.tile(rows.size(0)):
        out[tile, :] = scaled[tile, :]
    return out


def helper(x: torch.Tensor) -> torch.Tensor:
    return x + 1


def test_operations_of_host_code_are_warned_of_unless_the_kernel_leaves_it_out(capfd: pytest.CaptureFixture) -> None:
    x = torch.randn(5, 3)
    for work, ignored, count in ((True, [], 2), (False, [], 0), (True, [exc.TensorOperationInWrapper], 0)):
        kernel = helion.kernel(in_host_code, config=helion.Config(), ignore_warnings=ignored)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            kernel(x, work)
            kernel(x.double(), work)  # another variant says nothing new
        assert capfd.readouterr().err.count("WARNING[TensorOperation") == count, (work, ignored)


# -- stores that name an element twice, in ref mode


def store_at_one_place(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile in hl.tile(8, block_size=8):
        out[(x[tile, 0] > 9.0).to(torch.int32), :] = x[tile, :]  # 0, which nobody knows before


def store_one_number(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile in hl.tile(8, block_size=8):
        out[tile.index // 2, :] = 2.0


def store_every_other(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile in hl.tile(8, block_size=8):
        hl.store(out, [tile.index // 2, 0], x[tile, 0], extra_mask=tile.index % 2 == 0)


REF = {"ref_mode": helion.RefMode.EAGER, "config": helion.Config()}


def test_a_store_of_several_values_to_one_element_is_an_error_in_ref_mode() -> None:
    out = torch.zeros(8, 8)
    with pytest.raises(exc.DuplicateStoreIndicesError, match=r"'out'.*\n(.*\n)*.*hl.atomic_add\(out, index, value\)"):
        helion.kernel(store_at_one_place, **REF)(torch.randn(8, 8), out)
    assert not out.any()


def test_one_value_and_lanes_that_are_masked_are_none() -> None:
    x, out = torch.randn(8, 8), torch.zeros(8, 8)
    helion.kernel(store_one_number, **REF)(x, out)
    assert torch.equal(out[:4], torch.full((4, 8), 2.0)) and not out[4:].any()
    helion.kernel(store_every_other, **REF)(x, out)
    assert torch.equal(out[:4, 0], x[::2, 0])


# -- graphs as arguments


class Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(8))
        self.act = torch.nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x) * self.scale


class Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) * 2


def map_graph(x: torch.Tensor, out: torch.Tensor, f: torch.nn.Module) -> None:
    for tile in hl.tile(8):
        out[tile, :] = f(x[tile, :])


@pytest.mark.parametrize("options", [{"config": helion.Config()}, REF], ids=["tiles", "ref"])
def test_graphs_call_functions_only(options: dict[str, Any]) -> None:
    x, out = torch.randn(8, 8), torch.zeros(8, 8)
    kernel = helion.kernel(map_graph, **options)
    with pytest.raises(exc.GraphModuleUnsupportedOps, match="'f' is a graph with nodes act, scale"):
        kernel(x, out, torch.fx.symbolic_trace(Scaled()))
    assert not out.any()
    kernel(x, out, torch.fx.symbolic_trace(Doubled()))
    assert torch.equal(out, x.relu() * 2)


# -- PyTorch's own scan in ref mode


def add(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a + b


def torchs_scan(x: torch.Tensor, out: torch.Tensor, mode: hl.constexpr) -> None:
    for tile in hl.tile(8):
        out[tile, :] = torch._higher_order_ops.associative_scan(add, x[tile, :], 1, combine_mode=mode)


def own_scan(x: torch.Tensor, out: torch.Tensor) -> None:
    for tile in hl.tile(8):
        out[tile, :] = hl.associative_scan(add, x[tile, :], 1)


@pytest.mark.parametrize("mode", ["pointwise", "generic"])
def test_torchs_own_scan_in_ref_mode_says_what_to_call(mode: str) -> None:
    x, out = torch.randn(8, 8), torch.zeros(8, 8)
    advice = r"hl.associative_scan\(combine_fn, x, dim\)"
    with pytest.raises(exc.BackendUnsupported, match=rf"test_exceptions.py(.*\n)*.*{advice}"):
        helion.kernel(torchs_scan, **REF)(x, out, mode)
    helion.kernel(own_scan, **REF)(x, out)
    torch.testing.assert_close(out, x.cumsum(1))


def test_a_filter_makes_an_error_of_a_warning_in_device_code() -> None:
    """It came as an error of an op that had failed, so that nobody could catch it by its class."""

    def rounded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(a)
        for t, u in hl.tile(out.shape):
            acc = hl.zeros([t, u])
            for k in hl.tile(a.size(1)):
                acc += a[t, k] @ b[k, u]
            out[t, u] = acc
        return out

    a = torch.randn(16, 16).half()
    with warnings.catch_warnings():
        warnings.simplefilter("error", exc.TiledKMatmulAccumulationWarning)
        with pytest.raises(exc.TiledKMatmulAccumulationWarning):
            helion.kernel(rounded).bind((a, a))


def test_the_gradient_of_a_kernel_is_said_to_be_written_by_hand() -> None:
    with pytest.raises(AttributeError, match="autograd"):
        _ = helion.experimental.backward
