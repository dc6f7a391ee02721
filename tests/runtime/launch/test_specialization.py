"""Arguments -> keys: what tells two specializations apart, and what must not."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import inspect
import os
import random
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from helion import exc
from helion.runtime.launch import specialization
from helion.runtime.launch.specialization import Specializer
from helion.runtime.stable_key import StableKey
from helion.runtime.stable_key import stable_key
from helion.settings import Settings


def make(fn=lambda x: None, key_fn=None, *, annotations=None, on_requires_grad=None, **settings) -> Specializer:
    return Specializer(
        inspect.signature(fn),
        annotations if annotations is not None else getattr(fn, "__annotations__", {}),
        Settings(**settings),
        key_fn,
        on_requires_grad=on_requires_grad,
    )


class Plain(torch.Tensor):
    """A subclass with nothing of its own."""


Pair = collections.namedtuple("Pair", "first second")
Other = collections.namedtuple("Other", "first second")


@dataclasses.dataclass
class Options:
    scale: float
    weight: torch.Tensor


class Mode(enum.Enum):
    A = 1
    B = 2


def assorted_tensors():
    seed = random.randrange(2**31)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(60):
        dims = rng.randrange(0, 5)
        sizes = [rng.choice([0, 1, 2, 3, 16, 65]) for _ in range(dims)]
        x = torch.empty(sizes, dtype=rng.choice([torch.float32, torch.bfloat16, torch.int64, torch.bool]))
        if dims > 1 and rng.random() < 0.5:
            x = x.permute(*rng.sample(range(dims), dims))
        if dims and rng.random() < 0.3:
            x = x.unsqueeze(0).expand(4, *x.shape)
        if dims and rng.random() < 0.3:
            x = x[..., ::2]
        yield x


# -- tensors
# ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("static", [True, False])
def test_inlined_tensor_element_equals_the_extractor(static):
    s = make(static_shapes=static)
    for x in assorted_tensors():
        assert s.key((x,)) == (s.extract.tensor(x),)
        assert s.key((x,))[0][:-1] == specialization._tensor_key(s.settings, x)


@pytest.mark.parametrize("static", [True, False])
def test_concrete_and_symint_safe_paths_agree_in_value_and_hash(static):
    settings = Settings(static_shapes=static)
    for x in assorted_tensors():
        fast = specialization._tensor_key(settings, x)
        safe = specialization._tensor_key(settings, x.as_subclass(Plain))
        assert fast == safe and hash(fast) == hash(safe)


@pytest.mark.parametrize("static", [True, False])
def test_fake_tensor_of_the_same_shape_has_the_same_key(static):
    s = make(static_shapes=static)
    x = torch.empty(4, 6).t()
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(x)
    assert s.key((fake,)) == s.key((x,)) and hash(s.key((fake,))) == hash(s.key((x,)))


@pytest.mark.parametrize("static", [True, False])
def test_key_of_a_symbolic_shape_adds_no_guard(static):
    env = ShapeEnv()
    mode = FakeTensorMode(shape_env=env)
    fake = mode.from_tensor(torch.empty(5, 7), static_shapes=False)
    before = len(env.guards)
    key = make(static_shapes=static).key((fake,))
    hash(key)
    assert len(env.guards) == before


def test_subclass_and_parameter_share_the_key_of_a_plain_tensor():
    s = make()
    x = torch.empty(3, 4)
    assert s.key((x,)) == s.key((x.as_subclass(Plain),)) == s.key((torch.nn.Parameter(x, requires_grad=False),))


@pytest.mark.parametrize(
    "other",
    [
        torch.empty(3, 4, dtype=torch.float16),
        torch.empty(3, 5),
        torch.empty(4, 3).t(),
        torch.empty(12),
        torch.empty(3, 4, device="meta"),
    ],
    ids=["dtype", "size", "stride", "rank", "device"],
)
def test_static_key_tells_apart(other):
    s = make()
    assert s.key((torch.empty(3, 4),)) != s.key((other,))


def test_marked_static_dimensions_are_in_the_key():
    x = torch.empty(3, 4)
    marked = torch.empty(3, 4)
    torch._dynamo.mark_static(marked, 1)
    for static in (True, False):
        s = make(static_shapes=static)
        assert s.key((x,)) != s.key((marked,))
        assert specialization._tensor_key(s, marked)[3] == {1}


def test_dynamic_key_shares_sizes_other_than_0_and_1():
    s = make(static_shapes=False)
    key = s.key((torch.empty(3, 4),))
    assert key == s.key((torch.empty(300, 40),))
    assert len({key, s.key((torch.empty(1, 4),)), s.key((torch.empty(0, 4),)), s.key((torch.empty(3, 1),))}) == 4


def test_dynamic_key_tells_unit_zero_and_other_strides_apart():
    s = make(static_shapes=False)
    row, column, broadcast = torch.empty(3, 4), torch.empty(4, 3).t(), torch.empty(3, 1).expand(3, 4)
    assert len({s.key((x,)) for x in (row, column, broadcast)}) == 3


def test_dynamic_key_of_a_marked_dimension_has_its_size():
    s = make(static_shapes=False)

    def marked(n):
        x = torch.empty(n, 4)
        torch._dynamo.mark_static(x, 0)
        return x

    assert s.key((marked(3),)) == s.key((marked(3),)) != s.key((marked(5),))


def test_dynamic_key_tells_64_bit_offsets_apart():
    s = make(static_shapes=False)
    small, large = torch.empty(2**16, 2**15, device="meta"), torch.empty(2**16, 2**16, device="meta")
    assert s.key((small,)) != s.key((large,))


@pytest.mark.parametrize("static", [True, False])
def test_negated_tensor_is_refused(static):
    x = torch.tensor([1 + 2j]).conj().imag
    with pytest.raises(exc.InvalidAPIUsage, match="resolve_neg"):
        make(static_shapes=static).key((x,))
    assert make(static_shapes=static).key((x.resolve_neg(),))


def test_requires_grad_is_reported_only_in_grad_mode():
    seen = []
    s = make(on_requires_grad=lambda: seen.append(1))
    x = torch.empty(3, requires_grad=True)
    plain = torch.empty(3)
    s.key((plain,))
    with torch.no_grad():
        s.key((x,))
    with torch.inference_mode():
        s.key((torch.empty(3),))
    assert seen == []
    assert s.key((x,)) == s.key((plain,))
    assert s.key((torch.nn.Parameter(plain),)) == s.key((plain,))
    assert len(seen) == 2


# -- everything else
# ----------------------------------------------------------------------------------------------------


def test_numbers_count_by_type():
    s = make()
    assert s.key((1,)) == s.key((7,)) and s.key((1.0,)) == s.key((2.5,))
    assert len({s.key((v,)) for v in (1, 1.0, True, 1 + 0j, "1", None)}) == 6


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (True, False),
        (1j, 2j),
        ("sum", "mean"),
        (Mode.A, Mode.B),
        (torch.float16, torch.bfloat16),
        (torch.device("cpu"), torch.device("meta")),
        (None, 0),
        ([1], (1,)),
        ((1, 2), (1, 2, 3)),
        ((1, 2.0), (1, 2)),
        ({"a": 1}, {"b": 1}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (Pair(1, 2), Other(1, 2)),
        (Pair(1, 2), (1, 2)),
        (slice(1, True), slice(1, False)),
        (torch.relu, torch.sigmoid),
        (functools.partial(max, 1), functools.partial(max, 2)),
    ],
)
def test_values_that_differ(one, two):
    s = make()
    assert s.key((one,)) != s.key((two,))
    assert s.key((one,)) == s.key((one,)) and hash(s.key((one,))) == hash(s.key((one,)))


def test_containers_share_by_their_contents():
    s = make()
    x, y = torch.empty(4), torch.empty(4)
    assert s.key(([x, 1],)) == s.key(([y, 2],))
    assert s.key((Pair(x, 1.0),)) == s.key((Pair(y, 2.0),))
    assert s.key((Options(1.0, x),)) == s.key((Options(2.0, y),)) != s.key((Options(2.0, x.half()),))


def test_closures_count_by_code_and_captures():
    def epilogue(bias, scale):
        return lambda v: v * scale + bias

    s = make()
    x, y = torch.empty(4), torch.empty(4)
    assert s.key((epilogue(x, 2),)) == s.key((epilogue(y, 2),))
    assert s.key((epilogue(x, 2),)) != s.key((epilogue(y, 3),))
    assert s.key((epilogue(x, 2),)) != s.key((epilogue(torch.empty(5), 2),))
    assert s.key((lambda v: v + 1,)) != s.key((lambda v: v + 2,))


def test_closure_that_captures_itself():
    def make_recursive():
        def f(n):
            return f(n - 1)

        return f

    s = make()
    assert s.key((make_recursive(),)) == s.key((make_recursive(),))


def test_callable_objects_count_by_identity_and_stay_alive():
    class Always:
        def __eq__(self, other):
            return True

        __hash__ = None

        def __call__(self):
            pass

    s = make()
    assert s.key((Always(),)) != s.key((Always(),))


def test_unsupported_type_is_named():
    with pytest.raises(exc.InvalidAPIUsage, match="set"):
        make().key(({1, 2},))


@pytest.mark.parametrize("annotation", ["hl.constexpr", "constexpr", "hl.constexpr[int]"])
def test_constexpr_counts_by_value(annotation):
    s = make(lambda x, n: None, annotations={"n": annotation})
    x = torch.empty(4)
    assert s.key((x, 3)) == s.key((x, 3)) != s.key((x, 4))
    assert len({s.key((x, v)) for v in (1, 1.0, True, 0.0, -0.0)}) == 5


def test_constexpr_class_is_recognised():
    from helion.language import constexpr

    s = make(lambda x, n: None, annotations={"n": constexpr})
    assert s.key((1, 3)) != s.key((1, 4))
    assert s.key((1, 3)) == s.key((2, 3))


# -- key= ------------------------------------------------------------------------------------------------


def test_key_function_result_is_in_the_key():
    s = make(key_fn=lambda x: x.size(0) > 10, static_shapes=False)
    assert s.key((torch.empty(3),)) == s.key((torch.empty(5),)) != s.key((torch.empty(11),))


def test_key_function_must_return_something_hashable():
    with pytest.raises(exc.InvalidAPIUsage, match="hashable"):
        make(key_fn=lambda x: [1]).key((torch.empty(3),))
    with pytest.raises(exc.InvalidAPIUsage, match="tensor"):
        make(key_fn=lambda x: x).key((torch.empty(3),))


# -- stable keys
# --------------------------------------------------------------------------------------------------------


def stable_examples():
    x = torch.empty(3, 4)
    return [
        (x,),
        (x.t(),),
        (x.half(),),
        (torch.empty(3, 4, device="meta"),),
        (1,),
        (1.0,),
        (True,),
        (False,),
        (2j,),
        (3j,),
        ("a",),
        (b"a",),
        (None,),
        ([1],),
        ((1,),),
        ((1, 2),),
        ({"a": 1},),
        ({"b": 1},),
        (Pair(1, 2),),
        (Other(1, 2),),
        (Mode.A,),
        (Mode.B,),
        (torch.float16,),
        (lambda v: v + 1,),
        (lambda v: v + 2,),
        (torch.relu,),
        (torch.sigmoid,),
        (slice(None, 1),),
        (...,),
    ]


def test_stable_keys_are_equal_exactly_where_keys_are():
    s = make()
    keys = [s.key(args) for args in stable_examples()] * 2
    stable = [stable_key(key) for key in keys]
    for i, one in enumerate(keys):
        for j, two in enumerate(keys):
            assert (one == two) == (stable[i] == stable[j]), (one, two)
            if one == two:
                assert hash(stable[i]) == hash(stable[j])


def test_stable_key_leaves_out_the_device_index():
    one = stable_key(((torch.float32, (4,), (1,), frozenset(), torch.device("cuda", 0)),))
    two = stable_key(((torch.float32, (4,), (1,), frozenset(), torch.device("cuda", 1)),))
    assert one == two


def test_stable_key_survives_json():
    s = make()
    for args in stable_examples():
        key = stable_key(s.key(args))
        import json

        assert StableKey.from_json(json.loads(json.dumps(key.to_json()))) == key


@pytest.mark.spawns
def test_stable_hash_is_the_same_in_every_process():
    program = (
        "import torch, inspect\n"
        "from helion.runtime.launch.specialization import Specializer\n"
        "from helion.runtime.stable_key import stable_key\n"
        "from helion.settings import Settings\n"
        "s = Specializer(inspect.signature(lambda x: None), {}, Settings())\n"
        "print(stable_key(s.key((torch.empty(3, 4), 1, 'a', None, lambda v: v * 2, torch.relu, {'k': "
        "(1.0, True)}))).digest)\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] and len(runs[0].strip()) == 64
