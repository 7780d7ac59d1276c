import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type AdamWStep,
  adamw_,
  backward,
  gradNorm,
  lerpList_,
  ones,
  rand,
  randn,
  setThreads,
  type Tensor,
  tensor,
  zeroList_,
  zeros,
} from '../../src/torch/index.js';

const RATE = 1e-2;
const OPTIONS: AdamWStep = { lr: tensor(new Float64Array([RATE]), []), beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1 };
const SIZES = [[3, 5], [1], [40_000], [17, 2]];
const make = (name: number, dtype: 'float32' | 'float64') =>
  SIZES.map((shape, i) => randn({ lo: name, hi: i }, 0, [1, ...shape], { dtype }).view(...shape));
const numbers = (t: Tensor) => Float64Array.from([...t.toArray()].map(Number));

/** AdamW as in the paper, one number at a time. */
function reference(p: number[], g: readonly number[], m: number[], v: number[], t: number, scale: number, o: AdamWStep): void {
  for (let i = 0; i < p.length; i++) {
    const gradient = (g[i] as number) / scale;
    m[i] = o.beta1 * (m[i] as number) + (1 - o.beta1) * gradient;
    v[i] = o.beta2 * (v[i] as number) + (1 - o.beta2) * gradient * gradient;
    const mean = (m[i] as number) / (1 - o.beta1 ** t);
    const root = Math.sqrt((v[i] as number) / (1 - o.beta2 ** t)) + o.eps;
    p[i] = (p[i] as number) - RATE * o.weightDecay * (p[i] as number) - (RATE * mean) / root;
  }
}

for (const [dtype, tolerance] of [
  ['float64', 1e-14],
  ['float32', 2e-6],
] as const) {
  test(`adamw_ in ${dtype} equals the formula over five steps`, () => {
    const parameters = make(1, dtype);
    const [first, second] = [parameters.map((p) => p.mul(0)), parameters.map((p) => p.mul(0))];
    const step = zeros([]);
    const expected = parameters.map((p) => ({
      p: [...numbers(p)],
      m: new Array<number>(p.numel).fill(0),
      v: new Array<number>(p.numel).fill(0),
    }));
    for (let t = 1; t <= 5; t++) {
      const gradients = make(10 + t, dtype);
      const scale = t === 3 ? 4 : 1;
      adamw_(parameters, gradients, first, second, step, { ...OPTIONS, ...(t === 3 ? { gradScale: tensor([4], []) } : {}) });
      for (const [i, e] of expected.entries()) reference(e.p, [...numbers(gradients[i] as Tensor)], e.m, e.v, t, scale, OPTIONS);
    }
    assert.equal(step.item(), 5);
    for (const [i, e] of expected.entries()) {
      const found = numbers(parameters[i] as Tensor);
      for (let j = 0; j < e.p.length; j++)
        assert(
          Math.abs((found[j] as number) - (e.p[j] as number)) <= tolerance * Math.max(1, Math.abs(e.p[j] as number)),
          `parameter ${i}, element ${j}`,
        );
    }
  });
}

test('a step whose gradients were not finite changes nothing', () => {
  const p = ones([3], { requiresGrad: true });
  const [m, v, step] = [zeros([3]), zeros([3]), zeros([])];
  const bad = tensor([Number.NaN, 1, 1]);
  const foundInf = gradNorm([bad]).isfinite().logicalNot().to({ dtype: 'float32' });
  adamw_([p], [bad], [m], [v], step, { ...OPTIONS, foundInf });
  assert.deepEqual([[...p.toArray()], [...m.toArray()], step.item()], [[1, 1, 1], [0, 0, 0], 0]);
  adamw_([p], [ones([3])], [m], [v], step, { ...OPTIONS, foundInf: tensor([0], []) });
  assert.equal(step.item(), 1);
  assert.notEqual(p.toArray()[0], 1);
});

test('a null gradient leaves its parameter as it is; gradients may be views', () => {
  const [a, b] = [ones([2]), ones([2, 3])];
  const turned = ones([3, 2]).transpose(0, 1);
  adamw_([a, b], [null, turned], [zeros([2]), zeros([2, 3])], [zeros([2]), zeros([2, 3])], zeros([]), OPTIONS);
  assert.deepEqual([...a.toArray()], [1, 1]);
  assert.notEqual(b.toArray()[0], 1);
});

test('gradients of parameters that a graph still needs are refused by libtorch, not silently wrong', () => {
  const w = ones([2], { requiresGrad: true });
  const loss = w.square().sum();
  adamw_([w], [ones([2])], [zeros([2])], [zeros([2])], zeros([]), OPTIONS);
  assert.equal(w.requiresGrad, true);
  assert.throws(() => backward(loss), /modified by an inplace operation/);
});

test('gradNorm is the norm of all together, the same on any number of threads', () => {
  const gradients = make(3, 'float32');
  const expected = Math.sqrt(gradients.reduce((sum, g) => sum + numbers(g).reduce((s, x) => s + x * x, 0), 0));
  const found = gradNorm([...gradients, null]);
  assert.deepEqual([found.shape, found.dtype], [[], 'float32']);
  assert(Math.abs(Number(found.item()) - expected) < 1e-6 * expected);
  setThreads(1);
  assert.equal(gradNorm(gradients).item(), found.item());
  setThreads(2);
  assert.equal(gradNorm(make(3, 'float64')).dtype, 'float64');
  assert.equal(gradNorm([]).item(), 0);
  assert.equal(gradNorm([tensor([3, 4], [2], { dtype: 'bfloat16' })]).item(), 5);
});

test('lerpList_ and zeroList_ change in place, parameters too', () => {
  const targets = [ones([3], { requiresGrad: true }), zeros([20_000])];
  const sources = [rand({ lo: 1, hi: 1 }, 0, [1, 3]).view(3), ones([20_000])];
  const expected = [...sources[0]!.toArray()].map((x) => 1 + 0.25 * (Number(x) - 1));
  lerpList_(targets, sources, tensor([0.25], []));
  for (const [i, x] of [...targets[0]!.toArray()].entries()) assert(Math.abs(Number(x) - expected[i]!) < 1e-7);
  assert.equal(targets[1]!.mean().item(), 0.25);
  const leaves = [ones([2])];
  zeroList_(leaves);
  zeroList_([]);
  assert.deepEqual([...leaves[0]!.toArray()], [0, 0]);
});

test('lists that do not match are refused', () => {
  const [p, g, s] = [[ones([2])], [ones([3])], zeros([])];
  assert.throws(() => adamw_(p, g, p, p, s, OPTIONS), /adamw_: gradients\[0\] has shape \[3\], expected \[2\]/);
  assert.throws(() => adamw_(p, [], p, p, s, OPTIONS), { name: 'TypeError' });
  assert.throws(() => adamw_(p, [ones([2], { dtype: 'float64' })], p, p, s, OPTIONS), /dtype/);
  const half = [ones([2], { dtype: 'bfloat16' })];
  assert.throws(() => adamw_(half, half, half, half, s, OPTIONS), /float32 or float64/);
  assert.throws(() => lerpList_(p, [ones([2, 1])], tensor([0.5], [])), /lerp_list_: sources\[0\] has shape/);
  const strided = [ones([2, 3]).transpose(0, 1)];
  assert.throws(() => lerpList_(strided, [ones([3, 2])], tensor([0.5], [])), /not contiguous/);
});
