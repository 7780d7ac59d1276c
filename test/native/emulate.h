// Runs a CUDA kernel on the CPU, so that machines without a GPU can test it. Each thread of a block is a fiber that runs until it meets a barrier or
// an exchange within its warp. It proves what a kernel computes, not how fast; blocks run one after another.
//
// A test is a program NAME.cc beside this file, run by test/torch/kernels.test.ts:
//     #include "emulate.h"                             // first: defines DSD_EMULATED and what CUDA has built in
//     #include "../../native/kernels/cuda/NAME.cu"
//     int main() {
//       emulated::Buffer<float> x(1000), y(1000);      // exact size; poisoned, so that a value that is never written is NaN
//       ...fill x.at(i)...
//       emulated::launch({blocks}, threads, shared_bytes, [&] { kernel(x.data(), y.data(), 1000); });
//       emulated::expect_near("y", y.values(), wanted, 1e-6);
//       return emulated::finish();
//     }
// It is built with the address sanitizer, which finds accesses outside of buffers and of dynamic shared memory.
//
// Rules for the kernel's text: dynamic shared memory by the macro DSD_SHARED(name), defined there for CUDA and here for the CPU; inline assembly only
// in small functions, which under DSD_EMULATED call their namesakes below. What it finds: threads of a warp that part at an exchange, barriers that
// not all threads reach, reads of cp.async's data or of the copy engine's before the wait, writes over what the copy engine has still to store, and, because launch() lets threads run in another order each time (set
// `schedule` and compare), most missing barriers between warps.
#pragma once
#define DSD_EMULATED 1

#include "emulate/check.h"
#include "emulate/functions.h"
#include "emulate/tma.h"
#include "emulate/wgmma.h"
