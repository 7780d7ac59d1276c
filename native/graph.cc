// The device's queue of work: a stream of our own for all of it, how far the program is ahead of the device, and CUDA graphs, which put a
// captured piece of work into the queue as one.
#include "bridge.h"

#include <c10/util/Exception.h>

#ifdef DSD_CUDA
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/empty.h>
#include <c10/core/Event.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <unistd.h>

#include <deque>
#endif

namespace dsd {
namespace {

int64_t read_most(Args& a) {
  const auto most = a.integer(0, "most");
  if (most < 0) type_error("workAhead: most must not be negative, found " + std::to_string(most));
  return most;
}

}  // namespace

#ifndef DSD_CUDA

void use_own_stream(c10::Device) {}
bool is_capturing() { return false; }

namespace {

[[noreturn]] void no_cuda(const char* what) { plain_error(std::string(what) + ": this libtorch (" TORCH_VERSION ") computes on no CUDA device"); }
napi_value graph_begin(Args&) { no_cuda("Graph.capture"); }
napi_value graph_end(Args&) { no_cuda("Graph.capture"); }
napi_value graph_replay(Args&) { no_cuda("Graph.replay"); }
napi_value graph_free(Args& a) { return a.undefined(); }
// What a processor is given it has done when the call returns.
napi_value mark_work(Args& a) { return a.undefined(); }
napi_value work_ahead(Args& a) {
  read_most(a);
  return make_number(a.env, 0);
}

}  // namespace

#else

namespace {

struct Captured {
  at::cuda::CUDAGraph graph;
  decltype(at::cuda::graph_pool_handle()) pool = at::cuda::graph_pool_handle();
  c10::DeviceIndex device = 0;
};

// Work is captured by the thread that began to.
thread_local std::shared_ptr<Captured> under_way;

c10::DeviceIndex index_of(c10::Device device) { return device.has_index() ? device.index() : c10::cuda::current_device(); }

// Frees a capture that is not wanted, or failed. Before libtorch 2.14 one whose end failed (a wait for the device spoils it, say) would stay
// in the allocator's books for good: memory would be taken for one that is captured, and never be given back.
void abandon(std::shared_ptr<Captured> captured) {
  const auto device = captured->device;
  const auto pool = captured->pool;
  captured.reset();
  try {
    c10::cuda::CUDACachingAllocator::endAllocateToPool(device, pool);
  } catch (const std::exception&) {
    return;  // the usual case: it has ended
  }
  try {
    c10::cuda::CUDACachingAllocator::releasePool(device, pool);
  } catch (const std::exception&) {
  }
}

// Of CUDA itself, unlike of the allocator, "out of memory" is an error like any other.
JsError failure(const char* what, const std::exception& error) {
  const std::string reason = message_of(error);
  const bool memory = is_out_of_memory(error) || reason.find("out of memory") != std::string::npos;
  return JsError(memory ? JsError::Kind::memory : JsError::Kind::error, std::string(what) + ": " + reason);
}

// graphBegin(device): from now on this thread's work on the device is written down instead of done. Memory for it comes from a pool of its own,
// so what lies unused in the common one is given back first.
napi_value graph_begin(Args& a) {
  a.function = "Graph.capture";
  const auto device = read_device(a.string(0, "device"), "Graph.capture: device");
  if (!device.is_cuda()) plain_error("Graph.capture: only work on a CUDA device can be captured, not on '" + device.str() + "'");
  if (under_way) plain_error("Graph.capture: a capture is under way already");
  std::shared_ptr<Captured> captured;
  try {
    const auto index = index_of(device);
    const c10::cuda::CUDAGuard guard(index);
    c10::cuda::device_synchronize();
    c10::cuda::CUDACachingAllocator::emptyCache();
    captured = std::make_shared<Captured>();
    captured->device = index;
    // Relaxed: other threads (autograd's among them) may go on asking CUDA for memory, modules and events meanwhile.
    captured->graph.capture_begin(captured->pool, cudaStreamCaptureModeRelaxed);
  } catch (const std::exception& error) {
    const auto told = failure("Graph.capture", error);
    if (captured) abandon(std::move(captured));
    throw told;
  }
  under_way = std::move(captured);
  return a.undefined();
}

// graphEnd(keep): ends the capture. With `keep` returns the graph's number, without it nothing is left of it.
napi_value graph_end(Args& a) {
  a.function = "Graph.capture";
  const bool keep = a.boolean(0, "keep");
  auto captured = std::move(under_way);
  under_way.reset();
  if (!captured) plain_error("Graph.capture: no capture is under way");
  try {
    const c10::cuda::CUDAGuard guard(captured->device);
    captured->graph.capture_end();
  } catch (const std::exception& error) {
    const auto told = failure("Graph.capture", error);
    abandon(std::move(captured));
    throw told;
  }
  if (!keep) {
    abandon(std::move(captured));
    return a.undefined();
  }
  const auto id = a.bridge.next_graph++;
  a.bridge.graphs[id] = std::move(captured);
  return make_number(a.env, static_cast<double>(id));
}

// graphReplay(graph): puts the captured work into the queue. Nothing waits.
napi_value graph_replay(Args& a) {
  a.function = "Graph.replay";
  const auto found = a.bridge.graphs.find(a.integer(0, "graph"));
  if (found == a.bridge.graphs.end()) plain_error("Graph.replay: the graph was disposed");
  auto& captured = *static_cast<Captured*>(found->second.get());
  if (under_way) plain_error("Graph.replay: a capture is under way");
  try {
    const c10::cuda::CUDAGuard guard(captured.device);
    captured.graph.replay();
  } catch (const std::exception& error) {
    throw failure("Graph.replay", error);
  }
  return a.undefined();
}

// graphFree(graph): after what it still has to do.
napi_value graph_free(Args& a) {
  const auto found = a.bridge.graphs.find(a.integer(0, "graph"));
  if (found == a.bridge.graphs.end()) return a.undefined();
  const c10::cuda::CUDAGuard guard(static_cast<Captured*>(found->second.get())->device);
  if (!under_way) c10::cuda::device_synchronize();
  a.bridge.graphs.erase(found);
  return a.undefined();
}

using Marks = std::deque<c10::Event>;

Marks& marks_of(Bridge& bridge) {
  if (!bridge.marks) bridge.marks = std::make_shared<Marks>();
  return *static_cast<Marks*>(bridge.marks.get());
}

// markWork(device): puts a mark behind all the work that the device was given.
napi_value mark_work(Args& a) {
  const auto device = read_device(a.string(0, "device"), "markWork: device");
  if (!device.is_cuda() || under_way) return a.undefined();
  c10::Event mark(c10::kCUDA);
  mark.record(c10::cuda::getCurrentCUDAStream(index_of(device)).unwrap());
  marks_of(a.bridge).push_back(std::move(mark));
  return a.undefined();
}

// workAhead(most): waits until the device has at most so many marks before it; returns how many. It sleeps between looks, since the events'
// own waiting would keep a core busy.
napi_value work_ahead(Args& a) {
  const auto most = read_most(a);
  auto& marks = marks_of(a.bridge);
  for (;;) {
    while (!marks.empty() && marks.front().query()) marks.pop_front();
    if (static_cast<int64_t>(marks.size()) <= most) return make_number(a.env, static_cast<double>(marks.size()));
    usleep(100);
  }
}

}  // namespace

bool is_capturing() { return under_way != nullptr; }

// A capture cannot begin on the default stream; and kernels may choose their way of working by the stream's memory, so steps with and without
// a graph run on the same one.
void use_own_stream(c10::Device device) {
  thread_local uint64_t done = 0;
  const auto count = device.is_cuda() ? c10::cuda::device_count() : 0;
  if (count == 0) return;
  const auto index = index_of(device);
  if (index >= count || index >= 64 || (done >> index & 1)) return;
  at::empty({0}, at::TensorOptions().device(c10::kCUDA, index));  // libtorch begins with CUDA at its first tensor there, and pinned memory needs it to have
  c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, index));
  done |= uint64_t(1) << index;
}

#endif

const std::vector<Export> graph_exports = {{"graphBegin", graph_begin}, {"graphEnd", graph_end}, {"graphReplay", graph_replay},
                                           {"graphFree", graph_free},   {"markWork", mark_work}, {"workAhead", work_ahead}};

}  // namespace dsd
