"""Columns, and a loop over rows whose result nothing needs: the default Config asked for the stages of that loop."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor
from tests.programs.whole import whole


def kernel(x0: torch.Tensor):
    n0 = x0.size(0)
    n1 = x0.size(1)
    out0 = torch.empty([n1], dtype=torch.float32, device=x0.device)
    for t1 in hl.tile(n1):
        acc1 = hl.zeros([t1], dtype=torch.float32)
        for k1 in hl.tile(n0):
            acc1 = acc1 + x0[k1, t1].sum(0)
        out0[t1] = x0[0, t1] * 2
    return out0


def reference(x0):
    n1 = x0.size(1)
    out0 = torch.zeros([n1], dtype=torch.float64)
    for t1 in whole(0, n1):
        out0[t1] = x0[0, t1].double() * 2
    return (out0,)


def arguments():
    return (tensor([9, 33], torch.float32, -8, 8),)


ERRORS = {"out0": 0.0}  # the largest error of each result; 0: equal
WRITTEN = []
CALLS = []
SETTINGS = {}
CONFIG = {"block_sizes": [16, 16]}
