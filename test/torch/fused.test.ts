/** The fused operators against their own compositions: values and every gradient, by dtype, odd sizes among them; and what they refuse. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { plain } from '../../src/torch/fused.js';
import {
  addNorm,
  addNormMlp,
  type DType,
  grad,
  type HeadNorms,
  linear,
  type Modulation,
  ones,
  qkvAttention,
  scope,
  setThreads,
  swiglu,
  type Tensor,
  tensor,
  tokenLinear,
  zeros,
} from '../../src/torch/index.js';
import { composed, drawFrom, leavesOn, onStream, same, unsettled } from './fused-compare.js';

const EPS = 1e-6;
/** Of the residual stream, of what the matrices multiply, and how far results may be apart, relative to their norm. */
const TYPES = [
  { wide: 'float64', narrow: 'float64', tolerance: 1e-14 },
  { wide: 'float32', narrow: 'float32', tolerance: 2e-6 },
  { wide: 'float32', narrow: 'bfloat16', tolerance: 1.2e-2 },
] as const;

const leaf = leavesOn('cpu');

for (const { wide: w, narrow, tolerance } of TYPES) {
  describe(`${w} and ${narrow}`, () => {
    for (const [B, N, d] of [
      [2, 3, 32],
      [1, 1, 2],
      [3, 5, 7],
      [2, 70, 131],
    ] as const) {
      for (const [branch, modulation] of [
        [true, true],
        [true, false],
        [false, true],
        [false, false],
      ]) {
        test(`addNorm, ${[B, N, d]}${branch ? ', with a branch' : ''}${modulation ? ', modulated' : ''}`, () =>
          scope(() => {
            drawFrom(4000); // of d = 2 a gradient can be a small difference of large terms: not with these numbers
            const leaves = [leaf(w, B, N, d), ...(branch ? [leaf(w, B, d), leaf(narrow, B, N, d)] : [])];
            if (modulation) leaves.push(leaf(w, B, 2, d));
            for (const dtype of [narrow, w]) {
              const of = (norm: typeof addNorm) => onStream((s, m) => norm(s, m, EPS, dtype), branch, modulation);
              same(of(addNorm), of(plain.addNorm), leaves, tolerance);
              // As at the end of the trunk: nothing but the norm is read.
              same(
                (...given) => of(addNorm)(...given).slice(1),
                (...given) => of(plain.addNorm)(...given).slice(1),
                leaves,
                tolerance,
              );
            }
          }));
      }
    }

    for (const [B, N, d, F] of [
      [2, 64, 64, 96],
      [2, 3, 7, 5],
    ] as const) {
      test(`addNormMlp, ${[B, N, d, F]}`, () =>
        scope(() =>
          same(
            onStream((s, m, gateUp, down) => {
              const { shift: gate } = m as Modulation;
              return unsettled(addNormMlp(s, m as Modulation, EPS, { gateUp: gateUp as Tensor, down: down as Tensor }, gate));
            }),
            onStream((s, m, gateUp, down) => composed.addNormMlp(s, m, EPS, gateUp as Tensor, down as Tensor)),
            [leaf(w, B, N, d), leaf(w, B, d), leaf(narrow, B, N, d), leaf(w, B, 2, d), leaf(narrow, 2 * F, d), leaf(narrow, d, F)],
            tolerance,
          ),
        ));
    }

    for (const [rows, F] of [
      [4, 16],
      [1, 1],
      [3, 21],
      [500, 70],
    ] as const) {
      test(`swiglu, ${[rows, F]}`, () =>
        scope(() =>
          same(
            (x) => [swiglu(x as Tensor)],
            (x) => [plain.swiglu(x as Tensor)],
            [leaf(narrow, rows, 2 * F)],
            tolerance,
          ),
        ));
    }

    for (const [rows, into, out] of [
      [300, 64, 96],
      [128, 32, 32],
      [1, 32, 64],
      [131, 64, 32],
      [5, 24, 40],
    ] as const) {
      test(`tokenLinear, ${[rows, into, out]}`, () =>
        scope(() =>
          same(
            (x, weight) => [tokenLinear(x as Tensor, weight as Tensor)],
            (x, weight) => [linear(x as Tensor, weight as Tensor)],
            [leaf(narrow, 1, rows, into), leaf(narrow, out, into)],
            // The same sums in another order, rounded once.
            narrow === 'bfloat16' ? 1e-3 : tolerance,
          ),
        ));
    }

    for (const [B, N, h, D] of [
      [2, 64, 4, 32],
      [1, 1, 1, 2],
      [3, 5, 2, 12],
      [2, 33, 3, 40],
      [1, 257, 1, 64],
    ] as const) {
      test(`qkvAttention, ${[B, N, h, D]}`, () =>
        scope(() => {
          const angle = leaf(w, N, D / 2).detach();
          const attend = (of: typeof qkvAttention) => (qkv: Tensor, q: Tensor, k: Tensor) => {
            const norms: HeadNorms = { q, k, cos: angle.cos(), sin: angle.sin() };
            return [of(qkv, h, norms, EPS)];
          };
          const leaves = [leaf(narrow, B, N, 3 * h * D), leaf(w, D), leaf(w, D)];
          // The composition rounds to bfloat16 between its operators, where the operator does not.
          same(attend(qkvAttention) as never, attend(plain.qkvAttention) as never, leaves, narrow === 'bfloat16' ? 2e-2 : tolerance);
        }));
    }
  });
}

// A limit that libtorch warns of and ignores, and our kernels do not: under 'avx2' libtorch 2.11 itself fails at attention in bfloat16 where the processor has AMX.
test('the same on a processor that does not multiply bfloat16', () => {
  const child = spawnSync(process.execPath, ['--test', '--test-name-pattern', 'qkvAttention', import.meta.filename], {
    env: { ...process.env, ATEN_CPU_CAPABILITY: 'less', NODE_TEST_CONTEXT: undefined },
    encoding: 'utf8',
  });
  assert.equal(child.status, 0, child.stdout + child.stderr);
  assert.match(child.stdout, /# pass 15/);
});

test('inputs may be views', () =>
  scope(() => {
    const big = leaf('float64', 3, 2, 10);
    const x = (of: Tensor) => of.transpose(0, 1).slice(2, 0, 10, 2); // (2, 3, 5)
    const row = (of: Tensor) => of.select(0, 1).slice(1, 1, 10, 2); // (2, 5)
    const norm = (of: typeof addNorm) => (t: Tensor) =>
      of({ x: x(t), branch: { gate: row(t), y: x(t) } }, { shift: row(t), scale: row(t) }, EPS, 'float64');
    same(norm(addNorm) as never, norm(plain.addNorm) as never, [big], 1e-14);
    same(
      (t) => [swiglu(x(t as Tensor).transpose(0, 2))],
      (t) => [plain.swiglu(x(t as Tensor).transpose(0, 2))],
      [leaf('float64', 4, 2, 10)],
      1e-14,
    );
    const angle = leaf('float64', 6, 2).detach();
    const attend = (of: typeof qkvAttention) => (t: Tensor, row: Tensor) => {
      const norms: HeadNorms = { q: row.slice(0, 0, 8, 2), k: row.slice(0, 1, 8, 2), cos: angle.cos(), sin: angle.sin() };
      return [of(t.transpose(0, 1), 2, norms, EPS)]; // (2, 6, 24)
    };
    same(attend(qkvAttention) as never, attend(plain.qkvAttention) as never, [leaf('float64', 6, 2, 24), leaf('float64', 8)], 1e-14);
  }));

test('large, small and not finite numbers', () =>
  scope(() => {
    const x = [-1e4, -104, -88.1, -87, -20, -1e-30, 0, 1e-30, 3, 87, 89, 1e4, Number.NaN];
    const pairs = tensor(Float32Array.from(x.flatMap((value) => [value, 1])), [x.length, 2]);
    const silu = [...swiglu(pairs).toArray()].map(Number);
    x.forEach((value, i) => {
      const expected = value / (1 + Math.exp(-value));
      assert.ok(
        Number.isNaN(value) ? Number.isNaN(silu[i]) : Math.abs((silu[i] as number) - expected) <= 1e-6 * Math.abs(expected) + 1e-33,
        `silu(${value}) is ${silu[i]}, expected ${expected}`,
      );
    });
    // One key that outweighs the other by more than float32 can hold, and rows shorter than a vector. Of each token: two numbers of q, of k and of v.
    const qkv = tensor(Float32Array.of(...[1, 1, 0, 1, 5, 0], ...[-1, 1, 1, 0, 7, 0]), [1, 2, 6]);
    const norms: HeadNorms = { q: tensor(Float32Array.of(300, 0)), k: ones([2]), cos: ones([2, 1]), sin: zeros([2, 1]) };
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const out = qkvAttention(qkv.to({ dtype }), 1, norms, 0).to({ dtype: 'float32' });
      assert.deepEqual([...out.toArray()], [7, 0, 5, 0], dtype);
    }
    assert.ok(
      [...addNorm({ x: zeros([1, 1, 3]) }, undefined, EPS, 'float32')[1].toArray()].every((value) => value === 0),
      'the norm of zeros is zero',
    );
  }));

test('one thread or two: the same bits', () => {
  const make = (narrow: DType): number[] =>
    scope(() => {
      drawFrom(1000);
      const [x, row, qkv] = [leaf('float32', 9, 40, 48), leaf('float32', 9, 48), leaf(narrow, 9, 40, 144)];
      const norms = {
        q: ones([16]).requiresGrad_(true),
        k: ones([16]),
        cos: leaf('float32', 40, 8).detach(),
        sin: leaf('float32', 40, 8).detach(),
      };
      const y = qkvAttention(qkv, 3, norms, EPS);
      const [sum, normed] = addNorm({ x, branch: { gate: row, y } }, { shift: row, scale: row }, EPS, narrow);
      const out = swiglu(normed.add(sum));
      const gradients = grad([out.sum()], [x, row, qkv, norms.q]) as Tensor[];
      return [out, ...gradients].flatMap((t) => [...t.to({ dtype: 'float32' }).toArray()].map(Number));
    });
  const weightGradient = (): number[] =>
    scope(() => {
      drawFrom(2000);
      const [x, weight] = [leaf('bfloat16', 200, 64), leaf('bfloat16', 160, 64)];
      const [gradient] = grad([tokenLinear(x, weight).mul(x.sum()).sum()], [weight]) as [Tensor];
      return [...gradient.to({ dtype: 'float32' }).toArray()].map(Number);
    });
  try {
    for (const of of [() => make('float32'), () => make('bfloat16'), weightGradient]) {
      setThreads(1);
      const one = of();
      setThreads(2);
      assert.deepEqual(of(), one);
    }
  } finally {
    setThreads(2);
  }
});

test('what does not fit is refused, and there is no second derivative', () =>
  scope(() => {
    const [x, row] = [leaf('float32', 2, 3, 4), leaf('float32', 2, 4)];
    const norm = (of: Tensor, shift: Tensor, scale: Tensor, dtype: DType = 'float32') => addNorm({ x: of }, { shift, scale }, EPS, dtype);
    assert.throws(() => norm(x, row, leaf('float32', 1, 4)), /add_norm: scale must be \(2, 4\), found \[1, 4\]/);
    assert.throws(() => norm(x, leaf('float64', 2, 4), row), /add_norm: shift is Double, expected Float/);
    assert.throws(() => norm(x, row, row, 'int64'), /add_norm: computes in float32 or float64/);
    assert.throws(() => norm(row, row, row), /add_norm: x must be \(B, N, d\)/);
    const wrong = { x, branch: { gate: row, y: leaf('float32', 2, 3, 5) } };
    assert.throws(() => addNorm(wrong, undefined, EPS, 'float32'), /add_norm: x and y must be \(B, N, d\) alike/);
    const typed = { x, branch: { gate: row, y: leaf('bfloat16', 2, 3, 4) } };
    assert.throws(() => addNorm(typed, undefined, EPS, 'float64'), /add_norm: the result is of the stream's type or of the branch's/);
    assert.throws(() => swiglu(leaf('float32', 2, 3)), /swiglu: the last dimension must be even/);
    const norms = { q: ones([2]), k: ones([2]), cos: ones([3, 1]), sin: ones([3, 1]) };
    const attend = (of: Tensor, given: Partial<HeadNorms> = {}) => qkvAttention(of, 2, { ...norms, ...given }, EPS);
    assert.throws(() => attend(x), /qkv_attention: qkv must be \(B, N, 3 h D\) with h = 2/);
    const qkv = leaf('float32', 2, 3, 12);
    assert.throws(() => attend(qkv, { k: ones([3]) }), /qkv_attention: norms must be \(2\), found \[3\]/);
    assert.throws(() => attend(qkv, { sin: ones([3, 2]) }), /qkv_attention: cos and sin must be \(3, 1\)/);
    assert.throws(() => attend(qkv, { sin: ones([3, 1], { dtype: 'float64' }) }), /qkv_attention: norms, cos and sin must be Float/);
    assert.throws(() => attend(leaf('float64', 2, 3, 12)), /qkv_attention: norms, cos and sin must be Double/);
    assert.throws(() => grad([swiglu(x).sum()], [x], undefined, { createGraph: true }), /swiglu: has no second derivative/);
  }));
