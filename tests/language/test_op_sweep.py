"""The op sweep: no op gives a wrong result or an error that is not ours, and most of them work."""

from __future__ import annotations

import warnings
from collections import Counter

import pytest
import torch

from tests.sweep_summary import SUMMARY

#: Runner, dtype, in how many parts, how many of these are in the suite, and how many ops of all have to pass.
#: What runs on the software GPU is compiled first, which takes longer than all else.  All parts run with `make sweep`.
SWEEPS = [
    ("tiles", torch.float32, 8, 1, 440),
    ("tiles", torch.bfloat16, 8, 1, 400),
    ("tiles", torch.int64, 8, 1, 336),
    ("gpu", torch.float32, 16, 1, 440),
    ("gpu", torch.int32, 32, 1, 416),
    ("gpu", torch.float16, 32, 1, 512),
    ("ref", torch.float32, 16, 1, 576),
]
PARTS = [
    pytest.param(
        *(runner, dtype, i, parts, total // parts - 6),
        id=f"{runner}-{dtype}-{i}",
        marks=[
            pytest.mark.compiles if runner == "gpu" else pytest.mark.slow,
            *([pytest.mark.sweep] if i >= sampled else []),
        ],
    )
    for runner, dtype, parts, sampled, total in SWEEPS
    for i in range(parts)
]


@pytest.mark.softgpu(capability=80, software_only=True)
@pytest.mark.parametrize(("runner", "dtype", "part", "parts", "least"), PARTS)
def test_torch_ops(runner, dtype, part, parts, least, softgpu, record_property):
    pytest.importorskip("expecttest", reason="PyTorch's own samples (torch.testing._internal) need it")
    # Importing them takes seconds, which a run that leaves these tests out does not need.
    from op_sweep import RUNNERS
    from op_sweep import candidates
    from op_sweep import report
    from op_sweep import sweep_op

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's samples use deprecated functions
        outcomes = [sweep_op(info, dtype, 1, RUNNERS[runner]) for info in candidates(dtype)[part::parts]]
    print(report(outcomes))
    counts = Counter(o.status for o in outcomes)
    record_property(SUMMARY, {"sweep": f"{runner}, {dtype}", **counts})  # the session's last lines add them up
    failures = [o for o in outcomes if o.status == "failed"]
    assert not failures, report(failures)
    assert counts["pass"] >= least
