// What the threads of a warp do together, and the instructions for which kernels have assembly. See emulate.h.
#pragma once

#include "threads.h"

#include <cstring>

namespace emulated {

inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline float from_bf16(uint16_t bits) { return bits_to_float(static_cast<uint32_t>(bits) << 16); }
inline uint16_t to_bf16(float value) {  // to the nearest, ties to even
  uint32_t bits = float_to_bits(value);
  if (value != value) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
// cvt.rn.bf16x2.f32: the first in the upper half.
inline uint32_t bf16x2(float high, float low) { return static_cast<uint32_t>(to_bf16(high)) << 16 | to_bf16(low); }

template <typename T, typename From>
T shuffle(const char* kind, unsigned mask, T value, From from, unsigned width) {
  struct Payload { T value, result; unsigned from; };
  const unsigned lane = block.current->number & 31, base = lane & ~(width - 1);
  Payload payload{value, value, lane};
  int source = from(static_cast<int>(lane - base));
  if (source >= 0 && source < static_cast<int>(width)) payload.from = base + source;
  exchange(kind, mask, payload, [](Payload** all) {
    for (int i = 0; i < 32; i++) {
      if (!all[i]) continue;
      if (!all[all[i]->from]) fail(block.name() + "a shuffle from a lane that does not take part");
      all[i]->result = all[all[i]->from]->value;
    }
  });
  return payload.result;
}

// ldmatrix: `count` matrices of 8 by 8 16-bit numbers; lanes 8 i to 8 i + 7 give the addresses of the rows of matrix i.
inline void ldmatrix(uint32_t* out, const void* row, int count, bool transposed) {
  struct Payload { uint32_t* out; const unsigned char* row; int count; bool transposed; };
  Payload payload{out, static_cast<const unsigned char*>(row), count, transposed};
  if ((static_cast<int>(block.current->number & 31) < 8 * count) && reinterpret_cast<uintptr_t>(row) % 16) fail(block.name() + "ldmatrix wants rows at multiples of 16 bytes");
  exchange("ldmatrix", ~0u, payload, [](Payload** all) {
    for (int m = 0; m < all[0]->count; m++) {
      uint16_t matrix[8][8];
      for (int r = 0; r < 8; r++) std::copy_n(reinterpret_cast<const uint16_t*>(all[8 * m + r]->row), 8, matrix[r]);
      for (int lane = 0; lane < 32; lane++) {
        int r = lane / 4, c = lane % 4 * 2;
        uint32_t low = all[0]->transposed ? matrix[c][r] : matrix[r][c], high = all[0]->transposed ? matrix[c + 1][r] : matrix[r][c + 1];
        all[lane]->out[m] = high << 16 | low;
      }
    }
  });
}

// stmatrix, its opposite.
inline void stmatrix(const uint32_t* in, void* row, int count, bool transposed) {
  struct Payload { const uint32_t* in; unsigned char* row; int count; bool transposed; };
  Payload payload{in, static_cast<unsigned char*>(row), count, transposed};
  exchange("stmatrix", ~0u, payload, [](Payload** all) {
    for (int m = 0; m < all[0]->count; m++) {
      for (int lane = 0; lane < 32; lane++) {
        for (int half = 0; half < 2; half++) {
          int r = lane / 4, c = lane % 4 * 2 + half;
          if (all[0]->transposed) std::swap(r, c);
          reinterpret_cast<uint16_t*>(all[8 * m + r]->row)[c] = static_cast<uint16_t>(all[lane]->in[m] >> 16 * half);
        }
      }
    }
  });
}

// d += a b by mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
inline void mma_m16n8k16(float* d, const uint32_t* a, const uint32_t* b) {
  struct Payload { float* d; const uint32_t *a, *b; };
  Payload payload{d, a, b};
  exchange("mma", ~0u, payload, [](Payload** all) {
    float left[16][16], right[16][8];
    for (int lane = 0; lane < 32; lane++) {
      const int group = lane / 4, pair = lane % 4 * 2;
      for (int i = 0; i < 8; i++) left[group + 8 * (i / 2 % 2)][pair + i % 2 + 8 * (i / 4)] = from_bf16(static_cast<uint16_t>(all[lane]->a[i / 2] >> 16 * (i % 2)));
      for (int i = 0; i < 4; i++) right[pair + i % 2 + 8 * (i / 2)][group] = from_bf16(static_cast<uint16_t>(all[lane]->b[i / 2] >> 16 * (i % 2)));
    }
    for (int lane = 0; lane < 32; lane++) {
      for (int i = 0; i < 4; i++) {
        const int row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
        double sum = all[lane]->d[i];
        for (int k = 0; k < 16; k++) sum += static_cast<double>(left[row][k]) * right[k][column];
        all[lane]->d[i] = static_cast<float>(sum);
      }
    }
  });
}

inline uint32_t ballot(unsigned mask, bool value) {
  struct Payload { bool value; uint32_t result; };
  Payload payload{value, 0};
  exchange("ballot", mask, payload, [](Payload** all) {
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++) if (all[i] && all[i]->value) bits |= 1u << i;
    for (int i = 0; i < 32; i++) if (all[i]) all[i]->result = bits;
  });
  return payload.result;
}

// --- cp.async: the data come at the wait that asks for them, no sooner. `bytes` of 16 are read, the rest are zeros.

inline void cp_async_16(void* shared, const void* global, unsigned bytes = 16) {
  if (reinterpret_cast<uintptr_t>(shared) % 16 || reinterpret_cast<uintptr_t>(global) % 16) fail(block.name() + "cp.async of 16 bytes wants addresses at multiples of 16");
  block.current->copies.back().push_back({static_cast<unsigned char*>(shared), static_cast<const unsigned char*>(global), bytes});
}
inline void cp_async_commit() { block.current->copies.emplace_back(); }
// All groups but the newest `pending`.
inline void cp_async_wait(unsigned pending) {
  auto& groups = block.current->copies;
  while (groups.size() > pending + 1) {
    for (auto& copy : groups.front()) {
      for (unsigned i = 0; i < 16; i++) copy.to[i] = i < copy.bytes ? copy.from[i] : 0;
    }
    groups.erase(groups.begin());
  }
}

}  // namespace emulated
