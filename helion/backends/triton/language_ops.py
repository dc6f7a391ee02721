"""Triton text of the language's own ops that need more than a line: random numbers, scans, reductions and scans
with a combine function, block-scaled products, stacks of tensors, inline code.

The plain ones are in `device_ops`.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.fx

from ... import exc
from ... import language as hl
from ...ir.device_ir import GraphInfo
from ...language.sorting import sort_keys
from ..expressions import literal
from .dtypes import triton_dtype
from .emitter import KernelEmitter
from .emitter import Rules
from .memory import pointer_access
from .scope import Scope

# -- random numbers ----------------------------------------------------------------------------------------


def emit_philox_rand(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.philox_rand."""
    k.assign(node, f"tl.rand({k.text(node.args[0])}, {k.text(node.args[1])})")


def emit_philox_bits(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.philox_bits."""
    k.assign(node, f"tl.randint({k.text(node.args[0])}, {k.text(node.args[1])}).to(tl.int32, bitcast=True)")


def emit_philox_rand4x(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.philox_rand4x."""
    _assign_tuple(k, node, f"tl.rand4x({k.text(node.args[0])}, {k.text(node.args[1])})", 4)


def _assign_tuple(k: KernelEmitter, node: torch.fx.Node, text: str, count: int) -> None:
    names = [k.names.unique(f"{node.name}_{i}") for i in range(count)]
    k.statement(node, f"{', '.join(names)}{',' if count == 1 else ''} = {text}")
    k.results[node] = names


# -- scans and reductions ------------------------------------------------------------------------------------


def emit_cumulative(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.cumsum and hl.cumprod: 16-bit floats run in float32, integers in int64."""
    name = node.target.name  # type: ignore[union-attr]
    source, dim, reverse = node.args
    value, result = source.meta["val"], node.meta["val"].dtype  # type: ignore[union-attr]
    dim = _dim(dim, value.dim())
    text = k.text(source)
    if reverse:  # the padding comes first
        text = k.masked(source, dim, {"cumsum": 0, "cumprod": 1}[name])  # type: ignore[arg-type]
    narrow = result in (torch.float16, torch.bfloat16)
    if narrow or value.dtype is not result:
        text = f"({text}).to({'tl.float32' if narrow else triton_dtype(result)})"
    text = f"tl.{name}({text}, {dim}{', reverse=True' if reverse else ''})"
    k.assign(node, f"{text}.to({triton_dtype(result)})" if narrow else text)


def _dim(dim: Any, rank: int) -> int:
    return int(dim) % rank


def emit_reduce(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.reduce: the padding is filled with the identity the user gives."""
    graph_id, x, dim, other, keep_dims = node.args
    sources = _operands(x)
    at = _dim(dim, sources[0].meta["val"].dim())
    fills = other if isinstance(other, (list, tuple)) else [other] * len(sources)
    texts = [k.masked(s, at, _typed_fill(f, s)) for s, f in zip(sources, fills)]
    function = combine_function(k, k.ir.device.graphs[graph_id])  # type: ignore[index]
    keep = ", keep_dims=True" if keep_dims else ""
    _assign_results(k, node, x, f"tl.reduce({_tuple_text(texts)}, {at}, {function}{keep})", len(sources))


def _typed_fill(fill: Any, source: torch.fx.Node) -> Any:
    """The identity as a literal of the operand's kind."""
    dtype = source.meta["val"].dtype
    return bool(fill) if dtype is torch.bool else float(fill) if dtype.is_floating_point else int(fill)


def emit_associative_scan(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.associative_scan.  Forward, the padding comes last and reaches nothing.  In reverse it comes first, and
    there is no identity to fill it with: a flag is scanned along that says whether there has been an element yet."""
    graph_id, x, dim, reverse = node.args
    sources = _operands(x)
    rank = sources[0].meta["val"].dim()
    at = _dim(dim, rank)
    texts = [k.text(s) for s in sources]
    function = combine_function(k, k.ir.device.graphs[graph_id])  # type: ignore[index]
    mask = k.dim_mask(sources[0], at) if reverse else None
    if mask is None:
        options = ", reverse=True" if reverse else ""
        _assign_results(
            k, node, x, f"tl.associative_scan({_tuple_text(texts)}, {at}, {function}{options})", len(sources)
        )
        return
    flags = f"tl.broadcast_to({k.along(mask, at, rank)}, {k.shape(sources[0].meta['val'].shape)}).to(tl.int32)"
    skipping = _skipping_function(k, function, len(sources))
    names = [k.names.unique(f"{node.name}_{i}") for i in range(len(sources))]
    unused = k.names.unique("started")
    k.statement(
        node,
        (
            f"{unused}, {', '.join(names)} = tl.associative_scan(({flags}, {', '.join(texts)}), {at}, "
            f"{skipping}, reverse=True)"
        ),
    )
    _results(k, node, x, names)


def _operands(x: Any) -> list[torch.fx.Node]:
    return list(x) if isinstance(x, (list, tuple)) else [x]


def _tuple_text(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"


def _assign_results(k: KernelEmitter, node: torch.fx.Node, x: Any, text: str, count: int) -> None:
    if count == 1:
        name = k.assign(node, text)
        k.results[node] = [name]
        return
    _assign_tuple(k, node, text, count)


def _results(k: KernelEmitter, node: torch.fx.Node, x: Any, names: list[str]) -> None:
    k.results[node] = names
    if not isinstance(x, (list, tuple)):
        k.texts[node] = names[0]


def combine_function(k: KernelEmitter, info: GraphInfo) -> str:
    """A `@triton.jit` function for a combine graph; its name."""
    name = f"_combine_{info.id}"
    if name in k.module.sources:
        return name
    outer, k.scope = k.scope, Scope()
    location, k.last_location = k.last_location, None
    parameters = [k.names.unique(node.name) for node in info.placeholders]
    k.texts.update(zip(info.placeholders, parameters))
    k.graph(info)
    body = [*k.scope.lines(), f"return {', '.join(k.text(output) for output in info.outputs)}"]
    k.scope, k.last_location = outer, location
    k.module.sources[name] = ["@triton.jit", f"def {name}({', '.join(parameters)}):", *(f"    {line}" for line in body)]
    return name


def _skipping_function(k: KernelEmitter, combine: str, n: int) -> str:
    """`combine` on (flag, value...) pairs where only values with a set flag count."""
    name = f"{combine}_skipping"
    left, right, both = ([f"{side}_{i}" for i in range(n)] for side in ("left", "right", "both"))
    lines = [
        "@triton.jit",
        f"def {name}(has_left, {', '.join(left)}, has_right, {', '.join(right)}):",
        f"    {', '.join(both)} = {combine}({', '.join([*left, *right])})",
    ]
    picked = [
        f"tl.where(has_left == 0, {r}, tl.where(has_right == 0, {l}, {b}))"
        for l, r, b in zip(left, right, both)  # noqa: E741
    ]
    k.module.sources.setdefault(name, [*lines, f"    return has_left | has_right, {', '.join(picked)}"])
    return name


def emit_sort_keys(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.sort_keys: padding comes last."""
    (source,) = node.args
    last = source.meta["val"].dim() - 1  # type: ignore[union-attr]
    k.assign(node, f"tl.sort({k.masked(source, last, 2**63 - 1)}, {last})")  # type: ignore[arg-type]


def emit_take_along_dim(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.take_along_dim.  Padding of the index may hold anything, so it is kept inside the value."""
    source, index, dim = node.args
    value = source.meta["val"]  # type: ignore[union-attr]
    at = _dim(dim, value.dim())
    extent = k.extent(value.shape[at])
    safe = f"{k.text(index)}.to(tl.int32) & ({extent} - 1)"
    text = f"{k.text(source)}.to(tl.int8)" if value.dtype is torch.bool else k.text(source)
    text = _repeated(k, text, list(value.shape), at, node.meta["val"].shape[at])
    text = f"tl.gather({text}, {safe}, {at})"
    k.assign(node, f"{text} != 0" if value.dtype is torch.bool else text)


def _repeated(k: KernelEmitter, text: str, shape: list[Any], at: int, wanted: Any) -> str:
    """A value repeated along a dimension up to the extent of an index: Triton 3.7 fails to compile `tl.gather` where
    the index is longer than the value (an assertion in OptimizeThreadLocality)."""
    extents = [k.extent(size) for size in shape]
    longer = k.extent(wanted)
    if not (extents[at].isdigit() and longer.isdigit()) or int(longer) <= int(extents[at]):
        return text
    times = int(longer) // int(extents[at])
    before, after = extents[:at], extents[at + 1 :]
    wide = ", ".join([*before, str(times), extents[at], *after])
    return (
        f"tl.reshape(tl.broadcast_to(tl.expand_dims({text}, {at}), [{wide}]), [{', '.join([*before, longer, *after])}])"
    )


# -- block-scaled products --------------------------------------------------------------------------------------


def emit_dot_scaled(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.dot_scaled."""
    a, a_scale, fmt_a, b, b_scale, fmt_b, acc, _ = node.args
    result = node.meta["val"].dtype
    left = k.masked(a, 1, 0)  # type: ignore[arg-type]
    right = k.masked(b, 0, 0)  # type: ignore[arg-type]
    scales = ["None" if s is None else k.text(s) for s in (a_scale, b_scale)]
    arguments = [left, scales[0], repr(fmt_a), right, scales[1], repr(fmt_b)]
    fused = isinstance(acc, torch.fx.Node) and acc.meta["val"].dtype is torch.float32 and _same_rank(acc, node)
    if fused:
        arguments.append(f"acc={k.text(acc)}")
    text = f"tl.dot_scaled({', '.join(arguments)})"
    if isinstance(acc, torch.fx.Node) and not fused:
        text = f"{text} + {k.text(acc)}.to(tl.float32)"
    k.assign(node, text if result is torch.float32 else f"({text}).to({triton_dtype(result)})")


def _same_rank(acc: torch.fx.Node, node: torch.fx.Node) -> bool:
    return tuple(map(str, acc.meta["val"].shape)) == tuple(map(str, node.meta["val"].shape))


# -- stacks of tensors ----------------------------------------------------------------------------------------


def _stack_access(k: KernelEmitter, node: torch.fx.Node, index: Any, extra_mask: Any) -> tuple[str, str | None]:
    """Pointers and mask of an access to every tensor of a stack: the addresses' dimensions come first."""
    host, addresses = node.args[0], node.args[1]
    like: torch.Tensor = host.meta["val"]  # type: ignore[union-attr]
    outer = addresses.meta["val"].dim()  # type: ignore[union-attr]
    inner = pointer_access(k, SimpleNamespace(args=(host, index), meta=node.meta, target=node.target), None)  # type: ignore[arg-type]
    rank = outer + inner.rank
    pointers = f"{k.text(addresses)}.to(tl.pointer_type({triton_dtype(like.dtype)}))"
    _, _, offset = inner.pointer.partition(" + ")
    masks = [
        k.along(mask, d, rank)
        for d in range(outer)
        if (mask := k.dim_mask(addresses, d)) is not None  # type: ignore[arg-type]
    ]
    if inner.mask is not None:
        masks.append(_behind(f"({inner.mask})", outer, rank))
    if extra_mask is not None:
        masks.append(k.text(extra_mask))
    text = _before(pointers, outer, rank)
    if offset:
        text += f" + {_behind(f'({offset})', outer, rank) if inner.rank else offset}"
    return text, " & ".join(masks) if masks else None


def _before(text: str, dims: int, rank: int) -> str:
    """A value of `dims` dimensions as the first ones of `rank`."""
    if dims == rank:
        return text
    return f"{text}[{', '.join([':'] * dims + ['None'] * (rank - dims))}]" if dims else text


def _behind(text: str, skipped: int, rank: int) -> str:
    """A value as the last dimensions of `rank`."""
    if skipped == 0:
        return text
    return f"{text}[{', '.join(['None'] * skipped + [':'] * (rank - skipped))}]"


def emit_stack_load(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.stack_load."""
    pointer, mask = _stack_access(k, node, node.args[2], node.args[3])
    k.assign(node, f"tl.load({pointer}, {mask}, other=0)" if mask else f"tl.load({pointer})")


def emit_stack_store(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.stack_store."""
    pointer, mask = _stack_access(k, node, node.args[2], node.args[4])
    value = node.args[3]
    text = literal(value) if isinstance(value, (bool, int, float)) else k.text(value)
    k.statement(node, f"tl.store({pointer}, {text}{f', {mask}' if mask else ''})")


# -- inline code --------------------------------------------------------------------------------------------------


def emit_inline_asm(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.inline_asm_elementwise."""
    asm, constraints, args, dtype, is_pure, pack = node.args
    several = isinstance(dtype, (list, tuple))
    dtypes = [triton_dtype(d) for d in (dtype if several else [dtype])]  # type: ignore[arg-type,union-attr]
    operands = ", ".join(k.text(a) for a in args)  # type: ignore[union-attr]
    text = (
        f"tl.inline_asm_elementwise({asm!r}, {constraints!r}, [{operands}], "
        f"{_tuple_text(dtypes) if not several else f'({chr(44).join(dtypes)},)'}, is_pure={is_pure}, pack={pack})"
    )
    if several:
        _assign_tuple(k, node, text, len(dtypes))
    else:
        k.assign(node, text)


def emit_inline_triton(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.inline_triton: the user's statements, the last one an expression with the result."""
    source, args, _ = node.args
    if isinstance(args, dict):
        text = str(source).format(**{name: k.text(value) for name, value in args.items()})
    else:
        text = str(source).format(*(k.text(value) for value in args))  # type: ignore[union-attr]
    text = textwrap.dedent(text).strip("\n")
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise exc.InvalidAPIUsage(f"hl.inline_triton: the source does not parse: {error}") from None
    k.module.written_by_user(tree)
    lines = text.splitlines()
    if node.meta["val"] is None:
        for line in lines:
            k.statement(node, line)
        return
    last = tree.body[-1]
    if not isinstance(last, ast.Expr):
        raise exc.InvalidAPIUsage(
            "hl.inline_triton: the last statement is not an expression",
            fix="end the source with the result, or pass output_like=None.",
        )
    for line in lines[: last.lineno - 1]:
        k.statement(node, line)
    _assign_like(k, node, "\n".join(lines[last.lineno - 1 :]))


def _assign_like(k: KernelEmitter, node: torch.fx.Node, text: str) -> None:
    value = node.meta["val"]
    if value is None:
        k.statement(node, text)
    elif isinstance(value, (tuple, list)):
        _assign_tuple(k, node, text, len(value))
    else:
        k.assign(node, text)


def emit_triton_kernel(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.triton_kernel: a call of a `@triton.jit` function, given as an object or as source."""
    function, args, _ = node.args
    name = _source_function(k, function) if isinstance(function, str) else _injected_function(k, function)
    if isinstance(args, dict):
        operands = [f"{key}={k.text(value)}" for key, value in args.items()]
    else:
        operands = [k.text(value) for value in args]  # type: ignore[union-attr]
    _assign_like(k, node, f"{name}({', '.join(operands)})")


def _source_function(k: KernelEmitter, source: str) -> str:
    text = textwrap.dedent(source).strip("\n")
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise exc.InvalidAPIUsage(f"hl.triton_kernel: the source does not parse: {error}") from None
    k.module.written_by_user(tree)
    functions = [s for s in tree.body if isinstance(s, ast.FunctionDef)]
    if len(functions) != 1:
        raise exc.InvalidAPIUsage(f"hl.triton_kernel: the source defines {len(functions)} functions, expected one")
    lines = text.splitlines()
    if not functions[0].decorator_list:
        lines.insert(functions[0].lineno - 1, "@triton.jit")
    known = k.module.sources.setdefault(functions[0].name, lines)
    if known != lines:
        raise exc.InvalidAPIUsage(
            f"hl.triton_kernel: two different functions are called {functions[0].name!r}", fix="rename one of them."
        )
    return functions[0].name


def _injected_function(k: KernelEmitter, function: Any) -> str:
    name = getattr(function, "__name__", None)
    if name is None or not hasattr(function, "arg_names"):
        raise exc.InvalidAPIUsage(
            f"hl.triton_kernel needs a @triton.jit function, got {type(function).__name__}",
            fix="decorate it with @triton.jit, or pass its source as a string.",
        )
    known = k.module.injected.setdefault(name, function)
    if known is not function:
        raise exc.InvalidAPIUsage(
            f"hl.triton_kernel: two different functions are called {name!r}", fix="rename one of them."
        )
    return str(name)


def emit_breakpoint(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.breakpoint: a GPU cannot stop."""
    raise exc.BackendUnsupported(
        backend="triton",
        reason="a compiled kernel cannot stop in a debugger",
        fix="run with HELION_INTERPRET=1, where breakpoint() works.",
    )


RULES: Rules = {
    hl.philox_rand: emit_philox_rand,
    hl.philox_rand4x: emit_philox_rand4x,
    hl.philox_bits: emit_philox_bits,
    hl.cumsum: emit_cumulative,
    hl.cumprod: emit_cumulative,
    hl.reduce: emit_reduce,
    hl.associative_scan: emit_associative_scan,
    sort_keys: emit_sort_keys,
    hl.take_along_dim: emit_take_along_dim,
    hl.dot_scaled: emit_dot_scaled,
    hl.stack_load: emit_stack_load,
    hl.stack_store: emit_stack_store,
    hl.inline_asm_elementwise: emit_inline_asm,
    hl.inline_triton: emit_inline_triton,
    hl.triton_kernel: emit_triton_kernel,
    hl.breakpoint: emit_breakpoint,
}
