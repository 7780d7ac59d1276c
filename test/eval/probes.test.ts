import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FailureError, UsageError } from '../../src/core/errors.js';
import { integer, key, normal } from '../../src/core/random.js';
import { MemorySource } from '../../src/data/source.js';
import { Model } from '../../src/dsd/model.js';
import { evaluateEncoder } from '../../src/eval/encoder.js';
import { classify, fitLogistic } from '../../src/eval/logistic.js';
import { nearestClasses, type ProbeInput, probe } from '../../src/eval/probes.js';
import { memory, scope, setThreads, type Tensor, tensor } from '../../src/torch/index.js';
import { liveTensors } from '../torch/live.js';

setThreads(1);

const rows = (values: readonly (readonly number[])[]): Tensor =>
  tensor(Float64Array.from(values.flat()), [values.length, values[0]!.length], { dtype: 'float64' });

/** Mean cross-entropy and penalty at (D + 1, K) weights, in plain numbers. */
function loss(x: readonly (readonly number[])[], labels: readonly number[], w: ArrayLike<number>, K: number, penalty: number): number {
  const D = x[0]!.length;
  let sum = 0;
  for (const [i, row] of x.entries()) {
    const logits = Array.from({ length: K }, (_, k) => row.reduce((total, value, d) => total + value * w[d * K + k]!, w[D * K + k]!));
    sum += Math.log(logits.reduce((total, value) => total + Math.exp(value), 0)) - logits[labels[i]!]!;
  }
  let squares = 0;
  for (let i = 0; i < D * K; i++) squares += w[i]! ** 2;
  return sum / x.length + (penalty / 2) * squares;
}

test('the fit is the lowest point: nothing near is lower, and its gradient is 0', () => {
  const random = key(3, 'test');
  const x = Array.from({ length: 60 }, (_, i) => Array.from({ length: 4 }, (_, d) => normal(random, i, d) + (d === i % 3 ? 1 : 0)));
  const labels = x.map((_, i) => (integer(random, i, 99, 5) === 0 ? integer(random, i, 100, 3) : i % 3));
  scope(() => {
    const options = { penalty: 1e-2, tolerance: 1e-9 };
    const { weights, steps, gradient } = fitLogistic(rows(x), labels, 3, options);
    assert.ok(gradient < 1e-9 && steps < 100, `${gradient} after ${steps} steps`);
    const found = weights.toArray() as Float64Array;
    const least = loss(x, labels, found, 3, 1e-2);
    for (let i = 0; i < found.length; i++)
      for (const by of [-1e-3, 1e-3])
        assert.ok(
          loss(
            x,
            labels,
            found.map((value, j) => (i === j ? value + by : value)),
            3,
            1e-2,
          ) > least,
          `${i}`,
        );
    assert.deepEqual(fitLogistic(rows(x), labels, 3, options).weights.toArray(), found, 'the same again');
    const share = classify(weights, rows(x)).filter((label, i) => label === labels[i]).length / 60;
    assert.ok(share > 0.5, `${share}`);
    assert.ok(gradientEnds(x, labels) > 1e-9, 'it ends where it is told to');
    assert.throws(() => fitLogistic(rows([[Number.NaN], [1]]), [0, 1], 2, options), FailureError);
  });
});

const gradientEnds = (x: readonly (readonly number[])[], labels: readonly number[]): number =>
  fitLogistic(rows(x), labels, 3, { penalty: 1e-2, steps: 2 }).gradient;

test('neighbours are by angle, of most the class, of equals the nearer', () => {
  scope(() => {
    const known = rows([
      [1, 0],
      [0.9, 0.1],
      [0, 5],
      [0.1, 7],
      [-1, 0],
    ]);
    const labels = [0, 0, 1, 1, 2];
    assert.deepEqual(
      nearestClasses(
        known,
        labels,
        rows([
          [100, 1],
          [0.001, 0.1],
          [-3, 0.1],
        ]),
        1,
        3,
      ),
      [0, 1, 2],
    );
    assert.deepEqual(nearestClasses(known, labels, rows([[-1, 1]]), 3, 3), [1], 'two of 1 against the one nearest, of 2');
    assert.deepEqual(nearestClasses(known, labels, rows([[2, 1.9]]), 4, 3), [0], 'two of each: the nearer ones');
  });
});

test('many known rows are looked at piece by piece', () => {
  const random = key(5, 'test');
  const known = Array.from({ length: 4200 }, (_, i) => [normal(random, i, 0), normal(random, i, 1), normal(random, i, 2)]);
  const labels = known.map((_, i) => i % 7);
  const asked = known.slice(0, 9).map((row, i) => row.map((value, d) => value + 0.3 * normal(random, 5000 + i, d)));
  const cosine = (a: readonly number[], b: readonly number[]): number =>
    a.reduce((sum, value, d) => sum + value * b[d]!, 0) / Math.hypot(...a) / Math.hypot(...b);
  const wanted = asked.map((row) => {
    const near = known
      .map((other, i) => [cosine(row, other), labels[i]!] as const)
      .sort(([a], [b]) => b - a)
      .slice(0, 20);
    const votes = Array.from({ length: 7 }, (_, k) =>
      near.filter(([, label]) => label === k).reduce((sum, [similar]) => sum + 1 + similar / 80, 0),
    );
    return votes.indexOf(Math.max(...votes));
  });
  scope(() => assert.deepEqual(nearestClasses(rows(known), labels, rows(asked), 20, 7), wanted));
});

const MODEL = {
  width: 32,
  depth: 2,
  heads: 2,
  hidden: 32,
  image: 16,
  channels: 3,
  patch: 4,
  latent: 5,
  classes: 2,
  latentNorm: true,
  prototypes: 8,
} as const;

/** Reddish or bluish noise: even an untrained encoder lets colours through. */
function colours(count: number, seed: number, names: readonly string[] = ['red', 'blue', 'green']): MemorySource {
  const random = key(seed, 'test');
  const labels = Array.from({ length: count }, (_, i) => (i % 4 === 0 ? 1 : 0));
  const pixels = Uint8Array.from({ length: count * 768 }, (_, at) => {
    const [i, c] = [Math.floor(at / 768), at % 3];
    return integer(random, i, at % 768, 100) + (c === (labels[i] === 0 ? 0 : 2) ? 150 : 0);
  });
  return new MemorySource({ name: `colours ${seed}`, size: 16, channels: 3, classes: names }, pixels, labels, (i) => `${i}`);
}

test('a probe finds what an encoder lets through, says by what protocol, and frees what it made', async () => {
  const coder = Model.init(MODEL, 1, { device: 'cpu' });
  const input: ProbeInput = {
    ...{ coder, data: { train: colours(60, 1), heldOut: colours(40, 2) }, device: 'cpu', dtype: 'float32', batch: 16, most: 50 },
  };
  const before = await liveTensors();
  const seen = new Set<string>();
  const found = await probe({ ...input, progress: (stage) => seen.add(stage) });
  assert.equal(memory().live, before);
  assert.ok(found.nearest > 0.95 && found.linear > 0.95, `${found.nearest} ${found.linear}`);
  assert.equal(found.blind, 0.75);
  assert.deepEqual(
    [found.protocol.train, found.protocol.heldOut, found.protocol.nearest.k, found.protocol.dimension],
    [{ source: 'colours 1', count: 50 }, { source: 'colours 2', count: 40 }, 20, 32],
  );
  assert.deepEqual([...seen], ['encoding', 'probe']);
  assert.deepEqual(await probe(input), found, 'the same again');

  coder.weights.get('patch_in.weight').zero_();
  const nothing = await probe(input);
  assert.deepEqual([nothing.nearest, nothing.linear], [0.75, 0.75], 'an encoder that sees nothing is as good as none');
  await assert.rejects(probe({ ...input, data: { train: colours(8, 1, ['one']), heldOut: colours(8, 2) } }), UsageError);
  coder.weights.get('patch_in.bias').fill_(Number.NaN);
  await assert.rejects(probe(input), /features of the training pictures holds values that are not finite/);
  await assert.rejects(probe({ ...input, progress: () => assert.fail('stop') }), /stop/);
  assert.equal(memory().live, before);
});

test('an encoder without a decoder is measured by its latent and probed, by a stated protocol', async () => {
  const coder = Model.init(MODEL, 1, { device: 'cpu' });
  const data = { train: colours(60, 1), heldOut: colours(40, 2) };
  const input = { coder, data, weights: 'average', device: 'cpu', dtype: 'float32', batch: 16, measured: 30 } as const;
  const before = await liveTensors();
  const seen = new Set<string>();
  const found = await evaluateEncoder({ ...input, probed: 50, progress: (stage) => seen.add(stage) });
  assert.equal(memory().live, before);
  assert.deepEqual([...seen], ['latents', 'encoding', 'probe']);
  assert.deepEqual(found.probes, await probe({ ...input, most: 50 }));
  assert.deepEqual([found.mostRank, found.latent.tokens], [4, 30 * 16]);
  assert.ok(found.latent.effectiveRank > 1 && found.latent.effectiveRank < 4.0001, `${found.latent.effectiveRank}`);
  assert.notEqual(found.rawLatent.deviation, found.latent.deviation);
  assert.deepEqual(found.protocol.latent, { source: 'colours 2', count: 30 });
  const { latent } = await evaluateEncoder({ ...input, batch: 7 });
  assert.ok(Math.abs(latent.effectiveRank - found.latent.effectiveRank) < 1e-5, 'whatever the batch');
  assert.equal((await evaluateEncoder(input)).probes, undefined);
  const grey = new MemorySource({ name: 'grey', size: 16, channels: 1, classes: ['a', 'b'] }, new Uint8Array(512), [0, 1], () => 'x');
  await assert.rejects(evaluateEncoder({ ...input, data: { train: grey, heldOut: grey } }), /3 channels, and grey has 16 px with 1/);
});
