"""Measures the tree against the limits that it is kept within, and counts what should become fewer.

    python -m tools.measure_tree              # figures of this tree, and what breaks a limit
    python -m tools.measure_tree ../other     # those of another checkout

Size is counted in tokens, not lines: of Python by `tokenize` without comments, docstrings and line structure, of C++ by
a lexer that knows comments, literals and punctuators.  `tests/test_tree.py` keeps the limits.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Lines of a file, lines of a function, columns of a line.
FILE_LINES, FUNCTION_LINES, COLUMNS = 600, 80, 120

#: Folders that the limits hold for; tokens are counted in the first two.
FOLDERS = ("helion", "csrc", "tests", "benchmarks", "examples", "tools")
PYTHON, CPP = (".py", ".pyi"), (".cpp", ".h")

_IGNORE = re.compile(r"#\s*type:\s*ignore")
_CPP_TOKEN = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*|/\*.*?\*/|\\\n)
  | (?P<raw>(?:u8|[uUL])?R"(?P<delimiter>[^(\s]*)\(.*?\)(?P=delimiter)")
  | (?P<string>(?:u8|[uUL])?"(?:\\.|[^"\\\n])*"|[uUL]?'(?:\\.|[^'\\\n])+')
  | (?P<number>\.?\d(?:[eEpP][+-]|'?[\w.])*)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<punctuator><<=|>>=|<=>|\.\.\.|->\*|::|->|\+\+|--|<<|>>|[-+*/%&|^<>=!]=|&&|\|\||\#\#|[^\w\s])
    """,
    re.VERBOSE | re.DOTALL,
)
_LAYOUT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING,
    tokenize.ENDMARKER,
}  # fmt: skip


@dataclass(frozen=True)
class Function:
    """A function definition and how many lines it has, decorators not counted."""

    name: str
    line: int
    lines: int


@dataclass(frozen=True)
class Source:
    """A file of the tree.

    Attributes:
        path: relative to the tree.
        text: its content.
    """

    path: Path
    text: str

    @property
    def is_python(self) -> bool:
        return self.path.suffix in PYTHON

    def tokens(self) -> int:
        return _python_tokens(self.text) if self.is_python else sum(1 for _ in _cpp_tokens(self.text))

    def functions(self) -> Iterator[Function]:
        return _python_functions(self.text) if self.is_python else _cpp_functions(self.text)

    def type_ignores(self) -> int:
        if not _IGNORE.search(self.text):
            return 0
        return sum(
            bool(_IGNORE.match(token.string)) for token in _tokenized(self.text) if token.type == tokenize.COMMENT
        )

    def late_imports(self) -> list[int]:
        """Lines of imports within functions."""
        functions = (
            n for n in ast.walk(ast.parse(self.text)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
        )
        imports = (n for f in functions for n in ast.walk(f) if isinstance(n, (ast.Import, ast.ImportFrom)))
        return sorted({n.lineno for n in imports})

    def breaks(self) -> Iterator[str]:
        """Limits that the file does not keep, each as a line of text."""
        lines = self.text.splitlines()
        if len(lines) > FILE_LINES:
            yield f"{self.path}: {len(lines)} lines, at most {FILE_LINES}"
        for number, line in enumerate(lines, 1):
            if len(line) > COLUMNS:
                yield f"{self.path}:{number}: {len(line)} columns, at most {COLUMNS}"
        for function in self.functions():
            if function.lines > FUNCTION_LINES:
                at = f"{self.path}:{function.line}"
                yield f"{at}: {function.name} has {function.lines} lines, at most {FUNCTION_LINES}"


def sources(root: Path, *folders: str) -> list[Source]:
    """Python and C++ files of these folders of a tree, built and generated ones aside."""
    return [
        Source(path.relative_to(root), path.read_text())
        for folder in folders
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in (*PYTHON, *CPP) and "build" not in path.relative_to(root).parts
    ]


def _tokenized(text: str) -> Iterator[tokenize.TokenInfo]:
    return tokenize.generate_tokens(io.StringIO(text).readline)


def _python_tokens(text: str) -> int:
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = sum(
        ast.get_docstring(node, clean=False) is not None
        for node in ast.walk(ast.parse(text))
        if isinstance(node, owners)
    )
    return sum(token.type not in _LAYOUT for token in _tokenized(text)) - docstrings


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The statements in this one, and in those; not their expressions, which are most of a tree."""
    for field in ("body", "orelse", "handlers", "finalbody", "cases"):
        for child in getattr(node, field, ()):
            yield child
            yield from _statements(child)


def _python_functions(text: str) -> Iterator[Function]:
    for node in _statements(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            yield Function(node.name, node.lineno, node.end_lineno - node.lineno + 1)


def _cpp_tokens(text: str) -> Iterator[tuple[str, int]]:
    """(token, offset) of each token."""
    for match in _CPP_TOKEN.finditer(text):
        if match.lastgroup != "space":
            yield match.group(), match.start()


def _cpp_functions(text: str) -> Iterator[Function]:
    """Bodies in braces that follow a parameter list outside of any function."""
    without_directives = re.sub(
        r"^[ \t]*#(?:[^\n\\]|\\.)*", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.M | re.S
    )
    scopes: list[tuple[str, int, str]] = []  # of each open brace: what it opens, where, and the function's name
    head: list[str] = []
    start = 0
    for token, offset in _cpp_tokens(without_directives):
        if not head:
            start = offset
        if token == "{":
            inside = bool(scopes) and scopes[-1][0] != "scope"
            function = not inside and ")" in head and "=" not in head[: head.index("(")]
            name = head[head.index("(") - 1] if function and head.index("(") else ""
            kind = "function" if function else "block" if inside or "=" in head else "scope"
            scopes.append((kind, start, name))
            head = []
        elif token == "}":
            kind, opened, name = scopes.pop()
            if kind == "function":
                line = text.count("\n", 0, opened) + 1
                yield Function(name, line, text.count("\n", 0, offset) + 2 - line)
            head = []
        elif token == ";":
            head = []
        else:
            head.append(token)


def figures(root: Path) -> dict[str, int]:
    """What is counted, by name."""
    helion, csrc = sources(root, "helion"), sources(root, "csrc")
    everything = sources(root, *FOLDERS)
    lines = [line for source in everything for line in source.text.splitlines()]
    functions = [function for source in everything for function in source.functions()]
    return {
        "tokens of helion/": sum(source.tokens() for source in helion),
        "tokens of csrc/": sum(source.tokens() for source in csrc),
        f"files past {FILE_LINES} lines": sum(len(s.text.splitlines()) > FILE_LINES for s in everything),
        f"functions past {FUNCTION_LINES} lines": sum(f.lines > FUNCTION_LINES for f in functions),
        f"lines past {COLUMNS} columns": sum(len(line) > COLUMNS for line in lines),
        "`type: ignore` in helion/": sum(source.type_ignores() for source in helion),
        "imports within functions of helion/": sum(len(s.late_imports()) for s in helion if s.path.suffix == ".py"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parents[1])
    root = parser.parse_args().root
    for name, count in figures(root).items():
        print(f"{count:8,}  {name}")
    broken = [line for source in sources(root, *FOLDERS) for line in source.breaks()]
    print(*broken, sep="\n")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
