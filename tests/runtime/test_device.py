"""The device seam: who is asked, how often, and what is remembered."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from helion.runtime import device
from helion.runtime import get_num_sm
from helion.target import Target

from .recording_driver import RecordingGpu


@pytest.fixture
def provider():
    provider = RecordingGpu(device_count=2)
    provider.asked = []
    provider.targets = [Target("nvidia", 90), Target("nvidia", 100)]
    provider.target = lambda index: provider.asked.append(index) or provider.targets[index]
    previous = device.set_provider(provider)
    yield provider
    device.set_provider(previous)


def test_target_is_remembered_per_index(provider):
    for _ in range(3):
        assert device.target_of(0) == Target("nvidia", 90)
        assert device.target_of("cuda:1") == Target("nvidia", 100)
        assert device.target_of(torch.device("cuda", 1)) == Target("nvidia", 100)
    assert provider.asked == [0, 1]


@pytest.mark.parametrize("unspecific", [None, "cuda", torch.device("cuda")])
def test_no_index_means_the_device_that_is_current_at_the_call(provider, unspecific):
    assert device.target_of(unspecific) == Target("nvidia", 90)
    with provider.guard(1):
        assert device.target_of(unspecific) == Target("nvidia", 100)
    assert device.target_of(unspecific) == Target("nvidia", 90)


def test_replacing_the_provider_forgets_targets(provider):
    assert device.target_of(0) == Target("nvidia", 90)
    other = RecordingGpu(capability=(8, 0))
    device.set_provider(other)
    assert device.target_of(0) == Target("nvidia", 80)
    device.set_provider(provider)


def test_stream_is_that_of_the_device_asked_for(provider):
    provider.state.streams = {0: 7, 1: 9}
    assert device.current_stream() == 7 and device.current_stream(1) == 9
    with provider.guard(1):
        assert device.current_stream() == 9


def test_num_sm_leaves_some_out_but_never_all(provider):
    assert get_num_sm(0) == 132
    assert get_num_sm("cuda:0", reserved_sms=32) == 100
    assert get_num_sm(None, reserved_sms=1000) == 1
    with pytest.raises(ValueError, match="reserved_sms"):
        get_num_sm(0, reserved_sms=-1)


def test_guard_restores_the_device_after_an_error(provider):
    with pytest.raises(KeyError), device.device_guard(1):
        assert device.current_device() == 1
        raise KeyError
    assert device.current_device() == 0


@pytest.mark.parametrize("make", [device.NoCuda, device.CudaProvider])
def test_without_a_device_asking_for_one_says_so(make, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    none = make()
    assert not none.available() and none.device_count() == 0 and not none.owns(torch.empty(1))
    for ask in (
        none.current_device,
        lambda: none.current_stream(0),
        lambda: none.target(0),
        lambda: none.sm_count(0),
    ):
        with pytest.raises(RuntimeError, match="no CUDA device"):
            ask()
    assert not none.is_capturing()


IMPORT = """
import torch
torch.backends.cuda.is_built = lambda: True
for name in ("is_available", "device_count", "init", "_lazy_init"):
    def asked(*args, name=name, **kwargs):
        raise AssertionError(f"torch.cuda.{name} was called")
    setattr(torch.cuda, name, asked)

import helion
from helion.runtime import device

assert isinstance(device.get_provider(), device.CudaProvider)
assert not device.owns(torch.ones(1))
"""


@pytest.mark.spawns
def test_importing_does_not_ask_the_driver(tmp_path):
    """It takes time, and spoils CUDA for children that are forked later."""
    script = tmp_path / "script.py"
    script.write_text(IMPORT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


FORK = """
import os, sys, torch, helion
child = os.fork()
if child == 0:
    torch.ones(1, device="cuda")
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.real_gpu
def test_a_child_that_is_forked_after_the_import_can_use_the_gpu(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(FORK)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_default_provider_matches_the_machine():
    previous = device.set_provider(None)
    try:
        assert device.is_available() == torch.cuda.is_available()
        assert device.owns(torch.empty(1)) is False
    finally:
        device.set_provider(previous)
