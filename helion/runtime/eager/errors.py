"""What is said of errors in ref mode: the user's line, and another reason where PyTorch's own would not help."""

from __future__ import annotations

import os
import traceback

import torch

from ... import exc

_PACKAGE = os.path.dirname(os.path.abspath(exc.__file__)) + os.sep


def in_torchs_scan(error: BaseException) -> exc.BackendUnsupported | None:
    """What to say of an error that comes from PyTorch's own associative_scan: it compiles, or maps over batches."""
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    inside = (code.co_name == "associative_scan" and "_higher_order_ops" in code.co_filename for code in frames)
    if not any(inside):
        return None
    return exc.BackendUnsupported(
        backend="ref mode",
        reason="PyTorch's own associative_scan does not take its values",
        fix="call hl.associative_scan(combine_fn, x, dim), which is the same in every mode.",
    )


def of_torch(error: BaseException) -> exc.BackendUnsupported | None:
    """What to say of an op that PyTorch does not have for a dtype."""
    if not isinstance(error, NotImplementedError) or "not implemented for" not in str(error):
        return None
    return exc.BackendUnsupported(
        backend="ref mode",
        reason=str(error),
        fix="convert the operands to a dtype that PyTorch supports on this device.",
    )


def location_of(error: BaseException) -> exc.SourceLocation | None:
    """The user's line that an error came from: the innermost frame outside of helion and torch."""
    torch_files = os.path.dirname(torch.__file__) + os.sep
    frames = [
        entry
        for entry in traceback.extract_tb(error.__traceback__)
        if not entry.filename.startswith((_PACKAGE, torch_files))
    ]
    if not frames:
        return None
    entry = frames[-1]
    line = entry.lineno or 1
    text = entry._original_line.rstrip("\n") if hasattr(entry, "_original_line") else (entry.line or "")
    start = getattr(entry, "colno", None)
    end = getattr(entry, "end_colno", None) if getattr(entry, "end_lineno", line) == line else None
    start = len(text) - len(text.lstrip()) if start is None else start
    return exc.SourceLocation(entry.filename, line, start, len(text) if end is None else end, entry.name, text)
