"""HELION_PRINT_REPRO=1: the printed script holds all it needs and gives the result of the call."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import helion
from helion.repro import describe_argument

ROOT = Path(__file__).resolve().parents[1]

KERNEL = """
import dataclasses
import enum
import functools
import math as mathematics
from typing import NamedTuple
import torch
import torch.nn.functional as F
import helion
import helion.language as hl

FACTOR = 2.5
OFFSETS = (1, 2)

class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor

class Mode(enum.Enum):
    PLAIN = 1
    DOUBLED = 2

@dataclasses.dataclass
class Options:
    pair: Pair
    mode: Mode
    limit: float = mathematics.inf

def helper(value, times):
    return inner(value) * times + mathematics.pi

def inner(value):
    return F.relu(value) + OFFSETS[1]

def with_bias(bias):
    return lambda value, tile: value + bias[tile] + FACTOR

@helion.kernel(config=helion.Config(block_sizes=[16]), fast_math=True)
def combined(options: Options, epilogue, x: torch.Tensor, flag: bool = True) -> torch.Tensor:
    out = torch.empty([x.size(0)], device=x.device)
    for tile in hl.tile(x.size(0)):
        value = helper(options.pair.left[tile] + options.pair.right[tile], FACTOR) + x[tile]
        if options.mode is Mode.DOUBLED and flag:
            value = value * 2
        out[tile] = epilogue(torch.clamp(value, max=options.limit), tile)
    return out

if __name__ == "__main__":
    n = 40
    pair = Pair(torch.zeros(n, dtype=torch.int64), torch.zeros(2 * n, dtype=torch.int32)[::2])
    bias = torch.zeros(n, dtype=torch.int16)
    print(combined(Options(pair, Mode.DOUBLED), with_bias(bias), torch.zeros(n, dtype=torch.bool)))
"""


def run(file: Path, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HELION_CACHE_DIR": str(cache), **environment}
    return subprocess.run(
        [sys.executable, str(file)], env=env, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.spawns
def test_the_printed_script_runs_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "users_module.py"
    file.write_text(KERNEL)
    first = run(file, tmp_path / "cache", HELION_PRINT_REPRO="1")
    assert first.returncode == 0, first.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = elsewhere / "script.py"
    script.write_text(first.stderr[first.stderr.index("# Rebuilds one specialization") :])
    again = run(script, tmp_path / "cache")
    assert again.returncode == 0, f"{again.stderr}\n{script.read_text()}"
    text = script.read_text()
    assert "users_module" not in text
    assert "fast_math=True" in text and "block_sizes=[16]" in text
    # Integer tensors are zeros in the script as in the call; x is bool, random there: 0 or 1 is added and doubled.
    expected = (2 * 2.5 + torch.pi) * 2 + 2.5
    numbers = [float(v) for v in again.stdout.replace("tensor([", "").replace("])", "").replace("\n", "").split(",")]
    assert len(numbers) == 40 and all(min(abs(v - expected), abs(v - expected - 2)) < 1e-3 for v in numbers)


def test_arguments_keep_layout_and_dtype() -> None:
    x = torch.randn(6, 8).bfloat16().t()[1:, ::2]
    made = eval(describe_argument(x))
    assert (made.shape, made.stride(), made.dtype, made.storage_offset()) == (
        x.shape,
        x.stride(),
        x.dtype,
        x.storage_offset(),
    )
    for value in (1, 2.5, True, "a", None, torch.float16, [1, (2,)], {"k": float("inf")}, torch.device("cpu")):
        assert eval(describe_argument(value)) == value


def test_nothing_is_printed_without_the_setting(capfd) -> None:
    helion.kernel(_double, config=helion.Config(block_sizes=[16]))(torch.ones(20))
    assert "Rebuilds" not in capfd.readouterr().err


def _double(x: torch.Tensor) -> torch.Tensor:
    import helion.language as hl

    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] * 2
    return out
