"""A backend of a few lines, as somebody else's package would bring one: it runs pointwise kernels with PyTorch's ops on
whole tensors. `test_registry.py` registers it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx

from helion.backends.base import Backend
from helion.backends.base import GeneratedSource
from helion.backends.host import HostPrinter
from helion.config import Config
from helion.config_spec import ConfigSpec
from helion.fragments import BooleanFragment
from helion.ir.nodes import Load
from helion.ir.nodes import Store
from helion.ir.nodes import host_tensor

#: One entry per launch: what the host function passed, and the Config's `loudly`.
LAUNCHES: list[tuple[tuple[torch.Tensor, ...], bool]] = []


class WholeTensors:
    """The device code: its graph, with loads as the tensors themselves."""

    def __init__(self, graph: torch.fx.Graph, names: list[str], loudly: bool) -> None:
        self.graph, self.names, self.loudly = graph, names, loudly

    def __call__(self, *tensors: torch.Tensor) -> None:
        LAUNCHES.append((tensors, self.loudly))
        values: dict[Any, Any] = dict(zip(self.names, tensors))
        for node in self.graph.nodes:
            if node.target is host_tensor:
                values[node] = values[node.args[0]]
            elif (load := Load.match(node)) is not None:
                values[node] = values[load.host.node]
            elif (store := Store.match(node)) is not None:
                values[store.host.node].copy_(values[store.value])
            elif node.op == "call_function":
                args, kwargs = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = node.target(*args, **kwargs)


class ToyBackend(Backend):
    name = "toy"
    vendors = frozenset({"cpu"})
    language = "Python"

    @property
    def spec(self) -> ConfigSpec:
        return ConfigSpec(self.ir.name, {"loudly": BooleanFragment()})

    def generate(self, config: Config) -> GeneratedSource:
        (root,) = self.ir.device.roots
        host = HostPrinter(self.ir, {})
        names = list(self.ir.device.host_tensors)
        texts = [self.ir.device.host_tensors[name].text for name in names]
        body = host.function([f"_launcher(_code, {', '.join(texts)})"], "_run")
        lines = [
            "import torch",
            *host.imports_and_globals()[0],
            "",
            "def _run(code, *tensors):",
            "    code(*tensors)",
            "",
        ]
        code = WholeTensors(self.ir.device.graphs[root.graph_id].graph, names, config["loudly"])
        return GeneratedSource("\n".join([*lines, *body, ""]), self.ir.name, {"_code": code})
