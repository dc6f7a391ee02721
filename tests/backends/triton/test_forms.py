"""A dimension of one changes neither the result nor the machine code: every form of a kernel is the same kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from benchmarks.forms import FAMILIES
from benchmarks.forms import FORMS
from benchmarks.forms import Form
from benchmarks.forms import config_of
from benchmarks.sass import statistics
from helion.ir.squeezing import drop_unit_dims
from helion.target import Target
from tests.support import compile_for
from tests.support import run_everywhere

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

#: Sizes at which the machine code of forms is compared.
COMPARED = {"attention": (2, 512, 64), "matmul": (1024, 4096, 1024), "norm": (64, 4096)}
#: Instructions may differ by this part.
ALIKE = 0.03


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_form_is_right(form: Form, seed: int) -> None:
    family = FAMILIES[form.family]
    args = family.make_args(family.small, torch.float16, "cpu")
    blocks = [*[1] * form.blocks, *[16] * len(family.block_sizes)]
    run_everywhere(
        form.kernel, args, family.reference, configs=[{"block_sizes": blocks}], error_scale=4, capabilities=(90,)
    )


@pytest.mark.compiles
@pytest.mark.parametrize("family", FAMILIES)
def test_forms_compile_to_as_many_instructions(family: str) -> None:
    counts = {}
    args = FAMILIES[family].make_args(COMPARED[family], torch.float16, "cpu")
    for form in FORMS.values():
        if form.family == family:
            ((stages,),) = compile_for(form.kernel, args, config_of(form), (90,))
            counts[form.name] = statistics(stages["cubin"]).instructions
    assert max(counts.values()) <= min(counts.values()) * (1 + ALIKE), counts


@pytest.mark.parametrize("family", FAMILIES)
def test_forms_have_one_default(family: str) -> None:
    """The computed Config, less the block sizes of dimensions that other forms do not have."""
    args = FAMILIES[family].make_args(FAMILIES[family].size, torch.float16, "cpu")
    found = set()
    for form in FORMS.values():
        if form.family == family:
            config = form.kernel.bind(args).backend(Target("nvidia", 90)).spec.default_config()
            sizes = tuple(size for size in config.get("block_sizes", ()) if size > 1)
            found.add((sizes, config["num_warps"], config["num_stages"]))
    assert len(found) == 1, found


def gathered(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    out = torch.empty([rows.size(0), x.size(1)], device=x.device)
    for tile, columns in hl.tile(out.shape):
        out[tile, columns] = x[rows[tile], columns]
    return out


def gathered_twice(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    width = hl.specialize(x.size(1))
    out = torch.empty([rows.size(0), width], device=x.device)
    for tile in hl.tile(rows.size(0)):
        out[tile, :] = x[rows[tile][:, None], hl.arange(width)[None, :]]
    return out


def moved(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile, columns in hl.tile(x.shape):
        out[tile, columns] = x[tile, columns] + x[tile - 2, columns] + tile.index[:, None]
    return out


def counted(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros([x.size(0)], device=x.device)
    for tile, columns in hl.tile(x.shape):
        hl.atomic_add(out, [tile], x[tile, columns].sum(1))
    return out


def placed(x: torch.Tensor) -> torch.Tensor:
    """Reductions over the dimension itself, by value and by place."""
    out = torch.empty_like(x)
    for tile, columns in hl.tile(x.shape, block_size=[1, None]):
        values = x[tile, columns]
        best = values.argmax(0).to(torch.float32) + values.amax(0)
        out[tile, columns] = values + best + values.sum(0, keepdim=True)
    return out


def carried(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0)], device=x.device)
    for tile in hl.tile(x.size(0)):
        largest, total = hl.full([tile, 1], float("-inf")), hl.zeros([tile, 1])
        for columns in hl.tile(x.size(1)):
            values = x[tile, columns]
            grown = torch.maximum(largest, values.amax(1, keepdim=True))
            total = total * torch.exp(largest - grown) + torch.exp(values - grown).sum(1, keepdim=True)
            largest = grown
        out[tile] = (largest + torch.log(total)).squeeze(1)
    return out


def chosen(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile, columns in hl.tile(x.shape, block_size=[1, None]):
        values = x[tile, columns]
        if tile.begin % 2 == 0:
            values = values * 2
        else:
            values = (values.sum(0)[None, :] + 1).expand(tile, columns)
        out[tile, columns] = values
    return out


def scanned(x: torch.Tensor) -> torch.Tensor:
    """An op that keeps its dimensions."""
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile, :] = torch.cumsum(x[tile, :], 1) + x[tile, :].sum(1)[:, None]
    return out


def _odd_rows(x: torch.Tensor) -> torch.Tensor:
    even = torch.arange(x.size(0))[:, None] % 2 == 0
    return torch.where(even, x * 2, x + 1)


def _shifted(x: torch.Tensor) -> torch.Tensor:
    before = torch.cat([torch.zeros_like(x[:2]), x[:-2]])
    return x + before + torch.arange(x.size(0))[:, None]


ROWS = torch.tensor([3, 0, 6, 6, 1])
#: Kernel -> (its other arguments, its reference, block sizes).
PROGRAMS: dict[Callable[..., Any], tuple[tuple[torch.Tensor, ...], Callable[..., torch.Tensor], list[int]]] = {
    gathered: ((ROWS,), lambda x, rows: x[rows.long()], [1, 16]),
    gathered_twice: ((ROWS,), lambda x, rows: x[rows.long()], [1]),
    moved: ((), _shifted, [1, 16]),
    counted: ((), lambda x: x.sum(1), [1, 64]),
    placed: ((), lambda x: x * 3, [16]),
    carried: ((), lambda x: torch.logsumexp(x, 1), [1, 16]),
    chosen: ((), _odd_rows, [16]),
    scanned: ((), lambda x: x.cumsum(1) + x.sum(1, keepdim=True), [1]),
}


@pytest.mark.parametrize("kernel", PROGRAMS, ids=lambda kernel: kernel.__name__)
@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
def test_tiles_of_one_row_are_rows(kernel: Callable[..., Any], static: bool, seed: int) -> None:
    others, reference, blocks = PROGRAMS[kernel]
    args = (torch.randn(7, 45), *others)
    found = helion.kernel(kernel, static_shapes=static)
    run_everywhere(found, args, reference, configs=[{"block_sizes": blocks}], error_scale=50, capabilities=(80,))


@pytest.mark.parametrize("kernel", [gathered, counted, placed, carried, chosen], ids=lambda kernel: kernel.__name__)
def test_no_value_has_the_dimension(kernel: Callable[..., Any]) -> None:
    others, _, blocks = PROGRAMS[kernel]
    text = helion.kernel(kernel).bind((torch.randn(7, 45), *others)).to_triton_code({"block_sizes": blocks})
    assert "BLOCK_TILE" not in text and "index_tile" not in text


def test_several_dimensions_of_a_batch(seed: int) -> None:
    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        out = torch.empty([*a.shape[:-1], b.size(-1)], device=a.device)
        for first, second, rows in hl.tile([a.size(0), a.size(1), a.size(2)]):
            out[first, second, rows, :] = a[first, second, rows, :] @ b[second, :, :]
        return out

    args = (torch.randn(3, 4, 20, 32) / 6, torch.randn(4, 32, 16))
    configs = [{"block_sizes": sizes} for sizes in ([1, 1, 16], [2, 1, 16], [2, 4, 16])]
    run_everywhere(product, args, torch.matmul, configs=configs, uses_dot=True, error_scale=8, capabilities=(90,))


def test_an_ir_without_such_dimensions_is_the_same() -> None:
    bound = FORMS["matmul_of_matrices"].kernel.bind((torch.randn(64, 64), torch.randn(64, 64)))
    device = bound.ir.device
    assert drop_unit_dims(device) is device


#: Products of [b, m, k] and [b, k, n], in words of PyTorch's.
PRODUCTS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "bmm": torch.bmm,
    "@": lambda a, b: a @ b,
    "matmul": torch.matmul,
    "einsum": lambda a, b: torch.einsum("bmk,bkn->bmn", a, b),
    "turned einsum": lambda a, b: torch.einsum("bmk,bkn->mnb", a, b).permute(2, 0, 1),
    "more dimensions": lambda a, b: torch.matmul(a[:, None], b[:, None]).squeeze(1),
    "hl.dot": lambda a, b: hl.dot(a, b, out_dtype=a.dtype),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_product_of_one_matrix_is_one_of_matrices(name: str, seed: int) -> None:
    multiply = PRODUCTS[name]

    def product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0), x.size(1), y.size(2)], dtype=x.dtype, device=x.device)
        for batch, rows, columns in hl.tile(out.shape):
            acc = hl.zeros([batch, rows, columns])
            for inner in hl.tile(x.size(2)):
                acc += multiply(x[batch, rows, inner], y[batch, inner, columns])
            out[batch, rows, columns] = acc
        return out

    args = ((torch.randn(3, 40, 50) / 8).half(), torch.randn(3, 50, 36).half())
    config = {"block_sizes": [1, 16, 16, 16]}
    text = helion.kernel(product).bind(args).to_triton_code(config)
    (line,) = [line for line in text.splitlines() if "tl.dot(" in line]
    assert "tl.dot(load, " in line and "BLOCK_BATCH" not in text
    run_everywhere(product, args, torch.bmm, configs=[config], error_scale=8, capabilities=(90,))
