// The only file that touches at::Tensor: what the extension reads from a tensor object, and how it makes one.
//
// A TensorView is a borrowed look at a torch.Tensor whose exact type is torch.Tensor or torch.nn.Parameter. It never
// owns a reference; the Python object must outlive it. Everything else (subclasses, FakeTensor, tensors wrapped by a
// torch.func transform, conjugate or negative views, sparse or quantized layouts, symbolic sizes) is refused by
// `TensorView::plain`, and the caller takes the Python path.
#pragma once

#include "common.h"

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty_strided.h>
#include <c10/core/Allocator.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/GradMode.h>
#include <c10/core/TensorImpl.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/Device.h>
#include <torch/csrc/DynamicTypes.h>
#include <torch/csrc/Dtype.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>

#include <exception>
#include <utility>
#include <vector>

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

  static bool is_parameter(PyObject* object) { return Py_TYPE(object) == reinterpret_cast<PyTypeObject*>(ParameterClass); }

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

// Whether an operation on a tensor that requires grad would have to be recorded now.
inline bool grad_enabled() { return c10::GradMode::is_enabled(); }

// torch.get_default_dtype().
inline c10::ScalarType default_dtype() { return c10::get_default_dtype_as_scalartype(); }

// A tensor that helion owns, as opposed to a TensorView.
class OwnedTensor {
 public:
  OwnedTensor() = default;
  explicit OwnedTensor(at::Tensor tensor) : tensor_(std::move(tensor)) {}

  void* data() const { return tensor_.unsafeGetTensorImpl()->mutable_data(); }
  bool defined() const { return tensor_.defined(); }
  const at::Tensor& get() const { return tensor_; }
  // A torch.Tensor for it, a new reference; null with an exception on failure.
  PyObject* wrap() && { return THPVariable_Wrap(std::move(tensor_)); }

 private:
  at::Tensor tensor_;
};

// What an allocation needs to know: all of it fixed when a plan is made.
struct TensorShape {
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  c10::ScalarType dtype;
  c10::Device device;
};

// torch.empty_strided, except that the call does not go through the dispatcher where the result is the same. Throws what
// ATen throws. Precondition: plain_torch_state(), and the current device is `shape.device`.
inline OwnedTensor allocate(const TensorShape& shape) {
  const c10::DeviceType type = shape.device.type();
  const bool simple = (type == c10::DeviceType::CPU || type == c10::DeviceType::CUDA) &&
      // torch.use_deterministic_algorithms() may ask for new memory to be filled.
      !at::globalContext().deterministicAlgorithms();
  if (!simple) {
    return OwnedTensor(at::empty_strided(shape.sizes, shape.strides,
                                         at::TensorOptions().dtype(shape.dtype).device(shape.device)));
  }
  const c10::DispatchKey key = type == c10::DeviceType::CPU ? c10::DispatchKey::CPU : c10::DispatchKey::CUDA;
  // The device's caching allocator, as registered: what at::empty_strided's kernel for the device calls.
  return OwnedTensor(at::Tensor(at::detail::empty_strided_generic(
      shape.sizes, shape.strides, c10::GetAllocator(type), c10::DispatchKeySet(key), shape.dtype)));
}

// tensor.as_strided(...), and in-place fills. Throw what ATen throws.
inline OwnedTensor view_of(PyObject* base, const TensorShape& shape, int64_t offset) {
  const at::Tensor& tensor = THPVariable_Unpack(base);
  return OwnedTensor(at::as_strided(tensor, shape.sizes, shape.strides, tensor.storage_offset() + offset));
}
inline OwnedTensor view_of(const OwnedTensor& base, const TensorShape& shape, int64_t offset) {
  return OwnedTensor(at::as_strided(base.get(), shape.sizes, shape.strides, offset));
}
inline void fill(PyObject* tensor, const at::Scalar& value) { THPVariable_Unpack(tensor).fill_(value); }
inline void fill(const OwnedTensor& tensor, const at::Scalar& value) { tensor.get().fill_(value); }

// Turns the C++ exception that is being handled into a Python one. For use in a catch block.
inline void set_error_from_exception() { torch::translate_exception_to_python(std::current_exception()); }

// The values in a torch.dtype and a torch.device object; false if it is not one.
inline bool read_dtype(PyObject* object, c10::ScalarType* dtype) {
  if (!THPDtype_Check(object)) return false;
  *dtype = reinterpret_cast<THPDtype*>(object)->scalar_type;
  return true;
}
inline bool read_device(PyObject* object, c10::Device* device) {
  if (Py_TYPE(object) != &THPDeviceType) return false;
  *device = reinterpret_cast<THPDevice*>(object)->device;
  return true;
}

// torch.float32 and its like. Borrowed: dtype objects live as long as torch.
inline PyObject* dtype_object(c10::ScalarType type) { return reinterpret_cast<PyObject*>(torch::getTHPDtype(type)); }

}  // namespace helion
