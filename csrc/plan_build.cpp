// The LaunchPlan type: construction from the description that helion/runtime/launch/plan.py recorded
// (helion/runtime/launch/plan_data.py), and its attributes. Cold, so it is written with pybind11; nothing here runs
// once a plan exists.

#include "heap_type.h"
#include "plan.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

namespace py = pybind11;

namespace helion {
namespace {

LaunchPlan* as_plan(PyObject* self) { return HeapType<LaunchPlan>::as(self); }

// The types of helion/runtime/launch/plan_data.py.
struct Types {
  py::module_ module = py::module_::import("helion.runtime.launch.plan_data");
  py::object allocation = module.attr("Allocation"), fill = module.attr("Fill"), launch = module.attr("Launch"),
             made = module.attr("Made"), op = module.attr("Op"), address = module.attr("Address"),
             number = module.attr("Number"), constant = module.attr("Constant"), tensor = module.attr("TensorRef"),
             view = module.attr("View"), object = module.attr("Object"), container = module.attr("Container"),
             structure = module.attr("Structure");
};

class Builder {
 public:
  Builder(ModuleState* state, LaunchPlan::Body* body) : state_(state), body_(body) {}

  void buffer(const py::handle& item) {
    const bool made = py::isinstance(item, types_.made);
    if (!made) check(item, types_.allocation);
    TensorShape shape{item.attr("sizes").cast<std::vector<int64_t>>(),
                      item.attr("strides").cast<std::vector<int64_t>>(), c10::ScalarType::Undefined,
                      c10::Device(c10::DeviceType::CPU)};
    if (shape.sizes.size() != shape.strides.size()) throw py::value_error("sizes and strides differ in length");
    if (!read_dtype(item.attr("dtype").ptr(), &shape.dtype)) throw py::type_error("expected a torch.dtype");
    if (!read_device(item.attr("device").ptr(), &shape.device)) throw py::type_error("expected a torch.device");
    body_->buffers.push_back({std::move(shape), !made && item.attr("pooled").cast<bool>(), made, made});
  }

  void step(const py::handle& item) {
    body_->steps.push_back(py::isinstance(item, types_.launch) ? launch(item)
                           : py::isinstance(item, types_.op)   ? operation(item)
                                                               : fill(item));
  }

  PlanResult result(const py::handle& item) {
    PlanResult result;
    if (py::isinstance(item, types_.object)) {
      result.object = PyRef::borrow(py::object(item.attr("value")).ptr());
    } else if (py::isinstance(item, types_.tensor)) {
      result.kind = PlanResult::Kind::kTensor;
      result.tensor = returned(item);
    } else if (py::isinstance(item, types_.view)) {
      result.kind = PlanResult::Kind::kView;
      result.tensor = returned(item.attr("tensor"));
      result.shape.sizes = item.attr("sizes").cast<std::vector<int64_t>>();
      result.shape.strides = item.attr("strides").cast<std::vector<int64_t>>();
      result.offset = item.attr("offset").cast<int64_t>();
    } else if (py::isinstance(item, types_.structure)) {
      const py::object of = item.attr("of");
      const py::tuple items = item.attr("items");
      if (!py::isinstance<py::tuple>(of) && !PyType_Check(of.ptr())) throw py::type_error("expected keys or a class");
      if (py::isinstance<py::tuple>(of) && py::len(of) != items.size()) throw py::value_error("a value has no key");
      result.kind = PyType_Check(of.ptr()) ? PlanResult::Kind::kRecord : PlanResult::Kind::kDict;
      result.object = PyRef::borrow(of.ptr());
      for (const py::handle part : items) result.items.push_back(this->result(part));
    } else {
      check(item, types_.container);
      result.kind = item.attr("is_tuple").cast<bool>() ? PlanResult::Kind::kTuple : PlanResult::Kind::kList;
      for (const py::handle part : py::tuple(item.attr("items"))) result.items.push_back(this->result(part));
    }
    return result;
  }

  TensorRef ref(const py::handle& item) {
    check(item, types_.tensor);
    const TensorRef ref{item.attr("is_input").cast<bool>(), item.attr("number").cast<uint32_t>()};
    if (ref.index >= (ref.is_input ? body_->leaf_count : body_->buffers.size())) {
      throw py::index_error("a step names a tensor that is not there");
    }
    return ref;
  }

 private:
  static void check(const py::handle& item, const py::object& type) {
    if (py::isinstance(item, type)) return;
    throw py::type_error("expected " + py::repr(type).cast<std::string>() + ", got " +
                         py::repr(item).cast<std::string>());
  }

  PlanStep fill(const py::handle& item) {
    check(item, types_.fill);
    PlanStep step;
    step.filled = ref(item.attr("tensor"));
    step.fill_value = scalar(item.attr("value"));
    step.fresh = item.attr("fresh").cast<bool>();
    return step;
  }

  PlanStep operation(const py::handle& item) {
    PlanStep step;
    step.function = PyRef::borrow(py::object(item.attr("function")).ptr());
    step.arguments = result(item.attr("arguments"));
    const py::tuple names = item.attr("names");
    if (step.arguments.kind != PlanResult::Kind::kTuple || names.size() > step.arguments.items.size()) {
      throw py::type_error("an operation takes a tuple of arguments");
    }
    step.names = PyRef::borrow(names.ptr());
    step.outputs = item.attr("outputs").cast<std::vector<uint32_t>>();
    for (const uint32_t output : step.outputs) {
      if (output >= body_->buffers.size() || !body_->buffers[output].made) {
        throw py::index_error("an operation makes a tensor that is not there");
      }
    }
    step.changes = item.attr("changes").cast<bool>();
    body_->operates = true;
    return step;
  }

  PlanStep launch(const py::handle& item) {
    PlanStep step;
    const py::object described = item.attr("spec");
    if (!is_launch_spec(state_, described.ptr())) throw py::type_error("a launch needs a LaunchSpec");
    step.spec = PyRef::borrow(described.ptr());
    ++body_->launch_count;
    const py::tuple grid = item.attr("grid");
    if (grid.empty() || grid.size() > 3) throw py::value_error("a grid has one to three dimensions");
    for (size_t i = 0; i < grid.size(); ++i) step.grid[i] = grid[i].cast<unsigned>();
    const LaunchSpec& spec = *reinterpret_cast<LaunchSpec*>(described.ptr());
    const py::tuple sources = item.attr("sources");
    if (sources.size() != spec.body.params.size()) {
      throw py::value_error("a launch needs one source for each parameter of its kernel");
    }
    for (size_t i = 0; i < sources.size(); ++i) step.sources.push_back(source(sources[i], spec.body.params[i].type));
    if (spec.body.device != body_->device) throw py::value_error("a launch is for another device than the plan");
    return step;
  }

  TensorRef returned(const py::handle& item) {
    const TensorRef found = ref(item);
    if (!found.is_input) body_->buffers[found.index].returned = true;
    return found;
  }

  Source source(const py::handle& item, ParamType type) {
    Source source{Source::Kind::kConstant, type, 0, 0};
    if (py::isinstance(item, types_.address)) {
      if (type != ParamType::kPointer) throw py::type_error("a tensor is passed where the kernel takes a number");
      const TensorRef found = ref(item.attr("tensor"));
      source.kind = found.is_input ? Source::Kind::kInputAddress : Source::Kind::kBufferAddress;
      source.index = found.index;
      source.value = static_cast<uint64_t>(item.attr("offset").cast<int64_t>());
    } else if (py::isinstance(item, types_.number)) {
      source.kind = Source::Kind::kInputNumber;
      source.index = item.attr("leaf").cast<uint32_t>();
      if (source.index >= body_->leaf_count) throw py::index_error("a step names an argument that is not there");
    } else {
      check(item, types_.constant);
      const py::object value = item.attr("value");
      if (!store_scalar(type, value.ptr(), &source.value)) throw py::error_already_set();
    }
    return source;
  }

  static at::Scalar scalar(const py::handle& value) {
    if (PyBool_Check(value.ptr())) return at::Scalar(value.cast<bool>());
    if (PyLong_Check(value.ptr())) return at::Scalar(value.cast<int64_t>());
    return at::Scalar(value.cast<double>());
  }

  ModuleState* state_;
  LaunchPlan::Body* body_;
  Types types_;
};

// LaunchPlan(leaf_count, device, buffers, steps, result, written=(), distinct=False, allocators=())
PyObject* plan_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* keywords[] = {"leaf_count", "device", "buffers", "steps", "result", "written", "distinct",
                                   "allocators", nullptr};
  Py_ssize_t leaf_count = 0;
  long device = 0;
  int distinct = 0;
  PyObject *buffers = nullptr, *steps = nullptr, *result = nullptr, *written = nullptr, *allocators = nullptr;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nlO!O!O|O!pO!:LaunchPlan", const_cast<char**>(keywords), &leaf_count,
                                   &device, &PyTuple_Type, &buffers, &PyTuple_Type, &steps, &result, &PyTuple_Type,
                                   &written, &distinct, &PyTuple_Type, &allocators)) {
    return nullptr;
  }
  PyRef self = HeapType<LaunchPlan>::make(type);
  if (!self) return nullptr;
  LaunchPlan* plan = as_plan(self.get());
  ModuleState* state = plan->state;
  if (!state->environment().load(state)) return nullptr;
  plan->body.leaf_count = static_cast<size_t>(leaf_count);
  plan->body.device = device;
  plan->body.default_dtype = default_dtype();
  plan->body.distinct = distinct != 0;
  if (allocators != nullptr && PyTuple_GET_SIZE(allocators) != 0) {
    if (!PyContextVar_CheckExact(PyTuple_GET_ITEM(allocators, 0))) {
      PyErr_SetString(PyExc_TypeError, "LaunchPlan: allocators begin with a ContextVar");
      return nullptr;
    }
    plan->body.allocators = PyRef::borrow(allocators);
  }
  try {
    Builder builder(state, &plan->body);
    for (const py::handle item : py::handle(buffers)) builder.buffer(item);
    for (const py::handle item : py::handle(steps)) builder.step(item);
    plan->body.result = builder.result(result);
    if (written != nullptr) {
      for (const py::handle item : py::handle(written)) plan->body.written.push_back(builder.ref(item));
    }
  } catch (py::error_already_set& error) {
    error.restore();
    return nullptr;
  } catch (py::builtin_exception& error) {
    error.set_error();
    return nullptr;
  }
  return self.release();
}

PyObject* plan_repr(PyObject* self) {
  const LaunchPlan::Body& body = as_plan(self)->body;
  return PyUnicode_FromFormat("<LaunchPlan: %zu buffers, %zu launches, %zu fills>", body.buffers.size(),
                              body.launch_count, body.steps.size() - body.launch_count);
}

PyDoc_STRVAR(
    plan_doc,
    "LaunchPlan(leaf_count, device, buffers, steps, result, written=(), distinct=False, allocators=())\n--\n\n"
    "A host function as data: what it allocates, launches and returns. See helion/runtime/launch/plan.py.\n"
    "allocators: of a plan that has buffers for scratch memory, a ContextVar and the values that it may have.");

PyType_Slot plan_slots[] = {
    {Py_tp_doc, const_cast<char*>(plan_doc)},
    {Py_tp_new, reinterpret_cast<void*>(plan_new)},
    HELION_LIFECYCLE(LaunchPlan),
    {Py_tp_repr, reinterpret_cast<void*>(plan_repr)},
    {0, nullptr},
};

PyType_Spec plan_spec = {
    "helion._C.LaunchPlan", sizeof(LaunchPlan), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, plan_slots,
};

}  // namespace

int PlanResult::visit(visitproc visit, void* arg) const {
  if (int answer = object.visit(visit, arg)) return answer;
  for (const PlanResult& item : items) {
    if (int answer = item.visit(visit, arg)) return answer;
  }
  return 0;
}

#ifdef Py_GIL_DISABLED
PlanResult PlanResult::copy() const {
  PlanResult other;
  other.kind = kind;
  other.object = object.copy();
  other.tensor = tensor;
  other.shape = shape;
  other.offset = offset;
  for (const PlanResult& item : items) other.items.push_back(item.copy());
  return other;
}

PlanStep PlanStep::copy(PyRef other_spec) const {
  PlanStep other;
  other.spec = std::move(other_spec);
  std::copy(grid, grid + 3, other.grid);
  other.sources = sources;
  other.filled = filled;
  other.fill_value = fill_value;
  other.function = function.copy();
  other.arguments = arguments.copy();
  other.names = names.copy();
  other.outputs = outputs;
  other.changes = changes;
  other.fresh = fresh;
  return other;
}

PyRef LaunchPlan::copy() const {
  PyRef made = HeapType<LaunchPlan>::make(state->plan_type);
  if (!made) return made;
  Body& other = as_plan(made.get())->body;
  for (const PlanBuffer& buffer : body.buffers) {
    other.buffers.push_back(buffer);
    other.buffers.back().cursor = {};
  }
  for (const PlanStep& step : body.steps) {
    PyRef spec;
    if (step.spec) {
      spec = reinterpret_cast<const LaunchSpec*>(step.spec.get())->copy();
      if (!spec) return PyRef();
    }
    other.steps.push_back(step.copy(std::move(spec)));
  }
  other.result = body.result.copy();
  other.written = body.written;
  other.operates = body.operates;
  other.allocators = body.allocators.copy();
  other.distinct = body.distinct;
  other.leaf_count = body.leaf_count;
  other.launch_count = body.launch_count;
  other.device = body.device;
  other.default_dtype = body.default_dtype;
  return made;
}
#endif

int LaunchPlan::Body::visit(visitproc visit, void* arg) const {
  for (const PlanStep& step : steps) {
    if (int answer = step.spec.visit(visit, arg)) return answer;
    if (int answer = step.function.visit(visit, arg)) return answer;
    if (int answer = step.arguments.visit(visit, arg)) return answer;
  }
  if (int answer = allocators.visit(visit, arg)) return answer;
  return result.visit(visit, arg);
}

int add_plan(PyObject* module) { return add_type(module, &plan_spec, &state_of_module(module)->plan_type); }

}  // namespace helion
