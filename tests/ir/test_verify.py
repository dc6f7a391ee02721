"""The rules of a well-formed IR: each finds a graph that is broken in its way; code is generated from a shared IR."""

from __future__ import annotations

import threading

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from helion.ir.device_ir import TracedTile
from helion.ir.nodes import ForLoop
from helion.ir.nodes import Load
from helion.ir.nodes import Store
from helion.ir.reductions import roll
from helion.ir.verify import verify
from tests.ir.traced import traced

X = torch.ones(20, 300)


def softmax(x):
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        row = x[tile, :]
        shifted = torch.exp(row - row.amax(1, keepdim=True))
        out[tile, :] = shifted / shifted.sum(1, keepdim=True)
    return out


def summed(x):
    out = torch.empty([x.size(0)])
    for tile in hl.tile(x.size(0)):
        acc = hl.zeros([tile])
        for inner in hl.tile(x.size(1)):
            acc = acc + x[tile, inner].sum(1)
        out[tile] = acc
    return out


def first(ir, view):
    return next(found for _, node in ir.nodes() if (found := view.match(node)))


def test_traced_and_rolled_graphs_are_well_formed():
    ir = traced(softmax, X)
    verify(ir.device)
    verify(roll(ir.device, ir.reductions))
    verify(traced(summed, X).device)


def without_value(ir):
    del first(ir, Load).node.meta["val"]


def with_an_argument_less(ir):
    node = first(ir, Store).node
    node.args = node.args[:-1]


def with_a_foreign_tile(ir):
    load, other = first(ir, Load), traced(summed, X).device.space.axes
    load.set_index([TracedTile(other[0]), *load.index[1:]])


def with_an_unknown_tensor(ir):
    ir.host_tensors.clear()


def with_a_bound_too_many(ir):
    loop = first(ir, ForLoop)
    loop.node.args = (loop.graph_id, [0, 0], *loop.node.args[2:])


def with_other_carried_values(ir):
    loop = first(ir, ForLoop)
    placeholder = ir.graphs[loop.graph_id].placeholders[0]
    placeholder.meta["val"] = placeholder.meta["val"].to(torch.float64)


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (without_value, "has an abstract value"),
        (with_an_argument_less, "has all arguments of its op"),
        (with_a_foreign_tile, "uses (tiles of the kernel's axes|symbols)"),
        (with_an_unknown_tensor, "accesses a host tensor that the IR knows"),
        (with_a_bound_too_many, "enters a loop with what its body takes"),
        (with_other_carried_values, "enters a loop with what its body takes"),
    ],
)
def test_a_damaged_graph_is_found_by_its_rule(damage, rule):
    ir = traced(summed, X).device
    damage(ir)
    with pytest.raises(exc.InternalError, match=rule):
        verify(ir)


def test_nothing_is_added_to_the_space_after_tracing():
    ir = traced(summed, X).device
    with pytest.raises(AssertionError, match="closed"):
        ir.space.add_block(ir.space.blocks[0])


def test_threads_generate_code_for_different_configs_of_one_bound_kernel():
    bound = helion.kernel(softmax).bind((X,))
    configs = [
        helion.Config(block_sizes=[size], reduction_loops=[chunk]) for size in (1, 2, 4, 8) for chunk in (None, 32, 64)
    ]
    alone = [bound.to_triton_code(config) for config in configs]
    together: list[list[str]] = [[] for _ in configs]
    barrier = threading.Barrier(len(configs))

    def generate(i):
        barrier.wait()
        for _ in range(3):
            together[i].append(bound.to_triton_code(configs[i]))

    threads = [threading.Thread(target=generate, args=(i,)) for i in range(len(configs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [[text] * 3 for text in alone]
