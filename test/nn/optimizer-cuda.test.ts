/** The optimizer on CUDA against the CPU: the norm, each pass, and whole steps with averages and copies. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { key } from '../../src/core/random.js';
import { Average, Optimizer } from '../../src/nn/optimizer.js';
import { Copies, Weights } from '../../src/nn/weights.js';
import {
  cudaAvailable,
  type Device,
  type DType,
  gradNorm,
  muonDirection,
  noGrad,
  quintic_,
  randn,
  scope,
  stepNumbers,
  type Tensor,
  tensor,
  zeros,
} from '../../src/torch/index.js';

const values = (t: Tensor): number[] => Array.from(t.detach().to({ dtype: 'float32' }).toArray() as Float32Array);

function near(found: Tensor, wanted: Tensor, tolerance: number, what: string): void {
  const [a, b] = [values(found), values(wanted)];
  assert.equal(a.length, b.length);
  const length = (of: number[]) => Math.sqrt(of.reduce((sum, x) => sum + x * x, 0));
  const distance = length(a.map((x, i) => x - (b[i] as number)));
  assert.ok(distance <= tolerance * Math.max(1e-30, length(b)), `${what}: ${distance} from ${length(b)}`);
}

const OPTIONS = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clip: 1 };
/** Matrices, tall and wide ones, and a stack of three; a long vector, odd ones, and one without gradient. */
const SHAPES: Record<string, number[]> = {
  'm.square': [3 * 64, 64],
  'm.square2': [64, 64],
  'm.wide': [48, 130],
  'm.tall': [257, 96],
  long: [100_003],
  odd: [7, 3],
  one: [1],
  none: [33],
};
const MUON = new Map([
  ['m.square', 3],
  ['m.square2', 1],
  ['m.wide', 1],
  ['m.tall', 1],
]);

function network(device: Device, compute: DType, muon: ReadonlyMap<string, number>) {
  const weights = new Weights(new Map(Object.entries(SHAPES).map(([name, shape]) => [name, randn(key(1, name), 0, shape).to({ device })])));
  const [target, average] = [new Average(weights, 0.9), new Average(weights, 0.99)];
  const names = compute === 'float32' ? [] : [...MUON.keys(), 'odd', 'long'];
  const [copies, targetCopies] = [new Copies(weights, names, compute), new Copies(target.weights, names, compute)];
  const optimizer = new Optimizer(weights, { ...OPTIONS, muon, compute }, { target, average, copies, targetCopies });
  const step = (n: number, bad = false): Tensor =>
    scope(() => {
      const gradients = Object.entries(SHAPES).map(([name, shape]) => {
        if (name === 'none') return null;
        const own = randn(key(100 + n, name), 0, shape).to({ dtype: copies.tensors.has(name) ? compute : 'float32' });
        if (bad && name === 'odd') noGrad(() => own.view(-1).narrow(0, 3, 1).fill_(Number.NaN));
        return own.to({ device });
      });
      return optimizer.update(gradients, tensor(new Float64Array([0.02, target.share(n), average.share(n)]), [3], { device }));
    });
  const state = new Map([
    ...[...weights.tensors].map(([name, t]) => [`weight ${name}`, t] as const),
    ...[...target.weights.tensors].map(([name, t]) => [`target ${name}`, t] as const),
    ...[...average.weights.tensors].map(([name, t]) => [`average ${name}`, t] as const),
    ...optimizer.state(),
  ]);
  return { step, state, copies, targetCopies, weights, target };
}

describe('the optimizer on CUDA', { skip: cudaAvailable() ? false : 'no CUDA device' }, () => {
  for (const muon of [new Map<string, number>(), MUON]) {
    for (const compute of ['float32', 'bfloat16'] as const) {
      test(`steps with ${muon.size ? 'Muon' : 'AdamW'} in ${compute} are the CPU's`, () =>
        scope(() => {
          const [cpu, cuda] = [network('cpu', compute, muon), network('cuda', compute, muon)];
          for (let n = 0; n < 4; n++) near(cuda.step(n), cpu.step(n), 1e-6, `norm ${n}`);
          // Matrices are multiplied in float32 or bfloat16, in another order; all else is element by element.
          for (const [name, wanted] of cpu.state) {
            const product = muon.size > 0 && name.includes('m.') && !name.startsWith('momentum');
            near(cuda.state.get(name) as Tensor, wanted, product ? (compute === 'float32' ? 1e-4 : 2e-2) : 2e-6, name);
          }
          for (const [of, copies] of [
            [cuda.weights, cuda.copies],
            [cuda.target.weights, cuda.targetCopies],
          ] as const)
            for (const [name, copy] of copies.tensors) assert.deepEqual(values(copy), values(of.get(name).to({ dtype: compute })), name);

          // Of a gradient that is not finite, only the averages move.
          const before = new Map([...cuda.state].map(([name, t]) => [name, values(t)]));
          assert.ok(Number.isNaN(Number(cuda.step(4, true).item())));
          for (const [name, t] of cuda.state) if (!/^(target|average)/.test(name)) assert.deepEqual(values(t), before.get(name), name);
          cpu.step(4, true);
          near(cuda.state.get('target long') as Tensor, cpu.state.get('target long') as Tensor, 2e-6, 'target after a skipped step');
        }));

      test(`the same steps give the same bits, ${muon.size ? 'Muon' : 'AdamW'} in ${compute}`, () =>
        scope(() => {
          const runs = [0, 1].map(() => {
            const made = network('cuda', compute, muon);
            for (let n = 0; n < 3; n++) made.step(n);
            return [...made.state].map(([name, t]) => [name, values(t)]);
          });
          assert.deepEqual(runs[0], runs[1]);
        }));
    }
  }

  test('gradNorm: many tensors, odd sizes, views, both types', () =>
    scope(() => {
      const sizes = Array.from({ length: 400 }, (_, i) => 1 + ((i * 7919) % 40_009));
      const cpu = sizes.map((size, i) => randn(key(i, 'g'), 0, [size]).to({ dtype: i % 2 ? 'bfloat16' : 'float32' }));
      const cuda = cpu.map((g) => g.to({ device: 'cuda' }));
      near(gradNorm(cuda), gradNorm(cpu), 1e-6, 'norm');
      assert.equal(gradNorm(cuda).item(), gradNorm(cuda).item());
      const turned = (g: Tensor) => g.narrow(0, 1, 600).view(20, 30).transpose(0, 1);
      const long = cpu.findIndex((g) => g.numel > 700);
      near(gradNorm([turned(cuda[long] as Tensor)]), gradNorm([turned(cpu[long] as Tensor)]), 1e-6, 'view');
    }));

  for (const [narrow, tolerance] of [
    ['float32', 1e-6],
    ['bfloat16', 4e-3],
  ] as const) {
    test(`muonDirection and quintic_ in ${narrow}`, () =>
      scope(() => {
        for (const [M, r, q] of [
          [300, 8, 12],
          [3, 129, 67],
          [2, 256, 1024],
        ] as const) {
          const run = (device: Device) => {
            const gradients = [1, M - 1].map((count, i) => randn(key(i, 'g'), 0, [count * r, q]).to({ dtype: narrow, device }));
            const momentum = randn(key(2, 'm'), 0, [M, r, q]).to({ device });
            const rates = tensor(new Float64Array([0.1, 0, 0]), [3], { device });
            const numbers = stepNumbers(gradNorm(gradients), zeros([], { device }), rates, OPTIONS);
            return [muonDirection(gradients, momentum, numbers, 0.95, narrow), momentum] as const;
          };
          const [cpu, cuda] = [run('cpu'), run('cuda')];
          near(cuda[0], cpu[0], tolerance, `direction ${[M, r, q]}`);
          near(cuda[1], cpu[1], 1e-6, `momentum ${[M, r, q]}`);
        }
        for (const k of [1, 45, 128, 768]) {
          const [x, square] = [0, 1].map((i) => randn(key(i, 'x'), 0, [3, k, k]).to({ dtype: narrow })) as [Tensor, Tensor];
          const [cudaX, cudaSquare] = [x.to({ device: 'cuda' }), square.to({ device: 'cuda' })];
          quintic_(square, x, 3.5, -4.75, 2);
          quintic_(cudaSquare, cudaX, 3.5, -4.75, 2);
          near(cudaSquare, square, tolerance, `quintic ${k}`);
        }
      }));
  }
});
