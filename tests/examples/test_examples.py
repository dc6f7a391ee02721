"""Every example, against PyTorch in float64."""

from __future__ import annotations

import pytest
import torch

from examples.catalog import EXAMPLES
from examples.catalog import Example
from tests.support import run_everywhere

every_example = pytest.mark.parametrize("example", EXAMPLES.values(), ids=lambda e: e.name)


def run(example: Example, args, dtype: torch.dtype, **options) -> None:
    run_everywhere(
        example.kernel,
        args,
        example.reference,
        error_scale=example.error_scale,
        input_dtype=dtype,
        uses_dot=example.uses_dot,
        **options,
    )


@every_example
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_example_matches_pytorch(example: Example, dtype: torch.dtype, seed: int) -> None:
    run(example, example.args(dtype=dtype), dtype)
