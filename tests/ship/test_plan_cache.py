"""Plans on disk: served where nothing that the code depends on has changed, and never where something has."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import helion
from helion import _extension
from helion.bundles import plan_cache
from helion.bundles import surroundings
from tests import softgpu as gpu

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.compiles,
    pytest.mark.skipif(_extension.C is None, reason="plans are the extension's"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the software GPU is installed by hand"),
]

_MODEL = """
import torch
import helion
import helion.language as hl

FACTOR = 3.0
MODES = {"plain"}


class Scale:
    def __init__(self, by):
        self.by = by

    def apply(self, value):
        return value * self.by


SCALE = Scale(1.0)


def helper(value, *, add=0.0):
    return value * FACTOR + add


def make(captured):
    @helion.kernel(config=helion.Config(block_sizes=[32]))
    def scaled(x: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            value = SCALE.apply(helper(x[tile])) + captured
            if "plain" in MODES:
                value = value + alpha
            out[tile] = value
        return out

    return scaled


scaled = make(0.0)
"""


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty cache, and the software GPU."""
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HELION_PLAN_CACHE", "1")
    gpu.install(90)
    yield tmp_path / "cache"
    gpu.uninstall()


class Programs:
    """Programs that one after another import a module and call its kernel, in a cache that they share."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.modules = 0

    def load(self, text: str = _MODEL) -> ModuleType:
        """The module as a new process imports it."""
        self.modules += 1
        path = self.directory / str(self.modules) / "cached_model.py"
        path.parent.mkdir()
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("cached_model", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def is_served(self, module: ModuleType, *args: Any, expected: torch.Tensor, times: int = 3) -> bool:
        """Whether the module's kernel had its plan from disk; its results are checked."""
        heard: list[str] = []
        remove = helion.runtime.add_event_hook(lambda event: heard.append(event.name))
        try:
            for _ in range(times):
                torch.testing.assert_close(module.scaled(*args), expected)
        finally:
            remove()
        assert ("plan_load" in heard) is not ("trace" in heard), heard
        return "plan_load" in heard


@pytest.fixture
def programs(cache, tmp_path) -> Programs:
    return Programs(tmp_path)


X = torch.arange(100, dtype=torch.float32)


def test_the_second_process_traces_nothing(programs: Programs) -> None:
    assert not programs.is_served(programs.load(), X, expected=3 * X + 1)
    module = programs.load()
    assert programs.is_served(module, X, expected=3 * X + 1, times=1)
    assert not module.scaled._bound
    assert programs.is_served(programs.load(), X, 5.0, expected=3 * X + 5), "the number is passed on"


def test_a_kernel_with_scratch_memory_is_kept_with_how_much_it_needs(programs: Programs) -> None:
    text = _MODEL.replace("block_sizes=[32]", "block_sizes=[2, 32], indexing='tensor_descriptor'")
    text = text.replace("hl.tile(x.size(0))", "hl.tile(x.shape)")
    x = torch.arange(256.0).view(4, 64)
    assert not programs.is_served(programs.load(text), x, expected=3 * x + 1)
    assert programs.is_served(programs.load(text), x, expected=3 * x + 1)


_EDITS = {
    "the kernel": ("+ captured", "- 2.0 + captured", 3 * X - 1),
    "a helper": ("value * FACTOR + add", "value + FACTOR + add", X + 4),
    "a helper's keyword default": ("add=0.0", "add=10.0", 3 * X + 11),
    "a global number": ("FACTOR = 3.0", "FACTOR = 4.0", 4 * X + 1),
    "what a set holds": ('MODES = {"plain"}', 'MODES = {"none"}', 3 * X),
    "a captured value": ("scaled = make(0.0)", "scaled = make(7.0)", 3 * X + 8),
    "a method": ("value * self.by", "value * self.by + 1.0", 3 * X + 2),
    "what an object holds": ("Scale(1.0)", "Scale(2.0)", 6 * X + 1),
    "the Config": ("block_sizes=[32]", "block_sizes=[64]", 3 * X + 1),
    "a setting": ("[32]))", "[32]), fast_math=True)", 3 * X + 1),
    "a default": ("alpha: float = 1.0", "alpha: float = 2.0", 3 * X + 2),
}


@pytest.mark.parametrize("what", _EDITS)
def test_an_edit_is_another_kernel(programs: Programs, what: str) -> None:
    before, after, expected = _EDITS[what]
    assert before in _MODEL
    programs.is_served(programs.load(), X, expected=3 * X + 1)
    assert not programs.is_served(programs.load(_MODEL.replace(before, after)), X, expected=expected)
    assert programs.is_served(programs.load(), X, expected=3 * X + 1)


def test_a_global_that_is_assigned_before_the_first_call_counts_as_it_is_then(programs: Programs) -> None:
    programs.is_served(programs.load(), X, expected=3 * X + 1)
    module = programs.load()
    module.FACTOR = 5.0
    assert not programs.is_served(module, X, expected=5 * X + 1)


@pytest.mark.parametrize(
    ("name", "value"), [("TRITON_DEFAULT_FP_FUSION", "0"), ("PTXAS_OPTIONS", "-v"), ("HELION_FAST_MATH", "1")]
)
def test_a_variable_that_a_compiler_reads_counts(programs: Programs, monkeypatch, name: str, value: str) -> None:
    programs.is_served(programs.load(), X, expected=3 * X + 1)
    with monkeypatch.context() as patch:
        patch.setenv(name, value)
        key = surroundings.of_process()
    assert key != surroundings.of_process()


@pytest.mark.parametrize("what", ["torch", "triton", "sms", "capability", "default dtype"])
def test_other_versions_and_gpus_count(programs: Programs, monkeypatch, what: str) -> None:
    programs.is_served(programs.load(), X, expected=3 * X + 1)
    if what == "torch":
        monkeypatch.setattr(torch, "__version__", "2.99.0")
    elif what == "triton":
        monkeypatch.setattr(surroundings, "_compilers", lambda: "edited")
    elif what == "sms":
        monkeypatch.setattr(helion.runtime.device.get_provider(), "sm_count", lambda index: 78)
    elif what == "capability":
        gpu.uninstall()
        gpu.install(80)
    else:
        torch.set_default_dtype(torch.float64)
    try:
        assert not programs.is_served(programs.load(), X, expected=3 * X + 1, times=1)
    finally:
        torch.set_default_dtype(torch.float32)


def test_every_file_of_a_compiler_counts_by_its_size_and_time(tmp_path, monkeypatch) -> None:
    package = tmp_path / "compiler_of_tests"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "inner" / "a.py").write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    before = surroundings._package("compiler_of_tests", ("",))
    assert before == surroundings._package("compiler_of_tests", ("",))
    (package / "inner" / "a.py").write_text("x = 2")
    os.utime(package / "inner" / "a.py", ns=(0, 12345))
    edited = surroundings._package("compiler_of_tests", ("",))
    (package / "inner" / "b.py").touch()
    assert len({before, edited, surroundings._package("compiler_of_tests", ("",))}) == 3


def test_every_variable_that_triton_reads_counts_or_is_known_to_change_no_code() -> None:
    import triton.knobs as knobs

    harmless = {"CC", "CUDA_HOME"}  # of launchers, which a plan does without
    groups = [value for value in vars(knobs).values() if isinstance(value, knobs.base_knobs)]
    names = {getattr(knob, "key", "") for group in groups for knob in group.knob_descriptors.values()} - {""}
    unknown = {name for name in names - harmless if not str(name).startswith(surroundings._PREFIXES)}
    assert len(names) > 30 and not {name for name in unknown if str(name).isupper()}, unknown


def test_who_wants_to_see_the_compiler_sees_it(programs: Programs, monkeypatch) -> None:
    programs.is_served(programs.load(), X, expected=3 * X + 1)
    monkeypatch.setenv("TRITON_KERNEL_DUMP", "1")
    with pytest.raises(surroundings.Unknown, match="TRITON_KERNEL_DUMP"):
        surroundings.of_process()


def test_a_knob_or_a_hook_that_is_set_keeps_plans_out(programs: Programs) -> None:
    import triton.knobs as knobs

    programs.is_served(programs.load(), X, expected=3 * X + 1)
    with knobs.nvidia.scope():
        knobs.nvidia.disable_ptxas_opt = True
        assert "knob" in (helion.runtime.launch.bundled.cache.serve(programs.load().scaled, (X, 1.0)) or "")
    seen: list[str] = []
    knobs.runtime.launch_enter_hook.add(lambda metadata: seen.append("launch"))
    try:
        assert not programs.is_served(programs.load(), X, expected=3 * X + 1, times=1)
    finally:
        knobs.runtime.launch_enter_hook.calls.clear()
    assert seen


def test_a_hook_that_comes_later_sees_launches(programs: Programs) -> None:
    import triton.knobs as knobs

    programs.is_served(programs.load(), X, expected=3 * X + 1)
    module = programs.load()
    assert programs.is_served(module, X, expected=3 * X + 1)
    seen: list[str] = []
    knobs.runtime.launch_enter_hook.add(lambda metadata: seen.append("launch"))
    try:
        torch.testing.assert_close(module.scaled(X), 3 * X + 1)
    finally:
        knobs.runtime.launch_enter_hook.calls.clear()
    assert seen


def files(cache: Path) -> list[Path]:
    return sorted(cache.glob("plans/*/*.hlb"))


def test_a_config_that_is_set_is_not_kept(programs: Programs, cache: Path) -> None:
    module = programs.load()
    module.scaled.bind((X, 1.0)).set_config(helion.Config(block_sizes=[64]))
    for _ in range(3):
        torch.testing.assert_close(module.scaled(X), 3 * X + 1)
    assert module.scaled.plan_launches and not files(cache)


def test_a_tuned_config_counts_as_long_as_the_tuners_file_is_as_it_was(programs: Programs, cache: Path) -> None:
    text = _MODEL.replace("config=helion.Config(block_sizes=[32])", 'autotune_effort="quick"')
    first = programs.load(text)
    configs = [helion.Config(block_sizes=[64])]
    first.scaled.autotune((X, 1.0), configs=configs, isolate=False, progress_bar=False, effort="quick")
    assert not files(cache)
    second = programs.load(text)  # takes the Config from the tuner's cache
    assert not programs.is_served(second, X, expected=3 * X + 1)
    assert second.scaled.bind((X, 1.0)).config["block_sizes"] == [64]
    assert len(files(cache)) == 1
    assert programs.is_served(programs.load(text), X, expected=3 * X + 1)
    (tuned,) = (cache / "autotune").glob("*.json")
    tuned.write_text(json.dumps({**json.loads(tuned.read_text()), "note": "tuned again"}))
    assert not programs.is_served(programs.load(text), X, expected=3 * X + 1)


@pytest.mark.parametrize("how", ["cut off", "another byte", "empty", "writable by others", "a link"])
def test_a_file_that_is_damaged_or_not_ours_is_not_used(programs: Programs, cache: Path, how: str) -> None:
    programs.is_served(programs.load(), X, expected=3 * X + 1)
    (path,) = files(cache)
    content = path.read_bytes()
    if how == "writable by others":
        path.chmod(0o666)
    elif how == "a link":
        path.rename(path.with_suffix(".other"))
        path.symlink_to(path.with_suffix(".other"))
    else:
        middle = len(content) // 2
        flipped = bytes([content[middle] ^ 1])
        damaged = {
            "cut off": content[:-1],
            "empty": b"",
            "another byte": content[:middle] + flipped + content[middle + 1 :],
        }
        path.write_bytes(damaged[how])
    assert not programs.is_served(programs.load(), X, expected=3 * X + 1)
    assert programs.is_served(programs.load(), X, expected=3 * X + 1), "it was not replaced"


def test_a_number_that_host_code_computes_with_counts_by_value(programs: Programs) -> None:
    text = _MODEL.replace("empty_like(x)", "empty_like(x[: int(alpha)])").replace("x.size(0)", "out.size(0)")
    programs.is_served(programs.load(text), X, 16.0, expected=(3 * X + 16)[:16])
    assert not programs.is_served(programs.load(text), X, 32.0, expected=(3 * X + 32)[:32])
    assert programs.is_served(programs.load(text), X, 16.0, expected=(3 * X + 16)[:16])


def test_what_a_key_function_says_counts(programs: Programs) -> None:
    text = _MODEL.replace("[32]))", "[32]), key=lambda x, alpha: alpha > 2)")
    programs.is_served(programs.load(text), X, 1.0, expected=3 * X + 1)
    assert not programs.is_served(programs.load(text), X, 5.0, expected=3 * X + 5)
    assert programs.is_served(programs.load(text), X, 2.0, expected=3 * X + 2)
    assert programs.is_served(programs.load(text), X, 3.0, expected=3 * X + 3)


def test_a_kernel_that_refers_to_what_cannot_be_compared_is_not_kept(programs: Programs, cache: Path) -> None:
    text = _MODEL.replace("return value * FACTOR + add", "return value * FACTOR + add * (LOCK is None)")
    text = text.replace("FACTOR = 3.0", "import threading\nFACTOR = 3.0\nLOCK = threading.Lock()")
    assert not programs.is_served(programs.load(text), X, expected=3 * X + 1)
    assert not files(cache)


def test_calls_that_are_kept_of_one_kernel_are_not_without_end(programs: Programs, cache: Path, monkeypatch) -> None:
    monkeypatch.setattr(plan_cache, "MOST_CALLS", 2)
    module = programs.load()
    for n in (10, 20, 30, 40):
        programs.is_served(module, X[:n], expected=(3 * X + 1)[:n])
    assert len(files(cache)) == 2


def test_it_can_be_switched_off(programs: Programs, cache: Path, monkeypatch) -> None:
    monkeypatch.setenv("HELION_PLAN_CACHE", "0")
    assert not programs.is_served(programs.load(), X, expected=3 * X + 1)
    assert not programs.is_served(programs.load(), X, expected=3 * X + 1)
    assert not cache.exists() or not files(cache)


_PROCESS = """
import sys
import torch
from tests import softgpu
softgpu.install(90, triton=sys.argv[1] == "compile")
from tests.ship import bundled_model as model
model.check_all()
print("triton" in sys.modules, "sympy" in sys.modules)
"""


@pytest.mark.spawns
def test_a_new_process_loads_no_compiler(tmp_path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HELION_CACHE_DIR": str(tmp_path), "HELION_PLAN_CACHE": "1"}
    said = [
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(_PROCESS), what],
            capture_output=True,
            text=True,
            env=environment,
            cwd=ROOT,
            check=True,
        ).stdout.split()
        for what in ("compile", "serve")
    ]
    assert said == [["True", "True"], ["False", "False"]]
