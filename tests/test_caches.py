"""What tests keep of the compilers' work stays within its limit."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests import caches


def _entry(cache: Path, name: str, size: int, hours_old: float) -> None:
    path = cache / name / "kernel.cubin"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(size))
    used = time.time() - hours_old * 3600
    os.utime(path, (used, used))


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    for name, hours in (("new", 2.0), ("old", 50.0), ("older", 60.0)):
        _entry(tmp_path, name, 100, hours)
    caches.prune(tmp_path, 150)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_what_is_within_the_limit_stays(tmp_path: Path) -> None:
    _entry(tmp_path, "old", 100, 50.0)
    caches.prune(tmp_path, 100)
    assert (tmp_path / "old").exists()


def test_what_another_run_may_be_reading_stays(tmp_path: Path) -> None:
    _entry(tmp_path, "now", 100, 0.0)
    caches.prune(tmp_path, 0)
    assert (tmp_path / "now").exists()


def test_a_cache_that_does_not_exist_is_none(tmp_path: Path) -> None:
    caches.prune(tmp_path / "none")
