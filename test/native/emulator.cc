// The emulator itself: what its exchanges do, and that a missing barrier shows.
#include "emulate.h"

namespace {

// a (16, 16) times b (16, 8), both row by row in memory, by ldmatrix and mma; `forget` leaves a barrier out.
__global__ void product(const uint16_t* a, const uint16_t* b, float* c, bool forget) {
  DSD_SHARED(memory);
  uint16_t *left = reinterpret_cast<uint16_t*>(memory), *right = left + 256;
  const unsigned lane = threadIdx.x % 32;
  if (threadIdx.x >= 32) {
    emulated::cp_async_16(left + lane * 8, a + lane * 8);
    emulated::cp_async_commit();
    if (lane < 16) emulated::cp_async_16(right + lane * 8, b + lane * 8);
    emulated::cp_async_commit();
    emulated::cp_async_wait(1);
    emulated::cp_async_wait(0);
  }
  if (!forget) __syncthreads();
  if (threadIdx.x < 32) {
    uint32_t x[4], y[2];
    emulated::ldmatrix(x, left + lane % 16 * 16 + lane / 16 * 8, 4, false);
    emulated::ldmatrix(y, right + lane % 16 * 8, 2, true);
    float sums[4] = {0, 0, 0, 0};
    emulated::mma_m16n8k16(sums, x, y);
    for (int i = 0; i < 4; i++) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i];
  }
}

__global__ void sums(const float* x, float* y) {
  __shared__ float all[4];
  float value = x[blockIdx.x * blockDim.x + threadIdx.x];
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(~0u, value, lanes);
  if (threadIdx.x % 32 == 0) all[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x == 0) y[blockIdx.x] = all[0] + all[1] + all[2] + all[3];
}

}  // namespace

int main() {
  const auto a = emulated::rounded(emulated::normal(256, 1)), b = emulated::rounded(emulated::normal(128, 2));
  std::vector<double> wanted(128);
  for (int i = 0; i < 128; i++) {
    for (int k = 0; k < 16; k++) wanted[i] += a[i / 8 * 16 + k] * b[k * 8 + i % 8];
  }
  emulated::Buffer<uint16_t> left(256), right(128);
  left.fill(a);
  right.fill(b);
  bool wrong = false;
  for (emulated::schedule = 0; emulated::schedule < 4; emulated::schedule++) {
    emulated::Buffer<float> c(128), hasty(128);
    emulated::launch(1, 64, 768, [&] { product(left.data(), right.data(), c.data(), false); });
    emulated::expect_near("product", c.values(), wanted, 1e-6);
    emulated::launch(1, 64, 768, [&] { product(left.data(), right.data(), hasty.data(), true); });
    wrong |= std::isnan(hasty.values()[0]);
  }
  emulated::expect("a missing barrier shows", wrong);

  const auto x = emulated::normal(3 * 128, 3);
  std::vector<double> totals(3);
  for (int i = 0; i < 3 * 128; i++) totals[i / 128] += x[i];
  emulated::Buffer<float> in(3 * 128), out(3);
  in.fill(x);
  emulated::launch(3, 128, 0, [&] { sums(in.data(), out.data()); });
  emulated::expect_near("sums", out.values(), totals, 1e-5);
  return emulated::finish();
}
