// Equal to the bit to Pillow's Image.resize: separable, the filter widened where it shrinks a picture, weights in fixed point of 22 bits, and
// rounding to 8 bits between the horizontal and the vertical pass.
#include "resize.h"

#include "../vector-widths.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace dsd {
namespace {

// Weights are integers of this many fractional bits: 255 times a filter's overshoot still fits an int32.
constexpr int bits = 22;
constexpr int32_t half = 1 << (bits - 1);

// For each output position: the first input position, how many, and their weights from position * most.
struct Taps {
  std::vector<int64_t> first, count;
  std::vector<int32_t> weights;
  int64_t most;
  int64_t begin() const { return first.front(); }
  int64_t end() const { return first.back() + count.back(); }
};

constexpr double pi = 3.14159265358979323846;

double sinc(double x) { return x == 0 ? 1 : std::sin(x * pi) / (x * pi); }

double weight_at(Filter filter, double x) {
  switch (filter) {
    case Filter::box: return x > -0.5 && x <= 0.5 ? 1 : 0;
    case Filter::lanczos: return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
    case Filter::bicubic: break;
  }
  // Keys' cubic with a = -1/2.
  x = std::abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((x - 5) * x + 8) * x * -0.5 + 2 : 0;
}

double support(Filter filter) { return filter == Filter::box ? 0.5 : filter == Filter::bicubic ? 2 : 3; }

// The weights of `count` output positions from `start` on when `input` positions become `output`.
Taps taps(int64_t input, int64_t output, int64_t start, int64_t count, Filter filter) {
  const double scale = static_cast<double>(input) / static_cast<double>(output);
  const double stretch = std::max(scale, 1.0);
  const double reach = support(filter) * stretch;
  const int64_t most = std::min(input, static_cast<int64_t>(std::ceil(reach)) * 2 + 1);
  Taps result{std::vector<int64_t>(count), std::vector<int64_t>(count), std::vector<int32_t>(count * most), most};
  std::vector<double> exact(most);
  for (int64_t i = 0; i < count; i++) {
    const double centre = (static_cast<double>(start + i) + 0.5) * scale;
    const int64_t from = std::max<int64_t>(0, static_cast<int64_t>(centre - reach + 0.5));
    const int64_t n = std::min(input, static_cast<int64_t>(centre + reach + 0.5)) - from;
    double sum = 0;
    for (int64_t k = 0; k < n; k++) {
      exact[k] = weight_at(filter, (static_cast<double>(from + k) - centre + 0.5) * (1 / stretch));
      sum += exact[k];
    }
    for (int64_t k = 0; k < n; k++) {
      const double weight = sum == 0 ? exact[k] : exact[k] * (1 / sum);
      result.weights[i * most + k] = static_cast<int32_t>(weight * (1 << bits) + (weight < 0 ? -0.5 : 0.5));
    }
    result.first[i] = from;
    result.count[i] = n;
  }
  return result;
}

inline uint8_t rounded(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> bits, 0, 255)); }

// Both passes add up pieces of this many neighbouring values, which stay in registers meanwhile.
constexpr int64_t piece = 48;

// out[i] = the sum over k of weights[k] * from[k * stride + i], for a piece.
__attribute__((always_inline)) inline void sum_piece(const uint8_t* from, int64_t stride, const int32_t* weights, int64_t count, uint8_t* out) {
  int32_t sums[piece];
  for (int64_t i = 0; i < piece; i++) sums[i] = half;
  for (int64_t k = 0; k < count; k++)
    for (int64_t i = 0; i < piece; i++) sums[i] += from[k * stride + i] * weights[k];
  for (int64_t i = 0; i < piece; i++) out[i] = rounded(sums[i]);
}

// Lays `rows` rows of pixels side by side, so that the horizontal pass adds up neighbouring values, as the vertical one does: pixel x of each, then
// pixel x + 1 of each. What is there for rows that are not is not looked at.
template <int channels>
void interleave(const uint8_t* from, int64_t stride, int64_t rows, int64_t width, uint8_t* to) {
  for (int64_t x = 0; x < width; x++)
    for (int64_t row = 0; row < rows; row++) std::memcpy(to + x * piece + row * channels, from + row * stride + x * channels, channels);
}

// Rows of `source` from `top` on become as wide as there are taps.
template <int channels>
__attribute__((always_inline)) inline void pass_across(const Picture& source, int64_t top, int64_t rows, const Taps& by, uint8_t* to, int64_t stride) {
  constexpr int64_t together = piece / channels;
  const int64_t begin = by.begin(), width = by.end() - begin;
  std::vector<uint8_t> block(width * piece);
  uint8_t values[piece];
  for (int64_t row = 0; row < rows; row += together) {
    const int64_t count = std::min(together, rows - row);
    interleave<channels>(source.pixels + ((top + row) * source.width + begin) * channels, source.width * channels, count, width, block.data());
    for (size_t x = 0; x < by.first.size(); x++) {
      sum_piece(block.data() + (by.first[x] - begin) * piece, piece, &by.weights[x * by.most], by.count[x], values);
      for (int64_t i = 0; i < count; i++) std::memcpy(to + (row + i) * stride + x * channels, values + i * channels, channels);
    }
  }
}

DSD_VECTOR void pass_across_1(const Picture& source, int64_t top, int64_t rows, const Taps& by, uint8_t* to, int64_t stride) {
  pass_across<1>(source, top, rows, by, to, stride);
}

DSD_VECTOR void pass_across_3(const Picture& source, int64_t top, int64_t rows, const Taps& by, uint8_t* to, int64_t stride) {
  pass_across<3>(source, top, rows, by, to, stride);
}

// From rows of `stride` bytes, a multiple of `piece`, of which the first is row `by.begin()`, to rows of `width`.
DSD_VECTOR void pass_down(const uint8_t* from, int64_t stride, const Taps& by, uint8_t* to, int64_t width) {
  uint8_t values[piece];
  for (size_t y = 0; y < by.first.size(); y++)
    for (int64_t i = 0; i < width; i += piece) {
      sum_piece(from + (by.first[y] - by.begin()) * stride + i, stride, &by.weights[y * by.most], by.count[y], values);
      std::memcpy(to + y * width + i, values, std::min(piece, width - i));
    }
}

}  // namespace

void resize(const Picture& source, int64_t width, int64_t height, Filter filter, const Window& window, uint8_t* out) {
  const int64_t stride = window.width * source.channels;
  // Pillow leaves out a pass that changes no size, even where the filter would blur.
  const bool across = width != source.width, down = height != source.height;
  const Taps vertical = down ? taps(source.height, height, window.y, window.height, filter) : Taps{};
  // The rows that the vertical pass will look at.
  const int64_t top = down ? vertical.begin() : window.y;
  const int64_t rows = down ? vertical.end() - top : window.height;

  const int64_t padded = down ? (stride + piece - 1) / piece * piece : stride;
  std::vector<uint8_t> between(down ? rows * padded : 0);
  uint8_t* narrow = down ? between.data() : out;
  if (across) {
    const Taps horizontal = taps(source.width, width, window.x, window.width, filter);
    (source.channels == 3 ? pass_across_3 : pass_across_1)(source, top, rows, horizontal, narrow, padded);
  } else {
    for (int64_t row = 0; row < rows; row++)
      std::memcpy(narrow + row * padded, source.pixels + ((top + row) * source.width + window.x) * source.channels, stride);
  }
  if (down) pass_down(narrow, padded, vertical, out, stride);
}

}  // namespace dsd
