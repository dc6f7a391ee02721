"""Host code that reads numbers from tensors: at each call, for one compiled kernel."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from tests.support import run_everywhere


def longest_rows(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    n = int(lengths.max().item())
    out = torch.zeros([x.size(0), n], dtype=x.dtype, device=x.device)
    for tm, tn in hl.tile([x.size(0), n]):
        out[tm, tn] = torch.where(tn.index[None, :] < lengths[tm][:, None], x[tm, tn], 0.0)
    return out


def expected_rows(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    n = int(lengths.max())
    return torch.where(torch.arange(n) < lengths[:, None], x[:, :n], 0.0)


def test_a_number_read_from_a_tensor_is_a_size() -> None:
    args = (torch.randn(5, 40), torch.tensor([3, 17, 0, 9, 1]))
    run_everywhere(longest_rows, args, expected_rows, configs=[{"block_sizes": [2, 8]}], capabilities=[90])


@pytest.mark.parametrize("static", [True, False])
def test_it_is_read_at_each_call_of_one_kernel(static: bool) -> None:
    kernel = helion.kernel(longest_rows, static_shapes=static)
    x = torch.randn(3, 40)
    bound = kernel.bind((x, torch.tensor([1, 2, 3])))
    for lengths in ([1, 2, 3], [40, 0, 5], [1, 1, 1], [0, 0, 0]):
        given = torch.tensor(lengths)
        assert kernel.bind((x, given)) is bound
        assert torch.equal(kernel(x, given), expected_rows(x, given))


def test_floats_are_read_too() -> None:
    def scaled(x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        s, t = float(m.sum().item()), m[0].item()
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * s + (t + 1)
        return out

    for m in (torch.tensor([3.0, 5.0]), torch.tensor([float("inf"), 1.0]), torch.tensor([-1.5, 0.0])):
        run_everywhere(scaled, (torch.rand(30) + 1, m), lambda x, m: x * m.sum() + (m[0] + 1), capabilities=[90])


def test_a_bound_of_a_top_level_loop_may_be_a_tensor() -> None:
    def first(x: torch.Tensor, n: torch.Tensor, begin: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x)
        for t in hl.tile([begin[0]], [n]):
            out[t] = x[t] + 1
        return out

    def expected(x: torch.Tensor, n: torch.Tensor, begin: torch.Tensor) -> torch.Tensor:
        at = torch.arange(x.size(0))
        return torch.where((at >= begin[0]) & (at < n), x + 1, 0.0)

    for n in (17, 3, 40):
        run_everywhere(first, (torch.randn(40), torch.tensor(n), torch.tensor([3])), expected, capabilities=[90])
