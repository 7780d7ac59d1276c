/** The fused operators on CUDA against their compositions there: values and every gradient, on the shapes of the models and on odd ones. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { plain } from '../../src/torch/fused.js';
import {
  addLinear,
  addNorm,
  addNormLinear,
  addNormMlp,
  cudaAvailable,
  engineInfo,
  grad,
  type HeadNorms,
  linear,
  type MlpWeights,
  type Modulation,
  noGrad,
  qkvAttention,
  type Stream,
  scope,
  setDeterministic,
  settled,
  swiglu,
  type Tensor,
} from '../../src/torch/index.js';
import { composed, leavesOn, near, onStream, same, unsettled } from './fused-compare.js';

const EPS = 1e-6;
const leaf = leavesOn('cuda');
/** Known to have 132 multiprocessors of capability 9.0: what addLinear's shapes below fill. */
const adds = /H100 80GB HBM3|H200/.test(engineInfo().cuda[0] ?? '');

describe('on CUDA', { skip: cudaAvailable() ? false : 'no CUDA device' }, () => {
  for (const [narrow, tolerance] of [
    ['float32', 2e-6],
    ['bfloat16', 1.2e-2],
  ] as const) {
    for (const [B, N, d] of [
      [4, 256, 768],
      [3, 64, 256],
      [64, 256, 256], // enough tiles for a product of ours behind it
      [2, 33, 384],
      [1, 1, 8],
      [2, 5, 1024],
      [2, 7, 640],
      [3, 5, 7], // by the composition
    ] as const) {
      test(`addNorm, ${[B, N, d]} in ${narrow}`, () =>
        scope(() => {
          const leaves = [leaf('float32', B, N, d), leaf('float32', B, d), leaf(narrow, B, N, d), leaf('float32', B, 6, d)];
          for (const [stream, dtype] of [
            ['float32', narrow],
            ['float32', 'float32'],
            [narrow, narrow],
            [narrow, 'float32'],
          ] as const) {
            leaves[0] = leaf(stream, B, N, d);
            const whole = (of: typeof addNorm) => onStream((s, m) => of(s, m, EPS, dtype));
            same(whole(addNorm), whole(plain.addNorm), leaves, tolerance);
            if (dtype === narrow) {
              // What is made again for the weight's gradient.
              same(
                onStream((s, m, weight) => addNormLinear(s, m as Modulation, EPS, weight as Tensor)),
                onStream((s, m, weight) => composed.addNormLinear(s, m, EPS, weight as Tensor)),
                [...leaves, leaf(narrow, 3 * d, d)],
                Math.max(tolerance, 1e-3),
              );
            }
            const bare = (of: typeof addNorm) => (x: Tensor) => of({ x }, undefined, EPS, dtype).slice(1);
            same(bare(addNorm) as never, bare(plain.addNorm) as never, leaves.slice(0, 1), tolerance);
          }
        }));
    }

    for (const [rows, F] of [
      [4096, 2048],
      [500, 672],
      [3, 8],
      [3, 21], // by the composition
    ] as const) {
      test(`swiglu, ${[rows, F]} in ${narrow}`, () =>
        scope(() =>
          same(
            (x) => [swiglu(x as Tensor)],
            (x) => [plain.swiglu(x as Tensor)],
            [leaf(narrow, rows, 2 * F)],
            tolerance,
          ),
        ));
    }

    for (const [B, N, d, F] of [
      [4, 256, 768, 2048],
      [16, 256, 384, 928], // more tiles than there are multiprocessors
      [9, 511, 768, 2048], // enough of them for the last product's kernel too
      [44, 256, 768, 2048], // and, without gradient, for those that add
      [64, 255, 256, 672],
      [3, 100, 256, 672],
      [2, 33, 384, 928],
      [1, 1, 8, 8],
      [9, 101, 640, 1600],
      [2, 5, 16, 21], // two of its three parts are operators
    ] as const) {
      for (const stream of new Set(['float32', narrow] as const)) {
        test(`addNormMlp, ${[B, N, d, F]} in ${narrow}, the stream in ${stream}`, () =>
          scope(() => {
            const leaves = [leaf(stream, B, N, d), leaf('float32', B, d), leaf(narrow, B, N, d), leaf('float32', B, 6, d)];
            leaves.push(leaf(narrow, 2 * F, d), leaf(narrow, d, F));
            const after = (s: Stream, m: Modulation | undefined, gateUp?: Tensor, down?: Tensor): Stream => {
              const { shift: gate } = m as Modulation;
              return addNormMlp(s, m as Modulation, EPS, { gateUp: gateUp as Tensor, down: down as Tensor }, gate);
            };
            const of = onStream((...given) => unsettled(after(...given)));
            same(
              of,
              onStream((s, m, gateUp, down) => composed.addNormMlp(s, m, EPS, gateUp as Tensor, down as Tensor)),
              leaves,
              Math.max(tolerance, 1e-3),
            );
            const recorded = of(...leaves);
            const whole = onStream((...given) => [settled(after(...given))]);
            const [unrecorded, sum] = [noGrad(() => whole(...leaves)), whole(...leaves)];
            near(unrecorded[0] as Tensor, sum[0] as Tensor, tolerance, 'without a gradient');
            const up = recorded.map((result) => leaf(result.dtype, ...result.shape).detach());
            const again = of(...leaves);
            const [first, second] = [recorded, again].map((results) => grad(results, leaves, up)) as [Tensor[], Tensor[]];
            [...again, ...second].forEach((result, i) => {
              near(result, [...recorded, ...first][i] as Tensor, 0, `result or gradient ${i}, once more`);
            });
          }));
      }
    }

    for (const [B, N, K, d] of [
      [44, 256, 2048, 768],
      [111, 128, 264, 256],
      [43, 384, 672, 256],
      [65, 256, 640, 512],
      [128, 256, 768, 768], // six tiles for each multiprocessor
      [390, 128, 200, 256], // three, of as few steps as stages
      [140, 101, 264, 256], // and these leave a branch
      [3, 5, 16, 24],
    ] as const) {
      test(`addLinear, ${[B, N, K, d]} in ${narrow}`, () =>
        noGrad(() =>
          scope(() => {
            const [x, rows, weight] = [leaf(narrow, B, N, d), leaf(narrow, B, N, K), leaf(narrow, d, K)];
            const [, gate] = leaf('float32', B, 3, d).unbind(1) as [Tensor, Tensor];
            const { branch, ...sum } = addLinear(x, gate, rows, weight);
            if (adds)
              assert.equal(branch === undefined, narrow === 'bfloat16' && N % 128 === 0 && d % 256 === 0, 'added as the product leaves');
            const expected = plain.add({ x, branch: { gate, y: linear(rows, weight) } });
            near(settled({ ...sum, ...(branch ? { branch } : {}) }), expected, tolerance, 'sum');
            const again = addLinear(x, gate, rows, weight);
            if (!again.branch) near(again.x, sum.x, 0, 'once more');
          }),
        ));
    }

    for (const [B, N, h, D] of [
      [4, 256, 12, 64],
      [3, 64, 4, 64],
      [3, 64, 4, 32],
      [2, 16, 1, 32],
      [1, 48, 3, 64],
      [1, 208, 2, 64],
      [2, 33, 3, 40], // by the composition
    ] as const) {
      for (const deterministic of [false, true]) {
        test(`qkvAttention, ${[B, N, h, D]} in ${narrow}${deterministic ? ', deterministic' : ''}`, () => {
          setDeterministic(deterministic);
          try {
            scope(() => {
              const angle = leaf('float32', N, D / 2).detach();
              const attend = (of: typeof qkvAttention) => (qkv: Tensor, q: Tensor, k: Tensor) => {
                const norms: HeadNorms = { q, k, cos: angle.cos(), sin: angle.sin() };
                return [of(qkv, h, norms, EPS)];
              };
              const leaves = [leaf(narrow, B, N, 3 * h * D), leaf('float32', D), leaf('float32', D)];
              // The composition rounds to bfloat16 between its operators, where the operator does not.
              same(attend(qkvAttention) as never, attend(plain.qkvAttention) as never, leaves, narrow === 'float32' ? 2e-3 : 2e-2);
            });
          } finally {
            setDeterministic(false);
          }
        });
      }
    }
  }

  test('views that begin anywhere, and rows apart', () =>
    scope(() => {
      const flat = leaf('bfloat16', 2 * 3 * 16 + 1);
      const modulation = leaf('float32', 2 * 4 * 16 + 1);
      const of = (norm: typeof addNorm) => (x: Tensor, m: Tensor) => {
        const [gate, shift, scale] = m.slice(0, 1, 129).view(2, 4, 16).unbind(1) as [Tensor, Tensor, Tensor];
        const view = x.slice(0, 1, 97).view(2, 3, 16);
        return norm({ x: view, branch: { gate, y: view } }, { shift, scale }, EPS, 'bfloat16');
      };
      same(of(addNorm) as never, of(plain.addNorm) as never, [flat, modulation], 1.2e-2);
      const act = (by: typeof swiglu) => (x: Tensor) => [by(x.slice(0, 1, 97).view(6, 16))];
      same(act(swiglu) as never, act(plain.swiglu) as never, [flat], 1.2e-2);
    }));

  test('what does not fit is an error, not a crash', () =>
    scope(() => {
      const [gateUp, down] = [leaf('float32', 32, 16), leaf('float32', 16, 16)];
      const row = leaf('float32', 2, 16);
      const mlp = (weights: MlpWeights) =>
        settled(addNormMlp({ x: leaf('float32', 2, 4, 16) }, { shift: row, scale: row }, EPS, weights, row)).sum();
      assert.throws(() => mlp({ gateUp, down: leaf('float32', 16, 24) }), /add_norm_mlp: the weight must be \(out, 16\)/);
      assert.throws(() => mlp({ gateUp, down: leaf('bfloat16', 16, 16) }), /add_norm_mlp: gate_up is Float, down BFloat16/);
      const once = mlp({ gateUp, down });
      grad([once], [gateUp], undefined, { retainGraph: true });
      assert.throws(() => grad([once], [gateUp]), /add_norm_mlp: one backward pass only/);
      const x = leaf('float32', 2, 4, 16);
      const y = leavesOn('cpu')('float32', 2, 4, 16);
      assert.throws(() => addNorm({ x, branch: { gate: leaf('float32', 2, 16), y } }, undefined, EPS, 'float32'), /add_norm: .*cpu/);
      assert.throws(() => addNorm({ x }, undefined, EPS, 'float16'), /add_norm/);
    }));
});
