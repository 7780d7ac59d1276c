// Kernels for CUDA: the texts of native/kernels/cuda, compiled on first use by the NVRTC that PyTorch's CUDA wheels bring along, kept on disk,
// launched through the driver on the current stream. Both libraries are opened by name, so the addon needs no CUDA toolkit to be built or to run.
#include "cuda.h"
#include "kernels.h"

#ifndef DSD_CUDA

namespace dsd {
std::string nvrtc_problem() { return ""; }
}  // namespace dsd

#else

#include "driver.h"

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
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

namespace dsd {

// DSD_CUDA_SOURCES is the folder of the texts, told by scripts/build-native.mjs.
#define DSD_EMBED(name, file)                                                                                                  \
  extern "C" const char dsd_source_##name[];                                                                                   \
  asm(".section .rodata\n.hidden dsd_source_" #name "\n.global dsd_source_" #name "\ndsd_source_" #name ":\n.incbin \"" DSD_CUDA_SOURCES \
      "/" file "\"\n.byte 0\n.previous\n");
DSD_EMBED(attention, "attention.cu")
DSD_EMBED(attention_gradient, "attention-gradient.cu")
DSD_EMBED(attention_gradient_hopper, "attention-gradient-hopper.cu")
DSD_EMBED(attention_hopper, "attention-hopper.cu")
DSD_EMBED(bf16, "bf16.h")
DSD_EMBED(block, "block.cu")
DSD_EMBED(draw, "draw.cu")
DSD_EMBED(hopper, "hopper.h")
DSD_EMBED(optimizer, "optimizer.cu")
DSD_EMBED(product_add_hopper, "product-add-hopper.cu")
DSD_EMBED(product_hopper, "product-hopper.h")
DSD_EMBED(swiglu_gradient_hopper, "swiglu-gradient-hopper.cu")
DSD_EMBED(swiglu_hopper, "swiglu-hopper.cu")
DSD_EMBED(tma, "tma.h")
DSD_EMBED(token, "token.h")
namespace {

// What modules may include; all of it is told to each.
const char* const header_names[] = {"bf16.h", "hopper.h", "product-hopper.h", "tma.h", "token.h"};
const char* const headers[] = {dsd_source_bf16, dsd_source_hopper, dsd_source_product_hopper, dsd_source_tma, dsd_source_token};

struct Module {
  const char* name;
  const char* source;
};
const Module modules[] = {{"attention", dsd_source_attention},
                          {"attention-gradient", dsd_source_attention_gradient},
                          {"attention-gradient-hopper", dsd_source_attention_gradient_hopper},
                          {"attention-hopper", dsd_source_attention_hopper},
                          {"block", dsd_source_block},
                          {"draw", dsd_source_draw},
                          {"optimizer", dsd_source_optimizer},
                          {"product-add-hopper", dsd_source_product_add_hopper},
                          {"swiglu-gradient-hopper", dsd_source_swiglu_gradient_hopper},
                          {"swiglu-hopper", dsd_source_swiglu_hopper}};

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

std::string compile(const Module& module, const std::string& arch) {
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
  if (create(&program, module.source, (std::string(module.name) + ".cu").c_str(), std::size(headers), headers, header_names) != 0) throw Problem{"NVRTC did not take the source"};
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
  if (result.empty()) throw Problem{std::string("NVRTC could not compile ") + module.name + ".cu for " + arch + ": " + text.substr(0, 1000)};
  return result;
}

std::string cache_path(const Module& module, const std::string& arch) {
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
  uint64_t hash = 14695981039346656037ull;  // FNV-1a of the texts
  const auto add = [&](const char* c) {
    for (; *c; c++) hash = (hash ^ static_cast<unsigned char>(*c)) * 1099511628211ull;
  };
  add(module.source);
  for (const char* text : headers) add(text);
  char digits[32];
  std::snprintf(digits, sizeof digits, "-%016llx-", static_cast<unsigned long long>(hash));
  return folder + "/" + module.name + digits + arch + ".cubin";
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

struct Kernel {
  void* function = nullptr;
  unsigned shared_bytes = 48 * 1024;  // what it may have
  std::map<std::pair<unsigned, unsigned>, unsigned> at_once;  // blocks, by their threads and shared memory: see blocks_at_once
};

struct Kernels {
  std::mutex mutex;
  std::unique_ptr<Driver> driver;
  std::map<std::pair<int, std::string>, void*> loaded;                       // modules, by device and name
  std::map<std::tuple<int, const char*, const char*>, Kernel> kernels;      // by device and the addresses of the caller's literals
  std::string problem;                                                       // why there are none
};

Kernels& kernels() {
  static auto* all = new Kernels;  // never destroyed: the driver may be gone before static destructors run
  return *all;
}

const Driver& driver_of(Kernels& all, int device) {
  if (!all.driver) all.driver = std::make_unique<Driver>();
  all.driver->make_current(device);
  return *all.driver;
}

void* load_module(Kernels& all, const char* name, int device) {
  void*& loaded = all.loaded[{device, name}];
  if (loaded) return loaded;
  const Driver& driver = driver_of(all, device);
  auto module = std::find_if(std::begin(modules), std::end(modules), [&](const Module& each) { return std::strcmp(each.name, name) == 0; });
  if (module == std::end(modules)) throw Problem{std::string("there is no ") + name + ".cu"};
  int major = 0, minor = 0;
  driver.check(driver.get_attribute(&major, 75, device), "asking for the compute capability");
  driver.check(driver.get_attribute(&minor, 76, device), "asking for the compute capability");
  // Compiled for this very device, so that what only its architecture has (the `a`) may be used.
  std::string arch = "sm_" + std::to_string(major) + std::to_string(minor) + (major >= 9 ? "a" : "");
  std::string path = cache_path(*module, arch), binary = read_file(path);
  if (binary.empty() || driver.load_data(&loaded, binary.data()) != 0) {
    binary = compile(*module, arch);
    driver.check(driver.load_data(&loaded, binary.data()), "loading a kernel");
    write_file(path, binary);
  }
  return loaded;
}

Kernel& find_kernel(Kernels& all, const char* module, const char* name, int device, const Grid& grid) {
  const Driver& driver = driver_of(all, device);
  Kernel& kernel = all.kernels[{device, module, name}];
  if (!kernel.function) {
    void* loaded = load_module(all, module, device);
    driver.check(driver.get_function(&kernel.function, loaded, name), "finding it");
  }
  if (grid.shared_bytes > kernel.shared_bytes) {
    driver.check(driver.set_function_attribute(kernel.function, 8, static_cast<int>(grid.shared_bytes)), "asking for shared memory");
    kernel.shared_bytes = grid.shared_bytes;
  }
  return kernel;
}

// Calls `run` with the kernels, of which nobody else makes use meanwhile, and their device current.
template <typename Run>
void with_kernels(const char* name, c10::Device device, Run run) {
  auto& all = kernels();
  std::lock_guard<std::mutex> lock(all.mutex);
  c10::DeviceGuard guard(device);
  try {
    run(all);
  } catch (const Problem& problem) {
    TORCH_CHECK(false, "CUDA kernel ", name, ": ", problem.text);
  }
}

int device_attribute(Kernels& all, int which, int device) {
  int value = 0;
  const Driver& driver = driver_of(all, device);
  driver.check(driver.get_attribute(&value, which, device), "asking for a device's attribute");
  return value;
}

}  // namespace

void launch(const char* module, const char* name, c10::Device device, const Grid& grid, void** args) {
  with_kernels(name, device, [&](Kernels& all) {
    Kernel& kernel = find_kernel(all, module, name, device.index(), grid);
    void* stream = c10::cuda::getCurrentCUDAStream(device.index()).stream();
    const Driver& driver = driver_of(all, device.index());
    driver.check(driver.launch(kernel.function, grid.x, grid.y, grid.z, grid.threads, 1, 1, grid.shared_bytes, stream, args, nullptr),
                      "launching it");
  });
}

unsigned blocks_at_once(const char* module, const char* name, c10::Device device, const Grid& grid) {
  unsigned result = 0;
  with_kernels(name, device, [&](Kernels& all) {
    Kernel& kernel = find_kernel(all, module, name, device.index(), grid);
    unsigned& known = kernel.at_once[{grid.threads, grid.shared_bytes}];
    if (known == 0) {
      int blocks = 0;
      const Driver& driver = driver_of(all, device.index());
      driver.check(driver.most_blocks(&blocks, kernel.function, static_cast<int>(grid.threads), grid.shared_bytes), "asking how many fit");
      known = static_cast<unsigned>(std::max(1, blocks * device_attribute(all, 16, device.index())));
    }
    result = known;
  });
  return result;
}

DeviceLimits device_limits(c10::Device device) {
  DeviceLimits limits;
  with_kernels("limits", device, [&](Kernels& all) {
    limits.capability = 10 * device_attribute(all, 75, device.index()) + device_attribute(all, 76, device.index());
    limits.shared_bytes = static_cast<unsigned>(device_attribute(all, 97, device.index()));
  });
  return limits;
}

bool cuda_kernels(c10::Device device) {
  auto& all = kernels();
  std::lock_guard<std::mutex> lock(all.mutex);
  if (!all.problem.empty()) return false;
  c10::DeviceGuard guard(device);
  try {
    load_module(all, "draw", device.index());
    return true;
  } catch (const Problem& problem) {
    all.problem = problem.text;
    return false;
  }
}

bool draw_cuda(bool is_normal, uint32_t key_lo, uint32_t key_hi, int64_t first_image, const at::Tensor& base, int64_t images,
               int64_t elements, at::Tensor& out) {
  if (out.numel() == 0) return true;
  if (!cuda_kernels(out.device())) return false;
  float* to = static_cast<float*>(out.data_ptr());
  const void* from = base.defined() ? base.data_ptr() : nullptr;
  auto first = static_cast<unsigned long long>(first_image), count = static_cast<unsigned long long>(images),
       each = static_cast<unsigned long long>(elements);
  int normal = is_normal;
  void* args[] = {&to, &key_lo, &key_hi, &first, &from, &count, &each, &normal};
  unsigned long long blocks = (count * ((each + 3) / 4) + 255) / 256;
  launch("draw", "dsd_draw", out.device(), {static_cast<unsigned>(std::min<unsigned long long>(blocks, 65535))}, args);
  return true;
}

std::string nvrtc_problem() {
  auto& all = kernels();
  std::lock_guard<std::mutex> lock(all.mutex);
  return all.problem;
}

}  // namespace dsd

#endif
