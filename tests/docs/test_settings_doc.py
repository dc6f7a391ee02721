"""docs/settings.md says what helion/settings.py says."""

from __future__ import annotations

from tools import write_settings_doc


def test_page_is_what_the_table_gives() -> None:
    assert write_settings_doc.TARGET.read_text() == write_settings_doc.text(), "run python -m tools.write_settings_doc"
