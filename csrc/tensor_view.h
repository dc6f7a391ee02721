// The only file that touches at::Tensor: what the extension reads from a tensor object, and how it makes one.
//
// A TensorView is a borrowed look at a torch.Tensor whose exact type is torch.Tensor or torch.nn.Parameter. It never
// owns a reference; the Python object must outlive it. Everything else (subclasses, FakeTensor, tensors wrapped by a
// torch.func transform, conjugate or negative views, sparse or quantized layouts, symbolic sizes) is refused by
// `TensorView::plain`, and the caller takes the Python path.
#pragma once

#include "common.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/GradMode.h>
#include <c10/core/TensorImpl.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/DynamicTypes.h>
#include <torch/csrc/Dtype.h>
#include <torch/csrc/autograd/python_variable.h>

namespace helion {

// Dispatch keys a plain strided tensor may carry: its backend's Dense key, autograd, autocast and in-place/view
// tracking. A tensor with any other key (Python, Conj, Negative, Sparse*, FuncTorch*, Functionalize, ...) means that
// reading it here would not mean what it means to PyTorch.
inline bool has_only_plain_keys(c10::DispatchKeySet keys) {
  static const uint64_t allowed = []() {
    constexpr uint64_t backend_bits = (uint64_t{1} << static_cast<uint8_t>(c10::BackendComponent::EndOfBackendKeys)) - 1;
    const c10::DispatchKeySet plain =
        c10::DispatchKeySet(c10::DispatchKey::Dense) | c10::DispatchKeySet(c10::DispatchKey::AutogradFunctionality) |
        c10::DispatchKeySet(c10::DispatchKey::AutogradOther) | c10::DispatchKeySet(c10::DispatchKey::ADInplaceOrView) |
        c10::autocast_dispatch_keyset;
    return plain.raw_repr() | backend_bits;
  }();
  return (keys.raw_repr() & ~allowed) == 0;
}

class TensorView {
 public:
  // Whether `object` is exactly a torch.Tensor or a torch.nn.Parameter (not a subclass).
  static bool exact(PyObject* object) { return THPVariable_CheckTypeExact(Py_TYPE(object)); }

  // Precondition: exact(object).
  explicit TensorView(PyObject* object) : impl_(THPVariable_Unpack(object).unsafeGetTensorImpl()) {}

  // Whether sizes, strides, data and dtype can be read directly.
  bool plain() const {
    return has_only_plain_keys(impl_->key_set()) && !impl_->has_symbolic_sizes_strides() && impl_->has_storage() &&
        impl_->layout() == c10::Layout::Strided;
  }

  c10::IntArrayRef sizes() const { return impl_->sizes(); }
  c10::IntArrayRef strides() const { return impl_->strides(); }
  c10::ScalarType scalar_type() const { return c10::typeMetaToScalarType(impl_->dtype()); }
  c10::Device device() const { return impl_->device(); }
  uint64_t keys() const { return impl_->key_set().raw_repr(); }
  bool requires_grad() const { return impl_->requires_grad(); }

  // What Tensor.data_ptr() returns in Python; like it, this gives a lazily cloned tensor memory of its own.
  void* data() const { return impl_->mutable_data(); }

 private:
  c10::TensorImpl* impl_;
};

// Whether an operation on plain tensors means in this thread what it means by default: no torch function mode, no dispatch
// mode, no torch.func transform, no tracing. no_grad, inference_mode and autocast do not matter to a launch.
inline bool plain_torch_state() {
  static const uint64_t allowed =
      (c10::DispatchKeySet(c10::DispatchKey::BackendSelect) | c10::DispatchKeySet(c10::DispatchKey::ADInplaceOrView))
          .raw_repr();
  return (c10::impl::tls_local_dispatch_key_set().included_.raw_repr() & ~allowed) == 0 &&
      !at::impl::torch_function_mode_enabled();
}

// torch.float32 and its like. Borrowed: dtype objects live as long as torch.
inline PyObject* dtype_object(c10::ScalarType type) { return reinterpret_cast<PyObject*>(torch::getTHPDtype(type)); }

}  // namespace helion
