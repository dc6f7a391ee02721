"""Rows too long to hold: backward passes of norms take other kernels, and several programs a row find what one does."""

from __future__ import annotations

import pytest
import torch

import helion
from examples import layer_norm
from examples import long_rows
from examples import rms_norm
from examples import softmax
from examples.entry import in_double
from helion import exc
from tests.support import run_everywhere


@pytest.mark.parametrize("module", [rms_norm, layer_norm], ids=lambda module: module.__name__)
@pytest.mark.parametrize("longest", [0, 1 << 20])
def test_backward_is_right_for_rows_of_any_length(module, longest, monkeypatch):
    monkeypatch.setattr(module, "LONGEST", longest)
    torch.manual_seed(7)
    args = module.make_backward_args(37, 129)
    for actual, expected in zip(module.backward(*args), module.reference_backward(*in_double(args)), strict=True):
        torch.testing.assert_close(actual.double(), expected, rtol=2e-5, atol=2e-5)


def test_rows_twice_as_long_as_those_that_fit_are_loaded_twice(monkeypatch):
    monkeypatch.setattr(layer_norm, "LONGEST", 64)
    torch.manual_seed(8)
    args = layer_norm.make_backward_args(37, 128)
    for actual, expected in zip(
        layer_norm.backward(*args), layer_norm.reference_backward(*in_double(args)), strict=True
    ):
        torch.testing.assert_close(actual.double(), expected, rtol=2e-5, atol=2e-5)


#: Two whole parts of a row and a part of one.
_COLUMNS = 2 * 8192 + 77
_KERNELS = {
    "softmax": (long_rows.softmax_long, softmax),
    "rms_norm": (long_rows.rms_norm_long, rms_norm),
    "layer_norm": (long_rows.layer_norm_long, layer_norm),
}


@pytest.mark.parametrize("ahead", [1, 3, 7])
@pytest.mark.parametrize("name", _KERNELS)
def test_several_programs_find_what_one_does(name, ahead):
    kernel, module = _KERNELS[name]
    torch.manual_seed(9)
    args = module.make_args(5, _COLUMNS)
    run_everywhere(
        kernel, (*args, ahead), lambda *double: module.reference(*double[:-1]), configs=({"num_warps": 4},),
        error_scale=8.0, capabilities=(90,),
    )  # fmt: skip


def test_a_function_takes_the_kernel_for_the_length_of_its_rows(monkeypatch):
    torch.manual_seed(10)
    for longest in (0, 1 << 20):
        monkeypatch.setattr(long_rows, "LONGEST", longest)
        monkeypatch.setattr(long_rows, "AHEAD_BYTES", 3 * 300 * 4)
        x, weight, bias, eps = layer_norm.make_args(5, 300)
        pairs = [
            (long_rows.softmax_of_rows(x), softmax.reference(x.double())),
            (long_rows.rms_norm_of_rows(x, weight, eps), rms_norm.reference(x.double(), weight.double(), eps)),
            *zip(
                long_rows.layer_norm_of_rows(x, weight, bias, eps),
                layer_norm.reference(*in_double((x, weight, bias, eps))),
            ),
        ]
        for actual, expected in pairs:
            torch.testing.assert_close(actual.double(), expected, rtol=2e-5, atol=2e-5)


def test_programs_that_wait_keep_their_order():
    spec = long_rows.softmax_long.bind((torch.empty(4, 20000), 2)).config_spec
    for config in ({"loop_orders": [[1, 0]]}, {"l2_groupings": [4]}, {"pid_type": "persistent_interleaved"}):
        with pytest.raises(exc.InvalidConfig, match="expected one of"):
            spec.normalize(helion.Config(**config))
