"""Host functions as plans: what becomes one, what does not and why, and that a plan does what the host function did."""

from __future__ import annotations

import pytest
import torch

from helion.runtime.launch import plan_data
from helion.runtime.launch.plan_data import TensorRef

pytestmark = pytest.mark.softgpu(capability=90, software_only=True)

LAUNCH = "    _launcher(_add_kernel, (2,), x, y, out, num_warps=4, num_stages=1)\n"


def host(body: str, parameters: str = "x, y") -> str:
    return f"def host({parameters}, *, _launcher=_default_launcher):\n{body}"


def pair():
    return torch.randn(256), torch.randn(256)


# -- what becomes a plan
# ----------------------------------------------------------------------------------------------------

#: name -> (host code, result expected for x and y).
PLANS = {
    "empty_like": ("    out = torch.empty_like(x)\n" + LAUNCH + "    return out\n", lambda x, y: x + y),
    "empty with dtype and device": (
        "    out = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)\n" + LAUNCH + "    return out\n",
        lambda x, y: x + y,
    ),
    "new_empty": ("    out = x.new_empty(x.shape)\n" + LAUNCH + "    return out\n", lambda x, y: x + y),
    "empty_strided": (
        "    out = torch.empty_strided((256,), (1,), dtype=torch.float32)\n" + LAUNCH + "    return out\n",
        lambda x, y: x + y,
    ),
    "zeros": (
        "    out = torch.zeros([512], dtype=x.dtype)\n" + LAUNCH + "    return out\n",
        lambda x, y: torch.cat([x + y, torch.zeros(256)]),
    ),
    "full": (
        "    out = torch.full([384], 2.5, dtype=x.dtype)\n" + LAUNCH + "    return out\n",
        lambda x, y: torch.cat([x + y, torch.full((128,), 2.5)]),
    ),
    "ones_like then zero_": (
        "    out = torch.ones_like(x)\n    extra = torch.ones_like(x).zero_()\n" + LAUNCH + "    return out, extra\n",
        lambda x, y: (x + y, torch.zeros(256)),
    ),
    "fill_": (
        "    extra = torch.empty_like(x)\n    extra.fill_(7)\n    out = torch.empty_like(x)\n"
        + LAUNCH
        + "    return [extra, out]\n",
        lambda x, y: [torch.full((256,), 7.0), x + y],
    ),
    "view of an output": (
        "    out = torch.empty_like(x)\n" + LAUNCH + "    return out.view(16, 16)\n",
        lambda x, y: (x + y).view(16, 16),
    ),
    "part of an output": (
        "    out = torch.empty_like(x)\n" + LAUNCH + "    return out[16:32], out[::2]\n",
        lambda x, y: ((x + y)[16:32], (x + y)[::2]),
    ),
    "view of an input": (
        "    out = torch.empty_like(x)\n" + LAUNCH + "    return out, x.view(16, 16).t()\n",
        lambda x, y: (x + y, x.view(16, 16).t()),
    ),
    "returned input": (
        "    out = torch.empty_like(x)\n" + LAUNCH + "    return x, out, y\n",
        lambda x, y: (x, x + y, y),
    ),
    "launch on views": (
        "    out = torch.empty([512], dtype=x.dtype)\n"
        "    _launcher(_add_kernel, (1,), x[128:], y[:128], out[256:], num_warps=4, num_stages=1)\n"
        "    return out[256:384]\n",
        lambda x, y: x[128:] + y[:128],
    ),
    "two launches": (
        "    middle = torch.empty_like(x)\n    out = torch.empty_like(x)\n"
        "    _launcher(_add_kernel, (2,), x, y, middle, num_warps=4, num_stages=1)\n"
        "    _launcher(_add_kernel, (2,), middle, y, out, num_warps=4, num_stages=1)\n"
        "    return out\n",
        lambda x, y: x + y + y,
    ),
    "in place": ("    _launcher(_add_kernel, (2,), x, y, x, num_warps=4, num_stages=1)\n    return x\n", None),
    "nothing returned": ("    _launcher(_add_kernel, (2,), x, y, x, num_warps=4, num_stages=1)\n", lambda x, y: None),
    "constants returned": (
        "    out = torch.empty_like(x)\n" + LAUNCH + "    return out, 3, None, x.size(0), 'done', x.dtype\n",
        lambda x, y: (x + y, 3, None, 256, "done", torch.float32),
    ),
    "branches and loops over shapes": (
        "    n = 1\n    for size in x.shape:\n        n = n * size\n    if n > 1 and x.dim() == 1:\n"
        "        out = torch.empty([n], dtype=x.dtype)\n"
        "    else:\n        raise ValueError('shape')\n    assert len(x.shape) == 1, f'{x.shape}'\n"
        + LAUNCH
        + "    return out\n",
        lambda x, y: x + y,
    ),
    "computation": (
        "    x = x + 1\n    out = torch.empty_like(x)\n" + LAUNCH + "    return out\n",
        lambda x, y: x + 1 + y,
    ),
    "computation in place": (
        "    z = x.clone()\n    z[:128].mul_(2)\n    out = torch.empty_like(x)\n"
        "    _launcher(_add_kernel, (2,), z, y, out, num_warps=4, num_stages=1)\n    return out\n",
        lambda x, y: torch.cat([2 * x[:128], x[128:]]) + y,
    ),
    "casts": (
        "    out = torch.empty_like(x)\n    y = y.to(torch.float64).float()\n"
        + LAUNCH
        + "    return out.to(torch.float16)\n",
        lambda x, y: (x + y).half(),
    ),
    "several results of an operation": (
        "    a, b = torch.stack([x, y])\n    out = torch.empty_like(x)\n"
        "    _launcher(_add_kernel, (2,), a, b, out, num_warps=4, num_stages=1)\n    return out\n",
        lambda x, y: x + y,
    ),
    "empty grid": (
        "    out = torch.zeros_like(x)\n    _launcher(_add_kernel, (0,), x, y, out, num_warps=4, num_stages=1)\n"
        "    return out\n",
        lambda x, y: torch.zeros(256),
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_becomes_a_plan_that_does_the_same(make, name):
    body, expected = PLANS[name]
    kernel = make(host(body))
    for _ in range(4):
        x, y = pair()
        want = expected(x, y) if expected is not None else x + y
        got = kernel(x, y)
        if expected is None:
            assert got is x
        _compare(got, want)
    assert kernel.reasons == [] and kernel.plan_hits == 2


def _compare(got, want):
    assert type(got) is type(want)
    if isinstance(want, (tuple, list)):
        assert len(got) == len(want)
        for g, w in zip(got, want):
            _compare(g, w)
    elif isinstance(want, torch.Tensor):
        torch.testing.assert_close(got, want)
        assert got.stride() == want.stride() and got.dtype == want.dtype
    else:
        assert got == want


def test_views_that_a_plan_returns_share_memory(make):
    kernel = make(host("    out = torch.empty_like(x)\n" + LAUNCH + "    return out, out.view(16, 16)\n"))
    x, y = pair()
    kernel.warm(x, y)
    out, view = kernel(x, y)
    assert view.data_ptr() == out.data_ptr() and view._base is out
    _, view = kernel(x, y)
    torch.testing.assert_close(view, (x + y).view(16, 16))


def test_buffer_that_is_not_returned_is_freed(make):
    kernel = make(
        host(
            "    middle = torch.empty_like(x)\n"
            "    _launcher(_add_kernel, (2,), x, y, middle, num_warps=4, num_stages=1)\n"
            "    _launcher(_add_kernel, (2,), middle, y, x, num_warps=4, num_stages=1)\n"
        )
    )
    x, y = torch.zeros(256), torch.ones(256)
    for n in range(1, 6):
        kernel(x, y)
        assert (x == 2 * n).all()


def test_optional_argument_has_a_plan_for_none_and_one_for_a_tensor(make):
    kernel = make(
        host(
            "    if out is None:\n        out = torch.empty_like(x)\n" + LAUNCH + "    return out\n",
            "x, y, out=None",
        )
    )
    x, y = pair()
    mine = torch.empty(256)
    for _ in range(4):
        torch.testing.assert_close(kernel(x, y), x + y)
        assert kernel(x, y, mine) is mine
        torch.testing.assert_close(mine, x + y)
    assert kernel.plan_count == 2 and kernel.plan_hits == 4


def test_plan_runs_on_the_stream_that_is_current(make):
    from tests import softgpu

    kernel = make()
    x, y = pair()
    kernel.warm(x, y)
    hits = kernel.plan_hits
    with softgpu.Stream() as stream:
        out = kernel(x, y)
        stream.synchronize()
    torch.testing.assert_close(out, x + y)
    assert kernel.plan_hits == hits + 1


def test_graph_capture_records_the_launch_of_a_plan(make):
    from tests import softgpu

    kernel = make(host("    _launcher(_add_kernel, (2,), x, y, x, num_warps=4, num_stages=1)\n    return x\n"))
    x, y = torch.zeros(256), torch.ones(256)
    kernel.warm(x, y)
    hits = kernel.plan_hits
    before = x.clone()
    graph = softgpu.Graph()
    with graph.capture():
        kernel(x, y)
    assert kernel.plan_hits == hits + 1
    torch.testing.assert_close(x, before)
    for n in (1, 2):
        graph.replay()
        torch.testing.assert_close(x, before + n)


# -- what does not
# ----------------------------------------------------------------------------------------------------------

#: name -> (host code, part of the reason).
NOT_PLANS = {
    "value of a tensor": (
        "    n = int(x[0].item())\n    out = torch.empty_like(x)\n" + LAUNCH + "    return out\n",
        ".item()",
    ),
    "print": ("    print('hello')\n    out = torch.empty_like(x)\n" + LAUNCH + "    return out\n", "calls print()"),
    "address": ("    out = torch.empty_like(x)\n    p = x.data_ptr()\n" + LAUNCH + "    return out\n", ".data_ptr()"),
    "partial fill": (
        "    out = torch.empty_like(x)\n    out[:16].zero_()\n" + LAUNCH + "    return out\n",
        "fills part",
    ),
    "item assignment": ("    out = torch.empty_like(x)\n    out[0] = 1\n" + LAUNCH + "    return out\n", "assigns"),
    "global write": (
        "    global seen\n    seen = 1\n    out = torch.empty_like(x)\n" + LAUNCH + "    return out\n",
        "global",
    ),
    "mutable global": ("    LOG.append(1)\n    out = torch.empty_like(x)\n" + LAUNCH + "    return out\n", "LOG"),
    "grad flag": (
        "    flag = x.requires_grad\n    out = torch.empty_like(x)\n" + LAUNCH + "    return out\n",
        ".requires_grad",
    ),
    "other function": (
        "    out = helper(x)\n" + LAUNCH + "    return out\n",
        "calls helper(): host code calls LOG.append()",
    ),
    "with": ("    with torch.no_grad():\n        out = torch.empty_like(x)\n" + LAUNCH + "    return out\n", "with"),
    "try": (
        "    try:\n        out = torch.empty_like(x)\n    finally:\n        pass\n" + LAUNCH + "    return out\n",
        "try",
    ),
    "import": ("    import os\n    out = torch.empty_like(x)\n" + LAUNCH + "    return out\n", "import"),
    "lambda": ("    f = lambda: 1\n    out = torch.empty_like(x)\n" + LAUNCH + "    return out\n", "Lambda"),
    "tensor as a key": ("    out = torch.empty_like(x)\n" + LAUNCH + "    return {out: 1}\n", "returns a dict"),
    "no launch": ("    return torch.empty_like(x).zero_() if x.dim() == 1 else x\n", "launches nothing"),
    "as_strided": (
        "    out = torch.empty_like(x)\n" + LAUNCH + "    return x.as_strided((2,), (1,), 3)\n",
        ".as_strided()",
    ),
    "reinterpreted": (
        "    out = torch.empty_like(x)\n" + LAUNCH + "    return out.view(torch.int32)\n",
        "aten.view.dtype",
    ),
    "version": ("    v = x._version\n    out = torch.empty_like(x)\n" + LAUNCH + "    return out\n", "._version"),
    "thread state": (
        "    flag = torch.is_grad_enabled()\n    out = torch.empty_like(x)\n" + LAUNCH + "    return out\n",
        "is_grad_enabled",
    ),
}
HELPERS = "LOG = []\nseen = 0\ndef helper(x):\n    LOG.append(1)\n    return torch.empty_like(x)\n"


@pytest.mark.parametrize("name", NOT_PLANS)
def test_stays_a_host_function_and_says_why(make, name):
    body, reason = NOT_PLANS[name]
    kernel = make(HELPERS + host(body))
    for _ in range(4):
        kernel(*pair())
    assert kernel.plan_count == 0 and kernel.plan_hits == 0
    (said,) = kernel.reasons
    assert reason in said


def test_side_effects_happen_on_every_call(make, capsys):
    kernel = make(host("    print('hello')\n    out = torch.empty_like(x)\n" + LAUNCH + "    return out\n"))
    for _ in range(4):
        kernel(*pair())
    assert capsys.readouterr().out.count("hello") == 4


def test_recorded_call_runs_once(make):
    kernel = make(host("    _launcher(_add_kernel, (2,), x, y, x, num_warps=4, num_stages=1)\n    return x\n"))
    x, y = torch.zeros(256), torch.ones(256)
    for n in range(1, 5):
        kernel(x, y)
        assert (x == n).all()


@pytest.mark.parametrize("option", ["num_ctas=2", "launch_pdl=True", "launch_cooperative_grid=True"])
def test_clusters_and_other_kinds_of_launches_are_plans(make, option):
    launch = LAUNCH.replace("num_stages=1", f"num_stages=1, {option}")
    kernel = make(host("    out = torch.empty_like(x)\n" + launch + "    return out\n"))
    for _ in range(4):
        x, y = pair()
        torch.testing.assert_close(kernel(x, y), x + y)
    assert kernel.plan_hits == 2, kernel.reasons


LIST = (
    "def host(xs, *, _launcher=_default_launcher):\n"
    "    out = torch.empty_like(xs[0])\n"
    "    _launcher(_add_kernel, (2,), xs[0], xs[1], out, num_warps=4, num_stages=1)\n"
)


def test_host_code_that_appends_to_an_argument_does_so_on_every_call(make):
    kernel = make(LIST + "    xs.append(out)\n    return out\n")
    for _ in range(4):
        xs = list(pair())
        out = kernel(xs)
        assert len(xs) == 3 and xs[2] is out
    assert kernel.reasons == ["host code changes a list that it was given"]


def test_host_code_that_extends_an_argument_in_place(make):
    kernel = make(LIST + "    ys = xs\n    ys += [out]\n    return out\n")
    for _ in range(4):
        xs = list(pair())
        kernel(xs)
        assert len(xs) == 3


def test_returned_list_argument_is_the_same_list(make):
    kernel = make(LIST + "    return xs\n")
    for _ in range(4):
        xs = list(pair())
        assert kernel(xs) is xs


def test_list_of_its_own_may_be_appended_to(make):
    kernel = make(LIST + "    outs = []\n    outs.append(out)\n    return outs\n")
    xs = list(pair())
    for _ in range(4):
        (out,) = kernel(xs)
        torch.testing.assert_close(out, xs[0] + xs[1])
    assert kernel.plan_hits == 2


def test_tensor_twice_in_a_list_stays_a_host_function(make):
    kernel = make(LIST + "    return out\n")
    x, y = pair()
    for _ in range(4):
        torch.testing.assert_close(kernel([x, x]), x + x)
    torch.testing.assert_close(kernel([x, y]), x + y)
    assert kernel.reasons == ["a tensor occurs twice in a list or tuple"]


@pytest.mark.softgpu(capability=90, software_only=True, devices=2)
def test_launch_on_another_device_than_its_tensors_is_no_plan(make):
    from tests import softgpu

    kernel = make()
    x, y = (softgpu.place(t, 1) for t in pair())
    for _ in range(4):
        try:
            kernel(x, y)
        except RuntimeError:
            pass  # this hand-written kernel's launcher is for device 0
    assert kernel.plan_count == 0


# -- what a plan returns is what host code returned, in kind
# ---------------------------------------------------------------------------------------

_OUT = "    out = torch.empty_like(x)\n" + LAUNCH

#: name -> host code; the call by Python and by C have to agree in everything that a program can see.
KINDS = {
    "detach of an input": _OUT + "    return x.detach(), out\n",
    "detach of an output": _OUT + "    return out.detach()\n",
    "detach of a view": _OUT + "    return out[8:].detach()\n",
    "view of a view": _OUT + "    return out[8:].view(-1, 8)\n",
    "the same view twice": _OUT + "    v = out.view(16, 16)\n    return v, v\n",
    "the same list twice": _OUT + "    v = [out]\n    return v, v\n",
    "the same output twice": _OUT + "    return out, out\n",
    "zeros": "    out = torch.zeros_like(x)\n" + LAUNCH + "    return out\n",
    "zeros, then filled": "    out = torch.zeros_like(x)\n    out.fill_(3)\n" + LAUNCH + "    return out\n",
    "filled twice": "    out = torch.empty_like(x).fill_(1)\n    out.zero_()\n" + LAUNCH + "    return out\n",
    "requires grad": _OUT + "    e = torch.empty([4], requires_grad=True)\n    return out, e\n",
    "a size": _OUT + "    return out, x.shape\n",
}


def _seen(value):
    """What a program can see of a result, with objects numbered as they come."""
    numbers: dict[int, int] = {}

    def see(value):
        number = numbers.setdefault(id(value), len(numbers))
        if isinstance(value, torch.Tensor):
            base = None if value._base is None else (value._base.shape, value._base._version)
            flags = (value.requires_grad, value._version, value.is_leaf, value.storage_offset(), value._is_view())
            return (number, value.shape, value.stride(), value.dtype, flags, base)
        if isinstance(value, (list, tuple)):
            return (number, type(value), [see(item) for item in value])
        return (type(value), value)

    return see(value)


@pytest.mark.parametrize("name", KINDS)
def test_result_is_that_of_the_host_function_in_kind(make, name):
    kernel = make(host(KINDS[name]))
    expected = None
    for _ in range(4):
        x, y = pair()
        want, got = kernel.python(x, y), kernel(x, y)
        assert _seen(got) == _seen(want)
        expected = want
    assert expected is not None and (kernel.plan_hits > 0) != bool(kernel.reasons)


def test_random_numbers_are_drawn_at_every_call(make):
    kernel = make(host("    x = torch.rand_like(x)\n" + _OUT + "    return out\n"))
    x, y = torch.zeros(256), torch.zeros(256)
    drawn = [kernel(x, y) for _ in range(5)]
    assert kernel.plan_hits == 3 and len({float(out[0]) for out in drawn}) == 5
    torch.manual_seed(3)
    want = torch.rand(256)
    torch.manual_seed(3)
    assert torch.equal(kernel(x, y), want)


@pytest.mark.guard("autocast")
def test_operations_follow_autocast(make):
    kernel = make(host(_OUT + "    return out, torch.mm(x.view(16, 16), y.view(16, 16))\n"))
    x, y = pair()
    for _ in range(4):
        assert kernel(x, y)[1].dtype is torch.float32
    hits = kernel.plan_hits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert kernel(x, y)[1].dtype is torch.bfloat16
    assert kernel(x, y)[1].dtype is torch.float32
    assert kernel.plan_hits == hits + 1


def test_an_input_changed_by_an_operation_shows_it(make):
    kernel = make(host("    x.add_(1)\n" + _OUT + "    return out\n"))
    x, y = torch.zeros(256), torch.zeros(256)
    for n in range(1, 6):
        assert (kernel(x, y) == n).all() and x._version == n
    assert kernel.plan_hits == 3


#: Ways to ask which arguments are the same object.
IDENTITY = {
    "is": "1 if x is y else 2",
    "is not": "2 if x is not y else 1",
    "through a variable": "1 if z is y else 2",
}


@pytest.mark.parametrize("first", ["same", pytest.param("distinct", marks=pytest.mark.guard("identity"))])
def test_host_code_that_asks_which_arguments_are_the_same(make, first):
    for name, condition in IDENTITY.items():
        kernel = make(host(f"    z = x\n    which = {condition}\n" + _OUT + "    return out, which\n"))
        for turn in range(8):
            same = (turn < 4) == (first == "same")
            x = torch.zeros(256)
            y = x if same else torch.full((256,), float("nan"))
            assert kernel(x, y)[1] == (1 if same else 2), (name, turn)


def test_asking_for_none_or_a_dtype_is_not_asking_for_identity(make):
    kernel = make(
        host(
            "    if y is None or x.dtype in (torch.int8, torch.int32):\n        return None\n"
            + _OUT
            + "    return out\n"
        )
    )
    x, _ = pair()
    for _ in range(4):
        torch.testing.assert_close(kernel(x, x), x + x)
    assert kernel.plan_hits == 2


# -- LaunchPlan checks what it is given
# ---------------------------------------------------------------------------------------


_CPU, _NOTHING = torch.device("cpu"), plan_data.Object(None)


@pytest.mark.parametrize(
    ("buffers", "steps", "result"),
    [
        ((), (plan_data.Fill(TensorRef(True, 5), 0),), _NOTHING),
        ((), (plan_data.Fill(TensorRef(False, 0), 0),), _NOTHING),
        ((), (plan_data.Fill("x", 0),), _NOTHING),
        ((), (("jump",),), _NOTHING),
        ((), (plan_data.Launch(None, (1,), ()),), _NOTHING),
        ((), (), TensorRef(False, 0)),
        ((), (), plan_data.View(TensorRef(False, 0), (), (), 0)),
        ((), (), ("what",)),
        ((), (), None),
        ((plan_data.Allocation((2,), (1, 1), torch.float32, _CPU, False),), (), _NOTHING),
        ((plan_data.Allocation((2,), (1,), "float32", _CPU, False),), (), _NOTHING),
        ((plan_data.Allocation((2,), (1,), torch.float32, "cpu", False),), (), _NOTHING),
        ((_NOTHING,), (), _NOTHING),
    ],
)  # fmt: skip
def test_malformed_description_is_an_error(C, buffers, steps, result):
    with pytest.raises((ValueError, TypeError, IndexError)):
        C.LaunchPlan(1, 0, buffers, steps, result)


# -- scratch memory
# ----------------------------------------------------------------------------------------------------

DESCRIPTORS = """\
from helion.runtime import set_triton_allocator as _set_triton_allocator


@triton.jit
def _copy_kernel(x, out):
    row = tl.program_id(0) * 2
    block = tl.make_tensor_descriptor(x, [8, 128], [128, 1], [2, 128]).load([row, 0])
    tl.make_tensor_descriptor(out, [8, 128], [128, 1], [2, 128]).store([row, 0], block * 2)


def host(x, *, _launcher=_default_launcher):
    _set_triton_allocator()
    out = torch.empty_like(x)
    _launcher(_copy_kernel, (4,), x, out, num_warps=4, num_stages=1)
    return out
"""


def with_own_allocator(call):
    """The result of a call where the user gave Triton an allocator, and what that was asked for."""
    import contextvars

    import triton

    asked = []

    def allocate(size, alignment, stream):
        asked.append(size)
        return torch.empty(size, dtype=torch.int8)

    def run():
        triton.set_allocator(allocate)
        return call()

    return contextvars.copy_context().run(run), asked


@pytest.mark.guard("allocator")
def test_kernels_with_descriptors_made_on_the_device_are_plans(make):
    import threading

    kernel = make(DESCRIPTORS)
    for _ in range(6):
        x = torch.randn(8, 128)
        assert torch.equal(kernel(x), x * 2)
    assert kernel.plan_count == 1 and kernel.plan_hits == 4
    # A user's own allocator wins, as it does in Python.
    result, asked = with_own_allocator(lambda: kernel(x))
    assert torch.equal(result, x * 2) and len(asked) == 1
    assert torch.equal(kernel(x), x * 2) and kernel.plan_hits == 5
    # A thread begins in a context of its own, where nobody has set one.
    results = []
    thread = threading.Thread(target=lambda: results.append(kernel(x)))
    thread.start()
    thread.join()
    assert torch.equal(results[0], x * 2) and kernel.plan_hits == 6


def test_host_function_is_no_plan_under_a_users_own_allocator(make):
    kernel = make(DESCRIPTORS)
    x = torch.randn(8, 128)
    _, asked = with_own_allocator(lambda: [kernel(x) for _ in range(4)])
    assert len(asked) == 4 and kernel.plan_count == 0
    assert any("allocator" in reason for reason in kernel.reasons)
