"""Messages of errors, against the golden file, and what holds for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import error_gallery
from tests.error_gallery import CASES
from tests.error_gallery import GOLDEN
from tests.error_gallery import message_of

#: Calls without a kernel function of their own: there is no line of the user's to show.
WITHOUT_PLACE = {
    "device code outside of a kernel",
    "an unknown setting",
    "a bad value of a setting",
}


def test_gallery_is_the_golden_file() -> None:
    expected = GOLDEN.read_text(encoding="utf-8")
    assert error_gallery.gallery() == expected, "after a wanted change: python -m tests.error_gallery"


@pytest.mark.parametrize("title", CASES)
def test_message_has_place_caret_and_advice(title: str) -> None:
    message = message_of(title)
    assert "What to do: " in message
    if title in WITHOUT_PLACE:
        return
    lines = message.splitlines()
    places = [i for i, line in enumerate(lines) if line.startswith('  File "error_gallery.py", line ')]
    assert len(places) == 1, message
    source, caret = lines[places[0] + 1], lines[places[0] + 2]
    assert source.strip() in Path(error_gallery.__file__).read_text(encoding="utf-8")
    assert set(caret.strip()) == {"^"}
    assert len(caret) <= len(source), "the caret stands under the source line"


@pytest.mark.parametrize("title", CASES)
def test_message_names_no_internal_symbol(title: str) -> None:
    first = message_of(title).splitlines()[0]
    for word in ("FakeTensor", "SymInt", "aten.", "Traced", "s44", "u0"):
        assert word not in first
