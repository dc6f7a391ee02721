"""Ref mode runs the user's own function: host against device code, errors with their place, debugging."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from helion.runtime.eager.ref_mode import run_ref


def test_host_code_before_and_after_the_loops_is_plain_torch(ref):
    def kernel(x):
        y = (x * 2).contiguous()
        for t in hl.tile(y.size(0)):
            y[t] = y[t] + 1
        return (y + 1).reshape(2, -1), y.sum().item()

    y, total = ref(kernel, torch.ones(4))
    assert y.tolist() == [[4, 4], [4, 4]] and total == 12


def test_closures_globals_and_helper_functions_work(ref):
    bias = torch.arange(6.0)

    def add_bias(value, t):
        return value + bias[t]

    def kernel(x, epilogue):
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = epilogue(x[t], t)
        return out

    assert torch.equal(ref(kernel, torch.ones(6), add_bias), bias + 1)


def test_tuples_namedtuples_and_dataclasses_of_tensors_work(ref):
    class Pair(NamedTuple):
        left: torch.Tensor
        right: torch.Tensor

    @dataclasses.dataclass
    class Box:
        value: torch.Tensor

    def kernel(pair, box, more):
        out = torch.zeros_like(pair.left)
        for t in hl.tile(out.size(0)):
            total = pair.left[t] + pair.right[t] + box.value[t]
            for x in more:
                total = total + x[t]
            out[t] = total
        return out

    ones = torch.ones(5)
    assert ref(kernel, Pair(ones, ones), Box(ones), (ones, ones)).tolist() == [5] * 5


def test_a_dataclass_may_hold_the_only_tensors(ref):
    @dataclasses.dataclass
    class Box:
        value: torch.Tensor
        scale: float

    def kernel(box):
        out = torch.empty_like(box.value)
        for t in hl.tile(out.size(0)):
            out[t] = box.value[t] * box.scale
        return out

    assert ref(kernel, Box(torch.ones(3), 2.0)).tolist() == [2] * 3


def test_defaults_and_keywords_work():
    def kernel(x, scale=3.0, *, shift=0):
        for t in hl.tile(x.size(0)):
            x[t] = x[t] * scale + shift
        return x

    assert run_ref(kernel, (torch.ones(2),), {"shift": 1}).tolist() == [4, 4]


def test_branches_on_scalars_and_on_loaded_values_run_in_python(ref):
    def kernel(x, flags):
        for i in hl.grid(x.size(0)):
            if flags[i] > 0 and i != 2:
                x[i] = 1
            else:
                x[i] = -1
        return x

    assert ref(kernel, torch.zeros(4), torch.tensor([1, 0, 1, 1])).tolist() == [1, -1, -1, 1]


def test_views_reductions_and_casts_are_torchs(ref, rng):
    def kernel(x):
        out = torch.empty(x.size(0), dtype=torch.float64)
        for t in hl.tile(x.size(0)):
            v = x[t, :].reshape(t, 4, 5).permute(0, 2, 1).flatten(1).to(torch.float64)
            out[t] = torch.softmax(v, dim=-1).amax(-1) + v.logsumexp(-1) + v.std(-1)
        return out

    x = torch.randn(10, 20, generator=rng)
    v = x.double()
    torch.testing.assert_close(ref(kernel, x), v.softmax(-1).amax(-1) + v.logsumexp(-1) + v.std(-1))


def test_results_do_not_depend_on_the_block_sizes(ref, blocks, rng):
    def kernel(x):
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            m, s = torch.full([t], float("-inf"), dtype=x.dtype), hl.zeros([t], x.dtype)
            for k in hl.tile(x.size(1)):
                v = x[t, k]
                new = torch.maximum(m, v.amax(1))
                s = s * torch.exp(m - new) + torch.exp(v - new[:, None]).sum(1)
                m = new
            for k in hl.tile(x.size(1)):
                out[t, k] = torch.exp(x[t, k] - m[:, None]) / s[:, None]
        return out

    x = torch.randn(9, 61, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(ref(kernel, x, config=blocks), x.softmax(1))


# -- errors --------------------------------------------------------------------------------------------------


def check(fn, error, text, *args):
    with pytest.raises(error, match=text) as caught:
        run_ref(fn, args or (torch.ones(4),))
    return caught.value


def test_an_error_names_the_users_line():
    def kernel(x):
        for t in hl.tile(x.size(0)):
            x[t, t] = 0  # the line
        return x

    error = check(kernel, exc.RankMismatch, "expected 1 indices, got 2")
    assert error.location.file == __file__ and error.location.function == "kernel"
    assert "x[t, t] = 0" in str(error) and "^" in str(error)


def test_a_host_tensor_in_device_code_is_named():
    def kernel(weights):
        for t in hl.tile(weights.size(0)):
            weights[t] = weights[t] + weights.sum()
        return weights

    check(kernel, exc.HostTensorDirectUsage, "host tensor 'weights' is used directly")


def test_a_host_tensor_in_a_language_op_is_named():
    def kernel(x):
        for t in hl.tile(x.size(0)):
            x[t] = hl.cumsum(x, 0)
        return x

    check(kernel, exc.HostTensorDirectUsage, "host tensor 'x'")


def test_the_shape_and_dtype_of_a_host_tensor_may_be_read_in_device_code(ref):
    def kernel(x):
        for t in hl.tile(x.size(0)):
            x[t] = hl.full([t], x.shape[0] + x.size(0) + x.dim(), dtype=x.dtype)
        return x

    assert ref(kernel, torch.zeros(3)).tolist() == [7] * 3


def test_device_code_on_the_host_is_an_error():
    def kernel(x):
        return hl.zeros([4])

    check(kernel, exc.DeviceAPIOnHost, "hl.zeros|hl.full")


def test_a_device_value_in_host_code_is_named():
    def kernel(x):
        for t in hl.tile(x.size(0)):
            value = x[t]
        return value * 2

    check(kernel, exc.CannotReadDeviceVariableOnHost, "'value' is read in host code")


def test_returning_a_device_value_is_an_error():
    def kernel(x):
        for t in hl.tile(x.size(0)):
            value = x[t]
        return value

    check(kernel, exc.CannotReadDeviceVariableOnHost, "returned")


def test_writing_a_part_of_a_device_value_is_an_error():
    def kernel(x):
        for t in hl.tile(x.size(0)):
            value = x[t]
            value[:] = 0
        return x

    check(kernel, exc.DeviceTensorSubscriptAssignmentNotAllowed, "cannot be written in part")


def test_a_part_of_a_tiles_dimension_is_an_error():
    def kernel(x):
        for t in hl.tile(x.size(0)):
            x[t] = x[t][0]
        return x

    check(kernel, exc.InvalidAPIUsage, "is a tile.s")


def test_a_kernel_without_loops_is_an_error():
    check(lambda x: x, exc.NoDeviceLoopsInKernel, "no device loop")


def test_a_kernel_without_tensors_is_an_error():
    check(lambda n: n, exc.NoTensorArgs, "without a tensor", 3)


def test_specialize_in_device_code_is_an_error():
    def kernel(x):
        for _ in hl.tile(x.size(0)):
            hl.specialize(x.size(0))

    check(kernel, exc.SpecializeOnDevice, "inside a device loop")


def test_a_barrier_in_device_code_is_an_error():
    def kernel(x):
        for _ in hl.tile(x.size(0)):
            hl.barrier()

    check(kernel, exc.BarrierOnlyAllowedAtTopLevel, "barrier")


def test_an_index_out_of_range_is_an_error():
    def kernel(x):
        for t in hl.tile(x.size(0)):
            x[t] = x[t.index + 1]

    check(kernel, exc.IndexOutOfRange, "index reaches from 4 to 4|from .* to 4")


def test_a_value_of_another_shape_is_an_error():
    def kernel(x):
        for t in hl.tile(x.size(0)):
            x[t] = x[t][:, None] + x[t][None, :]

    check(kernel, exc.ShapeMismatch, "does not broadcast")


def test_a_tile_in_a_condition_is_an_error():
    def kernel(x):
        for t in hl.tile(x.size(0)):
            if t:
                x[t] = 0

    check(kernel, exc.InvalidAPIUsage, "no truth value")


def test_an_error_of_the_users_own_passes_unchanged():
    def kernel(x):
        for _ in hl.tile(x.size(0)):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run_ref(kernel, (torch.ones(2),))


def test_gradients_are_not_recorded(ref):
    def kernel(x):
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = x[t] * 2
        return out

    assert not ref(kernel, torch.ones(3, requires_grad=True)).requires_grad


def test_torch_is_left_as_it_was_after_an_error():
    def kernel(x):
        for _ in hl.tile(x.size(0)):
            raise KeyError

    with pytest.raises(KeyError):
        run_ref(kernel, (torch.ones(2),))
    x = torch.ones(3)
    assert torch.equal(x[0:2] @ x[1:3], torch.tensor(2.0)) and torch.is_grad_enabled()


def doubled(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] * 2 + t.block_size
    return out


def test_code_of_a_kernel_in_ref_mode_is_an_error_that_says_so():
    x = torch.ones(8)
    bound = helion.kernel(doubled, ref_mode=helion.RefMode.EAGER).bind((x,))
    for ask in (
        bound.to_triton_code, bound.to_code, bound.get_cached_path, bound.backend, lambda: bound.ir,
        lambda: bound.config_spec,
    ):  # fmt: skip
        with pytest.raises(exc.InvalidAPIUsage, match="is in ref mode, in which no code is generated"):
            ask()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bound.nothing  # noqa: B018


def test_a_compiled_config_runs_in_ref_mode_too():
    x = torch.ones(8)
    bound = helion.kernel(doubled, ref_mode=helion.RefMode.EAGER).bind((x,))
    assert torch.equal(bound.compile_config(helion.Config(block_sizes=[4]))(x), x * 2 + 4)
    assert torch.equal(bound.compile_config({"block_sizes": [2]})(x), x * 2 + 2)
