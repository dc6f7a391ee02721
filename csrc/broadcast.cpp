// broadcast_tensors: torch.broadcast_tensors, which makes views even of tensors that have one shape already.

#include "state.h"
#include "tensor_view.h"

namespace helion {
namespace {

PyObject* broadcast_tensors(PyObject* module, PyObject* const* args, Py_ssize_t count) {
  bool equal = count > 0 && plain_torch_state();
  for (Py_ssize_t i = 0; i < count && equal; ++i) {
    equal = TensorView::exact(args[i]) && TensorView(args[i]).plain() &&
        TensorView(args[i]).sizes() == TensorView(args[0]).sizes();
  }
  if (equal) {
    PyObject* tuple = PyTuple_New(count);
    if (tuple == nullptr) return nullptr;
    for (Py_ssize_t i = 0; i < count; ++i) PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    return tuple;
  }
  (void)module;
  PyRef torch = PyRef::steal(PyImport_ImportModule("torch"));
  if (!torch) return nullptr;
  PyRef function = PyRef::steal(PyObject_GetAttrString(torch.get(), "broadcast_tensors"));
  if (!function) return nullptr;
  PyRef result = PyRef::steal(PyObject_Vectorcall(function.get(), args, static_cast<size_t>(count), nullptr));
  return result ? PySequence_Tuple(result.get()) : nullptr;
}

PyMethodDef broadcast_methods[] = {
    {"broadcast_tensors", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(broadcast_tensors)),
     METH_FASTCALL,
     "broadcast_tensors(*tensors)\n--\n\n"
     "The arguments themselves, as a tuple, if their shapes are equal, else torch.broadcast_tensors of them."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int add_broadcast(PyObject* module) { return PyModule_AddFunctions(module, broadcast_methods); }

}  // namespace helion
