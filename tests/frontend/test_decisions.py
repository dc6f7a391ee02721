"""Numbers that host code computes from tunables and block sizes: they follow the Config."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from helion.fragments import IntegerFragment
from helion.fragments import PowerOfTwoFragment
from tests.support import run_everywhere

pytestmark = pytest.mark.gpu  # with a GPU, every kernel runs on it too


def levels(n: int) -> int:
    count = 0
    while n > 1:
        n, count = n // 2, count + 1
    return count


BLOCKS = {
    "next_power_of_2": lambda n, split: helion.next_power_of_2(helion.cdiv(n, split)),
    "floor_division": lambda n, split: 64 // split,
    "min_max": lambda n, split: max(min(split * 4, 16), 8),
    "function": lambda n, split: 2 ** (2 + levels(split)),
}


@pytest.mark.parametrize("split", [None, 4])
@pytest.mark.parametrize("block_of", BLOCKS.values(), ids=BLOCKS)
def test_block_size_computed_from_a_tunable(block_of, split: int | None, seed: int) -> None:
    @helion.kernel(config=helion.Config(**({} if split is None else {"split": split})))
    def partial_sums(x, n: hl.constexpr):
        split = hl.register_tunable("split", PowerOfTwoFragment(1, 8, 2))
        block = block_of(n, split)
        out = torch.zeros([helion.cdiv(n, block)], dtype=x.dtype, device=x.device)
        for tile in hl.tile(n, block_size=block):
            out[tile.id] = x[tile].sum()
        return out

    def reference(x, n):
        return torch.stack([part.sum() for part in x.split(block_of(n, split or 2))])

    config = {} if split is None else {"split": split}
    run_everywhere(partial_sums, (torch.randn(50), 50), reference, configs=[config], error_scale=64, capabilities=[90])


@pytest.mark.parametrize(("split", "sizes"), [(4, [8.0, 16.0]), (6, [8.0, 2.0]), (1, [32.0, 16.0])])
def test_conditional_expression_and_words(split: int, sizes: list[float], seed: int) -> None:
    @helion.kernel(config=helion.Config(split=split))
    def kernel(x):
        split = hl.register_tunable("split", IntegerFragment(1, 8, 2))
        block = 8 if split > 2 and x.size(0) > 3 else 32
        other = max(split - 4, 0) or 16
        out = torch.zeros([2, x.size(0)], dtype=x.dtype, device=x.device)
        for tile in hl.tile(x.size(0), block_size=block):
            out[0, tile] = tile.block_size
        hl.barrier()
        for tile in hl.tile(x.size(0), block_size=other):
            out[1, tile] = tile.block_size
        return out

    expected = torch.tensor(sizes)[:, None].expand(2, 20)
    run_everywhere(kernel, (torch.zeros(20),), lambda x: expected.to(x), configs=[{"split": split}], capabilities=[80])


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_scratch_and_bounds_of_computed_sizes(dynamic: bool, seed: int) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[8, 8], split=4), static_shapes=not dynamic)
    def split_k(x, y):
        m, k = x.shape
        n = y.size(1)
        split = hl.register_tunable("split", PowerOfTwoFragment(1, 8, 2))
        chunk = helion.next_power_of_2(helion.cdiv(k, split))
        scratch = torch.empty([split, m, n], dtype=x.dtype, device=x.device)
        for part in hl.grid(split):
            for rows in hl.tile(m):
                acc = hl.zeros([rows, n])
                for inner in hl.tile(part * chunk, torch.sym_min(part * chunk + chunk, k)):
                    acc = torch.addmm(acc, x[rows, inner], y[inner, :])
                scratch[part, rows, :] = acc
        return scratch

    def reference(x, y):
        chunk = helion.next_power_of_2(helion.cdiv(x.size(1), 4))
        parts = [x[:, i * chunk : (i + 1) * chunk] @ y[i * chunk : (i + 1) * chunk] for i in range(4)]
        return torch.stack(parts)

    configs = [{"block_sizes": [8, 16], "split": 4}]
    run_everywhere(
        split_k,
        (torch.randn(10, 50), torch.randn(50, 12)),
        reference,
        configs=configs,
        error_scale=5000,
        capabilities=[90],
    )


def test_number_computed_from_a_registered_block_size(seed: int) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[8]))
    def groups(x, y):
        block = hl.register_block_size(4, 64)
        out = torch.zeros([x.size(0)], dtype=x.dtype, device=x.device)
        for tile in hl.tile(x.size(0), block_size=max(block // 2, 1)):
            out[tile] = x[tile] + tile.block_size
        for tile in hl.tile(x.size(0), block_size=block):
            y[tile] = tile.block_size
        return out

    x = torch.randn(50)
    run_everywhere(groups, (x, torch.empty(50)), lambda x, y: x + 4, configs=[{"block_sizes": [8]}], capabilities=[80])


DECISIONS = {
    "range": lambda split, x: [x for _ in range(split)],
    "index": lambda split, x: [1, 2, 3, 4][split],
    "call_of_a_tensor": lambda split, x: _if_tensor(split, x),
}


def _if_tensor(split, x):
    return x if split > 2 else x * 2


@pytest.mark.parametrize("decide", DECISIONS.values(), ids=DECISIONS)
def test_decision_on_a_tunable_in_host_code_is_an_error(decide) -> None:
    @helion.kernel(config=helion.Config(split=4))
    def kernel(x):
        split = hl.register_tunable("split", IntegerFragment(1, 8, 2))
        decide(split, x)
        for tile in hl.tile(x.size(0)):
            x[tile] = 1
        return x

    with pytest.raises(exc.SizeNotConstant, match="follows the Config"):
        kernel(torch.zeros(8))


def test_if_statement_on_a_tunable_in_host_code_is_an_error() -> None:
    @helion.kernel(config=helion.Config(split=4))
    def kernel(x):
        split = hl.register_tunable("split", IntegerFragment(1, 8, 2))
        block = 16
        if split > 4:
            block = 8
        for tile in hl.tile(x.size(0), block_size=block):
            x[tile] = 1
        return x

    with pytest.raises(exc.SizeNotConstant, match="a if condition else b"):
        kernel(torch.zeros(8))


def test_block_size_computed_to_nothing_is_an_invalid_config() -> None:
    @helion.kernel(config=helion.Config(split=8))
    def kernel(x):
        split = hl.register_tunable("split", IntegerFragment(1, 8, 2))
        for tile in hl.tile(x.size(0), block_size=4 // split):
            x[tile] = 1
        return x

    with pytest.raises(exc.InvalidConfig, match="must be positive"):
        kernel(torch.zeros(8))
