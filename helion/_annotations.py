"""Annotations and signatures of functions of users, without the names that are not there when they are read.

From Python 3.14 on an annotation is evaluated when somebody asks for it, so that functions may have annotations of
names that are imported for type checkers only, or defined later. Such a name is an `annotationlib.ForwardRef` here.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["annotation_text", "annotations_of", "signature_of"]

if sys.version_info >= (3, 14):
    import annotationlib

    def annotations_of(fn: Callable[..., Any]) -> dict[str, Any]:
        """Parameter -> annotation: an object, a text, or a ForwardRef."""
        return annotationlib.get_annotations(fn, format=annotationlib.Format.FORWARDREF)

    def signature_of(fn: Callable[..., Any]) -> inspect.Signature:
        """As `inspect.signature`."""
        return inspect.signature(fn, annotation_format=annotationlib.Format.FORWARDREF)

else:

    def annotations_of(fn: Callable[..., Any]) -> dict[str, Any]:
        """Parameter -> annotation: an object or a text."""
        return fn.__annotations__

    def signature_of(fn: Callable[..., Any]) -> inspect.Signature:
        """As `inspect.signature`."""
        return inspect.signature(fn)


def annotation_text(annotation: Any) -> str:
    """An annotation as text: the source of one that could not be evaluated, else what `str` gives."""
    return str(getattr(annotation, "__forward_arg__", annotation))
