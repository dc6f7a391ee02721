// The C entry to bundles: helion_bundle.h. The format is that of helion/bundles/container.py and manifest.py.

#include "helion_bundle.h"

#include "json.h"
#include "sha256.h"

#include <cuda.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

using helion::Json;

namespace {

constexpr char kMagic[9] = "\x89HLB\r\n\x1a\n";
constexpr uint32_t kFormat = 1;
constexpr size_t kHeader = 64;
constexpr int kMaxDynamicShared = 8, kNonPortableCluster = 14;  // CUfunction_attribute

[[noreturn]] void refuse(const std::string& why) { throw std::runtime_error(why); }

void check(CUresult result, const char* call) {
  if (result == CUDA_SUCCESS) return;
  const char* text = nullptr;
  cuGetErrorString(result, &text);
  refuse(std::string(call) + ": " + (text != nullptr ? text : "unknown error"));
}

// Runs `body`; what it throws becomes the text of `error` and `failed`.
template <typename Result, typename Body>
Result guarded(char* error, Result failed, Body body) {
  try {
    return body();
  } catch (const std::exception& why) {
    if (error != nullptr) std::snprintf(error, HELION_ERROR_SIZE, "%s", why.what());
    return failed;
  }
}

size_t item_size(const std::string& dtype) {
  static const std::map<std::string, size_t> sizes = {
      {"float64", 8}, {"float32", 4}, {"float16", 2}, {"bfloat16", 2},      {"int64", 8},
      {"int32", 4},   {"int16", 2},   {"int8", 1},    {"uint8", 1},         {"bool", 1},
      {"uint16", 2},  {"uint32", 4},  {"uint64", 8},  {"float8_e4m3fn", 1}, {"float8_e5m2", 1}};
  const auto found = sizes.find(dtype);
  if (found == sizes.end()) refuse("it has a tensor of " + dtype + ", which this library does not know");
  return found->second;
}

size_t extent(const Json& sizes, const Json& strides, size_t item) {
  size_t last = 0;
  for (size_t i = 0; i < sizes.items.size(); ++i) {
    const int64_t size = sizes.at(i).number(), stride = strides.at(i).number();
    if (size < 0 || stride < 0 || size > int64_t{1} << 46 || stride > int64_t{1} << 46)
      refuse("a size is out of range");
    if (size == 0) return 0;
    if (__builtin_mul_overflow(static_cast<size_t>(size - 1), static_cast<size_t>(stride), &last)) refuse("too large");
  }
  last = 0;
  for (size_t i = 0; i < sizes.items.size(); ++i) {
    last += static_cast<size_t>(sizes.at(i).number() - 1) * static_cast<size_t>(strides.at(i).number());
    if (last > size_t{1} << 46) refuse("a tensor is too large");
  }
  return item * (last + 1);
}

double real_of(const Json& value) {
  if (value.kind == Json::Kind::kList && value.at(size_t{0}).is("float"))
    return std::strtod(value.at(1).text.c_str(), nullptr);
  return static_cast<double>(value.integer);
}

// A number as a parameter of a binary stores it.
uint64_t stored(const std::string& type, int64_t integer, double real) {
  uint64_t bits = 0;
  if (type == "fp64") {
    std::memcpy(&bits, &real, 8);
  } else if (type == "fp32" || type == "f32" || type == "bf16") {
    const float single = static_cast<float>(real);
    uint32_t narrow = 0;
    std::memcpy(&narrow, &single, 4);
    bits = type == "bf16" ? narrow >> 16 : narrow;
  } else if (!type.empty() && (type[0] == 'i' || type[0] == 'u')) {
    bits = static_cast<uint64_t>(integer);
  } else {
    refuse("a parameter is of type " + type + ", which this library does not store");
  }
  return bits;
}

struct Source {
  enum class Kind { kArgument, kBuffer, kNumber, kConstant } kind;
  size_t index;
  uint64_t value;    // offset in bytes, or the constant's bits
  std::string type;  // kNumber
};

struct Step {  // a launch, or a clearing of a buffer or an argument to zero
  CUfunction function = nullptr;
  CUlaunchConfig config{};
  unsigned cluster[3] = {1, 1, 1};
  bool cooperative = false;
  size_t scratch = 0;
  std::vector<Source> sources;
  Source cleared{};
  size_t cleared_bytes = 0;
};

bool same_tensor(const Json& expected, const helion_argument& given) {
  if (given.kind != HELION_TENSOR || !expected.at(1).is(given.dtype)) return false;
  const Json &sizes = expected.at(2), &strides = expected.at(3);
  if (static_cast<int64_t>(sizes.items.size()) != given.rank) return false;
  for (size_t i = 0; i < sizes.items.size(); ++i) {
    if (sizes.at(i).number() != given.sizes[i] || strides.at(i).number() != given.strides[i]) return false;
  }
  return expected.at(4).truth() == (given.address % 16 != 0);
}

bool same(const Json& expected, const helion_argument& given) {
  const std::string& kind = expected.at(size_t{0}).text;
  if (kind == "tensor") return same_tensor(expected, given);
  if (kind == "none") return given.kind == HELION_NONE;
  if (kind == "bool") return given.kind == HELION_BOOL && expected.at(1).truth() == (given.integer != 0);
  if (kind == "float") {
    if (given.kind != HELION_FLOAT || expected.items.size() == 1) return given.kind == HELION_FLOAT;
    const double value = std::strtod(expected.at(1).text.c_str(), nullptr);
    return std::memcmp(&value, &given.real, sizeof(value)) == 0;
  }
  if (kind != "int" || given.kind != HELION_INT) return false;
  const int64_t value = given.integer;
  if (expected.at(1).is("=")) return expected.at(2).number() == value;
  return expected.at(1).truth() == (value == 1) && expected.at(2).truth() == (value % 16 == 0) &&
         expected.at(3).truth() == (value >= INT32_MIN && value <= INT32_MAX);
}

bool same_call(const Json& signature, const helion_argument* arguments, int count) {
  if (static_cast<int64_t>(signature.items.size()) != count) return false;
  for (int i = 0; i < count; ++i) {
    if (!same(signature.at(static_cast<size_t>(i)), arguments[i])) return false;
  }
  return true;
}

// A number of a launch, in the limits that `helion.bundles.load` holds it to.
unsigned within(const Json& value, int64_t low, int64_t high) {
  const int64_t number = value.number();
  if (number < low || number > high) refuse("a launch of it has a number that no launch has");
  return static_cast<unsigned>(number);
}

}  // namespace

struct helion_plan {
  std::vector<Json> signature;
  std::vector<size_t> buffers;
  std::vector<Step> steps;
  std::vector<std::pair<size_t, size_t>> apart;  // arguments that the kernel takes not to overlap
  int result = -1;

  void check_apart(const helion_argument* arguments) const;
};

void helion_plan::check_apart(const helion_argument* arguments) const {
  for (const auto& [first, second] : apart) {
    const Json &a = signature[first], &b = signature[second];
    const uint64_t begin = arguments[first].address, other = arguments[second].address;
    const uint64_t end = begin + extent(a.at(2), a.at(3), item_size(a.at(1).text));
    if (begin < other + extent(b.at(2), b.at(3), item_size(b.at(1).text)) && other < end) {
      refuse("arguments overlap, and the kernel was compiled for others");
    }
  }
}

// Multiprocessors of the GPU of the current context.
int multiprocessors() {
  CUdevice device;
  int count = 0;
  check(cuCtxGetDevice(&device), "cuCtxGetDevice");
  check(cuDeviceGetAttribute(&count, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device), "cuDeviceGetAttribute");
  return count;
}

struct helion_bundle {
  std::vector<uint8_t> content;
  const uint8_t* data = nullptr;
  size_t size = 0, start = 0;
  Json manifest;
  std::map<const Json*, std::unique_ptr<helion_plan>> plans;
  std::map<size_t, CUfunction> functions;
  std::vector<CUmodule> modules;

  ~helion_bundle() {
    for (CUmodule module : modules) cuModuleUnload(module);
  }

  void open(const char* path);
  CUfunction function(size_t number);
  Source source(const Json& row, const helion_plan& plan, const std::string& type) const;
  Step launch(const Json& row, const helion_plan& plan);
  Step fill(const Json& row, const helion_plan& plan) const;
  std::unique_ptr<helion_plan> make(const Json& row, const Json& apart);
};

void helion_bundle::open(const char* path) {
  const int file = ::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) refuse(std::string(path) + " cannot be opened");
  struct stat status {};
  const bool plain =
      fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_size >= static_cast<off_t>(kHeader);
  // Read and not mapped: who writes over the file, or cuts it off, would end this process.
  if (plain) content.resize(static_cast<size_t>(status.st_size));
  while (size < content.size()) {
    const ssize_t count = ::read(file, content.data() + size, content.size() - size);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    size += static_cast<size_t>(count);
  }
  ::close(file);
  if (size < kHeader) refuse("it is no plain file, or too short for a header");
  data = content.data();
  uint32_t format = 0;
  uint64_t length = 0, total = 0;
  std::memcpy(&format, data + 8, 4);
  std::memcpy(&length, data + 16, 8);
  std::memcpy(&total, data + 24, 8);
  if (std::memcmp(data, kMagic, 8) != 0) refuse("it does not begin as a bundle");
  if (format != kFormat) refuse("its format is another than this library reads");
  if (total != size || length > size - kHeader) refuse("it was cut off, or its manifest ends outside of it");
  if (std::memcmp(helion::sha256(data + kHeader, length).data(), data + 32, 32) != 0) refuse("its manifest is damaged");
  const char* text = reinterpret_cast<const char*>(data + kHeader);
  manifest = helion::JsonParser(text, text + length).parse();
  start = (kHeader + length + 63) / 64 * 64;
}

CUfunction helion_bundle::function(size_t number) {
  if (const auto found = functions.find(number); found != functions.end()) return found->second;
  const Json& binary = manifest.at("binaries").at(number);
  const Json& row = manifest.at("blobs").at(static_cast<size_t>(binary.at("blob").number()));
  const uint64_t offset = static_cast<uint64_t>(row.at("offset").number());
  const uint64_t length = static_cast<uint64_t>(row.at("size").number());
  if (start > size || offset > size - start || length > size - start - offset) refuse("a binary lies outside of it");
  const uint8_t* blob = data + start + offset;
  if (helion::hex(helion::sha256(blob, length)) != row.at("sha256").text) refuse("a binary is damaged");
  const std::string image(reinterpret_cast<const char*>(blob), length);  // ends in a zero, if it is text
  CUmodule module = nullptr;
  check(cuModuleLoadData(&module, image.c_str()), "cuModuleLoadData");
  modules.push_back(module);
  CUfunction loaded = nullptr;
  check(cuModuleGetFunction(&loaded, module, binary.at("symbol").text.c_str()), "cuModuleGetFunction");
  const int shared = static_cast<int>(within(binary.at("shared"), 0, 1 << 20));
  check(cuFuncSetAttribute(loaded, static_cast<CUfunction_attribute>(kMaxDynamicShared), shared), "cuFuncSetAttribute");
  check(cuFuncSetAttribute(loaded, static_cast<CUfunction_attribute>(kNonPortableCluster), 1), "cuFuncSetAttribute");
  return functions[number] = loaded;
}

// ["address", [is_input, number], offset], ["number", argument] or ["constant", value].
Source helion_bundle::source(const Json& row, const helion_plan& plan, const std::string& type) const {
  const bool pointer = !type.empty() && type[0] == '*';
  if (row.at(size_t{0}).is("address") != pointer) refuse("a pointer is passed for a number, or a number for a pointer");
  if (pointer) {
    const bool is_input = row.at(1).at(size_t{0}).truth();
    const size_t index = static_cast<size_t>(row.at(1).at(1).number()),
                 offset = static_cast<size_t>(row.at(2).number());
    if (index >= (is_input ? plan.signature.size() : plan.buffers.size())) refuse("a tensor is not there");
    size_t bytes = 0;
    if (is_input) {
      const Json& tensor = plan.signature[index];
      if (!tensor.at(size_t{0}).is("tensor")) refuse("an argument is taken for a tensor");
      bytes = extent(tensor.at(2), tensor.at(3), item_size(tensor.at(1).text));
    } else {
      bytes = plan.buffers[index];
    }
    if (offset > bytes) refuse("an address lies outside of its tensor");
    return {is_input ? Source::Kind::kArgument : Source::Kind::kBuffer, index, offset, ""};
  }
  if (row.at(size_t{0}).is("number")) {
    const size_t index = static_cast<size_t>(row.at(1).number());
    stored(type, 0, 0);
    if (index >= plan.signature.size() || plan.signature[index].at(size_t{0}).is("tensor"))
      refuse("a number is not there");
    return {Source::Kind::kNumber, index, 0, type};
  }
  const Json& value = row.at(1);
  const bool is_real = value.kind == Json::Kind::kList;
  const double real = real_of(value);
  // A real that no int64_t is, or is near, may not be converted to one; it is stored as a real.
  const int64_t integer = !is_real ? value.integer : std::abs(real) < 0x1p62 ? static_cast<int64_t>(real) : 0;
  return {Source::Kind::kConstant, 0, stored(type, integer, real), ""};
}

// ["launch", binary, grid, sources]
Step helion_bundle::launch(const Json& row, const helion_plan& plan) {
  const size_t number = static_cast<size_t>(row.at(1).number());
  const Json& binary = manifest.at("binaries").at(number);
  if (!binary.at("maps").items.empty()) refuse("a kernel of it takes tensor maps, which this library does not make");
  Step step;
  step.function = function(number);
  step.config.blockDimX = 32 * within(binary.at("num_warps"), 1, 32);
  step.config.blockDimY = step.config.blockDimZ = 1;
  step.config.sharedMemBytes = within(binary.at("shared"), 0, 1 << 20);
  unsigned grid[3] = {1, 1, 1};
  if (row.at(2).items.size() > 3) refuse("a grid has too many dimensions");
  for (size_t i = 0; i < row.at(2).items.size(); ++i) grid[i] = within(row.at(2).at(i), 0, INT32_MAX);
  step.config.gridDimX = grid[0];
  step.config.gridDimY = grid[1];
  step.config.gridDimZ = grid[2];
  for (size_t i = 0; i < 3; ++i) step.cluster[i] = within(binary.at("cluster").at(i), 1, 16);
  step.cooperative = binary.at("cooperative").truth();
  step.scratch = within(binary.at("scratch"), 0, 4);
  const std::vector<Json>& params = binary.at("params").items;
  if (row.at(3).items.size() != params.size()) refuse("a launch has another number of parameters than its kernel");
  for (size_t i = 0; i < params.size(); ++i)
    step.sources.push_back(source(row.at(3).at(i), plan, params[i].at(1).text));
  return step;
}

// ["fill", [is_input, number], value, fresh]
Step helion_bundle::fill(const Json& row, const helion_plan& plan) const {
  if (real_of(row.at(2)) != 0.0 || row.at(1).at(size_t{0}).truth()) {
    refuse("host code fills a tensor with more than zeros, which this library does not");
  }
  const size_t index = static_cast<size_t>(row.at(1).at(1).number());
  if (index >= plan.buffers.size()) refuse("a tensor is not there");
  Step step;
  step.cleared = {Source::Kind::kBuffer, index, 0, ""};
  step.cleared_bytes = plan.buffers[index];
  return step;
}

std::unique_ptr<helion_plan> helion_bundle::make(const Json& row, const Json& apart) {
  auto plan = std::make_unique<helion_plan>();
  plan->signature = row.at("signature").items;
  for (const Json& pair : apart.items) {
    const size_t first = static_cast<size_t>(pair.at(size_t{0}).number()),
                 second = static_cast<size_t>(pair.at(1).number());
    for (const size_t index : {first, second}) {
      if (index >= plan->signature.size()) refuse("an argument is not there");
    }
    const bool tensors =
        plan->signature[first].at(size_t{0}).is("tensor") && plan->signature[second].at(size_t{0}).is("tensor");
    if (tensors) plan->apart.emplace_back(first, second);
  }
  const Json& described = row.at("plan");
  for (const Json& buffer : described.at("buffers").items) {
    if (buffer.at(4).kind == Json::Kind::kNull) refuse("its host code runs operations of PyTorch's");
    plan->buffers.push_back(extent(buffer.at(size_t{0}), buffer.at(1), item_size(buffer.at(2).text)));
  }
  for (const Json& step : described.at("steps").items) {
    const Json& kind = step.at(size_t{0});
    if (!kind.is("launch") && !kind.is("fill")) refuse("its host code runs operations of PyTorch's");
    plan->steps.push_back(kind.is("launch") ? launch(step, *plan) : fill(step, *plan));
  }
  const Json& result = described.at("result");
  if (result.at(size_t{0}).is("tensor") && !result.at(1).truth())
    plan->result = static_cast<int>(result.at(2).number());
  return plan;
}

extern "C" {

helion_bundle* helion_bundle_open(const char* path, char* error) {
  return guarded<helion_bundle*>(error, nullptr, [&] {
    auto bundle = std::make_unique<helion_bundle>();
    bundle->open(path);
    return bundle.release();
  });
}

void helion_bundle_close(helion_bundle* bundle) { delete bundle; }

const helion_plan* helion_bundle_find(helion_bundle* bundle, const char* kernel, int capability,
                                      const helion_argument* arguments, int count, char* error) {
  return guarded<const helion_plan*>(error, nullptr, [&]() -> const helion_plan* {
    const Json& found = bundle->manifest.at("kernels").at(kernel);
    bool for_others = false;
    for (const Json& row : found.at("plans").items) {
      if (row.at("capability").number() != capability || !same_call(row.at("signature"), arguments, count)) continue;
      // The grid of a persistent kernel is made for a number of multiprocessors, and there may be a plan for each.
      if (const Json& sms = row.at("sms"); sms.kind != Json::Kind::kNull && sms.number() != multiprocessors()) {
        for_others = true;
        continue;
      }
      std::unique_ptr<helion_plan>& plan = bundle->plans[&row];
      if (!plan) plan = bundle->make(row, found.at("apart"));
      return plan.get();
    }
    if (for_others) {
      const std::string here = std::to_string(multiprocessors());
      refuse(std::string("its grids of ") + kernel + " are for other numbers of multiprocessors than the GPU's, " +
             here + ": make the bundle with --sms " + here);
    }
    refuse(std::string("it has no plan of ") + kernel + " for these arguments");
  });
}

int helion_plan_buffer_count(const helion_plan* plan) { return static_cast<int>(plan->buffers.size()); }
size_t helion_plan_buffer_bytes(const helion_plan* plan, int buffer) {
  return plan->buffers.at(static_cast<size_t>(buffer));
}
int helion_plan_result(const helion_plan* plan) { return plan->result; }

int helion_plan_launch(const helion_plan* plan, const helion_argument* arguments, const uint64_t* buffers, void* stream,
                       char* error) {
  return guarded<int>(error, 1, [&] {
    // Before anything is launched: what was compiled for other numbers or addresses would be wrong, silently.
    for (size_t i = 0; i < plan->signature.size(); ++i) {
      if (!same(plan->signature[i], arguments[i])) refuse("the arguments are not of the kind that the plan is for");
    }
    plan->check_apart(arguments);
    for (const Step& step : plan->steps) {
      if (step.function == nullptr) {
        const CUdeviceptr address = buffers[step.cleared.index];
        check(cuMemsetD8Async(address, 0, step.cleared_bytes, static_cast<CUstream>(stream)), "cuMemsetD8Async");
        continue;
      }
      std::vector<uint64_t> slots(step.sources.size() + step.scratch);
      std::vector<void*> pointers(slots.size());
      for (size_t i = 0; i < slots.size(); ++i) pointers[i] = &slots[i];
      for (size_t i = 0; i < step.sources.size(); ++i) {
        const Source& from = step.sources[i];
        const helion_argument* given = from.kind == Source::Kind::kNumber ? &arguments[from.index] : nullptr;
        slots[i] = from.kind == Source::Kind::kArgument ? arguments[from.index].address + from.value
                   : from.kind == Source::Kind::kBuffer ? buffers[from.index] + from.value
                   : given == nullptr                   ? from.value
                   : given->kind == HELION_FLOAT
                       ? stored(from.type, 0, given->real)
                       : stored(from.type, given->integer, static_cast<double>(given->integer));
      }
      CUlaunchConfig config = step.config;
      if (config.gridDimX == 0 || config.gridDimY == 0 || config.gridDimZ == 0) continue;
      CUlaunchAttribute attributes[2] = {};
      config.attrs = attributes;
      config.hStream = static_cast<CUstream>(stream);
      if (step.cluster[0] * step.cluster[1] * step.cluster[2] != 1) {
        CUlaunchAttribute& cluster = attributes[config.numAttrs++];
        cluster.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        cluster.value.clusterDim = {step.cluster[0], step.cluster[1], step.cluster[2]};
      }
      if (step.cooperative) {
        CUlaunchAttribute& cooperative = attributes[config.numAttrs++];
        cooperative.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
        cooperative.value.cooperative = 1;
      }
      check(cuLaunchKernelEx(&config, step.function, pointers.data(), nullptr), "cuLaunchKernelEx");
    }
    return 0;
  });
}

}  // extern "C"
