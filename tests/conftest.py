"""Fixtures and hooks of the whole test suite."""

from tests.softgpu.pytest_plugin import pytest_configure  # noqa: F401
from tests.softgpu.pytest_plugin import pytest_generate_tests  # noqa: F401
from tests.softgpu.pytest_plugin import pytest_pyfunc_call  # noqa: F401
from tests.softgpu.pytest_plugin import pytest_runtest_teardown  # noqa: F401
from tests.softgpu.pytest_plugin import pytest_sessionfinish  # noqa: F401
from tests.softgpu.pytest_plugin import softgpu  # noqa: F401
