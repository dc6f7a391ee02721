"""For ``test_torch_device.py``, in a process of its own: calls where PyTorch says which CUDA device and stream are
current.

PyTorch without CUDA has nobody who answers for it. A guard compiled here (``GUARD``) does, of the software GPU's
streams.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from helion import _compat_torch
from helion.runtime import device as helion_device
from tests import softgpu
from tests.softgpu.streams import Graph

GUARD = """\
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <stdexcept>

namespace {
int device = 0, handles = 0, asked = 0, count = 2;
int64_t stream = 0;
bool failing = false;

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::DeviceType::CUDA; }
  c10::Device exchangeDevice(c10::Device d) const override { return d; }
  c10::Device getDevice() const override {
    ++asked;
    if (failing) throw std::runtime_error("no answer");
    return {c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device)};
  }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device d) const override {
    if (failing) throw std::runtime_error("no answer");
    return c10::Stream(c10::Stream::UNSAFE, d, stream);
  }
  c10::Stream exchangeStream(c10::Stream s) const override { return s; }
  void* getStreamNativeHandle(const c10::Stream s) const override {
    ++handles;
    return reinterpret_cast<void*>(s.id() * 16);
  }
  c10::DeviceIndex deviceCount() const noexcept override { return count; }
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard);
}  // namespace

extern "C" void answer(int d, int64_t s, int fails) { device = d; stream = s; failing = fails != 0; }
extern "C" int asked_for_handles() { return handles; }
extern "C" int asked_for_device() { return asked; }
extern "C" void set_count(int devices) { count = devices; }
"""


def build_guard(folder: str) -> Any:
    (Path(folder) / "guard.cpp").write_text(GUARD)
    root = Path(torch.__file__).parent
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
    command = ["g++", "-std=c++17", "-O0", "-shared", "-fPIC", abi, f"-I{root}/include", "guard.cpp"]
    subprocess.run([*command, f"-L{root}/lib", "-lc10", "-o", "guard.so"], cwd=folder, check=True)
    return ctypes.CDLL(str(Path(folder) / "guard.so"))


def check_one_device(guard: Any, twice: Any, x: torch.Tensor) -> None:
    """Where there is one device it is not asked which is current, but in a forked child."""
    asked = guard.asked_for_device()
    assert torch.equal(twice(x), x * 2)
    assert guard.asked_for_device() == asked
    child = os.fork()
    if child == 0:
        twice(x)
        os._exit(guard.asked_for_device() - asked)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def main(folder: str, devices: int) -> None:
    guard = build_guard(folder)
    guard.set_count(devices)
    answer = lambda device, stream, fails=0: guard.answer(device, ctypes.c_int64(stream), fails)  # noqa: E731
    softgpu.install(capability=90)
    provider: Any = helion_device.get_provider()
    softgpu_device, softgpu_stream = provider.current_device, provider.current_stream
    calls: list[str] = []

    def device() -> int:
        calls.append("device")
        return int(softgpu_device())

    def stream(index: int) -> int:
        calls.append("stream")
        return int(softgpu_stream(index))

    # Before helion._C asks for them: these are PyTorch's functions now, and so are the provider's.
    _compat_torch.cuda_current_device, _compat_torch.cuda_current_raw_stream = device, stream
    provider.current_device, provider.current_stream = device, stream
    from tests.csrc.stale_kernel import twice

    x = torch.randn(64)
    for _ in range(3):
        twice(x)
    assert twice.plan_count == 1, twice.stats.snapshot()
    calls.clear()

    assert torch.equal(twice(x), x * 2)
    assert calls == [], "PyTorch is asked in C"
    assert guard.asked_for_handles() == 1, "of one stream once"
    if devices == 1:
        check_one_device(guard, twice, x)
        softgpu.uninstall()
        return

    graph = Graph()
    with graph.capture() as capturing:
        answer(0, capturing.handle // 16)
        assert capturing.handle % 16 == 0
        captured = twice(x)
        captured.zero_()
        answer(0, 0)
        assert torch.equal(twice(x), x * 2)
    assert graph.nodes == 1, "the stream is asked for at every call"
    assert guard.asked_for_handles() == 3
    graph.replay()
    assert torch.equal(captured, x * 2)

    entered: list[int] = []
    softgpu_guard = provider.guard
    provider.guard = lambda index: (entered.append(index), softgpu_guard(index))[1]
    answer(1, 0)
    assert torch.equal(twice(x), x * 2)
    assert entered == [0], "and so is the device"

    answer(0, 0, fails=1)
    assert torch.equal(twice(x), x * 2)
    assert calls == ["device", "stream"], "without an answer the functions are asked"
    assert twice.plan_hits >= 6

    calls.clear()
    answer(0, 0)
    provider.current_stream = softgpu_stream
    provider.current_device = softgpu_device
    assert torch.equal(twice(x), x * 2)
    assert calls == [], "those of a provider of its own are that provider's"
    softgpu.uninstall()


main(sys.argv[1], int(sys.argv[2]))
