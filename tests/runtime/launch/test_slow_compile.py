"""A compile that takes long is told of while it goes on."""

from __future__ import annotations

import logging
import types

import pytest

from helion.runtime.launch import slow_compile
from tests.waiting import wait_until

SOURCE = """
def k(x):
    for i in tl.range(0, 8, 1, loop_unroll_factor=4, flatten=True):
        for j in tl.range(0, 8, 1, loop_unroll_factor=3, num_stages=3):
            for l in tl.static_range(0, 4):
                pass
"""


def test_what_is_said_names_the_kernel_and_what_of_its_config_multiplies_the_code(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(slow_compile, "SECONDS", 0.01)
    kernel = types.SimpleNamespace(__name__="_k_kernel", src=SOURCE)
    with caplog.at_level(logging.WARNING, "helion.runtime"), slow_compile.reported("k", kernel, {"num_warps": 4}):
        wait_until(lambda: len(caplog.records) >= 2)
    first, second = [record.getMessage() for record in caplog.records[:2]]
    assert "kernel 'k': Triton has been compiling _k_kernel for" in first
    assert (
        "range_unroll_factors of 4, 3; range_num_stages of 3; 1 loop(s) with static_ranges; 1 with range_flattens"
        in first
    )
    assert "range_unroll_factors and block_sizes and without range_num_stages" in second


def test_nothing_is_said_of_a_quick_one(caplog: pytest.LogCaptureFixture) -> None:
    with slow_compile.reported("k", types.SimpleNamespace(src=SOURCE), {}):
        pass
    assert not caplog.records
