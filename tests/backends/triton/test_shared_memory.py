"""What searches leave out for want of shared memory is what Triton's binary asks too much for, and no more."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from examples.catalog import EXAMPLES
from helion.backends.triton.candidate import compiled_binary
from helion.backends.triton.targets import features_of
from helion.config import Config
from helion.cross_compile import record_launches
from helion.target import Target

pytestmark = pytest.mark.compiles

_ATTENTION = {"num_warps": 4, "block_sizes": [64, 128]}


@pytest.mark.parametrize(
    ("kernel", "arch", "change", "fits"),
    [
        # wgmma reads a tile from shared memory while all other stages are loaded, mma has it in registers by then.
        ("matmul", 90, {"block_sizes": [128, 256, 64], "num_warps": 8, "num_stages": 4}, True),
        ("matmul", 90, {"block_sizes": [128, 256, 64], "num_warps": 8, "num_stages": 5}, False),
        ("matmul", 90, {"block_sizes": [32, 256, 128], "num_stages": 4}, True),
        ("matmul", 90, {"block_sizes": [32, 256, 128], "num_stages": 5}, False),
        ("matmul", 80, {"block_sizes": [128, 128, 64], "num_warps": 8, "num_stages": 6}, True),
        ("matmul", 80, {"block_sizes": [128, 128, 64], "num_warps": 8, "num_stages": 7}, False),
        # An unrolled body loads each of its iterations.
        ("matmul", 90, {"block_sizes": [64, 64, 64], "num_stages": 4, "range_unroll_factors": [0, 3]}, True),
        ("matmul", 90, {"block_sizes": [64, 64, 64], "num_stages": 5, "range_unroll_factors": [0, 3]}, False),
        ("matmul", 90, {"block_sizes": [64, 64, 64], "num_stages": 8, "range_num_stages": [0, 3]}, True),
        # What is unrolled completely is loaded ahead by the loop over the tiles.
        ("matmul", 90, {"block_sizes": [16, 16, 1024], "static_ranges": [True], "num_stages": 2}, True),
        (
            "matmul",
            90,
            {
                "block_sizes": [16, 16, 1024],
                "static_ranges": [True],
                "num_stages": 2,
                "pid_type": "persistent_blocked",
            },
            False,
        ),
        # A finished tile leaves by the tensor memory accelerator beside those that come.
        (
            "matmul",
            90,
            {"block_sizes": [128, 256, 64], "num_warps": 8, "num_stages": 4, "indexing": "tensor_descriptor"},
            True,
        ),
        (
            "matmul",
            90,
            {
                "block_sizes": [128, 256, 64],
                "num_warps": 8,
                "num_stages": 4,
                "indexing": "tensor_descriptor",
                "pid_type": "persistent_blocked",
            },
            False,
        ),
        # The queries lie beside the keys and values that are loaded ahead.
        ("attention", 90, {**_ATTENTION, "num_stages": 6}, True),
        ("attention", 90, {**_ATTENTION, "num_stages": 7}, False),
    ],
)
def test_searches_leave_out_what_needs_more_shared_memory_than_there_is(
    kernel: str, arch: int, change: dict[str, Any], fits: bool
) -> None:
    example, target = EXAMPLES[kernel], Target("nvidia", arch)
    size = (4096, 4096, 4096) if kernel == "matmul" else (1, 2, 1024, 1024, 64)
    args = example.args(size, dtype=torch.bfloat16, device="meta")
    bound = example.kernel.bind(args)
    spec = bound.backend(target).spec
    config = spec.normalize(Config(**{"num_warps": 4, **change}))
    (launch,) = record_launches(bound.generated_source(config, target), bound.kernel.normalize_args(*args))
    assert (compiled_binary(launch, target).shared <= features_of(target).shared_bytes) is fits
    assert any("shared memory" in (check(dict(config)) or "") for check in spec.unpromising) is not fits
