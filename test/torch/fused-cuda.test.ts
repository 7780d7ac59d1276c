/** The fused operators on CUDA against their compositions there: values and every gradient, on the shapes of the models and on odd ones. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { plain } from '../../src/torch/fused.js';
import {
  addNorm,
  addNormLinear,
  cudaAvailable,
  type HeadNorms,
  linear,
  type Modulation,
  qkvAttention,
  type Stream,
  scope,
  setDeterministic,
  swiglu,
  swigluLinear,
  type Tensor,
} from '../../src/torch/index.js';
import { leavesOn, same } from './fused-compare.js';

const EPS = 1e-6;
const leaf = leavesOn('cuda');

describe('on CUDA', { skip: cudaAvailable() ? false : 'no CUDA device' }, () => {
  for (const [narrow, tolerance] of [
    ['float32', 2e-6],
    ['bfloat16', 1.2e-2],
  ] as const) {
    for (const [B, N, d] of [
      [4, 256, 768],
      [3, 64, 256],
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
            const whole =
              (of: typeof addNorm) =>
              (...[x, gate, y, m]: Tensor[]) => {
                const [shift, scale] = (m as Tensor).unbind(1) as [Tensor, Tensor];
                return of({ x: x as Tensor, branch: { gate: gate as Tensor, y: y as Tensor } }, { shift, scale }, EPS, dtype);
              };
            same(whole(addNorm), whole(plain.addNorm), leaves, tolerance);
            if (dtype === narrow) {
              // What is made again for the weight's gradient.
              const joined =
                (of: (s: Stream, m: Modulation, w: Tensor) => [Tensor, Tensor]) =>
                (...[x, gate, y, m, weight]: Tensor[]) => {
                  const [shift, scale] = (m as Tensor).unbind(1) as [Tensor, Tensor];
                  const stream = { x: x as Tensor, branch: { gate: gate as Tensor, y: y as Tensor } };
                  return of(stream, { shift, scale }, weight as Tensor);
                };
              const composed = (s: Stream, m: Modulation, weight: Tensor): [Tensor, Tensor] => {
                const [sum, normed] = plain.addNorm(s, m, EPS, narrow);
                return [sum, linear(normed, weight)];
              };
              const given = [...leaves, leaf(narrow, 24, d)];
              same(
                joined((s, m, weight) => addNormLinear(s, m, EPS, weight)),
                joined(composed),
                given,
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
      test(`swigluLinear, ${[rows, F]} in ${narrow}`, () =>
        scope(() =>
          same(
            (x, weight) => [swigluLinear(x as Tensor, weight as Tensor)],
            (x, weight) => [linear(plain.swiglu(x as Tensor), weight as Tensor)],
            [leaf(narrow, rows, 2 * F), leaf(narrow, 24, F)],
            Math.max(tolerance, 1e-3),
          ),
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
      const x = leaf('float32', 2, 4, 16);
      const y = leavesOn('cpu')('float32', 2, 4, 16);
      assert.throws(() => addNorm({ x, branch: { gate: leaf('float32', 2, 16), y } }, undefined, EPS, 'float32'), /add_norm: .*cpu/);
      assert.throws(() => addNorm({ x }, undefined, EPS, 'float16'), /add_norm/);
    }));
});
