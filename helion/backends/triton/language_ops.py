"""Triton text of the language's own ops that need more than a line: random numbers, scans, reductions and scans
with a combine function, block-scaled products, stacks of tensors, inline code.

The plain ones are in `device_ops`.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Sequence
from typing import Any

import torch
import torch.fx

from ... import exc
from ... import language as hl
from ..._parsing import parse
from ...ir.nodes import Combining
from ...ir.nodes import DotScaled
from ...ir.nodes import Memory
from ...ir.nodes import operand
from ...ir.nodes import tensor_of
from ...language.matmul import SCALE_GROUPS
from ...language.matmul import SCALED_FORMATS
from ...language.sorting import sort_keys
from ..text import Precedence
from ..text import Text
from ..text import call
from ..text import listed
from ..text import total
from .axes import along
from .axes import spread
from .dtypes import triton_dtype
from .emitter import KernelEmitter
from .emitter import Rule
from .emitter import Rules
from .memory import all_of
from .memory import pointer_access
from .reductions import detached
from .reductions import in_order
from .reductions import may_round_apart
from .reductions import summand
from .reshapes import repeated
from .scope import Scope

# -- random numbers ----------------------------------------------------------------------------------------


def _call_of_operands(function: str) -> Rule:
    return lambda k, node: k.assign(node, call(function, *map(k.text, node.args)))


def emit_philox_bits(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.philox_bits."""
    k.assign(node, call("tl.randint", *map(k.text, node.args)).to("tl.int32", bitcast=True))


def emit_philox_rand4x(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.philox_rand4x."""
    _assign_tuple(k, node, call("tl.rand4x", *map(k.text, node.args)), 4)


def _assign_tuple(k: KernelEmitter, node: torch.fx.Node, text: Text, count: int) -> None:
    k.assign_several(node, text, [f"{node.name}_{i}" for i in range(count)])


# -- scans and reductions ------------------------------------------------------------------------------------


def _emit_cumulative(name: str, neutral: int) -> Rule:
    """hl.cumsum and hl.cumprod: 16-bit floats run in float32, integers in int64."""

    def emit(k: KernelEmitter, node: torch.fx.Node) -> None:
        _, dim, reverse = node.args
        source = operand(node)
        value, result = tensor_of(source), tensor_of(node).dtype
        at = _dim(dim, value.dim())
        counts = reverse or k.axes.has_gaps(value.shape[at])  # else the padding comes last
        text = k.masked(source, at, neutral) if counts else k.text(source)
        narrow = result in (torch.float16, torch.bfloat16)
        if narrow or value.dtype is not result:
            text = text.to("tl.float32" if narrow else triton_dtype(result))
        if not _is_single(k, value, at):
            text = call(f"tl.{name}", text, at, **_reversed(reverse))
        k.assign(node, text.to(triton_dtype(result)) if narrow else text)

    return emit


def _reversed(reverse: Any) -> dict[str, object]:
    return {"reverse": True} if reverse else {}


def _is_single(k: KernelEmitter, value: torch.Tensor, dim: int) -> bool:
    """Whether a dimension has one element even with its padding, so that a scan along it is the value itself. Triton
    3.6 fails on one whose layout gives a thread several ("PassManager::run failed"): `cumsum` beside an `all` of rows.
    """
    return k.extents.known(value.shape[dim]) == 1


def _dim(dim: Any, rank: int) -> int:
    return int(dim) % rank


def emit_reduce(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.reduce: the padding is filled with the identity the user gives."""
    _, x, dim, other, keep_dims = node.args
    sources = _operands(x)
    at = _dim(dim, tensor_of(sources[0]).dim())
    fills = other if isinstance(other, (list, tuple)) else [other] * len(sources)
    masked = [k.masked(s, at, _typed_fill(f, s)) for s, f in zip(sources, fills)]
    texts = [summand(k, s) if text == k.text(s) else text for s, text in zip(sources, masked)]
    texts = [detached(k, s, text) for s, text in zip(sources, texts)]
    texts = [in_order(k, s, text) for s, text in zip(sources, texts)] if len(texts) > 1 else texts
    options = {"keep_dims": True} if keep_dims else {}
    k.rounds_sums = any(may_round_apart(k, s, at) for s in sources)
    combine = combine_function(k, node)
    k.rounds_sums = False
    text = call("tl.reduce", _tuple_text(texts), at, combine, **options)
    is_float = tensor_of(sources[0]).dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    if is_float and len(sources) == 1 and any(later.op == "output" for user in node.users for later in user.users):
        text = k.helper("hlt_settled", text)  # a loop may carry what it is combined with
    _assign_results(k, node, text, len(sources))


def _typed_fill(fill: Any, source: torch.fx.Node) -> Any:
    """The identity as a literal of the operand's kind."""
    dtype = tensor_of(source).dtype
    return bool(fill) if dtype is torch.bool else float(fill) if dtype.is_floating_point else int(fill)


def emit_associative_scan(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.associative_scan.  Forward, the padding comes last and reaches nothing.  In reverse it comes first, of some
    merged dimensions between, and there is no identity to fill it with: a flag is scanned along that says whether there
    has been an element yet."""
    _, x, dim, reverse = node.args
    sources = _operands(x)
    value = tensor_of(sources[0])
    at = _dim(dim, value.dim())
    texts = list(map(k.text, sources))
    if _is_single(k, value, at):
        k.results[node] = texts
        if not isinstance(x, (list, tuple)):
            k.set_text(node, texts[0])
        return
    function = combine_function(k, node)
    gaps = k.axes.has_gaps(value.shape[at])
    mask = k.axes.dim_mask(sources[0], at) if reverse or gaps else None
    if mask is None and gaps:
        k.check_derived(value.shape[at], "a scan of")
    if mask is None:
        text = call("tl.associative_scan", _tuple_text(texts), at, function, **_reversed(reverse))
        _assign_results(k, node, text, len(sources))
        return
    flags = call("tl.broadcast_to", along(mask, at, value.dim()), k.shape(value.shape)).to("tl.int32")
    skipping = _skipping_function(k, function, len(sources))
    names = [f"{node.name}_{i}" for i in range(len(sources))]
    text = call("tl.associative_scan", _tuple_text([flags, *texts]), at, skipping, **_reversed(reverse))
    _, *results = k.assign_several(node, text, ["started", *names])
    k.results[node] = results
    if not isinstance(x, (list, tuple)):
        k.set_text(node, results[0])


def _operands(x: Any) -> list[torch.fx.Node]:
    return list(x) if isinstance(x, (list, tuple)) else [x]


def _tuple_text(texts: Sequence[object]) -> object:
    return texts[0] if len(texts) == 1 else f"({', '.join(map(str, texts))})"


def _assign_results(k: KernelEmitter, node: torch.fx.Node, text: Text, count: int) -> None:
    if count == 1:
        k.results[node] = [k.assign(node, text)]
    else:
        _assign_tuple(k, node, text, count)


def combine_function(k: KernelEmitter, node: torch.fx.Node) -> str:
    """A `@triton.jit` function for the combine graph of a node; its name."""
    info = k.ir.device.graphs[Combining.of(node).graph_id]
    name = f"_combine_{info.id}"
    if name in k.module.sources:
        return name
    parameters = [k.names.unique(placeholder.name) for placeholder in info.placeholders]
    for placeholder, parameter in zip(info.placeholders, parameters):
        k.set_text(placeholder, Text(parameter))
    with k.inside(Scope(k.names), elsewhere=True) as scope:
        k.graph(info)
    body = [*scope.lines(), f"return {', '.join(str(k.text(output)) for output in info.outputs)}"]
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
    last = tensor_of(node).dim() - 1
    if tensor_of(node).shape[last] == 1:  # tl.sort has no form of one element
        k.assign(node, k.text(operand(node)))
        return
    k.assign(node, call("tl.sort", k.masked(operand(node), last, 2**63 - 1), last))


def emit_take_along_dim(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.take_along_dim.  Padding of the index may hold anything, so it is kept inside the value."""
    source, index, dim = operand(node), operand(node, 1), node.args[2]
    value = tensor_of(source)
    at = _dim(dim, value.dim())
    if k.axes.has_gaps(value.shape[at]):
        k.check_derived(value.shape[at], "an index into")
    *outer, extent = map(k.extents, value.shape[: at + 1])
    safe = k.text(index).to("tl.int32") & (extent - 1)
    text = k.text(source).to("tl.int8") if value.dtype is torch.bool else k.text(source)
    times = k.extents.known(tensor_of(node).shape[at]) // k.extents.known(value.shape[at])
    if times > 1 and extent.number is not None:
        text = repeated(text, outer, extent.number, list(map(k.extents, value.shape[at + 1 :])), times)
    text = call("tl.gather", text, safe, at)
    k.assign(node, text.differs(0) if value.dtype is torch.bool else text)


# -- block-scaled products --------------------------------------------------------------------------------------


def emit_dot_scaled(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.dot_scaled."""
    dot = DotScaled.of(node)
    acc, result = dot.acc, dot.result
    left, right = k.masked(dot.a, 1, 0), k.masked(dot.b, 0, 0)
    stored = (tensor_of(dot.a).shape[1], dot.fmt_a, dot.a_scale), (tensor_of(dot.b).shape[0], dot.fmt_b, dot.b_scale)
    scales = [_scales(k, *side) for side in stored]
    operands = (left, scales[0], repr(dot.fmt_a), right, scales[1], repr(dot.fmt_b))
    if _has_instruction(k, dot):
        fused = acc is not None and tensor_of(acc).dtype is torch.float32 and _same_shape(tensor_of(acc), result)
        text = call("tl.dot_scaled", *operands, **({"acc": k.text(acc)} if fused and acc is not None else {}))
    else:
        fused, text = False, k.helper("hlt_dot_scaled", *operands)
    if acc is not None and not fused:
        text = text + k.text(acc).to("tl.float32")
    k.assign(node, text if result.dtype is torch.float32 else text.to(triton_dtype(result.dtype)))


def _scales(k: KernelEmitter, stored: Any, fmt: str, scale: torch.fx.Node | None) -> Text | str:
    """The scales of an operand with `stored` elements a row: as many as its groups.

    A size that another product sums over is padded for that one wherever it is, as the number of groups may be; by how
    many scales there are it is told how long a group is.
    """
    if scale is None:
        return "None"
    value = tensor_of(scale)
    groups = k.extents.known(stored) * SCALED_FORMATS[fmt][1] // SCALE_GROUPS[value.dtype]
    padded = k.extents.known(value.shape[1]) > groups
    return k.helper("hlt_first_columns", k.text(scale), groups) if padded else k.text(scale)


def _has_instruction(k: KernelEmitter, dot: DotScaled) -> bool:
    """Whether the target's tensor cores take the operands as they are: both scaled in one way, in tiles of 128 rows.
    Triton compiles smaller tiles and 16-bit operands by its own emulation, or not at all.
    """
    if not k.module.features.scaled_products or dot.a_scale is None or dot.b_scale is None:
        return False
    kinds = {tensor_of(scale).dtype for scale in (dot.a_scale, dot.b_scale)}
    formats = {dot.fmt_a, dot.fmt_b}
    fits = formats <= {"e2m1", "e4m3", "e5m2"} if kinds == {torch.uint8} else formats == {"e2m1"}
    rows, stored = map(k.extents.known, tensor_of(dot.a).shape)
    columns = k.extents.known(tensor_of(dot.b).shape[1])
    elements = stored * SCALED_FORMATS[dot.fmt_a][1]
    return len(kinds) == 1 and fits and rows >= 128 and columns >= 32 and elements >= 128


def _same_shape(a: torch.Tensor, b: torch.Tensor) -> bool:
    return tuple(map(str, a.shape)) == tuple(map(str, b.shape))


# -- stacks of tensors ----------------------------------------------------------------------------------------


def _stack_access(k: KernelEmitter, stack: Memory) -> list[Text]:
    """Pointers and, if there is one, mask of an access to every tensor of a stack: the addresses' dimensions come
    first.
    """
    addresses = stack.addresses
    assert addresses is not None
    outer = tensor_of(addresses).dim()
    inner = pointer_access(k, stack, None)
    rank = outer + inner.rank
    pointers = k.text(addresses).to(call("tl.pointer_type", triton_dtype(stack.tensor.dtype)))
    masks = [mask and along(mask, d, rank) for d in range(outer) for mask in [k.axes.dim_mask(addresses, d)]]
    masks.append(inner.mask and spread(inner.mask, outer, inner.rank, rank))
    masks.append(None if stack.extra_mask is None else k.text(stack.extra_mask))
    pointers = spread(pointers, 0, outer, rank) if outer else pointers
    if inner.offset:
        offset = total(inner.offset)
        pointers += spread(offset, outer, inner.rank, rank) if inner.rank else offset
    mask = all_of(masks)
    return [pointers] if mask is None else [pointers, mask]


def emit_stack_load(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.stack_load."""
    access = _stack_access(k, Memory.of(node))
    k.assign(node, call("tl.load", *access, **({"other": 0} if len(access) > 1 else {})))


def emit_stack_store(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.stack_store."""
    stack = Memory.of(node)
    pointers, *mask = _stack_access(k, stack)
    k.statement(node, call("tl.store", pointers, *map(k.text, stack.values), *mask))


# -- inline code --------------------------------------------------------------------------------------------------


def emit_inline_asm(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.inline_asm_elementwise."""
    arguments: Any = node.args
    asm, constraints, args, dtype, is_pure, pack = arguments
    several = isinstance(dtype, (list, tuple))
    dtypes = [triton_dtype(d) for d in (dtype if several else [dtype])]
    text = call(
        "tl.inline_asm_elementwise",
        *(repr(asm), repr(constraints), listed(map(k.text, args))),
        f"({', '.join(dtypes)},)" if several else dtypes[0],
        is_pure=is_pure,
        pack=pack,
    )
    if several:
        _assign_tuple(k, node, text, len(dtypes))
    else:
        k.assign(node, text)


def emit_inline_triton(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.inline_triton: the user's statements, the last one an expression with the result."""
    source, args, _ = node.args
    named = args if isinstance(args, dict) else {}
    places: Any = [] if isinstance(args, dict) else args
    # The source says where an operand stands, but not how tightly it must bind there.
    texts = {name: k.text(value).within(Precedence.NUMBER) for name, value in named.items()}
    text = str(source).format(*(k.text(value).within(Precedence.NUMBER) for value in places), **texts)
    lines, tree = _parsed(k, text, "hl.inline_triton")
    last = tree.body[-1] if tree.body else None
    if node.meta["val"] is None:
        last = None
    elif not isinstance(last, ast.Expr):
        raise exc.InvalidAPIUsage(
            "hl.inline_triton: the last statement is not an expression",
            fix="end the source with the result, or pass output_like=None.",
        )
    count = len(lines) if last is None else last.lineno - 1
    for line in lines[:count]:
        k.statement(node, line)
    if last is not None:
        _assign_like(k, node, Text("\n".join(lines[count:])))


def _parsed(k: KernelEmitter, source: str, what: str) -> tuple[list[str], ast.Module]:
    """Lines and syntax tree of device code that the user wrote."""
    text = textwrap.dedent(source).strip("\n")
    try:
        tree = parse(text)
    except SyntaxError as error:
        raise exc.InvalidAPIUsage(f"{what}: the source does not parse: {error}") from None
    k.module.written_by_user(tree)
    return text.splitlines(), tree


def _assign_like(k: KernelEmitter, node: torch.fx.Node, text: Text) -> None:
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
    named = args if isinstance(args, dict) else {}
    places: Any = [] if isinstance(args, dict) else args
    _assign_like(k, node, call(name, *map(k.text, places), **{key: k.text(value) for key, value in named.items()}))


def _source_function(k: KernelEmitter, source: str) -> str:
    lines, tree = _parsed(k, source, "hl.triton_kernel")
    functions = [s for s in tree.body if isinstance(s, ast.FunctionDef)]
    if len(functions) != 1:
        raise exc.InvalidAPIUsage(f"hl.triton_kernel: the source defines {len(functions)} functions, expected one")
    if not functions[0].decorator_list:
        lines.insert(functions[0].lineno - 1, "@triton.jit")
    _only_one(k.module.sources.setdefault(functions[0].name, lines) == lines, functions[0].name)
    return functions[0].name


def _only_one(same: bool, name: str) -> None:
    if not same:
        raise exc.InvalidAPIUsage(
            f"hl.triton_kernel: two different functions are called {name!r}", fix="rename one of them."
        )


def _injected_function(k: KernelEmitter, function: Any) -> str:
    name = getattr(function, "__name__", None)
    if name is None or not hasattr(function, "arg_names"):
        raise exc.InvalidAPIUsage(
            f"hl.triton_kernel needs a @triton.jit function, got {type(function).__name__}",
            fix="decorate it with @triton.jit, or pass its source as a string.",
        )
    _only_one(k.module.injected.setdefault(name, function) is function, name)
    return str(name)


def emit_breakpoint(k: KernelEmitter, node: torch.fx.Node) -> None:
    """hl.breakpoint: a GPU cannot stop."""
    raise exc.BackendUnsupported(
        backend="triton",
        reason="a compiled kernel cannot stop in a debugger",
        fix="run with HELION_INTERPRET=1, where breakpoint() works.",
    )


RULES: Rules = {
    hl.philox_rand: _call_of_operands("tl.rand"),
    hl.philox_rand4x: emit_philox_rand4x,
    hl.philox_bits: emit_philox_bits,
    hl.cumsum: _emit_cumulative("cumsum", 0),
    hl.cumprod: _emit_cumulative("cumprod", 1),
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
