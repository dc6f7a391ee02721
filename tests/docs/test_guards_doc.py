"""docs/launch.md shows the table of guards as it is."""

from __future__ import annotations

from tools.write_guards_doc import TARGET
from tools.write_guards_doc import table


def test_the_page_shows_the_table_of_guards() -> None:
    assert table() in TARGET.read_text(), "run python -m tools.write_guards_doc"
