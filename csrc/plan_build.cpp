// The LaunchPlan type: construction from the description that helion/runtime/launch/plan.py recorded, and its attributes. Cold, so
// it is written with pybind11; nothing here runs once a plan exists.

#include "plan.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <new>

namespace py = pybind11;

namespace helion {
namespace {

LaunchPlan* as_plan(PyObject* self) { return reinterpret_cast<LaunchPlan*>(self); }

TensorShape read_shape(const py::handle& sizes, const py::handle& strides, const py::handle& dtype,
                       const py::handle& device) {
  TensorShape shape{sizes.cast<std::vector<int64_t>>(), strides.cast<std::vector<int64_t>>(),
                    c10::ScalarType::Undefined, c10::Device(c10::DeviceType::CPU)};
  if (shape.sizes.size() != shape.strides.size()) throw py::value_error("sizes and strides differ in length");
  if (!read_dtype(dtype.ptr(), &shape.dtype)) throw py::type_error("expected a torch.dtype");
  if (!read_device(device.ptr(), &shape.device)) throw py::type_error("expected a torch.device");
  return shape;
}

class Builder {
 public:
  Builder(ModuleState* state, LaunchPlan::Body* body) : state_(state), body_(body) {}

  // ("empty", sizes, strides, dtype, device, pooled)
  void buffer(const py::tuple& item) {
    body_->buffers.push_back({read_shape(item[1], item[2], item[3], item[4]), item[5].cast<bool>(), false});
  }

  void step(const py::tuple& item) {
    const std::string kind = item[0].cast<std::string>();
    PlanStep step;
    if (kind == "fill") {  // ("fill", ref, value)
      step.filled = ref(item[1]);
      step.fill_value = scalar(item[2]);
    } else if (kind == "launch") {  // ("launch", spec, grid, sources)
      if (!is_launch_spec(state_, item[1].ptr())) throw py::type_error("a launch needs a LaunchSpec");
      step.spec = PyRef::borrow(py::handle(item[1]).ptr());
      ++body_->launch_count;
      const py::tuple grid = item[2];
      if (grid.empty() || grid.size() > 3) throw py::value_error("a grid has one to three dimensions");
      for (size_t i = 0; i < grid.size(); ++i) step.grid[i] = grid[i].cast<unsigned>();
      const LaunchSpec& spec = *reinterpret_cast<LaunchSpec*>(item[1].ptr());
      const py::tuple sources = item[3];
      if (sources.size() != spec.body.params.size()) {
        throw py::value_error("a launch needs one source for each parameter of its kernel");
      }
      for (size_t i = 0; i < sources.size(); ++i) {
        step.sources.push_back(source(sources[i], spec.body.params[i].type));
      }
      if (spec.body.device != body_->device) throw py::value_error("a launch is for another device than the plan");
    } else {
      throw py::value_error("unknown step: " + kind);
    }
    body_->steps.push_back(std::move(step));
  }

  PlanResult result(const py::handle& object) {
    const py::tuple item = py::reinterpret_borrow<py::tuple>(object);
    const std::string kind = item[0].cast<std::string>();
    PlanResult result;
    if (kind == "object") {  // ("object", value)
      result.object = PyRef::borrow(py::handle(item[1]).ptr());
    } else if (kind == "tensor") {  // ("tensor", ref)
      result.kind = PlanResult::Kind::kTensor;
      result.tensor = returned(item[1]);
    } else if (kind == "view") {  // ("view", ref, sizes, strides, offset in elements)
      result.kind = PlanResult::Kind::kView;
      result.tensor = returned(item[1]);
      result.shape.sizes = item[2].cast<std::vector<int64_t>>();
      result.shape.strides = item[3].cast<std::vector<int64_t>>();
      result.offset = item[4].cast<int64_t>();
    } else if (kind == "tuple" || kind == "list") {  // ("tuple", item, item, ...)
      result.kind = kind == "tuple" ? PlanResult::Kind::kTuple : PlanResult::Kind::kList;
      for (size_t i = 1; i < item.size(); ++i) result.items.push_back(this->result(item[i]));
    } else {
      throw py::value_error("unknown result: " + kind);
    }
    return result;
  }

 private:
  // ("input", leaf) or ("buffer", number)
  TensorRef ref(const py::handle& object) {
    const py::tuple item = py::reinterpret_borrow<py::tuple>(object);
    const std::string kind = item[0].cast<std::string>();
    const TensorRef ref{kind == "input", item[1].cast<uint32_t>()};
    if (!ref.is_input && kind != "buffer") throw py::value_error("unknown tensor: " + kind);
    if (ref.index >= (ref.is_input ? body_->leaf_count : body_->buffers.size())) {
      throw py::index_error("a step names a tensor that is not there");
    }
    return ref;
  }

  TensorRef returned(const py::handle& object) {
    const TensorRef found = ref(object);
    if (!found.is_input) body_->buffers[found.index].returned = true;
    return found;
  }

  // ("input", leaf, byte offset), ("buffer", number, byte offset), ("number", leaf), ("constant", value)
  Source source(const py::handle& object, ParamType type) {
    const py::tuple item = py::reinterpret_borrow<py::tuple>(object);
    const std::string kind = item[0].cast<std::string>();
    Source source{Source::Kind::kConstant, type, 0, 0};
    if (kind == "input" || kind == "buffer") {
      if (type != ParamType::kPointer) throw py::type_error("a tensor is passed where the kernel takes a number");
      const TensorRef found = ref(item);
      source.kind = found.is_input ? Source::Kind::kInputAddress : Source::Kind::kBufferAddress;
      source.index = found.index;
      source.value = static_cast<uint64_t>(item[2].cast<int64_t>());
    } else if (kind == "number") {
      source.kind = Source::Kind::kInputNumber;
      source.index = item[1].cast<uint32_t>();
      if (source.index >= body_->leaf_count) throw py::index_error("a step names an argument that is not there");
    } else if (kind == "constant") {
      if (!store_scalar(type, py::handle(item[1]).ptr(), &source.value)) throw py::error_already_set();
    } else {
      throw py::value_error("unknown source: " + kind);
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
};

// LaunchPlan(leaf_count, device, buffers, steps, result, written=())
PyObject* plan_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  ModuleState* state = state_of_type(type);
  if (state == nullptr) return nullptr;
  static const char* keywords[] = {"leaf_count", "device", "buffers", "steps", "result", "written", nullptr};
  Py_ssize_t leaf_count = 0;
  long device = 0;
  PyObject *buffers = nullptr, *steps = nullptr, *result = nullptr, *written = nullptr;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nlO!O!O!|O!:LaunchPlan", const_cast<char**>(keywords), &leaf_count,
                                   &device, &PyTuple_Type, &buffers, &PyTuple_Type, &steps, &PyTuple_Type, &result, &PyTuple_Type, &written)) {
    return nullptr;
  }
  if (!state->environment.load(state)) return nullptr;
  PyRef self = PyRef::steal(type->tp_alloc(type, 0));
  if (!self) return nullptr;
  LaunchPlan* plan = as_plan(self.get());
  plan->state = state;
  new (&plan->body) LaunchPlan::Body();  // tp_dealloc destroys it, whatever happens below
  plan->body.leaf_count = static_cast<size_t>(leaf_count);
  plan->body.device = device;
  plan->body.default_dtype = default_dtype();
  try {
    Builder builder(state, &plan->body);
    for (const py::handle item : py::handle(buffers)) builder.buffer(py::reinterpret_borrow<py::tuple>(item));
    for (const py::handle item : py::handle(steps)) builder.step(py::reinterpret_borrow<py::tuple>(item));
    plan->body.result = builder.result(result);
    for (const py::handle item : written != nullptr ? py::reinterpret_borrow<py::tuple>(written) : py::tuple()) {
      const uint32_t leaf = item.cast<uint32_t>();
      if (leaf >= plan->body.leaf_count) throw py::index_error("a leaf that is not there is written");
      plan->body.written.push_back(leaf);
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

int visit_result(const PlanResult& result, visitproc visit, void* arg) {
  if (int answer = result.object.visit(visit, arg)) return answer;
  for (const PlanResult& item : result.items) {
    if (int answer = visit_result(item, visit, arg)) return answer;
  }
  return 0;
}

int plan_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  const LaunchPlan::Body& body = as_plan(self)->body;
  for (const PlanStep& step : body.steps) {
    if (int answer = step.spec.visit(visit, arg)) return answer;
  }
  return visit_result(body.result, visit, arg);
}

int plan_clear(PyObject* self) {
  LaunchPlan::Body old;
  std::swap(old, as_plan(self)->body);
  return 0;
}

void plan_dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  as_plan(self)->body.~Body();
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* plan_repr(PyObject* self) {
  const LaunchPlan::Body& body = as_plan(self)->body;
  return PyUnicode_FromFormat("<LaunchPlan: %zu buffers, %zu launches, %zu fills>", body.buffers.size(),
                              body.launch_count, body.steps.size() - body.launch_count);
}

PyObject* plan_runs(PyObject* self, void*) { return PyLong_FromUnsignedLongLong(as_plan(self)->body.runs); }

PyGetSetDef plan_attributes[] = {
    {"runs", plan_runs, nullptr, "How many calls this plan served.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyDoc_STRVAR(plan_doc,
             "LaunchPlan(leaf_count, device, buffers, steps, result, written=())\n--\n\n"
             "A host function as data: what it allocates, launches and returns. See helion/runtime/launch/plan.py.");

PyType_Slot plan_slots[] = {
    {Py_tp_doc, const_cast<char*>(plan_doc)},
    {Py_tp_new, reinterpret_cast<void*>(plan_new)},
    {Py_tp_dealloc, reinterpret_cast<void*>(plan_dealloc)},
    {Py_tp_traverse, reinterpret_cast<void*>(plan_traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(plan_clear)},
    {Py_tp_repr, reinterpret_cast<void*>(plan_repr)},
    {Py_tp_getset, plan_attributes},
    {0, nullptr},
};

PyType_Spec plan_spec = {
    "helion._C.LaunchPlan", sizeof(LaunchPlan), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, plan_slots,
};

}  // namespace

int add_plan(PyObject* module) {
  PyObject* type = PyType_FromModuleAndSpec(module, &plan_spec, nullptr);
  if (type == nullptr) return -1;
  state_of_module(module)->plan_type = reinterpret_cast<PyTypeObject*>(type);
  return PyModule_AddType(module, reinterpret_cast<PyTypeObject*>(type));
}

}  // namespace helion
