// What a test of a kernel needs: buffers, random numbers, comparisons. See emulate.h.
#pragma once

#include "warp.h"

#include <cmath>
#include <type_traits>

namespace emulated {

// Of exact size, on its own in memory, poisoned (every float or bfloat16 is NaN).
template <typename T>
class Buffer {
 public:
  explicit Buffer(size_t size) : size_(size), memory_(static_cast<T*>(std::aligned_alloc(256, (size * sizeof(T) + 255) / 256 * 256))) {
    std::memset(static_cast<void*>(memory_.get()), 0xff, size * sizeof(T));
    ASAN_POISON_MEMORY_REGION(end_of(size), (size * sizeof(T) + 255) / 256 * 256 - size * sizeof(T));
  }
  ~Buffer() { ASAN_UNPOISON_MEMORY_REGION(end_of(size_), (size_ * sizeof(T) + 255) / 256 * 256 - size_ * sizeof(T)); }
  Buffer(const Buffer&) = delete;
  T* data() { return memory_.get(); }
  size_t size() const { return size_; }
  T& at(size_t i) {
    if (i >= size_) fail("a test reads beyond a buffer");
    return memory_.get()[i];
  }
  void fill(const std::vector<double>& values) {
    if (values.size() != size_) fail("a test fills a buffer of another size");
    for (size_t i = 0; i < size_; i++) {
      if constexpr (std::is_same_v<T, uint16_t>) at(i) = to_bf16(static_cast<float>(values[i]));
      else at(i) = static_cast<T>(values[i]);
    }
  }
  std::vector<double> values() {  // 16-bit numbers are bfloat16
    std::vector<double> all(size_);
    for (size_t i = 0; i < size_; i++) {
      if constexpr (std::is_same_v<T, uint16_t>) all[i] = from_bf16(at(i));
      else all[i] = static_cast<double>(at(i));
    }
    return all;
  }

 private:
  struct Free { void operator()(T* memory) const { std::free(memory); } };
  unsigned char* end_of(size_t size) { return reinterpret_cast<unsigned char*>(memory_.get()) + size * sizeof(T); }
  size_t size_;
  std::unique_ptr<T, Free> memory_;
};

inline std::vector<double> normal(size_t count, unsigned seed, double deviation = 1, double mean = 0) {
  std::mt19937 random(seed);
  std::normal_distribution<double> draw(mean, deviation);
  std::vector<double> values(count);
  for (auto& value : values) value = draw(random);
  return values;
}
// As they are in bfloat16.
inline std::vector<double> rounded(std::vector<double> values) {
  for (auto& value : values) value = from_bf16(to_bf16(static_cast<float>(value)));
  return values;
}

inline int failures = 0;

// |found - wanted| / |wanted|, of all together; NaN never passes.
inline void expect_near(const std::string& name, const std::vector<double>& found, const std::vector<double>& wanted, double tolerance) {
  if (found.size() != wanted.size()) fail(name + ": sizes differ");
  double error = 0, norm = 0;
  size_t nans = 0;
  for (size_t i = 0; i < found.size(); i++) {
    nans += !std::isfinite(found[i]);
    error += (found[i] - wanted[i]) * (found[i] - wanted[i]);
    norm += wanted[i] * wanted[i];
  }
  error = std::sqrt(error) / std::max(std::sqrt(norm), 1e-30);
  const bool passed = nans == 0 && error <= tolerance;
  failures += !passed;
  std::printf("%s %s: %.3g of %.3g%s\n", passed ? "ok" : "FAILED", name.c_str(), error, tolerance, nans ? (", " + std::to_string(nans) + " not finite").c_str() : "");
}
inline void expect(const std::string& name, bool passed) {
  failures += !passed;
  std::printf("%s %s\n", passed ? "ok" : "FAILED", name.c_str());
}
inline int finish() { return failures > 0; }

}  // namespace emulated
