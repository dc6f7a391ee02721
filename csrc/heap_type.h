// What the extension's types have in common: how an instance is made, seen by the garbage collector, and destroyed.
//
// An object type is a struct with PyObject_HEAD, `ModuleState* state` and a C++ part `Body body`, which has
//
//   int visit(visitproc visit, void* arg) const;   what it owns, for tp_traverse
//   void clear();                                  drops it: swaps it out first and destroys it then, since dropping a
//                                                  reference can run code that reaches the object again
#pragma once

#include "state.h"

#include <new>

namespace helion {

template <typename Object>
struct HeapType {
  static Object* as(PyObject* self) { return reinterpret_cast<Object*>(self); }

  // A new instance with an empty body, or null with an exception. From here on tp_dealloc destroys the body, whatever
  // happens to the caller.
  static PyRef make(PyTypeObject* type) {
    ModuleState* state = state_of_type(type);
    if (state == nullptr) return PyRef();
    PyRef self = PyRef::steal(type->tp_alloc(type, 0));
    if (self) {
      HELION_TSAN(acquire, self.get());
      as(self.get())->state = state;
      new (&as(self.get())->body) typename Object::Body();
    }
    return self;
  }

  static int traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));  // instances of heap types own a reference to their type
    return as(self)->body.visit(visit, arg);
  }

  static int clear(PyObject* self) {
    as(self)->body.clear();
    return 0;
  }

  static void dealloc(PyObject* self) {
    using Body = typename Object::Body;
    PyTypeObject* type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    HELION_TSAN(acquire, self);
    as(self)->body.~Body();
    HELION_TSAN(release, self);
    type->tp_free(self);
    Py_DECREF(type);
  }
};

// The rows of a PyType_Slot table that follow from the above.
#define HELION_LIFECYCLE(Object)                                              \
  {Py_tp_dealloc, reinterpret_cast<void*>(HeapType<Object>::dealloc)},        \
  {Py_tp_traverse, reinterpret_cast<void*>(HeapType<Object>::traverse)},      \
  {Py_tp_clear, reinterpret_cast<void*>(HeapType<Object>::clear)}

// __init_subclass__ of a type whose instances are called through vectorcall. A class may define __call__ in Python: it
// is what inspection, Dynamo and documentation
// see, and it must do what the call in C does. The call itself stays in C, which Python's class creation would undo.
inline PyObject* keep_vectorcall(PyObject* type, PyObject*, PyObject*) {
  PyTypeObject* subclass = reinterpret_cast<PyTypeObject*>(type);
  subclass->tp_call = PyVectorcall_Call;
  // Before 3.12 a class defined in Python never inherits this flag, since 3.12 defining __call__ takes it away; without
  // it calls go through tp_call, which packs a tuple first.
  subclass->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL;
  PyType_Modified(subclass);
  Py_RETURN_NONE;
}

// Makes the type and adds it to the module; `keep` gets a reference of its own if it is given. 0, or -1 with an
// exception.
inline int add_type(PyObject* module, PyType_Spec* spec, PyTypeObject** keep = nullptr) {
  PyRef type = PyRef::steal(PyType_FromModuleAndSpec(module, spec, nullptr));
  if (!type) return -1;
  PyTypeObject* made = reinterpret_cast<PyTypeObject*>(type.get());
  if (keep != nullptr) *keep = reinterpret_cast<PyTypeObject*>(Py_NewRef(type.get()));
  return PyModule_AddType(module, made);
}

}  // namespace helion
