// dsd::qkv_attention on CUDA against the same in double precision, gradients by the chain rule written out.
#include "emulate.h"

#include "../../native/kernels/cuda/attention-gradient.cu"
#include "../../native/kernels/cuda/attention.cu"
#include "../../native/kernels/cuda/hopper.h"
namespace hopper {
#include "../../native/kernels/cuda/attention-gradient-hopper.cu"
#include "../../native/kernels/cuda/attention-hopper.cu"
}  // namespace hopper

namespace {

using Numbers = std::vector<double>;

struct Problem {
  int B, h, N, D, warps, blocks;  // 0 warps: the kernels for compute capability 9.0
  double weight;  // about what the weights of the norms are
  bool rounds;    // the prepared queries and keys: where scores are large, what that does to them is more than all other errors
};

constexpr double eps = 1e-6;

// What the kernels read, and what they are to write.
struct Case {
  Numbers qkv, q_norm, k_norm, cosine, sine, grad;
  Numbers out, lse, dqkv, dq_norm, dk_norm;
};

// One token of q or k, normalised and turned; and the way back.
struct Token {
  Numbers normed;
  double root = 0;
};
Token prepared(const double* x, const Numbers& weight, const double* cosine, const double* sine, int D, double* y, double unit) {
  Token token{Numbers(D)};
  double squares = 0;
  for (int i = 0; i < D; i++) squares += x[i] * x[i];
  token.root = 1 / std::sqrt(squares / D + eps);
  for (int i = 0; i < D; i++) token.normed[i] = x[i] * token.root;
  for (int i = 0; i < D / 2; i++) {
    const double a = token.normed[i] * weight[i], b = token.normed[i + D / 2] * weight[i + D / 2];
    y[i] = a * cosine[i] - b * sine[i];
    y[i + D / 2] = a * sine[i] + b * cosine[i];
  }
  for (int i = 0; unit > 0 && i < D; i++) y[i] = emulated::from_bf16(emulated::to_bf16(float(y[i] * unit))) / unit;
  return token;
}
void unprepared(const double* g, const Token& token, const Numbers& weight, const double* cosine, const double* sine, int D, double* dx, Numbers& dweight) {
  Numbers d(D);
  double along = 0;
  for (int i = 0; i < D / 2; i++) {
    d[i] = g[i] * cosine[i] + g[i + D / 2] * sine[i];
    d[i + D / 2] = g[i + D / 2] * cosine[i] - g[i] * sine[i];
  }
  for (int i = 0; i < D; i++) {
    dweight[i] += d[i] * token.normed[i];
    d[i] *= weight[i];
    along += d[i] * token.normed[i] / D;
  }
  for (int i = 0; i < D; i++) dx[i] = (d[i] - token.normed[i] * along) * token.root;
}

void solve(const Problem& p, Case& c) {
  const int N = p.N, D = p.D, width = 3 * p.h * D;
  c.out.assign(size_t(p.B) * N * p.h * D, 0);
  c.lse.assign(size_t(p.B) * p.h * N, 0);
  c.dqkv.assign(c.qkv.size(), 0);
  c.dq_norm.assign(D, 0);
  c.dk_norm.assign(D, 0);
  for (int head = 0; head < p.B * p.h; head++) {
    const size_t in = size_t(head / p.h) * N * width + head % p.h * D, to = size_t(head / p.h) * N * p.h * D + head % p.h * D;
    const double scale = 1 / std::sqrt(double(D));
    Numbers q(N * D), k(N * D), dq(N * D), dk(N * D);
    std::vector<Token> qs, ks;
    const auto at = [&](int token, int which) { return in + size_t(token) * width + which * p.h * D; };
    for (int n = 0; n < N; n++) {
      qs.push_back(prepared(&c.qkv[at(n, 0)], c.q_norm, &c.cosine[n * D / 2], &c.sine[n * D / 2], D, &q[n * D], p.rounds ? scale / std::log(2.0) : 0));
      ks.push_back(prepared(&c.qkv[at(n, 1)], c.k_norm, &c.cosine[n * D / 2], &c.sine[n * D / 2], D, &k[n * D], p.rounds ? 1 : 0));
    }
    for (int n = 0; n < N; n++) {
      Numbers weights(N), dweights(N);
      double top = -1e300, sum = 0, delta = 0;
      for (int m = 0; m < N; m++) {
        for (int i = 0; i < D; i++) weights[m] += q[n * D + i] * k[m * D + i] * scale;
        top = std::max(top, weights[m]);
      }
      for (double& w : weights) sum += w = std::exp(w - top);
      c.lse[head * N + n] = (top + std::log(sum)) / std::log(2.0);
      const double *g = &c.grad[to + size_t(n) * p.h * D];
      for (int m = 0; m < N; m++) {
        weights[m] /= sum;
        for (int i = 0; i < D; i++) {
          c.out[to + size_t(n) * p.h * D + i] += weights[m] * c.qkv[at(m, 2) + i];
          c.dqkv[at(m, 2) + i] += weights[m] * g[i];
          dweights[m] += g[i] * c.qkv[at(m, 2) + i];
        }
        delta += weights[m] * dweights[m];
      }
      for (int m = 0; m < N; m++) {
        const double ds = weights[m] * (dweights[m] - delta) * scale;
        for (int i = 0; i < D; i++) dq[n * D + i] += ds * k[m * D + i], dk[m * D + i] += ds * q[n * D + i];
      }
    }
    for (int n = 0; n < N; n++) {
      unprepared(&dq[n * D], qs[n], c.q_norm, &c.cosine[n * D / 2], &c.sine[n * D / 2], D, &c.dqkv[at(n, 0)], c.dq_norm);
      unprepared(&dk[n * D], ks[n], c.k_norm, &c.cosine[n * D / 2], &c.sine[n * D / 2], D, &c.dqkv[at(n, 1)], c.dk_norm);
    }
  }
}

Case random_case(const Problem& p, unsigned seed) {
  Case c;
  const size_t tokens = size_t(p.B) * p.N;
  c.qkv = emulated::rounded(emulated::normal(tokens * 3 * p.h * p.D, seed));
  c.grad = emulated::rounded(emulated::normal(tokens * p.h * p.D, seed + 1));
  c.q_norm = emulated::normal(p.D, seed + 2, 0.3 * p.weight, p.weight);
  c.k_norm = emulated::normal(p.D, seed + 3, 0.3 * p.weight, p.weight);
  for (double angle : emulated::normal(p.N * p.D / 2, seed + 4, 3)) {
    c.cosine.push_back(std::cos(angle));
    c.sine.push_back(std::sin(angle));
  }
  return c;
}

// Which of q, k and v.
Numbers third(const Numbers& qkv, int which, int part) {
  Numbers all;
  for (size_t i = 0; i < qkv.size(); i++) {
    if (int(i / part % 3) == which) all.push_back(qkv[i]);
  }
  return all;
}

void check(const Problem& p, unsigned seed) {
  Case c = random_case(p, seed);
  solve(p, c);
  const int all = p.B * p.h, tiles = (p.N + 31) / 32;
  emulated::Buffer<uint16_t> qkv(c.qkv.size()), out(c.out.size()), grad(c.grad.size()), dqkv(c.qkv.size());
  emulated::Buffer<float> q_norm(p.D), k_norm(p.D), cosine(c.cosine.size()), sine(c.sine.size()), lse(c.lse.size()), dnorm(size_t(all) * 2 * p.D);
  qkv.fill(c.qkv), grad.fill(c.grad), q_norm.fill(c.q_norm), k_norm.fill(c.k_norm), cosine.fill(c.cosine), sine.fill(c.sine);
  if (p.warps == 0) {
    using namespace hopper;
    const int threads = std::min(256, 2 * p.N);
    emulated::launch(all, threads, 256 * p.N + 64 * threads, [&] {
      dsd_attention_hopper(qkv.data(), q_norm.data(), k_norm.data(), cosine.data(), sine.data(), out.data(), lse.data(), p.N, p.h, float(eps));
    });
    emulated::launch(all, 2 * p.N, 776 * p.N, [&] {
      dsd_attention_gradient_hopper(qkv.data(), q_norm.data(), k_norm.data(), cosine.data(), sine.data(), out.data(), grad.data(), lse.data(), dqkv.data(),
                                    dnorm.data(), p.N, p.h, all, float(eps), p.blocks);
    });
  } else {
    emulated::launch(all, 32 * p.warps, 128 * tiles * p.D, [&] {
      (p.D == 64 ? dsd_attention_64 : dsd_attention_32)(qkv.data(), q_norm.data(), k_norm.data(), cosine.data(), sine.data(), out.data(), lse.data(), p.N,
                                                        p.h, float(eps));
    });
    const size_t shared = tiles * (192 * p.D + 256 + tiles * 2048);
    emulated::launch(p.blocks, 32 * tiles, shared, [&] {
      (p.D == 64 ? dsd_attention_gradient_64 : dsd_attention_gradient_32)(qkv.data(), q_norm.data(), k_norm.data(), cosine.data(), sine.data(), out.data(),
                                                                          grad.data(), lse.data(), dqkv.data(), dnorm.data(), p.N, p.h, all, float(eps));
    });
  }
  Numbers norms[2] = {Numbers(p.D), Numbers(p.D)};
  for (int i = 0; i < all * 2 * p.D; i++) norms[i / p.D % 2][i % p.D] += dnorm.at(i);
  char name[100];
  std::snprintf(name, sizeof name, "B %d, h %d, N %d, D %d, warps %d, weights %g, order %u: ", p.B, p.h, p.N, p.D, p.warps, p.weight, emulated::schedule);
  emulated::expect_near(std::string(name) + "out", out.values(), c.out, 6e-3);
  emulated::expect_near(std::string(name) + "lse", lse.values(), c.lse, 2e-3);
  for (int which = 0; which < 3; which++) {
    emulated::expect_near(name + std::string("gradient of ") + "qkv"[which], third(dqkv.values(), which, p.h * p.D), third(c.dqkv, which, p.h * p.D), 1e-2);
  }
  emulated::expect_near(std::string(name) + "gradient of q_norm", norms[0], c.dq_norm, 1e-2);
  emulated::expect_near(std::string(name) + "gradient of k_norm", norms[1], c.dk_norm, 1e-2);
}

}  // namespace

int main() {
  const Problem problems[] = {
      {1, 1, 16, 64, 1, 1, 1, false}, {2, 2, 16, 32, 1, 3, 1, false}, {1, 2, 48, 64, 2, 2, 1, false},  {1, 3, 64, 32, 2, 2, 1, false},
      {2, 2, 64, 64, 2, 3, 1, false}, {1, 1, 96, 64, 3, 1, 4, true},  {1, 1, 208, 32, 4, 1, 5, true}, {1, 1, 256, 64, 4, 1, 1, false},
      {2, 2, 64, 64, 0, 3, 1, false}, {1, 2, 128, 64, 0, 1, 4, true}, {1, 1, 192, 64, 0, 1, 6, true},  {1, 1, 256, 64, 0, 2, 1, false},
  };
  unsigned seed = 1;
  for (const Problem& p : problems) {
    check(p, seed);
    seed += 10;
    emulated::schedule++;
  }
  return emulated::finish();
}
