"""A slice that begins at an int64 was declared as of int32: debug_dtype_asserts found it to be of int64."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor
from tests.programs.whole import whole


def kernel(x0: torch.Tensor, x1: torch.Tensor):
    n0 = x0.size(0)
    out0 = torch.zeros([n0, 11], dtype=torch.int64, device=x0.device)
    for t1 in hl.tile(n0):
        v1 = x1[1]
        out0[t1, v1 : v1 + 8] = x0[t1, v1 : v1 + 8] + v1
    return out0


def reference(x0, x1):
    n0 = x0.size(0)
    out0 = torch.zeros([n0, 11], dtype=torch.int64)
    for t1 in whole(0, n0):
        v1 = x1[1]
        out0[t1, int(v1) : int(v1) + 8] = x0[t1, int(v1) : int(v1) + 8] + v1
    return (out0,)


def arguments():
    return (
        tensor([3, 11], torch.int64, -100, 100, seed=504),
        tensor([3], torch.int64, 1, 3, seed=12),
    )


ERRORS = {"out0": 0.0}  # the largest error of each result; 0: equal
WRITTEN = []
CALLS = []
SETTINGS = {"debug_dtype_asserts": True}
CONFIG = {"block_sizes": [2]}
