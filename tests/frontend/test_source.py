"""What a kernel computes is what was imported, whatever becomes of its file."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

MODULE = """\
import torch

import helion
import helion.language as hl


def plus(x):
    return x + {helper}


@helion.kernel(config=helion.Config(block_sizes=[16]))
def add(x):
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = plus(x[t]) + {own}
    return out
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes the module; each time at another time, as an editor would."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    times = iter(range(1_000_000_000, 1_000_000_100))

    def write(helper: int, own: int, above: str = "") -> None:
        path = tmp_path / "edited_kernels.py"
        path.write_text(above + MODULE.format(helper=helper, own=own))
        os.utime(path, (when := next(times), when))

    yield write
    sys.modules.pop("edited_kernels", None)


def imported() -> ModuleType:
    sys.modules.pop("edited_kernels", None)
    importlib.invalidate_caches()
    return importlib.import_module("edited_kernels")


@pytest.mark.parametrize("above", ["", "# a comment\n\n"], ids=["in place", "shifted"])
def test_file_edited_before_the_first_call(write: Callable[..., None], above: str) -> None:
    write(1, 10)
    module = imported()
    write(2, 20, above)
    assert module.add(torch.zeros(3)).tolist() == [11.0] * 3


@pytest.mark.parametrize("above", ["", "# a comment\n\n"], ids=["in place", "shifted"])
def test_file_edited_between_specializations_and_reloaded(write: Callable[..., None], above: str) -> None:
    write(1, 10)
    module = imported()
    old = module.add
    assert old(torch.zeros(3)).tolist() == [11.0] * 3
    write(2, 20, above)
    assert old(torch.zeros(4)).tolist() == [11.0] * 4
    importlib.reload(module)
    assert module.add is not old
    for n in (3, 4, 5):
        assert module.add(torch.zeros(n)).tolist() == [22.0] * n
    # As Python's own: the old function's text, with the helper that its module has now.
    assert old(torch.zeros(3)).tolist() == [12.0] * 3
    assert old(torch.zeros(4)).tolist() == [12.0] * 4


def test_file_removed_before_the_first_call(write: Callable[..., None], tmp_path: Path) -> None:
    write(1, 10)
    module = imported()
    (tmp_path / "edited_kernels.py").unlink()
    assert module.add(torch.zeros(3)).tolist() == [11.0] * 3
