"""Loads ``helion._C``, or says once why the Python launch path is used instead.

``C`` is the extension module or None; everything in the package that can use the extension asks here. The reasons for
None: ``HELION_NO_EXTENSION=1``, the extension was not built, or it was built for another torch (it reads ``at::Tensor``
directly, whose layout may change between releases, so it is not even loaded then).
"""

from __future__ import annotations

import importlib
import importlib.machinery
import logging
import mmap
import os
import re
from types import ModuleType

import torch

log = logging.getLogger("helion")

# csrc/module.cpp puts this text into the file.
_BUILD_TAG = re.compile(rb"helion-extension-built-for-torch=([^;\0]+);")


def built_for_torch(path: str) -> str | None:
    """Version of torch that the extension file at ``path`` was compiled against; None if the file does not say."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = _BUILD_TAG.search(content)
        return found.group(1).decode() if found else None


def _find() -> str | None:
    """Path of the extension file beside this one that this interpreter can load."""
    folder = os.path.dirname(__file__)
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = os.path.join(folder, "_C" + suffix)
        if os.path.exists(path):
            return path
    return None


def load() -> tuple[ModuleType | None, str]:
    """The extension module, or None, with the reason in words.

    Returns:
        ``(module, "")``, or ``(None, reason)``.
    """
    if os.environ.get("HELION_NO_EXTENSION", "0").lower() not in ("", "0", "false", "off", "no"):
        return None, "HELION_NO_EXTENSION is set"
    path = _find()
    if path is None:
        return None, "helion._C is not built; build it with: pip install --no-build-isolation ."
    built_for = built_for_torch(path)
    if built_for != torch.__version__:
        return None, (
            f"helion._C was built for torch {built_for}, and this is torch {torch.__version__}; "
            "build it again with: pip install --no-build-isolation ."
        )
    try:
        return importlib.import_module("helion._C"), ""
    except ImportError as error:
        return None, f"helion._C cannot be loaded: {error}"


C: ModuleType | None
why_not: str
C, why_not = load()
if C is None and "HELION_NO_EXTENSION" not in why_not:
    log.warning("%s. Kernels run through the slower Python launch path.", why_not)
