"""Tests marked ``xdist_group`` share something expensive, and run one after the other in one process.

pytest-xdist (3.8) says so by an ending of their node ids, in an attribute that pytest (from 9.2 on) does not read: the
groups were spread over all processes, and each of those built what they share. Here their node ids have the ending
while pytest-xdist is told of what there is to run. Imported by ``tests/conftest.py``, which makes the hook known to
pytest.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest


class _InGroup(pytest.Function):
    """A test whose node id ends with its group."""

    @property
    def nodeid(self) -> str:
        return f"{super().nodeid}@{group_of(self)}"


def group_of(item: pytest.Item) -> str:
    """The group of a test; empty if it is in none."""
    mark = item.get_closest_marker("xdist_group")
    return "" if mark is None else mark.args[0]


@pytest.hookimpl(wrapper=True)
def pytest_collection_finish(session: pytest.Session) -> Generator[None, object, object]:
    by_group = getattr(session.config.option, "loadgroup", False)
    grouped = [i for i in session.items if by_group and group_of(i) and not i.nodeid.endswith(f"@{group_of(i)}")]
    for item in grouped:
        assert type(item) is pytest.Function
        item.__class__ = _InGroup
    try:
        return (yield)
    finally:
        for item in grouped:
            item.__class__ = pytest.Function
