"""Types of the extension (csrc/). It may be absent: ask ``helion._extension.C``.

The loader refuses an extension that was built with another text of this file. So whatever changes between Python and C
changes a line here: a declaration, or this number, for what declarations do not show (what the types of a plan hold,
which names C looks up in Python): revision 6.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch

from .runtime.launch.plan_data import Allocation
from .runtime.launch.plan_data import Made
from .runtime.launch.plan_data import Result
from .runtime.launch.plan_data import Step
from .runtime.launch.plan_data import TensorRef

built_for_torch: str

def tensor_key(
    fn_or_settings: Any, tensor: object, /
) -> tuple[torch.dtype, tuple[int, ...], tuple[int, ...], frozenset[int]] | None: ...
def broadcast_tensors(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]: ...
def output_pool_configure(enabled: bool, entries: int, bytes: int, /) -> None: ...
def output_pool_clear() -> None: ...
def output_pool_statistics() -> dict[str, Any]: ...
def output_pool_empty_like(tensor: torch.Tensor, /) -> torch.Tensor | None: ...
def output_pool_empty(sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device, /) -> torch.Tensor | None: ...

class LaunchSpec:
    def __new__(
        cls,
        *,
        compiled: Any,
        jit_function: Any,
        function: int,
        name: str,
        num_warps: int,
        shared: int,
        device: int,
        params: Sequence[tuple[int, str]],
        used_globals: Sequence[tuple[str, Any, dict[str, Any]]],
        scratch: int,
        cluster: tuple[int, int, int] = (1, 1, 1),
        maps: Sequence[tuple[int, int, tuple[int, ...], tuple[int, ...], tuple[int, ...], int]] = (),
        cooperative: bool = False,
        of_triton: bool = False,
        num_ctas: int = 1,
        pdl: bool = False,
    ) -> LaunchSpec: ...
    def guards_hold(self) -> bool: ...
    @property
    def compiled(self) -> Any: ...
    @property
    def jit_function(self) -> Any: ...
    @property
    def name(self) -> str: ...
    @property
    def device(self) -> int: ...

class CompiledLauncher:
    fallback: Callable[..., Any] | None
    def __call__(self, triton_kernel: Any, grid: tuple[int, ...], *args: Any, **keywords: Any) -> Any: ...
    def prime(self, triton_kernel: Any, grid: tuple[int, ...], args: Sequence[Any], **keywords: Any) -> bool: ...
    def add_variant(
        self, triton_kernel: Any, args: tuple[Any, ...], keywords: dict[str, Any], spec: LaunchSpec | None, /
    ) -> bool: ...
    def clear(self) -> None: ...
    @property
    def launches(self) -> int: ...
    @property
    def variant_count(self) -> int: ...

class LaunchPlan:
    # result: of plan_data.py, dicts and records included.
    def __new__(
        cls,
        leaf_count: int,
        device: int,
        buffers: tuple[Allocation | Made, ...],
        steps: tuple[Step, ...],
        result: Result,
        written: tuple[TensorRef, ...] = (),
        distinct: bool = False,
        allocators: tuple[Any, ...] = (),
    ) -> LaunchPlan: ...

class Forwarder:
    forward_to: Callable[..., Any] | None
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

class Dispatcher:
    dispatch_enabled: bool
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def configure_dispatch(
        self,
        names: tuple[str, ...],
        defaults: tuple[Any, ...],
        value_keyed: tuple[bool, ...],
        key_function: Callable[..., Any] | None,
        capacity: int,
        generation: int | None = None,
        apart: tuple[tuple[int, int], ...] = (),
        filled: tuple[tuple[object, str, bool], ...] = (),
        watched: tuple[tuple[object, str, bool], ...] = (),
        function: Callable[..., Any] | None = None,
        /,
    ) -> int | None: ...
    def install_plan(
        self, args: tuple[Any, ...], plan: LaunchPlan, generation: int, bound: object = None, /
    ) -> bool: ...
    def find_plan(self, args: tuple[Any, ...], /) -> LaunchPlan | None: ...
    def find_bound(self, args: Sequence[Any], /) -> Any: ...
    def clear_plans(self) -> None: ...
    def leaves_of(self, args: tuple[Any, ...], /) -> tuple[Any, ...] | None: ...
    @property
    def plan_count(self) -> int: ...
    @property
    def plan_hits(self) -> int: ...
    @property
    def plan_launches(self) -> int: ...
    @property
    def plan_evictions(self) -> int: ...
    @property
    def plan_generation(self) -> int: ...
