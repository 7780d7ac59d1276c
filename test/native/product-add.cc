// A product that leaves added to its stream, on CUDA, against the same in double precision.
#include "emulate.h"

#include "../../native/kernels/cuda/product-add-hopper.cu"

namespace {

using Numbers = std::vector<double>;
using emulated::Buffer;
using emulated::TensorMap;
using emulated::tensor_map;

template <class Shape>
void check_product(int pictures, int tokens, int F, int d, int blocks, unsigned seed) {
  const int M = pictures * tokens, N = 2 * F, stride = 3 * N;
  const Numbers r = emulated::rounded(emulated::normal(size_t(M) * d, seed)), weight = emulated::rounded(emulated::normal(size_t(N) * d, seed + 1, 1.5 / std::sqrt(d)));
  const Numbers x = emulated::rounded(emulated::normal(size_t(M) * N, seed + 2)), gates = emulated::normal(size_t(pictures) * stride, seed + 3);
  Numbers expected;
  for (int i = 0; i < M; i++) {
    for (int j = 0; j < N; j++) {
      double sum = 0;
      for (int k = 0; k < d; k++) sum += r[size_t(i) * d + k] * weight[size_t(j) * d + k];
      expected.push_back(x[size_t(i) * N + j] + (1 + float(gates[size_t(i / tokens) * stride + j])) * sum);
    }
  }
  Buffer<uint16_t> from(r.size()), weights(weight.size()), stream(x.size()), out(x.size());
  Buffer<float> gate(gates.size());
  from.fill(r), weights.fill(weight), stream.fill(x), gate.fill(gates);
  const TensorMap r_map = tensor_map(from.data(), {d, M}, {64, 128}), weight_map = tensor_map(weights.data(), {d, F, 2}, {64, 128});
  const TensorMap x_map = tensor_map(stream.data(), {F, 2, M}, {64, 1, 16}), out_map = tensor_map(out.data(), {F, 2, M}, {64, 1, 16});
  emulated::launch(blocks, 384, Shape::shared_bytes + 2 * gates_bytes, [&] { product_add<Shape>(r_map, weight_map, x_map, out_map, gate.data(), stride, tokens, M, F, d); });
  char name[120];
  std::snprintf(name, sizeof name, "%d pictures of %d, F %d, d %d, blocks %d, order %u", pictures, tokens, F, d, blocks, emulated::schedule);
  emulated::expect_near(name, out.values(), expected, 4e-3);
}

}  // namespace

int main() {
  unsigned seed = 1;
  const auto next = [&] { emulated::schedule++, seed += 10; };
  typedef ProductShape<1> Shape;
  check_product<Shape>(2, 128, 128, 328, 2, seed), next();
  check_product<Shape>(1, 128, 256, 200, 3, seed), next();
  check_product<Shape>(3, 128, 128, 776, 1, seed), next();
  check_product<Shape>(5, 128, 256, 264, 1, seed), next();
  check_product<Shape>(2, 256, 256, 328, 2, seed), next();
  check_product<Shape>(3, 256, 128, 264, 2, seed), next();
  check_product<Shape>(7, 128, 128, 1032, 1, seed), next();
  check_product<Shape>(5, 128, 256, 200, 1, seed), next();
  check_product<Shape>(4, 128, 128, 256, 1, seed), next();
  return emulated::finish();
}
