"""The site: every page is in its navigation, the page it begins with runs, and links between pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def test_every_page_is_in_the_navigation_once() -> None:
    nav = (DOCS.parent / "mkdocs.yml").read_text().partition("\nnav:")[2]
    # The tutorial's page is made of its notebook.
    assert sorted(re.findall(r": (\w+\.md)", nav)) == sorted(["tutorial.md", *(page.name for page in PAGES)])


def _anchor(heading: str) -> str:
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_pages_and_headings_that_are_there(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            headings = {_anchor(h) for h in re.findall(r"^#+ (.*)$", linked.read_text(), flags=re.M)}
            assert anchor in headings, target


def test_the_first_page_runs(tmp_path) -> None:
    block = re.search(r"```python\n(.*?)```", (DOCS / "index.md").read_text(), re.S)
    assert block is not None
    path = tmp_path / "index.py"
    path.write_text(block.group(1) + "\nx = torch.randn(7, 9)\nresult = add(x, x)\n")
    names: dict[str, object] = {"__name__": "index"}
    exec(compile(path.read_text(), str(path), "exec"), names)
    assert torch.equal(names["result"], 2 * names["x"])  # type: ignore[arg-type,operator]  # both are tensors
