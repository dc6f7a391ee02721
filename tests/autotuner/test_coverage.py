"""`coverage`: which calls have a measured Config, device by device."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from helion import Config
from helion.__main__ import main
from helion.autotuner.aot.build import find_kernel
from helion.autotuner.aot.cache import shipped_file
from helion.autotuner.aot.cache import source_hash
from helion.autotuner.bound import BoundTarget
from helion.autotuner.cache import Entry
from helion.autotuner.cache import LocalAutotuneCache
from helion.autotuner.cache_key import CacheKey
from helion.autotuner.coverage import Source
from helion.autotuner.coverage import coverage

SOURCE = """
import torch
import helion
import helion.language as hl


def calls():
    return [(torch.ones(n, 32),) for n in (8, 64)]


@helion.aot_kernel(collect_fn=calls)
def double(x):
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile, :] = x[tile, :] * 2
    return out
"""
H100, H200 = "NVIDIA H100 sm_90 132 SMs", "NVIDIA H200 sm_90 132 SMs"


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A kernel in a file of its own, and a cache of its own."""
    file = tmp_path / "covered_kernels.py"
    file.write_text(SOURCE)
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path / "cache"))
    return f"{file}:double"


def key_of(name: str, rows: int) -> tuple[CacheKey, tuple[torch.Tensor]]:
    args = (torch.ones(rows, 32),)
    return BoundTarget(find_kernel(name)[0].bind(args)).cache_key(args), args


def sources(name: str, *devices: str) -> dict[tuple[str, str], Source]:
    return {(row.call, row.device): row.source for row in coverage([name], devices)}


def test_nothing_is_measured_at_first(name: str) -> None:
    found = sources(name, H100)
    assert len(found) == 4 and set(found.values()) == {Source.COMPUTED}


def test_a_tuned_config_counts_for_its_call_and_device_alone(name: str) -> None:
    key, _ = key_of(name, 64)
    LocalAutotuneCache().put(dataclasses.replace(key, device=H100), Entry(Config(block_sizes=[4]), 0.5))
    tuned = {where for where, source in sources(name, H100, H200).items() if source is Source.TUNED}
    assert tuned == {("float32[64, 32]", H100)}


def test_a_shipped_table_covers_its_device_and_is_near_for_others(name: str) -> None:
    key, _ = key_of(name, 8)
    record = {
        "source_hash": source_hash(key.source),
        "batched": None,
        "configs": [{"block_sizes": [4]}],
        "tree": {"config": 0},
    }
    path = shipped_file(name.rpartition(":")[0])
    path.write_text(json.dumps({"format": 1, "kernels": {"double": {H100: record}}}))
    found = sources(name, H200)
    assert {source for (_, device), source in found.items() if device == H100} == {Source.SHIPPED}
    assert {source for (_, device), source in found.items() if device == H200} == {Source.NEAR}
    assert {source for (_, device), source in found.items() if device == key.device} == {Source.COMPUTED}


def test_the_command_lists_what_is_left(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    key, _ = key_of(name, 8)
    LocalAutotuneCache().put(key, Entry(Config(block_sizes=[4]), 0.5))
    assert main(["coverage", name]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("computed  double") and first.endswith("float32[64, 32]")
    assert last == "1 of 2 calls have a Config that was measured on their device"
    assert main(["coverage", "--all", name]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_name_of_no_kernel_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["coverage", "double"]) == 1
    assert "write file.py:kernel" in capsys.readouterr().err
