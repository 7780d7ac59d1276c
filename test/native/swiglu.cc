// The product with SwiGLU behind it on CUDA, and its gradient, against the same in double precision.
#include "emulate.h"

#include "../../native/kernels/cuda/swiglu-gradient-hopper.cu"
#include "../../native/kernels/cuda/swiglu-hopper.cu"

namespace {

using Numbers = std::vector<double>;
using emulated::Buffer;
using emulated::TensorMap;
using emulated::tensor_map;

// (rows, columns) = a (rows, inner) b^T, b (columns, inner)
Numbers product(const Numbers& a, const Numbers& b, int rows, int columns, int inner) {
  Numbers c(size_t(rows) * columns);
  for (int i = 0; i < rows; i++) {
    for (int j = 0; j < columns; j++) {
      double sum = 0;
      for (int k = 0; k < inner; k++) sum += a[size_t(i) * inner + k] * b[size_t(j) * inner + k];
      c[size_t(i) * columns + j] = sum;
    }
  }
  return c;
}

std::string name_of(int M, int F, int d, int blocks) {
  char name[100];
  std::snprintf(name, sizeof name, "M %d, F %d, d %d, blocks %d, order %u: ", M, F, d, blocks, emulated::schedule);
  return name;
}

template <class Shape>
void check_product(int M, int F, int d, int blocks, unsigned seed) {
  const Numbers n = emulated::rounded(emulated::normal(size_t(M) * d, seed)), weight = emulated::rounded(emulated::normal(size_t(2) * F * d, seed + 1, 1.5 / std::sqrt(d)));
  const Numbers h = product(n, weight, M, 2 * F, d);
  Numbers s;
  for (int i = 0; i < M; i++) {
    for (int j = 0; j < F; j++) {
      const double u = h[size_t(i) * 2 * F + j], w = h[size_t(i) * 2 * F + F + j];
      s.push_back(u / (1 + std::exp(-u)) * w);
    }
  }
  Buffer<uint16_t> from(n.size()), weights(weight.size()), to(h.size()), result(s.size()), alone(s.size()), plain(h.size());
  from.fill(n), weights.fill(weight);
  const TensorMap n_map = tensor_map(from.data(), {d, M}, {64, 128}), weight_map = tensor_map(weights.data(), {d, F, 2}, {64, 128});
  const TensorMap h_map = tensor_map(to.data(), {F, 2, M}, {64, 1, 16}), s_map = tensor_map(result.data(), {F, M}, {64, 16});
  const TensorMap alone_map = tensor_map(alone.data(), {F, M}, {64, 16}), plain_map = tensor_map(plain.data(), {F, 2, M}, {64, 1, 16});
  emulated::launch(blocks, 384, Shape::shared_bytes, [&] { swiglu_product<Shape, true, true>(n_map, weight_map, h_map, s_map, M, F, d); });
  emulated::launch(blocks, 384, Shape::shared_bytes, [&] { swiglu_product<Shape, false, true>(n_map, weight_map, h_map, alone_map, M, F, d); });
  emulated::launch(blocks, 384, Shape::shared_bytes, [&] { swiglu_product<Shape, true, false>(n_map, weight_map, plain_map, alone_map, M, F, d); });
  const std::string name = name_of(M, F, d, blocks);
  emulated::expect_near(name + "h", to.values(), h, 3e-3);
  emulated::expect_near(name + "s", result.values(), s, 6e-3);
  emulated::expect(name + "s alone is the same", result.values() == alone.values());
  emulated::expect(name + "h alone is the same", to.values() == plain.values());
}

void check_gradient(int M, int F, int d, int blocks, unsigned seed) {
  const Numbers g = emulated::rounded(emulated::normal(size_t(M) * d, seed)), weight = emulated::rounded(emulated::normal(size_t(d) * F, seed + 1, 1 / std::sqrt(d)));
  const Numbers h = emulated::rounded(emulated::normal(size_t(M) * 2 * F, seed + 2, 2));
  Numbers turned(weight.size()), dh(h.size()), s;
  for (int k = 0; k < d; k++) {
    for (int j = 0; j < F; j++) turned[size_t(j) * d + k] = weight[size_t(k) * F + j];
  }
  const Numbers ds = product(g, turned, M, F, d);
  for (int i = 0; i < M; i++) {
    for (int j = 0; j < F; j++) {
      const size_t at = size_t(i) * 2 * F + j;
      const double u = h[at], w = h[at + F], sigmoid = 1 / (1 + std::exp(-u)), along = ds[size_t(i) * F + j];
      s.push_back(u * sigmoid * w);
      dh[at] = along * w * sigmoid * (1 + u * (1 - sigmoid));
      dh[at + F] = along * u * sigmoid;
    }
  }
  Buffer<uint16_t> from(g.size()), weights(weight.size()), in_place(h.size()), result(s.size());
  from.fill(g), weights.fill(weight), in_place.fill(h);
  const TensorMap g_map = tensor_map(from.data(), {d, M}, {64, 128}), weight_map = tensor_map(weights.data(), {F, d}, {64, 64});
  const TensorMap h_map = tensor_map(in_place.data(), {F, 2, M}, {64, 1, 64}), s_map = tensor_map(result.data(), {F, M}, {64, 64});
  emulated::launch(blocks, 384, GradientShape::shared_bytes, [&] { swiglu_gradient(g_map, weight_map, h_map, s_map, M, F, d); });
  const std::string name = "gradient, " + name_of(M, F, d, blocks);
  emulated::expect_near(name + "dh", in_place.values(), dh, 4e-3);
  emulated::expect_near(name + "s", result.values(), s, 4e-3);
}

}  // namespace

int main() {
  unsigned seed = 1;
  const auto next = [&] { emulated::schedule++, seed += 10; };
  typedef ProductShape<1> Product;
  check_product<Product>(200, 136, 136, 2, seed), next();
  check_product<Product>(1, 8, 8, 3, seed), next();
  check_product<Product>(130, 72, 392, 1, seed), next();
  check_product<Product>(129, 264, 72, 1, seed), next();
  check_product<Product>(131, 256, 328, 2, seed), next();
  check_product<Product>(257, 128, 8, 1, seed), next();
  check_gradient(200, 136, 136, 2, seed), next();
  check_gradient(1, 8, 8, 3, seed), next();
  check_gradient(130, 328, 392, 1, seed), next();
  check_gradient(129, 136, 72, 1, seed), next();
  check_gradient(260, 400, 712, 2, seed), next();
  check_gradient(258, 576, 264, 1, seed), next();
  check_gradient(129, 520, 72, 3, seed), next();
  return emulated::finish();
}
