"""What a tensor of a call has beyond its specialization: whether it requires grad, its place in memory, its class."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from helion.fragments import BooleanFragment
from helion.runtime.eager.ref_mode import run_ref
from tests.support import run_everywhere

#: Expressions that differ between the tensors of `tensors_of_one_kind`, which share a specialization.
OF_A_CALL = [
    "x.requires_grad",
    "x.is_leaf",
    "x.is_inference() or x._version > 1",
    "x.storage_offset() > 0",
    "x.data_ptr() % 16 == 0",
    "x.is_inference()",
    "x._base is None",
    "isinstance(x, torch.nn.Parameter)",
    "type(x) is torch.Tensor",
    "torch.is_grad_enabled()",
    "torch.is_grad_enabled() or x.requires_grad",
    "x.requires_grad or x.storage_offset() > 0",
]


def tensors_of_one_kind() -> list[torch.Tensor]:
    with torch.inference_mode():
        inference = torch.arange(9.0)
    whole = torch.arange(12.0)
    changed = torch.arange(9.0).add_(0).add_(0)
    return [torch.arange(9.0), torch.nn.Parameter(torch.arange(9.0)), inference, whole[3:], changed]


def kernel_with(text: str, folder: Path) -> Any:
    file = folder / "asking.py"
    file.write_text(f"""
import torch
import helion.language as hl
def asking(x):
    out = torch.empty([9], device=x.device)
    if {text}:
        for t in hl.tile(9):
            out[t] = x[t] * 2
        return out
    for t in hl.tile(9):
        out[t] = x[t] * 3
    return out
""")
    spec = importlib.util.spec_from_file_location("asking", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return helion.kernel(module.asking)


@pytest.mark.parametrize("text", OF_A_CALL)
def test_each_call_is_asked(text: str, tmp_path: Path) -> None:
    kernel, answers = kernel_with(text, tmp_path), set()
    tensors = tensors_of_one_kind()
    for x in [*tensors, *tensors]:
        with torch.set_grad_enabled(x.is_leaf and x.storage_offset() == 0 and not x.requires_grad):
            answer = eval(text, {"x": x, "torch": torch})
            assert torch.equal(kernel(x), x * (2 if answer else 3))
            if "is_grad_enabled" not in text:
                assert torch.equal(kernel.bind((x,)).run_ref(x), x * (2 if answer else 3))
            answers.add(answer)
    assert len(answers) == 2 or text == "x.is_leaf"


@pytest.mark.compiles
@pytest.mark.softgpu(capability=80)
@pytest.mark.parametrize("text", ["x.requires_grad", "x.storage_offset() > 0", "torch.is_grad_enabled()"])
def test_each_call_is_asked_on_a_gpu(softgpu: Any, text: str, tmp_path: Path) -> None:
    kernel = kernel_with(text, tmp_path)
    tensors = [t.to(softgpu.device) for t in tensors_of_one_kind()]
    for x in [*tensors, *tensors, *tensors]:
        with torch.set_grad_enabled(not x.requires_grad and not x.is_inference()):
            assert torch.equal(kernel(x), x * (2 if eval(text, {"x": x, "torch": torch}) else 3))


def test_a_number_of_its_place_is_that_of_each_call() -> None:
    @helion.kernel
    def places(x: torch.Tensor) -> torch.Tensor:
        offset = x.storage_offset()
        out = torch.empty([9], device=x.device)
        for t in hl.tile(9):
            out[t] = x[t] + offset
        return out

    for whole, begin in ((torch.ones(12), 3), (torch.ones(9), 0), (torch.ones(11), 2)):
        assert torch.equal(places(whole[begin:]), torch.ones(9) + begin)


def test_what_is_no_number_is_refused() -> None:
    @helion.kernel
    def step(p: torch.Tensor) -> None:
        g = p.grad
        for t in hl.tile(p.size(0)):
            p[t] = p[t] - g[t]

    @helion.kernel
    def on_device(x: torch.Tensor) -> None:
        for t in hl.tile(x.size(0)):
            if x.requires_grad:
                x[t] = x[t] * 2

    with pytest.raises(exc.HostTensorRead, match=r"p\.grad may be another(.|\n)*as an argument"):
        step(torch.ones(4))
    with pytest.raises(exc.NotAllowedOnDevice, match=r"x\.requires_grad(.|\n)*before the loops"):
        on_device(torch.ones(4))


def test_ref_mode_says_that_it_has_no_grad_mode(tmp_path: Path) -> None:
    kernel, x = kernel_with("torch.is_grad_enabled()", tmp_path), torch.ones(9)
    run = kernel.bind((x,)).run_ref
    with torch.no_grad():
        assert torch.equal(run(x), x * 3)
    with pytest.raises(exc.InvalidAPIUsage, match=r"torch\.is_grad_enabled(.|\n)*as an argument"):
        run(x)


def test_numbers_that_not_every_call_reads() -> None:
    @helion.kernel
    def either(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        any_of, both = a.item() or b.item(), a.item() and b.item()
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = x[t] * any_of + both
        return out

    for dtype, values in ((torch.bool, (False, True)), (torch.int64, (0, 3))):
        for left in values:
            for right in values:
                args = (torch.ones(3), torch.tensor(left, dtype=dtype), torch.tensor(right, dtype=dtype))
                assert torch.equal(either(*args), torch.ones(3) * (left or right) + (left and right))


def test_numbers_of_tiles_in_torch_functions() -> None:
    def clamped(x: torch.Tensor, w: int) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0), block_size=8):
            low = torch.clamp(torch.tensor(t.begin - w), min=0) + torch.as_tensor(max(t.begin, 3))
            out[t] = x[t] + torch.where(torch.as_tensor(t.begin > 7), low, 0)
        return out

    def expected(x: torch.Tensor, w: int) -> torch.Tensor:
        begin = torch.arange(x.numel()) // 8 * 8
        return x + torch.where(begin > 7, (begin - w).clamp(min=0) + begin.clamp(min=3), 0)

    run_everywhere(clamped, (torch.randn(20), 11), expected, capabilities=[90])


@pytest.mark.parametrize("mode", ["compiled", "ref"])
def test_numbers_where_torch_takes_tensors_say_what_to_write(mode: str) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[4], flag=True))
    def chosen(x: torch.Tensor) -> torch.Tensor:
        flag = hl.register_tunable("flag", BooleanFragment())
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = torch.where(flag, x[t], -x[t])
        return out

    @helion.kernel(config=helion.Config(block_sizes=[4], flag=True))
    def written(x: torch.Tensor) -> torch.Tensor:
        flag = hl.register_tunable("flag", BooleanFragment())
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = torch.where(hl.full([], flag, dtype=torch.bool), x[t], -x[t])
        return out

    x = torch.randn(9)
    run = written if mode == "compiled" else written.bind((x,)).run_ref
    assert torch.equal(run(x), x)
    with pytest.raises(exc.InvalidAPIUsage, match=r"got \(bool, Tensor, Tensor\)(.|\n)*hl\.full\(\[\], flag"):
        chosen(x) if mode == "compiled" else run_ref(chosen.fn, (x,), config=chosen.configs[0])
