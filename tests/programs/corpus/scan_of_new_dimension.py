"""The only dimensions of a load are new ones: the scan found a scalar."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor


def kernel(x6: torch.Tensor):
    n0 = 1
    n2 = 1
    out1 = torch.zeros([n2, n0], dtype=torch.float32, device=x6.device)
    for i1 in hl.grid(n0):
        hl.store(out1, [slice(None), i1], torch.cummax(x6[None, -1], dim=0).values)
    return out1


def reference(x6):
    n0 = 1
    n2 = 1
    out1 = torch.zeros([n2, n0], dtype=torch.float64)
    for i1 in range(n0):
        out1[:, i1] = torch.cummax(x6[None, -1].double(), dim=0).values
    return (out1,)


def arguments():
    return (tensor([3], torch.float32, -20, 20, seed=739),)


SETTINGS = {}
CONFIG = {}
WRITTEN = []
ERRORS = {"out1": 0.0}  # the largest error of each result; 0: equal
