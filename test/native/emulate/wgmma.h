// What four warps do together: products of 64 rows (wgmma). See emulate.h. Here they are at once; that a kernel waits for them is not proved.
#pragma once

#include "warp.h"

namespace emulated {

// Element (mn, k) of an operand in shared memory: rows of 128 bytes, along k or, turned, along mn; chunks of 16 bytes change places by the row's address.
// Turned, `leading` bytes lie between 64 of mn and the next.
inline float wgmma_element(const unsigned char* tile, int mn, int k, bool turned, int leading) {
  size_t at = tile - dynamic_shared + (turned ? k * 128 + mn % 64 * 2 + mn / 64 * leading : mn * 128 + k * 2);
  at ^= (at >> 7 & 7) << 4;
  return from_bf16(*reinterpret_cast<const uint16_t*>(dynamic_shared + at));
}

// d (64, n) = a (64, 16) b (16, n), added to what d was or not, by wgmma.mma_async.sync.aligned.m64nNk16.f32.bf16.bf16. The left operand is in registers, 16
// rows a warp, or in shared memory (`left`).
inline void wgmma(float* d, int n, const uint32_t* a, const unsigned char* left, const unsigned char* right, bool turn_left, bool turn_right, bool add,
                  int leading = 0) {
  struct Payload { const uint32_t* a; float rows[16][16]; };
  const int lane = static_cast<int>(block.current->number & 31), warp = static_cast<int>(block.current->number / 32 % 4);
  if (block.threads.size() % 128) fail(block.name() + "wgmma wants groups of four warps");
  Payload payload{a, {}};
  exchange("wgmma", ~0u, payload, [](Payload** all) {
    if (!all[0]->a) return;
    for (int lane = 0; lane < 32; lane++) {
      for (int i = 0; i < 8; i++) {
        const float value = from_bf16(static_cast<uint16_t>(all[lane]->a[i / 2] >> 16 * (i % 2)));
        for (int to = 0; to < 32; to++) all[to]->rows[lane / 4 + 8 * (i / 2 % 2)][lane % 4 * 2 + i % 2 + 8 * (i / 4)] = value;
      }
    }
  });
  for (int i = 0; i < n / 2; i++) {
    const int row = lane / 4 + 8 * (i / 2 % 2), column = i / 4 * 8 + lane % 4 * 2 + i % 2;
    double sum = add ? d[i] : 0;
    for (int k = 0; k < 16; k++) {
      const float x = a ? payload.rows[row][k] : wgmma_element(left, 16 * warp + row, k, turn_left, 0);
      sum += static_cast<double>(x) * wgmma_element(right, column, k, turn_right, leading);
    }
    d[i] = static_cast<float>(sum);
  }
}

}  // namespace emulated
