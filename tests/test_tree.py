"""The tree keeps its limits: lengths of files, functions and lines, and counts that only shrink."""

from __future__ import annotations

import textwrap
from collections import Counter

import pytest

from tests.test_imports import ROOT
from tools.measure_tree import COLUMNS
from tools.measure_tree import FILE_LINES
from tools.measure_tree import FOLDERS
from tools.measure_tree import FUNCTION_LINES
from tools.measure_tree import Source
from tools.measure_tree import sources

#: `type: ignore` in helion/.  Only ever fewer.
TYPE_IGNORES = 25

_CPP = r"""
#define LOOP(x) \
  do { x; } while (0)
namespace a {
struct S {
  int first(int x) const { return x; }
  int value = 1;
};
// A comment with a { brace.
static const char *text = R"(no { token)";
int table[] = {1, 2};
template <typename T>
int second(T x) {
  if (x) {
    return '{';
  }
  return 1'000;
}
}  // namespace a
"""


@pytest.mark.slow
def test_no_file_or_function_is_too_long() -> None:
    found = set()
    for source in sources(ROOT, *FOLDERS):
        if len(source.text.splitlines()) > FILE_LINES:
            found.add(str(source.path))
        found |= {f"{source.path}: {f.name}" for f in source.functions() if f.lines > FUNCTION_LINES}
    assert not found, f"longer than {FILE_LINES} lines a file or {FUNCTION_LINES} a function"


def test_no_line_is_too_long() -> None:
    """Also where ruff allows one: before a pragma, and without a space."""
    long = [
        f"{source.path}:{number}"
        for source in sources(ROOT, *FOLDERS)
        for number, line in enumerate(source.text.splitlines(), 1)
        if len((line.partition("# type: ignore")[0] if source.is_python else line).rstrip()) > COLUMNS
    ]
    assert not long


def test_errors_of_types_are_not_ignored_more_than_before() -> None:
    assert sum(source.type_ignores() for source in sources(ROOT, "helion")) <= TYPE_IGNORES


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("x = 1  # one\n", 3),
        ('def f(a):\n    """Says."""\n    return a\n', 8),
        ("(a +\n b)\n", 5),
    ],
)
def test_tokens_of_python_are_without_comments_docstrings_and_layout(text: str, tokens: int, tmp_path) -> None:
    assert Source(tmp_path / "a.py", text).tokens() == tokens


def test_tokens_of_cpp(tmp_path) -> None:
    text = 'a->b += 1.5e-3f; /* no\n */ call("a \\" b", \'\\\'\'); // no\n x <<= R"(a " b)";\n'
    assert Source(tmp_path / "a.cpp", text).tokens() == 6 + 7 + 4


def test_functions_of_cpp_are_found_where_they_begin_and_end(tmp_path) -> None:
    functions = list(Source(tmp_path / "a.cpp", _CPP).functions())
    assert [(f.name, f.line, f.lines) for f in functions] == [("first", 6, 1), ("second", 12, 7)]


def test_late_imports_are_those_in_functions(tmp_path) -> None:
    text = textwrap.dedent("""
        import a
        def f():
            import b
            def g():
                from c import d
    """)
    assert Source(tmp_path / "a.py", text).late_imports() == [4, 6]


def test_files_of_tests_outside_of_packages_have_names_of_their_own() -> None:
    """pytest takes two of one name for one module, and then collects nothing at all."""
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if not (path.parent / "__init__.py").exists()]
    twice = [name for name, count in Counter(path.name for path in files).items() if count > 1]
    assert not twice


def test_no_script_lies_at_the_top() -> None:
    """Such as those that tried something out, added with everything else."""
    assert [path.name for path in ROOT.glob("*.py")] == ["setup.py"]


def test_properties_are_cached_without_a_lock() -> None:
    """A fork copies the lock of Python 3.11's `functools.cached_property` as it is (see `helion/_locks.py`)."""
    locked = ("@functools.cached_property", "from functools import cached_property")
    assert not [str(s.path) for s in sources(ROOT, "helion") if any(form in s.text for form in locked)]
