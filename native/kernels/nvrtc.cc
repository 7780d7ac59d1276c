// Kernels for CUDA: written as text, compiled on first use by the NVRTC that PyTorch's CUDA wheels bring along, kept on disk, launched
// through the driver on the current stream. Both libraries are opened by name, so the addon needs no CUDA toolkit to be built or to run.
#include "kernels.h"

#ifndef DSD_CUDA

namespace dsd {
std::string nvrtc_problem() { return ""; }
}  // namespace dsd

#else

#include <ATen/Version.h>
#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>

#include <dlfcn.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

namespace dsd {
namespace {

// The same function as in random.cc. One thread makes one block of four.
const char* const source = R"cuda(
extern "C" __global__ void dsd_draw(float* out, unsigned k0, unsigned k1, unsigned long long first, const long long* base,
                                    unsigned long long images, unsigned long long elements, int is_normal) {
  const unsigned long long blocks = (elements + 3) / 4, total = images * blocks;
  const unsigned long long origin = first + (base ? (unsigned long long)*base : 0ull);
  for (unsigned long long i = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x; i < total;
       i += (unsigned long long)gridDim.x * blockDim.x) {
    const unsigned long long image = i / blocks, block = i - image * blocks, number = origin + image;
    unsigned c0 = (unsigned)block, c1 = 0, c2 = (unsigned)number, c3 = (unsigned)(number >> 32), a = k0, b = k1;
    for (int round = 0; round < 10; round++) {
      const unsigned long long p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
      c0 = (unsigned)(p1 >> 32) ^ c1 ^ a;
      c1 = (unsigned)p1;
      c2 = (unsigned)(p0 >> 32) ^ c3 ^ b;
      c3 = (unsigned)p0;
      a += 0x9E3779B9u;
      b += 0xBB67AE85u;
    }
    const unsigned words[4] = {c0, c1, c2, c3};
    float four[4];
    if (is_normal) {
      for (int j = 0; j < 4; j += 2) {
        const double r = sqrt(-2.0 * log(((words[j] >> 8) + 1) * (1.0 / 16777216.0)));
        double s, c;
        sincospi(2.0 * ((words[j + 1] >> 8) * (1.0 / 16777216.0)), &s, &c);
        four[j] = (float)(r * c);
        four[j + 1] = (float)(r * s);
      }
    } else {
      for (int j = 0; j < 4; j++) four[j] = (float)(words[j] >> 8) * (1.0f / 16777216.0f);
    }
    float* to = out + image * elements + block * 4;
    const unsigned long long left = elements - block * 4;
    for (int j = 0; j < 4; j++) {
      if (j < left) to[j] = four[j];
    }
  }
}
)cuda";

struct Problem {
  std::string text;
};

void* need(void* library, const char* name) {
  void* symbol = dlsym(library, name);
  if (!symbol) throw Problem{std::string(name) + " is missing from the library"};
  return symbol;
}

template <typename F>
void load(F*& function, void* library, const char* name) {
  function = reinterpret_cast<F*>(need(library, name));
}

// The few functions of the driver that are used, declared here so that no header of the toolkit is needed.
struct Driver {
  int (*get_attribute)(int*, int, int);
  int (*load_data)(void**, const void*);
  int (*get_function)(void**, void*, const char*);
  int (*launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);
  int (*error_string)(int, const char**);
  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (!library) throw Problem{"the CUDA driver (libcuda.so.1) was not found"};
    load(get_attribute, library, "cuDeviceGetAttribute");
    load(load_data, library, "cuModuleLoadData");
    load(get_function, library, "cuModuleGetFunction");
    load(launch, library, "cuLaunchKernel");
    load(error_string, library, "cuGetErrorString");
  }
  void check(int status, const char* what) const {
    if (status == 0) return;
    const char* text = nullptr;
    error_string(status, &text);
    throw Problem{std::string(what) + ": " + (text ? text : "unknown error") + " (" + std::to_string(status) + ")"};
  }
};

std::string folder_of(const void* symbol) {
  Dl_info info;
  if (!dladdr(symbol, &info) || !info.dli_fname) return "";
  std::string path = info.dli_fname;
  auto slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

// libtorch's own NVRTC is loaded under its name if anything has used it; else it lies beside torch/ or in the toolkit.
void* open_nvrtc() {
  for (const char* name : {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"}) {
    if (void* library = dlopen(name, RTLD_LAZY | RTLD_LOCAL)) return library;
  }
  std::string torch = folder_of(reinterpret_cast<const void*>(&at::show_config));
  for (const std::string& pattern : {torch + "/libnvrtc*.so*", torch + "/../../nvidia/*/lib/libnvrtc.so*",
                                     std::string("/usr/local/cuda*/lib64/libnvrtc.so*"), std::string("/usr/local/cuda*/lib/libnvrtc.so*")}) {
    glob_t found;
    void* library = nullptr;
    if (glob(pattern.c_str(), 0, nullptr, &found) == 0) {
      for (size_t i = 0; i < found.gl_pathc && !library; i++) {
        std::string path = found.gl_pathv[i];
        if (path.find("builtins") == std::string::npos && path.find(".alt.") == std::string::npos) library = dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
      }
    }
    globfree(&found);
    if (library) return library;
  }
  throw Problem{"NVRTC (libnvrtc.so) was found neither beside libtorch nor in /usr/local/cuda"};
}

// NVRTC opens its library of built-in functions by name alone, which finds it only if it is loaded already.
void open_builtins(void* nvrtc) {
  glob_t found;
  std::string pattern = folder_of(need(nvrtc, "nvrtcCreateProgram")) + "/libnvrtc-builtins.so*";
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; i++) dlopen(found.gl_pathv[i], RTLD_LAZY | RTLD_GLOBAL);
  }
  globfree(&found);
}

std::string compile(const std::string& arch) {
  void* library = open_nvrtc();
  open_builtins(library);
  int (*create)(void**, const char*, const char*, int, const char* const*, const char* const*);
  int (*build)(void*, int, const char* const*);
  int (*size)(void*, size_t*);
  int (*read)(void*, char*);
  int (*log_size)(void*, size_t*);
  int (*read_log)(void*, char*);
  int (*destroy)(void**);
  load(create, library, "nvrtcCreateProgram");
  load(build, library, "nvrtcCompileProgram");
  load(size, library, "nvrtcGetCUBINSize");
  load(read, library, "nvrtcGetCUBIN");
  load(log_size, library, "nvrtcGetProgramLogSize");
  load(read_log, library, "nvrtcGetProgramLog");
  load(destroy, library, "nvrtcDestroyProgram");
  void* program = nullptr;
  if (create(&program, source, "dsd.cu", 0, nullptr, nullptr) != 0) throw Problem{"NVRTC did not take the source"};
  std::string option = "--gpu-architecture=" + arch;
  const char* options[] = {option.c_str(), "--std=c++17"};
  int status = build(program, 2, options);
  size_t bytes = 0;
  std::string result;
  if (status == 0 && size(program, &bytes) == 0 && bytes > 0) {
    result.resize(bytes);
    if (read(program, &result[0]) != 0) result.clear();
  }
  std::string text;
  if (result.empty() && log_size(program, &bytes) == 0 && bytes > 0) {
    text.resize(bytes);
    read_log(program, &text[0]);
  }
  destroy(&program);
  if (result.empty()) throw Problem{"NVRTC could not compile for " + arch + ": " + text.substr(0, 500)};
  return result;
}

std::string cache_path(const std::string& arch) {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  std::string folder;
  if (cache && *cache == '/') {
    folder = cache;
  } else if (home && *home == '/') {
    folder = std::string(home) + "/.cache";
  } else {
    return "";
  }
  mkdir(folder.c_str(), 0777);
  folder += "/dsd";
  mkdir(folder.c_str(), 0700);  // what lies there is run on the device
  uint64_t hash = 14695981039346656037ull;  // FNV-1a of the source
  for (const char* c = source; *c; c++) hash = (hash ^ static_cast<unsigned char>(*c)) * 1099511628211ull;
  char name[64];
  std::snprintf(name, sizeof name, "/%016llx-%s.cubin", static_cast<unsigned long long>(hash), arch.c_str());
  return folder + name;
}

std::string read_file(const std::string& path) {
  std::string bytes;
  FILE* file = path.empty() ? nullptr : std::fopen(path.c_str(), "rb");
  if (!file) return bytes;
  char chunk[65536];
  for (size_t n; (n = std::fread(chunk, 1, sizeof chunk, file)) > 0;) bytes.append(chunk, n);
  std::fclose(file);
  return bytes;
}

// A cache that cannot be written costs a compilation the next time, nothing else.
void write_file(const std::string& path, const std::string& bytes) {
  if (path.empty()) return;
  std::string temporary = path + "." + std::to_string(getpid());
  FILE* file = std::fopen(temporary.c_str(), "wb");
  if (!file) return;
  bool written = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  written = std::fclose(file) == 0 && written;
  if (!written || std::rename(temporary.c_str(), path.c_str()) != 0) std::remove(temporary.c_str());
}

struct Kernels {
  std::mutex mutex;
  std::unique_ptr<Driver> driver;
  std::map<int, void*> draw;  // by device
  std::string problem;        // why there are none
};

Kernels& kernels() {
  static auto* all = new Kernels;  // never destroyed: the driver may be gone before static destructors run
  return *all;
}

// The device's context is current.
void* draw_kernel(Kernels& all, int device) {
  auto known = all.draw.find(device);
  if (known != all.draw.end()) return known->second;
  if (!all.driver) all.driver = std::make_unique<Driver>();
  int major = 0, minor = 0;
  all.driver->check(all.driver->get_attribute(&major, 75, device), "asking for the compute capability");
  all.driver->check(all.driver->get_attribute(&minor, 76, device), "asking for the compute capability");
  std::string arch = "sm_" + std::to_string(major) + std::to_string(minor), path = cache_path(arch), binary = read_file(path);
  void *module = nullptr, *function = nullptr;
  if (binary.empty() || all.driver->load_data(&module, binary.data()) != 0) {
    binary = compile(arch);
    all.driver->check(all.driver->load_data(&module, binary.data()), "loading a kernel");
    write_file(path, binary);
  }
  all.driver->check(all.driver->get_function(&function, module, "dsd_draw"), "finding a kernel");
  return all.draw[device] = function;
}

}  // namespace

bool draw_cuda(bool is_normal, uint32_t key_lo, uint32_t key_hi, int64_t first_image, const at::Tensor& base, int64_t images,
               int64_t elements, at::Tensor& out) {
  if (out.numel() == 0) return true;
  auto& all = kernels();
  std::lock_guard<std::mutex> lock(all.mutex);
  if (!all.problem.empty()) return false;
  c10::DeviceGuard guard(out.device());
  try {
    void* function = draw_kernel(all, out.device().index());
    float* to = static_cast<float*>(out.data_ptr());
    const void* from = base.defined() ? base.data_ptr() : nullptr;
    auto first = static_cast<unsigned long long>(first_image), count = static_cast<unsigned long long>(images),
         each = static_cast<unsigned long long>(elements);
    int normal = is_normal;
    void* args[] = {&to, &key_lo, &key_hi, &first, &from, &count, &each, &normal};
    unsigned long long blocks = (count * ((each + 3) / 4) + 255) / 256;
    auto grid = static_cast<unsigned>(std::min<unsigned long long>(blocks, 65535));
    void* stream = c10::cuda::getCurrentCUDAStream(out.device().index()).stream();
    all.driver->check(all.driver->launch(function, grid, 1, 1, 256, 1, 1, 0, stream, args, nullptr), "launching a kernel");
    return true;
  } catch (const Problem& problem) {
    all.problem = problem.text;
    return false;
  }
}

std::string nvrtc_problem() {
  auto& all = kernels();
  std::lock_guard<std::mutex> lock(all.mutex);
  return all.problem;
}

}  // namespace dsd

#endif
