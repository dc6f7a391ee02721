"""The output pool: outputs are reused, and no program can tell."""

from __future__ import annotations

import gc
import random
import weakref

import pytest
import torch

import helion
import helion.language as hl
from helion import runtime
from helion.runtime import output_pool

from .support import ADD

pytestmark = pytest.mark.softgpu(capability=90, software_only=True)


@pytest.fixture
def kernel(make):
    output_pool.configure(True)
    made = make()
    x, y = torch.ones(256), torch.ones(256)
    made.warm(x, y)
    output_pool.clear()
    yield made
    output_pool.configure(False)


@pytest.fixture
def call(kernel):
    x, y = torch.ones(256), torch.ones(256)
    return lambda: kernel(x, y)


def reused(before):
    return output_pool.statistics()["reused"] - before["reused"]


def test_off_by_default(make):
    assert not output_pool.statistics()["enabled"]
    kernel = make()
    x = torch.ones(256)
    kernel.warm(x, x)
    kernel(x, x)
    assert output_pool.statistics()["entries"] == 0


@pytest.mark.compiles
def test_dropped_output_is_handed_out_again(call):
    address = call().data_ptr()
    before = output_pool.statistics()
    for _ in range(5):
        assert call().data_ptr() == address
    assert reused(before) == 5 and output_pool.statistics()["entries"] == 1


#: Ways to keep something of an output alive, each of which must keep its memory.
HOLDS = {
    "the tensor": lambda out: out,
    "a view": lambda out: out.view(16, 16),
    "a slice": lambda out: out[3:7],
    "detach": lambda out: out.detach(),
    "detach under no_grad": lambda out: _no_grad_view(out),
    "storage": lambda out: out.untyped_storage(),
    "numpy": lambda out: out.numpy(),
    "dlpack": lambda out: torch.utils.dlpack.to_dlpack(out),
    "weak reference": weakref.ref,
    "weak reference in C++": torch._C._WeakTensorRef,
    "weak reference to the storage": lambda out: weakref.ref(out.untyped_storage()),
    "a container": lambda out: {"a": [out]},
    "memoryview of numpy": lambda out: memoryview(out.numpy()),
    "data attribute": lambda out: out.data,
    "autograd graph": lambda out: torch.ones(256, requires_grad=True) * out,
    "parameter": lambda out: torch.nn.Parameter(out),
}


def _no_grad_view(out):
    with torch.no_grad():
        return out.view(-1)


#: Which guard notices it, for some of them: run without it, the test must fail.
GUARDS = {
    "the tensor": pytest.mark.guard("pool_object"),
    "weak reference in C++": pytest.mark.guard("pool_tensor"),
    "storage": pytest.mark.guard("pool_storage"),
    "weak reference": pytest.mark.guard("pool_weak_reference"),
    "attribute": pytest.mark.guard("pool_attributes"),
    "numpy, then dropped": pytest.mark.guard("pool_shape"),
    "in-place operation": pytest.mark.guard("pool_version"),
    "data": pytest.mark.guard("pool_shape"),
    "requires_grad_": pytest.mark.guard("pool_autograd"),
    "class": pytest.mark.guard("pool_class"),
}


def guarded(names):
    return [pytest.param(name, marks=GUARDS.get(name, ()), id=name) for name in names]


@pytest.mark.parametrize("name", guarded(HOLDS))
@pytest.mark.compiles
def test_held_memory_is_not_handed_out(call, name):
    out = call()
    address = out.data_ptr()
    held = HOLDS[name](out)
    del out
    if name.startswith("weak reference"):
        # The pool keeps the tensor, so the reference is alive; what it shows must not be somebody else's result.
        assert call().data_ptr() != address
    else:
        for _ in range(12):
            assert call().data_ptr() != address
    del held
    gc.collect()


def _attribute(out):
    out.mark = 1


#: Ways to change an output that a new tensor would not show.
CHANGES = {
    "attribute": _attribute,
    "numpy, then dropped": lambda out: out.numpy() is None,
    "requires_grad_": lambda out: out.requires_grad_(),
    "in-place operation": lambda out: out.add_(1),
    "resize_": lambda out: out.resize_(8),
    "resize_ larger": lambda out: out.resize_(1024),
    "t_": lambda out: out.unsqueeze_(0),
    "set_": lambda out: out.set_(torch.zeros(4)),
    "data": lambda out: setattr(out, "data", torch.zeros(512)),
    "hook": lambda out: out.requires_grad_().register_hook(lambda g: g),
    "class": lambda out: setattr(out, "__class__", torch.nn.Parameter),
}


@pytest.mark.parametrize("name", guarded(CHANGES))
@pytest.mark.compiles
def test_changed_output_is_not_handed_out(call, name):
    out = call()
    CHANGES[name](out)
    del out
    again = call()
    assert type(again) is torch.Tensor and again.shape == (256,) and again.stride() == (1,)
    assert not again.requires_grad and again._version == 0 and not again.__dict__ and again.grad_fn is None
    assert again.untyped_storage().nbytes() == 1024
    assert (again == 2).all()
    again.resize_(2048)


def test_dict_of_a_dropped_output_is_not_that_of_the_next(call):
    out = call()
    attributes = out.__dict__
    del out
    again = call()
    attributes["mark"] = 1
    assert not hasattr(again, "mark")


def test_shapes_that_do_not_come_again_leave_nothing_behind(C, pool):
    output_pool.configure(True, entries=4)
    for n in range(1, 2000):
        C.output_pool_empty((n,), torch.float32, torch.device("cpu"))
    statistics = output_pool.statistics()
    assert statistics["entries"] == statistics["kinds"] == 4


@pytest.mark.compiles
def test_inference_tensors_and_others_are_kept_apart(call, kernel):
    normal = call().data_ptr()
    with torch.inference_mode():
        kernel.warm(torch.ones(256), torch.ones(256))
        out = call()
        assert out.is_inference()
        del out
    again = call()
    assert not again.is_inference()
    assert normal


@pytest.mark.compiles
def test_streams_do_not_share_outputs(call):
    from tests import softgpu

    address = call().data_ptr()
    with softgpu.Stream():
        assert call().data_ptr() != address
    assert call().data_ptr() == address


@pytest.mark.guard("capture")
@pytest.mark.compiles
def test_capture_does_not_use_the_pool(call):
    from tests import softgpu

    address = call().data_ptr()
    before = output_pool.statistics()
    graph = softgpu.Graph()
    with graph.capture():
        out = call()
    assert out.data_ptr() != address
    after = output_pool.statistics()
    assert (after["reused"], after["allocated"]) == (before["reused"], before["allocated"])


def test_outputs_that_are_not_only_written_by_the_kernel_are_new(make):
    output_pool.configure(True)
    try:
        kernel = make(
            "def host(x, y, *, _launcher=_default_launcher):\n"
            "    out = torch.zeros_like(x)\n"
            "    _launcher(_add_kernel, (1,), x, y, out, num_warps=4, num_stages=1)\n"
            "    return out\n"
        )
        x = torch.ones(256)
        kernel.warm(x, x)
        for _ in range(3):
            assert (kernel(x, x)[128:] == 0).all()
        assert output_pool.statistics()["entries"] == 0
    finally:
        output_pool.configure(False)


@pytest.mark.compiles
def test_bounded_in_entries_and_bytes(kernel):
    output_pool.configure(True, entries=5, bytes=8192)
    held = []
    for n in (128, 256, 384, 512) * 3:
        x = torch.ones(n)
        held.append(kernel.warm(x, x))
        now = output_pool.statistics()
        assert now["entries"] <= 5 and now["bytes"] <= 8192
    assert output_pool.statistics()["evicted"] > 0
    assert all((out == 2).all() for out in held)


@pytest.mark.compiles
def test_output_larger_than_the_pool_is_not_kept(kernel, call):
    output_pool.configure(True, entries=5, bytes=100)
    call()
    assert output_pool.statistics()["entries"] == 0


@pytest.mark.compiles
def test_clear_leaves_outputs_in_use_alone(call):
    out = call()
    output_pool.clear()
    assert output_pool.statistics()["entries"] == 0
    assert (out == 2).all()
    assert call().data_ptr() != out.data_ptr()


@pytest.mark.compiles
def test_limits_must_not_be_negative(C):
    with pytest.raises(ValueError, match="negative"):
        output_pool.configure(True, entries=-1)
    assert not output_pool.statistics()["enabled"]


@pytest.fixture(params=["plan", "host function"])
def pooled(request, make):
    """A kernel whose host code allocates as it does with HELION_OUTPUT_POOL=1, run as a plan and by Python."""
    output_pool.configure(True)
    made = make(ADD.replace("torch.empty_like", "_empty_like"))
    made.dispatch_enabled = request.param == "plan"
    made.warm(torch.ones(256), torch.ones(256))
    assert (made.plan_count == 1) == made.dispatch_enabled
    output_pool.clear()
    yield made
    output_pool.configure(False)


@pytest.mark.compiles
def test_no_live_tensor_ever_changes(pooled, seed):
    """Hold, drop, view, slice, store, write and pass on outputs at random: whatever is alive keeps its content."""
    rng = random.Random(seed)
    alive: list[tuple[torch.Tensor, torch.Tensor]] = []
    inputs = [torch.randn(256) for _ in range(3)]
    before = output_pool.statistics()
    for step in range(2000):
        a, b = (
            rng.choice([*inputs, *[t for t, _ in alive if t.shape == (256,) and t.is_contiguous()]]) for _ in range(2)
        )
        expected = a + b
        out = pooled(a, b)
        assert torch.equal(out, expected), f"step {step}"
        match rng.randrange(7):
            case 0:
                alive.append((out, expected))
            case 1:
                alive.append((out[5:100:3], expected[5:100:3]))
            case 2:
                alive.append((out.view(16, 16).t(), expected.view(16, 16).t()))
            case 3:
                alive.append((out.add_(1), expected + 1))
            case 4:
                alive.append((torch.from_numpy(out.numpy()), expected))
        del out
        while len(alive) > rng.randrange(1, 40):
            alive.pop(rng.randrange(len(alive)))
        if step % 50 == 0:
            for tensor, content in alive:
                assert torch.equal(tensor, content), f"step {step}"
    # By a model of the pool and of these steps 817 to 986, over 2000 seeds.
    assert reused(before) > 700


# -- allocations of host functions
# ------------------------------------------------------------------------------------------


@pytest.fixture
def pool(softgpu):
    output_pool.configure(True)
    yield
    output_pool.configure(False)


#: name -> (allocation that may be pooled, what torch gives).
ALLOCATIONS = {
    "empty_like": (lambda x: runtime.empty_like(x), lambda x: torch.empty_like(x)),
    "empty_like of a transposed tensor": (lambda x: runtime.empty_like(x.t()), lambda x: torch.empty_like(x.t())),
    "empty, sizes": (
        lambda x: runtime.empty(2, 3, dtype=torch.int8, device=x.device),
        lambda x: torch.empty(2, 3, dtype=torch.int8, device=x.device),
    ),
    "empty, one tuple": (
        lambda x: runtime.empty((2, 0, 3), device=x.device),
        lambda x: torch.empty((2, 0, 3), device=x.device),
    ),
    "new_empty": (lambda x: runtime.new_empty(x, [5, 1]), lambda x: x.new_empty([5, 1])),
    "new_empty, dtype": (
        lambda x: runtime.new_empty(x, 7, dtype=torch.int64),
        lambda x: x.new_empty(7, dtype=torch.int64),
    ),
}


def properties(tensor):
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad, tensor.is_inference()


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_pooled_allocation_is_like_torchs(pool, name):
    pooled, plain = ALLOCATIONS[name]
    x = torch.randn(4, 6, dtype=torch.float16)
    first = pooled(x)
    assert properties(first) == properties(plain(x))
    assert output_pool.statistics()["entries"] == 1
    assert pooled(x) is not first
    del first
    before = output_pool.statistics()
    pooled(x)
    assert reused(before) == 1 and output_pool.statistics()["entries"] == 2
    output_pool.configure(False)
    assert properties(pooled(x)) == properties(plain(x))


#: Allocations that are torch's own, pool or not.
UNPOOLED = {
    "a stepped tensor": lambda x: runtime.empty_like(x[:, ::2]),
    "a subclass": lambda x: runtime.empty_like(x.as_subclass(type("Sub", (torch.Tensor,), {}))),
    "options": lambda x: runtime.empty_like(x, dtype=torch.int8),
    "no device": lambda x: runtime.empty(3),
    "other options": lambda x: runtime.empty(3, device=x.device, requires_grad=True),
    "meta": lambda x: runtime.empty_like(torch.empty(3, device="meta")),
}


@pytest.mark.parametrize("name", UNPOOLED)
def test_other_allocations_are_torchs(pool, name):
    assert isinstance(UNPOOLED[name](torch.randn(4, 6)), torch.Tensor)
    assert output_pool.statistics()["entries"] == 0


def test_errors_of_pooled_allocations_are_torchs(pool):
    for size in ([-1], [2**40, 2**40]):
        with pytest.raises(RuntimeError) as plain:
            torch.empty(size, device="cpu")
        with pytest.raises(RuntimeError) as pooled:
            runtime.empty(size, device=torch.device("cpu"))
        assert str(pooled.value) == str(plain.value)


def test_deterministic_mode_gets_filled_memory(pool):
    x = torch.ones(16)
    runtime.empty_like(x).fill_(3)
    torch.use_deterministic_algorithms(True)
    try:
        assert runtime.empty_like(x).isnan().all()
    finally:
        torch.use_deterministic_algorithms(False)


def test_modes_see_pooled_allocations_as_torchs(pool):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Seeing(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    seen = []
    x = torch.ones(16)
    with Seeing():
        runtime.empty_like(x)
    assert torch.ops.aten.empty_like.default in seen


# -- generated code
# ---------------------------------------------------------------------------------------------------------


@helion.kernel(config=helion.Config(block_sizes=[32]))
def sums(x: torch.Tensor, total: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    out = torch.empty_like(x)
    wide = x.new_empty([x.size(0)], dtype=torch.float64)
    zero = torch.zeros_like(x)
    inner: torch.Tensor = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
    unused = torch.empty(3)
    for tile in hl.tile(x.size(0)):
        inner[tile] = x[tile] * 2
        out[tile] = x[tile] + 1
        wide[tile] = x[tile].to(torch.float64)
        zero[tile] = x[tile]
        total[tile] += x[tile]
    return out, wide, zero, unused


def source_of_sums():
    sums.reset()
    return sums.bind((torch.ones(100), torch.zeros(100))).to_triton_code()


@pytest.mark.compiles
def test_only_outputs_come_from_the_pool(pool):
    text = source_of_sums()
    assert "out = _empty_like(x)" in text and "wide = _new_empty(x, [x.size(0)], dtype=torch.float64)" in text
    assert "from helion.runtime import empty_like as _empty_like" in text
    assert (
        "zero = torch.zeros_like(x)" in text and "inner = torch.empty([" in text and "unused = torch.empty(3)" in text
    )
    x, total = torch.randn(100), torch.zeros(100)
    for n in range(1, 5):
        out, wide, zero, _ = sums(x, total)
        torch.testing.assert_close((out, wide, zero, total), (x + 1, x.double(), x, n * x))
    sums.reset()


def test_without_the_pool_host_code_is_the_users(softgpu):
    text = source_of_sums()
    assert "out = torch.empty_like(x)" in text and "_empty_like(x)" not in text.replace("torch.empty_like(x)", "")
    # total is an argument, so autograd is told; the others are the function's own.
    assert "    _increment_version(total)\n" in text
    sums.reset()
