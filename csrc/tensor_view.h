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
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty_strided.h>
#include <c10/core/Allocator.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/TensorImpl.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/Device.h>
#include <torch/csrc/DynamicTypes.h>
#include <torch/csrc/Dtype.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>

#include <exception>
#include <optional>
#include <utility>
#include <vector>
#include <c10/core/AutogradState.h>
#include <torch/csrc/autograd/forward_grad.h>
#include <torch/csrc/autograd/variable.h>

namespace helion {

// Dispatch keys a plain strided tensor may carry: its backend's Dense key, autograd, autocast and in-place/view
// tracking. A tensor with any other key (Python, Conj, Negative, Sparse*, FuncTorch*, Functionalize, ...) means that
// reading it here would not mean what it means to PyTorch.
inline const uint64_t kPlainKeys = []() {
  constexpr uint64_t backend_bits = (uint64_t{1} << static_cast<uint8_t>(c10::BackendComponent::EndOfBackendKeys)) - 1;
  const c10::DispatchKeySet plain =
      c10::DispatchKeySet(c10::DispatchKey::Dense) | c10::DispatchKeySet(c10::DispatchKey::AutogradFunctionality) |
      c10::DispatchKeySet(c10::DispatchKey::AutogradOther) | c10::DispatchKeySet(c10::DispatchKey::ADInplaceOrView) |
      c10::autocast_dispatch_keyset;
  return plain.raw_repr() | backend_bits;
}();
inline bool has_only_plain_keys(c10::DispatchKeySet keys) { return (keys.raw_repr() & ~kPlainKeys) == 0; }

class TensorView {
 public:
  // Whether `object` is exactly a torch.Tensor or a torch.nn.Parameter (not a subclass).
  static bool exact(PyObject* object) { return THPVariable_CheckTypeExact(Py_TYPE(object)); }

  static bool is_parameter(PyObject* object) {
    return Py_TYPE(object) == reinterpret_cast<PyTypeObject*>(ParameterClass);
  }

  // Precondition: exact(object).
  explicit TensorView(PyObject* object) : impl_(THPVariable_Unpack(object).unsafeGetTensorImpl()) {}

  // Whether sizes, strides, data and dtype can be read directly. With plain keys the layout is strided.
  bool plain() const { return plain(autograd()); }
  // The same where `autograd()` is known.
  HELION_HOT bool plain(const torch::autograd::AutogradMeta* meta) const {
    return has_only_plain_keys(impl_->key_set()) && !impl_->has_symbolic_sizes_strides() &&
        static_cast<bool>(impl_->unsafe_storage()) && !(meta != nullptr && dual(*meta));
  }

  // What autograd knows of it; null for most tensors, which then neither require grad nor carry a tangent.
  const torch::autograd::AutogradMeta* autograd() const {
    return static_cast<const torch::autograd::AutogradMeta*>(impl_->autograd_meta());
  }

  // Whether it carries a tangent of forward-mode AD, which a launch would lose. Not where forward-mode AD is off, as in
  // the forward of an autograd.Function.
  static bool dual(const torch::autograd::AutogradMeta& meta) {
    return meta.fw_grad_ != nullptr && !meta.fw_grad_->empty() &&
        c10::AutogradState::get_tls_state().get_fw_grad_mode();
  }

  c10::IntArrayRef sizes() const { return impl_->sizes(); }
  c10::IntArrayRef strides() const { return impl_->strides(); }
  c10::ScalarType scalar_type() const { return c10::typeMetaToScalarType(impl_->dtype()); }
  c10::Device device() const { return impl_->device(); }
  uint64_t keys() const { return impl_->key_set().raw_repr(); }
  bool requires_grad() const { return impl_->requires_grad(); }
  // Whether torch.empty_like of it has the same strides.
  bool dense() const { return impl_->is_non_overlapping_and_dense(); }
  // Tells autograd that it was written in place. Inference tensors have no counter.
  void bump_version() const {
    if (impl_->version_counter().enabled()) impl_->bump_version();
  }

  // What Tensor.data_ptr() returns in Python; like it, this gives a lazily cloned tensor memory of its own.
  // Precondition: plain(). (TensorImpl::mutable_data is the same with a virtual call and checks that plain() has done.)
  void* data() const {
    bool there = false;
    return reinterpret_cast<void*>(address(&there));
  }
  // The same, and whether the memory is there: not where the storage was freed (resized to nothing) or never allocated.
  HELION_HOT uintptr_t address(bool* there) const {
    *there = true;
    if (impl_->numel() == 0) return 0;
    void* const base = impl_->unsafe_storage().mutable_data();
    *there = base != nullptr;
    const int64_t offset = impl_->storage_offset();
    return reinterpret_cast<uintptr_t>(base) +
        (offset == 0 ? 0 : static_cast<uintptr_t>(static_cast<int64_t>(impl_->dtype().itemsize()) * offset));
  }

  // Bytes from its first element to its last one, others' between them included. Precondition: plain(), and it has
  // elements.
  HELION_HOT size_t span() const {
    const size_t size = impl_->dtype().itemsize();
    if (impl_->is_contiguous()) return static_cast<size_t>(impl_->numel()) * size;
    return strided_span() * size;
  }

 private:
  // Elements from the first one to the last one.
  HELION_COLD size_t strided_span() const {
    int64_t last = 0;
    const c10::IntArrayRef sizes = impl_->sizes(), strides = impl_->strides();
    for (size_t i = 0; i < sizes.size(); ++i) last += (sizes[i] - 1) * strides[i];
    return static_cast<size_t>(last + 1);
  }

  c10::TensorImpl* impl_;
};

// Whether an operation on plain tensors means in this thread what it means by default: no torch function mode, no
// dispatch mode, no torch.func transform, no tracing. no_grad, inference_mode and autocast do not matter to a launch.
inline const uint64_t kPlainThreadKeys =
    (c10::DispatchKeySet(c10::DispatchKey::BackendSelect) | c10::DispatchKeySet(c10::DispatchKey::ADInplaceOrView))
        .raw_repr();
inline bool plain_torch_state() {
  return (c10::impl::tls_local_dispatch_key_set().included_.raw_repr() & ~kPlainThreadKeys) == 0 &&
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

  void* data() const { return tensor_.mutable_data_ptr(); }
  bool defined() const { return tensor_.defined(); }
  const at::Tensor& get() const { return tensor_; }
  // A torch.Tensor for it, a new reference; null with an exception on failure.
  PyObject* wrap() && { return THPVariable_Wrap(std::move(tensor_)); }

 private:
  at::Tensor tensor_;
};

// Whether somebody stored attributes on the object, or holds its __dict__ and would see, or make, those of the next
// user.
inline bool has_attributes(PyObject* object) {
  const Py_ssize_t offset = Py_TYPE(object)->tp_dictoffset;
  if (offset > 0) {
    // The slot itself; asking for __dict__ would make one.
    PyObject* dict = *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(object) + offset);
    return dict != nullptr && (PyDict_GET_SIZE(dict) != 0 || !has_references(dict, 1));
  }
  PyRef dict = PyRef::steal(PyObject_GenericGetDict(object, nullptr));
  if (!dict) {
    PyErr_Clear();
    return true;
  }
  return PyDict_GET_SIZE(dict.get()) != 0 || !has_references(dict.get(), 2);  // the object's reference and this one
}

// What an allocation needs to know: all of it fixed when a plan is made.
struct TensorShape {
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  c10::ScalarType dtype;
  c10::Device device;

  // Whether the strides are those of torch.empty(sizes); then also how many elements there are, unless that is more
  // than can be counted.
  HELION_HOT bool contiguous(int64_t* count) const {
    int64_t expected = 1;
    bool some = true;
    for (size_t i = sizes.size(); i-- > 0;) {
      if (sizes[i] < 0 || strides[i] != expected) return false;
      some = some && sizes[i] != 0;
      if (sizes[i] > 1 && __builtin_mul_overflow(expected, sizes[i], &expected)) return false;
    }
    *count = some ? expected : 0;
    return true;
  }
};

// torch.empty_strided, except that the call does not go through the dispatcher where the result is the same. Throws
// what ATen throws. Precondition: plain_torch_state(), and the current device is `shape.device`. It says why a shape
// cannot be, and warns of dtypes that PyTorch warns of.
inline OwnedTensor allocate_any(const TensorShape& shape) {
  const c10::DeviceType type = shape.device.type();
  const bool simple = (type == c10::DeviceType::CPU || type == c10::DeviceType::CUDA) &&
      // torch.use_deterministic_algorithms() may ask for new memory to be filled.
      !at::globalContext().deterministicAlgorithms();
  if (!simple) {
    return OwnedTensor(at::empty_strided(shape.sizes, shape.strides,
                                         at::TensorOptions().dtype(shape.dtype).device(shape.device)));
  }
  const c10::DispatchKeySet key(type == c10::DeviceType::CPU ? c10::DispatchKey::CPU : c10::DispatchKey::CUDA);
  // The device's caching allocator, as registered: what at::empty_strided's kernel for the device calls.
  c10::Allocator* allocator = c10::GetAllocator(type);
  return OwnedTensor(
      at::Tensor(at::detail::empty_strided_generic(shape.sizes, shape.strides, allocator, key, shape.dtype)));
}

// The same in fewer steps for the usual output: contiguous, on a device with memory of its own. What at::empty's kernel
// for the device makes, less the checks of what a plan's shape is known to be.
inline OwnedTensor allocate(const TensorShape& shape) {
  const c10::DeviceType type = shape.device.type();
  const caffe2::TypeMeta dtype = c10::scalarTypeToTypeMeta(shape.dtype);
  int64_t count = 0, bytes = 0;
  if ((type != c10::DeviceType::CPU && type != c10::DeviceType::CUDA) || shape.dtype == c10::ScalarType::ComplexHalf ||
      at::globalContext().deterministicAlgorithms() || !shape.contiguous(&count) ||
      __builtin_mul_overflow(count, static_cast<int64_t>(dtype.itemsize()), &bytes)) {
    return allocate_any(shape);
  }
  c10::Allocator* const allocator = c10::GetAllocator(type);
  const c10::DispatchKeySet key(type == c10::DeviceType::CPU ? c10::DispatchKey::CPU : c10::DispatchKey::CUDA);
  c10::Storage storage(c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), bytes, allocator->allocate(static_cast<size_t>(bytes)), allocator, true));
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), key, dtype);
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(shape.sizes);
  return OwnedTensor(std::move(tensor));
}

// Whether a tensor is a plain one of this shape, at an address that kernels compiled for aligned memory can take.
inline bool same_shape(PyObject* object, const TensorShape& shape) {
  if (!TensorView::exact(object)) return false;
  const TensorView view(object);
  return view.plain() && view.sizes() == c10::IntArrayRef(shape.sizes) &&
         view.strides() == c10::IntArrayRef(shape.strides) && view.scalar_type() == shape.dtype &&
         view.device() == shape.device && reinterpret_cast<uintptr_t>(view.data()) % 16 == 0;
}

// Whether autocast may change the dtypes of operations in this thread.
inline bool autocast_enabled() {
  for (const at::DeviceType type : {at::kCPU, at::kCUDA}) {
    if (at::autocast::is_autocast_enabled(type)) return true;
  }
  return false;
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

// While it lives, in-place operations leave version counters alone if `fresh`: they are part of making a tensor.
class FreshTensor {
 public:
  explicit FreshTensor(bool fresh) {
    if (fresh) guard_.emplace();
  }

 private:
  std::optional<at::AutoDispatchBelowADInplaceOrView> guard_;
};

// Whether new memory may have to be filled: torch.use_deterministic_algorithms().
inline bool deterministic() { return at::globalContext().deterministicAlgorithms(); }

// torch.is_inference_mode_enabled().
inline bool inference_mode() { return c10::InferenceMode::is_enabled(); }

// Bytes of memory under a tensor.
inline size_t storage_bytes(PyObject* tensor) { return THPVariable_Unpack(tensor).storage().nbytes(); }

// Whether a tensor, of whose Python object the caller holds the only reference, is as it was when `allocate(shape)`
// made it at `data`, and whether nothing else in the process can reach it or its memory.
inline bool unobserved(PyObject* object, const TensorShape& shape, const void* data, uint64_t keys) {
  // __class__ was assigned
  if (HELION_GUARD("pool_class", Py_TYPE(object) != reinterpret_cast<PyTypeObject*>(THPVariableClass))) return false;
  const at::Tensor& tensor = THPVariable_Unpack(object);
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  const c10::Storage& storage = impl->unsafe_storage();
  const bool tensor_shared =
      tensor.getIntrusivePtr().use_count() != 1 || tensor.getIntrusivePtr().weak_use_count() != 1;
  // One weak count stands for all owners, one is the temporary here.
  const bool storage_shared = storage.use_count() != 1 || storage.getWeakStorageImpl().weak_use_count() != 2;
  if (HELION_GUARD("pool_tensor", tensor_shared) || HELION_GUARD("pool_storage", storage_shared) ||
      HELION_GUARD("pool_weak_reference", *PyObject_GET_WEAKREFS_LISTPTR(object) != nullptr)) {
    return false;
  }
  // A user may have changed it in place: its shape, its flags, its version, its memory, or attributes of the object.
  const bool reshaped = impl->key_set().raw_repr() != keys || impl->storage_offset() != 0 || storage.data() != data ||
      impl->sizes() != c10::IntArrayRef(shape.sizes) || impl->strides() != c10::IntArrayRef(shape.strides) ||
      c10::typeMetaToScalarType(impl->dtype()) != shape.dtype ||
      !storage.resizable();  // Tensor.numpy() fixes the size of the memory for good
  if (HELION_GUARD("pool_shape", reshaped)) return false;
  if (HELION_GUARD("pool_autograd", impl->autograd_meta() != nullptr)) return false;
  const c10::VariableVersion& version = impl->version_counter();
  if (HELION_GUARD("pool_version", version.enabled() && version.current_version() != 0)) return false;
  const THPVariable* variable = reinterpret_cast<const THPVariable*>(object);
  if (variable->backward_hooks != nullptr || variable->post_accumulate_grad_hooks != nullptr) return false;
  return !HELION_GUARD("pool_attributes", has_attributes(object));
}

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
