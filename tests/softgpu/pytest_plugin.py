"""The ``softgpu`` marker and fixture: a test body that runs on the software GPU, or on a real one where there is one.

    @pytest.mark.softgpu(capability=[80, 90, 100])
    def test_something(softgpu):
        x = torch.randn(1000, device=softgpu.device)
        ...

The fixture installs the software GPU in a fresh state (zero counters, no faults, no injections) and takes it away after
the test. Marker arguments are those of ``softgpu.install``; a list of capabilities makes one test of each;
``subprocess=True`` runs the test in a process of its own; ``software_only=True`` keeps it off a real GPU, which a test
of faults, say, would wreck. On a real GPU the test runs once, with that GPU's capability.

Imported by ``tests/conftest.py``, which makes these hooks known to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from . import coverage

_CHILD = "SOFTGPU_TEST_CHILD"


@dataclass(frozen=True)
class TestGpu:
    """What the fixture gives a test.

    Attributes:
        device: where to put tensors.
        capability: 10 * major + minor.
        software: whether it is the software GPU.
    """

    __test__ = False

    device: torch.device
    capability: int
    software: bool

    def synchronize(self) -> None:
        if not self.software:
            torch.cuda.synchronize()


def _marker_arguments(node: Any) -> dict[str, Any]:
    marker = node.get_closest_marker("softgpu")
    return dict(marker.kwargs) if marker is not None else {}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        (
            "softgpu(capability=90, devices=1, execute=True, subprocess=False, software_only=False, ...): see "
            "tests/softgpu/pytest_plugin.py"
        ),
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "softgpu" not in metafunc.fixturenames:
        return
    arguments = _marker_arguments(metafunc.definition)
    if torch.cuda.is_available() and not arguments.get("software_only"):
        capabilities = [None]
    else:
        wanted = arguments.get("capability", 90)
        capabilities = list(wanted) if isinstance(wanted, (list, tuple)) else [wanted]
    ids = ["gpu" if c is None else f"sm_{c}" for c in capabilities]
    metafunc.parametrize("softgpu", capabilities, indirect=True, ids=ids)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a GPU, leave out what needs a real one.  With one, leave out what only the software GPU can run: the two
    drivers do not share a process.

    That is what is marked so, what needs more GPUs than there are, and what needs a newer GPU.
    """
    if not torch.cuda.is_available():
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("real_gpu")])
        items[:] = [item for item in items if not item.get_closest_marker("real_gpu")]
        return
    major, minor = torch.cuda.get_device_capability()

    def runs_here(item: pytest.Item) -> bool:
        real = item.get_closest_marker("real_gpu")
        wanted = _marker_arguments(item) if real is None else {"capability": 80, **real.kwargs}
        capability = wanted.get("capability", 90)
        oldest = min(capability) if isinstance(capability, (list, tuple)) else capability
        if wanted.get("software_only") or wanted.get("devices", 1) > torch.cuda.device_count():
            return False
        return oldest <= 10 * major + minor

    config.hook.pytest_deselected(items=[item for item in items if not runs_here(item)])
    items[:] = [item for item in items if runs_here(item)]


@pytest.fixture
def softgpu(request: pytest.FixtureRequest) -> Iterator[TestGpu]:
    """A GPU to run a test on; see the module's docstring."""
    arguments = _marker_arguments(request.node)
    if request.param is None:
        major, minor = torch.cuda.get_device_capability()
        yield TestGpu(torch.device("cuda"), 10 * major + minor, False)
        return
    from tests import softgpu as gpu

    for name in ("capability", "subprocess", "software_only"):
        arguments.pop(name, None)
    gpu.install(request.param, **arguments)
    try:
        yield TestGpu(torch.device("cpu"), request.param, True)
        unknown = gpu.unknown_entry_points()
        assert not unknown, f"driver functions called but not implemented: {unknown}"
    finally:
        gpu.reset()
        gpu.uninstall()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a ``subprocess=True`` test in a pytest of its own; its failure is ours, with its output."""
    if not _marker_arguments(pyfuncitem).get("subprocess") or os.environ.get(_CHILD):
        return None
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", pyfuncitem.nodeid]
    environment = {**os.environ, _CHILD: "1"}
    with tempfile.TemporaryDirectory() as scratch:
        record = Path(scratch, "coverage.json")
        if os.environ.get(coverage.VARIABLE):
            environment[coverage.VARIABLE] = str(record)
        result = subprocess.run(
            command, cwd=pyfuncitem.config.rootpath, env=environment, capture_output=True, text=True, check=False
        )
        if record.exists():
            _recorder.add(record.read_text())
    if result.returncode:
        pytest.fail(f"in a process of its own ({result.returncode}):\n{result.stdout}{result.stderr}", pytrace=False)
    return True


# ---- opcode coverage: see coverage.py --------------------------------------------------------------------------------
_recorder = coverage.Recorder()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    if os.environ.get(coverage.VARIABLE):
        _recorder.after(item.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if os.environ.get(coverage.VARIABLE) and hasattr(session.config, "workeroutput"):
        session.config.workeroutput["softgpu_coverage"] = _recorder.to_json()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take what one of xdist's workers recorded."""
    text = getattr(node, "workeroutput", {}).get("softgpu_coverage")
    if text:
        _recorder.add(text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the report and print its summary."""
    path = os.environ.get(coverage.VARIABLE)
    if not path or hasattr(config, "workeroutput") or not _recorder.tests:
        return
    if os.environ.get(_CHILD):  # the test that is run here belongs to its parent's record
        Path(path).write_text(_recorder.to_json())
        return
    report = coverage.Report.of(_recorder)
    report.write(Path(path))
    terminalreporter.section("opcodes of the software GPU")
    for line in report.summary():
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"every opcode with its test: {path}")
