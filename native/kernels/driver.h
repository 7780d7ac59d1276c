// The CUDA driver's functions that nvrtc.cc uses, opened by name and declared here, so that no header of the toolkit is needed.
#pragma once

#include <dlfcn.h>

#include <string>

namespace dsd {

// Why a kernel cannot be had or launched.
struct Problem {
  std::string text;
};

inline void* need(void* library, const char* name) {
  void* symbol = dlsym(library, name);
  if (!symbol) throw Problem{std::string(name) + " is missing from the library"};
  return symbol;
}

template <typename F>
void load(F*& function, void* library, const char* name) {
  function = reinterpret_cast<F*>(need(library, name));
}

struct Driver {
  int (*get_attribute)(int*, int, int);
  int (*load_data)(void**, const void*);
  int (*get_function)(void**, void*, const char*);
  int (*launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);
  int (*set_function_attribute)(void*, int, int);
  int (*most_blocks)(int*, void*, int, size_t);
  int (*get_current)(void**);
  int (*set_current)(void*);
  int (*retain_primary)(void**, int);
  int (*error_string)(int, const char**);
  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (!library) throw Problem{"the CUDA driver (libcuda.so.1) was not found"};
    load(get_attribute, library, "cuDeviceGetAttribute");
    load(load_data, library, "cuModuleLoadData");
    load(get_function, library, "cuModuleGetFunction");
    load(launch, library, "cuLaunchKernel");
    load(set_function_attribute, library, "cuFuncSetAttribute");
    load(most_blocks, library, "cuOccupancyMaxActiveBlocksPerMultiprocessor");
    load(get_current, library, "cuCtxGetCurrent");
    load(set_current, library, "cuCtxSetCurrent");
    load(retain_primary, library, "cuDevicePrimaryCtxRetain");
    load(error_string, library, "cuGetErrorString");
  }
  // The runtime makes a device's context current in a thread at its first call there; a thread of autograd's may launch a kernel of ours before.
  void make_current(int device) const {
    void* context = nullptr;
    check(get_current(&context), "asking for the context");
    if (context) return;
    check(retain_primary(&context, device), "asking for the device's context");
    check(set_current(context), "setting the context");
  }
  void check(int status, const char* what) const {
    if (status == 0) return;
    const char* text = nullptr;
    error_string(status, &text);
    throw Problem{std::string(what) + ": " + (text ? text : "unknown error") + " (" + std::to_string(status) + ")"};
  }
};

}  // namespace dsd
