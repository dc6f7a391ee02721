"""Configs that ship beside a kernel: the decision tree, the file, the command line."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import helion
from helion import exc
from helion.autotuner.__main__ import main
from helion.autotuner.aot import build as aot_build
from helion.autotuner.aot import decision_tree
from helion.autotuner.aot.cache import Table
from helion.autotuner.aot.cache import features_of
from helion.autotuner.aot.cache import shipped_file
from helion.autotuner.aot.cache import table_for
from helion.config import Config

# -- the decision tree --------------------------------------------------------------------------------


def test_the_tree_finds_the_boundary_between_two_configs() -> None:
    sizes = [2.0**e for e in range(4, 14)]
    times = [[1.0, 2.0] if s <= 512 else [2.0, 1.0] for s in sizes]
    slow = decision_tree.log_slowdowns(times)
    tree = decision_tree.learn([{"size": s, "noise": 1.0} for s in sizes], slow, [0, 1])
    assert tree["feature"] == "size" and 512 < tree["at_most"] < 1024
    assert [decision_tree.choose(tree, {"size": s}) for s in (1, 600, 1000, 1e6)] == [0, 0, 1, 1]


def test_a_tree_is_never_worse_than_the_best_single_config_on_what_it_learned() -> None:
    rng = random.Random(4)
    for _ in range(20):
        shapes = [{"a": float(rng.randint(1, 50)), "b": float(rng.randint(1, 5))} for _ in range(25)]
        times = [[rng.lognormvariate(0, 1) for _ in range(6)] for _ in shapes]
        slow = decision_tree.log_slowdowns(times)
        tree = decision_tree.learn(shapes, slow, range(6), depth=4)
        total = sum(row[decision_tree.choose(tree, s)] for row, s in zip(slow, shapes))
        assert total <= min(sum(row[c] for row in slow) for c in range(6)) + 1e-9


def test_a_config_that_fails_somewhere_is_not_chosen_there() -> None:
    slow = decision_tree.log_slowdowns([[1.0, math.inf], [1.0, 0.5], [1.0, 0.5]])
    tree = decision_tree.learn([{"n": 1.0}, {"n": 2.0}, {"n": 4.0}], slow, [0, 1])
    assert decision_tree.choose(tree, {"n": 1.0}) == 0 and decision_tree.choose(tree, {"n": 4.0}) == 1


def test_a_question_that_gains_nothing_is_not_asked() -> None:
    slow = decision_tree.log_slowdowns([[1.0, 1.001], [1.001, 1.0]])
    assert "config" in decision_tree.learn([{"n": 1.0}, {"n": 9.0}], slow, [0, 1])


def test_few_configs_are_selected_and_the_useful_ones_first() -> None:
    slow = decision_tree.log_slowdowns([[1.0, 1.1, 9.0, 1.0], [9.0, 1.1, 1.0, 8.9], [1.0, 1.1, 9.0, 1.0]])
    assert decision_tree.select(slow, 4, 0.002) == [1, 0, 2]
    assert decision_tree.select(slow, 1, 0.002) == [1]


# -- features -----------------------------------------------------------------------------------------


def test_features_name_sizes_types_and_numbers() -> None:
    found = features_of((torch.ones(4, 6, dtype=torch.float16), 3, "text", torch.ones(2, 2).t()))
    assert found == {
        "arg0.size0": 4, "arg0.size1": 6, "arg0.numel": 24, "arg0.itemsize": 2, "arg0.contiguous": 1,
        "arg1": 3,
        "arg3.size0": 2, "arg3.size1": 2, "arg3.numel": 4, "arg3.itemsize": 4, "arg3.contiguous": 0,
    }  # fmt: skip


def test_batch_dimensions_leave_no_trace_in_the_features() -> None:
    marks = (0, None, (0, -1))
    few, many = ((torch.ones(b, 8), torch.ones(3), torch.ones(b, 5, b)) for b in (2, 64))
    assert features_of(few, marks) == features_of(many, marks)
    assert "arg1.size0" in features_of(few, marks) and "arg2.size1" in features_of(few, marks)


def test_another_device_of_the_same_architecture_will_do() -> None:
    table = Table((Config(),), {"config": 0}, "x")
    tables = {"NVIDIA H100 PCIe sm_90 114 SMs": table}
    assert table_for(tables, "NVIDIA H100 PCIe sm_90 114 SMs") is table
    assert table_for(tables, "NVIDIA H200 sm_90 132 SMs") is table
    assert table_for(tables, "NVIDIA B200 sm_100 148 SMs") is None
    assert table_for(tables, "cpu x86_64") is None


# -- the whole way --------------------------------------------------------------------------------------

SOURCE = """
import torch
import helion
import helion.language as hl

SIZES = (8, 16, 256, 512)


def calls():
    return [(torch.ones(n, 32),) for n in SIZES]


@helion.aot_kernel(collect_fn=calls)
def double(x):
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile, :] = x[tile, :] * 2
    return out


@helion.aot_kernel(collect_fn=calls, batched=[0])
def invariant(x):
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile, :] = x[tile, :] * 2
    return out


@helion.kernel
def plain(x):
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile, :] = x[tile, :] * 2
    return out
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The kernels above in a file of their own, in a directory of their own."""
    file = tmp_path / "shipped_kernels.py"
    file.write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("shipped_kernels", file)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules["shipped_kernels"] = made
    spec.loader.exec_module(made)
    yield made
    del sys.modules["shipped_kernels"]


def ship(
    module: ModuleType, kernel: str, configs: list[dict[str, object]], tree: decision_tree.Node, **changes: object
) -> Path:
    """A file as `write` makes it."""
    bound = getattr(module, kernel).bind((torch.ones(8, 32),))
    from helion.autotuner.bound import BoundTarget

    key = BoundTarget(bound).cache_key((torch.ones(8, 32),))
    aot = getattr(module, kernel).aot
    record = {
        "source_hash": aot_build.source_hash(key.source),
        "batched": aot.batched,
        "configs": configs,
        "tree": tree,
        **changes,
    }
    path = shipped_file(str(module.__file__))
    path.write_text(json.dumps({"format": 1, "kernels": {kernel: {key.device: record}}}))
    return path


BY_ROWS: decision_tree.Node = {"feature": "arg0.size0", "at_most": 64, "then": {"config": 0}, "else": {"config": 1}}


def block_size_used(module: ModuleType, kernel: str, rows: int) -> int:
    bound = getattr(module, kernel).bind((torch.ones(rows, 32),))
    bound(torch.ones(rows, 32))
    size: int = bound._config["block_sizes"][0]
    return size


@pytest.mark.slow
def test_the_command_line_goes_from_shapes_to_a_file_that_the_kernel_uses(
    module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{module.__file__}:double"
    common = ["--no-isolation", "--effort", "quick"]
    assert main(["collect", name, *common, "--evaluations", "4", "--search", "RandomSearch"]) == 0
    assert main(["measure", name, *common]) == 0
    data = aot_build.Measurements.load(Path("helion_aot_double.json"))
    assert len(data.shapes) == len(data.times) == 4 and all(len(row) == len(data.configs) for row in data.times)
    assert main(["evaluate", name]) == 0
    text = capsys.readouterr().out
    assert "decision tree" in text and "best single config" in text and "not measured" in text
    assert text.count("float32[512, 32]") == 3  # collected, measured, evaluated: told apart by their arguments
    assert main(["write", name, "--configs", "3"]) == 0
    path = Path("shipped_kernels.helion.json")
    (table,) = json.loads(path.read_text())["kernels"]["double"].values()
    assert 1 <= len(table["configs"]) <= 3
    sizes = {c["block_sizes"][0] for c in table["configs"]}
    assert block_size_used(module, "double", 512) in sizes
    x = torch.randn(512, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(module.double(x), x * 2)


def test_the_tree_chooses_by_the_shape_of_the_call(module: ModuleType) -> None:
    ship(module, "double", [{"block_sizes": [2]}, {"block_sizes": [128]}], BY_ROWS)
    assert block_size_used(module, "double", 16) == 2
    assert block_size_used(module, "double", 512) == 128


def test_writing_another_kernel_keeps_the_first(module: ModuleType) -> None:
    path = ship(module, "double", [{"block_sizes": [2]}], {"config": 0})
    data = aot_build.Measurements(
        "invariant", "some GPU sm_90", "hash", [0], [Config(block_sizes=[4])], [{"arg0.size1": 32.0}], [[1.0]]
    )
    data.save(Path("data.json"))
    aot_build.write(f"{module.__file__}:invariant", Path("data.json"))
    kernels = json.loads(path.read_text())["kernels"]
    assert set(kernels) == {"double", "invariant"}
    assert kernels["invariant"]["some GPU sm_90"]["batched"] == [0]


def test_a_batched_dimension_never_changes_the_config(module: ModuleType) -> None:
    shapes = [features_of((torch.ones(n, 32),), [0]) for n in (8, 512)]
    times = [[1.0, 2.0], [2.0, 1.1]]
    data = aot_build.Measurements(
        "invariant", "device", "hash", [0], [Config(block_sizes=[2]), Config(block_sizes=[128])], shapes, times
    )
    assert len(aot_build.build_table(data).configs) == 1 or aot_build.build_table(data).tree == {"config": 0}
    table = aot_build.build_table(data)
    assert table.choose((torch.ones(8, 32),)) == table.choose((torch.ones(512, 32),))


def test_a_shipped_config_that_does_not_fit_falls_back_to_the_default(
    module: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    ship(module, "double", [{"block_sizes": [3]}], {"config": 0})
    with caplog.at_level(logging.WARNING, "helion.autotuner"):
        x = torch.ones(16, 32)
        assert torch.equal(module.double(x), x * 2)
    assert "block_sizes=[3]" in caplog.text


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1}', '{"format": 1, "kernels": {"double": {"x": {}}}}', "[1]"])
def test_a_damaged_file_is_ignored_with_a_warning(
    module: ModuleType, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    shipped_file(str(module.__file__)).write_text(text)
    with caplog.at_level(logging.WARNING, "helion.autotuner"):
        x = torch.ones(16, 32)
        assert torch.equal(module.double(x), x * 2)
    assert "ignoring the shipped configs" in caplog.text


def test_configs_of_another_version_of_the_source_are_used_with_a_warning(
    module: ModuleType, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helion.autotuner.aot.cache._warned_sources", set())
    ship(module, "double", [{"block_sizes": [2]}], {"config": 0}, source_hash="old")
    with caplog.at_level(logging.WARNING, "helion.autotuner"):
        assert block_size_used(module, "double", 16) == 2
        assert block_size_used(module, "double", 32) == 2
    assert caplog.text.count("another version") == 1


def test_a_config_in_the_decorator_takes_the_place_of_the_file() -> None:
    made = helion.aot_kernel(config=helion.Config(block_sizes=[4]))(lambda x: x)
    assert made.configs == [helion.Config(block_sizes=[4])]


def test_too_many_batched_entries_are_an_error() -> None:
    with pytest.raises(exc.InvalidAPIUsage, match="1 parameters"):
        helion.aot_kernel(batched=[0, 1])(lambda x: x)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["measure", "FILE:double"], "collect` first"),
        (["collect", "FILE:plain"], "aot_kernel"),
        (["collect", "FILE:missing"], "missing"),
        (["collect", "double"], "file.py:kernel"),
        (["collect", "nothing.py:double"], "there is no file nothing.py"),
        (["report", "nothing.json"], "no file"),
    ],
)
def test_mistakes_on_the_command_line_are_explained(
    module: ModuleType, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([a.replace("FILE", str(module.__file__)) for a in arguments]) == 1
    assert says in capsys.readouterr().err


@pytest.mark.spawns
def test_collecting_without_effort_is_explained(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module.double.settings.autotune_effort = "none"  # as HELION_AUTOTUNE_EFFORT does
    assert main(["collect", f"{module.__file__}:double"]) == 1
    assert "unset HELION_AUTOTUNE_EFFORT" in capsys.readouterr().err


def test_measurements_survive_being_saved(tmp_path: Path) -> None:
    data = aot_build.Measurements("k", "d", "h", [0, None], [Config(a=1)], [{"n": 1.0}], [[math.inf]], ["float32[1]"])
    data.save(tmp_path / "data.json")
    assert aot_build.Measurements.load(tmp_path / "data.json") == data


def test_evaluation_tells_learned_from_unseen_shapes() -> None:
    sizes = [2.0**e for e in range(4, 12)]
    times = [[1.0, 2.0] if s <= 128 else [2.0, 1.0] for s in sizes]
    data = aot_build.Measurements("k", "d", "h", None, [Config(a=1), Config(a=2)], [{"n": s} for s in sizes], times)
    found = aot_build.evaluate(data)
    assert found.shipped == pytest.approx(1.0)
    assert found.single == pytest.approx(math.sqrt(2.0))
    assert found.unseen is not None and 1.0 <= found.unseen < found.single
