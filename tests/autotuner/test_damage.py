"""Files that tuning reads, damaged in every way: each counts as absent, with a line in the log, and ends nothing."""

from __future__ import annotations

import copy
import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from helion import exc
from helion.autotuner import schema
from helion.autotuner.aot import build as aot_build
from helion.autotuner.aot import cache as aot
from helion.autotuner.cache import Entry
from helion.autotuner.cache import LocalAutotuneCache
from helion.autotuner.cache import fits
from helion.autotuner.cache_key import CacheKey
from helion.autotuner.log_file import read_log
from helion.autotuner.remote_cache import RemoteAutotuneCache
from helion.config import Config
from helion.config_spec import ConfigSpec
from helion.fragments import ListOf
from helion.fragments import PermutationFragment
from helion.fragments import PowerOfTwoFragment

KEY = CacheKey("add", "def add(x): ...", ((8, 8), 3), "GPU sm_90 132 SMs")
ENTRY = Entry(Config(num_warps=8, block_sizes=[64, 32], loop_orders=[[1, 0]]), 0.5, "note")
SPEC = ConfigSpec(
    "add",
    {
        "block_sizes": ListOf(PowerOfTwoFragment(1, 1024, 16), 2),
        "loop_orders": ListOf(PermutationFragment(2), 1),
        "num_warps": PowerOfTwoFragment(1, 32, 4),
    },
)

DEEP = "[" * 200_000
ODD: list[Any] = [
    None,
    True,
    -1,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 100_000,
    [],
    [[[[[[[]]]]]]],
    {},
    {"self": 1},
    {"cls": 1},
    {"": 1},
    [1, "a"],
    [None, None],
    {"num_warps": {"deep": []}},
]
TEXTS = [DEEP, '{"config": ' + DEEP, "1" * 10_000, '{"config": 1' + "0" * 10_000 + "}", "\x00" * 100, '"', "{}", "[]"]


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*path, key))


def _with(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    copied = copy.deepcopy(value)
    holder = copied
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = odd
    return copied


def _damaged(record: Any, seed: int) -> Iterator[str]:
    """Texts of a JSON file: hopeless ones, and the record with something odd in each of its places."""
    yield from TEXTS
    rng = random.Random(seed)
    for path in _places(record):
        if path[:1] == ("key",) and len(path) > 1:
            continue  # another key is simply not this one
        for odd in rng.sample(ODD, 9):
            yield json.dumps(_with(record, path, odd))


@pytest.mark.parametrize("remote", [False, True])
def test_damaged_entries_of_the_caches(tmp_path: Path, remote: bool, caplog: pytest.LogCaptureFixture) -> None:
    class Store:
        data: bytes | None = None

        def get(self, name: str) -> bytes | None:
            return self.data

        def put(self, name: str, data: bytes) -> None:
            pass

    whole = json.loads(ENTRY.to_json(KEY))
    seed = random.randrange(1 << 30)
    print("seed", seed)
    store = Store()
    for number, text in enumerate(_damaged(whole, seed)):
        cache = RemoteAutotuneCache(store, tmp_path / str(number)) if remote else LocalAutotuneCache(tmp_path)
        cache.put(KEY, ENTRY)
        if remote:
            cache.path(KEY).unlink()
            store.data = text.encode()
        else:
            cache.path(KEY).write_text(text)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "helion.autotuner"):
            found = [cache.get(KEY), cache.get(KEY)]
        assert remote or len(caplog.records) <= 1
        for entry in found:
            # What is taken is a whole entry, and its Config is judged by the kernel's spec without another exception.
            assert entry is None or (isinstance(entry, Entry) and isinstance(entry.config, Config))
            assert entry is None or fits(entry, SPEC) is None or isinstance(fits(entry, SPEC), Config)
        cache.put(KEY, ENTRY)
        store.data = None
        assert cache.get(KEY) == ENTRY


def test_one_line_for_one_damaged_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = LocalAutotuneCache(tmp_path)
    cache.put(KEY, ENTRY)
    cache.path(KEY).write_text(DEEP)
    with caplog.at_level(logging.WARNING, "helion.autotuner"):
        assert [cache.get(KEY) for _ in range(5)] == [None] * 5
    assert len(caplog.records) == 1 and "nested too deeply" in caplog.text


def test_a_link_or_a_pipe_in_place_of_an_entry_counts_as_absent(tmp_path: Path) -> None:
    import os

    cache = LocalAutotuneCache(tmp_path / "tuned")
    cache.put(KEY, ENTRY)
    path = cache.path(KEY)
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    assert cache.get(KEY) is None
    path.unlink()
    os.mkfifo(path)
    assert cache.get(KEY) is None  # at once, though nobody writes to it
    cache.put(KEY, ENTRY)
    assert cache.get(KEY) == ENTRY


TABLE = {
    "source_hash": "h",
    "batched": [0, None, [1, 2]],
    "configs": [{"num_warps": 4}, {"num_warps": 8, "block_sizes": [16, None]}],
    "tree": {"feature": "arg0.size1", "at_most": 64.0, "then": {"config": 0}, "else": {"config": 1}},
}


def test_damaged_shipped_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = {"format": aot.FORMAT, "kernels": {"add": {"GPU sm_90 132 SMs": TABLE}}}
    seed = random.randrange(1 << 30)
    print("seed", seed)
    args = (torch.ones(8, 8), torch.ones(8), torch.ones(2, 2, 2))
    for number, text in enumerate(_damaged(whole, seed)):
        path = tmp_path / f"{number}.helion.json"
        path.write_text(text)
        table = aot.table_for(aot.read_tables(path).get("add", {}), KEY.device)
        chosen = None if table is None else table.choose(args)
        assert chosen is None or isinstance(chosen, Config)
    path.write_text(json.dumps(whole))
    table = aot.table_for(aot.read_tables(path)["add"], KEY.device)
    assert table is not None and table.choose(args) is not None


def test_a_damaged_table_leaves_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "k.helion.json"
    loop: dict[str, Any] = {"config": 0}
    for _ in range(100):
        loop = {"feature": "arg0.size0", "at_most": 1.0, "then": loop, "else": {"config": 0}}
    bad = [{**TABLE, "tree": loop}, {**TABLE, "tree": {"config": 2}}, {**TABLE, "configs": [3]}]
    devices = {f"bad {i}": table for i, table in enumerate(bad)}
    path.write_text(json.dumps({"format": aot.FORMAT, "kernels": {"add": {**devices, "good": TABLE}}}))
    assert list(aot.read_tables(path)["add"]) == ["good"]
    aot.read_tables(path)
    assert len(caplog.records) == len(bad)


def test_damaged_measurements_are_a_clear_error(tmp_path: Path) -> None:
    data = aot_build.Measurements("k", "d", "h", [0, None], [Config(a=1)], [{"n": 1.0}], [[2.0]], ["float32[1]"])
    data.save(tmp_path / "data.json")
    seed = random.randrange(1 << 30)
    print("seed", seed)
    for text in _damaged(json.loads((tmp_path / "data.json").read_text()), seed):
        (tmp_path / "data.json").write_text(text)
        try:
            assert isinstance(aot_build.Measurements.load(tmp_path / "data.json"), aot_build.Measurements)
        except exc.InvalidAPIUsage as error:
            assert "collect" in str(error)


def test_damaged_logs_are_a_clear_error(tmp_path: Path) -> None:
    row = {"number": 0, "seconds": 1.0, "spread": 0.1, "compile_s": 0.1, "time_ms": 1.0, "config": {"a": 1}}
    for text in _damaged([row], 7):
        (tmp_path / "log.json").write_text(text)
        try:
            assert isinstance(read_log(tmp_path / "log.json"), list)
        except exc.InvalidAPIUsage as error:
            assert "not a tuning log" in str(error)


@pytest.mark.parametrize("text", TEXTS[:6], ids=lambda text: text[:14])
def test_a_config_from_hopeless_text_is_a_clear_error(text: str) -> None:
    with pytest.raises(exc.InvalidConfig):
        Config.from_json(text)


def test_the_schema_names_the_place() -> None:
    with pytest.raises(ValueError, match=r"time_ms: expected a number, got str"):
        schema.record({"time_ms": "fast"}, {"time_ms": schema.milliseconds})
