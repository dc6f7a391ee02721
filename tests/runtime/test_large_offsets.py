"""Offsets past 2^31 elements, in every mode. The memory is a file with holes: only what is touched is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from tests import softgpu as gpu

FAR = 1 << 31
SIZE = FAR + 4096


@pytest.fixture
def memory(tmp_path: Path) -> torch.Tensor:
    """SIZE bytes, random within 4096 of the begin and around FAR."""
    file = tmp_path / "sparse"
    made = torch.from_file(str(file), shared=True, size=SIZE, dtype=torch.int8)
    file.unlink()
    for begin in (0, FAR - 256):
        made[begin : begin + 4096] = torch.randint(0, 100, (4096,), dtype=torch.int8)
    return made


def plus_one(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0), x.size(1)], dtype=x.dtype, device=x.device)
    for tile in hl.tile([x.size(0), x.size(1)]):
        out[tile] = x[tile] + 1
    return out


def store(x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    for tile in hl.tile([x.size(0), x.size(1)]):
        x[tile] = values[tile]
    return x


def gather(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    out = torch.empty([places.size(0)], dtype=x.dtype, device=x.device)
    for tile in hl.tile(places.size(0)):
        out[tile] = x[places[tile]]
    return out


def part(x: torch.Tensor, begin: int) -> torch.Tensor:
    out = torch.empty([1024], dtype=x.dtype, device=x.device)
    for tile in hl.tile(begin, begin + 1024):
        out[tile.index - begin] = x[tile]
    return out


def part_of_row(x: torch.Tensor, begin: int) -> torch.Tensor:
    out = torch.empty([1024], dtype=x.dtype, device=x.device)
    for tile in hl.tile(1024):
        out[tile] = x[tile.index + (begin + 16)]
    return out


PLACES = torch.tensor([0, 7, FAR - 3, FAR, FAR + 1000])
BEGIN = FAR - 16
#: name -> kernel function, arguments from the memory, what comes out, block sizes.
CASES: dict[str, tuple[Any, Callable[[torch.Tensor], Any], Callable[..., torch.Tensor], list[int]]] = {
    "load": (plus_one, lambda m: (m.as_strided((2, 256), (FAR, 1)),), lambda x: x + 1, [2, 64]),
    "store": (
        store,
        lambda m: (m.as_strided((2, 256), (FAR, 1)), torch.randint(0, 100, (2, 256), dtype=torch.int8)),
        lambda x, values: values,
        [2, 64],
    ),
    "gather": (gather, lambda m: (m, PLACES), lambda x, places: x[places], [64]),
    "begin of a loop": (part, lambda m: (m, BEGIN), lambda x, begin: x[begin : begin + 1024], [64]),
    "added to an index": (part_of_row, lambda m: (m, BEGIN), lambda x, begin: x[begin + 16 :][:1024], [64]),
}


def check(name: str, memory: torch.Tensor, static_shapes: bool, **options: Any) -> None:
    function, make, reference, blocks = CASES[name]
    config, settings = helion.Config(block_sizes=blocks, **options.pop("config", {})), options
    kernel = helion.kernel(function, config=config, static_shapes=static_shapes, **settings)
    args = make(memory)
    expected = reference(*args).clone()
    assert torch.equal(kernel(*args), expected)


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("static_shapes", [True, False])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mode", ["tiles", "ref"])
def test_offsets_that_need_64_bits_on_the_cpu(mode: str, name: str, static_shapes: bool, memory: torch.Tensor) -> None:
    ref = {"ref_mode": helion.RefMode.EAGER} if mode == "ref" else {}
    check(name, memory, static_shapes, **ref)


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90, software_only=True)
@pytest.mark.usefixtures("seed", "softgpu")
@pytest.mark.parametrize("static_shapes", [True, False])
@pytest.mark.parametrize(
    ("name", "indexing"),
    [
        *[(name, "pointer") for name in CASES],
        *[(n, i) for n in ("load", "store") for i in ("block_ptr", "tensor_descriptor")],
    ],
)
def test_offsets_that_need_64_bits_in_generated_code(
    name: str, indexing: str, static_shapes: bool, memory: torch.Tensor
) -> None:
    gpu.share(memory)
    check(name, memory, static_shapes, config={"indexing": indexing})
