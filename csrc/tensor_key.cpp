// tensor_key: the part of a specialization key that one tensor contributes, under static shapes.

#include "state.h"
#include "tensor_view.h"

namespace helion {
namespace {

// A tuple of Python ints; null with an exception on failure.
PyRef int_tuple(c10::IntArrayRef values) {
  PyRef tuple = PyRef::steal(PyTuple_New(static_cast<Py_ssize_t>(values.size())));
  if (!tuple) return tuple;
  for (size_t i = 0; i < values.size(); ++i) {
    PyObject* item = PyLong_FromLongLong(values[i]);
    if (item == nullptr) return PyRef();
    PyTuple_SET_ITEM(tuple.get(), static_cast<Py_ssize_t>(i), item);  // the tuple owns it now
  }
  return tuple;
}

// 1 if `owner` (a Settings, or anything with a `.settings`) asks for static shapes, 0 if not, -1 on error. An object
// that says nothing about it has the default, static shapes.
int wants_static_shapes(const ModuleState* state, PyObject* owner) {
  PyObject* value = nullptr;
  int found = get_optional_attr(owner, state->names.static_shapes, &value);
  if (found == 0) {
    PyObject* settings = nullptr;
    found = get_optional_attr(owner, state->names.settings, &settings);
    if (found <= 0) return found < 0 ? -1 : 1;
    PyRef hold_settings = PyRef::steal(settings);
    found = get_optional_attr(settings, state->names.static_shapes, &value);
  }
  if (found <= 0) return found < 0 ? -1 : 1;
  PyRef hold_value = PyRef::steal(value);
  return PyObject_IsTrue(value);
}

PyObject* tensor_key(PyObject* module, PyObject* const* args, Py_ssize_t count) {
  if (count != 2) {
    PyErr_Format(PyExc_TypeError, "tensor_key() takes 2 arguments (fn_or_settings, tensor), got %zd", count);
    return nullptr;
  }
  const ModuleState* state = state_of_module(module);
  const int static_shapes = wants_static_shapes(state, args[0]);
  if (static_shapes < 0) return nullptr;
  if (static_shapes == 0 || !TensorView::exact(args[1])) Py_RETURN_NONE;
  const TensorView tensor(args[1]);
  if (!tensor.plain()) Py_RETURN_NONE;

  PyRef sizes = int_tuple(tensor.sizes());
  if (!sizes) return nullptr;
  PyRef strides = int_tuple(tensor.strides());
  if (!strides) return nullptr;
  PyObject* indices = nullptr;
  if (get_optional_attr(args[1], state->names.dynamo_static_indices, &indices) < 0) return nullptr;
  PyRef static_indices;
  if (indices != nullptr) {
    PyRef found = PyRef::steal(indices);
    static_indices = PyRef::steal(PyFrozenSet_New(indices));
    if (!static_indices) return nullptr;
  } else {
    static_indices = PyRef::steal(PyFrozenSet_New(nullptr));
    if (!static_indices) return nullptr;
  }
  return PyTuple_Pack(4, dtype_object(tensor.scalar_type()), sizes.get(), strides.get(), static_indices.get());
}

PyDoc_STRVAR(tensor_key_doc,
             "tensor_key(fn_or_settings, tensor, /)\n--\n\n"
             "The key (dtype, sizes, strides, static_indices) of a tensor under static shapes, or None where the\n"
             "Python path has to make it: dynamic shapes, subclasses, symbolic sizes, wrapped or non-strided tensors.");

PyMethodDef tensor_key_methods[] = {
    {"tensor_key", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(tensor_key)), METH_FASTCALL,
     tensor_key_doc},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int add_tensor_key(PyObject* module) { return PyModule_AddFunctions(module, tensor_key_methods); }

}  // namespace helion
