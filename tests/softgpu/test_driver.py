"""The driver around the kernels: devices, contexts, streams, capture, modules, memory, error injection."""

from __future__ import annotations

import ctypes
import threading

import pytest
import torch

from helion.target import Target
from tests import softgpu as gpu
from tests.softgpu import kernels
from tests.softgpu import native
from tests.softgpu.native import call
from tests.softgpu.ptx import PtxKernel

pytestmark = pytest.mark.softgpu(capability=90, software_only=True)

INCREMENT = """
.visible .entry kernel(.param .u64 p) {
  .reg .b32 %r<2>; .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [p];
  ld.global.b32 %r1, [%rd1];
  add.u32 %r1, %r1, 1;
  st.global.b32 [%rd1], %r1;
  ret;
}"""


def _counter() -> torch.Tensor:
    return torch.zeros(1, dtype=torch.int32)


# ---- counting and execute=False ------------------------------------------------------------------------------------
def test_launches_are_counted(softgpu):
    kernel, c = PtxKernel(INCREMENT), _counter()
    for _ in range(3):
        kernel(1, 1, c)
    assert gpu.launches() == 3 and c.item() == 3 and gpu.instructions() > 0
    gpu.reset()
    assert gpu.launches() == 0 and gpu.instructions() == 0


@pytest.mark.softgpu(capability=90, execute=False, software_only=True)
@pytest.mark.compiles
def test_without_execution_launches_only_count(softgpu):
    x, y, out = torch.ones(512), torch.ones(512), torch.zeros(512)
    kernels.add[(2,)](x, y, out, 512, BLOCK=256)
    assert gpu.launches() == 1 and out.sum() == 0 and gpu.instructions() == 0


# ---- devices and capabilities
# -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.compiles
def test_triton_compiles_for_the_installed_capability(softgpu, capability):
    gpu.install(capability=capability)
    x, out = torch.ones(256), torch.zeros(256)
    compiled = kernels.add[(1,)](x, x, out, 256, BLOCK=256)
    assert f".target sm_{capability}" in compiled.asm["ptx"] and out.sum() == 512


def test_a_function_is_not_asked_for_the_key_of_its_binaries_when_it_is_defined(softgpu):
    """What it calls may be defined later, and its key would be without."""
    import triton

    @triton.jit
    def first(x):
        return second(x)

    assert first.hash is None

    @triton.jit
    def second(x):
        return x

    before = first.cache_key

    @triton.jit
    def second(x):  # noqa: F811
        return x + 1

    first.hash = None
    assert first.cache_key != before


def test_helion_asks_the_software_gpu(softgpu):
    from helion.runtime import device

    assert device.is_available() and device.target_of() == Target("nvidia", 90) and device.get_num_sm() == 132
    assert device.owns(torch.zeros(1)) and device.torch_device() == torch.device("cpu")
    with gpu.Stream() as stream:
        assert device.current_stream() == stream.handle
    assert device.current_stream() == 0


@pytest.mark.softgpu(devices=2, software_only=True)
def test_each_device_has_its_own_context(softgpu):
    from helion.runtime import device

    kernel, c = PtxKernel(INCREMENT), _counter()
    with gpu.device(1):
        assert device.current_device() == 1
        with pytest.raises(gpu.DriverError) as error:  # a module of device 0's context
            kernel(1, 1, c)
        assert error.value.code == 400
        PtxKernel(INCREMENT)(1, 1, c)
    kernel(1, 1, c)
    assert c.item() == 2


@pytest.mark.softgpu(devices=2, software_only=True)
def test_a_stream_belongs_to_its_device(softgpu):
    kernel, c = PtxKernel(INCREMENT), _counter()
    with gpu.device(1):
        stream = gpu.Stream()
    import tests.softgpu.streams as streams

    streams._current.streams[0] = stream.handle
    try:
        with pytest.raises(gpu.DriverError) as error:
            kernel(1, 1, c)
    finally:
        del streams._current.streams[0]
    assert error.value.code == 400


@pytest.mark.softgpu(devices=2, software_only=True)
@pytest.mark.compiles
def test_triton_launches_on_either_device(softgpu):
    x, out = torch.ones(256), torch.zeros(256)
    kernels.add[(1,)](x, x, out, 256, BLOCK=256)
    with gpu.device(1):
        kernels.add[(1,)](out, x, out, 256, BLOCK=256)
    assert out.sum() == 3 * 256 and gpu.launches() == 2


@pytest.mark.softgpu(devices=0, software_only=True)
def test_a_machine_without_devices(softgpu):
    from helion.runtime import device

    assert not device.is_available()
    with pytest.raises(gpu.DriverError) as error:
        call("cuInit", ctypes.c_uint(0))
    assert error.value.code == 100


def test_a_thread_starts_without_a_context(softgpu):
    kernel, c, codes = PtxKernel(INCREMENT), _counter(), []

    def run() -> None:
        with pytest.raises(gpu.DriverError) as error:
            kernel(1, 1, c)
        codes.append(error.value.code)
        gpu.set_device(0)
        kernel(1, 1, c)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert codes == [201] and c.item() == 1


# ---- capture
# -----------------------------------------------------------------------------------------------------------
def test_a_captured_launch_runs_on_replay_only(softgpu):
    kernel, c = PtxKernel(INCREMENT), _counter()
    graph = gpu.Graph()
    with graph.capture() as stream:
        assert stream.is_capturing()
        kernel(1, 1, c)
        kernel(1, 1, c)
    assert c.item() == 0 and gpu.launches() == 0 and graph.nodes == 2
    graph.replay()
    graph.replay()
    assert c.item() == 4 and gpu.launches() == 4


@pytest.mark.compiles
def test_parameters_are_captured_by_value(softgpu):
    x, out = torch.ones(256), torch.zeros(256)
    graph = gpu.Graph()
    with graph.capture():
        kernels.add[(1,)](x, x, out, 256, BLOCK=256)
    x.fill_(5)
    graph.replay()
    assert out.eq(10).all()


def test_a_launch_on_the_null_stream_breaks_a_capture(softgpu):
    from tests.softgpu import streams

    kernel, c = PtxKernel(INCREMENT), _counter()
    stream = gpu.Stream()
    blocking = ctypes.c_void_p()
    call("cuStreamCreate", ctypes.byref(blocking), 0)
    call("cuStreamBeginCapture_v2", blocking.value, 0)
    with pytest.raises(gpu.DriverError) as error:
        kernel(1, 1, c)
    assert error.value.code == 906
    graph = ctypes.c_void_p()
    with pytest.raises(gpu.DriverError) as error:
        call("cuStreamEndCapture", blocking.value, ctypes.byref(graph))
    assert error.value.code == 901 and c.item() == 0 and not streams.is_capturing(stream.handle)


def test_an_event_draws_another_stream_into_a_capture(softgpu):
    kernel, c, graph = PtxKernel(INCREMENT), _counter(), gpu.Graph()
    side, fork, join = gpu.Stream(), gpu.Event(), gpu.Event()
    with graph.capture() as main:
        fork.record()
        fork.wait(side)
        with side:
            kernel(1, 1, c)
            join.record()
        join.wait(main)
    assert c.item() == 0 and graph.nodes == 1
    graph.replay()
    assert c.item() == 1 and not side.is_capturing()


def test_synchronising_a_capturing_stream_is_an_error(softgpu):
    graph = gpu.Graph()
    with pytest.raises(gpu.DriverError) as error, graph.capture() as stream:
        stream.synchronize()
    assert error.value.code == 900


@pytest.mark.compiles
def test_events_measure_time(softgpu):
    start, end = gpu.Event(enable_timing=True), gpu.Event(enable_timing=True)
    start.record()
    kernels.add[(1,)](torch.ones(256), torch.ones(256), torch.zeros(256), 256, BLOCK=256)
    end.record()
    assert start.elapsed_time(end) > 0


# ---- error injection
# -----------------------------------------------------------------------------------------------------
def test_the_nth_launch_fails_as_told_and_the_next_works(softgpu):
    kernel, c = PtxKernel(INCREMENT), _counter()
    gpu.inject("launch", 2, 999)
    kernel(1, 1, c)
    with pytest.raises(gpu.DriverError) as error:
        kernel(1, 1, c)
    kernel(1, 1, c)
    assert error.value.code == 999 and c.item() == 2


@pytest.mark.compiles
def test_an_injected_failure_reaches_tritons_caller(softgpu):
    x, out = torch.ones(256), torch.zeros(256)
    kernels.add[(1,)](x, x, out, 256, BLOCK=256)
    gpu.inject("launch", 1, 2)
    with pytest.raises(RuntimeError, match="out of memory"):
        kernels.add[(1,)](x, x, out, 256, BLOCK=256)
    kernels.add[(1,)](x, x, out, 256, BLOCK=256)


def test_an_allocation_fails_as_told(softgpu):
    pointer = ctypes.c_uint64()
    gpu.inject("allocation", 1, 2)
    with pytest.raises(gpu.DriverError) as error:
        call("cuMemAlloc_v2", ctypes.byref(pointer), 1024)
    assert error.value.code == 2
    call("cuMemAlloc_v2", ctypes.byref(pointer), 1024)
    call("cuMemFree_v2", pointer.value)


# ---- modules and memory
# -----------------------------------------------------------------------------------------------------
GLOBALS = """
.visible .global .align 4 .b8 table[16] = {1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0};
.global .align 8 .u64 pointer = generic(table);
.visible .entry kernel(.param .u64 out) {
  .reg .b32 %r<4>; .reg .b64 %rd<8>;
  ld.param.u64 %rd1, [out];
  ld.global.u32 %r1, [table+8];
  ld.global.u64 %rd2, [pointer];
  ld.u32 %r2, [%rd2+12];
  mad.lo.u32 %r1, %r1, 10, %r2;
  st.global.u32 [%rd1], %r1;
  ret;
}"""


def test_module_variables_and_addresses_in_initialisers(softgpu):
    out = _counter()
    kernel = PtxKernel(GLOBALS)
    kernel(1, 1, out)
    assert out.item() == 34
    address, size = ctypes.c_uint64(), ctypes.c_size_t()
    call("cuModuleGetGlobal_v2", ctypes.byref(address), ctypes.byref(size), kernel._module, ctypes.c_char_p(b"table"))
    assert size.value == 16 and ctypes.c_int.from_address(address.value + 4).value == 2


def test_a_missing_kernel_is_not_found(softgpu):
    with pytest.raises(gpu.DriverError) as error:
        PtxKernel(INCREMENT, "other")
    assert error.value.code == 500


def test_a_binary_runs_the_ptx_registered_for_it(softgpu):
    binary = bytearray(64)
    binary[:4] = b"\x7fELF"
    binary[58:60] = (64).to_bytes(2, "little")  # one section header of 64 bytes at 0: the image is 64 bytes long
    binary[60:62] = (1).to_bytes(2, "little")
    header = ".version 8.7\n.target sm_90a\n.address_size 64\n"
    module, function, library, kernel = (ctypes.c_void_p() for _ in range(4))
    with pytest.raises(gpu.DriverError) as error:
        call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(bytes(binary)))
    assert error.value.code == 209 and "softgpu.register" in gpu.last_fault().message
    gpu.register(bytes(binary), header + INCREMENT)
    call("cuLibraryLoadData", ctypes.byref(library), ctypes.c_char_p(bytes(binary)), None, None, 0, None, None, 0)
    call("cuLibraryGetKernel", ctypes.byref(kernel), library, ctypes.c_char_p(b"kernel"))
    c = _counter()
    pointer = ctypes.c_uint64(c.data_ptr())
    parameters = (ctypes.c_void_p * 1)(ctypes.addressof(pointer))
    one = ctypes.c_uint(1)
    call("cuLaunchKernel", kernel, one, one, one, one, one, one, ctypes.c_uint(0), None, parameters, None)
    assert c.item() == 1 and function.value is None


def test_too_much_shared_memory_is_refused(softgpu):
    with pytest.raises(gpu.DriverError) as error:
        PtxKernel(INCREMENT)(1, 1, _counter(), shared=233000)
    assert error.value.code == 1


def test_an_unimplemented_entry_point_says_its_name(softgpu, capfd):
    with pytest.raises(gpu.DriverError) as error:
        call("cuMemPoolTrimTo", None, 0)
    assert error.value.code == 801 and "cuMemPoolTrimTo is not implemented" in capfd.readouterr().err
    assert gpu.unknown_entry_points() == ["cuMemPoolTrimTo"]
    gpu.reset()


def test_copies_and_fills(softgpu):
    x = torch.arange(16, dtype=torch.int32)
    p = ctypes.c_uint64()
    call("cuMemAlloc_v2", ctypes.byref(p), 64)
    call("cuMemcpyHtoD_v2", p.value, x.data_ptr(), 64)
    call("cuMemsetD32_v2", p.value + 4, ctypes.c_uint(7), 2)
    back = torch.zeros(16, dtype=torch.int32)
    call("cuMemcpyDtoH_v2", back.data_ptr(), p.value, 64)
    call("cuMemFree_v2", p.value)
    expected = x.clone()
    expected[1:3] = 7
    assert torch.equal(back, expected)


def test_tensor_maps_are_checked_as_the_driver_does(softgpu):
    x = torch.zeros(64, 64, dtype=torch.float16)
    u64, u32 = ctypes.c_uint64, ctypes.c_uint32
    tensor_map = (ctypes.c_char * 256)()
    aligned = (ctypes.addressof(tensor_map) + 127) // 128 * 128

    def encode(stride: int, box: int, swizzle: int = 3) -> int:
        return native.library().cuTensorMapEncodeTiled(
            ctypes.c_void_p(aligned), 6, 2, ctypes.c_void_p(x.data_ptr()), (u64 * 2)(64, 64), (u64 * 1)(stride),
            (u32 * 2)(box, 8),
            (u32 * 2)(1, 1), 0, swizzle, 2, 0,
        )  # fmt: skip

    assert encode(128, 64) == 0
    assert encode(120, 64) == 1  # strides are multiples of 16 bytes
    assert encode(128, 128) == 1  # a swizzled box is at most 128 bytes wide
    assert encode(128, 128, swizzle=0) == 0


# ---- the scheduler's fairness
# --------------------------------------------------------------------------------------------------
def test_programs_that_wait_for_later_programs_make_progress(softgpu):
    """Block 0 waits for a flag that the last of 300 blocks sets: more blocks than run at once."""
    flag = _counter()
    PtxKernel("""
.visible .entry kernel(.param .u64 flag) {
  .reg .pred %p<3>; .reg .b32 %r<4>; .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [flag];
  mov.u32 %r1, %ctaid.x;
  setp.eq.u32 %p1, %r1, 20;
  @%p1 bra SET;
  setp.ne.u32 %p2, %r1, 0;
  @%p2 exit;
WAIT:
  ld.acquire.gpu.global.u32 %r2, [%rd1];
  setp.eq.u32 %p2, %r2, 0;
  @%p2 bra WAIT;
  ret;
SET:
  st.release.gpu.global.u32 [%rd1], 1;
  ret;
}""")(21, 1, flag)
    assert flag.item() == 1


def test_a_lane_may_wait_for_another_lane_of_its_warp(softgpu):
    """Lane 0 spins, at a lower address than what lane 1 must run to release it."""
    flag = _counter()
    PtxKernel("""
.visible .entry kernel(.param .u64 flag) {
  .reg .pred %p<3>; .reg .b32 %r<4>; .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [flag];
  mov.u32 %r1, %tid.x;
  setp.ne.u32 %p1, %r1, 0;
  @%p1 bra OTHERS;
SPIN:
  ld.volatile.global.u32 %r2, [%rd1];
  setp.eq.u32 %p2, %r2, 0;
  @%p2 bra SPIN;
  bra DONE;
OTHERS:
  st.volatile.global.u32 [%rd1], 1;
DONE:
  ret;
}""")(1, 32, flag)
    assert flag.item() == 1
