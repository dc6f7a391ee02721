"""The only dimensions of a load are new ones: the sort found a scalar."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor
from tests.programs.whole import whole


def kernel(x4: torch.Tensor):
    n0 = 1
    out0 = torch.zeros([n0], dtype=torch.bfloat16, device=x4.device)
    for t1 in hl.tile(n0):
        out0[t1] = torch.sort(x4[None, 2], dim=0).values
    return out0


def reference(x4):
    n0 = 1
    out0 = torch.zeros([n0], dtype=torch.float64)
    for t1 in whole(0, n0):
        out0[t1] = torch.sort(x4[None, 2].double(), dim=0).values
    return (out0,)


def arguments():
    return (tensor([3], torch.float32, 1, 8, seed=283),)


SETTINGS = {}
CONFIG = {"block_sizes": [4]}
WRITTEN = []
ERRORS = {"out0": 0.0}  # the largest error of each result; 0: equal
