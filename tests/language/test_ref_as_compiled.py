"""What ref mode must not do in its own way: variables of loops, jagged lanes, and what a Config says."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere

X = torch.arange(30.0).reshape(5, 6)
LENGTHS = torch.tensor([2, 0, 6, 3, 1])


def both(fn: Any, *args: Any, config: dict[str, Any] | None = None, **settings: Any) -> tuple[Any, Any]:
    """The result in ref mode, and in the tile executor under the same Config."""
    configs = {"config": helion.Config(**config)} if config is not None else {}
    in_ref = helion.kernel(fn, ref_mode=helion.RefMode.EAGER, **configs, **settings)
    return in_ref(*args), helion.kernel(fn, **configs, **settings)(*args)


# -- variables that loops carry


def by_turns(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        side, acc = 0, x[t]
        for _ in hl.grid(3):
            acc = torch.where(side == 0, acc + 1, acc * 2)
            side = 1 - side
        out[t] = acc + side.to(torch.float32)
    return out


def wraps(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0)], dtype=torch.int64, device=x.device)
    for i in hl.grid(x.size(0)):
        s = 3
        for _ in hl.grid(70):
            s = s * 7
        out[i] = s
    return out


def in_single_precision(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0)], dtype=torch.float64, device=x.device)
    for i in hl.grid(x.size(0)):
        s = 0.0
        for _ in hl.grid(10):
            s = s + 0.1
        out[i] = s
    return out


def in_a_while(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0)], dtype=torch.int64, device=x.device)
    for i in hl.grid(x.size(0)):
        left, parity, steps = x[i].to(torch.int64), 0, 0
        while left > 0 and steps < 3:
            steps = torch.where(parity == 0, steps + 1, steps)
            parity = 1 - parity
            left = left - 1
        out[i] = steps * 10 + parity
    return out


def of_a_tuple(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0)], dtype=torch.int64, device=x.device)
    for i in hl.grid(x.size(0)):
        pair = (0, 1)
        for _ in hl.grid(5):
            pair = (pair[1], pair[0] + pair[1])
        out[i] = torch.where(pair[0] > 3, pair[1], pair[0])
    return out


def set_anew(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0)], dtype=torch.int64, device=x.device)
    for i in hl.grid(x.size(0)):
        seen = 0
        for j in hl.grid(4):
            seen = torch.where(x[i] > j, seen + 1, seen)
            if x[i] > 3:
                seen = 7
        out[i] = torch.where(seen == 7, seen, -seen)
    return out


@pytest.mark.parametrize("fn", [by_turns, wraps, in_single_precision, in_a_while, of_a_tuple, set_anew])
def test_numbers_that_loops_change_are_tensors(fn: Any) -> None:
    in_ref, compiled = both(fn, torch.arange(6.0))
    assert torch.equal(in_ref, compiled)


# -- branches


def flagged(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for i in hl.grid(x.size(0)):
        flag = False
        if x[i] > 2:
            flag = True
        out[i] = torch.where(flag, x[i], -x[i])
    return out


def flagged_pasted(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for i in hl.grid(x.size(0)):
        flag = False
        if x[i] > 2:
            flag = True
        chosen = torch.where(hl.full([], flag, dtype=torch.bool), x[i], -x[i])
        out[i] = chosen + (x[i] if flag else -x[i])
    return out


def counts_in_int32(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0)], dtype=torch.int32, device=x.device)
    for t in hl.tile(x.size(0)):
        count = hl.zeros([t], dtype=torch.int32)
        for c in hl.tile(x.size(1)):
            count = count + (x[t, c] > 3).sum(1)  # an int64
        out[t] = count
    return out


@pytest.mark.parametrize("mode", [helion.RefMode.OFF, helion.RefMode.EAGER])
def test_a_variable_that_changes_its_dtype_is_refused_in_every_mode(mode: helion.RefMode) -> None:
    with pytest.raises(exc.ControlFlowTensorMismatch, match=r"int32\[t\] becomes int64"):
        helion.kernel(counts_in_int32, ref_mode=mode)(X)


def test_a_number_where_a_tensor_is_taken_has_its_line_and_advice_that_works() -> None:
    x = torch.arange(5.0)
    with pytest.raises(exc.InvalidAPIUsage, match=r"(?s)got \(bool, Tensor, Tensor\).*torch.where\(flag") as error:
        helion.kernel(flagged, ref_mode=helion.RefMode.EAGER)(x)
    assert "`hl.full([], flag, dtype=torch.bool)`" in str(error.value) and "`a if flag else b`" in str(error.value)
    in_ref, compiled = both(flagged_pasted, x)
    assert torch.equal(in_ref, compiled) and torch.equal(in_ref, torch.where(x > 2, 2 * x, -2 * x))


def sorted_pairs(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0), 2], dtype=x.dtype, device=x.device)
    for i in hl.grid(x.size(0)):
        low, high = (y[i], x[i]) if y[i] < x[i] else (x[i], y[i])
        pair = (x[i], y[i])
        if pair[1] < pair[0]:
            pair = (pair[1], pair[0])
        out[i, 0] = low + 10 * pair[0]
        out[i, 1] = high + 10 * pair[1]
    return out


def test_tuples_are_chosen_by_device_values() -> None:
    x, y = torch.tensor([1.0, 5, 3]), torch.tensor([4.0, 2, 3])
    in_ref, compiled = both(sorted_pairs, x, y)
    assert torch.equal(in_ref, 11 * torch.stack([x, y], 1).sort(1).values) and torch.equal(in_ref, compiled)


def uneven(x: torch.Tensor) -> torch.Tensor:
    for i in hl.grid(x.size(0)):
        pair = (x[i], x[i]) if x[i] > 0 else (x[i],)
        x[i] = pair[0]
    return x


def test_tuples_of_two_lengths_are_no_choice() -> None:
    with pytest.raises(exc.CantCombineTypesInControlFlow):
        helion.kernel(uneven)(torch.ones(3))


# -- jagged loops


def accumulated(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    block = hl.register_block_size(4)
    out = torch.zeros([x.size(0), 2], device=x.device)
    for t in hl.tile(x.size(0)):
        acc, most = hl.zeros([t, block]), hl.full([t, block], float("-inf"))
        for j in hl.jagged_tile(lengths[t], block_size=block):
            acc = acc * 2 + x[t, j] + 1
            most = torch.maximum(most, x[t, j])
        out[t, 0] = acc.sum(1)
        out[t, 1] = most.amax(1)
    return out


def counted(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    block = hl.register_block_size(4)
    out = torch.zeros([x.size(0)], device=x.device)
    for t in hl.tile(x.size(0)):
        acc, times = hl.zeros([t, block]), 0
        for j in hl.jagged_tile(lengths[t], block_size=block):
            acc = acc + j.id + 1
            times += 1  # noqa: SIM113
            if times > 1:
                break
        out[t] = acc.sum(1)
    return out


def of_fixed_size(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    out = torch.zeros([x.size(0)], device=x.device)
    for t in hl.tile(x.size(0)):
        acc = hl.zeros([t, 4])
        for j in hl.jagged_tile(lengths[t], block_size=4):
            acc = acc + x[t, j]
        out[t] = acc.sum(1)
    return out


@pytest.mark.parametrize("fn", [accumulated, counted])
@pytest.mark.parametrize("sizes", [[2, 2], [4, 2], [4, 4], [2, 1]])
def test_lanes_that_a_jagged_loop_carries(fn: Any, sizes: list[int]) -> None:
    in_ref, compiled = both(fn, X, LENGTHS, config={"block_sizes": sizes})
    assert torch.equal(in_ref, compiled)


def test_an_accumulator_of_a_jagged_tiles_constant_size() -> None:
    in_ref, compiled = both(of_fixed_size, X, LENGTHS, config={"block_sizes": [2]})
    inside = torch.arange(6) < LENGTHS[:, None]
    assert torch.equal(in_ref, torch.where(inside, X, 0).sum(1)) and torch.equal(in_ref, compiled)


# -- Configs


def sums(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0)], device=x.device)
    for t in hl.tile(x.size(0)):
        out[t] = x[t, :].sum(1)
    return out


MISFITS = {
    "too many items": {"block_sizes": [2], "reduction_loops": [2, None]},
    "too many sizes": {"block_sizes": [2, 4]},
    "no power of two": {"block_sizes": [3]},
    "an unknown key": {"block_sizes": [2], "whatever": 3},
    "a value out of range": {"block_sizes": [2], "num_warps": 3},
}


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("config", MISFITS.values(), ids=MISFITS)
def test_a_config_that_does_not_fit_is_refused_in_the_same_words(config: dict[str, Any], static: bool) -> None:
    said = []
    for mode in (helion.RefMode.EAGER, helion.RefMode.OFF):
        kernel = helion.kernel(sums, config=helion.Config(**config), ref_mode=mode, static_shapes=static)
        with pytest.raises(exc.InvalidConfig) as error:
            kernel(X)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_a_kernel_that_does_not_compile_runs_under_a_config_of_sensible_values() -> None:
    def unknown(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = torch.linalg.qr(x[t, None].T).R.abs().sum() * 0 + x[t]
        return out

    args = (torch.arange(4.0),)
    with pytest.raises(exc.BaseError):
        helion.kernel(unknown)(*args)
    options = {"ref_mode": helion.RefMode.EAGER}
    assert torch.equal(helion.kernel(unknown, config=helion.Config(block_sizes=[2]), **options)(*args), args[0])
    with pytest.raises(exc.InvalidConfig, match="num_warps"):
        helion.kernel(unknown, config=helion.Config(num_warps="many"), **options)(*args)


@pytest.mark.parametrize("fault", [exc.InternalError(reason="a fault"), KeyError("a fault"), AssertionError("a fault")])
def test_a_fault_of_the_compiler_is_no_kernel_that_does_not_compile(
    fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **options: Any) -> Any:
        raise fault

    monkeypatch.setattr("helion.frontend.trace.trace_kernel", fails)
    kernel = helion.kernel(sums, config=helion.Config(block_sizes=[2]), ref_mode=helion.RefMode.EAGER)
    with pytest.raises(type(fault), match="a fault"):
        kernel(X)


def ends(x: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    out = torch.zeros([x.size(0)], dtype=torch.int64, device=x.device)
    for i in hl.grid(bounds.size(0) - 1):
        for k in hl.tile(bounds[i], bounds[i + 1]):
            x[k] = x[k] + 1
    hl.barrier()
    for t in hl.tile(x.size(0)):
        out[t] = hl.zeros([t], dtype=torch.int64) + t.end
    return out


def test_a_loop_that_never_runs_keeps_its_block_size() -> None:
    """Sizes were given to loops in the order in which they ran: the second loop's was the first one's."""
    in_ref, compiled = both(ends, torch.zeros(9), torch.zeros(1, dtype=torch.int64), config={"block_sizes": [8, 2]})
    assert torch.equal(in_ref, compiled) and in_ref.tolist() == [2, 2, 4, 4, 6, 6, 8, 8, 9]


def parts(x: torch.Tensor) -> torch.Tensor:
    block = hl.register_block_size(2, 32)
    out = torch.zeros([x.size(0), helion.cdiv(x.size(1), block)], device=x.device)
    for t in hl.tile(x.size(0)):
        for b in hl.grid(helion.cdiv(x.size(1), block)):
            lanes = b * block + hl.arange(block)
            out[t, b] = hl.load(x, [t, lanes], extra_mask=(lanes < x.size(1))[None, :]).sum(1)
    return out


@pytest.mark.parametrize("size", [2, 4, 8])
def test_a_registered_size_of_a_buffer_is_the_configs(size: int) -> None:
    in_ref, compiled = both(parts, X, config={"block_sizes": [size, 2]})
    expected = torch.stack([part.sum(1) for part in X.split(size, 1)], 1)
    assert torch.equal(in_ref, expected) and torch.equal(compiled, expected)


def test_static_and_dynamic_shapes_have_the_same_items() -> None:
    def kernel(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        total, means = x.new_empty([x.size(0)]), x.new_empty([x.size(0), x.size(1)])
        for t in hl.tile(x.size(0)):
            total[t] = x[t, :, :].sum(dim=(1, 2))
            means[t, :] = x[t, :, :].mean(-1)
        return total, means

    x = torch.randn(7, 5, 9)
    for static in (True, False):
        bound = helion.kernel(kernel, static_shapes=static).bind((x,))
        assert len(bound.config_spec.reduction_loops) == 2
        total, means = bound(x)
        torch.testing.assert_close(total, x.sum((1, 2)))
        torch.testing.assert_close(means, x.mean(-1))


def test_variances_under_dynamic_shapes() -> None:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = x.new_empty([x.size(0)])
        for t in hl.tile(x.size(0)):
            out[t] = x[t, :].var(1)
        return out

    for x in (torch.randn(4, 6), torch.randn(2, 5)):
        torch.testing.assert_close(helion.kernel(kernel, static_shapes=False)(x), x.var(1))


@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize("mode", [helion.RefMode.OFF, helion.RefMode.EAGER])
def test_an_index_of_a_tile_beside_the_tile_is_told_from_pairs(mode: helion.RefMode, block: int) -> None:
    def kernel(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        out = x.new_empty([x.size(0)])
        for t in hl.tile(x.size(0)):
            out[t] = x[t, at[t]]
        return out

    with pytest.raises(exc.ShapeMismatch, match=r"x\[t.index, y\[t\]\]` is one element a row"):
        helion.kernel(kernel, config=helion.Config(block_sizes=[block]), ref_mode=mode)(X, LENGTHS % 6)


PRODUCTS_OF_A_TILE = {
    "einsum": lambda x, w: torch.einsum("bij,kj->bik", x, w),
    "linear": torch.nn.functional.linear,
    "tensordot": lambda x, w: torch.tensordot(x, w.t(), dims=1),
    "inner": torch.inner,
}


@pytest.mark.parametrize("form", [*PRODUCTS_OF_A_TILE])
def test_one_element_of_a_partial_tile_in_a_product_of_any_form(form: str) -> None:
    """It was added to every lane of the accumulator: of a product written in these ways ref mode did not know which
    dimension the tile's was.
    """
    multiply = PRODUCTS_OF_A_TILE[form]

    def kernel(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        out = x.new_empty([x.size(0), w.size(0)])
        block = hl.register_block_size(x.size(1))
        for t in hl.tile(x.size(0), block_size=1):
            acc = hl.zeros([t, block, w.size(0)])
            for k in hl.tile(x.size(1), block_size=block):
                acc = acc + multiply(x[t, k, :], w[:, :])
            out[t, :] = acc.sum(1)
        return out

    x, w = torch.randn(3, 5, 6), torch.randn(2, 6)
    for result in both(kernel, x, w, config={"block_sizes": [4]}):
        torch.testing.assert_close(result, torch.einsum("bij,kj->bk", x, w), rtol=1e-4, atol=1e-4)


def test_one_element_of_a_partial_tile_in_a_product_with_a_vector() -> None:
    def kernel(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        out = x.new_empty([1])
        block = hl.register_block_size(x.size(0))
        for i in hl.grid(1):
            acc = hl.zeros([block])
            for k in hl.tile(x.size(0), block_size=block):
                acc = acc + torch.mv(x[k, :], w[:])
            out[i] = acc.sum(0)
        return out

    x, w = torch.randn(5, 6), torch.randn(6)
    for result in both(kernel, x, w, config={"block_sizes": [4]}):
        torch.testing.assert_close(result, (x @ w).sum()[None], rtol=1e-4, atol=1e-4)


def test_a_config_is_taken_where_host_code_returns_before_any_loop() -> None:
    @helion.kernel(config=helion.Config(block_sizes=[4]), ref_mode=helion.RefMode.EAGER)
    def copied(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        if x.numel() == 0:
            return out
        for t in hl.tile(x.size(0)):
            out[t] = x[t]
        return out

    for n in (9, 0, 9):
        assert torch.equal(copied(torch.ones(n)), torch.ones(n))


def murmur(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    out = torch.empty_like(x)
    larger = torch.empty(x.shape, dtype=torch.bool, device=x.device)
    for t in hl.tile(x.size(0)):
        h = x[t]
        h = (h ^ (h >> 7)) * 0x9E3B
        h = h ^ (h << 3)
        out[t] = torch.where(h > 1000, h + x[t], h - 7) % 10007
        larger[t] = h > x[t]
    return out, larger


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32])
def test_unsigned_integers_are_computed_with_where_pytorch_has_no_ops_for_them(dtype: torch.dtype) -> None:
    bits = torch.iinfo(dtype).bits
    x = torch.randint(0, 2**bits, (50,))

    def expected(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cut = 2**bits - 1
        x = x.long()
        h = ((x ^ (x >> 7)) * 0x9E3B) & cut
        h = h ^ ((h << 3) & cut)
        return ((torch.where(h > 1000, h + x, h - 7) & cut) % 10007).to(dtype), h > x

    run_everywhere(murmur, (x.to(dtype),), expected, configs=[{}], capabilities=[90])


#: Where a loop's last tile has one element, PyTorch lets it go with all lanes: results have to know whose they are.
KEEPS_A_TILE: dict[str, Any] = {
    "split": lambda v: hl.split(v[:, :, 1:3])[1],
    "join": lambda v: hl.join(v[:, :, 0], v[:, :, 1]).sum(-1),
    "reduce": lambda v: hl.reduce(torch.maximum, v, dim=-1),
    "unbind": lambda v: v.unbind(-1)[1],
    "select": lambda v: v.select(-1, 1),
    "chunk": lambda v: v.chunk(2, -1)[1].sum(-1),
    "narrow": lambda v: v.narrow(-1, 1, 2).sum(-1),
    "stack": lambda v: torch.stack([v, v + 1], 0).sum(0).sum(-1),
    "cat": lambda v: torch.cat([v, v], -1).sum(-1),
    "topk": lambda v: torch.topk(v, 2, -1)[0].sum(-1),
}


@pytest.mark.parametrize("form", [*KEEPS_A_TILE])
def test_one_element_of_a_partial_tile_goes_with_the_first_lane_whatever_made_it(form: str) -> None:
    of = KEEPS_A_TILE[form]

    def fn(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x[:, 0, 0])
        block = hl.register_block_size(x.size(1))
        for t in hl.tile(x.size(0)):
            acc = hl.zeros([t, block])
            for k in hl.tile(x.size(1), block_size=block):
                acc = acc + of(x[t, k, :])
            out[t] = acc.sum(1)
        return out

    x = torch.randint(-3, 4, (5, 5, 4)).float()
    in_ref, compiled = both(fn, x, config={"block_sizes": [4, 4]})
    assert torch.equal(in_ref, compiled)


def test_columns_that_add_up_to_one_more_than_there_were_are_no_tiles() -> None:
    def fn(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            register = torch.cat([x[t, 0:3], x[t, 0][:, None]], 1)
            chosen = torch.where(mask[t], x[t, 0], 0)
            out[t, :] = torch.cat([chosen[:, None], register[:, 1:]], 1)
        return out

    x = torch.randn(5, 4)
    in_ref, compiled = both(fn, x, torch.tensor([1, 0, 2, 0, 1], dtype=torch.uint8), config={"block_sizes": [2]})
    assert torch.equal(in_ref, compiled)
    assert torch.equal(in_ref[:, 3], x[:, 0])
