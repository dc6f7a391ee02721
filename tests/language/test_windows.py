"""Slices whose bounds are numbers of the kernel: in ref mode, in the tile executor and on the software GPU."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere


def test_a_slice_of_one_element_is_loaded_and_stored() -> None:
    def doubled(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out, flat = torch.empty_like(x), torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
        for i in hl.grid(x.size(0)):
            out[i : i + 1, :] = x[i : i + 1, :] * 2
            flat[i] = x[i : i + 1, 2]
        return out, flat

    run_everywhere(doubled, (torch.randn(5, 7),), lambda x: (x * 2, x[:, 2]), capabilities=[90])


def test_bounds_may_be_of_a_tile_and_lanes_past_the_tensor_read_zero() -> None:
    def pairs(x: torch.Tensor) -> torch.Tensor:
        m, n = x.size(0), helion.cdiv(x.size(1), 2)
        out = torch.empty([m, n], dtype=x.dtype, device=x.device)
        for tm, t in hl.tile([m, n]):
            both = x[tm, t.begin * 2 : t.begin * 2 + t.block_size * 2].reshape([tm, t.block_size, 2])
            out[tm, t] = both.sum(-1)
        return out

    x = torch.randn(6, 41)
    padded = torch.nn.functional.pad(x, (0, 1)).double()
    expected = padded.reshape(6, 21, 2).sum(-1)
    run_everywhere(pairs, (x,), lambda _: expected, configs=[{"block_sizes": [4, 8]}], capabilities=[90])


def test_bounds_may_be_loaded_and_the_product_of_two_slices_is_a_box() -> None:
    def boxes(x: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
        out = torch.zeros([corners.size(0), 2, 6], dtype=x.dtype, device=x.device)
        for i in hl.grid(corners.size(0)):
            row, column = corners[i, 0], corners[i, 1]
            out[i, :, :] = x[row - 1 : row + 1, column * 2 : 6 + column * 2]
        return out

    def expected(x: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
        padded = torch.nn.functional.pad(x, (0, 9, 0, 9))
        return torch.stack([padded[r - 1 : r + 1, 2 * c : 2 * c + 6] for r, c in corners.tolist()])

    x, corners = torch.randn(9, 20), torch.tensor([[1, 0], [4, 3], [8, 8]])
    run_everywhere(boxes, (x, corners), expected, capabilities=[90])


def test_a_slice_to_the_end_of_a_tile_is_the_tile() -> None:
    def halves(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tm, tn in hl.tile([x.size(0), x.size(1)]):
            out[tm, tn.begin : tn.end] = x[tm.begin : tm.end, tn] / 2
        return out

    run_everywhere(
        halves, (torch.randn(21, 13),), lambda x: x / 2, configs=[{"block_sizes": [8, 8]}], capabilities=[90]
    )


def test_tiles_of_one_block_size_keep_their_own_lanes() -> None:
    def transposed(x: torch.Tensor) -> torch.Tensor:
        block = hl.register_block_size(32)
        out = torch.empty([x.size(1), x.size(0)], dtype=x.dtype, device=x.device)
        for tm, tn in hl.tile([x.size(0), x.size(1)], block_size=[block, block]):
            part = x[tm.begin : tm.begin + tm.block_size, tn.begin : tn.begin + tn.block_size]
            out[tn, tm] = part.T
        return out

    run_everywhere(transposed, (torch.randn(21, 13),), lambda x: x.T, configs=[{"block_sizes": [8]}], capabilities=[90])


def test_slices_in_atomics_and_with_a_step() -> None:
    def scattered(x: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        out = torch.zeros([40], dtype=x.dtype, device=x.device)
        for i in hl.grid(starts.size(0)):
            start = starts[i]
            hl.atomic_add(out, [slice(start, start + 8, 2)], x[i, :])
        return out

    def expected(x: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(48, dtype=x.dtype)
        for row, start in zip(x, starts.tolist(), strict=True):
            out[start : start + 8 : 2] += row
        return out[:40]

    run_everywhere(
        scattered, (torch.randn(4, 4), torch.tensor([0, 3, 5, 37])), expected, capabilities=[90], error_scale=4
    )


@pytest.mark.parametrize("static", [True, False])
def test_bounds_may_be_arguments(static: bool) -> None:
    @helion.kernel(static_shapes=static)
    def part(x: torch.Tensor, begin: int) -> torch.Tensor:
        out = torch.empty([x.size(0), 4], dtype=x.dtype, device=x.device)
        for t in hl.tile(x.size(0)):
            out[t, :] = x[t, begin : begin + 4]
        return out

    x = torch.randn(10, 20)
    for begin in (0, 7):
        assert torch.equal(part(x, begin), x[:, begin : begin + 4])


def test_a_length_that_only_the_kernel_knows_is_refused() -> None:
    @helion.kernel
    def ragged(x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        out = torch.empty([ends.size(0)], dtype=x.dtype, device=x.device)
        for i in hl.grid(ends.size(0)):
            out[i] = x[: ends[i]].sum()
        return out

    with pytest.raises(exc.SizeNotConstant, match="the length of a slice"):
        ragged.bind((torch.randn(8), torch.tensor([2, 5])))


def test_a_slice_beside_index_tensors_of_rank_two_is_refused() -> None:
    @helion.kernel
    def mixed(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0), 4, 4], dtype=x.dtype, device=x.device)
        for i in hl.grid(x.size(0)):
            out[i, :, :] = x[index[:, :], i : i + 4]
        return out

    with pytest.raises(exc.InvalidAPIUsage, match="beside an index tensor"):
        mixed.bind((torch.randn(8, 12), torch.zeros(4, 4, dtype=torch.int32)))


# -- tiles that a loaded number moves


def moved(x: torch.Tensor, w: torch.Tensor, by: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    out, stored, added, product = (torch.zeros_like(x) for _ in range(4))
    for t0, t1 in hl.tile([x.size(0), x.size(1)]):
        for i in hl.grid(by.size(0)):
            out[t0, t1] = out[t0, t1] + x[t0 + by[i], t1 - by[i]] * hl.load(w, [t1 + by[i]], extra_mask=w[t1] > 0)
            hl.atomic_add(added, [t0 + (by[i] + i), t1], x[t0, t1])
        stored[t0 - by[0], t1] = x[t0, t1]
        product[t0, t1] = x[rows[t0], t1 + by[0]]
    return out, stored, added, product


def moved_plain(x: torch.Tensor, w: torch.Tensor, by: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    def at(x: torch.Tensor, *offsets: int) -> torch.Tensor:
        for dim, offset in enumerate(offsets):
            place = torch.arange(x.size(dim)) + int(offset)
            kept = (place >= 0) & (place < x.size(dim))
            shape = [-1 if d == dim else 1 for d in range(x.dim())]
            x = torch.where(kept.view(shape), x.index_select(dim, place.clamp(0, x.size(dim) - 1)), 0.0)
        return x

    offsets = [int(o) for o in by]
    out = sum(at(x, o, -o) * torch.where(w > 0, at(w, o), 0.0) for o in offsets)
    added = sum(at(x, -(o + i), 0) for i, o in enumerate(offsets))
    return out, at(x, offsets[0], 0), added, at(x[rows], 0, offsets[0])


def test_a_tile_that_a_loaded_number_moves_stays_inside_of_the_tensor() -> None:
    """It was an index tensor, and so read and wrote beside the tensor."""
    x, w, by, rows = torch.randn(13, 21), torch.randn(21), torch.tensor([-3, 40, 2]), torch.randperm(13)
    run_everywhere(
        moved,
        (x, w, by, rows),
        moved_plain,
        configs=[{"block_sizes": [4, 8]}],
        capabilities=[90],
        error_scale=8,
        reference_args=(x.double(), w.double(), by, rows),
    )


# -- bounds that are the host's numbers: PyTorch's rule, in which negative ones count from the end


def parts(x: torch.Tensor, n: int) -> tuple[torch.Tensor, ...]:
    rows = x.size(0)
    outs = [torch.empty([rows], dtype=x.dtype, device=x.device) for _ in range(6)]
    for t in hl.tile(rows):
        outs[0][t] = x[t, -n:].sum(1)
        outs[1][t] = x[t, n - 9 : n].mean(1)
        outs[2][t] = x[t, 0:n].mean(1)
        outs[3][t] = x[t, 2:50].mean(1)
        outs[4][t] = x[t, :-n].sum(1)
        outs[5][t] = x[t, -50:4].mean(1)
    return tuple(outs)


def parts_plain(x: torch.Tensor, n: int) -> tuple[torch.Tensor, ...]:
    slices = [x[:, -n:].sum(1), x[:, n - 9 : n].mean(1), x[:, 0:n].mean(1)]
    return *slices, x[:, 2:50].mean(1), x[:, :-n].sum(1), x[:, -50:4].mean(1)


@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize("n", [3, 11, 40])
def test_a_slice_by_the_numbers_of_a_call_is_pytorchs(n: int, static: bool) -> None:
    """Compiled, `x[:, -n:]` was the whole row after n zeros, and `x[:, 2:50]` had 48 elements where sizes vary."""
    run_everywhere(
        parts,
        (torch.randn(5, 21), n),
        parts_plain,
        configs=[{"block_sizes": [4]}],
        capabilities=[90],
        error_scale=16,
        static_shapes=static,
    )


def last_of_values(x: torch.Tensor, n: int) -> torch.Tensor:
    out = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(0)):
        out[t] = (x[t, :] + 1)[:, -n:].sum(1)
    return out


@pytest.mark.parametrize("n", [3, 40])
def test_so_is_one_of_a_device_value(n: int) -> None:
    args = (torch.randn(5, 21), n)
    run_everywhere(last_of_values, args, lambda x, n: (x + 1)[:, -n:].sum(1), capabilities=[90], error_scale=16)


def of_halos(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    tiles = helion.cdiv(x.size(0), 16)
    sums, most, halves = (torch.empty([tiles], dtype=x.dtype, device=x.device) for _ in range(3))
    copies = torch.zeros([tiles, 70], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(0), block_size=16):
        around = x[t.begin - 2 : t.begin + t.block_size + 2]
        sums[t.id] = around.sum()
        most[t.id] = x[t.begin - 16 : t.begin + 2 * t.block_size].amax()
        halves[t.id] = x[t.begin : t.begin + t.block_size // 2].sum()
        copies[t.id, t.begin : t.begin + t.block_size + 4] = around
    return sums, most, halves, copies


def test_slices_longer_and_shorter_than_a_tile_have_the_elements_of_theirs() -> None:
    """Compiled, 20 elements were the 32 lanes that they have; where the last tile ends early, modes differed."""

    def expected(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        padded = torch.nn.functional.pad(x, (16, 32))
        tiles = [(b, min(16, x.size(0) - b)) for b in range(0, x.size(0), 16)]
        around = [padded[b + 14 : b + 14 + n + 4] for b, n in tiles]
        copies = torch.zeros(len(tiles), 70, dtype=x.dtype)
        for row, (b, n), part in zip(copies, tiles, around, strict=True):
            row[b : b + n + 4] = part
        return (
            torch.stack([part.sum() for part in around]),
            torch.stack([padded[b : b + 2 * n + 16].amax() for b, n in tiles]),
            torch.stack([x[b : b + n // 2].sum() for b, n in tiles]),
            copies,
        )

    run_everywhere(of_halos, (-torch.rand(37) - 1,), expected)


def parts_of_halos(x: torch.Tensor, length: hl.constexpr) -> torch.Tensor:
    out = torch.empty_like(x)
    for r, t in hl.tile([x.size(0), x.size(1)], block_size=[4, 16]):
        halo = x[r, t.begin - 2 : t.begin + (t.block_size + 2 if length is None else length)]
        out[r, t] = halo[:, 0:16] + halo[:, 4:20]
    return out


def test_parts_of_a_slice_as_long_as_a_tile_are_refused_and_the_advice_works() -> None:
    x = torch.randn(3, 37)
    for ref_mode in (helion.RefMode.OFF, helion.RefMode.EAGER):
        with pytest.raises(exc.InvalidAPIUsage, match="no part can be taken") as error:
            helion.kernel(parts_of_halos, ref_mode=ref_mode)(x, None)
        assert "`x[tile.begin - 2 : tile.begin + 18]`" in str(error.value)
    pad = torch.nn.functional.pad
    run_everywhere(parts_of_halos, (x, 18), lambda x, _: pad(x, (2, 0))[:, :37] + pad(x, (0, 2))[:, 2:])


def unpacked(x: torch.Tensor, p: torch.Tensor, literal: hl.constexpr) -> torch.Tensor:
    out = torch.empty([x.size(0), p.size(0)], dtype=torch.float32, device=x.device)
    for tm, tn in hl.tile(out.shape, block_size=[16, 16]):
        acc = hl.zeros([tm, tn])
        for tk in hl.tile(p.size(1), block_size=8):
            w = torch.stack([p[tn, tk] & 15, p[tn, tk] >> 4], -1).reshape(tn, tk.block_size * 2 if literal != 0 else 16)
            row = x[tm, tk.begin * 2 : tk.begin * 2 + (tk.block_size * 2 if literal != 1 else 16)]
            acc = hl.dot(row, w.to(x.dtype).T, acc)
        out[tm, tn] = acc
    return out


def test_numbers_for_the_length_of_a_tile_are_named_with_what_to_write() -> None:
    x, p = torch.randint(-3, 4, (5, 40)).half(), torch.randint(0, 256, (9, 20), dtype=torch.uint8)
    for literal in (0, 1):
        with pytest.raises(exc.BaseError, match=r"tk\.block_size \* 2"):
            helion.kernel(unpacked)(x, p, literal)
    run_everywhere(
        unpacked,
        (x, p, 2),
        lambda x, p, _: x @ torch.stack([p & 15, p.int() >> 4], -1).flatten(1).double().T,
        reference_args=(x.double(), p.int(), 2),
        capabilities=[90],
        error_scale=0,
    )


def test_a_bound_beyond_the_largest_number_of_its_dtype() -> None:
    def windows(x: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        out = torch.empty([starts.size(0), 11], dtype=x.dtype, device=x.device)
        for i in hl.grid(starts.size(0)):
            s = starts[i]
            out[i, :] = x[s : s + 11]
        return out

    def expected(x: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[s : s + 11] for s in map(int, starts)])

    starts = torch.tensor([0, 120, 127], dtype=torch.int8)
    run_everywhere(windows, (torch.randn(400), starts), expected, configs=[{}], capabilities=[90])
