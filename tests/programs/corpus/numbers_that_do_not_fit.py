"""An int argument beyond int32 has its low bits, and so has a float as uint8, as in PyTorch."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor


def kernel(x0: torch.Tensor, x1: torch.Tensor, s0: int):
    n0 = x0.size(0)
    out0 = torch.empty([n0], dtype=torch.int32, device=x0.device)
    out1 = torch.empty([n0], dtype=torch.bool, device=x0.device)
    out2 = torch.empty([n0], dtype=torch.uint8, device=x0.device)
    out3 = torch.empty([n0], dtype=torch.uint8, device=x0.device)
    for t1 in hl.tile(n0):
        out0[t1] = x0[t1] // s0 + torch.clamp(x0[t1], max=3)
        out1[t1] = (x0[t1] + s0) > 7
        out2[t1] = x1[t1].to(torch.uint8)
        out3[t1] = (x0[t1].to(torch.uint8) & s0) // s0
    return out0, out1, out2, out3


def reference(x0, x1, s0):
    low = torch.tensor(s0).to(torch.int32)
    return (
        x0 // low + x0.clamp(max=3),
        x0 + low > 7,
        x1.to(torch.int64).to(torch.uint8),
        (x0.to(torch.uint8) & 3) // 3,
    )


def arguments():
    return (
        tensor([33], torch.int32, -20, 20, seed=1),
        tensor([33], torch.float32, -900, 900, step=0.75, seed=2),
        2**32 + 3,
    )


SETTINGS = {"debug_dtype_asserts": True}
CONFIG = {"block_sizes": [8]}
WRITTEN = []
ERRORS = {"out0": 0, "out1": 0, "out2": 0, "out3": 0}
