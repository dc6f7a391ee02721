// What a launch has to ask of the rest of the process each time: the current device and stream, and the Triton knobs
// and hooks that may have changed since a kernel was compiled.
#pragma once

#include "dict_item.h"
#include "torch_device.h"

namespace helion {

struct ModuleState;

// Triton's knobs as they were when a launch spec was made. Two specs that differ in them are different binaries.
struct KnobValues {
  PyRef debug;                 // knobs.runtime.debug
  PyRef instrumentation_mode;  // knobs.compilation.instrumentation_mode
  PyRef stages_hook;           // knobs.runtime.add_stages_inspection_hook

  KnobValues copy() const { return {debug.copy(), instrumentation_mode.copy(), stages_hook.copy()}; }
  int visit_all(visitproc visit, void* arg) const;
};

// The dicts with all of Triton's knobs and hooks as they were at some time, and the hooks' lists of `calls`, which are
// those of the dicts as long as these are the same.
struct TritonVersions {
  DictVersion runtime, compilation, enter, exit;
  PyObject* enter_calls = nullptr;
  PyObject* exit_calls = nullptr;
};

// An object of triton.knobs. What was assigned is in its __dict__; defaults are attributes of its class, which nobody
// assigns to, so they are read once.
struct KnobGroup {
  PyRef object;
  PyRef dict;

  // Current value of a knob whose default is `fallback`; never null.
  PyRef get(PyObject* name, const PyRef& fallback) const;
};

// A launch hook that Triton starts with: an object with a list of `calls`.
struct DefaultHook {
  PyRef object;
  PyRef dict;  // its __dict__, null if the hook is something else
  DictItem calls;
};

// Owned by the module state. Its references are made on first use, since helion.runtime imports this extension.
class Environment {
 public:
  // Imports helion.runtime.device once. False with an exception on failure.
  bool load(const ModuleState* state);
  // Imports triton.knobs once, for the first kernel that is Triton's: binaries from a bundle need no Triton. False with
  // an exception on failure.
  bool load_knobs(const ModuleState* state);

  // Whether the two questions below have the answers of the last call that asked them, and the first of them is no: the
  // usual answer, without asking.
  HELION_HOT bool steady() const {
    return measuring_item_.known(measure_dict_.get()) == Py_False && provider_ &&
        provider_item_.known(device_dict_.get()) == provider_.get();
  }
  // Notes which provider answers for the device from here on. False with an exception on failure.
  bool refresh_provider(const ModuleState* state);
  PyObject* provider() const { return provider_.get(); }  // borrowed
  // Whether an at::Device tells apart what the provider's devices own. A software device, whose tensors all live in
  // host memory, has a tag function of its own.
  bool native_tags() const { return native_tags_; }
  // The provider's tag of the device that `tensor` lives on. False with an exception on failure.
  bool device_tag(const ModuleState* state, PyObject* tensor, uint64_t* tag) const;

  // Index of the calling thread's current device, or -1 with an exception.
  HELION_HOT long current_device(const ModuleState* state) const {
    if (const long index = torch_answers() ? torch_device_.current() : -1; index >= 0) return index;
    return ask_current_device(state);
  }
  // Raw stream that is current on `device` now. False with an exception on failure.
  HELION_HOT bool current_stream(const ModuleState* state, long device, uintptr_t* stream) const {
    if (torch_answers() && torch_device_.stream(device, stream)) return true;
    return ask_current_stream(state, device, stream);
  }

  // Makes a device current, as the provider's guard does. Null with an exception on failure, else what to leave again.
  PyRef enter_device(const ModuleState* state, long device) const;

  // Whether `stream` is being captured into a graph: 1, 0, or -1 with an exception.
  int is_capturing(const ModuleState* state, uintptr_t stream) const;

  // The knobs as they are now.
  void read_knobs(const ModuleState* state, KnobValues* values) const;
  // Whether they are still what they were: 1, 0, or -1 with an exception.
  int same_knobs(const ModuleState* state, const KnobValues& values) const;
  // Whether nothing was assigned since `versions` were noted, when the knobs were right for a binary and no hook
  // watched, and no hook watches now. The usual answer, in a tenth of the time of the two questions.
  HELION_HOT bool triton_unchanged(const TritonVersions& versions) const {
    return versions.enter_calls != nullptr && versions.runtime.holds(runtime_.dict.get()) &&
        versions.compilation.holds(compilation_.dict.get()) && versions.enter.holds(enter_.dict.get()) &&
        versions.exit.holds(exit_.dict.get()) && PyList_GET_SIZE(versions.enter_calls) == 0 &&
        PyList_GET_SIZE(versions.exit_calls) == 0;
  }
  TritonVersions triton_versions(const ModuleState* state) const;
  // Whether Triton was not imported when that was asked last, and nothing was imported since.
  HELION_HOT bool triton_absent() const {
    return modules_ && triton_missing_.holds(modules_.get());
  }
  // Whether no knob of Triton's was set and no hook watches, for a binary of Triton's in a process that need not have
  // loaded Triton: 1, 0, or -1 with an exception.
  int triton_untouched(const ModuleState* state);
  // Whether binds are being counted (HELION_MEASURE_COMPILE_TIME), hits included: 1, 0, or -1 with an exception.
  int measuring(const ModuleState* state) const;
  // Whether a launch hook (a profiler's, say) wants to see launches: 1, 0, or -1 with an exception.
  int hooks_active(const ModuleState* state) const;

  int visit_all(visitproc visit, void* arg) const;
  void clear_all();

 private:
  int hook_active(const ModuleState* state, PyObject* name, const DefaultHook& known) const;
  // Whether device and stream are those of PyTorch's functions, as the provider's __dict__ said when it was what it is.
  HELION_HOT bool torch_answers() const { return provider_dict_ && torch_functions_.holds(provider_dict_.get()); }
  long ask_current_device(const ModuleState* state) const;
  bool ask_current_stream(const ModuleState* state, long device, uintptr_t* stream) const;
  // A function of the provider, whose `item` it is where it is an attribute of the instance; null with an exception.
  DictItem::Held provider_function(PyObject* name, const DictItem& item) const;

  bool loaded_ = false;
  bool native_tags_ = true;
  PyRef provider_;          // the provider that refresh_provider() saw last
  PyRef get_device_;        // torch.Tensor.get_device
  PyRef device_dict_;       // helion.runtime.device.__dict__, where `provider` is looked up on every launch
  PyRef measure_dict_;      // helion.runtime.measure.__dict__
  PyRef provider_dict_;     // its __dict__, or null
  // PyTorch's functions for the current CUDA device and stream. Where the provider has these, they need not be called.
  PyRef torch_current_device_;
  PyRef torch_current_stream_;
  TorchDevice torch_device_;
  mutable DictVersion torch_functions_;  // of the provider's __dict__ when both of its functions were PyTorch's
  PyRef modules_;              // sys.modules
  DictVersion triton_missing_;  // of sys.modules, when triton.knobs was not in it
  DictItem provider_item_, measuring_item_, current_device_item_, current_stream_item_;
  KnobGroup runtime_;       // triton.knobs.runtime
  KnobGroup compilation_;   // triton.knobs.compilation
  KnobValues defaults_;
  DefaultHook enter_;
  DefaultHook exit_;
};

// Another device made current, for as long as this lives.
class DeviceSwitch {
 public:
  DeviceSwitch() = default;
  DeviceSwitch(const DeviceSwitch&) = delete;
  DeviceSwitch& operator=(const DeviceSwitch&) = delete;
  ~DeviceSwitch();

  // Called once. False with an exception on failure.
  bool to(const ModuleState* state, long device);

 private:
  const ModuleState* state_ = nullptr;
  PyRef entered_;
};

}  // namespace helion
