// LaunchSpec: construction from what helion/runtime/launch_spec.py read off a compiled kernel, its guards, the launch.

#include "launch_spec.h"

#include "heap_type.h"

#include <algorithm>
#include <cstring>

namespace helion {
namespace {

struct TypeRow {
  const char* name;
  ParamType type;
};

// Triton's scalar type names. Integers are stored as 64-bit words; the driver reads as many low bytes as it needs.
constexpr TypeRow kTypes[] = {
    {"i1", ParamType::kInt},        {"i8", ParamType::kInt},       {"i16", ParamType::kInt},
    {"i32", ParamType::kInt},       {"i64", ParamType::kInt},      {"u1", ParamType::kInt},
    {"u8", ParamType::kInt},        {"u16", ParamType::kInt},      {"u32", ParamType::kInt},
    {"u64", ParamType::kInt},       {"fp16", ParamType::kFloat16}, {"bf16", ParamType::kBFloat16},
    {"fp32", ParamType::kFloat32},  {"f32", ParamType::kFloat32},  {"fp64", ParamType::kFloat64},
};

bool parse_type(const char* name, ParamType* type) {
  if (name[0] == '*') {
    *type = ParamType::kPointer;
    return true;
  }
  for (const TypeRow& row : kTypes) {
    if (std::strcmp(row.name, name) == 0) {
      *type = row.type;
      return true;
    }
  }
  PyErr_Format(PyExc_ValueError, "LaunchSpec: unknown parameter type '%s'", name);
  return false;
}

LaunchSpec* as_spec(PyObject* self) { return HeapType<LaunchSpec>::as(self); }

// params: a sequence of (argument index, Triton type name).
bool parse_params(PyObject* params, std::vector<Param>* out) {
  PyRef items = PyRef::steal(PySequence_Tuple(params));
  if (!items) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items.get()); ++i) {
    PyObject* item = PyTuple_GET_ITEM(items.get(), i);  // borrowed
    unsigned short argument = 0;
    const char* name = nullptr;
    if (!PyTuple_Check(item)) {
      PyErr_SetString(PyExc_TypeError, "LaunchSpec: params must hold (index, type) tuples");
      return false;
    }
    if (!PyArg_ParseTuple(item, "Hs:LaunchSpec.params", &argument, &name)) return false;
    Param param{argument, ParamType::kPointer};
    if (!parse_type(name, &param.type)) return false;
    out->push_back(param);
  }
  return true;
}

// globals: a sequence of (name, value, dict).
bool parse_globals(PyObject* globals, std::vector<UsedGlobal>* out) {
  PyRef items = PyRef::steal(PySequence_Tuple(globals));
  if (!items) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items.get()); ++i) {
    PyObject* item = PyTuple_GET_ITEM(items.get(), i);  // borrowed
    PyObject *name = nullptr, *value = nullptr, *dict = nullptr;
    if (!PyTuple_Check(item)) {
      PyErr_SetString(PyExc_TypeError, "LaunchSpec: used_globals must hold (name, value, dict) tuples");
      return false;
    }
    if (!PyArg_ParseTuple(item, "UOO!:LaunchSpec.used_globals", &name, &value, &PyDict_Type, &dict)) return false;
    out->push_back({PyRef::borrow(name), PyRef::borrow(value), PyRef::borrow(dict)});
  }
  return true;
}

// A tuple of one number for each dimension of a tensor map, or one less (strides).
template <typename T>
bool parse_numbers(PyObject* tuple, T* out, uint32_t* count) {
  const Py_ssize_t size = PyTuple_GET_SIZE(tuple);
  if (size > static_cast<Py_ssize_t>(kTensorMapRank)) {
    PyErr_SetString(PyExc_ValueError, "LaunchSpec: a tensor map has at most 5 dimensions");
    return false;
  }
  for (Py_ssize_t i = 0; i < size; ++i) {
    const unsigned long long value = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(tuple, i));
    if (value == static_cast<unsigned long long>(-1) && PyErr_Occurred()) return false;
    out[i] = static_cast<T>(value);
  }
  *count = static_cast<uint32_t>(size);
  return true;
}

// maps: a sequence of (parameter index, data type, dims, strides in bytes, box, swizzle).
bool parse_maps(PyObject* maps, LaunchSpec::Body* body) {
  PyRef items = PyRef::steal(PySequence_Tuple(maps));
  if (!items) return false;
  const size_t count = static_cast<size_t>(PyTuple_GET_SIZE(items.get()));
  body->maps = std::make_unique<MappedParam[]>(count);
  for (size_t i = 0; i < count; ++i) {
    MappedParam& map = body->maps[i];
    TensorMapShape& shape = map.shape;
    PyObject* item = PyTuple_GET_ITEM(items.get(), static_cast<Py_ssize_t>(i));  // borrowed
    PyObject *dims = nullptr, *strides = nullptr, *box = nullptr;
    Py_ssize_t param = 0;
    if (!PyTuple_Check(item)) {
      PyErr_SetString(PyExc_TypeError, "LaunchSpec: maps must hold tuples");
      return false;
    }
    if (!PyArg_ParseTuple(item, "niO!O!O!i:LaunchSpec.maps", &param, &shape.data_type, &PyTuple_Type, &dims,
                          &PyTuple_Type, &strides, &PyTuple_Type, &box, &shape.swizzle)) {
      return false;
    }
    map.param = static_cast<size_t>(param);
    if (param < 0 || map.param >= body->params.size() || body->params[map.param].type != ParamType::kPointer) {
      PyErr_SetString(PyExc_ValueError, "LaunchSpec: a tensor map for a parameter that is no pointer");
      return false;
    }
    uint32_t box_rank = 0, stride_count = 0;
    if (!parse_numbers(dims, shape.dims, &shape.rank) || !parse_numbers(box, shape.box, &box_rank) ||
        !parse_numbers(strides, shape.strides, &stride_count)) {
      return false;
    }
    if (shape.rank == 0 || box_rank != shape.rank || stride_count + 1 != shape.rank) {
      PyErr_SetString(PyExc_ValueError, "LaunchSpec: dims, strides and box of a tensor map do not fit together");
      return false;
    }
  }
  body->map_count = count;
  return true;
}

// What is the same at every launch.
void describe_launch(LaunchSpec::Body* body, unsigned shared) {
  body->config.blockDimX = body->block_x;
  body->config.blockDimY = 1;
  body->config.blockDimZ = 1;
  body->config.sharedMemBytes = shared;
  const auto attribute = [body](int id) -> unsigned* {
    CUlaunchAttribute& next = body->attributes[body->config.numAttrs++];
    next.id = id;
    return next.value;
  };
  if (body->pdl) *attribute(kProgrammaticStreamSerialization) = 1;
  if (body->cooperative) *attribute(kCooperative) = 1;
  if (body->cluster[0] * body->cluster[1] * body->cluster[2] != 1) {
    std::copy(body->cluster, body->cluster + 3, attribute(kClusterDimension));
  }
  if (body->num_ctas != 1) *attribute(kClusterSchedulingPolicy) = kClusterSpread;  // as Triton's launcher does
}

PyObject* spec_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* keywords[] = {"compiled", "jit_function", "function", "name",         "num_warps",
                                   "shared",   "device",       "params",   "used_globals", "scratch",
                                   "cluster",  "maps",         "cooperative", "of_triton", "num_ctas",
                                   "pdl",      nullptr};
  PyObject *compiled = nullptr, *jit_function = nullptr, *params = nullptr, *globals = nullptr;
  PyObject* maps = nullptr;
  unsigned cluster[3] = {1, 1, 1};
  unsigned long long function = 0;
  const char* name = nullptr;
  unsigned num_warps = 0, shared = 0, scratch = 0, num_ctas = 1;
  int device = 0, cooperative = 0, of_triton = 0, pdl = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$OOKsIIiOOI(III)OppIp:LaunchSpec", const_cast<char**>(keywords),
                                   &compiled, &jit_function, &function, &name, &num_warps, &shared, &device, &params,
                                   &globals, &scratch, &cluster[0], &cluster[1], &cluster[2], &maps, &cooperative,
                                   &of_triton, &num_ctas, &pdl)) {
    return nullptr;
  }
  // The last six may be left out, which the format cannot say of some keyword-only arguments.
  if (compiled == nullptr || jit_function == nullptr || name == nullptr || params == nullptr || globals == nullptr) {
    PyErr_SetString(PyExc_TypeError, "LaunchSpec: compiled, jit_function, name, params and used_globals are required");
    return nullptr;
  }
  PyRef self = HeapType<LaunchSpec>::make(type);
  if (!self) return nullptr;
  ModuleState* state = as_spec(self.get())->state;
  if (!state->driver.load() || !state->environment().load(state)) return nullptr;
  LaunchSpec::Body& body = as_spec(self.get())->body;
  body.function = reinterpret_cast<CUfunction>(static_cast<uintptr_t>(function));
  body.name = name;
  body.block_x = 32 * num_warps;
  body.scratch = scratch;
  body.device = device;
  body.compiled = PyRef::borrow(compiled);
  body.jit_function = PyRef::borrow(jit_function);
  if (jit_function != Py_None) {
    body.jit_dict = PyRef::steal(PyObject_GetAttrString(jit_function, "__dict__"));
    if (!body.jit_dict) return nullptr;
    if (!PyDict_Check(body.jit_dict.get())) {
      PyErr_SetString(PyExc_TypeError, "LaunchSpec: jit_function.__dict__ must be a dict");
      return nullptr;
    }
  }
  if (!parse_params(params, &body.params) || !parse_globals(globals, &body.globals)) return nullptr;
  if (maps != nullptr && !parse_maps(maps, &body)) return nullptr;
  std::copy(cluster, cluster + 3, body.cluster);
  body.cooperative = cooperative != 0;
  body.of_triton = of_triton != 0;
  body.num_ctas = num_ctas;
  if (num_ctas != 1) body.cluster[0] = num_ctas;
  body.pdl = pdl != 0;
  describe_launch(&body, shared);
  if (jit_function != Py_None) {
    if (!state->environment().load_knobs(state)) return nullptr;
    state->environment().read_knobs(state, &body.knobs);
  }
  if (!state->environment().refresh_provider(state)) return nullptr;
  body.provider = PyRef::borrow(state->environment().provider());
  return self.release();
}

PyObject* spec_repr(PyObject* self) {
  const LaunchSpec::Body& body = as_spec(self)->body;
  return PyUnicode_FromFormat("<LaunchSpec %s: %zu parameters, %u threads, device %d>", body.name.c_str(),
                              body.params.size(), body.block_x, body.device);
}

PyObject* spec_guards_hold(PyObject* self, PyObject*) {
  ModuleState* state = as_spec(self)->state;
  if (!state->environment().refresh_provider(state)) return nullptr;
  const Alone alone(self);
  const int result = as_spec(self)->guards_hold();
  return result < 0 ? nullptr : PyBool_FromLong(result);
}

PyObject* spec_compiled(PyObject* self, void*) { return Py_NewRef(as_spec(self)->body.compiled.get()); }
PyObject* spec_jit_function(PyObject* self, void*) { return Py_NewRef(as_spec(self)->body.jit_function.get()); }
PyObject* spec_name(PyObject* self, void*) { return PyUnicode_FromString(as_spec(self)->body.name.c_str()); }
PyObject* spec_device(PyObject* self, void*) { return PyLong_FromLong(as_spec(self)->body.device); }

PyMethodDef spec_methods[] = {
    {"guards_hold", spec_guards_hold, METH_NOARGS,
     "guards_hold()\n--\n\nWhether a launch of this binary now is what Triton itself would launch."},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef spec_attributes[] = {
    {"compiled", spec_compiled, nullptr, "Triton's compiled kernel.", nullptr},
    {"jit_function", spec_jit_function, nullptr, "The @triton.jit function.", nullptr},
    {"name", spec_name, nullptr, "Name of the kernel, for messages.", nullptr},
    {"device", spec_device, nullptr, "Index of the device the binary is loaded on.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyDoc_STRVAR(
    spec_doc,
    "LaunchSpec(*, compiled, jit_function, function, name, num_warps, shared, device, params, used_globals,\n"
    "           scratch, cluster=(1, 1, 1), maps=(), cooperative=False, of_triton=False,\n"
             "           num_ctas=1, pdl=False)\n--\n\n"
    "One compiled binary and all that a launch of it depends on.\n\n"
    "Args:\n"
    "    compiled: Triton's compiled kernel; kept alive, since it owns the loaded binary.\n"
    "    jit_function: the @triton.jit function; None for a kernel that is not Triton's.\n"
    "    function: the CUfunction, as an int.\n"
    "    name: for error messages.\n"
    "    num_warps: warps per program; 32 threads each.\n"
    "    shared: bytes of dynamic shared memory.\n"
    "    device: index of the device the binary is loaded on.\n"
    "    params: (argument index, Triton type name) of each parameter, in the binary's order.\n"
    "    used_globals: (name, value, dict) of each global that was compiled into the binary.\n"
    "    scratch: how many (unused) scratch pointers follow the parameters.\n"
    "    cluster: dimensions of a thread block cluster, (1, 1, 1) for none.\n"
    "    maps: (parameter index, CUtensorMapDataType, dims, strides in bytes, box, CUtensorMapSwizzle) of "
    "each pointer\n"
    "        parameter that is passed as the tensor map of the tensor there.\n"
    "    cooperative: the launch is refused unless all programs fit on the device at the same time.\n"
    "    of_triton: Triton compiled it, though there is no jit_function: it is launched while no hook watches.\n"
    "    num_ctas: of Triton: thread blocks of a program, which are a cluster; a grid counts programs.\n"
    "    pdl: programmatic dependent launch: it may start before the kernel before it in the stream has ended.");

PyType_Slot spec_slots[] = {
    {Py_tp_doc, const_cast<char*>(spec_doc)},
    {Py_tp_new, reinterpret_cast<void*>(spec_new)},
    HELION_LIFECYCLE(LaunchSpec),
    {Py_tp_repr, reinterpret_cast<void*>(spec_repr)},
    {Py_tp_methods, spec_methods},
    {Py_tp_getset, spec_attributes},
    {0, nullptr},
};

PyType_Spec spec_spec = {
    "helion._C.LaunchSpec",
    sizeof(LaunchSpec),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    spec_slots,
};

// A double's bits as Triton's launcher converts them: bf16 is cut off, fp16 and fp32 round to nearest.
uint64_t float_bits(ParamType type, double value) {
  uint64_t slot = 0;
  if (type == ParamType::kFloat64) {
    std::memcpy(&slot, &value, sizeof(value));
    return slot;
  }
  const float single = static_cast<float>(value);
  uint32_t bits = 0;
  std::memcpy(&bits, &single, sizeof(single));
  if (type == ParamType::kBFloat16) bits >>= 16;
  return bits;
}

}  // namespace

bool store_scalar(ParamType type, PyObject* value, uint64_t* slot) {
  switch (type) {
    case ParamType::kInt: {
      // A bool is an int here. A negative number keeps its low bits, as it does in every two's complement width.
      int overflow = 0;
      const long long signed_value = PyLong_AsLongLongAndOverflow(value, &overflow);
      if (overflow == 0) {
        *slot = static_cast<uint64_t>(signed_value);
        return !(signed_value == -1 && PyErr_Occurred());
      }
      *slot = PyLong_AsUnsignedLongLong(value);
      return !(*slot == static_cast<uint64_t>(-1) && PyErr_Occurred());
    }
    case ParamType::kFloat16: {
      const double number = PyFloat_AsDouble(value);
      if (number == -1.0 && PyErr_Occurred()) return false;
      *slot = 0;
#if PY_VERSION_HEX >= 0x030B00A7
      return PyFloat_Pack2(number, reinterpret_cast<char*>(slot), 1) == 0;
#else
      return _PyFloat_Pack2(number, reinterpret_cast<unsigned char*>(slot), 1) == 0;
#endif
    }
    case ParamType::kBFloat16:
    case ParamType::kFloat32:
    case ParamType::kFloat64: {
      const double number = PyFloat_AsDouble(value);
      if (number == -1.0 && PyErr_Occurred()) return false;
      *slot = float_bits(type, number);
      return true;
    }
    case ParamType::kPointer: {
      if (value == Py_None) {
        *slot = 0;
        return true;
      }
      *slot = PyLong_AsUnsignedLongLong(value);
      return !(*slot == static_cast<uint64_t>(-1) && PyErr_Occurred());
    }
  }
  Py_UNREACHABLE();
}

int LaunchSpec::Body::visit(visitproc visit, void* arg) const {
  for (const UsedGlobal& global : globals) {
    if (int result = global.value.visit(visit, arg)) return result;
    if (int result = global.dict.visit(visit, arg)) return result;
    if (int result = global.item.visit(visit, arg)) return result;
  }
  if (int result = pre_run_hooks.visit(visit, arg)) return result;
  if (int result = knobs.visit_all(visit, arg)) return result;
  for (const PyRef* held : {&provider, &compiled, &jit_function, &jit_dict}) {
    if (int result = held->visit(visit, arg)) return result;
  }
  return 0;
}

#ifdef Py_GIL_DISABLED
PyRef LaunchSpec::copy() const {
  PyRef made = HeapType<LaunchSpec>::make(state->launch_spec_type);
  if (!made) return made;
  Body& other = as_spec(made.get())->body;
  static_cast<Binary&>(other) = body;
  if (body.maps != nullptr) {
    other.maps = std::make_unique<MappedParam[]>(body.map_count);
    for (size_t i = 0; i < body.map_count; ++i) {
      other.maps[i].param = body.maps[i].param;
      other.maps[i].shape = body.maps[i].shape;
    }
  }
  for (const UsedGlobal& global : body.globals) other.globals.push_back(global.copy());
  other.knobs = body.knobs.copy();
  other.provider = body.provider.copy();
  other.compiled = body.compiled.copy();
  other.jit_function = body.jit_function.copy();
  other.jit_dict = body.jit_dict.copy();
  return made;
}
#endif

int LaunchSpec::untouched() const {
  // From before the question, which may run code that assigns a knob.
  const TritonVersions now = state->environment().triton_versions(state);
  // Guard: a profiler's hook, or a knob, of a Triton that was imported after the binary came from the cache.
  const int untouched = state->environment().triton_untouched(state);
  if (HELION_GUARD("late_hooks", untouched != 1)) return untouched < 0 ? -1 : 0;
  body.held = now;
  return 1;
}

int LaunchSpec::ask_triton() const {
  if (!state->environment().load_knobs(state)) return -1;
  // From before the questions, which may run code that assigns a knob.
  const TritonVersions now = state->environment().triton_versions(state);
  // Guard: some knobs are part of the binary. Guard: a profiler may attach at any time.
  const int same = state->environment().same_knobs(state, body.knobs);
  if (HELION_GUARD("knobs", same != 1)) return same;
  if (int result = state->environment().hooks_active(state); HELION_GUARD("hooks", result != 0))
    return result < 0 ? -1 : 0;
  body.held = now;
  return 1;
}

bool LaunchSpec::tensor_map(MappedParam* mapped, uint64_t address, unsigned char* out) const {
  for (const MappedParam::Kept& kept : mapped->kept) {
    if (kept.address == address && address != 0) {
      std::memcpy(out, kept.map, kTensorMapBytes);
      return true;
    }
  }
  const CUresult result = state->driver.encode(mapped->shape, address, out);
  if (result != kCudaSuccess) {
    state->driver.set_error(result, body.name.c_str());
    return false;
  }
  // A descriptor depends on the address alone, sizes and strides being the binary's: it never goes stale.
  MappedParam::Kept& kept = mapped->kept[mapped->next];
  mapped->next = (mapped->next + 1) % MappedParam::kKept;
  kept.address = address;
  std::memcpy(kept.map, out, kTensorMapBytes);
  return true;
}

bool LaunchSpec::launch_any(const unsigned grid[3], uint64_t* slots, uintptr_t stream) const {
  const size_t count = body.params.size();
  std::vector<void*> pointers(count + body.scratch);
  for (size_t i = 0; i < count; ++i) pointers[i] = slots + i;
  uint64_t no_scratch = 0;
  for (size_t i = 0; i < body.scratch; ++i) pointers[count + i] = &no_scratch;
  // Copies, as another thread may launch the same kernel on other tensors while the GIL is released.
  constexpr size_t kMaps = 4;
  alignas(kTensorMapAlignment) unsigned char maps[kMaps][kTensorMapBytes];
  if (body.map_count > kMaps) {
    PyErr_Format(PyExc_RuntimeError, "kernel %s has more than %zu tensor maps", body.name.c_str(), kMaps);
    return false;
  }
  const Alone alone(reinterpret_cast<PyObject*>(const_cast<LaunchSpec*>(this)));
  for (size_t i = 0; i < body.map_count; ++i) {
    MappedParam& mapped = body.maps[i];
    if (!tensor_map(&mapped, slots[mapped.param], maps[i])) return false;
    pointers[mapped.param] = maps[i];
  }
  return enqueue(grid, pointers.data(), stream);
}

int add_launch_spec(PyObject* module) {
  return add_type(module, &spec_spec, &state_of_module(module)->launch_spec_type);
}

}  // namespace helion
