"""Kernels that are wrong, one mistake each: what `tests/golden/errors.txt` shows the messages of.

Each case is a function that makes a call which must fail.  It gets an output tensor to write to, which must be
untouched afterwards.  After a change of a message, `python -m tests.error_gallery` writes the golden file anew; read
the difference.
"""

# The kernels do not check: they are wrong on purpose.
# mypy: ignore-errors
# ruff: noqa: F841, F821

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import helion
import helion.language as hl
from helion import exc

GOLDEN = Path(__file__).parent / "golden" / "errors.txt"

CASES: dict[str, tuple[type[exc.BaseError], Callable[[torch.Tensor], Any]]] = {}

#: What the output tensor holds before a call, and must hold after it.
SENTINEL = -77.0


def case(title: str, expected: type[exc.BaseError]) -> Callable[..., Any]:
    """Add a case: the decorated function is called with an output tensor [8, 8] and must raise `expected`."""

    def add(function: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], Any]:
        assert title not in CASES
        CASES[title] = (expected, function)
        return function

    return add


def kernel_case(title: str, expected: type[exc.BaseError], *extra: Any, **settings: Any) -> Callable[..., Any]:
    """Add a case: the decorated kernel function is called with a tensor [8, 8] of ones, an output, and `extra`."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        case(title, expected)(lambda out: helion.kernel(function, **settings)(torch.ones(8, 8), out, *extra))
        return function

    return add


# -- the shape of a kernel
# -----------------------------------------------------------------------------------------------


@kernel_case("no device loop", exc.NoDeviceLoopsInKernel)
def without_loop(x, out):
    out.copy_(x)
    return out


@kernel_case("a device loop inside a host loop", exc.NestedGridLoop)
def loop_in_host_loop(x, out):
    while True:
        for tile in hl.tile(x.size()):
            out[tile] = x[tile]


@kernel_case("a host statement between two device loops", exc.TopLevelStatementBetweenLoops)
def statement_between(x, out):
    for tile in hl.tile(x.size()):
        out[tile] = x[tile]
    y = out + 1
    for tile in hl.tile(x.size()):
        out[tile] = y[tile]


@kernel_case("hl.tile without for", exc.LoopFunctionNotInFor)
def tile_without_for(x, out):
    tile = hl.tile(x.size(0))
    out[tile] = x[tile]


@kernel_case("a tile as the bound of a tile", exc.TileOfTile)
def tile_of_tile(x, out):
    for rows in hl.tile(x.size(0)):
        for inner in hl.tile(rows):
            out[inner, :] = x[inner, :]


@kernel_case("bounds of different lengths", exc.InvalidTileRange)
def bounds(x, out):
    for tile in hl.tile([0, 0], [8]):
        out[tile, :] = x[tile, :]


@kernel_case("an unsupported statement", exc.StatementNotSupported)
def try_statement(x, out):
    for tile in hl.tile(x.size()):
        try:
            out[tile] = x[tile]
        finally:
            pass


@case("*args in the signature", exc.UnsupportedKernelSignature)
def star_args(out):
    @helion.kernel
    def add(*tensors):
        return tensors[0]


# -- host and device
# -----------------------------------------------------------------------------------------------------


@case("device code outside of a kernel", exc.NotInsideKernel)
def outside_kernel(out):
    hl.zeros([8])


@kernel_case("device API in host code", exc.DeviceAPIOnHost)
def device_on_host(x, out):
    zero = hl.zeros([8, 8])
    for tile in hl.tile(x.size()):
        out[tile] = x[tile]


@kernel_case("host API in device code", exc.SpecializeOnDevice)
def specialize_on_device(x, out):
    for tile in hl.tile(x.size()):
        n = hl.specialize(x.size(1))
        out[tile] = x[tile] * n


@kernel_case("registering a block size in device code", exc.NotAllowedOnDevice)
def register_on_device(x, out):
    for rows in hl.tile(x.size(0)):
        block = hl.register_block_size(8)
        for columns in hl.tile(x.size(1), block_size=block):
            out[rows, columns] = x[rows, columns]


@kernel_case("a host tensor used without an index", exc.HostTensorDirectUsage)
def without_index(x, out):
    for tile in hl.tile(x.size()):
        out[tile] = x + 1


@kernel_case("a host variable assigned on the device", exc.CannotModifyHostVariableOnDevice)
def modify_host_variable(x, out):
    count = 0
    for tile in hl.tile(x.size()):
        out[tile] = x[tile]
        count = count + 1
    return count


@kernel_case("a device variable read on the host", exc.CannotReadDeviceVariableOnHost)
def read_device_variable(x, out):
    for tile in hl.tile(x.size()):
        last = x[tile]
        out[tile] = last
    return last


def columns_of(x):
    return 4 if x.sum() > 4 else 2


@kernel_case("a helper of host code that decides on what a tensor holds", exc.HostTensorRead)
def longest(x, out):
    columns = columns_of(x)
    for rows, tile in hl.tile([x.size(0), columns]):
        out[rows, tile] = x[rows, tile]


@kernel_case("host code that decides on what a tensor holds after it has written to it", exc.HostTensorRead)
def if_positive(x, out):
    x.add_(1)
    if x.sum() > 0:
        x = -x
    for tile in hl.tile(x.size()):
        out[tile] = x[tile]


@kernel_case("a function of math on a tile's place", exc.NotAllowedOnDevice)
def exponential_of_place(x, out):
    for tile in hl.tile(x.size()):
        out[tile] = x[tile] * math.exp(tile[0].begin)


@kernel_case("a list that a device loop appends to", exc.StatementNotSupported)
def appended(x, out):
    for rows in hl.tile(x.size(0)):
        parts = []
        for columns in hl.tile(x.size(1)):
            parts.append(x[rows, columns].sum(1))
        out[rows, 0] = sum(parts)


@kernel_case("a tensor made of numbers in device code", exc.InvalidAPIUsage)
def tensor_of_numbers(x, out):
    for tile in hl.tile(x.size()):
        out[tile] = x[tile] + torch.tensor([1.0])


@case("complex numbers", exc.UnsupportedDtype)
def complex_numbers(out):
    def copy(x, out):
        for tile in hl.tile(x.size()):
            out[tile] = torch.view_as_real(x[tile]).sum(-1)

    helion.kernel(copy)(torch.ones(8, 8, dtype=torch.complex64), out)


@kernel_case("a tile used as a number", exc.TorchOpTracingError)
def tile_as_number(x, out):
    for rows in hl.tile(x.size(0)):
        out[rows, :] = x[rows, :] * rows


@kernel_case("a kernel called by another one", exc.NestedKernelCallsNotSupported, helion.kernel(without_loop))
def calls_a_kernel(x, out, other):
    for rows in hl.tile(x.size(0)):
        out[rows, :] = other(x[rows, :], 1)


@kernel_case("reading data back to the host", exc.NotAllowedOnDevice)
def item(x, out):
    for tile in hl.tile(x.size()):
        scale = x[tile].sum().item()
        out[tile] = x[tile] * scale


@kernel_case("an atomic on a device value", exc.AtomicOnDeviceTensor)
def atomic_on_value(x, out):
    for tile in hl.tile(x.size()):
        total = hl.zeros([1])
        hl.atomic_add(total, [0], x[tile].sum())
        out[tile] = x[tile]


# -- names and values
# ----------------------------------------------------------------------------------------------------


@kernel_case("an undefined name", exc.UndefinedVariable)
def undefined(x, out):
    for tile in hl.tile(x.size()):
        out[tile] = x[tile] * factor


@kernel_case("a loop-carried value changes its dtype", exc.ControlFlowTensorMismatch)
def carried_dtype(x, out):
    for rows in hl.tile(x.size(0)):
        total = hl.zeros([rows], dtype=torch.int32)
        for columns in hl.tile(x.size(1)):
            total = total + x[rows, columns].sum(1)
        out[rows, 0] = total


@kernel_case("a loop-carried number becomes a tensor", exc.ControlFlowTensorMismatch)
def carried_number(x, out):
    for rows in hl.tile(x.size(0)):
        total = 0
        for column in hl.grid(x.size(1)):
            total = total + x[rows, column]
        out[rows, 0] = total


@kernel_case("an if gives a loop-carried number another type", exc.ControlFlowTensorMismatch)
def chosen_number(x, out):
    for row in hl.grid(x.size(0)):
        largest = 0
        for column in hl.grid(x.size(1)):
            if x[row, column] > largest:
                largest = x[row, column]
        out[row, 0] = largest


@kernel_case("a loop-carried value changes its shape", exc.ControlFlowTensorMismatch)
def carried_shape(x, out):
    for rows in hl.tile(x.size(0)):
        total = hl.zeros([rows])
        for columns in hl.tile(x.size(1)):
            total = total[:, None] + x[rows, columns]
        out[rows, 0] = total


@kernel_case("different kinds of value on two paths", exc.CantCombineTypesInControlFlow)
def two_kinds(x, out):
    for rows in hl.tile(x.size(0)):
        if rows.begin > 2:
            value = x[rows, :]
        else:
            value = "nothing"
        out[rows, :] = value


@kernel_case("a size that depends on data", exc.SizeNotConstant, torch.tensor([4]))
def size_from_data(x, out, sizes):
    for rows in hl.tile(x.size(0)):
        for columns in hl.tile(x.size(1)):
            out[rows, columns] = hl.zeros([rows, sizes[0]])


# -- writing
# ---------------------------------------------------------------------------------------------------------------


@kernel_case("two tiles write the same place", exc.LoopDependencyError)
def same_place(x, out):
    for rows, columns in hl.tile(x.size(), block_size=[None, 4]):
        out[rows, 0] = x[rows, columns].sum(1)


# -- tensors and ops
# -------------------------------------------------------------------------------------------------------


@kernel_case("too few indices", exc.RankMismatch)
def too_few(x, out):
    for rows in hl.tile(x.size(0)):
        out[rows, :] = x[rows]


@kernel_case("tiles of two loops combined", exc.ShapeMismatch)
def two_tiles(x, out):
    for rows in hl.tile(x.size(0)):
        for columns in hl.tile(x.size(1)):
            out[rows, columns] = x[rows, columns] + x[columns, rows]


@kernel_case("an unsupported torch op", exc.TorchOpTracingError)
def unsupported_op(x, out):
    for rows in hl.tile(x.size(0)):
        out[rows, :] = torch.linalg.qr(x[rows, :])[0]


@kernel_case("a shape that depends on data", exc.DataDependentOutputShapeNotSupported)
def boolean_index(x, out):
    for rows in hl.tile(x.size(0)):
        out[rows, :] = x[x[rows, 0] > 0, :]


@kernel_case("a part of a tile's dimension", exc.InvalidAPIUsage)
def part_of_a_tile(x, out):
    for rows in hl.tile(x.size(0), block_size=4):
        out[rows, :] = x[rows, :] + x[rows, :][1]


@kernel_case("a dtype an op has no meaning for", exc.UnsupportedDtype)
def bitwise_of_floats(x, out):
    for tile in hl.tile(x.size()):
        out[tile] = x[tile] & 1


@kernel_case("a matrix product of a dtype without one", exc.UnsupportedDtype)
def dot_of_bools(x, out):
    for rows, columns in hl.tile(x.size()):
        out[rows, columns] = hl.dot(x[rows, :] > 0, x[:, columns] > 0)


@case("batches that do not fit", exc.DotBatchDimensionMismatch)
def batches(out):
    @helion.kernel
    def product(a, b, out):
        for i in hl.tile(8):
            out[i, :] = torch.bmm(a[:, i, :], b[:, :, :]).sum(0)

    product(torch.ones(2, 8, 8), torch.ones(3, 8, 8), out)


# -- calls
# -------------------------------------------------------------------------------------------------------------------


def copy(x, out):
    for tile in hl.tile(x.size()):
        out[tile] = x[tile]


def double(x):
    out = torch.empty_like(x)
    for tile in hl.tile(x.size()):
        out[tile] = x[tile] * 2
    return out


@case("no tensor argument", exc.NoTensorArgs)
def no_tensor(out):
    helion.kernel(copy)(1, 2)


@case("tensors on two devices", exc.DeviceMismatch)
def two_devices(out):
    helion.kernel(copy)(torch.ones(8, 8, device="meta"), out)


@case("offsets that do not fit into 32 bits", exc.InputTensorNumelExceedsIndexType)
def large_offsets(out):
    # Nothing of this size is allocated: meta tensors have no memory.
    helion.kernel(double, index_dtype=torch.int32)(torch.ones(2**16, 2**16, device="meta"))


# -- configs and settings
# ----------------------------------------------------------------------------------------------------


@case("an unknown config key", exc.InvalidConfig)
def config_key(out):
    helion.kernel(copy, config=helion.Config(rows_per_program=8, block_sizes=[8, 8]))(torch.ones(8, 8), out)


@case("a bad value of a config key the kernel has no use for", exc.InvalidConfig)
def config_unused_key(out):
    helion.kernel(copy, config=helion.Config(block_sizes=[8, 8], static_ranges=[2]))(torch.ones(8, 8), out)


@case("a config key in two spellings", exc.InvalidConfig)
def config_spellings(out):
    helion.kernel(copy, config=helion.Config(block_sizes=[8, 8], block_size=8))(torch.ones(8, 8), out)


@case("a config value that is not allowed", exc.InvalidConfig)
def config_value(out):
    helion.kernel(copy, config=helion.Config(block_sizes=[8, 7]))(torch.ones(8, 8), out)


@case("a config list of the wrong length", exc.InvalidConfig)
def config_length(out):
    helion.kernel(copy, config=helion.Config(block_sizes=[8]))(torch.ones(8, 8), out)


@case("config keys that exclude each other", exc.InvalidConfig)
def config_exclusion(out):
    helion.kernel(copy, config=helion.Config(block_sizes=[8, 8], num_sm_multiplier=2))(torch.ones(8, 8), out)


@case("a tile that is too large", exc.InvalidConfig)
def config_too_large(out):
    helion.kernel(copy, config=helion.Config(block_sizes=[8192, 8192]))(torch.ones(8, 8), out)


@case("an unknown setting", exc.InvalidAPIUsage)
def unknown_setting(out):
    helion.kernel(copy, static_shape=True)


@case("a bad value of a setting", exc.InvalidAPIUsage)
def setting_value(out):
    helion.kernel(copy, backend="cuda")


# -- values and assignments
# ------------------------------------------------------------------------------------------------


@kernel_case("an augmented assignment that would change the dtype", exc.InvalidAPIUsage)
def augmented_dtype(x, out):
    for tile_m, tile_n in hl.tile([8, 8]):
        count = hl.zeros([tile_m, tile_n], dtype=torch.int32)
        count += x[tile_m, tile_n]
        out[tile_m, tile_n] = count


@kernel_case("an augmented assignment that would change the shape", exc.ShapeMismatch)
def augmented_shape(x, out):
    for tile_m, tile_n in hl.tile([8, 8]):
        total = hl.zeros([])
        total += x[tile_m, tile_n]
        out[tile_m, tile_n] = total


@kernel_case("a method that works in place", exc.TorchOpTracingError)
def in_place_method(x, out):
    for tile_m, tile_n in hl.tile([8, 8]):
        value = x[tile_m, tile_n]
        value.add_(1)
        out[tile_m, tile_n] = value


@kernel_case("a dtype that is none", exc.InvalidAPIUsage)
def zeros_dtype(x, out):
    for tile_m, tile_n in hl.tile([8, 8]):
        out[tile_m, tile_n] = hl.zeros([tile_m, tile_n], "float32")


@kernel_case("a constant index outside the tensor", exc.IndexOutOfRange)
def constant_index(x, out):
    for tile in hl.tile(8):
        out[tile, 0] = x[tile, 8]


_GLOBAL = {"weight": torch.ones(8, 8), "activation": torch.relu}


@kernel_case("a tensor from outside under a computed name", exc.InvalidAPIUsage)
def global_tensor(x, out):
    for tile_m, tile_n in hl.tile([8, 8]):
        out[tile_m, tile_n] = x[tile_m, tile_n] + _GLOBAL.get("weight")[tile_m, tile_n]


@kernel_case("flags that are no integers", exc.UnsupportedDtype)
def float_flags(x, out):
    for tile_m, tile_n in hl.tile([8, 8]):
        hl.signal(x, [tile_m, tile_n])
        out[tile_m, tile_n] = x[tile_m, tile_n]


@kernel_case("inline assembly without a GPU", exc.BackendUnsupported)
def inline_assembly(x, out):
    for tile_m, tile_n in hl.tile([8, 8]):
        value = x[tile_m, tile_n]
        out[tile_m, tile_n] = hl.inline_asm_elementwise("neg.f32 $0, $1;", "=f,f", [value], torch.float32, True, 1)


def product(x, out):
    for tile_m, tile_n in hl.tile([8, 8]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(8):
            acc = torch.addmm(acc, x[tile_m, tile_k], x[tile_k, tile_n])
        out[tile_m, tile_n] = acc


@case("parts of an accumulator that are none", exc.InvalidConfig)
def odd_parts(out):
    config = helion.Config(block_sizes=[16, 32, 16], epilogue_subtile=8)
    helion.kernel(product).bind((torch.ones(8, 8), out)).to_triton_code(config)


def reshaped(x, out):
    for tile in hl.tile(8):
        out[0, tile] = x[tile, :].reshape(-1).reshape([tile, x.size(1)]).sum(1)


@case("a reshape that a GPU's tiles do not allow", exc.BackendUnsupported)
def reshape_of_padding(out):
    helion.kernel(reshaped, static_shapes=False).bind((torch.ones(8, 6), out)).to_triton_code()


def stops(x, out):
    for tile in hl.tile(8):
        hl.breakpoint()
        out[tile, :] = x[tile, :]


@case("a breakpoint in compiled code", exc.BreakpointInDeviceLoopRequiresInterpret)
def breakpoint_in_code(out):
    helion.kernel(stops).bind((torch.ones(8, 8), out)).to_triton_code()


@kernel_case("a convolution", exc.TorchOpTracingError, torch.ones(3))
def convolved(x, out, w):
    for tile in hl.tile(x.size(0)):
        v = x[tile, :]
        out[tile, :] = torch.nn.functional.conv1d(v[:, None, :], w[None, None, :], padding=1).squeeze(1)


# -- the golden file


def message_of(title: str) -> str:
    """The message of a case, with the directory of this file left out.

    Raises:
        AssertionError: it raises nothing, something else, or writes to its output first.
    """
    expected, call = CASES[title]
    out = torch.full((8, 8), SENTINEL)
    try:
        call(out)
    except exc.BaseError as error:
        assert type(error) is expected, f"{title}: expected {expected.__name__}, got {error!r}"
        message = str(error)
    else:
        raise AssertionError(f"{title}: nothing was raised")
    assert torch.equal(out, torch.full((8, 8), SENTINEL)), f"{title}: the output was written to"
    return re.sub(r'File "[^"]*[/\\]', 'File "', message)


def gallery() -> str:
    """The golden file's text."""
    parts = []
    for title, (expected, _) in CASES.items():
        parts.append(f"== {title}: exc.{expected.__name__}\n\n{message_of(title)}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    # Imported under its own name, so that the messages are those the test sees.
    from tests import error_gallery

    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(error_gallery.gallery(), encoding="utf-8")
