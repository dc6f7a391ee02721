"""The place of a tile of one element was no tensor in a loop that Triton unrolls: with 64-bit indices a raw error."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor
from tests.programs.whole import whole


def kernel(x0: torch.Tensor):
    n0 = x0.size(0)
    n1 = x0.size(1)
    out0 = torch.zeros([n0, n1], dtype=torch.float32, device=x0.device)
    for i1 in hl.grid(n0):
        for k1 in hl.tile(n1):
            out0[i1, k1] = hl.full([k1], 1.0, dtype=torch.float32)
        for k2 in hl.tile(n1):
            out0[i1, k2] = x0[i1, k2]
    return out0


def reference(x0):
    n0 = x0.size(0)
    n1 = x0.size(1)
    out0 = torch.zeros([n0, n1], dtype=torch.float64)
    for i1 in range(n0):
        for k2 in whole(0, n1):
            out0[i1, k2] = x0[i1, k2].double()
    return (out0,)


def arguments():
    return (tensor([2, 3], torch.float32, 0, 6, seed=5),)


ERRORS = {"out0": 0.0}  # the largest error of each result; 0: equal
SETTINGS = {"index_dtype": torch.int64}
CONFIG = {"block_sizes": [1, 1], "static_ranges": [False, True]}
WRITTEN = []
CALLS = []
