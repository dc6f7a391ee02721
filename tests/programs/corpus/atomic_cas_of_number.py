"""Compare-and-swap with a number: Triton broadcasts the operands of every other atomic."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor


def kernel(x0: torch.Tensor, x1: torch.Tensor):
    n0 = x0.size(0)
    out0 = torch.zeros([n0, n0], dtype=torch.float32, device=x0.device)
    for t1, t2 in hl.tile([n0, n0]):
        out0[t1, t2] = hl.atomic_cas(x0, [t1, t2], 1, x1[t2])
        hl.atomic_cas(x0, [t1, t2], out0[t1, t2], 3)
    return out0


def reference(x0, x1):
    before = x0.double()
    return (before, torch.where(before == 1, torch.where(x1 == 1, 3.0, x1.double()), 3.0))


def arguments():
    return (
        tensor([4, 4], torch.float32, 0, 2, seed=141),
        tensor([4], torch.float32, 0, 2, seed=142),
    )


SETTINGS = {}
CONFIG = {"block_sizes": [2, 4]}
WRITTEN = ["x0"]
ERRORS = {"out0": 0.0, "x0": 0.0}
