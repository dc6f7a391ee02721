"""What to do, done: the advice of each message of the gallery is pasted into the kernel that got it, which then runs.

A `Fix` says what of the advice is pasted, each part of which must stand in the message, and where; the kernel's result
is compared in every case.  Messages that name no code (where to move a statement, a list of names) have a fix as well:
what they tell the user to do must be right.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from tests import error_gallery
from tests.error_gallery import CASES
from tests.error_gallery import message_of

X = torch.arange(64.0).reshape(8, 8) / 16 - 1
OUT = torch.full((8, 8), -77.0)


@dataclasses.dataclass(frozen=True)
class Fix:
    """A kernel with the advice of a message in it.

    Attributes:
        says: parts of the message that the edits follow.
        edits: what is replaced by what in the kernel's source.
        gives: what `out` holds afterwards, of `x`; None: the function only has to run.
        extra: arguments besides `x` and `out`.
        settings: of the kernel.
        function: name of the kernel function in the gallery, where the case's own function calls another one.
    """

    says: tuple[str, ...]
    edits: tuple[tuple[str, str], ...]
    gives: Callable[[torch.Tensor], torch.Tensor]
    extra: tuple[Any, ...] = ()
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    function: str | None = None


def fix(*says: str, edits: list[tuple[str, str]], gives: Any, **options: Any) -> Fix:
    return Fix(says, tuple(edits), gives, **options)


def stored(value: Any, *where: Any) -> torch.Tensor:
    out = OUT.clone()
    out[where or (slice(None),)] = value
    return out


def same(x: torch.Tensor) -> torch.Tensor:
    return x


def plus(x: Any, y: Any) -> Any:
    return x + y


FIXES: dict[str, Fix] = {
    "no device loop": fix(
        "for tile in hl.tile(...):",
        edits=[("out.copy_(x)", "for tile in hl.tile(x.size()):\n        out[tile] = x[tile]")],
        gives=same,
    ),
    "a device loop inside a host loop": fix(
        "let the kernel do one round",
        edits=[("    while True:\n        for tile", "    if True:\n        for tile")],
        gives=same,
    ),
    "a host statement between two device loops": fix(
        "move it before the first loop",
        edits=[
            ("    y = out + 1\n", ""),
            ("    for tile in hl.tile(x.size()):\n        out[tile] = x[tile]\n", "    y = x + 1\n"),
        ],
        gives=lambda x: x + 1,
    ),
    "hl.tile without for": fix(
        "write `for tile in hl.tile(...):`",
        edits=[
            ("tile = hl.tile(x.size(0))\n    out[tile]", "for tile in hl.tile(x.size(0)):\n        out[tile, :]"),
            ("x[tile]", "x[tile, :]"),
        ],
        gives=same,
    ),
    "a tile as the bound of a tile": fix(
        "hl.tile(tile.begin, tile.end)",
        edits=[("hl.tile(rows)", "hl.tile(rows.begin, rows.end)")],
        gives=same,
    ),
    "bounds of different lengths": fix(
        "lists of the same length",
        "hl.tile(begin, end)",
        edits=[("hl.tile([0, 0], [8])", "hl.tile([0], [8])")],
        gives=same,
    ),
    "an unsupported statement": fix(
        "rewrite it with assignments",
        edits=[
            (
                "        try:\n            out[tile] = x[tile]\n        finally:\n            pass",
                "        out[tile] = x[tile]",
            )
        ],
        gives=same,
    ),
    "device API in host code": fix(
        "move it inside a `for tile in hl.tile(...):` loop",
        edits=[
            ("    zero = hl.zeros([8, 8])\n", ""),
            ("        out[tile] = x[tile]", "        zero = hl.zeros(tile)\n        out[tile] = x[tile] + zero"),
        ],
        gives=same,
    ),
    "host API in device code": fix(
        "call hl.specialize() in host code",
        edits=[
            ("        n = hl.specialize(x.size(1))\n", ""),
            ("    for tile", "    n = hl.specialize(x.size(1))\n    for tile"),
        ],
        gives=lambda x: x * 8,
    ),
    "registering a block size in device code": fix(
        "call it in host code, before the",
        edits=[
            ("        block = hl.register_block_size(8)\n", ""),
            ("    for rows", "    block = hl.register_block_size(8)\n    for rows"),
        ],
        gives=same,
    ),
    "a part of a tile's dimension": fix(
        "`x[tile.begin + 1]`",
        edits=[("x[rows, :][1]", "x[rows.begin + 1, :]")],
        gives=lambda x: x + x[[1, 5]].repeat_interleave(4, 0),
    ),
    "a host tensor used without an index": fix("`x[tile]`", edits=[("x + 1", "x[tile] + 1")], gives=lambda x: x + 1),
    "a host variable assigned on the device": fix(
        "use another name",
        edits=[("        count = count + 1\n", "        more = count + 1\n")],
        gives=same,
    ),
    "a device variable read on the host": fix(
        "store it into an output tensor inside the loop, and return that tensor",
        edits=[("return last", "return out")],
        gives=same,
    ),
    "a helper of host code that decides on what a tensor holds": fix(
        "decide on it, in the kernel function itself",
        edits=[("columns_of(x)", "8 if x.sum() > -1e9 else 2")],
        gives=same,
    ),
    "host code that decides on what a tensor holds after it has written to it": fix(
        "decide before that",
        edits=[("    x.add_(1)\n", ""), ("        x = -x\n", "        x = -x\n    x.add_(1)\n")],
        gives=lambda x: (-x if x.sum() > 0 else x) + 1,
    ),
    "a function of math on a tile's place": fix(
        "torch.exp(hl.full([], tile[0].begin))",
        edits=[("math.exp(tile[0].begin)", "torch.exp(hl.full([], tile[0].begin))")],
        gives=same,
    ),
    "a list that a device loop appends to": fix(
        "assign items (`x[i] = ...`)",
        edits=[
            ("parts = []", "parts = [hl.zeros([rows])]"),
            ("parts.append(x[rows, columns].sum(1))", "parts[0] = parts[0] + x[rows, columns].sum(1)"),
        ],
        gives=lambda x: stored(x.sum(1), slice(None), 0),
    ),
    "a tensor made of numbers in device code": fix(
        "use the number itself, or hl.full",
        edits=[("torch.tensor([1.0])", "hl.full([], 1.0)")],
        gives=lambda x: x + 1,
    ),
    "a tile used as a number": fix(
        "tile.index", edits=[("* rows", "* rows.index[:, None]")], gives=lambda x: x * torch.arange(8)[:, None]
    ),
    "a kernel called by another one": fix(
        "call a plain function",
        edits=[("other(x[rows, :], 1)", "other(x[rows, :], 2)")],
        gives=lambda x: x + 2,
        extra=(plus,),
    ),
    "reading data back to the host": fix(
        "keep the value in a tensor",
        edits=[(".item()", "")],
        gives=lambda x: x * x.sum(),
        settings={"block_sizes": [8, 8]},
    ),
    "an atomic on a device value": fix(
        "allocate the target in host code",
        "hl.atomic_add(out, [tile], value)",
        edits=[("        total = hl.zeros([1])\n", ""), ("    for tile", "    total = torch.zeros([1])\n    for tile")],
        gives=same,
    ),
    "an undefined name": fix(
        "assign it before it is read", edits=[("    for tile", "    factor = 2\n    for tile")], gives=lambda x: x * 2
    ),
    "a loop-carried value changes its dtype": fix(
        "by creating it with the final dtype",
        edits=[("dtype=torch.int32", "dtype=torch.float32")],
        gives=lambda x: stored(x.sum(1), slice(None), 0),
    ),
    "a loop-carried number becomes a tensor": fix(
        "`total = hl.full([rows], 0, dtype=torch.float32)`",
        edits=[("total = 0", "total = hl.full([rows], 0, dtype=torch.float32)")],
        gives=lambda x: stored(x.sum(1), slice(None), 0),
    ),
    "an if gives a loop-carried number another type": fix(
        "`largest = hl.full([], 0, dtype=torch.float32)`",
        edits=[("largest = 0", "largest = hl.full([], 0, dtype=torch.float32)")],
        gives=lambda x: stored(x.amax(1).clamp(min=0), slice(None), 0),
    ),
    "a loop-carried value changes its shape": fix(
        "keep the dtype and shape",
        edits=[
            ("total[:, None] + x[rows, columns]", "total + x[rows, columns].sum(1)"),
            ("out[rows, 0] = total", "out[rows, 0] = total"),
        ],
        gives=lambda x: stored(x.sum(1), slice(None), 0),
    ),
    "different kinds of value on two paths": fix(
        "the same kind of value on both paths",
        edits=[('"nothing"', "hl.zeros([rows, 8])")],
        gives=lambda x: stored(torch.where(torch.arange(8)[:, None] > 2, x, 0)),
        settings={"block_sizes": [1]},
    ),
    "a size that depends on data": fix(
        "mask what is beyond the length (torch.where",
        edits=[("hl.zeros([rows, sizes[0]])", "torch.where(columns.index < sizes[0], x[rows, columns], 0.0)")],
        gives=lambda x: torch.where(torch.arange(8) < 4, x, 0.0),
        extra=(torch.tensor([4]),),
    ),
    "two tiles write the same place": fix(
        "use hl.atomic_add for accumulation",
        edits=[("out[rows, 0] = x[rows, columns].sum(1)", "hl.atomic_add(out, [rows, 0], x[rows, columns].sum(1))")],
        gives=lambda x: stored(x.sum(1) - 77, slice(None), 0),
    ),
    "too few indices": fix("use `:` for a whole one", edits=[("x[rows]", "x[rows, :]")], gives=same),
    "tiles of two loops combined": fix(
        "check the tiles the operands were loaded with",
        edits=[("x[columns, rows]", "x[columns, rows].T")],
        gives=lambda x: x + x.T,
    ),
    "an unsupported torch op": fix(
        "in host code",
        edits=[
            ("    for rows", "    q = torch.linalg.qr(x)[0]\n    for rows"),
            ("torch.linalg.qr(x[rows, :])[0]", "q[rows, :]"),
        ],
        gives=lambda x: torch.linalg.qr(x)[0],
    ),
    "a shape that depends on data": fix(
        "use a mask (torch.where",
        edits=[("x[x[rows, 0] > 0, :]", "torch.where(x[rows, 0][:, None] > 0, x[rows, :], 0.0)")],
        gives=lambda x: torch.where(x[:, :1] > 0, x, 0.0),
    ),
    "a dtype an op has no meaning for": fix(
        "`.to(...)`", edits=[("x[tile] & 1", "x[tile].to(torch.int32) & 1")], gives=lambda x: (x.int() & 1).float()
    ),
    "a matrix product of a dtype without one": fix(
        "`.to(torch.float32)`",
        edits=[
            ("x[rows, :] > 0", "(x[rows, :] > 0).to(torch.float32)"),
            ("x[:, columns] > 0", "(x[:, columns] > 0).to(torch.float32)"),
        ],
        gives=lambda x: (x > 0).float() @ (x > 0).float(),
    ),
    "an augmented assignment that would change the dtype": fix(
        "write `x = x + y`",
        edits=[("count += x[tile_m, tile_n]", "count = count + x[tile_m, tile_n]")],
        gives=same,
    ),
    "an augmented assignment that would change the shape": fix(
        "write `x = x + y`", edits=[("total += x[tile_m, tile_n]", "total = total + x[tile_m, tile_n]")], gives=same
    ),
    "a method that works in place": fix(
        "use the out-of-place form and assign its result",
        edits=[("value.add_(1)", "value = value.add(1)")],
        gives=lambda x: x + 1,
    ),
    "a dtype that is none": fix(
        "dtype=torch.float32", edits=[('"float32"', "dtype=torch.float32")], gives=lambda x: torch.zeros(8, 8)
    ),
    "a constant index outside the tensor": fix(
        "bound the index", edits=[("x[tile, 8]", "x[tile, 7]")], gives=lambda x: stored(x[:, 7], slice(None), 0)
    ),
    "a tensor from outside under a computed name": fix(
        "pass it as an argument",
        edits=[
            ("def global_tensor(x, out)", "def global_tensor(x, out, weight)"),
            ('_GLOBAL.get("weight")', "weight"),
        ],
        gives=lambda x: x + 2,
        extra=(torch.full((8, 8), 2.0),),
    ),
    "flags that are no integers": fix(
        "use flags of dtype torch.int32",
        edits=[("def float_flags(x, out)", "def float_flags(x, out, flags)"), ("hl.signal(x,", "hl.signal(flags,")],
        gives=same,
        extra=(torch.zeros(8, 8, dtype=torch.int32),),
    ),
    "inline assembly without a GPU": fix(
        "write this part with torch ops",
        edits=[('hl.inline_asm_elementwise("neg.f32 $0, $1;", "=f,f", [value], torch.float32, True, 1)', "-value")],
        gives=lambda x: -x,
    ),
    "a convolution": fix(
        "(torch.nn.functional.pad(v, (1, 1)).unfold(-1, 3, 1) * w[:]).sum(-1)",
        edits=[
            (
                "torch.nn.functional.conv1d(v[:, None, :], w[None, None, :], padding=1).squeeze(1)",
                "(torch.nn.functional.pad(v, (1, 1)).unfold(-1, 3, 1) * w[:]).sum(-1)",
            )
        ],
        gives=lambda x: torch.nn.functional.conv1d(x[:, None], torch.ones(1, 1, 3), padding=1)[:, 0],
        extra=(torch.ones(3),),
    ),
    "a breakpoint in compiled code": fix(
        "print with hl.device_print",
        edits=[("hl.breakpoint()", 'hl.device_print("row", tile.begin)')],
        gives=same,
        function="stops",
    ),
    "a reshape that a GPU's tiles do not allow": fix(
        "call `hl.specialize(x.size(1))` before the loops",
        edits=[("    for tile", "    hl.specialize(x.size(1))\n    for tile")],
        gives=lambda x: stored(x.sum(1), 0),
        function="reshaped",
    ),
}


def function_source(title: str, name: str | None) -> tuple[str, str]:
    """The source of a case's kernel function without decorators, and its name."""
    lines = Path(error_gallery.__file__).read_text(encoding="utf-8")
    for node in ast.parse(lines).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        titles = [d.args[0].value for d in node.decorator_list if isinstance(d, ast.Call) and d.args]
        if node.name == name or (name is None and title in titles):
            text = "\n".join(lines.splitlines()[node.lineno - 1 : node.end_lineno])
            return textwrap.dedent(text), node.name
    raise AssertionError(f"no function of the case {title!r}")


@pytest.mark.parametrize("title", FIXES)
def test_advice_works_when_pasted(title: str, tmp_path: Path, capfd: Any) -> None:
    advice = FIXES[title]
    message = message_of(title).partition("What to do: ")[2]
    for part in advice.says:
        assert part in message, f"the advice is another one now: {message}"
    text, name = function_source(title, advice.function)
    for old, new in advice.edits:
        assert old in text, (old, text)
        text = text.replace(old, new)
    file = tmp_path / "pasted.py"
    file.write_text(
        f"import math\nimport torch\nimport helion\nimport helion.language as hl\n\n\n{text}\n", encoding="utf-8"
    )
    spec = importlib.util.spec_from_file_location("pasted", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    expected = advice.gives(X.clone())
    for ref_mode in helion.RefMode:
        config = {"config": helion.Config(**advice.settings)} if advice.settings else {}
        out = OUT.clone()
        helion.kernel(getattr(module, name), ref_mode=ref_mode, **config)(X.clone(), out, *advice.extra)
        torch.testing.assert_close(out, expected, msg=lambda m: f"{ref_mode}: {m}\n{text}")


def call(function: Any, *args: Any, **settings: Any) -> torch.Tensor:
    """What a kernel of the gallery that writes to `out` leaves in it."""
    out = OUT.clone()
    helion.kernel(function, **settings)(X.clone(), out, *args)
    return out


def advice_of(title: str) -> str:
    return message_of(title).partition("What to do: ")[2]


@pytest.mark.parametrize("title", ["a config value that is not allowed", "a config list of the wrong length"])
def test_the_default_that_a_message_names_is_a_config(title: str) -> None:
    found = re.search(r"the default is block_sizes=(\[.*?\])\.", advice_of(title))
    assert found is not None
    assert torch.equal(call(error_gallery.copy, config={"block_sizes": ast.literal_eval(found[1])}), X)


def test_the_default_parts_of_an_accumulator_are_a_config() -> None:
    assert "epilogue_subtile=None" in advice_of("parts of an accumulator that are none")
    out = call(error_gallery.product, config={"block_sizes": [16, 32, 16], "epilogue_subtile": None})
    torch.testing.assert_close(out, X @ X)


@pytest.mark.parametrize(
    ("title", "says"),
    [
        ("an unknown config key", "this kernel takes: block_sizes,"),
        ("a bad value of a config key the kernel has no use for", "leave the key out"),
        ("a config key in two spellings", "give one of them"),
        ("config keys that exclude each other", "every key left out has a default"),
        ("a tile that is too large", "change one of these values"),
    ],
)
def test_a_config_without_the_key(title: str, says: str) -> None:
    assert says in advice_of(title)
    assert torch.equal(call(error_gallery.copy, config={"block_sizes": [8, 8]}), X)


def test_keys_that_a_message_lists_are_taken() -> None:
    keys = advice_of("an unknown config key").partition("this kernel takes: ")[2].strip().rstrip(".").split(", ")
    defaults = {key: getattr(helion.Config(), key) for key in keys}
    given = {key: value for key, value in defaults.items() if value not in ([], "")}
    assert torch.equal(call(error_gallery.copy, config={**given, "block_sizes": [8, 8]}), X)


def test_the_setting_that_a_message_proposes() -> None:
    message = message_of("an unknown setting")
    assert "did you mean 'static_shapes'?" in message
    assert torch.equal(call(error_gallery.copy, static_shapes=True), X)
    for name in message.partition("valid settings are: ")[2].strip().rstrip(".").split(", "):
        assert hasattr(helion.Settings(), name)


def test_the_backends_that_a_message_lists() -> None:
    assert "expected one of triton, cute" in message_of("a bad value of a setting")
    assert torch.equal(call(error_gallery.copy, backend="triton"), X)


def test_a_device_instead_of_a_tensor() -> None:
    assert "a torch.device" in advice_of("no tensor argument")

    def count(n: int, device: torch.device) -> torch.Tensor:
        out = torch.empty([n], device=device)
        for tile in hl.tile(n):
            out[tile] = tile.index.to(torch.float32)
        return out

    assert torch.equal(helion.kernel(count)(8, torch.device("cpu")), torch.arange(8.0))


def test_arguments_on_one_device() -> None:
    assert "move the arguments to one device" in advice_of("tensors on two devices")
    assert torch.equal(call(error_gallery.copy), X)


def test_wide_offsets() -> None:
    assert "set index_dtype=torch.int64" in advice_of("offsets that do not fit into 32 bits")
    kernel = helion.kernel(error_gallery.double, index_dtype=torch.int64)
    assert "tl.int64" in kernel.bind((torch.ones(2**16, 2**16, device="meta"),)).to_triton_code()


def test_complex_numbers_as_pairs() -> None:
    assert "pass torch.view_as_real(x)" in advice_of("complex numbers")

    def sums(x: torch.Tensor, out: torch.Tensor) -> None:
        for tile in hl.tile(out.size()):
            out[tile] = x[tile[0], tile[1], :].sum(-1)

    x, out = torch.randn(8, 8, dtype=torch.complex64), OUT.clone()
    helion.kernel(sums)(torch.view_as_real(x), out)
    torch.testing.assert_close(out, x.real + x.imag)


def test_batches_with_the_same_tile() -> None:
    assert "load both operands with the same batch tile" in advice_of("batches that do not fit")

    def product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        for batch, i in hl.tile([2, 8]):
            out[batch, i, :] = torch.bmm(a[batch, i, :], b[batch, :, :])

    a, b, out = torch.randn(2, 8, 8), torch.randn(3, 8, 8), torch.empty(2, 8, 8)
    helion.kernel(product)(a, b, out)
    torch.testing.assert_close(out, a @ b[:2])


def test_device_code_in_a_kernel() -> None:
    assert "inside a loop over hl.tile()/hl.grid()" in advice_of("device code outside of a kernel")

    def zeros(x: torch.Tensor, out: torch.Tensor) -> None:
        for tile in hl.tile(8):
            out[tile, :] = hl.zeros([tile, 8])

    assert torch.equal(call(zeros), torch.zeros(8, 8))


def test_a_tuple_instead_of_star_args() -> None:
    assert "positional parameters" in advice_of("*args in the signature")

    def total(tensors: list[torch.Tensor], out: torch.Tensor) -> None:
        for tile in hl.tile(out.size()):
            acc = hl.zeros(tile)
            for tensor in tensors:
                acc = acc + tensor[tile]
            out[tile] = acc

    out = OUT.clone()
    helion.kernel(total)([X, X], out)
    assert torch.equal(out, 2 * X)


def test_every_message_of_the_gallery_is_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    missing = [title for title in CASES if f'"{title}"' not in here]
    assert not missing, "write a test that does what the message says"
