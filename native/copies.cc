// Between typed arrays and tensors. On the way to a CUDA device nothing waits: values go through memory that the device reads by itself.
#include "bridge.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#ifdef DSD_CUDA
#include <c10/core/Event.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

#include <cstring>

namespace dsd {
namespace {

struct ArrayKind {
  napi_typedarray_type array;
  at::ScalarType dtype;
  const char* name;
};
constexpr ArrayKind kinds[] = {
    {napi_float32_array, at::kFloat, "Float32Array"}, {napi_float64_array, at::kDouble, "Float64Array"}, {napi_bigint64_array, at::kLong, "BigInt64Array"},
    {napi_int32_array, at::kInt, "Int32Array"},       {napi_int16_array, at::kShort, "Int16Array"},      {napi_int8_array, at::kChar, "Int8Array"},
    {napi_uint8_array, at::kByte, "Uint8Array"}};

constexpr size_t large_copy = size_t(1) << 20;
#ifdef DSD_CUDA
constexpr bool can_pin = true;
#else
constexpr bool can_pin = false;
#endif
constexpr size_t largest_pinned = size_t(1) << 30;  // of one copy: libtorch keeps such memory for good

// With all threads where it is worth it: new memory costs a page fault every 4 KiB, and a checkpoint has gigabytes.
void copy_bytes(char* to, const char* from, size_t bytes) {
  at::parallel_for(0, static_cast<int64_t>(bytes), large_copy, [&](int64_t begin, int64_t end) { std::memcpy(to + begin, from + begin, end - begin); });
}

// A typed array, until control goes back to JavaScript.
struct Array {
  const ArrayKind* kind = nullptr;
  const char* data = nullptr;
  size_t length = 0;
  size_t bytes() const { return length * c10::elementSize(kind->dtype); }
};

Array read_array(Args& a, size_t i) {
  const std::string where = a.function;
  bool is_typed = false;
  if (a.count > i) check(a.env, napi_is_typedarray(a.env, a.values[i], &is_typed));
  if (!is_typed) type_error(where + ": data must be a typed array");
  napi_typedarray_type type;
  void* data = nullptr;
  Array array;
  check(a.env, napi_get_typedarray_info(a.env, a.values[i], &type, &array.length, &data, nullptr, nullptr));
  for (const auto& candidate : kinds) {
    if (candidate.array == type) array.kind = &candidate;
  }
  if (!array.kind) type_error(where + ": data must be a Float32Array, Float64Array, BigInt64Array, Int32Array, Int16Array, Int8Array or Uint8Array");
  array.data = static_cast<const char*>(data);
  return array;
}

at::Tensor host_copy(const Array& array, at::IntArrayRef shape, bool pinned) {
  auto tensor = at::empty(shape, at::TensorOptions().dtype(array.kind->dtype).device(at::kCPU).pinned_memory(pinned));
  if (array.length) copy_bytes(static_cast<char*>(tensor.data_ptr()), array.data, array.bytes());
  return tensor;
}

// What a graph replays reads no arrays: the values of this one would be those of every replay, from memory that is others' by then.
void refuse_in_capture(const char* function) {
  if (is_capturing()) plain_error(std::string(function) + ": values of a typed array cannot be captured; make the tensor before, and upload() into it");
}

// fromData(typedArray, shape, dtype, device, requiresGrad): a copy of the array, converted to the dtype.
napi_value from_data(Args& a) {
  a.function = "tensor";
  read_array(a, 0);
  auto shape = a.integers(1, "shape");
  auto dtype = read_dtype(a.number(2, "dtype"), "tensor: dtype");
  auto device = read_device(a.string(3, "device"), "tensor: device");
  bool requires_grad = a.boolean(4, "requiresGrad");
  const Array array = read_array(a, 0);  // now, since a shape with getters may have given the memory away
  double elements = 1;
  for (auto size : shape) {
    if (size < 0) type_error("tensor: shape has a negative size");
    elements *= static_cast<double>(size);
  }
  if (elements != static_cast<double>(array.length)) {
    std::string text;
    for (auto size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
    type_error("tensor: shape [" + text + "] does not fit " + std::to_string(array.length) + " elements");
  }
  c10::NoGradGuard no_grad;
  if (!device.is_cpu()) refuse_in_capture("tensor");
  const bool pin = device.is_cuda() && can_pin && array.bytes() <= largest_pinned;
  auto tensor = host_copy(array, shape, pin && dtype == array.kind->dtype);
  if (dtype != array.kind->dtype) tensor = at::empty(shape, at::TensorOptions().dtype(dtype).pinned_memory(pin)).copy_(tensor);
  if (!device.is_cpu()) tensor = tensor.to(device, /*non_blocking=*/pin);
  if (requires_grad) tensor.set_requires_grad(true);
  napi_value handle = make_handle(a.env, a.bridge, std::move(tensor));
  a.bridge.report_external_memory();
  return handle;
}

#ifdef DSD_CUDA
constexpr size_t worth_a_stream = size_t(1) << 16;

// Over the bus on a stream of its own, so that it goes on beside the work before it; the tensor itself is written in its turn.
void upload_beside(at::Tensor& tensor, const at::Tensor& values) {
  const auto index = tensor.device().index();
  static thread_local std::unordered_map<int, c10::cuda::CUDAStream> streams;
  if (!streams.count(index)) streams.emplace(index, c10::cuda::getStreamFromPool(/*isHighPriority=*/false, index));
  const auto copies = streams.at(index);
  const auto current = c10::cuda::getCurrentCUDAStream(index);
  at::Tensor staged;
  c10::Event arrived(c10::kCUDA);
  {
    const c10::cuda::CUDAStreamGuard guard(copies);
    staged = at::empty(tensor.sizes(), tensor.options());
    staged.copy_(values, /*non_blocking=*/true);
    arrived.record(copies.unwrap());
  }
  arrived.block(current.unwrap());
  tensor.copy_(staged);
  staged.record_stream(current.unwrap());
}
#endif

// upload(handle, typedArray): new values for a tensor of the array's own type and length. The array is free to change when it returns.
napi_value upload(Args& a) {
  a.function = "upload";
  auto tensor = a.tensor(0, "self").detach();
  const Array array = read_array(a, 1);
  if (tensor.scalar_type() != array.kind->dtype) type_error("upload: a " + std::string(array.kind->name) + " does not fit " + describe(tensor));
  if (tensor.numel() != static_cast<int64_t>(array.length))
    type_error("upload: " + std::to_string(array.length) + " elements do not fit " + describe(tensor));
  if (!tensor.is_contiguous()) type_error("upload: " + describe(tensor) + " is a view whose elements do not lie one after the other");
  if (array.length == 0) return a.undefined();
  c10::NoGradGuard no_grad;
  if (tensor.is_cpu()) {
    copy_bytes(static_cast<char*>(tensor.data_ptr()), array.data, array.bytes());
    tensor.unsafeGetTensorImpl()->bump_version();
    return a.undefined();
  }
  refuse_in_capture("upload");
  const bool pin = can_pin && array.bytes() <= largest_pinned;
  const auto values = host_copy(array, tensor.sizes(), pin);
#ifdef DSD_CUDA
  if (pin && array.bytes() >= worth_a_stream) {
    upload_beside(tensor, values);
    return a.undefined();
  }
#endif
  tensor.copy_(values, /*non_blocking=*/pin);
  return a.undefined();
}

// toData(handle): a typed array with a copy, row-major. Half precision comes as Float32Array, bool as Uint8Array.
napi_value to_data(Args& a) {
  a.function = "toArray";
  c10::NoGradGuard no_grad;
  auto tensor = a.tensor(0, "self").detach();
  auto dtype = tensor.scalar_type();
  if (dtype == at::kHalf || dtype == at::kBFloat16) tensor = tensor.to(at::kFloat);
  tensor = tensor.contiguous();
  dtype = tensor.scalar_type();
  napi_typedarray_type array_type = napi_uint8_array;
  bool known = dtype == at::kBool;
  for (const auto& kind : kinds) {
    if (kind.dtype == dtype) {
      array_type = kind.array;
      known = true;
    }
  }
  if (!known) type_error("toArray: a tensor of dtype " + std::string(dtype_name(dtype)) + " cannot become a typed array");
  size_t bytes = tensor.nbytes();
  // V8 ends the process when an array buffer is too long for it or for the machine.
  if (bytes > (size_t(1) << 31)) type_error("toArray: " + describe(tensor) + " is larger than 2 GiB; copy it in parts");
  check_available(bytes);
  void* data = nullptr;
  napi_value buffer, array;
  check(a.env, napi_create_arraybuffer(a.env, bytes, &data, &buffer));
  if (bytes) {
    // Through memory that the device writes by itself, which is several times as fast; libtorch keeps it for the next tensor.
    if (!tensor.device().is_cpu()) {
      auto options = at::TensorOptions().dtype(dtype).pinned_memory(bytes >= large_copy && bytes <= largest_pinned);
      tensor = at::empty(tensor.sizes(), options).copy_(tensor);
    }
    copy_bytes(static_cast<char*>(data), static_cast<const char*>(tensor.data_ptr()), bytes);
  }
  check(a.env, napi_create_typedarray(a.env, array_type, tensor.numel(), buffer, 0, &array));
  return array;
}

}  // namespace

const std::vector<Export> copies_exports = {{"fromData", from_data}, {"toData", to_data}, {"upload", upload}};

}  // namespace dsd
