// A block of threads as fibers of one thread, and how they wait for each other. See emulate.h.
#pragma once

#include "language.h"

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size)
#define ASAN_UNPOISON_MEMORY_REGION(address, size)
#endif

// Symbols that the linker makes of the section of static shared memory, if there is any.
extern "C" unsigned char __start_emulated_shared[] __attribute__((weak));
extern "C" unsigned char __stop_emulated_shared[] __attribute__((weak));

namespace emulated {

[[noreturn]] inline void fail(const std::string& text) {
  std::printf("FAILED: %s\n", text.c_str());
  std::fflush(stdout);
  std::_Exit(1);
}

constexpr size_t most_shared = 232448;  // what a block may have on the GPUs that the kernels are for
constexpr size_t stack_bytes = 128 << 10;
alignas(1024) inline unsigned char dynamic_shared[most_shared];
inline unsigned schedule = 0;  // another number, another order of threads

struct Wait {
  const char* kind = nullptr;  // what the thread waits in; null: it runs. | begins a barrier of threads, ? what a thread waits for on its own
  unsigned mask = 0;
  void* payload = nullptr;
};
struct AsyncCopy {
  unsigned char* to;
  const unsigned char* from;
  unsigned bytes;
};
struct Thread {
  ucontext_t context;
  std::unique_ptr<unsigned char[]> stack{new unsigned char[stack_bytes]};
  uint3 index;
  unsigned number;
  bool done;
  Wait wait;
  std::vector<std::vector<AsyncCopy>> copies;  // groups, the last one still open
  std::vector<std::vector<std::function<void()>>> stores;  // likewise, of the copy engine
};
struct Block {
  dim3 grid, size;
  uint3 index;
  size_t shared_bytes;
  std::vector<std::unique_ptr<Thread>> threads;
  Thread* current = nullptr;
  ucontext_t scheduler;
  const std::function<void()>* body = nullptr;
  std::vector<std::function<void()>> loads;  // of the copy engine, on their way
  std::string name() const { return "block " + std::to_string(index.x) + ", thread " + std::to_string(current->number) + ": "; }
};
inline Block block;

#define threadIdx (emulated::block.current->index)
#define blockIdx (emulated::block.index)
#define blockDim (emulated::block.size)
#define gridDim (emulated::block.grid)
#define warpSize 32

inline void yield() { swapcontext(&block.current->context, &block.scheduler); }

// Waits until the threads of the warp that `mask` names are in the same exchange; the last to come performs it on the payloads of all, by lane.
template <typename Payload, typename Perform>
void exchange(const char* kind, unsigned mask, Payload& payload, Perform perform) {
  Thread& self = *block.current;
  unsigned first = self.number & ~31u, lane = self.number & 31u, count = std::min<unsigned>(32, block.threads.size() - first);
  if (count < 32) mask &= (1u << count) - 1;
  if (!(mask >> lane & 1)) fail(block.name() + kind + " with a mask that leaves the thread itself out");
  self.wait = {kind, mask, &payload};
  Payload* payloads[32] = {};
  for (unsigned i = 0; i < count; i++) {
    Thread& other = *block.threads[first + i];
    if (!(mask >> i & 1)) continue;
    if (other.done) fail(block.name() + kind + ": lane " + std::to_string(i) + " has ended");
    if (!other.wait.kind) return yield();
    if (other.wait.kind[0] == '|' || other.wait.kind[0] == '?') return yield();  // at a barrier of the block, where it may be waited for too: found out when nothing moves
    if (std::strcmp(other.wait.kind, kind) != 0 || other.wait.mask != mask) fail(block.name() + kind + ": lane " + std::to_string(i) + " is in " + other.wait.kind);
    payloads[i] = static_cast<Payload*>(other.wait.payload);
  }
  for (unsigned i = 0; i < count; i++) if (mask >> i & 1) block.threads[first + i]->wait.kind = nullptr;
  perform(payloads);
}

// Named barriers as in bar.sync; number 0 of all threads is __syncthreads.
inline void barrier(unsigned number = 0, unsigned threads = 0) {
  if (number >= 16) fail(block.name() + "a barrier's number is below 16");
  block.current->wait = {"|barrier", number, reinterpret_cast<void*>(static_cast<uintptr_t>(threads))};
  yield();
}

// Until something holds that others, or the copy engine, bring about.
inline void wait_until(const char* kind, const std::function<bool()>& holds) {
  if (holds()) return;
  block.current->wait = {kind, 0, const_cast<std::function<bool()>*>(&holds)};
  yield();
}

inline void enter() {
  (*block.body)();
  if (!block.current->stores.empty()) fail(block.name() + "ends before the copy engine has read what it stores");
  block.current->done = true;
}

inline void begin_threads() {
  const unsigned count = block.size.x * block.size.y * block.size.z;
  for (size_t i = block.threads.size(); i < count; i++) block.threads.push_back(std::make_unique<Thread>());
  block.threads.resize(count);
  for (unsigned i = 0; i < count; i++) {
    Thread& thread = *block.threads[i];
    ASAN_UNPOISON_MEMORY_REGION(thread.stack.get(), stack_bytes);
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = stack_bytes;
    thread.context.uc_link = &block.scheduler;
    makecontext(&thread.context, enter, 0);
    thread.index = {i % block.size.x, i / block.size.x % block.size.y, i / block.size.x / block.size.y};
    thread.number = i;
    thread.done = false;
    thread.wait = {};
    thread.copies.assign(1, {});
    thread.stores.clear();
  }
}

// Lets the barriers open at which all have arrived; whether any has.
inline bool open_barriers() {
  bool opened = false;
  for (unsigned number = 0; number < 16; number++) {
    unsigned waiting = 0, live = 0, wanted = 0;
    for (auto& thread : block.threads) {
      live += !thread->done;
      if (thread->done || !thread->wait.kind || thread->wait.kind[0] != '|' || thread->wait.mask != number) continue;
      waiting++;
      wanted = static_cast<unsigned>(reinterpret_cast<uintptr_t>(thread->wait.payload));
    }
    if (waiting == 0 || waiting != (wanted ? wanted : live)) continue;
    for (auto& thread : block.threads) {
      if (!thread->done && thread->wait.kind && thread->wait.kind[0] == '|' && thread->wait.mask == number) thread->wait.kind = nullptr;
    }
    opened = true;
  }
  return opened;
}

// Lets the threads go on that wait for what now holds; whether there is any.
inline bool wake() {
  bool woken = false;
  for (auto& thread : block.threads) {
    if (thread->done || !thread->wait.kind || thread->wait.kind[0] != '?' || !(*static_cast<std::function<bool()>*>(thread->wait.payload))()) continue;
    thread->wait.kind = nullptr;
    woken = true;
  }
  return woken;
}

// Warp by warp, each as far as it comes: the most that warps can be apart.
inline void run_block(std::mt19937& random) {
  ASAN_UNPOISON_MEMORY_REGION(dynamic_shared, sizeof dynamic_shared);
  std::memset(dynamic_shared, 0xff, sizeof dynamic_shared);
  ASAN_POISON_MEMORY_REGION(dynamic_shared + block.shared_bytes, sizeof dynamic_shared - block.shared_bytes);
  if (__start_emulated_shared) std::memset(__start_emulated_shared, 0xff, __stop_emulated_shared - __start_emulated_shared);
  begin_threads();
  const unsigned count = static_cast<unsigned>(block.threads.size());
  std::vector<unsigned> warps((count + 31) / 32), lanes(32);
  std::iota(warps.begin(), warps.end(), 0u);
  std::iota(lanes.begin(), lanes.end(), 0u);
  for (;;) {
    if (schedule > 0) std::shuffle(warps.begin(), warps.end(), random);
    for (unsigned warp : warps) {
      if (schedule > 0) std::shuffle(lanes.begin(), lanes.end(), random);
      for (bool moved = true; moved;) {
        moved = false;
        for (unsigned lane : lanes) {
          if (warp * 32 + lane >= count) continue;
          Thread& thread = *block.threads[warp * 32 + lane];
          if (thread.done || thread.wait.kind) continue;
          block.current = &thread;
          swapcontext(&block.scheduler, &thread.context);
          moved = true;
        }
      }
    }
    if (std::all_of(block.threads.begin(), block.threads.end(), [](auto& thread) { return thread->done; })) {
      if (!block.loads.empty()) fail("a block ends before what it loads has come");
      return;
    }
    if (open_barriers() | wake()) continue;
    if (!block.loads.empty()) {  // no sooner than something waits for them, in any order
      const size_t i = random() % block.loads.size();
      const auto load = std::move(block.loads[i]);
      block.loads.erase(block.loads.begin() + i);
      load();
      continue;
    }
    for (auto& thread : block.threads) {
      block.current = thread.get();
      if (!thread->done && thread->wait.kind[0] == '?') fail(block.name() + "waits for ever: " + (thread->wait.kind + 1));
      if (!thread->done && thread->wait.kind[0] != '|') fail(block.name() + "waits for its warp in " + thread->wait.kind + " for ever");
    }
    fail("threads wait at different barriers for ever");
  }
}

inline void launch(dim3 grid, dim3 size, size_t shared_bytes, const std::function<void()>& body) {
  if (shared_bytes > most_shared) fail("more shared memory than a block may have");
  std::mt19937 random(schedule);
  block.grid = grid;
  block.size = size;
  block.shared_bytes = shared_bytes;
  block.body = &body;
  std::vector<unsigned> order(grid.x * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0u);
  if (schedule > 0) std::shuffle(order.begin(), order.end(), random);
  for (unsigned i : order) {
    block.index = {i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y};
    run_block(random);
  }
}

}  // namespace emulated
