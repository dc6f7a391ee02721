"""docs/configs.md lists every key of a Config."""

from __future__ import annotations

from pathlib import Path

from helion.config_keys import KEYS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configs.md"


def test_every_key_has_a_row() -> None:
    page = PAGE.read_text()
    missing = [key for key in KEYS if f"`{key}`" not in page and not key.startswith("tcgen05_")]
    assert not missing, missing
