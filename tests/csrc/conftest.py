"""Tests of helion._C need it built: ``python setup.py build_ext --inplace``."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from helion.runtime import code_cache
from tests.extension import required_extension

#: Set by run_sanitized.py, whose build of the extension can do without a guard: only tests that are marked with a
#: guard's name run, without that guard, and each has to fail.
WITHOUT_GUARDS = os.environ.get("HELION_TEST_WITHOUT_GUARDS") == "1"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "guard(name): the test fails when this guard of csrc/ is taken out")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "make" in getattr(item, "fixturenames", ()):  # its kernels are Triton's
            item.add_marker(pytest.mark.compiles)
    if WITHOUT_GUARDS:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("guard") is None])
        items[:] = [item for item in items if item.get_closest_marker("guard") is not None]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    mark = pyfuncitem.get_closest_marker("guard")
    if not WITHOUT_GUARDS or mark is None:
        return (yield)
    (name,) = mark.args
    os.environ["HELION_TEST_WITHOUT_GUARD"] = name
    try:
        yield
    except (Exception, pytest.fail.Exception):  # whatever the test notices
        return True
    finally:
        del os.environ["HELION_TEST_WITHOUT_GUARD"]
    raise AssertionError(f"passes without the guard {name!r}")


@pytest.fixture
def C():
    return required_extension()


@pytest.fixture
def make(C, softgpu, tmp_path, monkeypatch):
    """Class of kernels with a hand-written host function, on the software GPU."""
    from .support import kernel_class

    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path))
    code_cache.clear_modules()
    yield kernel_class()
    code_cache.clear_modules()
