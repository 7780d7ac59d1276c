import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { key } from '../../src/core/random.js';
import { orthogonalize } from '../../src/nn/muon.js';
import { Average, Optimizer } from '../../src/nn/optimizer.js';
import { Copies, Weights } from '../../src/nn/weights.js';
import { noGrad, randn, scope, svdvals, type Tensor, tensor, zerosLike } from '../../src/torch/index.js';
import { assertClose, Fixture } from '../dsd/fixtures.js';

const OPTIONS = {
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 1e-8,
  weightDecay: 0,
  clip: 1,
  muon: new Map<string, number>(),
  compute: 'float64',
} as const;
const NAMES = ['a', 'b', 'c'] as const;
const rates = (learningRate: number, target = 0, average = 0): Tensor => tensor(new Float64Array([learningRate, target, average]), [3]);
const values = (t: Tensor): number[] => Array.from(t.toArray() as Float64Array);

describe('AdamW', () => {
  for (const [name, weightDecay] of [
    ['plain', 0],
    ['decay', 0.01],
  ] as const) {
    test(`five clipped steps against the oracle, ${name}`, () =>
      scope(() => {
        const fixture = new Fixture('optimizer');
        const weights = new Weights(new Map(NAMES.map((n) => [n, fixture.tensor(`start.${n}`)])));
        const optimizer = new Optimizer(weights, { ...OPTIONS, weightDecay });
        for (let step = 1; step <= 5; step++) {
          const norm = optimizer.update(
            NAMES.map((n) => fixture.tensor(`step${step}.grad.${n}`)),
            rates(0.01),
          );
          assertClose(norm, fixture.values(`step${step}.norm`), 1e-12, 'norm');
          // The scale by which gradients are clipped passes through float32.
          for (const n of NAMES) assertClose(weights.get(n), fixture.values(`${name}.step${step}.param.${n}`), 1e-7, `step ${step}, ${n}`);
        }
        assert.equal(Number(optimizer.step.item()), 5);
      }));
  }
});

describe('Muon', () => {
  for (const [r, q] of [
    [24, 24],
    [40, 16],
    [16, 40],
  ] as const) {
    test(`${r} x ${q}: singular values come near 1, directions stay`, () =>
      scope(() => {
        const x = randn(key(0, 'x'), 0, [3, r, q], { dtype: 'float64' });
        const u = orthogonalize(x.div(x.norm(2, [1, 2], true)));
        for (let i = 0; i < 3; i++) {
          const s = values(svdvals(u.select(0, i)));
          assert.ok(
            s.every((v) => v > 0.5 && v < 1.3),
            `${s}`,
          );
          // The product with the original is symmetric and positive where the singular vectors are the same.
          const product = u.select(0, i).transpose(0, 1).matmul(x.select(0, i));
          const skew = Number(product.sub(product.transpose(0, 1)).norm().item()) / Number(product.norm().item());
          assert.ok(skew < 1e-9, `not symmetric: ${skew}`);
        }
      }));
  }

  test('a stacked parameter moves as its matrices would alone', () =>
    scope(() => {
      const start = randn(key(1, 'w'), 0, [24, 8], { dtype: 'float64' });
      const gradient = randn(key(2, 'g'), 0, [24, 8], { dtype: 'float64' });
      const together = new Weights(new Map([['w', start.clone()]]));
      const apart = new Weights(new Map([0, 1, 2].map((i) => [`w${i}`, start.narrow(0, 8 * i, 8).clone()])));
      const one = new Optimizer(together, { ...OPTIONS, muon: new Map([['w', 3]]) });
      const three = new Optimizer(apart, { ...OPTIONS, muon: new Map([...apart.tensors.keys()].map((name) => [name, 1])) });
      one.update([gradient], rates(0.1));
      three.update(
        [0, 1, 2].map((i) => gradient.narrow(0, 8 * i, 8)),
        rates(0.1),
      );
      const moved = together.get('w');
      for (let i = 0; i < 3; i++) assertClose(moved.narrow(0, 8 * i, 8), values(apart.get(`w${i}`)), 1e-12, `matrix ${i}`);
      assert.ok(Number(moved.sub(start).norm().item()) > 0.1, 'it moved');
    }));

  test('weight decay takes its share of every weight, whatever the gradient', () =>
    scope(() => {
      const start = randn(key(1, 'w'), 0, [8, 4], { dtype: 'float64' });
      const decayed = (weightDecay: number, gradient: Tensor): Tensor => {
        const weights = new Weights(new Map([['w', start.clone()]]));
        new Optimizer(weights, { ...OPTIONS, weightDecay, muon: new Map([['w', 1]]) }).update([gradient], rates(0.1));
        return weights.get('w');
      };
      assertClose(decayed(0.5, zerosLike(start)), values(start.mul(0.95)), 1e-12, 'no gradient');
      const gradient = randn(key(2, 'g'), 0, [8, 4], { dtype: 'float64' });
      assertClose(decayed(0.5, gradient), values(decayed(0, gradient).sub(start.mul(0.05))), 1e-12, 'gradient');
    }));
});

test('a step whose gradient is not finite changes nothing, and the next one is as if it had not been', () =>
  scope(() => {
    const make = () => {
      const weights = new Weights(
        new Map([
          ['m', randn(key(1, 'm'), 0, [8, 4])],
          ['v', randn(key(1, 'v'), 0, [5])],
        ]),
      );
      return { weights, optimizer: new Optimizer(weights, { ...OPTIONS, compute: 'float32', muon: new Map([['m', 1]]) }) };
    };
    const good = (n: number) => [randn(key(n, 'gm'), 0, [8, 4]), randn(key(n, 'gv'), 0, [5])];
    const [a, b] = [make(), make()];
    for (const { optimizer } of [a, b]) optimizer.update(good(1), rates(0.01));
    const before = values(a.weights.get('m'));
    const bad = good(2);
    noGrad(() => (bad[1] as Tensor).narrow(0, 2, 1).fill_(Number.NaN));
    const norm = a.optimizer.update(bad, rates(0.01));
    assert.ok(!Number.isFinite(Number(norm.item())));
    assert.deepEqual(values(a.weights.get('m')), before);
    for (const { optimizer } of [a, b]) optimizer.update(good(3), rates(0.01));
    for (const name of ['m', 'v']) assert.deepEqual(values(a.weights.get(name)), values(b.weights.get(name)), name);
  }));

test('an average warms up: its share of the weights is 1 - min(d, (1 + n) / (10 + n)), and moves it whether they move or not', () =>
  scope(() => {
    const weights = new Weights(new Map([['w', tensor(new Float32Array([0]), [1])]]));
    const [target, average] = [new Average(weights, 0.5), new Average(weights, 0.9)];
    const optimizer = new Optimizer(weights, OPTIONS, { target, average });
    noGrad(() => weights.get('w').fill_(1));
    const expected = [0, 0];
    for (let n = 0; n < 20; n++) {
      optimizer.update([n % 2 ? null : tensor([Number.NaN], [1])], rates(0.1, target.share(n), average.share(n)));
      for (const [i, decay] of [0.5, 0.9].entries())
        expected[i] = (expected[i] as number) + (1 - Math.min(decay, (1 + n) / (10 + n))) * (1 - (expected[i] as number));
      for (const [i, each] of [target, average].entries())
        assert.ok(Math.abs(Number(each.weights.get('w').item()) - (expected[i] as number)) < 1e-6);
    }
    assert.equal(Number(weights.get('w').item()), 1);
  }));

test('copies are what the weights and the target are, to the rounding of their type, and gradients of theirs are taken', () =>
  scope(() => {
    const make = (dtype: 'bfloat16' | 'float32') => {
      const weights = new Weights(
        new Map(['m', 'v', 'own'].map((name) => [name, randn(key(1, name), 0, name === 'm' ? [40, 24] : [19])] as const)),
      );
      const target = new Average(weights, 0.9);
      const names = dtype === 'bfloat16' ? ['m', 'v'] : [];
      const [copies, targetCopies] = [new Copies(weights, names, dtype), new Copies(target.weights, names, dtype)];
      const options = { ...OPTIONS, compute: 'bfloat16', muon: new Map([['m', 1]]) } as const;
      return { weights, target, copies, targetCopies, optimizer: new Optimizer(weights, options, { target, copies, targetCopies }) };
    };
    const [plain, narrow] = [make('float32'), make('bfloat16')];
    for (let n = 0; n < 3; n++) {
      for (const each of [plain, narrow]) {
        const gradients = each.copies.weights.list().map((w, i) =>
          randn(key(n, `g${i}`), 0, w.shape)
            .to({ dtype: 'bfloat16' })
            .to({ dtype: w.dtype }),
        );
        each.optimizer.update(gradients, rates(0.1, 0.5));
      }
    }
    for (const [name, weight] of plain.weights.tensors) assert.deepEqual(values(weight), values(narrow.weights.get(name)), name);
    for (const [of, copies] of [
      [narrow.weights, narrow.copies],
      [narrow.target.weights, narrow.targetCopies],
    ] as const) {
      const found = [...copies.tensors].map(([name, copy]) => [name, values(copy)]);
      assert.deepEqual(
        found,
        [...copies.tensors.keys()].map((name) => [name, values(of.get(name).to({ dtype: 'bfloat16' }))]),
      );
      assert.equal(copies.weights.get('own'), of.get('own'));
      noGrad(() => of.get('v').fill_(3));
      copies.refresh();
      assert.deepEqual(values(copies.weights.get('v')), new Array(19).fill(3));
    }
  }));
