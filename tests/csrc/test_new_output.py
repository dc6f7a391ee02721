"""What a plan allocates is what PyTorch's own functions allocate."""

from __future__ import annotations

import pytest
import torch

from helion.runtime.launch import plan_data
from helion.runtime.launch.plan_data import TensorRef

pytestmark = pytest.mark.softgpu(capability=90, software_only=True)

_CPU = torch.device("cpu")


def allocated(C, sizes, strides, dtype=torch.float32):
    """What a call gives whose plan allocates such a tensor, and returns it."""

    class OnlyPlans(C.Dispatcher):
        def _call_python(self, x):
            raise AssertionError("no plan")

        _record_call = _call_python

    x = torch.zeros(2)
    dispatcher = OnlyPlans()
    generation = dispatcher.configure_dispatch(("x",), (), (False,), None, 8)
    buffers = (plan_data.Allocation(sizes, strides, dtype, _CPU, False),)
    assert dispatcher.install_plan((x,), C.LaunchPlan(1, 0, buffers, (), TensorRef(False, 0)), generation)
    return dispatcher(x)


def asked(tensor):
    """All that a program can ask of a tensor but for its address and values."""
    storage = tensor.untyped_storage()
    layouts = (torch.contiguous_format, torch.channels_last, torch.channels_last_3d)
    fits = [
        tensor.is_contiguous(memory_format=layout) for layout, ranks in zip(layouts, (range(9), (4,), (5,)))
        if tensor.dim() in ranks
    ]  # fmt: skip
    return (
        type(tensor), tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.numel(), fits,
        tensor.storage_offset(), storage.nbytes(), storage.resizable(), storage.device, tensor.layout,
        tensor.requires_grad, tensor.is_leaf, tensor.is_inference(), torch._C._dispatch_keys(tensor),
        None if tensor.is_inference() else tensor._version, tensor.data_ptr() == 0,
    )  # fmt: skip


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.complex64, torch.float8_e4m3fn])
@pytest.mark.parametrize(
    "sizes", [(), (0,), (1,), (5,), (3, 0, 2), (4, 1, 5), (1, 3, 2, 2), (2, 1, 1, 3, 2), (1, 2, 1, 2, 1, 2)], ids=str
)
def test_new_output_is_what_empty_makes(C, softgpu, sizes, dtype, inference):
    with torch.inference_mode(inference):
        expected = torch.empty(sizes, dtype=dtype)
        assert asked(allocated(C, sizes, expected.stride(), dtype)) == asked(expected)


def test_new_output_with_strides_is_what_empty_strided_makes(C, softgpu):
    for sizes, strides in (((2, 3), (1, 2)), ((4, 3), (8, 2)), ((2, 0), (5, 1)), ((3,), (0,))):
        assert asked(allocated(C, sizes, strides)) == asked(torch.empty_strided(sizes, strides))


@pytest.mark.parametrize("sizes", [(2**40, 2**40), (2**62,)], ids=str)
def test_new_output_that_cannot_be_is_an_error(C, softgpu, sizes):
    """Its bytes do not fit into 64 bits: less memory than the kernel writes would be found by nobody."""
    with pytest.raises(RuntimeError):
        allocated(C, sizes, (2**40, 1)[-len(sizes) :])
