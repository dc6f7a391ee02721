"""Devices, streams, events and graphs of the software GPU, for tests that would use ``torch.cuda`` on a real one."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .native import call


class _Current(threading.local):
    """The calling thread's current device and, for each device, its current stream (0: the null stream)."""

    def __init__(self) -> None:
        self.device = 0
        self.streams: dict[int, int] = {}


_current = _Current()


def current_device() -> int:
    return _current.device


def current_stream(device: int | None = None) -> int:
    """Raw handle of the stream that is current on ``device``."""
    return _current.streams.get(_current.device if device is None else device, 0)


def set_device(index: int) -> None:
    """Make device ``index`` and its primary context current in this thread."""
    context = ctypes.c_void_p()
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), index)
    call("cuCtxSetCurrent", context)
    _current.device = index


@contextmanager
def device(index: int) -> Iterator[None]:
    """Make device ``index`` current inside the block."""
    before = _current.device
    set_device(index)
    try:
        yield
    finally:
        set_device(before)


class Stream:
    """A stream of the current device; ``with stream:`` makes it the current one."""

    def __init__(self) -> None:
        self.device = _current.device
        set_device(self.device)
        handle = ctypes.c_void_p()
        call("cuStreamCreate", ctypes.byref(handle), 1)  # CU_STREAM_NON_BLOCKING, as PyTorch makes them
        self.handle = handle.value or 0
        self._before: list[int] = []

    def __enter__(self) -> Stream:
        self._before.append(_current.streams.get(self.device, 0))
        _current.streams[self.device] = self.handle
        return self

    def __exit__(self, *_: object) -> None:
        _current.streams[self.device] = self._before.pop()

    def synchronize(self) -> None:
        call("cuStreamSynchronize", self.handle)

    def is_capturing(self) -> bool:
        return is_capturing(self.handle)


def is_capturing(handle: int | None = None) -> bool:
    """Whether a stream (default: the current one) is being captured."""
    status = ctypes.c_int()
    call("cuStreamIsCapturing", current_stream() if handle is None else handle, ctypes.byref(status))
    return status.value != 0


class Event:
    """A CUDA event; ``enable_timing`` is accepted for the sake of code written for ``torch.cuda.Event``."""

    def __init__(self, enable_timing: bool = False) -> None:
        handle = ctypes.c_void_p()
        call("cuEventCreate", ctypes.byref(handle), 0)
        self.handle = handle.value or 0

    def record(self, stream: Stream | None = None) -> None:
        call("cuEventRecord", self.handle, current_stream() if stream is None else stream.handle)

    def wait(self, stream: Stream) -> None:
        call("cuStreamWaitEvent", stream.handle, self.handle, 0)

    def synchronize(self) -> None:
        call("cuEventSynchronize", self.handle)

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds from this event to ``end``."""
        ms = ctypes.c_float()
        call("cuEventElapsedTime", ctypes.byref(ms), self.handle, end.handle)
        return ms.value


def synchronize(device: int | None = None) -> None:
    """Everything enqueued is done already; a capturing current stream makes this an error, as on a GPU."""
    call("cuStreamSynchronize", current_stream(device))
    call("cuCtxSynchronize")


class Graph:
    """A captured graph: ``with graph.capture(): ...`` records launches on a stream of its own, ``replay`` runs them."""

    def __init__(self) -> None:
        self._executable = 0
        #: Number of captured nodes.
        self.nodes = 0

    @contextmanager
    def capture(self) -> Iterator[Stream]:
        stream = Stream()
        call("cuStreamBeginCapture_v2", stream.handle, 0)
        graph = ctypes.c_void_p()
        try:
            with stream:
                yield stream
        except BaseException:
            from .native import library

            library().cuStreamEndCapture(ctypes.c_void_p(stream.handle), ctypes.byref(graph))
            raise
        call("cuStreamEndCapture", stream.handle, ctypes.byref(graph))
        count = ctypes.c_size_t()
        call("cuGraphGetNodes", graph, None, ctypes.byref(count))
        self.nodes = count.value
        executable = ctypes.c_void_p()
        call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        self._executable = executable.value or 0
        call("cuGraphDestroy", graph)

    def replay(self) -> None:
        call("cuGraphLaunch", self._executable, current_stream())
