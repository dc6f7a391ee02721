"""The tutorial's notebook runs on the CPU, prints what it says, and is a page of the site."""

from __future__ import annotations

import json
import re

from tools import run_tutorial
from tools import site_pages

NOTEBOOK = json.loads(run_tutorial.NOTEBOOK.read_text())


def test_every_cell_runs_and_prints_what_the_notebook_shows() -> None:
    # Generated source changes with the compiler; all else is to be as it stands.
    for said, shown in zip(run_tutorial.run(NOTEBOOK), run_tutorial.recorded(NOTEBOOK), strict=True):
        assert said == shown or "@triton.jit" in said, "python -m tools.run_tutorial"


def test_it_is_a_notebook_that_jupyter_opens() -> None:
    assert NOTEBOOK["nbformat"] == 4 and NOTEBOOK["nbformat_minor"] >= 5
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])


def test_links_to_examples_and_the_notebook_are_pages_of_the_site() -> None:
    pages = site_pages.pages()
    text = site_pages.relinked((run_tutorial.NOTEBOOK.parent / "examples.md").read_text())
    linked = re.findall(r"\]\((examples/\w+\.md)\)", text)
    assert len(linked) > 40 and set(linked) <= set(pages) and "](../" not in text
    assert "```python\nimport torch" in pages["tutorial.md"] and "right" in pages["tutorial.md"]
