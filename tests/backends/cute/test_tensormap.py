"""Our launch facts against the toolkit's own host entry: same grid, shared memory, and tensor maps."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import pytest
import torch

from helion.backends.cute.compile import launch_facts
from helion.backends.cute.schedule import MatmulSchedule
from helion.backends.cute.spec import MatmulSpec

from .problems import BF16
from .problems import F32
from .problems import FP8
from .problems import hopper
from .problems import matmul
from .problems import pair
from .problems import rowwise
from .problems import small
from .toolkit_launch import CLUSTERS
from .toolkit_launch import Descriptor
from .toolkit_launch import toolkit_launch

pytestmark = pytest.mark.spawns

CASES: dict[str, tuple[MatmulSpec, MatmulSchedule]] = {
    "pair": (matmul(512, 384, 640, FP8), pair()),
    "pair, 64-byte rows": (matmul(512, 384, 640, FP8), pair(tile_k=64)),
    "pair, 256-byte rows": (matmul(512, 384, 640, FP8), pair(tile_k=256, ab_stages=4)),
    "pair, N-major": (matmul(512, 384, 640, FP8, b_major="n"), pair()),
    "pair, narrow N-major": (matmul(512, 384, 640, FP8, b_major="n"), pair(tile_n=64)),
    "pair, both multicast": (matmul(1024, 512, 640, FP8), pair(cluster_m=4, cluster_n=2)),
    "one CTA, fp32 out": (matmul(300, 264, 72, out=F32), small()),
    "one CTA, fp8 out": (matmul(300, 272, 72, out=FP8), small()),
    "one CTA, batch": (matmul(300, 264, 72, batch=3), small()),
    "one CTA, N-major multicast": (matmul(300, 264, 72, b_major="n", batch=3), small(cluster_m=2)),
    "one CTA, 64 columns a step": (matmul(300, 264, 72), small(epilogue_n=64)),
    "one CTA, threads store": (matmul(255, 257, 72), small()),
    "hopper": (matmul(300, 264, 72), hopper()),
    "hopper, wide": (matmul(512, 512, 512), hopper(tile_n=256, ab_stages=3)),
    "hopper, N-major": (matmul(512, 512, 512, b_major="n"), hopper()),
    "hopper, multicast": (matmul(512, 512, 512, torch.float16), hopper(cluster_m=2, cluster_n=2)),
    "hopper, batch": (matmul(512, 512, 512, batch=2), hopper(tile_m=64)),
    "scaled": (dataclasses.replace(matmul(512, 512, 512, BF16), epilogue=rowwise()), small()),
}


@pytest.mark.parametrize("name", CASES)
def test_our_launch_is_the_toolkits(name: str, tmp_path: Path) -> None:
    spec, schedule = CASES[name]
    facts = launch_facts(spec, schedule)
    addresses = [0x7F0000001000 + 0x100000 * i for i in range(3 + len(spec.epilogue.aux))]
    theirs = toolkit_launch(spec, schedule, tmp_path, addresses)
    assert theirs.grid == (schedule.cluster_m, schedule.cluster_n, CLUSTERS)
    assert theirs.block == facts.block
    assert theirs.shared_bytes == facts.shared_bytes
    for parameter, data in zip(facts.parameters, theirs.parameters, strict=True):
        address = addresses[parameter.argument]
        if parameter.tensor_map is None:
            assert struct.unpack("<Q", data) == (address,)
            continue
        ours = parameter.tensor_map
        assert Descriptor.decode(data) == Descriptor(address, ours.dims, ours.strides, ours.box, ours.swizzle)
