// Resizing of 8-bit pictures as Pillow does it. Knows nothing of JavaScript.
#pragma once

#include <cstdint>

namespace dsd {

enum class Filter { box, bicubic, lanczos };

// A part of a resized picture, in whole pixels.
struct Window {
  int64_t x, y, width, height;
};

// height * width * channels bytes, row by row, channels together.
struct Picture {
  const uint8_t* pixels;
  int64_t width, height;
  int channels;  // 1 or 3
};

// Writes window.height * window.width * channels bytes. Sides are in [1, 2^31), and the window lies in the resized picture. std::bad_alloc.
void resize(const Picture& source, int64_t width, int64_t height, Filter filter, const Window& window, uint8_t* out);

}  // namespace dsd
