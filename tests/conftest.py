"""For all tests: caches of their own, seeded random numbers, and the software GPU's fixture and hooks."""

from __future__ import annotations

import gc
import logging
import os
import random
from collections.abc import Generator
from collections.abc import Iterator

import pytest
import torch

from tests import caches
from tests import softgpu
from tests.softgpu import storages

pytest_plugins = ["tests.groups", "tests.quick", "tests.softgpu.pytest_plugin", "tests.sweep_summary"]

# Before any test module makes a tensor: fresh memory is poison, and the software GPU knows every tensor's storage.
storages.install()

# One thread for PyTorch, here and in the processes that tests start: with workers beside one another on all cores, a
# product of 64x64 waits 50 ms for its threads.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# PyTorch writes its structured trace log, a stack trace for each symbol of a shape, where anybody listens: pytest does.
_trace_log = logging.getLogger("torch.__trace")
_trace_log.handlers.clear()
_trace_log.addHandler = lambda hdlr: None  # type: ignore[method-assign]

# Before each phase of each test pytest adds handlers to every logger that hands nothing on, and PyTorch has sixty.
for _name in list(logging.root.manager.loggerDict):
    if _name.startswith("torch") and _name != "torch.__trace":
        logging.getLogger(_name).propagate = True

# On a GPU a kernel without a config would be tuned at its first call: for minutes, in every test.  Set before test
# modules make their kernels; tests of the autotuner ask for an effort.
if torch.cuda.is_available():
    os.environ.setdefault("HELION_AUTOTUNE_EFFORT", "none")

# Every IR of every test is checked for being well-formed.
os.environ.setdefault("HELION_VERIFY_IR", "1")


@pytest.fixture(scope="session", autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Generated code of this run goes to a directory shared by its worker processes only, Triton's binaries to where
    those of earlier runs are; nothing is tuned unasked.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    base = tmp_path_factory.getbasetemp()
    base = base.parent if worker else base
    names = ("HELION_CACHE_DIR", "TRITON_CACHE_DIR", "HELION_AUTOTUNE_EFFORT", "HELION_PLAN_CACHE")
    saved = {name: os.environ.get(name) for name in names}
    os.environ["HELION_PLAN_CACHE"] = "0"  # each test's first call is to be traced, though another has the same kernel
    os.environ["HELION_AUTOTUNE_EFFORT"] = (
        "none"  # on a GPU, kernels without a config would be tuned at their first call
    )
    os.environ["HELION_CACHE_DIR"] = str(base / "helion_cache")
    os.environ["TRITON_CACHE_DIR"] = str(caches.triton_cache())
    yield
    for name, value in saved.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(scope="session", autouse=True)
def imports_frozen(request: pytest.FixtureRequest, own_caches: None, prepared: None) -> None:
    """In a worker, what was imported stays: the collector need not go through it, a third of a second each time, which
    was most of what tests of lifetimes took.  Unasked it comes less often: traces make many objects, few in cycles.
    """
    if hasattr(request.config, "workerinput") and not torch.cuda.is_available():
        softgpu.install()  # it looks for what there is among all objects, which does not show those that are frozen
        softgpu.uninstall()
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 10, 20)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is made while tests are collected stays: the collector's rounds through it were an eighth of that time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_sessionfinish(session: pytest.Session) -> None:
    # A quick run compiles nothing, and going through thousands of folders takes seconds.
    if not hasattr(session.config, "workerinput") and not session.config.getoption("quick"):
        caches.prune(caches.triton_cache())
        caches.prune(caches.cute_cache() / "cute")


@pytest.fixture
def seed() -> int:
    """The seed of this test's random numbers, printed when it fails. Set HELION_TEST_SEED to repeat a failure."""
    number = int(os.environ.get("HELION_TEST_SEED", "") or int.from_bytes(os.urandom(4), "little"))
    print(f"HELION_TEST_SEED={number}")
    torch.manual_seed(number)
    random.seed(number)
    return number
