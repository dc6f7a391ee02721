"""Annotations that name what is not there when a kernel is made, as Python 3.14 allows without quotes."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch

from helion._annotations import annotation_text
from helion._annotations import annotations_of
from helion._annotations import signature_of

SOURCE = """
import torch
import helion
import helion.language as hl

def scaled(value: {tensor}, factor: {later} = 2.0) -> {tensor}:
    return value * factor

@helion.kernel(config=helion.Config(block_sizes=[16]))
def k(x: {tensor}, n: {constexpr}, m: {later}) -> {tensor}:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = scaled(x[tile]) * n + m
    return out
"""
#: How the annotations may be written; without quotes a name that is not there is an error until Python 3.13.
WRITTEN = {
    "objects": {"tensor": "torch.Tensor", "later": "float", "constexpr": "hl.constexpr"},
    "texts": {"tensor": "'Tensor'", "later": "'Later'", "constexpr": "'hl.constexpr'"},
}
if sys.version_info >= (3, 14):
    WRITTEN["lazy"] = {"tensor": "Tensor", "later": "Later", "constexpr": "hl.constexpr"}
    WRITTEN["lazy constexpr"] = {"tensor": "Tensor", "later": "Later", "constexpr": "language.constexpr"}


def module(folder: Path, written: dict[str, str]) -> types.ModuleType:
    path = folder / "annotated.py"
    path.write_text(SOURCE.format(**written))
    made = types.ModuleType("annotated")
    made.__file__ = str(path)
    exec(compile(path.read_text(), str(path), "exec", dont_inherit=True), vars(made))
    return made


@pytest.mark.parametrize("name", WRITTEN)
def test_a_kernel_whose_annotations_name_what_is_not_there(tmp_path: Path, name: str) -> None:
    kernel = module(tmp_path, WRITTEN[name]).k
    x = torch.randn(40)
    for n in (2, 3, 2):
        torch.testing.assert_close(kernel(x, n, 5.0), x * 2 * n + 5)
    assert len(kernel._bound) == 2  # `n` is a constant


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_read_of_them(tmp_path: Path, name: str) -> None:
    fn = module(tmp_path, WRITTEN[name]).scaled
    assert list(signature_of(fn).parameters) == ["value", "factor"]
    texts = {parameter: annotation_text(value) for parameter, value in annotations_of(fn).items()}
    assert list(texts) == ["value", "factor", "return"]
    assert not any("0x" in text for text in texts.values())  # the same in every process
