"""What calling an op does: binding, handlers, errors outside kernels."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch

import helion.language as hl
from helion import exc
from helion.language.op import ALL_OPS
from helion.language.op import active_handler
from helion.language.op import handler
from helion.runtime.eager.handler import EagerHandler


@pytest.mark.parametrize("op", ALL_OPS.values(), ids=lambda op: op.name)
def test_every_op_declares_both_rules_and_a_docstring(op):
    assert op._shape_rule is not None and op._eager_rule is not None
    assert op.__doc__ and len(op.__doc__) > 40


@pytest.mark.parametrize("name", hl.__all__)
def test_every_public_name_has_a_docstring(name):
    assert getattr(hl, name).__doc__


def test_an_op_outside_a_kernel_says_so():
    with pytest.raises(exc.NotInsideKernel, match=r"hl\.load can only be used inside"):
        hl.load(torch.ones(3), [0])


def test_a_loop_outside_a_kernel_says_so():
    with pytest.raises(exc.NotInsideKernel, match=r"hl\.tile"):
        hl.tile(4)


def test_missing_arguments_name_the_signature():
    with pytest.raises(exc.InvalidAPIUsage, match=r"hl.load\(tensor, index, extra_mask=None"):
        hl.load(torch.ones(3))


def test_bind_fills_in_defaults_in_signature_order():
    assert hl.dot.bind((1,), {"b": 2}) == (1, 2, None, None)


def test_device_print_binds_its_values_as_one_tuple():
    assert hl.device_print.bind(("x", 1, 2), {}) == ("x", (1, 2))


def test_handlers_nest_and_are_left_in_order():
    outer, inner = (EagerHandler(torch.device("cpu")) for _ in range(2))
    with handler(outer):
        with handler(inner):
            assert active_handler() is inner
        assert active_handler() is outer
    assert active_handler() is None


def test_handlers_are_left_when_an_error_passes():
    with pytest.raises(KeyError), handler(EagerHandler(torch.device("cpu"))):
        raise KeyError
    assert active_handler() is None


def test_handlers_belong_to_their_thread():
    seen = []
    with handler(EagerHandler(torch.device("cpu"))):
        thread = threading.Thread(target=lambda: seen.append(active_handler()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_copying_an_op_gives_the_op():
    assert copy.deepcopy([hl.load])[0] is hl.load
    assert pickle.loads(pickle.dumps(hl.atomic_add)) is hl.atomic_add


def test_an_op_can_be_the_target_of_a_graph_node():
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    graph.output(graph.call_function(hl.cumsum, (x, 0, False)))
    assert "cumsum" in str(graph)
    graph.lint()
