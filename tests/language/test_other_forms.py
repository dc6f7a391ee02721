"""Forms in which kernels from elsewhere are written: each means the same in ref mode, in the tile executor and on the
software GPU.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import helion
import helion.language as hl
from helion import exc
from helion.language.random import philox_rand
from helion.language.random import philox_rand4x
from tests.support import run_everywhere


def everywhere(fn: Callable[..., Any], args: tuple[Any, ...], reference: Callable[..., Any], **options: Any) -> None:
    run_everywhere(fn, args, reference, capabilities=[90], **options)


# -- products with a dtype of their own


def products(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
    size, m, n = a.size(0), a.size(1), b.size(2)
    batched, named, added = (torch.empty([size, m, n], dtype=torch.float32, device=a.device) for _ in range(3))
    single, single_added = (torch.empty([m, n], dtype=torch.float32, device=a.device) for _ in range(2))
    for tb, tm, tn in hl.tile([size, m, n]):
        acc = hl.zeros([tb, tm, tn], dtype=torch.float32)
        batched[tb, tm, tn] = torch.bmm(a[tb, tm, :], b[tb, :, tn], torch.float32)
        named[tb, tm, tn] = torch.bmm(a[tb, tm, :], b[tb, :, tn], out_dtype=torch.float32)
        added[tb, tm, tn] = torch.baddbmm(acc, a[tb, tm, :], b[tb, :, tn], out_dtype=torch.float32)
    for tm, tn in hl.tile([m, n]):
        acc = hl.zeros([tm, tn], dtype=torch.float32)
        single[tm, tn] = torch.mm(a[0, tm, :], b[0, :, tn], torch.float32)
        single_added[tm, tn] = torch.addmm(acc, a[0, tm, :], b[0, :, tn], out_dtype=torch.float32, alpha=2)
    return batched, named, added, single, single_added


def test_out_dtype_of_products() -> None:
    a, b = torch.randn(2, 16, 16).half(), torch.randn(2, 16, 16).half()
    everywhere(
        products,
        (a, b),
        lambda a, b: (a @ b, a @ b, a @ b, a[0] @ b[0], a[0] @ b[0] * 2),
        configs=[{"block_sizes": [1, 16, 16, 16, 16]}],
        error_scale=20,
    )


# -- random numbers


def random_forms(x: torch.Tensor, seed: int, seeds: torch.Tensor) -> torch.Tensor:
    out = torch.empty([7, x.size(0)], dtype=torch.float32, device=x.device)
    for t in hl.tile(x.size(0)):
        places = t.index.to(torch.int64) * 3
        out[0, t] = hl.rand([t], seed, x.device)
        out[1, t] = hl.rand([t], seed, offsets=places)
        out[2, t] = hl.rand([t], seeds)
        a, b, _, _ = hl.rand4x(seed, places)
        out[3, t] = a
        out[4, t] = b
        out[5, t] = hl.randint([t], 2, 9, seed, offsets=places)
        out[6, t] = hl.rand4x([t], seeds[:])[0]
    return out


def test_random_numbers_by_offsets_and_seeds_from_tensors() -> None:
    at, seed = torch.arange(21), 11
    bits = hl.philox_bits.eager_rule(seed, at * 3).long()
    four = philox_rand4x.eager_rule(seed, at * 3)
    rows = [
        philox_rand.eager_rule(seed, at),
        philox_rand.eager_rule(seed, at * 3),
        philox_rand.eager_rule(5, at),
        four[0],
        four[1],
        bits.abs() % 7 + 2,
        philox_rand.eager_rule(5, at),
    ]
    expected = torch.stack([row.float() for row in rows])
    everywhere(
        random_forms, (torch.empty(21), seed, torch.tensor([5])), lambda *_: expected, configs=[{"block_sizes": [8]}]
    )


# -- loops


def test_a_list_of_one_bound_gives_the_tile() -> None:
    def first(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile([x.size(0)]):
            for i in hl.grid([x.size(1)]):
                out[t, i] = x[t, i] + 1
        return out

    def second(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for (t,) in hl.tile([x.size(0)]):
            for (i,) in hl.grid([x.size(1)]):
                out[t, i] = x[t, i] + i
        return out

    x = torch.randn(20, 5)
    everywhere(first, (x,), lambda x: x + 1, configs=[{"block_sizes": [8]}])
    everywhere(second, (x,), lambda x: x + torch.arange(5), configs=[{"block_sizes": [8]}])


def test_block_size_is_an_argument() -> None:
    def sums(x: torch.Tensor, size: int) -> torch.Tensor:
        out = torch.empty([helion.cdiv(x.size(0), size)], device=x.device)
        for t in hl.tile(x.size(0), block_size=size):
            out[t.id] = x[t].sum()
        return out

    kernel = helion.kernel(sums, config=helion.Config())
    x = torch.randn(64)
    for size in (8, 16, 8):
        torch.testing.assert_close(kernel(x, size), x.view(-1, size).sum(1))
    everywhere(sums, (x, 16), lambda x, size: x.view(-1, size).sum(1), error_scale=20)


# -- values


def test_a_host_tensor_is_stored_whole() -> None:
    def fill(x: torch.Tensor, row: torch.Tensor, one: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out, ones = torch.empty_like(x), torch.empty([x.size(0)], device=x.device)
        for i in hl.grid(x.size(0)):
            out[i, :] = row
            ones[i] = one
        return out, ones

    args = (torch.empty(5, 8), torch.randn(8), torch.tensor(3.0))
    everywhere(fill, args, lambda x, row, one: (row.expand(5, 8), one.expand(5)))


def test_torch_tensor_of_a_number_is_a_constant() -> None:
    def add(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = x[t] + torch.tensor(5, dtype=torch.float32) + torch.tensor(0.5)
        return out

    everywhere(add, (torch.randn(20),), lambda x: x + 5.5, configs=[{"block_sizes": [8]}], error_scale=4)


# -- constants


def repeated(x: torch.Tensor, times: Any) -> torch.Tensor:
    out = torch.empty_like(x)
    extra = hl.constexpr(3)
    for t in hl.tile(x.size(0)):
        value = x[t]
        for _ in range(times):
            value = value + 1
        out[t] = value + extra.value + extra
    return out


def test_constexpr_around_an_argument_and_a_value() -> None:
    everywhere(repeated, (torch.zeros(20), hl.constexpr(3)), lambda x, n: x + 9, configs=[{"block_sizes": [8]}])


def test_calls_with_other_constants_are_other_specializations() -> None:
    kernel = helion.kernel(repeated, config=helion.Config(block_sizes=[8]))
    x = torch.zeros(20)
    assert [kernel(x, hl.constexpr(n))[0].item() for n in (1, 2, 1)] == [7, 8, 7]
    assert kernel.bind((x, hl.constexpr(1))) is kernel.bind((x, hl.constexpr(1)))
    assert kernel.bind((x, hl.constexpr(1))) is not kernel.bind((x, hl.constexpr(2)))
    assert (
        hl.constexpr("a") == "a"
        and hl.constexpr(2.5).value == 2.5
        and hl.constexpr(torch.float16).value is (torch.float16)
    )


def test_constexpr_of_block_sizes_decides_for_each_config() -> None:
    def tagged(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        bm, bn = hl.register_block_size(x.size(0)), hl.register_block_size(x.size(1))
        for tm, tn in hl.tile([x.size(0), x.size(1)], block_size=[bm, bn]):
            if hl.constexpr(bm < 16 and bn >= 16):
                value = x[tm, tn] + 1
            else:
                value = x[tm, tn] - 1
            out[tm, tn] = value
        return out

    x = torch.zeros(32, 32)
    for blocks, expected in (([8, 16], 1), ([16, 16], -1), ([8, 8], -1)):
        for mode in (helion.RefMode.OFF, helion.RefMode.EAGER):
            kernel = helion.kernel(tagged, config=helion.Config(block_sizes=blocks), ref_mode=mode)
            assert torch.equal(kernel(x), x + expected)


# -- calls without tensors


def test_a_device_takes_the_place_of_a_tensor() -> None:
    def counted(n: int, where: dict[str, torch.device]) -> torch.Tensor:
        out = torch.empty([n], device=where["device"])
        for t in hl.tile(n):
            out[t] = t.index
        return out

    where = {"device": torch.device("cpu")}
    for mode in (helion.RefMode.OFF, helion.RefMode.EAGER):
        kernel = helion.kernel(counted, config=helion.Config(block_sizes=[8]), ref_mode=mode)
        assert torch.equal(kernel(20, where), torch.arange(20.0))
        with pytest.raises(exc.NoTensorArgs, match=r"torch\.device"):
            kernel(20, {})


# -- scans


def add(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a + b


decorated_add = helion.kernel(add)


def test_a_combine_function_that_is_decorated_is_used_undecorated() -> None:
    def sums(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t, :] = hl.associative_scan(decorated_add, x[t, :], 1)
        return out

    everywhere(sums, (torch.randn(9, 16),), lambda x: x.cumsum(1), configs=[{"block_sizes": [8]}], error_scale=20)


def test_the_higher_order_scan_of_pytorch() -> None:
    def scanned(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t, :] = torch._higher_order_ops.associative_scan(add, x[t, :], 1)
        return out

    kernel = helion.kernel(scanned, config=helion.Config(block_sizes=[8]))
    x = torch.randn(9, 16)
    torch.testing.assert_close(kernel(x), x.cumsum(1))
    assert "tl.associative_scan" in kernel.bind((x,)).to_triton_code() or "tl.cumsum" in (
        kernel.bind((x,)).to_triton_code()
    )


# -- what is said while tracing


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_accumulated_product_warns_where_it_is_rounded(dtype: torch.dtype) -> None:
    def matmul(a: torch.Tensor, b: torch.Tensor, how: str) -> torch.Tensor:
        out = torch.empty([a.size(0), b.size(1)], device=a.device)
        for tm, tn in hl.tile([a.size(0), b.size(1)]):
            acc = hl.zeros([tm, tn], dtype=torch.float32)
            for tk in hl.tile(a.size(1)):
                if how == "addmm":
                    acc = torch.addmm(acc, a[tm, tk], b[tk, tn])
                elif how == "dot":
                    acc += hl.dot(a[tm, tk], b[tk, tn])
                else:
                    acc += a[tm, tk] @ b[tk, tn]
            out[tm, tn] = acc
        return out

    kernel = helion.kernel(matmul, config=helion.Config(block_sizes=[16, 16, 16]))
    a, b = torch.randn(32, 32).to(dtype), torch.randn(32, 32).to(dtype)
    for how in ("addmm", "dot", "matmul"):
        shown = io.StringIO()
        with contextlib.redirect_stderr(shown):
            torch.testing.assert_close(kernel(a, b, how), a.float() @ b.float(), rtol=2e-2, atol=0.1)
        rounded = how == "matmul" and dtype is torch.bfloat16
        assert ("WARNING[TiledKMatmulAccumulationWarning]" in shown.getvalue()) is rounded


def test_a_breakpoint_in_host_code_stops_calls_and_not_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopping(x: torch.Tensor) -> torch.Tensor:
        breakpoint()
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = x[t]
        return out

    stops: list[int] = []
    monkeypatch.setattr(sys, "breakpointhook", lambda *a, **k: stops.append(1))
    kernel = helion.kernel(stopping, config=helion.Config(block_sizes=[8]))
    x = torch.randn(20)
    kernel.bind((x,))
    assert stops == []
    assert torch.equal(kernel(x), x) and torch.equal(kernel(x), x) and len(stops) == 2


@pytest.mark.parametrize("statement", ["return out", "with torch.no_grad():\n            out[t] = x[t]"])
def test_return_and_with_are_not_allowed_on_the_device(statement: str, tmp_path: Any) -> None:
    file = tmp_path / "kernels.py"
    file.write_text(
        "import torch\nimport helion.language as hl\n\n\ndef kernel(x):\n    out = torch.empty_like(x)\n"
        f"    for t in hl.tile(x.size(0)):\n        {statement}\n    return out\n"
    )
    namespace: dict[str, Any] = {}
    exec(compile(file.read_text(), str(file), "exec"), namespace)
    with pytest.raises(exc.NotAllowedOnDevice, match=r"`(return|with)` is not allowed in device code"):
        helion.kernel(namespace["kernel"]).bind((torch.randn(20),))


# -- new values with the dtype of a tensor of the host


def sums_of_blocks(x: torch.Tensor) -> torch.Tensor:
    out = x.new_empty(x.shape)
    for tm, tn in hl.tile(x.shape):
        acc = x.new_zeros([tm, tn], dtype=torch.float32) + x.new_full((tm,), 2)[:, None]
        out[tm, tn] = acc + x[tm, tn] + x.new_ones(tm, tn)
    return out


def test_a_tensor_of_the_host_gives_new_values_their_dtype(seed: int) -> None:
    everywhere(sums_of_blocks, (torch.randn(9, 21),), lambda x: x + 3)
    everywhere(sums_of_blocks, (torch.randn(9, 21, dtype=torch.bfloat16),), lambda x: x + 3)


# -- what is asked to be true


def between(x: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        low, high = bounds[0], bounds[1]
        out[t] = x[t] if low < high < 4 and not low > 2 else x[t] * ((low or 5) + (low and high))
    return out


@pytest.mark.parametrize("bounds", [(1, 2), (2, 1), (0, 4), (3, 2)])
def test_conditions_of_one_number_are_pythons(bounds: tuple[int, int], seed: int) -> None:
    low, high = bounds
    factor = 1 if low < high < 4 and not low > 2 else (low or 5) + (low and high)
    everywhere(between, (torch.randn(20), torch.tensor(bounds, dtype=torch.float32)), lambda x, _: x * factor)


@pytest.mark.parametrize("ask", ["0 < v < 1", "(v > 0) and (v < 1)", "v > 0 or v < 1", "not v", "1 if v > 0 else 0"])
@pytest.mark.parametrize("interpreted", [False, True])
def test_tensors_are_neither_true_nor_false(ask: str, interpreted: bool, tmp_path: Path) -> None:
    path = tmp_path / "asked.py"
    path.write_text(
        "import helion.language as hl\n\n"
        "def asked(x):\n"
        "    for t in hl.tile(x.size(0)):\n"
        "        v = x[t]\n"
        f"        x[t] = v * ({ask})\n"
    )
    namespace: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    kernel = helion.kernel(namespace["asked"], ref_mode=interpreted)
    with pytest.raises(exc.ShapeMismatch, match=r"\(low < x\) & \(x < high\)"):
        kernel(torch.randn(5))


def looks_up(a: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    m, n = places.size(0), a.size(0)
    chosen, past, kept = (torch.empty(m, device=a.device) for _ in range(3))
    for i in hl.grid(m):
        j = places[i]
        chosen[i] = a[j] if 0 <= j < n else 0.5
        past[i] = 0.5 if i >= n else a[i] * 2
        kept[i] = 1.0 if j >= 0 and j < n and a[j] > 0 and (j == 0 or 0 < a[j - 1] < 9) else 2.0
    return chosen, past, kept


def test_what_is_not_chosen_is_not_read(seed: int) -> None:
    """The places left out are far outside: the software GPU stops at the first such access."""
    far = 900_000_000

    def reference(a: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inside = [0 <= j < len(a) for j in places.tolist()]
        chosen = [a[j] if ok else 0.5 for j, ok in zip(places.tolist(), inside)]
        past = [a[i] * 2 if i < len(a) else 0.5 for i in range(len(places))]
        kept = [
            1.0 if ok and a[j] > 0 and (j == 0 or 0 < a[j - 1] < 9) else 2.0 for j, ok in zip(places.tolist(), inside)
        ]
        return tuple(torch.tensor(values, dtype=a.dtype) for values in (chosen, past, kept))

    places = torch.tensor([1, -far, 2, far, 0, 4, -1, 3])
    everywhere(looks_up, (torch.tensor([1.0, 2, -1, 3, 4]), places), reference)


# -- kernels that call kernels in host code


@helion.kernel(autotune_effort="none")
def tripled(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] * 3
    return out


def calls_another(x: torch.Tensor) -> torch.Tensor:
    y = tripled(x)
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = y[t] + 1
    return tripled(out)


@pytest.mark.parametrize("interpret", ["0", "1"])
def test_host_code_calls_another_kernel(interpret: str, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setenv("HELION_INTERPRET", interpret)
    x = torch.randn(9)
    torch.testing.assert_close(helion.kernel(calls_another)(x), (x * 3 + 1) * 3)


# -- sizes that PyTorch's functions calculate with


def losses_of_tiles(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.zeros([helion.cdiv(x.size(0), 16), 4], device=x.device)
    for t in hl.tile(x.size(0), block_size=16):
        logs, shares = torch.log_softmax(x[t, :], 1), torch.softmax(y[t, :], 1)
        out[t.id, 0] = F.kl_div(logs, shares, reduction="batchmean")
        out[t.id, 1] = F.cross_entropy(x[t, :], shares)
        out[t.id, 2] = F.cross_entropy(x[t, :], shares, label_smoothing=0.2)
        out[t.id, 3] = F.smooth_l1_loss(x[t, :], y[t, :]) + F.huber_loss(x[t, :], y[t, :]) + F.mse_loss(logs, shares)
    return out


def _losses_by_pytorch(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    rows = []
    for a, b in zip(x.split(16), y.split(16)):
        logs, shares = a.log_softmax(1), b.softmax(1)
        rows.append(
            [
                F.kl_div(logs, shares, reduction="batchmean"),
                F.cross_entropy(a, shares),
                F.cross_entropy(a, shares, label_smoothing=0.2),
                F.smooth_l1_loss(a, b) + F.huber_loss(a, b) + F.mse_loss(logs, shares),
            ]
        )
    return torch.tensor(rows, dtype=x.dtype)


@pytest.mark.parametrize("rows", [16, 21, 33])
def test_losses_of_a_partial_tile_are_means_over_its_elements(rows: int, seed: int) -> None:
    everywhere(losses_of_tiles, (torch.randn(rows, 5), torch.randn(rows, 5)), _losses_by_pytorch, error_scale=64)


def cross_entropies_of_shares(x: torch.Tensor, shares: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0), 4], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(0)):
        logits, target, w = x[t, :], shares[t, :], weight[:]
        out[t, 0] = F.cross_entropy(logits, target, reduction="none")
        out[t, 1] = F.cross_entropy(logits, target, weight=w, reduction="none")
        out[t, 2] = F.cross_entropy(logits, target, label_smoothing=0.25, reduction="none")
        out[t, 3] = F.cross_entropy(logits, target, weight=w, label_smoothing=0.5, reduction="none")
    return out


@pytest.mark.parametrize("rows", [16, 21])
def test_cross_entropy_of_probabilities_with_weights_and_smoothing(rows: int, seed: int) -> None:
    def by_pytorch(x: torch.Tensor, shares: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        options = {"target": shares, "reduction": "none"}
        return torch.stack(
            [
                F.cross_entropy(x, **options),
                F.cross_entropy(x, **options, weight=weight),
                F.cross_entropy(x, **options, label_smoothing=0.25),
                F.cross_entropy(x, **options, weight=weight, label_smoothing=0.5),
            ],
            1,
        )

    everywhere(cross_entropies_of_shares, (torch.randn(rows, 5), torch.rand(rows, 5), torch.rand(5)), by_pytorch)
