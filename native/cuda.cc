// The machine: threads, versions, device memory. Kernels for CUDA are compiled and launched by kernels/nvrtc.cc.
#include "bridge.h"
#include "kernels/kernels.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <dlfcn.h>

#ifdef DSD_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#endif

namespace dsd {
namespace {

int device_count() {
#ifdef DSD_CUDA
  return c10::cuda::device_count();  // 0, without an error, where there is no driver
#else
  return 0;
#endif
}

napi_value cuda_count(Args& a) { return make_number(a.env, device_count()); }

// cudaNames(): what each device calls itself, asked of the driver: libtorch's own way needs the headers of half the toolkit.
napi_value cuda_names(Args& a) {
  napi_value array;
  int count = device_count();
  check(a.env, napi_create_array_with_length(a.env, count, &array));
  void* driver = count > 0 ? dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) : nullptr;
  auto name_of = driver ? reinterpret_cast<int (*)(char*, int, int)>(dlsym(driver, "cuDeviceGetName")) : nullptr;
  for (int i = 0; i < count; i++) {
    char name[256] = "";
    if (name_of) name_of(name, sizeof name - 1, i);
    check(a.env, napi_set_element(a.env, array, i, make_string(a.env, name[0] ? name : "CUDA device " + std::to_string(i))));
  }
  return array;
}

napi_value synchronize(Args& a) {
#ifdef DSD_CUDA
  if (device_count() > 0) c10::cuda::device_synchronize();
#endif
  return a.undefined();
}

// memory(resetPeak): [bytes allocated on the current CUDA device, most since the last reset, bytes held by the caching
// allocator, bytes on the CPU that the garbage collector answers for]
napi_value memory(Args& a) {
  double current = 0, peak = 0, reserved = 0;
#ifdef DSD_CUDA
  if (device_count() > 0) {
    namespace allocator = c10::cuda::CUDACachingAllocator;
    auto device = c10::cuda::current_device();
    try {
      auto stats = allocator::getDeviceStats(device);
      current = static_cast<double>(stats.allocated_bytes[0].current);
      peak = static_cast<double>(stats.allocated_bytes[0].peak);
      reserved = static_cast<double>(stats.reserved_bytes[0].current);
      if (!a.missing(0) && a.boolean(0, "resetPeak")) allocator::resetPeakStats(device);
    } catch (const c10::Error&) {
      // The allocator does not exist before the first CUDA tensor.
    }
  }
#endif
  napi_value array;
  check(a.env, napi_create_array_with_length(a.env, 4, &array));
  check(a.env, napi_set_element(a.env, array, 0, make_number(a.env, current)));
  check(a.env, napi_set_element(a.env, array, 1, make_number(a.env, peak)));
  check(a.env, napi_set_element(a.env, array, 2, make_number(a.env, reserved)));
  check(a.env, napi_set_element(a.env, array, 3, make_number(a.env, static_cast<double>(a.bridge.external))));
  return array;
}

napi_value empty_cache(Args& a) {
#ifdef DSD_CUDA
  // During a capture nothing could be given back, and libtorch takes being asked for a bug.
  if (device_count() > 0 && !is_capturing()) c10::cuda::CUDACachingAllocator::emptyCache();
#endif
  return a.undefined();
}

// threads(n): sets the number of threads within an operator; without an argument only returns it.
napi_value threads(Args& a) {
  if (!a.missing(0)) {
    auto count = a.integer(0, "threads");
    if (count < 1 || count > 1024) type_error("setThreads: expected 1 to 1024 threads, found " + std::to_string(count));
    at::set_num_threads(static_cast<int>(count));
  }
  return make_number(a.env, at::get_num_threads());
}

// deterministic(on): whether kernels whose sums depend on the order of threads are refused or replaced. Without an argument only returns it.
napi_value deterministic(Args& a) {
  auto& context = at::globalContext();
  if (!a.missing(0)) {
    bool on = a.boolean(0, "on");
    context.setDeterministicAlgorithms(on, /*warn_only=*/false);
#if TORCH_VERSION_MAJOR >= 2
    // It would fill every new tensor with NaN: a pass over memory that changes no result of ours.
    context.setDeterministicFillUninitializedMemory(false);
#endif
    context.setDeterministicCuDNN(on);
    context.setBenchmarkCuDNN(!on && context.benchmarkCuDNN());
  }
  return make_boolean(a.env, context.deterministicAlgorithms());
}

std::string file_of(const void* symbol) {
  Dl_info info;
  return symbol && dladdr(symbol, &info) && info.dli_fname ? info.dli_fname : "";
}

std::string runtime_version() {
  std::string config = at::show_config();
  auto at = config.find("TORCH_VERSION=");
  if (at == std::string::npos) return "";
  auto end = config.find_first_of(", \n", at);
  return config.substr(at + 14, end - at - 14);
}

// engine(): [version compiled for, version found at run time, compiled with CUDA, file of libtorch, file of the BLAS, libtorch's own description,
// why kernels for CUDA could not be compiled (empty if they could, or have not been needed yet)]
napi_value engine(Args& a) {
  napi_value array;
  check(a.env, napi_create_array_with_length(a.env, 7, &array));
  // dlsym in the order of the addon's own libraries: the very sgemm that libtorch calls, if it is not linked into libtorch.
  const void* sgemm = dlsym(RTLD_DEFAULT, "sgemm_");
  if (!sgemm) {
    if (void* torch = dlopen("libtorch_cpu.so", RTLD_NOLOAD | RTLD_LAZY)) {
      sgemm = dlsym(torch, "sgemm_");
      dlclose(torch);
    }
  }
  check(a.env, napi_set_element(a.env, array, 0, make_string(a.env, TORCH_VERSION)));
  check(a.env, napi_set_element(a.env, array, 1, make_string(a.env, runtime_version())));
#ifdef DSD_CUDA
  check(a.env, napi_set_element(a.env, array, 2, make_boolean(a.env, true)));
#else
  check(a.env, napi_set_element(a.env, array, 2, make_boolean(a.env, false)));
#endif
  check(a.env, napi_set_element(a.env, array, 3, make_string(a.env, file_of(reinterpret_cast<const void*>(&at::show_config)))));
  check(a.env, napi_set_element(a.env, array, 4, make_string(a.env, file_of(sgemm))));
  check(a.env, napi_set_element(a.env, array, 5, make_string(a.env, at::show_config())));
  check(a.env, napi_set_element(a.env, array, 6, make_string(a.env, nvrtc_problem())));
  return array;
}

}  // namespace

const std::vector<Export> cuda_exports = {{"cudaCount", cuda_count}, {"cudaNames", cuda_names}, {"synchronize", synchronize}, {"memory", memory},
                                          {"emptyCache", empty_cache}, {"threads", threads},       {"deterministic", deterministic},
                                          {"engine", engine}};

}  // namespace dsd
