"""Traced kernels for the tests of the analyses, and their nodes by the user's names."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.fx

from helion.frontend.trace import trace_kernel
from helion.ir.device_ir import DeviceIR
from helion.ir.device_ir import KernelIR
from helion.settings import Settings


def traced(kernel: Callable[..., Any], *args: Any, **settings: Any) -> KernelIR:
    """A kernel function traced for some arguments."""
    bound = inspect.signature(kernel).bind(*args)
    bound.apply_defaults()
    assert isinstance(kernel, types.FunctionType)
    return trace_kernel(kernel, dict(bound.arguments), Settings(**settings), torch.device("cpu"))


def node(ir: DeviceIR, name: str) -> torch.fx.Node:
    """The node with the user's name; the last one if the name is assigned several times."""
    found = [n for _, n in ir.nodes() if n.meta.get("user_name") == name]
    assert found, f"no value is called {name}: {[n.name for _, n in ir.nodes()]}"
    return found[-1]
