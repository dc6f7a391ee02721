"""Backends are ports: one call makes another one known, and everything above asks its methods, never its name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from helion.backends import registry
from helion.backends.base import Backend
from helion.cross_compile import cross_compile
from helion.target import CPU
from helion.target import Target
from tests.backends import toy

_TOY = "tests.backends.toy:ToyBackend"


@pytest.fixture
def toy_backend() -> Iterator[str]:
    registry.register("toy", _TOY)
    toy.LAUNCHES.clear()
    yield "toy"
    registry.unregister("toy")


def scale(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] * factor[tile] + 1
    return out


def test_a_backend_registered_by_one_call_runs_kernels(toy_backend: str) -> None:
    kernel = helion.kernel(scale, backend=toy_backend, config={"loudly": True})
    x, factor = torch.randn(37), torch.randn(37)
    torch.testing.assert_close(kernel(x, factor), x * factor + 1)
    torch.testing.assert_close(kernel(factor, x), x * factor + 1)
    assert kernel.stats.counter("cpu_backend").value == 2
    assert len(toy.LAUNCHES) == 2 and all(loudly for _, loudly in toy.LAUNCHES)
    assert "_run(code" in kernel.bind((x, factor)).to_code()


def test_its_config_spec_is_what_configs_are_checked_against(toy_backend: str) -> None:
    kernel = helion.kernel(scale, backend=toy_backend, config={"loudly": 3})
    with pytest.raises(exc.InvalidConfig, match="loudly"):
        kernel(torch.randn(4), torch.randn(4))


def test_its_environment_variable_takes_the_name(toy_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELION_BACKEND", "toy")
    assert helion.Settings().backend == "toy"


def test_what_it_does_not_have_is_an_error_that_names_it(toy_backend: str) -> None:
    args = (torch.randn(4), torch.randn(4))
    bound = helion.kernel(scale, backend=toy_backend, config={}).bind(args)
    with pytest.raises(exc.InvalidAPIUsage, match="uses the toy backend"):
        bound.to_triton_code()
    with pytest.raises(exc.BackendUnsupported, match="toy"):
        cross_compile(bound, args)


def test_a_name_that_is_not_registered_is_an_error_with_those_that_are() -> None:
    with pytest.raises(exc.InvalidAPIUsage, match="expected one of triton, cute, tiles"):
        helion.Settings(backend="toy")


@pytest.mark.parametrize(
    ("name", "where"),
    [("triton", _TOY), ("Toy", _TOY), ("toy", "tests.backends.toy")],
    ids=["taken", "not lower case", "no class"],
)
def test_a_registration_that_cannot_work_is_refused(name: str, where: str) -> None:
    with pytest.raises(exc.InvalidAPIUsage):
        registry.register(name, where)


def test_a_registered_class_that_is_no_backend_is_an_error_when_it_is_asked_for() -> None:
    registry.register("wrong", "tests.backends.toy:WholeTensors")
    try:
        with pytest.raises(exc.InvalidAPIUsage, match="not a backend"):
            registry.backend_class("wrong")
    finally:
        registry.unregister("wrong")


@pytest.mark.parametrize("name", ["triton", "cute", "tiles"])
def test_every_backend_of_ours_is_one(name: str) -> None:
    cls = registry.backend_class(name)
    assert issubclass(cls, Backend) and cls.name == name and cls.vendors


def test_the_tile_executor_can_be_chosen() -> None:
    x, factor = torch.randn(100), torch.randn(100)
    kernel = helion.kernel(scale, backend="tiles", config={"block_sizes": [16]})
    torch.testing.assert_close(kernel(x, factor), x * factor + 1)
    bound = kernel.bind((x, factor))
    assert list(bound.config_spec.fields) == ["block_sizes"]
    assert "_device_code" in bound.to_code()
    (default,) = bound.config_spec.default_config()["block_sizes"]
    assert default == 128, "one tile where nothing says otherwise"


def test_tensors_on_a_device_a_backend_has_no_code_for_are_refused() -> None:
    bound = helion.kernel(scale, backend="tiles").bind((torch.randn(4), torch.randn(4)))
    tiles = registry.make("tiles", bound.ir, bound.settings, Target("nvidia", 90))
    with pytest.raises(exc.BackendUnsupported, match="tensors are on sm_90"):
        registry.runner(tiles)
    with pytest.raises(exc.BackendUnsupported, match="gfx942, a device of amd"):
        registry.make("triton", bound.ir, bound.settings, Target("amd", "gfx942"))


def test_in_host_memory_the_tile_executor_runs_what_another_backend_prints() -> None:
    bound = helion.kernel(scale).bind((torch.randn(4), torch.randn(4)))
    assert bound.backend().name == "triton" and bound.backend().target == CPU
    assert registry.runner(bound.backend()).name == "tiles"


def test_nothing_above_the_backends_asks_for_a_backends_name() -> None:
    """`backend == "triton"` is a question for a method of the port."""
    root = Path(helion.__file__).parent
    names = {"triton", "cute", "tiles"}
    for path in [*root.glob("*.py"), *(root / "autotuner").glob("*.py"), *(root / "runtime").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                parts = [node.left, *node.comparators]
                texts = {p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)}
                assert not texts & names, f"{path.name}:{node.lineno} compares with {texts & names}"
