"""A load of new dimensions only, with a mask that has elements."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor


def kernel(x2: torch.Tensor, x3: torch.Tensor, x8: torch.Tensor):
    n0 = 1
    n1 = x8.size(0)
    out0 = torch.zeros([n0, n1], dtype=torch.int8, device=x2.device)
    for i1 in hl.grid(n0):
        out0[i1, :] = hl.load(x8, [slice(None)], extra_mask=hl.load(x2, [None, -1], extra_mask=x3[:]))
    return out0


def reference(x2, x3, x8):
    n0 = 1
    n1 = x8.size(0)
    out0 = torch.zeros([n0, n1], dtype=torch.int8)
    for i1 in range(n0):
        out0[i1, :] = (torch.where((x3[:] & x2[None, -1]), x8[:], 0)).to(out0.dtype)
    return (out0,)


def arguments():
    return (
        tensor([3], torch.bool, 0, 1, seed=406),
        tensor([1], torch.bool, 0, 1, seed=402),
        tensor([1], torch.int32, 0, 9, seed=569),
    )


SETTINGS = {}
CONFIG = {}
WRITTEN = []
ERRORS = {"out0": 0.0}  # the largest error of each result; 0: equal
