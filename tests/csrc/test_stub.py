"""helion/_C.pyi names exactly what the extension has."""

from __future__ import annotations

import ast
from pathlib import Path

import helion


def test_stub_and_extension_have_the_same_names(C):
    tree = ast.parse(Path(helion.__file__).with_name("_C.pyi").read_text())
    declared: dict[str, set[str]] = {}
    functions = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            declared[node.name] = {
                item.name if isinstance(item, ast.FunctionDef) else item.target.id
                for item in node.body
                if isinstance(item, (ast.FunctionDef, ast.AnnAssign))
            }
        elif isinstance(node, ast.FunctionDef):
            functions.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            functions.add(node.target.id)
    public = {name for name in vars(C) if not name.startswith("__")}
    assert public == functions | set(declared)
    for name, members in declared.items():
        real = {m for m in vars(getattr(C, name)) if not m.startswith("__")}
        assert real == {m for m in members if not m.startswith("__")}, name
