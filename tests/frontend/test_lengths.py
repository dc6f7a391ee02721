"""The size of a tile's value is the number of its elements, in every mode: where it is calculated with, where it makes
shapes, and where Python decides on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere


def numbers(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros([helion.cdiv(x.size(0), 16), 12], device=x.device)
    for t in hl.tile(x.size(0), block_size=16):
        v = x[t, :]
        out[t.id, 0] = v.sum() / v.size(0)
        out[t.id, 1] = v.sum() * (1 / v.shape[0])
        out[t.id, 2] = v.sum() / v.numel()
        out[t.id, 3] = len(v)
        out[t.id, 4] = v.var() * (torch.numel(v) - 1)
        out[t.id, 5] = v.sum() * v.size(0) ** -0.5
        out[t.id, 6] = v.sum() * min(v.size(0), 5) + max(v.size(dim=0), 5)
        out[t.id, 7] = v.sum() / float(v.size()[0]) + int(v.size(-2))
        out[t.id, 8] = v.sum() * (v.size(0) % 5) + v.size(0) // 2
        out[t.id, 9] = v.clamp(max=v.size(0) / 8).sum() + v.size(1)
        out[t.id, 10] = v.sum() if v.size(0) > 5 else v.sum() * 100
        out[t.id, 11] = v.sum() / t.block_size
    return out


def _numbers_by_pytorch(x: torch.Tensor) -> torch.Tensor:
    rows = []
    for v in x.split(16):
        n, total = len(v), v.sum()
        row = [total / n, total / n, total / v.numel(), n, v.var() * (v.numel() - 1), total * n**-0.5]
        row += [total * min(n, 5) + max(n, 5), total / n + n, total * (n % 5) + n // 2, v.clamp(max=n / 8).sum() + 3]
        rows.append(torch.tensor([*row, total if n > 5 else total * 100, total / 16], dtype=x.dtype))
    return torch.stack(rows)


@pytest.mark.parametrize("rows", [16, 19, 33])
@pytest.mark.parametrize("static_shapes", [True, False])
def test_a_size_is_a_number_of_elements(rows: int, static_shapes: bool, seed: int) -> None:
    run_everywhere(numbers, (torch.randn(rows, 3),), _numbers_by_pytorch, error_scale=2000, static_shapes=static_shapes)


def shapes(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros([helion.cdiv(x.size(0), 16), 10], device=x.device)
    for t in hl.tile(x.size(0), block_size=16):
        v = x[t]
        out[t.id, 0] = (v + hl.full([v.size(0)], v.size(0))).sum()
        out[t.id, 1] = (v + torch.full((v.size(0),), v.size(0), dtype=v.dtype)).sum()
        out[t.id, 2] = (v + torch.ones(v.shape) + torch.zeros(v.size(0))).sum()
        out[t.id, 3] = (v + v.new_full((v.size(0),), v.size(0))).sum()
        out[t.id, 4] = (v * (hl.arange(v.size(0)) == v.size(0) - 1)).sum()
        out[t.id, 5] = (v + torch.arange(len(v)) + hl.arange(t.begin, t.end)).sum()
        out[t.id, 6] = v[:, None].expand(v.size(0), 4).sum() + torch.broadcast_to(v.sum(), v.shape).sum()
        out[t.id, 7] = v.view(v.shape).reshape(v.size(0), 1).sum() + v.unsqueeze(0).size(1)
        out[t.id, 8] = (hl.rand([v.size(0)], 3) >= 0).sum() + (torch.rand(v.size(0)) >= 0).sum()
        out[t.id, 9] = x[0 : v.size(0)].sum() + hl.zeros([t.end - t.begin]).size(0)
    return out


def _shapes_by_pytorch(x: torch.Tensor) -> torch.Tensor:
    rows = []
    for place, v in enumerate(x.split(16)):
        n, total, counted = len(v), v.sum(), torch.arange(len(v)).sum()
        row = [total + n * n, total + n * n, total + n, total + n * n, v[-1], total + 2 * counted + n * place * 16]
        rows.append(torch.tensor([*row, 4 * total + n * total, total + n, 2 * n, x[:n].sum() + n], dtype=x.dtype))
    return torch.stack(rows)


@pytest.mark.parametrize("rows", [16, 19])
def test_a_size_in_a_shape_is_the_tiles(rows: int, seed: int) -> None:
    run_everywhere(shapes, (torch.randn(rows),), _shapes_by_pytorch, error_scale=200)


def by_function(x: torch.Tensor, mean: Callable[..., Any]) -> torch.Tensor:
    out = torch.zeros([helion.cdiv(x.size(0), 16)], device=x.device)
    for t in hl.tile(x.size(0), block_size=16):
        out[t.id] = mean(x[t], t)
    return out


def _of_size(v: torch.Tensor, t: Any) -> Any:
    return v.sum() / v.size(0) * min(len(v), 7)


def test_functions_are_told_the_same(seed: int) -> None:
    x = torch.randn(19)
    means = torch.tensor([part.double().sum() / len(part) for part in x.split(16)])
    for mean in (lambda v, t: v.sum() / v.size(0), lambda v, t: v.sum() / (v.shape[0] + 0 * v.numel())):
        run_everywhere(by_function, (x, mean), lambda *_: means.double(), error_scale=100)
    run_everywhere(by_function, (x, _of_size), lambda *_: (means * torch.tensor([7, 3])).double(), error_scale=1000)


def jagged_means(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    out = torch.zeros([lengths.size(0)], device=x.device)
    for t in hl.tile(lengths.size(0), block_size=2):
        total = hl.zeros([t], dtype=torch.float32)
        for c in hl.jagged_tile(lengths[t]):
            v = x[t, c]
            total = total + v.sum(1) / v.size(0) + v.size(1)
        out[t] = total
    return out


def test_sizes_of_a_jagged_value() -> None:
    x, lengths = torch.randn(5, 9), torch.tensor([3, 9, 0, 2, 7])
    widths = torch.tensor([9, 9, 2, 2, 7])
    sums = torch.stack([row[:n].double().sum() for row, n in zip(x, lengths.tolist())])
    expected = sums / torch.tensor([2, 2, 2, 2, 1]) + widths
    run_everywhere(jagged_means, (x, lengths), lambda *_: expected, error_scale=100)


def lanes(x: torch.Tensor) -> torch.Tensor:
    block = hl.register_block_size(16)
    out = torch.zeros([x.size(0)], device=x.device)
    for t in hl.tile(x.size(0)):
        acc = hl.zeros([t, block])
        width = acc.size(1)
        for c in hl.tile(x.size(1), block_size=block):
            acc = acc + x[t, c]
        out[t] = acc.sum(1) + 0 * width
    return out


def test_what_is_before_a_loop_has_the_blocks_size() -> None:
    x = torch.randn(5, 21)
    run_everywhere(lanes, (x,), lambda x: x.sum(1), error_scale=100)


def _refused(body: Callable[..., Any], message: str, fix: str) -> None:
    with pytest.raises(exc.BaseError, match=message) as error:
        helion.kernel(by_function)(torch.randn(19), body)
    assert fix in str(error.value) and __file__ in str(error.value), error.value


def _root(v: torch.Tensor, t: Any) -> Any:
    return v.sum() / math.sqrt(v.size(0))


def _root_of_block(v: torch.Tensor, t: Any) -> Any:
    return v.sum() / math.sqrt(t.block_size)


def _steps(v: torch.Tensor, t: Any) -> Any:
    return torch.linspace(0, 1, v.size(0)).sum()


def test_what_cannot_be_computed_of_a_size_names_what_can() -> None:
    _refused(_root, "math.sqrt of a number", "torch.sqrt(hl.full([], v.size(0)))")
    _refused(_root_of_block, "math.sqrt of a number", "torch.sqrt(hl.full([], t.block_size))")
    _refused(_steps, "linspace", "hl.arange(n) / (n - 1)")
    _refused(lambda v, t: v.sum() / float(v.size(0)), "a tile's size or place", "with `def`")
    _refused(lambda v, t: v.sum() / math.sqrt(t.block_size), "a tile's size or place", "with `def`")


def _roots(v: torch.Tensor, t: Any) -> Any:
    n = v.size(0)
    steps = hl.arange(n) / (n - 1)
    return v.sum() / torch.sqrt(hl.full([], n)) + v.sum() / torch.sqrt(hl.full([], t.block_size)) + steps.sum()


def test_what_the_messages_name_works(seed: int) -> None:
    x = torch.randn(19)
    expected = torch.stack([v.sum() / len(v) ** 0.5 + v.sum() / 4 + len(v) / 2 for v in x.double().split(16)])
    run_everywhere(by_function, (x, _roots), lambda *_: expected, error_scale=100)
