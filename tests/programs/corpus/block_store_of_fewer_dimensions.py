"""A value with fewer dimensions than the box that block pointers and descriptors store was a raw error of Triton's."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor
from tests.programs.whole import whole


def kernel(x0: torch.Tensor):
    n0 = x0.size(0)
    n1 = x0.size(1)
    out0 = torch.zeros([n0, n0, n1], dtype=torch.float32, device=x0.device)
    for t1, t2 in hl.tile([n0, n0]):
        out0[t2, t1, :] = x0[t1, :]
    return out0


def reference(x0):
    n0 = x0.size(0)
    n1 = x0.size(1)
    out0 = torch.zeros([n0, n0, n1], dtype=torch.float64)
    for t1 in whole(0, n0):
        for t2 in whole(0, n0):
            out0[t2, t1, :] = x0[t1, :].double()
    return (out0,)


def arguments():
    return (tensor([4, 16], torch.float32, -8, 8, seed=381),)


ERRORS = {"out0": 0.0}  # the largest error of each result; 0: equal
SETTINGS = {}
CONFIG = {"block_sizes": [4, 2], "indexing": ["pointer", "block_ptr"]}
WRITTEN = []
CALLS = []
