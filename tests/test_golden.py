"""The generated source of every example is what it was: a change of it is seen, and explained where it is committed."""

from __future__ import annotations

import pytest

from tests.golden.regenerate import ALL
from tests.golden.regenerate import FOLDER
from tests.golden.regenerate import golden_text


@pytest.mark.parametrize("name", ALL)
def test_generated_source_is_the_golden_one(name: str) -> None:
    golden = (FOLDER / f"{name}.txt").read_text()
    assert golden_text(name, golden) == golden, "if the change is meant: python -m tests.golden.regenerate"


def test_every_golden_file_is_of_an_example() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(ALL)
