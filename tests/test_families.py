"""Under dynamic shapes sizes and strides do not split a kernel: one BoundKernel, with variants beneath it."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc


def doubled(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.shape):
        out[t] = x[t] * 2
    return out


def row_sums(x: torch.Tensor) -> torch.Tensor:
    hl.specialize(x.size(1))
    out = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(0)):
        out[t] = x[t, :].sum(-1)
    return out


@pytest.fixture
def kernel() -> helion.Kernel:
    made: helion.Kernel = helion.kernel(doubled, static_shapes=False, config=helion.Config(block_sizes=[16, 16]))
    return made


def inputs() -> list[torch.Tensor]:
    wide = torch.randn(6, 8)
    return [
        torch.randn(3, 4),
        torch.randn(4, 3).T,
        wide[:, ::2],
        torch.randn(1, 4),
        torch.randn(0, 4),
        torch.randn(5, 1),
        torch.randn(40, 70),
        torch.randn(4).expand(3, 4),
    ]


def test_sizes_and_strides_do_not_split(kernel: helion.Kernel) -> None:
    bound = kernel.bind((inputs()[0],))
    key = kernel.specialization_key((inputs()[0],))
    for x in inputs():
        assert kernel.bind((x,)) is bound and kernel.specialization_key((x,)) == key


def test_each_way_to_call_is_right_for_each_size(kernel: helion.Kernel) -> None:
    bound = kernel.bind((inputs()[0],))
    compiled = bound.compile_config(helion.Config(block_sizes=[8, 32]))
    for x in inputs():
        for call in (kernel, bound, compiled):
            assert torch.equal(call(x), x * 2)


def test_a_forgotten_kernel_is_right_for_each_size(kernel: helion.Kernel) -> None:
    bound = kernel.bind((inputs()[0],))
    kernel.reset()
    for x in inputs():
        assert torch.equal(bound(x), x * 2)
    assert kernel.bind((inputs()[0],)) is not bound


def test_a_config_is_that_of_all_variants(kernel: helion.Kernel) -> None:
    first, second, later = inputs()[0], inputs()[1], inputs()[3]
    kernel(first), kernel(second)
    kernel.bind((first,)).set_config(helion.Config(block_sizes=[32, 8]))
    kernel(later)
    for x in (first, second, later):
        config = kernel.variant((x,)).config
        assert config is not None and config.block_sizes == [32, 8]
        assert torch.equal(kernel(x), x * 2)


def test_dtypes_ranks_and_marked_sizes_split(kernel: helion.Kernel) -> None:
    x = inputs()[0]
    marked = torch.randn(3, 4)
    torch._dynamo.mark_static(marked, 0)
    others = [x.double(), x[0], marked]
    assert len({id(kernel.bind((other,))) for other in [x, *others]}) == 4


def test_specialized_sizes_split_and_are_in_the_key_once_bound() -> None:
    kernel = helion.kernel(row_sums, static_shapes=False, config=helion.Config(block_sizes=[16]))
    four, five = torch.randn(3, 4), torch.randn(3, 5)
    bound = kernel.bind((four,))
    assert kernel.bind((torch.randn(9, 4),)) is bound is not kernel.bind((five,))
    assert kernel.specialization_key((four,)) == kernel.specialization_key((torch.randn(9, 4),))
    assert kernel.specialization_key((four,)) != kernel.specialization_key((five,))
    for x in (four, five, torch.randn(1, 4), torch.randn(7, 1)):
        torch.testing.assert_close(kernel(x), x.sum(1))


def test_wide_offsets_split_unless_they_are_chosen() -> None:
    small, large = torch.empty(2**16, 2**15, device="meta"), torch.empty(2**16, 2**16, device="meta")
    for index_dtype, splits in ((None, True), (torch.int64, False)):
        settings = {} if index_dtype is None else {"index_dtype": index_dtype}
        kernel = helion.kernel(doubled, static_shapes=False, **settings)
        keys = {kernel.specialization_key((x,)) for x in (small, large)}
        assert (len(keys) == 2) is splits


def test_a_tensor_too_large_for_int32_offsets_is_refused() -> None:
    kernel = helion.kernel(doubled, index_dtype=torch.int32)
    with pytest.raises(exc.InputTensorNumelExceedsIndexType):
        kernel.bind((torch.empty(2**16, 2**16, device="meta"),))


def test_static_shapes_split_as_before() -> None:
    kernel = helion.kernel(doubled, config=helion.Config(block_sizes=[16, 16]))
    assert kernel.bind((inputs()[0],)) is not kernel.bind((inputs()[1],))


def test_a_config_of_a_dynamic_kernel_is_called_with_defaults_and_keywords() -> None:
    @helion.kernel(static_shapes=False)
    def scaled(x: torch.Tensor, by: float = 2.0, plus: float = 1.0) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * by + plus
        return out

    bound = scaled.bind((torch.ones(40),))
    run = bound.compile_config({"block_sizes": [16]})
    for x in (torch.randn(40), torch.randn(1), torch.randn(80)[::2]):
        torch.testing.assert_close(run(x), x * 2 + 1)
        torch.testing.assert_close(run(x, plus=3.0), x * 2 + 3)
        torch.testing.assert_close(run(x, 4.0), x * 4 + 1)
    scaled.reset()  # which has forgotten it: it finds its variants itself
    torch.testing.assert_close(bound(torch.ones(50)), torch.full((50,), 3.0))
