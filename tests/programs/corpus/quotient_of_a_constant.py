"""A constant divided by one number a row: Triton computed one element in four at a time, and failed."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor
from tests.programs.whole import whole


def kernel(x0: torch.Tensor, x1: torch.Tensor):
    n0 = x1.size(0)
    out0 = torch.zeros([n0, n0], dtype=torch.float32, device=x0.device)
    out1 = torch.zeros([n0, n0], dtype=torch.float32, device=x0.device)
    for t1, t2 in hl.tile([n0, n0]):
        out0[t1, t2] = torch.full([t1, t2], 3, dtype=torch.int16) / x0[:, :]
        out1[t1, t2] = (x0[:, :].expand(t1, t2) * 2.0) / x0[:, :]
    return out0, out1


def reference(x0, x1):
    n0 = x1.size(0)
    out0 = torch.zeros([n0, n0], dtype=torch.float64)
    out1 = torch.zeros([n0, n0], dtype=torch.float64)
    for t1 in whole(0, n0):
        for t2 in whole(0, n0):
            out0[t1, t2] = 3 / x0.double()
            out1[t1, t2] = 2
    return out0, out1


def arguments():
    return (tensor([1, 1], torch.float32, 4, 4), tensor([9], torch.float32, 0, 1))


ERRORS = {"out0": 0.0, "out1": 0.0}  # the largest error of each result; 0: equal
WRITTEN = []
CALLS = []
SETTINGS = {}
CONFIG = {"block_sizes": [16, 4]}
