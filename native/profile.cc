// What a CUDA device did while JavaScript ran: each kernel with its calls and its time, by libtorch's own profiler (Kineto).
#include "bridge.h"

#if defined(DSD_CUDA) && TORCH_VERSION_MAJOR >= 2
#define DSD_PROFILE
#include <c10/cuda/CUDAFunctions.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <map>
#endif

namespace dsd {
namespace {

#ifdef DSD_PROFILE

namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;
using torch::profiler::impl::ProfilerConfig;
using torch::profiler::impl::ProfilerState;

// The device only: what the operators do on the CPU would be an event for each, and cost as much as they do.
const std::set<ActivityType>& activities() {
  static const std::set<ActivityType> set = {ActivityType::CUDA};
  return set;
}

struct Total {
  double calls = 0;
  double microseconds = 0;
};

// Time in which at least one of the intervals lasts; they are sorted by it.
double covered(std::vector<std::pair<uint64_t, uint64_t>>& intervals) {
  std::sort(intervals.begin(), intervals.end());
  uint64_t sum = 0, until = 0;
  for (auto& [from, to] : intervals) {
    if (to <= until) continue;
    sum += to - std::max(from, until);
    until = to;
  }
  return static_cast<double>(sum) / 1e3;
}

#endif

// profileBegin(): from here on, all that the CUDA devices do is written down.
napi_value profile_begin(Args& a) {
#ifdef DSD_PROFILE
  if (c10::cuda::device_count() == 0) plain_error("profile: there is no CUDA device here");
  c10::cuda::device_synchronize();  // it also makes the device ready, where nothing has been computed yet
  ProfilerConfig config(ProfilerState::KINETO);
  profiler::prepareProfiler(config, activities());
  profiler::enableProfiler(config, activities());
  return a.undefined();
#else
  plain_error("profile: this libtorch has no profiler of CUDA devices");
#endif
}

// profileEnd(): [names of kernels, copies and fills, calls of each, microseconds of each, microseconds in which the device was at work]
napi_value profile_end(Args& a) {
#ifdef DSD_PROFILE
  // The profiler is ended also where the device has failed: a second one could not begin.
  std::exception_ptr failure;
  try {
    c10::cuda::device_synchronize();
  } catch (...) {
    failure = std::current_exception();
  }
  auto result = profiler::disableProfiler();
  if (failure) std::rethrow_exception(failure);
  std::map<std::string, Total> totals;
  std::vector<std::pair<uint64_t, uint64_t>> intervals;
  for (const auto& event : result->events()) {
    if (event.deviceType() != c10::DeviceType::CUDA) continue;
    auto& total = totals[event.name()];
    total.calls++;
    total.microseconds += static_cast<double>(event.durationNs()) / 1e3;
    intervals.emplace_back(event.startNs(), event.startNs() + event.durationNs());
  }
  napi_value parts[3], array;
  for (auto& part : parts) check(a.env, napi_create_array_with_length(a.env, totals.size(), &part));
  uint32_t i = 0;
  for (const auto& [name, total] : totals) {
    check(a.env, napi_set_element(a.env, parts[0], i, make_string(a.env, name)));
    check(a.env, napi_set_element(a.env, parts[1], i, make_number(a.env, total.calls)));
    check(a.env, napi_set_element(a.env, parts[2], i, make_number(a.env, total.microseconds)));
    i++;
  }
  check(a.env, napi_create_array_with_length(a.env, 4, &array));
  for (uint32_t at = 0; at < 3; at++) check(a.env, napi_set_element(a.env, array, at, parts[at]));
  check(a.env, napi_set_element(a.env, array, 3, make_number(a.env, covered(intervals))));
  return array;
#else
  plain_error("profile: this libtorch has no profiler of CUDA devices");
#endif
}

}  // namespace

const std::vector<Export> profile_exports = {{"profileBegin", profile_begin}, {"profileEnd", profile_end}};

}  // namespace dsd
