// The kernels of a block against their formulas in double precision.
#include "emulate.h"

#include "../../native/kernels/cuda/block.cu"

namespace {

using Values = std::vector<double>;

template <typename T>
struct Kind;
template <>
struct Kind<float> {
  static constexpr double tolerance = 1e-6;
};
template <>
struct Kind<uint16_t> {
  static constexpr double tolerance = 4e-3;
};

template <typename T>
Values stored(const Values& values) { return std::is_same_v<T, uint16_t> ? emulated::rounded(values) : values; }

// One case of add_norm and its gradient, with or without branch and modulation.
template <typename X, typename Y, typename O, int K>
void add_norms(const std::string& name, int B, int N, int d, bool branch, bool modulation) {
  const int rows = 2 * Group<K>::count + 1, gradient_rows = Group<K>::count + 2, padded = d + 8;  // vectors lie further apart than they are long
  const float eps = 1e-6f;
  const size_t size = size_t(B) * N * d;
  const Values x = stored<X>(emulated::normal(size, 1)), y = stored<Y>(emulated::normal(size, 2)), dx1 = stored<X>(emulated::normal(size, 3)), dn = stored<O>(emulated::normal(size, 4)),
               gate = emulated::normal(B * padded, 5), shift = emulated::normal(B * padded, 6), scale = emulated::normal(B * padded, 7);
  Values x1(size), n(size), dx(size), dy(size), dgate(B * d), dshift(B * d), dscale(B * d);
  for (int row = 0; row < B * N; row++) {
    const int p = row / N;
    double squares = 0, along = 0;
    for (int i = 0; i < d; i++) {
      const size_t at = size_t(row) * d + i;
      x1[at] = x[at] + (branch ? (1 + gate[p * padded + i]) * y[at] : 0);
      x1[at] = stored<X>({x1[at]})[0];
      squares += x1[at] * x1[at];
    }
    const double root = 1 / std::sqrt(squares / d + eps);
    auto factor = [&](int i) { return modulation ? 1 + scale[p * padded + i] : 1; };
    for (int i = 0; i < d; i++) {
      const size_t at = size_t(row) * d + i;
      n[at] = x1[at] * root * factor(i) + (modulation ? shift[p * padded + i] : 0);
      along += dn[at] * factor(i) * x1[at] * root;
      dshift[p * d + i] += dn[at];
      dscale[p * d + i] += dn[at] * x1[at] * root;
    }
    for (int i = 0; i < d; i++) {
      const size_t at = size_t(row) * d + i;
      dx[at] = dx1[at] + root * (dn[at] * factor(i) - x1[at] * root * along / d);
      dy[at] = (1 + gate[p * padded + i]) * dx[at];
      dgate[p * d + i] += dx[at] * y[at];
    }
  }
  emulated::Buffer<float> gates(B * padded), shifts(B * padded), scales(B * padded);
  emulated::Buffer<X> from(size), sum(size), up1(size), to(size);
  const double sums_tolerance = 2 * Kind<X>::tolerance;
  emulated::Buffer<Y> branches(size), to_branch(size);
  emulated::Buffer<O> result(size), up(size), again(size);
  from.fill(x), gates.fill(gate), shifts.fill(shift), scales.fill(scale), up1.fill(dx1), branches.fill(y), up.fill(dn);
  const float *g = branch ? gates.data() : nullptr, *h = modulation ? shifts.data() : nullptr, *s = modulation ? scales.data() : nullptr;
  const Y* b = branch ? branches.data() : nullptr;
  X* stream = branch ? sum.data() : from.data();
  auto forward = [&] {
    emulated::launch({unsigned((N + rows - 1) / rows), unsigned(B)}, Group<K>::threads, Group<K>::count * Group<K>::parts_size * 4,
                     [&] { add_norm<X, Y, O, K>(from.data(), g, padded, b, h, padded, s, padded, stream, result.data(), N, d, eps, rows); });
  };
  forward();
  emulated::expect_near(name + " n", result.values(), n, Kind<O>::tolerance);
  if (branch) emulated::expect_near(name + " x1", sum.values(), x1, Kind<X>::tolerance);
  const Values of_n = result.values();
  for (emulated::schedule = 1; emulated::schedule < 3; emulated::schedule++) {
    forward();
    emulated::expect(name + " n does not depend on who comes first", result.values() == of_n);
  }
  emulated::schedule = 0;
  const unsigned blocks = (N + gradient_rows - 1) / gradient_rows;
  emulated::Buffer<float> sums(size_t(B) * blocks * 3 * d), total(size_t(B) * 3 * d);
  auto gradient = [&](O* made_again) {
    emulated::launch({blocks, unsigned(B)}, Group<K>::threads, Group<K>::count * (768 * K + Group<K>::parts_size) * 4, [&] {
      add_norm_gradient<X, Y, O, K>(stream, g, padded, b, made_again ? h : nullptr, padded, s, padded, up1.data(), up.data(), made_again, to.data(), to_branch.data(), sums.data(), N, d,
                                    eps, gradient_rows);
    });
    emulated::launch({unsigned(3 * d + 127) / 128, unsigned(B)}, 32, 0, [&] { dsd_add_norm_sums(sums.data(), total.data(), blocks, 3 * d); });
  };
  gradient(again.data());
  emulated::expect_near(name + " n, made again", again.values(), n, Kind<O>::tolerance);
  const Values of_dx = to.values(), of_total = total.values();
  for (emulated::schedule = 1; emulated::schedule < 3; emulated::schedule++) {
    gradient(again.data());
    emulated::expect(name + " does not depend on who comes first", to.values() == of_dx && total.values() == of_total);
  }
  emulated::schedule = 0;
  gradient(nullptr);
  emulated::expect(name + " without the norm made again", to.values() == of_dx && total.values() == of_total);
  gradient(up.data());
  emulated::expect(name + " n in the place of its gradient", up.values() == again.values() && to.values() == of_dx);
  emulated::expect_near(name + " dx", to.values(), dx, 2 * Kind<X>::tolerance);
  Values sum_of[3] = {Values(B * d), Values(B * d), Values(B * d)};
  for (size_t at = 0; at < total.size(); at++) sum_of[at / d % 3][at / d / 3 * d + at % d] = total.at(at);
  if (branch) {
    emulated::expect_near(name + " dy", to_branch.values(), dy, Kind<Y>::tolerance);
    emulated::expect_near(name + " dgate", sum_of[0], dgate, sums_tolerance);
  }
  if (modulation) {
    emulated::expect_near(name + " dshift", sum_of[1], dshift, sums_tolerance);
    emulated::expect_near(name + " dscale", sum_of[2], dscale, sums_tolerance);
  }
}

template <typename S>
void swiglus(const std::string& name, int rows, int F) {
  const Values h = stored<S>(emulated::normal(size_t(rows) * 2 * F, 8, 2)), g = stored<S>(emulated::normal(size_t(rows) * F, 9));
  Values out(size_t(rows) * F), dh(size_t(rows) * 2 * F);
  for (int at = 0; at < rows * F; at++) {
    const int u_at = at / F * 2 * F + at % F;
    const double u = h[u_at], w = h[u_at + F], sigmoid = 1 / (1 + std::exp(-u));
    out[at] = u * sigmoid * w;
    dh[u_at] = g[at] * w * sigmoid * (1 + u * (1 - sigmoid));
    dh[u_at + F] = g[at] * u * sigmoid;
  }
  emulated::Buffer<S> from(h.size()), up(g.size()), to(out.size()), back(h.size()), again(out.size());
  from.fill(h), up.fill(g);
  const unsigned chunks = rows * F / 8;
  emulated::launch({2}, 64, 0, [&] { swiglu(from.data(), to.data(), chunks, F); });
  emulated::expect_near(name, to.values(), out, Kind<S>::tolerance);
  emulated::launch({2}, 64, 0, [&] { swiglu_gradient(from.data(), up.data(), back.data(), again.data(), chunks, F); });
  emulated::expect_near(name + ", made again", again.values(), out, Kind<S>::tolerance);
  emulated::launch({2}, 64, 0, [&] { swiglu_gradient(from.data(), up.data(), back.data(), up.data(), chunks, F); });
  emulated::expect(name + " in the place of its gradient", up.values() == again.values());
  emulated::expect_near(name + " gradient", back.values(), dh, Kind<S>::tolerance);
  up.fill(g);
  emulated::launch({2}, 64, 0, [&] { swiglu_gradient(from.data(), up.data(), from.data(), up.data(), chunks, F); });
  emulated::expect(name + " gradient in the place of the input", from.values() == back.values() && up.values() == again.values());
}

// Stream, branch and result of each type, rows of which some lanes have nothing, and numbers of rows that leave a block's groups unequal shares.
template <int K>
void widths(int B, int N, int d) {
  for (int choice = 0; choice < 4; choice += d == 8 ? 1 : 3) {  // narrow rows, which take little time, also with one of the two alone
    const bool branch = choice & 1, modulation = choice & 2;
    const std::string with = ", " + std::to_string(N) + " rows of " + std::to_string(d) + (branch ? ", branch" : "") + (modulation ? ", modulation" : "");
    add_norms<float, float, float, K>("float32" + with, B, N, d, branch, modulation);
    add_norms<float, uint16_t, uint16_t, K>("bfloat16" + with, B, N, d, branch, modulation);
    add_norms<float, uint16_t, float, K>("bfloat16 to float32" + with, B, N, d, branch, modulation);
    add_norms<uint16_t, uint16_t, uint16_t, K>("bfloat16 stream" + with, B, N, d, branch, modulation);
    add_norms<uint16_t, uint16_t, float, K>("bfloat16 stream to float32" + with, B, N, d, branch, modulation);
  }
}

}  // namespace

int main() {
  widths<1>(2, 3, 8);
  widths<1>(1, 23, 248);
  widths<2>(2, 13, 264);
  widths<3>(1, 12, 768);
  widths<4>(1, 7, 776);
  swiglus<float>("swiglu, float32", 3, 8);
  swiglus<uint16_t>("swiglu, bfloat16", 37, 40);
  return emulated::finish();
}
