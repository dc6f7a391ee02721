"""``--quick``: the tests that need no compiler and no second process, for the minutes between two edits.

Left out are tests marked ``compiles`` (with Triton or the CuTe toolkit), ``spawns`` (starts a process) and ``slow``
(takes seconds of its own), and, in those that stay, the runs of generated code: ``run_everywhere`` generates the source
and runs the kernel on CPU tensors only. What was left out is counted at the end of the run.

A test that forgot its mark is stopped where it would compile or start a process, counts as left out, and is named at
the end with the mark that it wants.

``--sweep``: the rest of the sweeps, of which the suite takes samples: tests marked ``sweep``, which run only then
(``make sweep``, most of an hour). Imported by ``tests/conftest.py``, which makes these hooks known to pytest.
"""

from __future__ import annotations

import multiprocessing.process
import sys
from collections import Counter
from collections.abc import Callable
from collections.abc import Generator
from typing import Any
from typing import NoReturn

import pytest
import torch

from tests import softgpu

#: Marks of tests that a quick run leaves out, with what they say.
MARKS = {
    "compiles": "compiles a kernel with Triton or the CuTe toolkit",
    "spawns": "starts a process",
    "slow": "takes seconds, alone or with others of its file, though it neither compiles nor starts a process",
}

#: Audit events that come before a new process; https://docs.python.org/3/library/audit_events.html
_SPAWNING = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec"})


class Quick:
    """A quick run: what it leaves out, and the watch over what it runs."""

    def __init__(self) -> None:
        self.marked: Counter[str] = Counter()
        self.shortened: Counter[str] = Counter()
        self.unmarked: Counter[str] = Counter()
        self.watching = False
        self.test = ""
        self.violation: str | None = None

    def forbid(self, what: str, mark: str) -> NoReturn:
        self.violation = f"this test {what}: mark it @pytest.mark.{mark}"
        self.unmarked[f"{self.test.partition('[')[0]} {what}: mark it @pytest.mark.{mark}"] += 1
        pytest.skip(self.violation)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _SPAWNING and self.watching:
            self.forbid(f"starts a process ({event} of {arguments[0] if arguments else ''!r:.100})", "spawns")

    def instead_of(self, compiler: Callable[..., Any], name: str) -> Callable[..., Any]:
        def compile(*args: Any, **kwargs: Any) -> Any:
            if self.watching:
                self.forbid(f"compiles a kernel with {name}", "compiles")
            return compiler(*args, **kwargs)

        return compile

    def install(self) -> None:
        """Watch, from here to the end of the process, what tests do."""
        import triton.compiler

        from helion.backends.cute import _compat

        triton.compile = triton.compiler.compile = self.instead_of(triton.compiler.compile, "Triton")
        _compat.compile_entry = self.instead_of(_compat.compile_entry, "the CuTe toolkit")
        process = multiprocessing.process.BaseProcess
        start = process.start

        def start_process(started: multiprocessing.process.BaseProcess) -> None:
            self.audit("subprocess.Popen", (started.name,))
            start(started)

        process.start = start_process  # type: ignore[method-assign]  # it starts interpreters without an audit event
        sys.addaudithook(self.audit)


@pytest.fixture(scope="session", autouse=True)
def prepared(own_caches: None) -> None:
    """What the first test on the software GPU would start processes for: the compilers of its library and of Triton's
    module for the driver, where they are not built, and `file`, which Triton asks about this Python.
    """
    if run is not None and not torch.cuda.is_available():
        watching, run.watching = run.watching, False
        softgpu.install()
        softgpu.uninstall()
        run.watching = watching


#: The quick run of this process, if it is one.
run: Quick | None = None


def leave_out(what: str) -> bool:
    """Whether this is a quick run, in which a test should not do `what`; counted for the summary."""
    if run is None:
        return False
    run.shortened[what] += 1
    return True


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out tests that compile, start processes or take long")
    parser.addoption("--sweep", action="store_true", help="run the tests marked sweep, and no others")


def pytest_configure(config: pytest.Config) -> None:
    for name, meaning in MARKS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}; left out by --quick")
    config.addinivalue_line("markers", "sweep: what the suite takes a sample of; run by --sweep only")
    if config.getoption("quick"):
        global run
        run = Quick()
        run.install()


def _mark_of(item: pytest.Item) -> str | None:
    """The first mark of a test for which a quick run leaves it out."""
    gpu = item.get_closest_marker("softgpu")
    if gpu is not None and gpu.kwargs.get("subprocess"):
        return "spawns"
    return next((mark for mark in MARKS if item.get_closest_marker(mark)), None)


@pytest.hookimpl(trylast=True)  # after those who mark tests by the fixtures that they ask for
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    sweeping = config.getoption("sweep")
    config.hook.pytest_deselected(items=[i for i in items if bool(i.get_closest_marker("sweep")) is not sweeping])
    items[:] = [i for i in items if bool(i.get_closest_marker("sweep")) is sweeping]
    if run is None:
        return
    marks = [_mark_of(item) for item in items]
    run.marked.update(mark for mark in marks if mark is not None)
    config.hook.pytest_deselected(items=[item for item, mark in zip(items, marks) if mark is not None])
    items[:] = [item for item, mark in zip(items, marks) if mark is None]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if run is None:
        return (yield)
    run.watching, run.violation, run.test = True, None, item.nodeid
    try:
        return (yield)
    finally:
        run.watching = False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Leave out a test that went on after it was told to stop, in another thread, say, or failed for it."""
    try:
        result = yield
    except BaseException:
        if run is None or run.violation is None:
            raise
    if run is not None and run.violation is not None:
        pytest.skip(run.violation)
    return result


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if run is not None and output is not None:
        output["quick"] = (dict(run.marked), dict(run.shortened), dict(run.unmarked))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take what one of xdist's workers counted: each of them collects every test, and runs some."""
    if run is not None and "quick" in getattr(node, "workeroutput", {}):
        marked, shortened, unmarked = node.workeroutput["quick"]
        run.marked = Counter(marked)
        run.shortened.update(shortened)
        run.unmarked.update(unmarked)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if run is None or hasattr(config, "workeroutput"):
        return
    terminalreporter.section("left out by --quick")
    for mark, count in run.marked.most_common():
        terminalreporter.write_line(f"{count:5} tests marked {mark}: {MARKS[mark]}")
    for what, count in run.shortened.most_common():
        terminalreporter.write_line(f"{count:5} times, in tests that ran: {what}")
    for test, count in sorted(run.unmarked.items()):
        terminalreporter.write_line(f"{count:5} times stopped on its way: {test}")
    terminalreporter.write_line("`make test` has them all")
