// Launching the kernels of native/kernels/cuda.
#pragma once

#ifdef DSD_CUDA

#include <c10/core/Device.h>

namespace dsd {

struct Grid {
  unsigned x = 1, y = 1, z = 1;  // blocks
  unsigned threads = 256;        // of a block
  unsigned shared_bytes = 0;     // dynamic; beyond 48 KiB the kernel is let have it
};

// Launches a kernel on the device's current stream; `args` points to each argument. The module, a file of native/kernels/cuda, is compiled at its first use.
// Throws c10::Error that names the kernel: it could not be compiled, or was not taken.
void launch(const char* module, const char* kernel, c10::Device device, const Grid& grid, void** args);

// How many such blocks the device works on at a time: as many as there need be of a kernel whose blocks take one piece of work after another.
unsigned blocks_at_once(const char* module, const char* kernel, c10::Device device, const Grid& grid);

struct DeviceLimits {
  int capability = 0;         // such as 90 for 9.0
  unsigned shared_bytes = 0;  // the most that a block may have
};
DeviceLimits device_limits(c10::Device device);

}  // namespace dsd

#endif
