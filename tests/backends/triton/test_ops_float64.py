"""float64 on a GPU: operands of products that were loaded narrower."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from tests.support import run_everywhere

pytestmark = pytest.mark.compiles


def product(x, y):
    out = torch.empty([x.size(0), y.size(1)], dtype=torch.float64, device=x.device)
    for rows, columns in hl.tile([x.size(0), y.size(1)]):
        acc = hl.zeros([rows, columns], dtype=torch.float64)
        for k in hl.tile(x.size(1)):
            acc = torch.addmm(acc, x[rows, k].to(torch.float64), y[k, columns].to(torch.float64))
        out[rows, columns] = acc
    return out


@pytest.mark.parametrize("right", [torch.int8, torch.float64])
@pytest.mark.parametrize("left", [torch.float16, torch.bfloat16, torch.float32])
def test_product_of_operands_that_were_loaded_narrower(left: torch.dtype, right: torch.dtype) -> None:
    x, y = torch.randint(-4, 5, (20, 40)).to(left), torch.randint(-4, 5, (40, 24)).to(right)
    run_everywhere(
        helion.kernel(product),
        (x, y),
        lambda a, b: a.double() @ b.double(),
        configs=[helion.Config(block_sizes=[16, 16, 16])],
    )
