// The CPU's allocator, with a look at what the machine has left before the kernel ends a process that took more.
#include "bridge.h"

#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace dsd {
namespace {

constexpr size_t often = size_t(64) << 20;

// The number after `key` in a file of /proc or /sys, in its own unit; false if there is none. An empty key: the file is the number.
bool read_number(const char* path, const char* key, unsigned long long& number) {
  FILE* file = std::fopen(path, "r");
  if (!file) return false;
  char line[256];
  bool found = false;
  while (!found && std::fgets(line, sizeof line, file)) {
    size_t length = std::strlen(key);
    found = std::strncmp(line, key, length) == 0 && std::sscanf(line + length, " %llu", &number) == 1;
  }
  std::fclose(file);
  return found;
}

struct Group {
  const char *most, *used, *details, *active, *inactive;
};
// Version 2 and version 1, as a container sees its own.
constexpr Group groups[] = {
    {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "active_file", "inactive_file"},
    {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.stat",
     "total_active_file", "total_inactive_file"}};

// Bytes that can still be had; all there are where nobody knows.
unsigned long long available() {
  unsigned long long kib = 0, left = ~0ull;
  if (read_number("/proc/meminfo", "MemAvailable:", kib)) left = kib * 1024;
  for (const Group& group : groups) {
    unsigned long long most = 0, used = 0, active = 0, inactive = 0;
    if (!read_number(group.most, "", most) || !read_number(group.used, "", used)) continue;
    // Pages of files count as used, and are given up first.
    read_number(group.details, group.active, active);
    read_number(group.details, group.inactive, inactive);
    used -= std::min(used, active + inactive);
    left = std::min(left, most - std::min(most, used));
  }
  return left;
}

}  // namespace

// Linux grants memory that it does not have and ends the process when it is touched. A look costs some 100 us: before large requests, and whenever the
// small ones together are a sixteenth of what the last look found.
void check_available(size_t bytes) {
  static std::atomic<int64_t> granted{0};
  const auto asked = static_cast<int64_t>(bytes);
  if (bytes < often && granted.fetch_sub(asked, std::memory_order_relaxed) >= asked) return;
  auto left = available();
#ifdef __GLIBC__
  if (left < often || bytes > left - often) {
    malloc_trim(0);  // what was freed and kept: see below
    left = available();
  }
#endif
  if (left < often || bytes > left - often) {
    C10_THROW_ERROR(OutOfMemoryError, "not enough memory: asked for " + std::to_string(bytes) + " bytes, " + std::to_string(left) +
                                          " are available, of which the last " + std::to_string(often) + " are not given away");
  }
  granted.store(static_cast<int64_t>(std::max<unsigned long long>(often, (left - bytes) / 16)), std::memory_order_relaxed);
}

namespace {

struct Checked : c10::Allocator {
  c10::Allocator* inner = nullptr;
#if TORCH_VERSION_MAJOR >= 2
  c10::DataPtr allocate(size_t n) override {
    check_available(n);
    return inner->allocate(n);
  }
  void copy_data(void* dest, const void* src, std::size_t count) const override { inner->copy_data(dest, src, count); }
#else
  c10::DataPtr allocate(size_t n) const override {
    check_available(n);
    return inner->allocate(n);
  }
#endif
  c10::DeleterFnPtr raw_deleter() const override { return inner->raw_deleter(); }
};

const bool allocator_installed = [] {
#ifdef __GLIBC__
  // A step makes and frees the same large tensors again and again. Given back to the system each time, they would be cleared and mapped each
  // time: an eighth of a step of the demo. So up to 2 GiB are kept, and only what is larger than 32 MiB goes back at once.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 0x7fffffff);
#endif
  static Checked checked;
  checked.inner = c10::GetCPUAllocator();
  c10::SetCPUAllocator(&checked, 1);
  return true;
}();

}  // namespace
}  // namespace dsd
