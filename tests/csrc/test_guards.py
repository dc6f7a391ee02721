"""The table of guards (helion/runtime/launch/guards.py) and what stands in csrc/ and in the tests."""

from __future__ import annotations

import re
from pathlib import Path

from helion.runtime.launch.guards import GUARDS

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
IN_C = {guard.name for guard in GUARDS if guard.c}


def test_every_guard_has_a_name_of_its_own() -> None:
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)


def test_the_extension_has_the_guards_that_the_table_says() -> None:
    text = "".join(path.read_text() for path in CSRC.glob("*.*"))
    assert set(re.findall(r'HELION_GUARD\("(\w+)"', text)) == IN_C


def test_every_guard_of_the_extension_has_a_test_that_is_run_without_it() -> None:
    text = "".join(path.read_text() for path in HERE.glob("test_*.py"))
    assert set(re.findall(r'mark\.guard\("(\w+)"\)', text)) == IN_C


def test_a_guard_that_python_has_elsewhere_says_where() -> None:
    assert [guard.name for guard in GUARDS if not guard.python and not guard.elsewhere] == []
