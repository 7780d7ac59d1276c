import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UsageError } from '../../src/core/errors.js';
import { key } from '../../src/core/random.js';
import { fromPixels, generate, toPixels } from '../../src/dsd/generate.js';
import { Model } from '../../src/dsd/model.js';
import type { SamplerOptions } from '../../src/dsd/sampler.js';
import type { ModelConfig } from '../../src/dsd/sizes.js';
import { Weights } from '../../src/nn/weights.js';
import { arange, full, memory, noGrad, randn, scope, setThreads, type Tensor, tensor } from '../../src/torch/index.js';
import { liveTensors } from '../torch/live.js';
import { fixture, relative } from './oracle.js';

setThreads(1); // tensors this small gain nothing from more, and test files run side by side

const CONFIG: ModelConfig = {
  ...{
    width: 32,
    depth: 3,
    heads: 2,
    hidden: 24,
    image: 16,
    channels: 3,
    patch: 4,
    latent: 5,
    classes: 4,
    latentNorm: true,
    prototypes: 12,
  },
};
const OPTIONS: SamplerOptions = { solver: 'euler', steps: 6, guidance: 2, interval: [0.1, 1], shift: 0.71, target: 'clean' };

/** The oracle's cases: guidance scale and interval. */
const CASES = {
  clean: [
    ['guided', 1.5, [0.1, 1]],
    ['inner', 2, [0.3, 0.7]],
  ],
  velocity: [
    ['guided', 1.5, [0.1, 1]],
    ['plain', 1, [0.1, 1]],
  ],
} as const;

function oracleModel(): Model {
  const weights = fixture('weights');
  const online = weights.names.filter((name) => name.startsWith('online.'));
  return Model.of(CONFIG, new Weights(new Map(online.map((name) => [name.slice('online.'.length), weights.get(name)]))));
}

test("pictures are those of the oracle's samplers, decoded", () => {
  const oracle = fixture('samplers');
  const model = oracleModel();
  scope(() => {
    const [noise, labels] = [oracle.get('input.z'), oracle.get('input.y')];
    for (const solver of ['euler', 'heun'] as const)
      for (const target of ['clean', 'velocity'] as const)
        for (const [name, guidance, interval] of CASES[target]) {
          const options = { solver, target, guidance, interval, shift: 0.71, steps: solver === 'euler' ? 20 : 10 };
          const found = generate(model, model, { noise, labels, options });
          const wanted = noGrad(() => model.decode(oracle.get(`${solver}.${target}.${name}.z`)).clamp(-1, 1));
          assert.ok(relative(found, wanted) < 1e-9, `${solver} ${target} ${name}: ${relative(found, wanted)}`);
          if (target === 'clean' && name === 'guided')
            assert.ok(relative(found, oracle.get(`${solver}.clean.guided.decoded`).clamp(-1, 1)) < 1e-9);
        }
  });
});

test('memory is flat over the steps, and nothing is left but the pictures', async () => {
  const model = Model.init(CONFIG, 1, { device: 'cpu' });
  const noise = randn(key(1, 'sample'), 0, model.latentShape(3), { device: 'cpu' });
  const labels = arange(3, { dtype: 'int64' });
  for (const solver of ['euler', 'heun'] as const) {
    const before = await liveTensors();
    const seen: { pair: boolean; live: number }[] = [];
    const watched = {
      config: model.config,
      latentShape: (batch: number) => model.latentShape(batch),
      denoise: (z: Tensor, t: Tensor, y: Tensor) => {
        seen.push({ pair: z.shape[0] === 6, live: memory().live });
        return model.denoise(z, t, y);
      },
      decode: (z: Tensor) => model.decode(z),
    } as unknown as Model;
    const drawn = generate(watched, watched, { noise, labels, options: { ...OPTIONS, solver, steps: 12, interval: [0, 1] } });
    const pairs = seen.filter(({ pair }) => pair).map(({ live }) => live);
    assert.ok(pairs.length >= 11);
    assert.ok(Math.max(...pairs) - before <= 12, `${Math.max(...pairs) - before} tensors are held in a step`);
    assert.equal(pairs.at(-1), pairs[2], 'the last step holds what the third did');
    assert.equal(memory().live, before + 1, 'the pictures alone are left');
    assert.equal(noise.disposed, false);
    drawn.dispose();
  }
});

test('what a sample is depends on its number, not on its batch', () => {
  const model = Model.init(CONFIG, 2, { device: 'cpu', dtype: 'float64' });
  scope(() => {
    const draw = (first: number, count: number) => {
      const noise = randn(key(3, 'sample'), first, model.latentShape(count), { dtype: 'float64' });
      const labels = tensor(
        BigInt64Array.from({ length: count }, (_, i) => BigInt((first + i) % 4)),
        [count],
        { dtype: 'int64' },
      );
      return generate(model, model, { noise, labels, options: OPTIONS });
    };
    assert.ok(relative(draw(2, 3), draw(0, 5).narrow(0, 2, 3)) < 1e-12);
  });
});

test('pictures stay in [-1, 1] whatever the network gives', () => {
  const model = Model.init(CONFIG, 1, { device: 'cpu' });
  const noise = randn(key(1, 'sample'), 0, model.latentShape(1), { device: 'cpu' });
  for (const bias of [5, -5]) {
    model.weights.get('patch_out.bias').fill_(bias);
    const drawn = generate(model, model, { noise, labels: tensor(BigInt64Array.of(0n), [1], { dtype: 'int64' }), options: OPTIONS });
    assert.deepEqual(new Set(drawn.toArray() as Float32Array), new Set([Math.sign(bias)]));
    drawn.dispose();
  }
});

test('bad input is refused by name', () => {
  const model = Model.init(CONFIG, 1, { device: 'cpu' });
  const noise = randn(key(1, 'sample'), 0, model.latentShape(2), { device: 'cpu' });
  const labels = (...values: number[]) => tensor(BigInt64Array.from(values, BigInt), [values.length], { dtype: 'int64' });
  const refused = (message: RegExp, input: Partial<Parameters<typeof generate>[2]>) =>
    assert.throws(
      () => generate(model, model, { noise, labels: labels(0, 1), options: OPTIONS, ...input }),
      (error: Error) => error instanceof UsageError && message.test(error.message),
    );
  refused(/class 5 does not exist.*0 to 3, and 4 for none/, { labels: labels(0, 5) });
  refused(/class -1 does not exist/, { labels: labels(-1, 2) });
  refused(/one label a picture: \(2\), got \(3\)/, { labels: labels(0, 1, 2) });
  refused(/shape \(batch, 16, 5\), got \(2, 16, 4\)/, { noise: noise.narrow(2, 0, 4) });
  refused(/at least one step, got 0/, { options: { ...OPTIONS, steps: 0 } });
  generate(model, model, { noise, labels: labels(4, 4), options: OPTIONS }).dispose(); // none is a class like others
});

test('pixels and values are each other, and what lies beyond is clamped', () => {
  scope(() => {
    const pixels = arange(256, { dtype: 'int64' }).to({ dtype: 'uint8' });
    assert.deepEqual(toPixels(fromPixels(pixels)).toArray(), pixels.toArray());
    assert.deepEqual([...(fromPixels(tensor(Uint8Array.of(0, 255), [2], { dtype: 'uint8' })).toArray() as Float32Array)], [-1, 1]);
    assert.deepEqual([...(toPixels(full([1], 9)).toArray() as Uint8Array), ...(toPixels(full([1], -9)).toArray() as Uint8Array)], [255, 0]);
  });
});
