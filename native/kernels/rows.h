// What the operators that work row by row share.
#pragma once

#include "kernels.h"
#include "vector.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>

namespace dsd {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Calls `run(wide, narrow)` with a value of each type.
template <typename Run>
void by_type(const char* name, at::ScalarType wide, at::ScalarType narrow, Run run) {
  if (wide == at::kFloat && narrow == at::kFloat) return run(float(), float());
  if (wide == at::kFloat && narrow == at::kBFloat16) return run(float(), c10::BFloat16());
  if (wide == at::kDouble && narrow == at::kDouble) return run(double(), double());
  TORCH_CHECK(false, name, ": computes in float32 or float64 and multiplies in the same or, from float32, in bfloat16; found ", wide, " and ", narrow);
}

// float32 for what is stored in bfloat16.
inline at::ScalarType wide_of(at::ScalarType narrow) { return narrow == at::kBFloat16 ? at::kFloat : narrow; }

template <typename T>
T* data(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

// Rows in pieces of some 16,000 elements.
template <typename Each>
void for_rows(int64_t rows, int64_t width, Each each) {
  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, width)), each);
}

inline void only_first_derivatives(const char* name) {
  TORCH_CHECK(!c10::GradMode::is_enabled(), name, ": has no second derivative");
}

// As operators take their rows: one after another, and on CUDA, where 16 bytes are read at a time, from a multiple of that on.
inline at::Tensor rows_of(const at::Tensor& given) {
  auto rows = given.contiguous();
  return rows.is_cuda() && reinterpret_cast<uintptr_t>(rows.data_ptr()) % 16 != 0 ? rows.clone() : rows;
}

}  // namespace dsd
