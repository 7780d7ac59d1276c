// native/kernels/cuda/optimizer.cu against the formulas in double precision.
#include "emulate.h"

#include "../../native/kernels/cuda/optimizer.cu"

namespace {

using Values = std::vector<double>;
using emulated::Buffer;

// A tensor of float32 or bfloat16 that may begin one element after an aligned address.
struct Tensor {
  bool narrow;
  size_t offset;
  std::unique_ptr<Buffer<float>> wide;
  std::unique_ptr<Buffer<uint16_t>> half;
  Tensor(const Values& values, bool narrow = false, size_t offset = 0) : narrow(narrow), offset(offset) {
    Values all(offset, 1e30);
    all.insert(all.end(), values.begin(), values.end());
    if (narrow) (half = std::make_unique<Buffer<uint16_t>>(all.size()))->fill(all);
    else (wide = std::make_unique<Buffer<float>>(all.size()))->fill(all);
  }
  float* floats() { return wide->data() + offset; }
  uint16_t* halves() { return half->data() + offset; }
  Address address() { return narrow ? reinterpret_cast<Address>(halves()) | 1 : reinterpret_cast<Address>(floats()); }
  Values values() {
    Values all = narrow ? half->values() : wide->values();
    return Values(all.begin() + offset, all.end());
  }
};

constexpr double beta1 = 0.9, beta2 = 0.95, weight_decay = 0.1, eps = 1e-8, clip = 2, rate = 0.01, target_share = 0.25, average_share = 0.5;
constexpr double momentum_kept = 0.95;

// The numbers of the step after `steps` others, of this norm.
std::unique_ptr<Buffer<double>> numbers_of(float norm, float steps, bool wide_rates = true, Values* raw = nullptr) {
  auto numbers = std::make_unique<Buffer<double>>(8);
  Buffer<float> n(1), step(1), narrow(3);
  Buffer<double> wide(3);
  n.at(0) = norm;
  step.at(0) = steps;
  narrow.fill({rate, target_share, average_share});
  wide.fill({rate, target_share, average_share});
  emulated::launch(1, 1, 0, [&] {
    dsd_numbers(n.data(), step.data(), wide_rates ? static_cast<void*>(wide.data()) : narrow.data(), wide_rates, clip, beta1, beta2, weight_decay, numbers->data());
  });
  if (raw) *raw = {step.at(0)};
  return numbers;
}

void test_numbers() {
  for (bool wide : {true, false}) {
    Values step;
    const double t = 4, divisor = (5 + 1e-6) / clip;
    auto found = numbers_of(5, 3, wide, &step)->values();
    emulated::expect_near("numbers", found,
                          {1, divisor, rate, rate * weight_decay, rate / (1 - std::pow(beta1, t)), 1 / std::sqrt(1 - std::pow(beta2, t)), target_share, average_share}, wide ? 1e-7 : 1e-6);
    emulated::expect("numbers: a step is counted", step[0] == t);
  }
  emulated::expect("numbers: a small gradient is left as it is", numbers_of(0.5, 0)->at(1) == 1);
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Values step;
    auto found = numbers_of(bad, 3, true, &step);
    emulated::expect("numbers: not finite", found->at(0) == 0 && step[0] == 3 && found->at(6) == target_share);
  }
}

void test_norm() {
  struct Case { size_t size; bool narrow; size_t offset; };
  Spans all{};
  std::vector<Tensor> tensors;
  unsigned blocks = 0;
  double wanted = 0;
  for (auto [size, narrow, offset] : {Case{1, false, 0}, {SPAN + 5, true, 0}, {37, true, 1}, {SPAN, false, 0}, {1030, false, 1}, {2 * SPAN - 1, false, 0}, {64, true, 0}}) {
    tensors.emplace_back(emulated::rounded(emulated::normal(size, size)), narrow, offset);
    for (double x : tensors.back().values()) wanted += x * x;
    all.count[all.size] = size;
    all.begin[all.size++] = blocks;
    blocks += (size + SPAN - 1) / SPAN;
  }
  for (size_t i = 0; i < tensors.size(); i++) all.data[i] = tensors[i].address();
  Buffer<double> sums(blocks);
  Buffer<float> norm(1);
  emulated::launch(blocks, THREADS, 0, [&] { dsd_squares(all, sums.data()); });
  emulated::launch(1, 1024, 0, [&] { dsd_root(sums.data(), blocks, norm.data()); });
  emulated::expect_near("norm", norm.values(), {std::sqrt(wanted)}, 1e-7);
  if (emulated::schedule > 0) return;
  tensors[3].wide->at(7) = 3e38f;  // its square is no float
  tensors[3].wide->at(8) = 0;
  emulated::launch(blocks, THREADS, 0, [&] { dsd_squares(all, sums.data()); });
  emulated::launch(1, 1024, 0, [&] { dsd_root(sums.data(), blocks, norm.data()); });
  emulated::expect_near("norm of what is large", norm.values(), {3e38}, 1e-6);
}

struct Kind {
  const char* name;
  size_t size, offset = 0;
  bool moments = true, gradient = true, narrow = false, averages = true, copies = true;
};

void test_update(double norm, bool finite) {
  const Kind kinds[] = {{"AdamW", PIECE * 2 + 7},
                        {"AdamW, bfloat16", PIECE + 4, 0, true, true, true},
                        {"AdamW, bfloat16, odd", 1029, 1, true, true, true},
                        {"AdamW, one number", 1},
                        {"AdamW, no copies", 333, 1, true, true, false, true, false},
                        {"AdamW alone", 36, 0, true, true, false, false, false},
                        {"no gradient", 515, 0, true, false},
                        {"direction, bfloat16", PIECE + 12, 0, false, true, true},
                        {"direction, odd", 130, 1, false, true, false},
                        {"direction, copy, no averages", 70, 0, false, true, true, false, true}};
  Parameters all{};
  std::vector<std::array<std::unique_ptr<Tensor>, 8>> tensors;
  std::vector<std::array<Values, 8>> wanted;
  enum { WEIGHT, GRADIENT, FIRST, SECOND, TARGET, AVERAGE, COPY, TARGET_COPY };
  const double t = 3, divisor = std::max(1.0, (norm + 1e-6) / clip), scale = 0.7;
  unsigned blocks = 0, seed = 1;
  for (const Kind& kind : kinds) {
    std::array<Values, 8> v;
    for (auto& each : v) each = emulated::normal(kind.size, seed++);
    for (double& x : v[SECOND]) x = x * x;
    if (kind.narrow) v[GRADIENT] = emulated::rounded(v[GRADIENT]);
    auto& mine = tensors.emplace_back();
    auto make = [&](int i, bool exists, bool narrow = false) { if (exists) mine[i] = std::make_unique<Tensor>(v[i], narrow, kind.offset); };
    make(WEIGHT, true);
    make(GRADIENT, kind.gradient, kind.narrow);
    for (int i : {FIRST, SECOND}) make(i, kind.moments);
    for (int i : {TARGET, AVERAGE}) make(i, kind.averages);
    make(COPY, kind.copies, true);
    make(TARGET_COPY, kind.copies && kind.averages, true);
    for (size_t i = 0; i < kind.size; i++) {
      double &p = v[WEIGHT][i], &m = v[FIRST][i], &s = v[SECOND][i], g = v[GRADIENT][i];
      if (kind.gradient && finite && kind.moments) {
        g /= divisor;
        m = beta1 * m + (1 - beta1) * g;
        s = beta2 * s + (1 - beta2) * g * g;
        p -= rate * weight_decay * p + rate * (m / (1 - std::pow(beta1, t))) / (std::sqrt(s / (1 - std::pow(beta2, t))) + eps);
      } else if (kind.gradient && finite) {
        p -= rate * (scale * g + weight_decay * p);
      }
      v[TARGET][i] += target_share * (p - v[TARGET][i]);
      v[AVERAGE][i] += average_share * (p - v[AVERAGE][i]);
    }
    wanted.push_back(std::move(v));
    auto floats = [&](int i) { return mine[i] ? mine[i]->floats() : nullptr; };
    auto halves = [&](int i) { return mine[i] ? mine[i]->halves() : nullptr; };
    all.at[all.size] = {floats(WEIGHT), mine[GRADIENT] ? mine[GRADIENT]->address() : 0, floats(FIRST), floats(SECOND), floats(TARGET), floats(AVERAGE), halves(COPY), halves(TARGET_COPY)};
    all.count[all.size] = kind.size;
    all.scale[all.size] = scale;
    all.begin[all.size++] = blocks;
    blocks += (kind.size + PIECE - 1) / PIECE;
  }
  auto numbers = numbers_of(finite ? norm : std::numeric_limits<float>::quiet_NaN(), t - 1);
  emulated::launch(blocks, THREADS, 0, [&] { dsd_update(all, numbers->data(), float(1 - beta1), beta2, float(1 - beta2), eps); });
  for (size_t k = 0; k < tensors.size(); k++) {
    const char* parts[] = {"weight", nullptr, "first", "second", "target", "average"};
    for (int i : {WEIGHT, FIRST, SECOND, TARGET, AVERAGE}) {
      if (tensors[k][i]) emulated::expect_near(std::string(kinds[k].name) + ", " + parts[i] + (finite ? "" : ", skipped"), tensors[k][i]->values(), wanted[k][i], 2e-7);
    }
    // To the bit what the wide ones are, rounded.
    if (tensors[k][COPY]) emulated::expect(std::string(kinds[k].name) + ", copy", tensors[k][COPY]->values() == emulated::rounded(tensors[k][WEIGHT]->values()));
    if (tensors[k][TARGET_COPY]) emulated::expect(std::string(kinds[k].name) + ", copy of the target", tensors[k][TARGET_COPY]->values() == emulated::rounded(tensors[k][TARGET]->values()));
  }
}

void test_direction(unsigned long long elements, bool narrow_in, bool narrow_out, bool finite) {
  const unsigned count = 3, parts = (elements + PIECE - 1) / PIECE;
  const double norm = 7, divisor = (norm + 1e-6) / clip;
  const std::string name = "direction " + std::to_string(elements) + (narrow_in ? ", bfloat16" : "") + (narrow_out ? " to bfloat16" : "") + (finite ? "" : ", skipped");
  Tensor g(emulated::rounded(emulated::normal(count * elements, 1)), narrow_in), m(emulated::normal(count * elements, 2)), out(Values(count * elements, 9), narrow_out);
  Values moved = m.values(), wanted(count * elements), gradient = g.values();
  for (unsigned i = 0; i < count; i++) {
    double squares = 0;
    for (size_t at = i * elements; at < (i + 1) * elements && finite; at++) {
      const double now = gradient[at] / divisor;
      moved[at] += (1 - momentum_kept) * (now - moved[at]);
      wanted[at] = now + momentum_kept * (moved[at] - now);
      squares += wanted[at] * wanted[at];
    }
    for (size_t at = i * elements; at < (i + 1) * elements && finite; at++) wanted[at] /= std::sqrt(squares) + 1e-7;
  }
  Matrices all{};
  for (unsigned i = 0; i < count; i++) all.gradient[i] = g.address() + i * elements * (narrow_in ? 2 : 4);
  auto numbers = numbers_of(finite ? norm : std::numeric_limits<float>::infinity(), 0);
  Buffer<double> sums(count * parts);
  void* to = narrow_out ? static_cast<void*>(out.halves()) : out.floats();
  const float follow = float(1 - momentum_kept), rest = 1 - float(momentum_kept);
  emulated::launch(count * parts, THREADS, 0, [&] { dsd_momentum(all, m.floats(), numbers->data(), follow, rest, elements, parts, sums.data()); });
  emulated::launch(count * parts, THREADS, 0, [&] { dsd_direction(all, m.floats(), numbers->data(), rest, elements, parts, sums.data(), to, narrow_out); });
  emulated::expect_near(name + ", momentum", m.values(), moved, 1e-7);
  emulated::expect_near(name, out.values(), wanted, narrow_out ? 3e-3 : 1e-6);
}

void test_quintic(unsigned k, bool narrow) {
  const unsigned count = 3, size = count * k * k;
  const double a = 3.4445, b = -4.775, c = 2.0315;
  Tensor x(emulated::rounded(emulated::normal(size, 1)), narrow), square(emulated::rounded(emulated::normal(size, 2)), narrow);
  Values wanted(size), y = x.values(), s = square.values();
  for (unsigned i = 0; i < size; i++) wanted[i] = (i / k % k == i % k ? a : 0) + b * y[i] + c * s[i];
  void *to = narrow ? static_cast<void*>(square.halves()) : square.floats(), *from = narrow ? static_cast<void*>(x.halves()) : x.floats();
  emulated::launch((count * k + 7) / 8, THREADS, 0, [&] { dsd_quintic(to, from, narrow, count * k, k, a, b, c); });
  emulated::expect_near("quintic " + std::to_string(k) + (narrow ? ", bfloat16" : ""), square.values(), wanted, narrow ? 3e-3 : 2e-7);
}

}  // namespace

int main() {
  test_numbers();
  for (emulated::schedule = 0; emulated::schedule < 3; emulated::schedule++) {
    test_norm();
    test_update(5, true);
    test_direction(PIECE * 2 + 100, true, true, true);
  }
  test_update(0.5, true);
  test_update(1, false);
  for (unsigned long long elements : {1ull, 35ull, 1024ull, 8196ull}) {
    for (int types = 0; types < 4; types++) test_direction(elements, types & 1, types & 2, true);
  }
  for (bool narrow : {false, true}) test_direction(9000, narrow, narrow, false);
  for (unsigned k : {1, 7, 32, 130, 260}) {
    for (bool narrow : {false, true}) test_quintic(k, narrow);
  }
  return emulated::finish();
}
