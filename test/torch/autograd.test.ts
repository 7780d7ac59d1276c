import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  backward,
  clearGradients,
  conv2d,
  cosineSimilarity,
  crossEntropy,
  embedding,
  grad,
  gradients,
  layerNorm,
  linear,
  noGrad,
  ones,
  rand,
  rmsNorm,
  scaledDotProductAttention,
  scope,
  Tensor,
  tensor,
  where,
  zeros,
} from '../../src/torch/index.js';

const draw = (name: number, ...shape: number[]) =>
  rand({ lo: name, hi: 1 }, 0, [1, ...shape], { dtype: 'float64' })
    .view(...shape)
    .sub(0.4);

/** The gradient against central differences, in float64, for every element of every input. */
function compare(name: string, fn: (...inputs: Tensor[]) => Tensor, ...inputs: Tensor[]): void {
  test(`gradient of ${name} equals finite differences`, () => {
    const weights = noGrad(() => draw(99, ...fn(...inputs).shape));
    const loss = () =>
      fn(...inputs)
        .mul(weights)
        .sum();
    for (const input of inputs) input.requiresGrad_(true);
    const analytic = grad([loss()], inputs);
    for (const [i, input] of inputs.entries()) {
      const expected = noGrad(() => {
        const flat = input.detach().view(-1);
        return Array.from({ length: flat.numel }, (_, j) =>
          scope(() => {
            const element = flat.narrow(0, j, 1);
            const step = 1e-6;
            element.add_(step);
            const up = Number(loss().item());
            element.sub_(2 * step);
            const down = Number(loss().item());
            element.add_(step);
            return (up - down) / (2 * step);
          }),
        );
      });
      const found = [...(analytic[i] ?? zeros([0])).toArray()].map(Number);
      for (const [j, value] of expected.entries())
        assert(Math.abs(value - (found[j] as number)) < 1e-7, `input ${i}, element ${j}: ${value} and ${found[j]}`);
    }
  });
}

compare('linear', (x, w, b) => linear(x, w, b), draw(1, 2, 3), draw(2, 4, 3), draw(3, 4));
compare('rmsNorm', (x, w) => rmsNorm(x, w, 1e-6), draw(4, 2, 5), draw(5, 5));
compare('layerNorm', (x) => layerNorm(x, [5], null, null, 1e-6), draw(6, 2, 5));
compare('attention', (q, k, v) => scaledDotProductAttention(q, k, v), draw(7, 1, 2, 3, 4), draw(8, 1, 2, 3, 4), draw(9, 1, 2, 3, 4));
compare('silu and broadcasting', (x, y) => x.silu().mul(y), draw(10, 3, 2), draw(11, 2));
compare('conv2d', (x, w, b) => conv2d(x, w, b, 1, 1), draw(12, 1, 2, 3, 3), draw(13, 2, 2, 3, 3), draw(14, 2));
compare('cosineSimilarity', (a, b) => cosineSimilarity(a, b, -1), draw(15, 2, 4), draw(16, 2, 4));
compare('crossEntropy', (x) => crossEntropy(x, tensor(new BigInt64Array([1n, 0n]))), draw(17, 2, 3));
compare('embedding', (w) => embedding(w, tensor(new BigInt64Array([1n, 1n, 0n]))), draw(18, 3, 2));
compare('where', (a, b) => where(tensor(new Uint8Array([1, 0]), [2], { dtype: 'bool' }), a, b), draw(19, 2), draw(20, 2));

test('backward adds to the gradients of leaves', () => {
  const w = ones([2], { requiresGrad: true });
  assert.deepEqual(gradients([w]), [null]);
  backward(w.mul(3).sum());
  backward(w.mul(3).sum());
  assert.deepEqual([...(w.grad as Tensor).toArray()], [6, 6]);
  assert.equal(gradients([w, zeros([1], { requiresGrad: true })])[1], null);
  clearGradients([w]);
  assert.deepEqual(gradients([w]), [null]);
});

test('gradients leave a scope with the leaf, not with the handle', () => {
  const w = ones([2], { requiresGrad: true });
  scope(() => {
    backward(w.mul(3).sum());
    w.grad?.mul(2);
  });
  assert.deepEqual([...(w.grad as Tensor).toArray()], [3, 3]);
});

test('grad takes what flows in, and second derivatives', () => {
  const x = tensor([2, 3], [2], { requiresGrad: true });
  const [g] = grad([x.square()], [x], [tensor([1, 10])]);
  assert.deepEqual([...(g as Tensor).toArray()], [4, 60]);
  const [first] = grad([x.pow(3).sum()], [x], { createGraph: true });
  const [second] = grad([(first as Tensor).sum()], [x]);
  assert.deepEqual([...(second as Tensor).toArray()], [12, 18]);
});

test('an input that was not used is null when allowed', () => {
  const [a, b] = [ones([1], { requiresGrad: true }), ones([1], { requiresGrad: true })];
  assert.deepEqual(grad([a.mul(2)], [a, b], { allowUnused: true })[1], null);
  assert.throws(() => grad([a.mul(2)], [a, b]), /grad: .*not have been used/);
});

test('what cannot have a gradient says so', () => {
  const w = ones([2], { requiresGrad: true });
  assert.throws(() => zeros([2], { dtype: 'int64' }).requiresGrad_(), /aten::requires_grad_: .*floating point/);
  assert.throws(() => backward(ones([1])), /backward: .*does not require grad.*float32\[1\]/);
  assert.throws(() => backward(w.mul(2)), /backward: .*scalar outputs.*float32\[2\]/);
  const loss = w.square().sum();
  backward(loss);
  assert.throws(() => backward(loss), /backward: .*second time/);
  assert.throws(() => grad([w.mul(2)], [w], [ones([3])]), /grad: .*shape/i);
  assert.throws(() => w.mul(2).requiresGrad_(false), /leaf/);
  assert.throws(() => grad([{} as Tensor], [w]), { name: 'TypeError', message: /grad: argument 'outputs'\[0\]/ });
  assert(w.detach() instanceof Tensor);
});
