"""Events: what is told of, to whom, and what a failing listener may not do."""

from __future__ import annotations

import logging

import pytest
import torch

import helion
import helion.language as hl
from helion.runtime import events


def make() -> helion.Kernel:
    @helion.kernel(config=helion.Config(block_sizes=[32]))
    def twice(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * 2
        return out

    return twice


@pytest.fixture
def heard():
    found: list[events.Event] = []
    remove = helion.runtime.add_event_hook(found.append)
    yield found
    remove()


def test_a_first_call_tells_of_tracing_and_of_the_source_and_later_ones_of_nothing(heard) -> None:
    kernel = make()
    kernel(torch.ones(100))
    assert [event.name for event in heard] == ["trace", "generate"]
    assert all(event.attributes["kernel"] == kernel.stats.name for event in heard)
    assert all(event.end_time_ns > event.start_time_ns for event in heard)
    kernel(torch.ones(100))
    assert len(heard) == 2


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90)
def test_launches_tell_of_the_compile_and_of_the_plan(softgpu, heard) -> None:
    kernel = make()
    for _ in range(4):
        kernel(torch.ones(100, device=softgpu.device))
    assert [event.name for event in heard] == ["trace", "generate", "compile", "plan"]


def test_set_config_tells_of_new_source(heard) -> None:
    kernel = make()
    x = torch.ones(100)
    kernel(x)
    heard.clear()
    kernel.bind((x,)).set_config(helion.Config(block_sizes=[64]))
    assert [event.name for event in heard] == ["generate"]


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90)
def test_a_reason_for_a_slower_launch_is_told_once(softgpu, heard, monkeypatch) -> None:
    monkeypatch.setenv("HELION_SKIP_FAST_LAUNCHER", "1")
    kernel = make()
    for _ in range(4):
        kernel(torch.ones(100, device=softgpu.device))
    fallbacks = [event.attributes["reason"] for event in heard if event.name == "fallback"]
    assert fallbacks == ["HELION_SKIP_FAST_LAUNCHER is set"]


def test_what_a_hook_raises_is_logged_and_the_call_goes_on(caplog) -> None:
    def broken(event: events.Event) -> None:
        raise ValueError("no collector")

    remove = helion.runtime.add_event_hook(broken)
    try:
        with caplog.at_level(logging.ERROR, "helion.events"):
            result = make()(torch.ones(100))
    finally:
        remove()
    assert torch.equal(result, torch.full((100,), 2.0))
    assert "no collector" in caplog.text


def test_events_are_logged(caplog) -> None:
    with caplog.at_level(logging.INFO, "helion.events"):
        make()(torch.ones(100))
    assert "twice: trace in" in caplog.text


def test_the_metrics_are_text_that_prometheus_reads() -> None:
    kernel = make()
    kernel(torch.ones(100))
    kernel(torch.ones(100))
    lines = helion.runtime.prometheus_text().splitlines()
    name = kernel.stats.name
    traced = next(line for line in lines if line.startswith(f'helion_events_total{{event="trace",kernel="{name}"}}'))
    assert int(traced.rpartition(" ")[2]) >= 1
    assert any(line.startswith(f'helion_launches_total{{kernel="{name}') for line in lines)
    for line in lines:
        assert line.startswith("# ") or float(line.rpartition(" ")[2]) >= 0


def test_only_the_last_events_of_a_kernel_are_kept() -> None:
    for i in range(200):
        events.emit("fallback", "tests.many", reason=str(i))
    kept = events.events_of("tests.many")
    assert len(kept) <= 64 and kept[-1].attributes["reason"] == "199"
