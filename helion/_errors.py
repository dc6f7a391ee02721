"""What every error and warning is made of: a text, advice and a place; and how a warning is shown.

The classes themselves are in `exc`, which has the names of this file too.
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Sequence
from typing import Any
from typing import ClassVar


@dataclasses.dataclass(frozen=True)
class SourceLocation:
    """A span of the user's source: where an error is, or where an IR node came from.

    Args:
        file: path of the source file as Python knows it.
        line: 1-based line number.
        column: 0-based column of the first character.
        end_column: 0-based column after the last character on the same line.
        function: name of the function the span is in.
        text: the whole source line, without its newline.
    """

    file: str
    line: int
    column: int
    end_column: int
    function: str
    text: str

    def short(self) -> str:
        """`file.py:12`, with the directory left out."""
        return f"{self.file.replace(chr(92), '/').rsplit('/', 1)[-1]}:{self.line}"

    def render(self) -> str:
        """The place as a Python traceback shows it, with a caret under the span."""
        stripped = self.text.lstrip()
        indent = len(self.text) - len(stripped)
        start = max(self.column - indent, 0)
        width = max(min(self.end_column, len(self.text)) - self.column, 1)
        return (
            f'  File "{self.file}", line {self.line}, in {self.function}\n'
            f"    {stripped}\n"
            f"    {' ' * start}{'^' * width}"
        )


class Base(RuntimeError):
    """Base of all helion errors and warnings."""

    what: ClassVar[str] = ""
    fix: ClassVar[str] = ""

    def __init__(
        self,
        message: str | None = None,
        *,
        fix: str | None = None,
        location: SourceLocation | None = None,
        **fields: Any,
    ) -> None:
        self.message = message if message is not None else self.what.format(**fields)
        self.advice = fix if fix is not None else self.fix.format(**fields)
        self.location = location
        super().__init__(self.message)

    def __str__(self) -> str:
        parts = [self.message]
        if self.location is not None:
            parts.append(self.location.render())
        if self.advice:
            parts.append(f"What to do: {self.advice}")
        return "\n".join(parts)

    def report(self) -> str:
        """The message as a log shows it: `ERROR[Name]: ...` or `WARNING[Name]: ...`."""
        kind = "WARNING" if isinstance(self, Warning) else "ERROR"
        return f"{kind}[{type(self).__name__}]: {self}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.advice, self.location))


def _rebuild(cls: type[Base], message: str, advice: str, location: SourceLocation | None) -> Base:
    return cls(message, fix=advice, location=location)


class BaseError(Base):
    """Base of all helion errors."""


class BaseWarning(Base, Warning):
    """Base of all helion warnings; silence one with the setting `ignore_warnings`, or with a filter of `warnings`."""


# Python's own way of showing a warning is for others: ours go to stderr as `report` gives them. Filters that a user
# sets come before this one.
warnings.simplefilter("ignore", BaseWarning, append=True)
_SHOWN_BY_US = warnings.filters[-1]


def warn(warning: BaseWarning, ignored: Sequence[type[BaseWarning]] = (), stacklevel: int = 2) -> None:
    """Show a warning on stderr, unless a filter says otherwise.

    Args:
        warning: the warning.
        ignored: classes that the kernel's settings leave out (`ignore_warnings`).
        stacklevel: as for `warnings.warn`, of the caller.

    Raises:
        BaseWarning: a filter makes errors of such warnings.
    """
    if isinstance(warning, tuple(ignored)):
        return
    warnings.warn(warning, stacklevel=stacklevel + 1)
    for found in warnings.filters:
        action, text, category = found[:3]
        if issubclass(type(warning), category) and (text is None or text.match(str(warning))):
            if action != "ignore" or found == _SHOWN_BY_US:
                break
            return
    print(warning.report(), file=sys.stderr)
