"""Sweep of torch ops: PyTorch's own samples (`op_db`), each op in a kernel around it, compared with eager.

    python -m tests.language.op_sweep [--runner tiles|ref|gpu] [--dtype float32] [--samples 2] [--ops add,mul]

prints how many ops pass, which are refused with an error of ours, and every failure.  An op passes when at least one
sample ran, all that ran gave eager's result, and the rest were refused.  `gpu` is the real GPU where there is one, else
the software GPU.

When a result is right
    Dtypes are eager's. Integers and bools equal eager's.  float32 and float64 are within the tolerance of `_TOLERANCE`.

    16-bit results may differ from eager's by roundings alone: a composite op rounds after each step, eager's fused one
    once, or the other way round; and where large terms cancel, one rounding of a term is many units of the sum.  So
    what counts is the backward error.  The op runs in float64 for the given values (`exact`) and for some in which
    every element is off by at most half a unit in the last place of the 16-bit dtype; how far those results lie from
    `exact` is what a rounding of the arguments does (`spread`, Monte Carlo arithmetic: Parker, 1997).  A result is
    right if it is within the tolerance of eager's or of `exact`, or within `_ROUNDINGS * spread` of `exact`, element by
    element.  Where a function jumps (`floor` at 2.0) that allows either side; the float32 sweeps, to which it does not
    apply, do not.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo.core import OpInfo
from torch.utils import _pytree as pytree

import helion
import helion.language as hl
from helion import exc
from helion.backends import registry
from helion.frontend.trace import trace_kernel
from helion.runtime.code_cache import load_module
from helion.runtime.eager.ref_mode import run_ref
from helion.settings import Settings
from helion.target import CPU
from helion.target import Target

#: Families that are no elementwise, reduction or view op: left out.
_OTHER_FAMILIES = (
    "linalg.",
    "fft.",
    "sparse.",
    "signal.",
    "masked.",
    "nn.functional.conv",
    "nn.functional.embedding_bag",
    "nn.functional.ctc_loss",
    "jiterator",
    "torch.ops.",
    "ops.aten",
)
#: Ops without a result to compare: random numbers, uninitialized memory.
_UNDETERMINED = frozenset(
    [
        "bernoulli",
        "cauchy",
        "exponential",
        "geometric",
        "log_normal",
        "normal",
        "multinomial",
        "rand_like",
        "randint",
        "randint_like",
        "randn",
        "randn_like",
        "uniform",
        "nn.functional.dropout",
        "nn.functional.dropout2d",
        "nn.functional.dropout3d",
        "nn.functional.alpha_dropout",
        "nn.functional.feature_alpha_dropout",
        "nn.functional.rrelu",
        "nn.functional.fractional_max_pool2d",
        "nn.functional.fractional_max_pool3d",
        "nn.functional.scaled_dot_product_attention",
        "nn.functional.multi_head_attention_forward",
        "empty",
        "empty_like",
        "new_empty",
        "empty_strided",
        "new_empty_strided",
        "empty_permuted",
    ]
)
#: Ops whose second result is the place of a value, of which PyTorch may take any where values are equal.
_ANY_PLACE = frozenset(["topk", "kthvalue", "median", "nanmedian", "mode"])
#: Elements of a tensor that fits in a tile.
_LARGEST = 4096
#: Relative and absolute error allowed of each dtype; others are exact.
_TOLERANCE = {
    torch.float64: (1e-9, 1e-9),
    torch.float32: (2e-4, 2e-5),
    torch.float16: (4e-3, 4e-3),
    torch.bfloat16: (3e-2, 3e-2),
}
_NARROW = (torch.float16, torch.bfloat16)
#: How many roundings of the arguments a 16-bit result may be off, and how often they are drawn to see what one does.
_ROUNDINGS = 4
_PERTURBED = 8


@dataclasses.dataclass
class Outcome:
    """What became of one op.

    Attributes:
        name: op with its variant, `std.unbiased`.
        status: `pass`, `refused`, `failed` or `no sample`.
        detail: the failure, or the (last) refusal.
        ran: how many samples gave a result.
    """

    name: str
    status: str
    detail: str = ""
    ran: int = 0


class Call:
    """One sample, as a function of its tensors.

    Args:
        op: the torch function.
        leaves: all arguments, flattened.
        spec: how to unflatten them into (args, kwargs).
    """

    def __init__(self, op: Callable[..., Any], leaves: list[Any], spec: pytree.TreeSpec) -> None:
        self.op = op
        self.leaves = leaves
        self.spec = spec
        self.dtypes: list[Any] = []  # of the results of the last call

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Copies of the tensor arguments."""
        return tuple(leaf.clone() for leaf in self.leaves if isinstance(leaf, torch.Tensor))

    def __call__(self, tensors: Any) -> list[Any]:
        remaining = iter(tensors)
        leaves = [next(remaining) if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        results = list(pytree.tree_leaves(self.op(*args, **kwargs)))
        self.dtypes = [result.dtype if isinstance(result, torch.Tensor) else type(result) for result in results]
        return results


def sweep_kernel(inputs, outputs, call):
    for _ in hl.grid(1):
        values = [x[...] for x in inputs]
        results = call(values)
        for out, value in zip(outputs, results, strict=True):
            out[...] = value
    return outputs


# -- running one sample ---------------------------------------------------------------------------------------------


def _trace(inputs: Any, outputs: Any, call: Call) -> tuple[Any, Settings]:
    settings = Settings(dot_precision="ieee")
    arguments = {"inputs": inputs, "outputs": outputs, "call": call}
    return trace_kernel(sweep_kernel, arguments, settings, inputs[0].device), settings  # type: ignore[arg-type]


def run_tiles(inputs: Any, outputs: Any, call: Call) -> None:
    """In the tile executor."""
    ir, settings = _trace(inputs, outputs, call)
    source = registry.make("tiles", ir, settings, CPU).generate(helion.Config())
    module = load_module(source.text, source.function, source.injected)
    getattr(module, source.function)(inputs, outputs, call)


def run_gpu(inputs: Any, outputs: Any, call: Call) -> None:
    """As generated Triton code, on the GPU if there is one, else on the software GPU."""
    capability = 80
    where = inputs, outputs
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        capability = 10 * major + minor
        where = tuple(pytree.tree_map(lambda t: t.cuda() if isinstance(t, torch.Tensor) else t, part) for part in where)
    ir, settings = _trace(*where, call)
    backend = registry.make("triton", ir, settings, Target("nvidia", capability))
    source = backend.generate(backend.spec.default_config())
    module = load_module(source.text, source.function, source.injected or None)
    getattr(module, source.function)(*where, call)
    for ours, theirs in zip(outputs, where[1], strict=True):
        ours.copy_(theirs)


def run_in_ref_mode(inputs: Any, outputs: Any, call: Call) -> None:
    """As the Python function, on eager tiles."""
    run_ref(sweep_kernel, (inputs, outputs, call))


RUNNERS: dict[str, Callable[[Any, Any, Call], None]] = {"tiles": run_tiles, "gpu": run_gpu, "ref": run_in_ref_mode}


# -- sweeping ---------------------------------------------------------------------------------------------------------


def _fits(tensor: torch.Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.numel() <= _LARGEST


def samples_of(info: OpInfo, dtype: torch.dtype, limit: int) -> Iterator[tuple[Call, list[torch.Tensor]]]:
    """Samples that fit in a tile, with eager's results."""
    found = 0
    for sample in info.sample_inputs("cpu", dtype, requires_grad=False):
        leaves, spec = pytree.tree_flatten(((sample.input, *sample.args), sample.kwargs))
        call = Call(info.op, leaves, spec)
        if not call.tensors or not all(_fits(t) and t.numel() for t in call.tensors):
            continue
        try:
            expected = call(call.tensors)
        except RuntimeError:
            continue  # reads memory around its argument, of which the copies have none
        if not expected or not all(isinstance(e, torch.Tensor) and _fits(e) for e in expected):
            continue
        yield call, expected
        found += 1
        if found == limit:
            return


def _dtypes_on_gpu(call: Call) -> list[torch.dtype]:
    """Dtypes of eager's results on a GPU, which are not always those on a CPU: statistics of 16-bit norms are float32
    there.
    """
    there = Call(call.op, [leaf.cuda() if isinstance(leaf, torch.Tensor) else leaf for leaf in call.leaves], call.spec)
    return [result.dtype for result in there(there.tensors)]


def _in_float64(call: Call, half_units: float = 0.0) -> list[torch.Tensor]:
    """Eager's results in float64, for the same values or for some that are off by roundings; none if it has no
    kernel.
    """

    def widen(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point():
            return leaf
        wide = leaf.double()
        return wide * (1 + half_units * torch.finfo(leaf.dtype).eps / 2 * (2 * torch.rand_like(wide) - 1))

    wide = Call(call.op, [widen(leaf) for leaf in call.leaves], call.spec)
    try:
        return [value.double() for value in wide(wide.tensors)]
    except (RuntimeError, TypeError):
        return []


def difference(got: list[torch.Tensor], wanted: list[torch.Tensor], call: Call) -> str | None:
    """How results differ from eager's, or None; the module's docstring says when they do."""
    for i, (ours, eager) in enumerate(zip(got, wanted, strict=True)):
        rtol, atol = _TOLERANCE.get(eager.dtype, (0.0, 0.0))
        try:
            torch.testing.assert_close(ours, eager, equal_nan=True, rtol=rtol, atol=atol)
        except AssertionError as error:
            if eager.dtype not in _NARROW or not _is_a_rounding(ours, call, i, rtol, atol):
                return str(error)[:300]
    return None


def _is_a_rounding(ours: torch.Tensor, call: Call, i: int, rtol: float, atol: float) -> bool:
    """Whether the i-th result, of 16 bits, differs from float64's by what roundings of the arguments do."""
    exact = _in_float64(call)
    if not exact:
        return False
    others = [_in_float64(call, half_units=1.0)[i] for _ in range(_PERTURBED)]
    spread = torch.stack([(other - exact[i]).abs() for other in others]).amax(0).nan_to_num(0.0)
    allowed = atol + rtol * exact[i].abs() + _ROUNDINGS * spread
    error = (ours.double() - exact[i]).abs()
    same = (ours.double() == exact[i]) | (ours.isnan() & exact[i].isnan())
    return bool((same | (error <= allowed)).all())


def sweep_op(info: OpInfo, dtype: torch.dtype, limit: int, run: Callable[[Any, Any, Call], None]) -> Outcome:
    """Run the samples of one op."""
    name = info.name + (f".{info.variant_test_name}" if info.variant_test_name else "")
    outcome = Outcome(name, "no sample")
    for call, expected in samples_of(info, dtype, limit):
        outputs = tuple(torch.full(e.shape, 77).to(e.dtype) for e in expected)
        try:
            run(call.tensors, outputs, call)
        except exc.BaseError as error:
            if isinstance(error, exc.InternalError):
                return Outcome(name, "failed", str(error), outcome.ran)
            outcome.detail = f"{type(error).__name__}: {error.message}"
            continue
        except Exception as error:  # any other exception is a failure: finding those is what the sweep is for
            return Outcome(name, "failed", f"{type(error).__name__}: {str(error)[:300]}", outcome.ran)
        dtypes = [e.dtype for e in expected]
        on_gpu = run is run_gpu and torch.cuda.is_available()
        if call.dtypes != dtypes and not (on_gpu and call.dtypes == _dtypes_on_gpu(call)):
            return Outcome(name, "failed", f"dtypes {call.dtypes} instead of {dtypes}", outcome.ran)
        compared = 1 if info.name in _ANY_PLACE else len(expected)
        wrong = difference(list(outputs[:compared]), expected[:compared], call)
        if wrong is not None:
            shapes = [list(t.shape) for t in call.tensors]
            return Outcome(name, "failed", f"wrong result for {shapes}: {wrong}", outcome.ran)
        outcome.ran += 1
    outcome.status = "pass" if outcome.ran else "refused" if outcome.detail else "no sample"
    return outcome


def candidates(dtype: torch.dtype, only: list[str] | None = None) -> list[OpInfo]:
    """The ops the sweep tries with a dtype."""
    return [
        info
        for info in op_db
        if not info.name.startswith(_OTHER_FAMILIES)
        and info.name not in _UNDETERMINED
        and dtype in info.supported_dtypes("cpu")
        and (only is None or info.name in only)
    ]


def report(outcomes: list[Outcome]) -> str:
    """Counts, failures and refusals as text."""
    counts = Counter(o.status for o in outcomes)
    lines = [", ".join(f"{status}: {count}" for status, count in sorted(counts.items()))]
    for status in ("failed", "refused"):
        lines += [f"{status} {o.name}: {o.detail}" for o in outcomes if o.status == status]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runner", choices=RUNNERS, default="tiles")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--ops", help="comma-separated names")
    options = parser.parse_args()
    if options.runner == "gpu" and not torch.cuda.is_available():
        from tests import softgpu

        softgpu.install(80)
    torch.manual_seed(0)
    dtype = getattr(torch, options.dtype)
    infos = candidates(dtype, options.ops.split(",") if options.ops else None)
    outcomes = []
    for info in infos:
        outcomes.append(sweep_op(info, dtype, options.samples, RUNNERS[options.runner]))
        if outcomes[-1].status == "failed":
            print(report(outcomes[-1:]), file=sys.stderr, flush=True)
    print(report(outcomes))
    sys.exit(any(o.status == "failed" for o in outcomes))


if __name__ == "__main__":
    main()
