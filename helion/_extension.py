"""Loads ``helion._C``, or says once why the Python launch path is used instead.

``C`` is the extension module or None; everything in the package that can use the extension asks here. The reasons for
None: ``HELION_NO_EXTENSION=1``, the extension was not built, it was built for another torch (it reads ``at::Tensor``
directly, whose layout may change between releases), or it was built from other sources of helion than these. In the
last two cases it is not even loaded.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import logging
import mmap
import os
import re
from types import ModuleType

import torch

from ._environment import is_set

log = logging.getLogger("helion")

# csrc/module.cpp puts this text into the file.
_BUILD_TAG = re.compile(rb"helion-extension-built-for-torch=([^;\0]+);(?:interface=([^;\0]+);)?")

_BUILD = "build it again with: pip install --no-build-isolation ."


def build_tag(path: str) -> tuple[str | None, str | None]:
    """What the extension file at ``path`` was compiled against: the version of torch, and the interface; None for what
    the
    file does not say."""
    if os.path.getsize(path) == 0:  # which cannot be mapped
        return None, None
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = _BUILD_TAG.search(content)
        if found is None:
            return None, None
        torch_version, interface = (None if part is None else part.decode() for part in found.groups())
        return torch_version, interface


def interface() -> str:
    """The interface that these Python sources expect: a hash of ``_C.pyi``, as setup.py computes it for the build."""
    with open(os.path.join(os.path.dirname(__file__), "_C.pyi"), "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]


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
    if is_set("HELION_NO_EXTENSION"):
        return None, "HELION_NO_EXTENSION is set"
    path = _find()
    if path is None:
        return None, "helion._C is not built; build it with: pip install --no-build-isolation ."
    built_for, built_interface = build_tag(path)
    if built_for != torch.__version__:
        return None, f"helion._C was built for torch {built_for}, and this is torch {torch.__version__}; {_BUILD}"
    if built_interface != interface():
        return None, f"helion._C was built from other sources of helion than these; {_BUILD}"
    try:
        return importlib.import_module("helion._C"), ""
    except ImportError as error:
        return None, f"helion._C cannot be loaded: {error}"


C: ModuleType | None
why_not: str
C, why_not = load()
if C is None and "HELION_NO_EXTENSION" not in why_not:
    log.warning(
        "%s Kernels run through the slower Python launch path.", why_not if why_not.endswith(".") else f"{why_not}."
    )
