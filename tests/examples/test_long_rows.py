"""Backward passes of norms over rows too long to hold take other kernels, and give the same."""

from __future__ import annotations

import pytest
import torch

from examples import layer_norm
from examples import rms_norm
from examples.entry import in_double


@pytest.mark.parametrize("module", [rms_norm, layer_norm], ids=lambda module: module.__name__)
@pytest.mark.parametrize("longest", [0, 1 << 20])
def test_backward_is_right_for_rows_of_any_length(module, longest, monkeypatch):
    monkeypatch.setattr(module, "LONGEST", longest)
    torch.manual_seed(7)
    args = module.make_backward_args(37, 129)
    for actual, expected in zip(module.backward(*args), module.reference_backward(*in_double(args)), strict=True):
        torch.testing.assert_close(actual.double(), expected, rtol=2e-5, atol=2e-5)
