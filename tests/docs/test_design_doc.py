"""The pages that describe the tree name files and names that are in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("helion", "csrc", "tests", "docs", "examples", "benchmarks", "tools")
#: A file by its ending, or a folder by the slash at its end.
PATH = re.compile(r"(?<![\w/.<-])(?:(?:[\w-]+/)*[\w-]+\.(?:py|pyi|cpp|h|md|toml)\b|(?:[\w-]+/)+(?![\w<{*]))")
#: Pages about the tree, whose file names may begin anywhere in it.
ABOUT_THE_TREE = ("CONTRIBUTING.md", "docs/design.md")
PAGES = sorted(str(page.relative_to(ROOT)) for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")))


def _tree() -> set[str]:
    files = [*ROOT.iterdir(), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
    return {str(path.relative_to(ROOT)) for path in files}


@pytest.mark.parametrize("page", PAGES)
def test_every_path_on_a_page_is_in_the_tree(page: str) -> None:
    tree = _tree()
    ends = {path[at:] for path in tree for at in (0, *(m.end() for m in re.finditer("/", path)))}
    found = {m.group().rstrip("/") for m in PATH.finditer((ROOT / page).read_text())}
    known = ends if page in ABOUT_THE_TREE else tree
    if page not in ABOUT_THE_TREE:  # others name files of users too
        found = {path for path in found if path.startswith(tuple(f"{folder}/" for folder in FOLDERS))}
    assert found <= known, found - known


def test_every_name_in_the_design_is_in_the_sources() -> None:
    text = re.sub(r"```.*?```", "", (ROOT / "docs" / "design.md").read_text(), flags=re.DOTALL)
    named = {word for code in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"[A-Za-z_]\w+", code)}
    sources = (p for folder in ("helion", "csrc", "tests") for p in (ROOT / folder).rglob("*") if p.is_file())
    words = {w for p in sources if p.suffix in (".py", ".cpp", ".h") for w in re.findall(r"\w+", p.read_text())}
    outside = {"gfx942", "hip"}  # of a GPU that nobody has brought yet
    assert named - outside <= words | {Path(path).stem for path in _tree()}, named - outside - words
