// CompiledLauncher: a drop-in for default_launcher that launches an already compiled kernel without Python.
//
// A call is classified by what Triton specializes on at launch (one word per argument), looked up among the primed
// specs, guarded, packed and enqueued. Everything else goes to slow_launch (helion/runtime/launch/spec.py): a spec that
// is not primed yet, a hook that wants to see the launch, an argument that this file does not understand.

#include "argument.h"
#include "heap_type.h"
#include "launch_spec.h"

#include <structmember.h>

#include <algorithm>
#include <cstring>
#include <memory>

namespace helion {
namespace {

// The launches that one launch spec serves.
struct Variant {
  PyRef kernel;                 // the @triton.jit function
  PyRef keyword_names;          // tuple of str
  std::vector<PyRef> keywords;  // their values
  std::vector<uint64_t> words;  // of each argument (argument.h)
  PyRef spec;                   // LaunchSpec, or None: this variant belongs to Triton's launcher
};

struct Launcher {
  PyObject_HEAD
  vectorcallfunc vectorcall;
  ModuleState* state;
  struct Body {
    // Few: one per alignment and size class that occurs. The one that was used last is tried first.
    std::vector<std::shared_ptr<const Variant>> variants;
    size_t last = 0;
    uint64_t launches = 0;
    PyRef fallback;  // called like a launcher instead of slow_launch, or null

    int visit(visitproc visit, void* arg) const;
    void clear() {
      Body old;
      std::swap(old, *this);
    }
  } body;
};

Launcher* as_launcher(PyObject* self) { return HeapType<Launcher>::as(self); }

// One to three non-negative ints. 1, 0 if it is something else (a callable, say; Triton's to handle), -1 on error.
int parse_grid(PyObject* object, unsigned grid[3]) {
  if (!PyTuple_CheckExact(object)) return 0;
  const Py_ssize_t count = PyTuple_GET_SIZE(object);
  if (count < 1 || count > 3) return 0;
  grid[0] = grid[1] = grid[2] = 1;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* item = PyTuple_GET_ITEM(object, i);
    if (!PyLong_CheckExact(item)) return 0;
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(item, &overflow);
    if (overflow != 0 || value < 0 || value > UINT32_MAX) return 0;
    grid[i] = static_cast<unsigned>(value);
  }
  return 1;
}

// Whether two values may be taken for one another: identical, or of one type and equal. 1, 0, -1.
int same_value(PyObject* left, PyObject* right) {
  if (left == right) return 1;
  if (Py_TYPE(left) != Py_TYPE(right)) return 0;
  return PyObject_RichCompareBool(left, right, Py_EQ);
}

// 1, 0, or -1 with an exception. Comparing keyword values can run Python code; the caller holds the variant.
int matches(const Variant& variant, PyObject* kernel, const uint64_t* words, size_t count, PyObject* keyword_names,
            PyObject* const* keywords) {
  if (variant.kernel.get() != kernel || variant.words.size() != count ||
      std::memcmp(variant.words.data(), words, count * sizeof(uint64_t)) != 0) {
    return 0;
  }
  if (int result = same_value(variant.keyword_names.get(), keyword_names); result != 1) return result;
  for (size_t i = 0; i < variant.keywords.size(); ++i) {
    if (int result = same_value(variant.keywords[i].get(), keywords[i]); result != 1) return result;
  }
  return 1;
}

// Whether Triton would launch this variant's binary now; None, the mark of a variant that is Triton's, always holds.
int guards_hold(const Variant& variant) {
  if (variant.spec.get() == Py_None) return 1;
  const Alone alone(variant.spec.get());
  return reinterpret_cast<const LaunchSpec*>(variant.spec.get())->guards_hold();
}

// Finds a variant for a call whose guards hold. There may be several for one call, compiled under different knobs. On
// success `found` owns it, or is null if there is none. False with an exception.
bool find(Launcher* self, PyObject* kernel, const uint64_t* words, size_t count, PyObject* keyword_names,
          PyObject* const* keywords, std::shared_ptr<const Variant>* found) {
  const Alone alone(reinterpret_cast<PyObject*>(self));
  const size_t size = self->body.variants.size();
  for (size_t step = 0; step < size; ++step) {
    // Indices are checked again each time: a comparison may run code that changes the list.
    const size_t index = step == 0 ? self->body.last : (step <= self->body.last ? step - 1 : step);
    if (index >= self->body.variants.size()) continue;
    std::shared_ptr<const Variant> variant = self->body.variants[index];
    int result = matches(*variant, kernel, words, count, keyword_names, keywords);
    if (result == 1) result = guards_hold(*variant);
    if (result < 0) return false;
    if (result == 1) {
      self->body.last = index;
      *found = std::move(variant);
      return true;
    }
  }
  return true;
}

constexpr size_t kInlineArguments = 64;

// Space for one call's arguments: on the stack for all but enormous kernels.
struct CallBuffer {
  explicit CallBuffer(size_t count) {
    if (count > kInlineArguments) {
      many.resize(3 * count);
      words = many.data();
      values = words + count;
      slots = values + count;
    }
  }
  uint64_t inline_words[kInlineArguments];
  uint64_t inline_values[kInlineArguments];
  uint64_t inline_slots[kInlineArguments];
  std::vector<uint64_t> many;
  uint64_t* words = inline_words;
  uint64_t* values = inline_values;  // per argument
  uint64_t* slots = inline_slots;    // per parameter
};

// Moves the arguments into the binary's parameter order. False with an exception.
bool pack(const LaunchSpec& spec, PyObject* const* arguments, const uint64_t* values, uint64_t* slots) {
  size_t next = 0;
  for (const Param& param : spec.body.params) {
    PyObject* argument = arguments[param.argument];
    if (param.type == ParamType::kPointer || PyLong_Check(argument)) {
      // Tensors, None and ints (bools among them) were read by read_argument().
      if (param.type == ParamType::kPointer || param.type == ParamType::kInt) {
        slots[next++] = values[param.argument];
        continue;
      }
    }
    if (!store_scalar(param.type, argument, &slots[next++])) return false;
  }
  return true;
}

// Every parameter must be one of the arguments that were classified.
bool fits(const LaunchSpec& spec, size_t count) {
  return std::all_of(spec.body.params.begin(), spec.body.params.end(),
                     [count](const Param& param) { return param.argument < count; });
}

PyObject* slow(Launcher* self, PyObject* const* args, size_t nargsf, PyObject* keyword_names) {
  PyRef fallback;  // held here: the call may replace it
  {
    const Alone alone(reinterpret_cast<PyObject*>(self));
    fallback = self->body.fallback.copy();
  }
  if (fallback) {
    return PyObject_Vectorcall(fallback.get(), args, nargsf, keyword_names);
  }
  PyRef module = PyRef::steal(PyImport_ImportModule("helion.runtime.launch.spec"));
  if (!module) return nullptr;
  PyRef function = PyRef::steal(PyObject_GetAttrString(module.get(), "slow_launch"));
  if (!function) return nullptr;
  // slow_launch(launcher, kernel, grid, *args, **keywords): the same call with the launcher put in front.
  const Py_ssize_t count = PyVectorcall_NARGS(nargsf);
  const Py_ssize_t keywords = keyword_names != nullptr ? PyTuple_GET_SIZE(keyword_names) : 0;
  std::vector<PyObject*> all;
  all.reserve(static_cast<size_t>(count + keywords + 1));
  all.push_back(reinterpret_cast<PyObject*>(self));
  all.insert(all.end(), args, args + count + keywords);
  return PyObject_Vectorcall(function.get(), all.data(), static_cast<size_t>(count + 1), keyword_names);
}

bool is_primed(Launcher* self) {
  const Alone alone(reinterpret_cast<PyObject*>(self));
  return !self->body.variants.empty();
}

PyObject* launcher_vectorcall(PyObject* object, PyObject* const* args, size_t nargsf, PyObject* keyword_names) {
  Launcher* self = as_launcher(object);
  const Py_ssize_t total = PyVectorcall_NARGS(nargsf);
  if (!is_primed(self)) {
    PyErr_SetString(PyExc_RuntimeError, "this CompiledLauncher is not primed: call prime() first");
    return nullptr;
  }
  if (total < 2) return slow(self, args, nargsf, keyword_names);
  if (!self->state->environment().refresh_provider(self->state)) return nullptr;
  const size_t count = static_cast<size_t>(total - 2);
  PyObject* const* arguments = args + 2;
  CallBuffer buffer(count);
  for (size_t i = 0; i < count; ++i) {
    Argument read;
    const int known = read_argument(self->state, arguments[i], &read);
    if (known < 0) return nullptr;
    if (known == 0) return slow(self, args, nargsf, keyword_names);
    buffer.words[i] = read.word;
    buffer.values[i] = read.bits;
  }
  unsigned grid[3];
  const int plain_grid = parse_grid(args[1], grid);
  if (plain_grid < 0) return nullptr;
  // Guard: a mode or a transform has to see the launch.
  if (plain_grid == 0 || HELION_GUARD("modes", !plain_torch_state())) return slow(self, args, nargsf, keyword_names);

  PyObject* no_names = nullptr;
  PyRef empty;
  if (keyword_names == nullptr) {
    empty = PyRef::steal(PyTuple_New(0));
    if (!empty) return nullptr;
    no_names = empty.get();
  }
  std::shared_ptr<const Variant> variant;
  if (!find(self, args[0], buffer.words, count, keyword_names != nullptr ? keyword_names : no_names, args + total,
            &variant)) {
    return nullptr;
  }
  if (variant == nullptr || variant->spec.get() == Py_None) return slow(self, args, nargsf, keyword_names);
  const LaunchSpec& spec = *reinterpret_cast<const LaunchSpec*>(variant->spec.get());

  const long device = self->state->environment().current_device(self->state);
  if (device == -1 && PyErr_Occurred()) return nullptr;
  // Guard: the binary is loaded in one device's context. On another device Triton has one of its own.
  if (HELION_GUARD("device", device != spec.body.device)) return slow(self, args, nargsf, keyword_names);
  if (!pack(spec, arguments, buffer.values, buffer.slots)) return nullptr;
  // Guard: asked for at every launch, as it changes under torch.cuda.stream and graph capture.
  uintptr_t stream = 0;
  if (HELION_GUARD("stream", true) && !self->state->environment().current_stream(self->state, device, &stream)) {
    return nullptr;
  }
  if (!spec.launch(grid, buffer.slots, stream)) return nullptr;
  {
    const Alone alone(object);
    ++self->body.launches;
  }
  return Py_NewRef(spec.body.compiled.get());
}

PyObject* launcher_new(PyTypeObject* type, PyObject*, PyObject*) {
  PyRef self = HeapType<Launcher>::make(type);
  if (self) as_launcher(self.get())->vectorcall = launcher_vectorcall;
  return self.release();
}

int Launcher::Body::visit(visitproc visit, void* arg) const {
  for (const std::shared_ptr<const Variant>& variant : variants) {
    // A variant that a running call shares has another owner, which the collector must not be told about.
    if (variant.use_count() != 1) continue;
    if (int result = variant->kernel.visit(visit, arg)) return result;
    for (const PyRef& keyword : variant->keywords) {
      if (int result = keyword.visit(visit, arg)) return result;
    }
    if (int result = variant->spec.visit(visit, arg)) return result;
  }
  return fallback.visit(visit, arg);
}

// add_variant(kernel, args, keywords, spec): what prime() calls with what it compiled.
PyObject* launcher_add_variant(PyObject* object, PyObject* const* args, Py_ssize_t count) {
  Launcher* self = as_launcher(object);
  if (count != 4 || !PyTuple_Check(args[1]) || !PyDict_Check(args[2]) ||
      (args[3] != Py_None && !is_launch_spec(self->state, args[3]))) {
    PyErr_SetString(PyExc_TypeError, "add_variant(kernel, args: tuple, keywords: dict, spec: LaunchSpec | None)");
    return nullptr;
  }
  if (!self->state->environment().load(self->state) || !self->state->environment().refresh_provider(self->state))
    return nullptr;
  const size_t arguments = static_cast<size_t>(PyTuple_GET_SIZE(args[1]));
  std::shared_ptr<Variant> variant = std::make_shared<Variant>();
  variant->kernel = PyRef::borrow(args[0]);
  variant->spec = PyRef::borrow(args[3]);
  for (size_t i = 0; i < arguments; ++i) {
    Argument read;
    const int known = read_argument(self->state, PyTuple_GET_ITEM(args[1], static_cast<Py_ssize_t>(i)), &read);
    if (known < 0) return nullptr;
    if (known == 0) Py_RETURN_FALSE;  // such a call never gets as far as the lookup
    variant->words.push_back(read.word);
  }
  if (args[3] != Py_None && !fits(*reinterpret_cast<LaunchSpec*>(args[3]), arguments)) {
    PyErr_SetString(PyExc_ValueError, "the launch spec has a parameter that is not among the arguments");
    return nullptr;
  }
  PyRef names = PyRef::steal(PyTuple_New(PyDict_GET_SIZE(args[2])));
  if (!names) return nullptr;
  PyObject *name = nullptr, *value = nullptr;
  Py_ssize_t position = 0, index = 0;
  while (PyDict_Next(args[2], &position, &name, &value)) {
    PyTuple_SET_ITEM(names.get(), index++, Py_NewRef(name));
    variant->keywords.push_back(PyRef::borrow(value));
  }
  variant->keyword_names = std::move(names);
  std::shared_ptr<const Variant> existing;
  std::vector<PyObject*> values;
  for (const PyRef& keyword : variant->keywords) values.push_back(keyword.get());
  if (!find(self, args[0], variant->words.data(), arguments, variant->keyword_names.get(), values.data(), &existing)) {
    return nullptr;
  }
  const Alone alone(object);
  if (existing != nullptr) {
    // Compiled again for the same calls: the newer one takes the place.
    std::replace(self->body.variants.begin(), self->body.variants.end(), existing,
                 std::shared_ptr<const Variant>(std::move(variant)));
  } else {
    self->body.variants.push_back(std::move(variant));
  }
  Py_RETURN_TRUE;
}

// prime(kernel, grid, args, **keywords): compiles through helion.runtime.launch.spec and adds the variant.
PyObject* launcher_prime(PyObject* object, PyObject* args, PyObject* kwargs) {
  PyObject *kernel = nullptr, *grid = nullptr, *arguments = nullptr;
  if (!PyArg_ParseTuple(args, "OOO:prime", &kernel, &grid, &arguments)) return nullptr;
  PyRef tuple = PyRef::steal(PySequence_Tuple(arguments));
  if (!tuple) return nullptr;
  PyRef keywords = PyRef::steal(kwargs != nullptr ? PyDict_Copy(kwargs) : PyDict_New());
  if (!keywords) return nullptr;
  PyRef module = PyRef::steal(PyImport_ImportModule("helion.runtime.launch.spec"));
  if (!module) return nullptr;
  PyRef spec = PyRef::steal(PyObject_CallMethod(module.get(), "make_launch_spec", "OOOO", kernel, grid, tuple.get(),
                                                keywords.get()));
  if (!spec) return nullptr;
  PyObject* stack[] = {kernel, tuple.get(), keywords.get(), spec.get()};
  return launcher_add_variant(object, stack, 4);
}

PyObject* launcher_clear_variants(PyObject* object, PyObject*) {
  std::vector<std::shared_ptr<const Variant>> old;  // dropped when nobody waits for it
  const Alone alone(object);
  std::swap(old, as_launcher(object)->body.variants);
  as_launcher(object)->body.last = 0;
  Py_RETURN_NONE;
}

PyObject* launcher_count(PyObject* object, void*) {
  const Alone alone(object);
  return PyLong_FromSize_t(as_launcher(object)->body.variants.size());
}

PyObject* launcher_launches(PyObject* object, void*) {
  const Alone alone(object);
  return PyLong_FromUnsignedLongLong(as_launcher(object)->body.launches);
}

PyObject* launcher_get_fallback(PyObject* object, void*) {
  const Alone alone(object);
  const PyRef& fallback = as_launcher(object)->body.fallback;
  return Py_NewRef(fallback ? fallback.get() : Py_None);
}

int launcher_set_fallback(PyObject* object, PyObject* value, void*) {
  if (value != nullptr && value != Py_None && !PyCallable_Check(value)) {
    PyErr_SetString(PyExc_TypeError, "fallback must be a launcher or None");
    return -1;
  }
  const Alone alone(object);
  as_launcher(object)->body.fallback = value == nullptr || value == Py_None ? PyRef() : PyRef::borrow(value);
  return 0;
}

PyMethodDef launcher_methods[] = {
    {"prime", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(launcher_prime)),
     METH_VARARGS | METH_KEYWORDS,
     "prime(triton_kernel, grid, args, *, num_warps, num_stages, **options)\n--\n\n"
     "Compile the kernel for these arguments without launching it, so that calls like this one take the fast path.\n\n"
     "Returns:\n    Whether such calls are handled here; otherwise they go to Triton's launcher."},
    {"add_variant", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(launcher_add_variant)), METH_FASTCALL,
     "add_variant(triton_kernel, args, keywords, spec, /)\n--\n\n"
     "Use `spec` for calls with arguments of these classes; None sends them to Triton's launcher."},
    {"clear", launcher_clear_variants, METH_NOARGS, "clear()\n--\n\nForget every variant. Running calls finish."},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef launcher_attributes[] = {
    {"fallback", launcher_get_fallback, launcher_set_fallback,
     "Launcher that is called, with the same arguments, where this one does not launch by itself; None for the "
     "default.",
     nullptr},
    {"launches", launcher_launches, nullptr, "How many kernels this launcher launched by itself.", nullptr},
    {"variant_count", launcher_count, nullptr, "How many variants are primed.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyMemberDef launcher_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Launcher, vectorcall), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyDoc_STRVAR(launcher_doc,
             "CompiledLauncher()\n--\n\n"
             "A launcher, called like helion.runtime.default_launcher, that launches without Python once primed.\n\n"
             "Calling it before prime() raises RuntimeError.");

PyType_Slot launcher_slots[] = {
    {Py_tp_doc, const_cast<char*>(launcher_doc)},
    {Py_tp_new, reinterpret_cast<void*>(launcher_new)},
    HELION_LIFECYCLE(Launcher),
    {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
    {Py_tp_methods, launcher_methods},
    {Py_tp_getset, launcher_attributes},
    {Py_tp_members, launcher_members},
    {0, nullptr},
};

PyType_Spec launcher_spec = {
    "helion._C.CompiledLauncher",
    sizeof(Launcher),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    launcher_slots,
};

}  // namespace

int add_launcher(PyObject* module) { return add_type(module, &launcher_spec); }

}  // namespace helion
