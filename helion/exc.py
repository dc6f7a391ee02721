"""Every error and warning a user of helion can meet.

Each class carries what is wrong (`what`, a format string) and what to do about it (`fix`).  Front-end code raises
without a location; the interpreter adds the user's file, line and a caret.  Nothing here imports the rest of helion.
"""

from __future__ import annotations

from ._errors import Base as Base
from ._errors import BaseError as BaseError
from ._errors import BaseWarning as BaseWarning
from ._errors import SourceLocation as SourceLocation
from ._errors import warn as warn

# -- configs ----------------------------------------------------------------------------------------


class InvalidConfig(BaseError):
    what = "invalid config: {reason}"


class BarrierRequiresPersistent(InvalidConfig):
    """A Config asks for a grid of one program per tile, and the kernel has a barrier."""


class NoConfigFound(BaseError):
    what = "no working config was found for kernel {kernel!r}: {reason}"


class AutotuneError(BaseError):
    what = "autotuning kernel {kernel!r} failed: {reason}"


class AutotuningDisallowedInEnvironment(BaseError):
    what = "autotuning kernel {kernel!r} is not possible here: {reason}"
    fix = "give the kernel a config (`@helion.kernel(config=...)`), or tune it beforehand with `kernel.autotune(args)`."


class CacheAssertionError(BaseError):
    what = "kernel {kernel!r} has no tuned config in the cache, and HELION_ASSERT_CACHE_HIT is set"
    fix = "tune it beforehand with `kernel.autotune(args)`, or unset HELION_ASSERT_CACHE_HIT."


class NotEnoughConfigs(BaseError):
    what = "kernel {kernel!r}: {count} config(s) to choose from, which leaves nothing to measure"
    fix = "give more with `configs=`, or tune like kernels first."


class CompilationForbidden(BaseError):
    what = "kernel {kernel!r} would have to {action} inside helion.runtime.no_compile(); argument key: {key}"
    fix = "call the kernel once with arguments of this kind before entering no_compile()."


# -- calling a kernel ---------------------------------------------------------------------------------


class InvalidBundle(BaseError):
    what = "{path} is no bundle that can be used: {reason}"
    fix = "make it again with `python -m helion bundle`, and copy it as a whole."


class BundleMismatch(BaseError):
    what = "the bundle {path} does not fit here: {reason}"
    fix = "make one for this machine: `python -m helion bundle --capability ...`, with the versions that are installed."


class BundleMiss(BaseError):
    what = "kernel {kernel!r} would be compiled: {reason}"
    fix = (
        "add this call to the bundle (`python -m helion bundle --record` lists what a run needs), or load it with "
        "on_miss='compile'."
    )


class CannotBundle(BaseError):
    what = "{count} of {total} calls cannot be in a bundle:\n{reasons}"
    fix = "leave them out (strict=False, --keep-going): they are compiled where they run."


class TorchCompileFusionUnavailable(BaseError):
    what = (
        "kernel {kernel!r} has the setting torch_compile_fusion=True, and PyTorch {version} has no hooks for fusing "
        "the operations around a kernel of this kind into it"
    )
    fix = (
        "install a PyTorch nightly build that has them, or leave the setting out: the call is compiled without fusion."
    )


class InvalidAPIUsage(BaseError, ValueError):
    what = "{reason}"


class FailedToUnpackTile(InvalidAPIUsage):
    """A loop over one dimension has several variables, or a tile is iterated over."""


class DeviceTensorSubscriptAssignmentNotAllowed(InvalidAPIUsage):
    """`tmp[0] = 1`: a device value has no places to write to."""


class BarrierOnlyAllowedAtTopLevel(InvalidAPIUsage):
    """hl.barrier() stands in a loop, or in an expression."""


class TypeInferenceError(InvalidAPIUsage):
    """An index that no tensor takes, or a property that a value does not have."""


class DuplicateStoreIndicesError(InvalidAPIUsage):
    what = "a store gives several values to one element of {name!r}: its index names the element more than once"
    fix = "store each element once, or add them up: hl.atomic_add({name}, index, value)."


class RefEagerModeCodePrintError(InvalidAPIUsage):
    what = "kernel {kernel!r} has ref_mode=EAGER and print_output_code=True: ref mode generates no code to print"
    fix = "leave out one of them (HELION_INTERPRET, HELION_PRINT_OUTPUT_CODE)."


class IncompatibleInterpretModes(InvalidAPIUsage):
    what = "HELION_INTERPRET and TRITON_INTERPRET are both set, which run kernels in two different ways"
    fix = "set one: HELION_INTERPRET=1 steps through your own function."


class NotSupportedYet(BaseError):
    what = "{name} is not supported yet"


class NoTensorArgs(BaseError):
    what = "kernel {kernel!r} was called without a tensor argument, so there is no device to run it on"
    fix = "pass at least one tensor, or a torch.device."


class DeviceMismatch(BaseError):
    what = "kernel {kernel!r} was called with tensors on different devices: {devices}"
    fix = "move the arguments to one device."


class NotInsideKernel(BaseError):
    what = "{name} can only be used inside a @helion.kernel function"
    fix = "call it from a function decorated with @helion.kernel, inside a loop over hl.tile()/hl.grid()."


class InvalidJaggedTileUsage(InvalidAPIUsage):
    fix = "iterate over rows with hl.tile, load their lengths with that tile, and index with both tiles."


class BackendUnsupported(BaseError):
    what = "the {backend} backend cannot do this: {reason}"


class DecoratorAfterHelionKernelDecorator(BaseError):
    what = "kernel {kernel!r}: the decorator @{decorator} stands below @helion.kernel, so that it replaces the function"
    fix = "put @helion.kernel directly above `def`; other decorators go above it."


class UnsupportedKernelSignature(BaseError):
    what = "kernel {kernel!r} has a parameter {parameter!r} of kind {kind}"
    fix = (
        "kernel functions take positional parameters (defaults allowed), no *args, **kwargs or keyword-only parameters."
    )


class SourceUnavailable(BaseError):
    what = "the source of {name!r} cannot be read"
    fix = "define the function in a file (not in exec() or a bare interpreter prompt)."


# -- shape of the kernel function ----------------------------------------------------------------------


class NoDeviceLoopsInKernel(BaseError):
    what = "kernel {kernel!r} has no device loop"
    fix = "put the device code in a top-level `for tile in hl.tile(...):` or `for i in hl.grid(...):` loop."


class EmptyDeviceLoopAfterDCE(BaseError):
    what = "the device loops of kernel {kernel!r} write nothing: what they compute is not used"
    fix = "store a result, `out[tile] = ...`, or leave the loop out."


class NestedGridLoop(BaseError):
    what = "a device loop stands inside a host {statement}"
    fix = (
        "move the hl.tile()/hl.grid() loop to the top level of the function, or into a `for` loop over a tuple, list "
        "or range there, or into a `while` on sizes and numbers, or branch on a compile-time value; else call the "
        "kernel for each of them."
    )


class TopLevelStatementBetweenLoops(BaseError):
    what = "a host statement stands between two top-level device loops"
    fix = "move it before the first loop or after the last: all loops are one kernel launch."


class LoopFunctionNotInFor(BaseError):
    what = "{name} must be iterated over directly by a `for` statement"
    fix = "write `for tile in {name}(...):`."


class InvalidTileRange(BaseError):
    what = "{name}: {reason}"
    fix = "give hl.tile(end), hl.tile(begin, end), or lists of the same length for several dimensions."


class TileOfTile(BaseError):
    what = "hl.tile() was given a tile as a bound"
    fix = "use hl.tile(tile.begin, tile.end) to iterate inside a tile."


class LoopDependencyError(BaseError):
    what = "{reason}"
    fix = (
        "give every tile its own place in the output, use hl.atomic_add for accumulation, or separate "
        "the loops with hl.barrier()."
    )


class StatementNotSupported(BaseError):
    what = "{statement} is not supported in {where}"


class HostSideEffect(InvalidAPIUsage):
    what = "host code of kernel {name!r} changes {changed}, which is outside the kernel function and which it reads"
    fix = "change it where the kernel is called, and pass what is kept between calls, such as a buffer, as an argument."


class InvalidDeviceForLoop(StatementNotSupported):
    """A `for` in device code over something that is no loop of hl, and cannot be unrolled."""


class NotAllowedOnDevice(BaseError):
    what = "{name} is not allowed in device code (inside an hl.tile()/hl.grid() loop)"


class BreakpointInDeviceLoopRequiresInterpret(NotAllowedOnDevice):
    what = "breakpoint() stands in device code, and a compiled kernel cannot stop in a debugger"
    fix = "run with the environment variable HELION_INTERPRET=1 or TRITON_INTERPRET=1, or print with hl.device_print."


class NestedKernelCallsNotSupported(NotAllowedOnDevice):
    """A kernel is called in device code, or in host code where its results are not known."""


class DeviceAPIOnHost(BaseError):
    what = "{name} is device code and was used outside a device loop"
    fix = "move it inside a `for tile in hl.tile(...):` loop."


class SpecializeOnDevice(BaseError):
    what = "hl.specialize() was used inside a device loop"
    fix = "call hl.specialize() in host code, before the loop."


# -- names and values ---------------------------------------------------------------------------------


class UndefinedVariable(BaseError):
    what = "name {name!r} is not defined here"
    fix = "{hint}"


class HostTensorDirectUsage(BaseError):
    what = "host tensor {name!r} is used directly in device code"
    fix = (
        "index it to load the part you need, for example `{name}[tile]`, or `{name}[()]` if it has no dimensions; "
        "a view is made before the loops, `v = {name}.view(-1)`, and indexed by its name."
    )


class HostTensorRead(BaseError):
    what = "host code reads a tensor's value, {text!r}, before the kernel runs: it may be another one in the next call"
    fix = (
        "read it with `int(...)`, `float(...)`, `bool(...)` or `.item()`, and decide on it, in the kernel function "
        "itself: not in a helper function, and a number not in a Python loop. Or pass it as an argument."
    )


class CannotModifyHostVariableOnDevice(BaseError):
    what = "host variable {name!r} is assigned in device code"
    fix = (
        "host variables are read-only on the device: use another name, or store into a tensor "
        "with `{name}[tile] = ...`."
    )


class CannotReadDeviceVariableOnHost(BaseError):
    what = "device variable {name!r} is read in host code"
    fix = "store it into an output tensor inside the loop, and return that tensor."


class ControlFlowTensorMismatch(BaseError):
    what = "variable {name!r} changes its type {where}: {before} becomes {after}"
    fix = "keep the dtype and shape, for example with `.to({dtype})` or by creating it with the final dtype."


class CantCombineTypesInControlFlow(BaseError):
    what = "variable {name!r} is {left} on one path and {right} on the other"
    fix = "give it the same kind of value on both paths."


class SizeNotConstant(BaseError):
    what = "{what} must be known at compile time, got {value}"
    fix = "call `hl.specialize(...)` on it in host code, or annotate the parameter with hl.constexpr."


# -- tensors and ops ----------------------------------------------------------------------------------


class ShapeMismatch(BaseError):
    what = "shapes do not fit: {left} and {right}"
    fix = "check the tiles the operands were loaded with; two tiles of different loops have different sizes."


class RankMismatch(BaseError):
    what = "{what}: expected {expected} indices, got {actual}"
    fix = "index every dimension; use `:` for a whole one."


class TorchOpTracingError(BaseError):
    what = "{op} is not supported in device code: {reason}"


class GraphModuleUnsupportedOps(TorchOpTracingError):
    what = "{name} is a graph with nodes {nodes}, which device code does not have: it calls functions only"
    fix = "pass a function of the values, and the tensors it needs as arguments of the kernel."


class UnsupportedDtype(BaseError):
    what = "{op} has no meaning for dtype {dtype}"
    fix = "convert the operand first with `.to(...)`."


class EmptyReduction(BaseError, IndexError):
    what = "torch.{op} has no value where there are no elements: dimension {dim} has size 0"
    fix = "decide on the size in host code, before the loops: `if x.numel() == 0: return ...`."


class DotBatchDimensionMismatch(BaseError):
    what = "batch dimensions of a matrix product do not fit: {left} and {right}"
    fix = "load both operands with the same batch tile, or with a batch of 1."


class DataDependentOutputShapeNotSupported(BaseError):
    what = "{op} gives a result whose shape depends on data"
    fix = "use a mask (torch.where or extra_mask=) of fixed shape instead."


class AtomicOnDeviceTensor(BaseError):
    what = "{name} needs a host tensor as its target, got a device value"
    fix = "allocate the target in host code and index it, for example hl.atomic_add(out, [tile], value)."


class IndexOffsetOutOfRangeForInt32(BaseError):
    what = "tensor {name!r} spans {elements} elements: its offsets do not fit in 32 bits"
    fix = "set index_dtype=torch.int64 (or HELION_INDEX_DTYPE=int64), or leave it at 'auto'."


class InputTensorNumelExceedsIndexType(IndexOffsetOutOfRangeForInt32):
    """The same, of an argument."""


class IndexOutOfRange(BaseError):
    what = "index out of range for tensor {name!r}: dimension {dim} has size {size}, index range [{low}, {high}]"
    fix = "bound the index, or pass extra_mask= so that out-of-range elements are not accessed."


# -- compiling ----------------------------------------------------------------------------------------


class ErrorCompilingKernel(BaseError):
    what = "compiling kernel {kernel!r} failed: {reason}"


class TritonError(BaseError):
    what = "Triton could not compile or run kernel {kernel!r} with {config}: {reason}"
    fix = "the generated source is at {path}."


class InternalError(BaseError):
    what = "internal error in helion: {reason}"
    fix = "please report it with the kernel function; HELION_PRINT_REPRO=1 prints a script."


# -- warnings -----------------------------------------------------------------------------------------


class TensorOperationInWrapper(BaseWarning):
    what = "`{name}` in the host code of {kernel!r} is no part of the kernel: it runs as an operation of its own"
    fix = "do it in a device loop; or `ignore_warnings=[helion.exc.TensorOperationInWrapper]` leaves this out."


class TensorOperationsInHostCall(TensorOperationInWrapper):
    """The same, of a function that host code calls."""


class TiledKMatmulAccumulationWarning(BaseWarning):
    what = "`acc += a @ b` rounds each product to the operands' dtype before it is added"
    fix = "write `acc = torch.addmm(acc, a, b)` or `acc = hl.dot(a, b, acc)`."


# The next two are names that other programs leave out (`ignore_warnings`); docs/migration.md says why nothing warns so.


class WrongDevice(BaseWarning):
    what = "{name} makes a tensor on {device}, the arguments are on {expected}"


class BlockSizeIgnoredInInterpretMode(BaseWarning):
    what = "ref mode does not use block size {size}"


class NoAOTHeuristicWarning(BaseWarning):
    what = "kernel {kernel!r} has no config that ships beside it for these arguments"


class ManySizes(BaseWarning):
    what = (
        "kernel {kernel!r} was compiled for {count} sizes of dimension {dimension} of {argument!r} ({sizes}), and will "
        "be for each further one"
    )
    fix = (
        'use `@helion.kernel(static_shapes="auto")`, which compiles one kernel for all further sizes of a dimension '
        "that has many, or `static_shapes=False`, or pad to a few sizes."
    )


class BundleMissWarning(BaseWarning):
    what = "kernel {kernel!r} is compiled, as the bundle does not have this call: {reason}"
    fix = "add the call to the bundle; `python -m helion bundle --record` lists what a run needs."


class NoConfigGiven(BaseWarning):
    what = (
        "kernel {kernel!r} has no config and runs with the default one; "
        "`{kernel}.autotune(args)` finds a faster one, `config=helion.Config(...)` sets one"
    )


class MisspelledConfigKey(BaseWarning):
    what = "kernel {kernel!r} has no config key {key!r}, which is ignored; did you mean {meant!r}?"


class RequiresGradWarning(BaseWarning):
    what = "kernel {kernel!r} was called with an argument that requires grad: its result has no gradient"
    fix = "wrap the kernel in a torch.autograd.Function."


# -- names that programs of the earlier project catch, for errors that are called otherwise here -----------------------
AssignmentMultipleTargets = NotAllowedOnDevice
InvalidAssignment = NotAllowedOnDevice
CantReadOnDevice = NotAllowedOnDevice
NotAllowedInHelperFunction = NotAllowedOnDevice
OverpackedTile = FailedToUnpackTile
IncorrectTileUsage = InvalidAPIUsage
InvalidIndexingType = InvalidAPIUsage
InvalidSequenceSubscription = InvalidAPIUsage
FailedToUnpackTupleAssign = InvalidAPIUsage
TunableNameConflict = InvalidAPIUsage
TunableTypeNotSupported = InvalidAPIUsage
RegisterTunableArgTypes = InvalidAPIUsage
NonTensorSubscriptAssign = InvalidAPIUsage
RequiresTensorInAssignment = InvalidAPIUsage
SpecializeArgType = InvalidAPIUsage
NamingConflict = InvalidAPIUsage
UnsupportedPythonType = InvalidAPIUsage
StackTensorExampleOnDevice = InvalidAPIUsage
ConfigSpecFragmentWithSymInt = InvalidAPIUsage
UnsupportedSplitOperation = InvalidAPIUsage
StarredArgsNotSupportedOnDevice = StatementNotSupported
DeviceLoopElseBlock = StatementNotSupported
GlobalMutation = StatementNotSupported
ClosureMutation = StatementNotSupported
ClosuresNotSupported = StatementNotSupported
ShapeSpecializingCall = SizeNotConstant
ShapeSpecializingAllocation = SizeNotConstant
InvalidReductionDim = TorchOpTracingError
MultipleReductionDims = TorchOpTracingError
ReductionOnNonTile = TorchOpTracingError
ReductionDimInvalidForShape = TorchOpTracingError
NestedDeviceLoopsConflict = NestedGridLoop
TracedArgNotSupported = UnsupportedKernelSignature
InductorLoweringError = BackendUnsupported
CuteBackendUnavailable = BackendUnsupported
StackTensorcOnHost = DeviceAPIOnHost
StackTensorDevPtrOnHost = DeviceAPIOnHost
StackTensorDevPtrDtype = UnsupportedDtype
TritonUnrecoverableRuntimeError = TritonError
