"""The index of a grid that Triton unrolls, where indices are int64: to Triton it is a number without a dtype."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor
from tests.programs.whole import whole


def kernel(x14: torch.Tensor):
    n0 = 1
    n1 = 1
    n4 = 1
    n5 = x14.size(0)
    block0 = hl.register_block_size(n5)
    out1 = torch.zeros([n0], dtype=torch.float32, device=x14.device)
    out2 = torch.zeros([n0, n1, n4], dtype=torch.float32, device=x14.device)
    for i1 in hl.grid(n0):
        out1[i1] = hl.full([], 1.0, dtype=torch.float32)
        for i2 in hl.grid(n1):
            for k4 in hl.tile(n4):
                out2[i1, i2, k4] = hl.full([k4], 1.0, dtype=torch.float32)
            acc5 = hl.full([], -1.0, dtype=torch.float32)
            for k6 in hl.tile(n5, block_size=block0):
                acc5 = torch.maximum(acc5, x14[k6].amax(0))
    return out1, out2


def reference(x14):
    n0 = 1
    n1 = 1
    n4 = 1
    n5 = x14.size(0)
    out1 = torch.zeros([n0], dtype=torch.float64)
    out2 = torch.zeros([n0, n1, n4], dtype=torch.float64)
    for i1 in range(n0):
        out1[i1] = torch.full([], 1.0, dtype=torch.float64)
        for i2 in range(n1):
            for k4 in whole(0, n4):
                out2[i1, i2, k4] = torch.full([k4.stop - k4.start], 1.0, dtype=torch.float64)
            acc5 = torch.full([], -1.0, dtype=torch.float64)
            for k6 in whole(0, n5):
                acc5 = torch.maximum(acc5, x14[k6].double().amax(0))
    return (
        out1,
        out2,
    )


def arguments():
    return (tensor([2], torch.float32, -8, 8, seed=551),)


ERRORS = {"out1": 0.0, "out2": 0.0}  # the largest error of each result; 0: equal


def reference_1(x14):
    n0 = 1
    n1 = 1
    n4 = 1
    n5 = x14.size(0)
    out1 = torch.zeros([n0], dtype=torch.float64)
    out2 = torch.zeros([n0, n1, n4], dtype=torch.float64)
    for i1 in range(n0):
        out1[i1] = torch.full([], 1.0, dtype=torch.float64)
        for i2 in range(n1):
            for k4 in whole(0, n4):
                out2[i1, i2, k4] = torch.full([k4.stop - k4.start], 1.0, dtype=torch.float64)
            acc5 = torch.full([], -1.0, dtype=torch.float64)
            for k6 in whole(0, n5):
                acc5 = torch.maximum(acc5, x14[k6].double().amax(0))
    return (
        out1,
        out2,
    )


def arguments_1():
    return (tensor([2], torch.float32, -8, 8, seed=551),)


ERRORS_1 = {"out1": 0.0, "out2": 0.0}  # the largest error of each result; 0: equal
SETTINGS = {"index_dtype": torch.int64}
CONFIG = {"block_sizes": [2, 4], "static_ranges": [True, False]}
WRITTEN = []
CALLS = [(arguments_1, reference_1, ERRORS_1)]
