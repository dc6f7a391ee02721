"""Bundles: made without a GPU, served without a compiler, and refused where they do not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import helion
import helion.language as hl
from helion import __main__ as command_line
from helion import _extension
from helion import exc
from helion.bundles import load
from helion.runtime import device
from helion.runtime.launch import bundled
from tests import softgpu as gpu
from tests.ship import bundled_model as model

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.compiles,
    pytest.mark.skipif(_extension.C is None, reason="plans are the extension's"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the software GPU is installed by hand"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A bundle of all calls of the model for sm_90, whose binaries the software GPU runs."""
    path = tmp_path_factory.mktemp("bundle") / "kernels.hlb"
    gpu.install(90)
    try:
        report = helion.bundle(list(model.examples()), model.examples(), path, capabilities=[90])
    finally:
        gpu.uninstall()
    assert report.plans == len(model.CALLS) + 1 and not report.left_out
    return path


@pytest.fixture
def fresh():
    """The software GPU, and the model's kernels as if nothing had called them."""
    gpu.install(90)
    kernels = list(model.examples())
    for kernel in kernels:
        kernel.reset()
        kernel._was_reset = False
    yield
    for source in bundled.sources:
        bundled.remove(source)
    for kernel in kernels:
        kernel.reset()
        kernel._was_reset = False
    gpu.uninstall()


_WITHOUT_COMPILER = """
import sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("triton", "sympy", "cutlass", "nvidia_cutlass_dsl"):
            raise ImportError(f"{name} was imported")

sys.meta_path.insert(0, Forbidden())
from tests import softgpu
softgpu.install(90, triton=False)
import helion
from tests.ship import bundled_model as model

helion.load_bundle(sys.argv[1], on_miss="error")
with helion.runtime.no_compile():
    model.check_all()
assert not softgpu.faults(), softgpu.faults()
layers = {layer for kernel in helion.runtime.launch_stats().values() for layer in kernel.layers}
assert layers == {"plan"}, layers
loaded = {name for name in sys.modules if name.startswith(("helion.frontend.trace", "helion.ir", "helion.backends"))}
assert not loaded, loaded
print("served", softgpu.launches())
"""


@pytest.mark.spawns
def test_a_process_that_cannot_import_a_compiler_runs_every_call_as_a_plan(made: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HELION_CACHE_DIR": str(made.parent / "none")}
    run = [sys.executable, "-c", _WITHOUT_COMPILER, str(made)]
    result = subprocess.run(run, capture_output=True, text=True, env=environment, timeout=300, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("served")
    assert not (made.parent / "none").exists(), "something was compiled"


def test_a_served_call_launches_once_and_tells_of_it(made: Path, fresh) -> None:
    heard: list[str] = []
    remove = helion.runtime.add_event_hook(lambda event: heard.append(event.name))
    try:
        loaded = helion.load_bundle(made, on_miss="error")
        gpu.reset()
        x, y = torch.randn(100), torch.randn(100)
        result = model.add(x, y, alpha=0.5)
    finally:
        remove()
    assert torch.allclose(result, 3 * x + 0.5 * y, atol=1e-5)
    assert gpu.launches() == 1 and heard == ["bundle_load", "bundle_load"]
    assert loaded.served == 1 and not model.add._bound


def test_a_file_that_is_cut_off_after_it_was_loaded_changes_nothing(made: Path, fresh, tmp_path) -> None:
    path = tmp_path / "kernels.hlb"
    path.write_bytes(made.read_bytes())
    helion.load_bundle(path, on_miss="error")
    os.truncate(path, 0)
    x, y = torch.randn(100), torch.randn(100)
    assert torch.allclose(model.add(x, y, alpha=0.5), 3 * x + 0.5 * y, atol=1e-5)


def test_a_call_that_is_not_in_it_is_an_error_before_anything_happens(made: Path, fresh) -> None:
    helion.load_bundle(made, on_miss="error")
    x = torch.zeros(65)
    gpu.reset()
    with pytest.raises(exc.BundleMiss, match="has no plan for these arguments"):
        model.in_place(x, 5)
    assert gpu.launches() == 0 and not x.any()


def test_a_call_that_is_not_in_it_warns_and_is_compiled(made: Path, fresh) -> None:
    helion.load_bundle(made, on_miss="warn")
    with pytest.warns(exc.BundleMissWarning, match="no plan for these arguments"):
        model.add(torch.ones(65), torch.ones(65))
    model.add(torch.ones(65), torch.ones(65))  # known by now: no second warning


def test_kernels_on_the_cpu_and_of_other_modules_are_none_of_its_business(made: Path, fresh) -> None:
    helion.load_bundle(made, on_miss="compile")
    x = torch.randn(65)
    assert torch.allclose(model.add(x, x), 4 * x)


def test_another_value_of_what_the_kernel_refers_to_is_another_kernel(made: Path, fresh, monkeypatch) -> None:
    helion.load_bundle(made, on_miss="error")
    monkeypatch.setattr(model, "FACTOR", 4.0)
    with pytest.raises(exc.BundleMiss, match="its source, settings, configs or captured values are others"):
        model.add(torch.ones(100), torch.ones(100), 2.0)
    monkeypatch.setattr(model, "FACTOR", 3.0)
    assert torch.equal(model.add(torch.ones(100), torch.ones(100), 2.0), torch.full((100,), 5.0))


def test_another_helper_is_another_kernel(made: Path, fresh, monkeypatch) -> None:
    helion.load_bundle(made, on_miss="error")
    monkeypatch.setattr(model, "scaled", lambda value: value * model.FACTOR)
    with pytest.raises(exc.BundleMiss, match="its source"):
        model.add(torch.ones(100), torch.ones(100), 2.0)


def made_with(factor: float, where: str) -> helion.Kernel:
    """A kernel that captures a number, which counts in device code or in host code."""

    @helion.kernel(config=model.SMALL)
    def on_device(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * factor
        return out

    @helion.kernel(config=model.SMALL)
    def on_host(x: torch.Tensor) -> torch.Tensor:
        y = x * factor
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = y[tile]
        return out

    return on_device if where == "device" else on_host


@pytest.mark.parametrize("where", ["device", "host"])
def test_kernels_that_one_function_makes_are_told_apart_by_what_they_captured(where: str, fresh, tmp_path) -> None:
    two, three = made_with(2.0, where), made_with(3.0, where)
    x = torch.randn(64)
    helion.bundle([two, three], {two: [(x,)], three: [(x,)]}, tmp_path / "k.hlb", capabilities=[90])
    loaded = helion.load_bundle(tmp_path / "k.hlb", on_miss="error")
    assert loaded.kernels == (two.stats.name, f"{two.stats.name}#2")
    for factor in (3.0, 2.0):
        assert torch.equal(made_with(factor, where)(x), factor * x)
    assert loaded.served == 2
    with pytest.raises(exc.BundleMiss, match="captured values are others"):
        made_with(4.0, where)(x)


def test_a_number_that_host_code_computes_with_counts_by_value(fresh, tmp_path) -> None:
    @helion.kernel(config=model.SMALL)
    def first(x: torch.Tensor, count: int) -> torch.Tensor:
        out = x.new_empty(count * 2)
        for tile in hl.tile(count * 2):
            out[tile] = x[tile]
        return out

    first.stats.name = first.stats.name.replace("<locals>.", "")
    helion.bundle(first, [(torch.zeros(64), 8)], tmp_path / "k.hlb", capabilities=[90])
    helion.load_bundle(tmp_path / "k.hlb", on_miss="error")
    x = torch.randn(64)
    assert torch.equal(first(x, 8), x[:16])
    with pytest.raises(exc.BundleMiss):
        first(x, 24)  # like 8 for Triton, but not for torch.empty


def test_a_dict_that_host_code_returns_is_made_anew(fresh, tmp_path) -> None:
    @helion.kernel(config=model.SMALL)
    def first(x: torch.Tensor) -> dict[str, object]:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] + 1
        return {"out": out, "given": x, "sizes": [x.size(0), {"rows": out.view(8, -1)}]}

    first.stats.name = first.stats.name.replace("<locals>.", "")
    x = torch.randn(64)
    helion.bundle(first, [(x,)], tmp_path / "k.hlb", capabilities=[90])
    helion.load_bundle(tmp_path / "k.hlb", on_miss="error")
    one, other = first(x), first(x)
    assert one is not other and list(one) == ["out", "given", "sizes"] and one["given"] is x
    assert torch.equal(one["out"], x + 1) and torch.equal(one["sizes"][1]["rows"], (x + 1).view(8, -1))
    assert one["sizes"][0] == 64 and first.plan_hits >= 1


def test_what_a_key_function_says_counts(fresh, tmp_path) -> None:
    @helion.kernel(config=model.SMALL, key=lambda x, alpha: alpha > 2)
    def first(x: torch.Tensor, alpha: float) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] + alpha
        return out

    first.stats.name = first.stats.name.replace("<locals>.", "")
    x = torch.randn(64)
    helion.bundle(first, [(x, 1.0)], tmp_path / "k.hlb", capabilities=[90])
    helion.load_bundle(tmp_path / "k.hlb", on_miss="error")
    assert torch.equal(first(x, 1.5), x + 1.5)
    with pytest.raises(exc.BundleMiss, match="no plan for these arguments"):
        first(x, 3.0)


def test_a_kernel_that_refers_to_what_cannot_be_compared_is_refused_with_what_it_is(tmp_path) -> None:
    lock = threading.Lock()

    @helion.kernel(config=model.SMALL)
    def refers(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] + (lock is None)
        return out

    with pytest.raises(exc.CannotBundle, match=r"it refers to a _thread\.lock, whose content"):
        helion.bundle(refers, [(torch.ones(64),)], tmp_path / "k.hlb", capabilities=[90])


def test_set_config_and_reset_are_stronger_than_the_bundle(made: Path, fresh) -> None:
    helion.load_bundle(made)
    args = (torch.ones(100), torch.ones(100), 2.0)
    model.add(*args)
    assert not model.add._bound
    model.add.bind(args).set_config(helion.Config(block_sizes=[64]))
    assert torch.equal(model.add(*args), torch.full((100,), 5.0))
    layers = model.add.stats.snapshot().layers
    assert sum(layers.values()) - layers.get("plan", 0) >= 1, layers
    model.softmax.reset()
    model.softmax(torch.randn(8, 33))
    assert model.softmax._bound


def test_a_tuned_config_is_stronger_than_the_bundle(made: Path, fresh) -> None:
    helion.load_bundle(made)
    args = (torch.ones(100), torch.ones(100), 2.0)
    model.add(*args)
    configs = [helion.Config(block_sizes=[64])]
    model.add.autotune(args, configs=configs, isolate=False, progress_bar=False, effort="quick")
    before = model.add.stats.snapshot().layers.get("plan", 0)
    assert torch.equal(model.add(*args), torch.full((100,), 5.0))
    assert model.add.stats.snapshot().layers.get("plan", 0) == before


def test_a_plan_that_declines_leaves_the_call_to_host_code(made: Path, fresh) -> None:
    helion.load_bundle(made)
    x = torch.randn(8, 6).t()
    expected = (x.contiguous().view(-1) * 2).double()
    assert torch.equal(model.of_contiguous(x), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # a plan with operations of PyTorch's has no casts
        for _ in range(3):
            assert torch.equal(model.of_contiguous(x), expected)


def test_inference_tensors_and_parameters_without_grad_mode_are_served(made: Path, fresh) -> None:
    helion.load_bundle(made, on_miss="error")
    with torch.inference_mode():
        x = torch.randn(8, 33)
        assert torch.allclose(model.softmax(x), torch.softmax(x, -1), atol=1e-6)
    weight = torch.nn.Parameter(torch.randn(8, 33))
    with torch.no_grad():
        result = model.softmax(weight)
    assert torch.allclose(result, torch.softmax(weight, -1), atol=1e-6) and not result.requires_grad


def test_threads_that_call_first_at_the_same_time_are_all_served(made: Path, fresh) -> None:
    helion.load_bundle(made, on_miss="error")
    x = torch.randn(8, 33)
    results: list[torch.Tensor] = []
    start = threading.Barrier(8)

    def call() -> None:
        start.wait()
        results.append(model.softmax(x))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8 and all(torch.equal(result, results[0]) for result in results)


def test_arguments_that_overlap_are_not_served_by_a_plan_for_others(fresh, tmp_path) -> None:
    @helion.kernel(config=model.SMALL)
    def shifted(x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] + 1
        return out

    helion.bundle(shifted, [(torch.zeros(64), torch.zeros(64))], tmp_path / "k.hlb", capabilities=[90])
    loaded = helion.load_bundle(tmp_path / "k.hlb", on_miss="error")
    assert torch.equal(shifted(torch.zeros(64), torch.zeros(64)), torch.ones(64))
    if next(iter(loaded._kernels.values())).apart:
        memory = torch.zeros(80)
        with pytest.raises(exc.BundleMiss, match="its arguments overlap"):
            shifted(memory[:64], memory[16:])


def test_another_gpu_is_refused_with_what_it_is_for(made: Path) -> None:
    gpu.install(80)
    try:
        with pytest.raises(exc.BundleMismatch, match="it is for sm_90, and the GPU is sm_80"):
            helion.load_bundle(made)
    finally:
        gpu.uninstall()


def test_binaries_of_an_earlier_minor_version_run_below_9_0_alone() -> None:
    assert load._fitting({80, 90}, 89) == 80 and load._fitting({80, 86}, 89) == 86
    assert load._fitting({80}, 90) is None and load._fitting({90}, 100) is None and load._fitting({89}, 80) is None
    assert load._fitting({100}, 103) is None and load._fitting({90}, 90) == 90


def test_a_machine_without_a_gpu_or_without_the_extension_is_refused(made: Path, monkeypatch) -> None:
    with pytest.raises(exc.BundleMismatch, match="there is no GPU"):
        helion.load_bundle(made)
    monkeypatch.setattr(_extension, "C", None)
    with pytest.raises(exc.BundleMismatch, match="the extension is not in use"):
        helion.load_bundle(made)


@pytest.mark.parametrize("sms", [132, 114, 78])
def test_a_persistent_grid_is_bundled_for_each_gpu_of_a_capability(fresh, tmp_path, monkeypatch, sms: int) -> None:
    x = torch.randn(8000)  # 250 tiles
    report = helion.bundle(model.persistent, [(x,)], tmp_path / "k.hlb", capabilities=[90])
    assert (report.plans, report.binaries) == (1, 1)
    monkeypatch.setattr(device.get_provider(), "sm_count", lambda index: sms)
    loaded = helion.load_bundle(tmp_path / "k.hlb", on_miss="error")
    torch.testing.assert_close(model.persistent(x), x + 1)
    plans = loaded.manifest["kernels"]["tests.ship.bundled_model.persistent"]["plans"]
    grids = {plan["sms"]: plan["plan"]["steps"][0][2] for plan in plans}
    assert loaded.served == 1 and grids[sms] == [sms] and grids.keys() == {132, 114, 78}


def test_a_grid_for_another_number_of_multiprocessors_is_refused(fresh, tmp_path) -> None:
    x = torch.randn(1000)
    helion.bundle(model.persistent, [(x,)], tmp_path / "k.hlb", capabilities=[90], sms={90: [78, 60]})
    helion.load_bundle(tmp_path / "k.hlb", on_miss="error")
    advice = r"for 78 or 60 multiprocessors, and the GPU has 132: .* --sms 132, or sms=\{90: 132\}"
    with pytest.raises(exc.BundleMiss, match=advice):
        model.persistent(x)
    helion.bundle(model.persistent, [(x,)], tmp_path / "k2.hlb", capabilities=[90], sms={90: 132})
    helion.load_bundle(tmp_path / "k2.hlb", on_miss="error")
    torch.testing.assert_close(model.persistent(x), x + 1)


@pytest.mark.parametrize("sms", [0, [], [132, "60"], [True]])
def test_a_number_of_multiprocessors_that_cannot_be_is_refused(tmp_path, sms: object) -> None:
    with pytest.raises(exc.InvalidAPIUsage, match="sms has"):
        helion.bundle(model.persistent, [(torch.ones(4),)], tmp_path / "k.hlb", capabilities=[90], sms={90: sms})


def test_another_default_dtype_is_refused(made: Path, fresh) -> None:
    helion.load_bundle(made, on_miss="error")
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(exc.BundleMiss, match=r"default dtype torch\.float32"):
            model.softmax(torch.randn(8, 33, dtype=torch.float32))
    finally:
        torch.set_default_dtype(torch.float32)


def test_host_code_that_is_no_plan_is_refused_with_the_reason_or_left_out(tmp_path) -> None:
    examples = {model.loud: [(torch.ones(64),)], model.softmax: [(torch.ones(8, 33),)]}
    with pytest.raises(exc.CannotBundle, match=r"1 of 2 calls.*\n.*loud for sm_90: host code calls print\(\)"):
        helion.bundle(list(examples), examples, tmp_path / "k.hlb", capabilities=[90])
    assert not (tmp_path / "k.hlb").exists()
    report = helion.bundle(list(examples), examples, tmp_path / "k.hlb", capabilities=[90], strict=False)
    assert report.plans == 1 and "print()" in str(report)


def test_examples_on_the_cpu_may_not_decide_what_happens_on_a_gpu(tmp_path) -> None:
    @helion.kernel(config=model.SMALL)
    def asks(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x) if x.is_cuda else torch.zeros_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile]
        return out

    with pytest.raises(exc.CannotBundle, match=r"asks on which device|reads"):
        helion.bundle(asks, [(torch.ones(64),)], tmp_path / "k.hlb", capabilities=[90])


def test_real_binaries_are_made_for_every_capability_without_a_gpu(tmp_path) -> None:
    args = (torch.ones(8, 33),)
    report = helion.bundle(model.softmax, [args], tmp_path / "k.hlb", capabilities=[80, 89, 90, 100])
    loaded = load.LoadedBundle(tmp_path / "k.hlb", "error")
    assert report.binaries == 4 and loaded.capabilities == (80, 89, 90, 100)
    assert all(loaded._container.blob(i).startswith(b"\x7fELF") for i in range(4))


def test_what_a_call_needs_is_said_in_errors_of_the_api(tmp_path) -> None:
    with pytest.raises(exc.InvalidAPIUsage, match="no GPU here to compile for"):
        helion.bundle(model.softmax, [(torch.ones(8, 33),)], tmp_path / "k.hlb")
    with pytest.raises(exc.InvalidAPIUsage, match="has no examples"):
        helion.bundle([model.softmax, model.add], {model.add: [(1,)]}, tmp_path / "k.hlb", capabilities=[90])
    with pytest.raises(exc.InvalidAPIUsage, match="on_miss='maybe'"):
        helion.load_bundle(tmp_path / "k.hlb", on_miss="maybe")
    with pytest.raises(FileNotFoundError):
        helion.load_bundle(tmp_path / "k.hlb")


_SCRIPT = """
import sys
import torch
import helion
import helion.language as hl


@helion.kernel(config=helion.Config(block_sizes=[32]))
def twice(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] * 2
    return out


if __name__ == "__main__":
    for n in map(int, sys.argv[1:]):
        for _ in range(3):
            twice(torch.ones(n))
"""


def command(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HELION_CACHE_DIR": str(directory / "cache")}
    run = [sys.executable, "-m", "helion", "bundle", *arguments]
    return subprocess.run(run, capture_output=True, text=True, env=environment, timeout=300, cwd=directory)


@pytest.mark.spawns
def test_the_command_bundles_the_calls_of_a_program(tmp_path) -> None:
    (tmp_path / "program.py").write_text(_SCRIPT)
    result = command(tmp_path, "program.py", "64", "128", "-o", "k.hlb", "--capability", "90", "--capability", "80")
    assert result.returncode == 0, result.stderr
    loaded = load.LoadedBundle(tmp_path / "k.hlb", "error")
    assert loaded.kernels == ("__main__.twice",) and loaded.capabilities == (80, 90)
    assert len(loaded._kernels["__main__.twice"].plans) == 4


def test_the_command_lists_the_calls_and_bundles_a_list(tmp_path, monkeypatch) -> None:
    (tmp_path / "listed_kernels.py").write_text(_SCRIPT)
    (tmp_path / "main.py").write_text("import torch, listed_kernels\nlisted_kernels.twice(torch.ones(64))\n")
    monkeypatch.chdir(tmp_path)
    try:
        assert command_line.main(["bundle", "main.py", "--record", "calls.json"]) == 0
        calls = json.loads((tmp_path / "calls.json").read_text())["calls"]
        assert calls == [{"kernel": "listed_kernels.twice", "args": [["tensor", "float32", [64], [1], False]]}]
        assert command_line.main(["bundle", "calls.json", "-o", "k.hlb", "--capability", "90"]) == 0
    finally:
        sys.modules.pop("listed_kernels", None)
    assert load.LoadedBundle(tmp_path / "k.hlb", "error").kernels == ("listed_kernels.twice",)


def test_numbers_that_host_code_decides_by_are_calls_of_their_own(tmp_path, monkeypatch) -> None:
    factor = "    factor = 2.0 if n == 4 else 3.0\n    out ="
    text = _SCRIPT.replace("x: torch.Tensor)", "x: torch.Tensor, n: int)").replace("    out =", factor, 1)
    (tmp_path / "deciding_kernels.py").write_text(text.replace("* 2", "* factor"))
    calls = "".join(f"twice(x, {n})\n" for n in (3, 4, 5, 4))
    (tmp_path / "main.py").write_text(f"import torch\nfrom deciding_kernels import twice\nx = torch.ones(64)\n{calls}")
    monkeypatch.chdir(tmp_path)
    try:
        assert command_line.main(["bundle", "main.py", "--record", "calls.json"]) == 0
    finally:
        sys.modules.pop("deciding_kernels", None)
    found = json.loads((tmp_path / "calls.json").read_text())["calls"]
    assert [call["args"][1] for call in found] == [["int", 3], ["int", 4], ["int", 5]]


@pytest.mark.parametrize("name", ["nothing.py", "no.such.module", "nothing"])
def test_a_program_that_is_not_there_is_an_error(capsys, name: str) -> None:
    assert command_line.main(["bundle", name, "--capability", "90"]) == 1
    assert f"error: there is no script or module {name}" in capsys.readouterr().err


def test_without_a_gpu_a_capability_is_asked_for_before_the_program_runs(tmp_path, capsys) -> None:
    (tmp_path / "program.py").write_text("raise AssertionError\n")
    assert command_line.main(["bundle", str(tmp_path / "program.py")]) == 1
    assert "--capability 90" in capsys.readouterr().err


def test_the_command_says_what_is_wrong(tmp_path, capsys) -> None:
    (tmp_path / "program.py").write_text("print(1)\n")
    assert command_line.main(["bundle", str(tmp_path / "program.py"), "--capability", "90"]) == 1
    assert "called no kernel" in capsys.readouterr().err
