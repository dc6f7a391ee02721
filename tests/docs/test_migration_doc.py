"""Every block of docs/migration.md runs as it stands: here in the tile executor, in ref mode and on a GPU, in Triton on
that GPU, where both give the same.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.filterwarnings("ignore::helion.exc.NoConfigGiven")

_PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text(encoding="utf-8")
_FENCES = re.findall(r"^```python([^\n]*)\n(.*?)^```$", _PAGE, re.MULTILINE | re.DOTALL)
HEADER = next(source for kind, source in _FENCES if kind == " header")
#: Heading -> the block in Triton and the one here.
IDIOMS: dict[str, dict[str, str]] = {
    section.partition("\n")[0]: dict(re.findall(r"^```python([^\n]*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))
    for section in re.split(r"^### ", _PAGE.partition("\n### Elements\n")[2], flags=re.MULTILINE)
}
IDIOMS["Elements"] = IDIOMS.pop("")


def paste(source: str, path: Path) -> Any:
    """Import a block after the header, as a module of its own: kernels are read from files."""
    path.write_text(f"{HEADER}\ntorch.manual_seed(0)\n{source}", encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_block_of_the_page_is_one_of_ten_pairs() -> None:
    assert len(IDIOMS) == 10 and all(list(blocks) == [" triton", ""] for blocks in IDIOMS.values())
    assert len(_FENCES) == 21


@pytest.mark.parametrize("interpret", ["0", "1"], ids=["tiles", "ref"])
@pytest.mark.parametrize("idiom", IDIOMS)
def test_here(idiom: str, interpret: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELION_INTERPRET", interpret)
    paste(IDIOMS[idiom][""], tmp_path / "here.py")


@pytest.mark.softgpu(capability=90)
@pytest.mark.compiles
@pytest.mark.parametrize("idiom", IDIOMS)
def test_in_triton_and_here_on_a_gpu(idiom: str, tmp_path: Path, softgpu: Any) -> None:
    there = paste(IDIOMS[idiom][" triton"], tmp_path / "in_triton.py")
    here = paste(IDIOMS[idiom][""], tmp_path / "here.py")
    if idiom == "Random numbers":  # the same ones, as the page says
        assert torch.equal(here.dropout(there.x, 0.25, 7), there.out)
