// Forwarder: the C base type of helion.bound_kernel.BoundKernel. A call is one of the object `forward_to` with the same
// arguments; without one it is one of the method `_call_python`.

#include "heap_type.h"

#include <structmember.h>

#include <vector>

namespace helion {
namespace {

struct Forwarder {
  PyObject_HEAD
  vectorcallfunc vectorcall;
  ModuleState* state;
  struct Body {
    PyRef target;  // or null

    int visit(visitproc visit, void* arg) const { return target.visit(visit, arg); }
    void clear() { target.reset(); }
  } body;
};

Forwarder* as_forwarder(PyObject* self) { return HeapType<Forwarder>::as(self); }

PyRef target_of(PyObject* self) {
  const Alone alone(self);
  return as_forwarder(self)->body.target.copy();
}

PyObject* forwarder_vectorcall(PyObject* self, PyObject* const* args, size_t nargsf, PyObject* keyword_names) {
  PyRef target = target_of(self);
  // The place in front of the arguments, if the caller left one, is the target's to use.
  if (target) return PyObject_Vectorcall(target.get(), args, nargsf, keyword_names);
  PyRef method = PyRef::steal(PyObject_GetAttr(self, as_forwarder(self)->state->names.call_python));
  return method ? PyObject_Vectorcall(method.get(), args, nargsf, keyword_names) : nullptr;
}

PyObject* forwarder_new(PyTypeObject* type, PyObject*, PyObject*) {
  PyRef self = HeapType<Forwarder>::make(type);
  if (self) as_forwarder(self.get())->vectorcall = forwarder_vectorcall;
  return self.release();
}

int forwarder_init(PyObject*, PyObject*, PyObject*) { return 0; }

PyObject* get_target(PyObject* self, void*) {
  PyRef target = target_of(self);
  return target ? target.release() : Py_NewRef(Py_None);
}

int set_target(PyObject* self, PyObject* value, void*) {
  if (value == nullptr || (value != Py_None && !PyCallable_Check(value))) {
    PyErr_SetString(PyExc_TypeError, "forward_to must be callable or None");
    return -1;
  }
  PyRef target = value == Py_None ? PyRef() : PyRef::borrow(value);
  const Alone alone(self);
  std::swap(as_forwarder(self)->body.target, target);
  return 0;
}

PyMethodDef forwarder_methods[] = {
    {"__init_subclass__", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(keep_vectorcall)),
     METH_CLASS | METH_VARARGS | METH_KEYWORDS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef forwarder_attributes[] = {
    {"forward_to", get_target, set_target, "What calls run; None for the method `_call_python`.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyMemberDef forwarder_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Forwarder, vectorcall), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyDoc_STRVAR(forwarder_doc, "Forwarder()\n--\n\nBase of helion.BoundKernel: its calls are those of `forward_to`.");

PyType_Slot forwarder_slots[] = {
    {Py_tp_doc, const_cast<char*>(forwarder_doc)},
    {Py_tp_new, reinterpret_cast<void*>(forwarder_new)},
    {Py_tp_init, reinterpret_cast<void*>(forwarder_init)},
    {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
    HELION_LIFECYCLE(Forwarder),
    {Py_tp_methods, forwarder_methods},
    {Py_tp_getset, forwarder_attributes},
    {Py_tp_members, forwarder_members},
    {0, nullptr},
};

PyType_Spec forwarder_spec = {
    "helion._C.Forwarder",
    sizeof(Forwarder),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_VECTORCALL,
    forwarder_slots,
};

}  // namespace

int add_forwarder(PyObject* module) { return add_type(module, &forwarder_spec); }

}  // namespace helion
