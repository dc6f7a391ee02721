"""The op sweep: no op gives a wrong result or an error that is not ours, and most of them work."""

from __future__ import annotations

import warnings

import pytest
import torch

pytest.importorskip("expecttest", reason="torch.testing._internal needs it")

from op_sweep import RUNNERS
from op_sweep import candidates
from op_sweep import report
from op_sweep import sweep_op

_PARTS = 8
#: dtype -> how many ops have to pass in all parts together.
_AT_LEAST = {torch.float32: 320, torch.int64: 240}


@pytest.mark.parametrize("part", range(_PARTS))
@pytest.mark.parametrize("dtype", _AT_LEAST, ids=str)
def test_torch_ops_in_the_tile_executor(dtype, part, capsys):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's samples use deprecated functions
        outcomes = [sweep_op(info, dtype, 1, RUNNERS["tiles"]) for info in candidates(dtype)[part::_PARTS]]
    print(report(outcomes))
    failures = [o for o in outcomes if o.status == "failed"]
    assert not failures, report(failures)
    assert sum(o.status == "pass" for o in outcomes) >= _AT_LEAST[dtype] // _PARTS - 5
