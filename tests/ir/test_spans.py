"""Whether strided tensors share an element: against all of their elements."""

from __future__ import annotations

import itertools
import random

import torch

from helion.ir.spans import spans_meet
from helion.numbers import elements_meet


def test_random_tensors_meet_where_one_of_their_bytes_does(seed):
    random.seed(seed)
    met = 0
    for _ in range(5000):
        boxes = []
        for _ in range(2):
            dims, width = random.randint(0, 3), random.choice([1, 2, 4])
            sizes = [random.randint(0, 4) for _ in range(dims)]
            boxes.append((sizes, [width * random.randint(0, 12) for _ in range(dims)], width))
        distance = random.randint(-60, 60)
        places = [
            {
                at + sum(i * stride for i, stride in zip(index, strides)) + byte
                for index in itertools.product(*map(range, sizes))
                for byte in range(width)
            }
            for (sizes, strides, width), at in zip(boxes, (0, distance))
        ]
        meet = bool(places[0] & places[1])
        met += meet
        assert elements_meet(*boxes, distance) == meet, (boxes, distance)
    assert 200 < met < 4800


def test_what_takes_too_long_to_decide_meets():
    strides = [4 * prime for prime in (9973, 9967, 9949, 9941, 9931)]
    box = ([1000] * 5, strides, 4)
    assert elements_meet(box, box, 2)


def test_parts_of_one_tensor():
    x = torch.empty(6, 64)
    assert not spans_meet(x[:, :32], x[:, 32:])
    assert not spans_meet(x[:3], x[3:])
    assert spans_meet(x[:4], x[3:])
    assert spans_meet(x, x.view(-1)[70:71])
