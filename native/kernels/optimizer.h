// What the operators of the optimizer share: optimizer.cc has them, with what runs on the CPU; optimizer-cuda.cc launches the kernels.
#pragma once

#include "kernels.h"

#include <vector>

namespace dsd {

// The numbers of a step, float64 and on the device: nothing that changes from step to step comes from the host.
enum Number : int64_t {
  kFinite,        // 1, or 0 where the gradient is not finite: weights, moments and momentum stay as they are
  kDivisor,       // gradients are divided by it: 1, or more where they are clipped
  kRate,          // the learning rate
  kDecay,         // that times the weight decay
  kSize,          // AdamW's rate, with the correction of the first moment
  kRoot,          // 1 / sqrt(correction of the second moment)
  kTargetShare,   // by which an average moves towards the weight
  kAverageShare,
  kNumbers
};

// A parameter with all that an update of it touches; what is not defined is not there.
struct Parameter {
  at::Tensor weight;
  at::Tensor gradient;       // of AdamW; for a parameter without moments the direction in which it goes
  at::Tensor first, second;  // AdamW's moments
  at::Tensor target, average;
  at::Tensor copy, target_copy;  // bfloat16
  double scale;                  // of the direction, beside the rate
};

// Pieces of at most this many elements: threads share the work evenly, and a sum of pieces depends on no number of threads.
constexpr int64_t piece = 16384;

#ifdef DSD_CUDA
at::Tensor grad_norm_cuda(const std::vector<at::Tensor>& gradients);
void step_numbers_cuda(const at::Tensor& norm, const at::Tensor& step, const at::Tensor& rates, double clip, double beta1, double beta2,
                       double weight_decay, at::Tensor& numbers);
void update_cuda(const std::vector<Parameter>& parameters, const at::Tensor& numbers, double beta1, double beta2, double eps);
void muon_direction_cuda(const std::vector<at::Tensor>& gradients, at::Tensor& momentum, const at::Tensor& numbers, double keep, at::Tensor& out);
void quintic_cuda(at::Tensor& square, const at::Tensor& x, double a, double b, double c);
#endif

}  // namespace dsd
