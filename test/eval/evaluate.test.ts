import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UsageError } from '../../src/core/errors.js';
import { integer, key } from '../../src/core/random.js';
import { MemorySource } from '../../src/data/source.js';
import { fromPixels } from '../../src/dsd/generate.js';
import { Model } from '../../src/dsd/model.js';
import type { ModelConfig } from '../../src/dsd/sizes.js';
import { Classifier, describe, FEATURES } from '../../src/eval/classifier.js';
import { type EvaluateInput, evaluate } from '../../src/eval/evaluate.js';
import { pcaPsnr } from '../../src/eval/pca.js';
import { spread } from '../../src/eval/pictures.js';
import { measureReconstruction } from '../../src/eval/reconstruction.js';
import { memory, scope, setThreads, type Tensor, tensor } from '../../src/torch/index.js';
import { liveTensors } from '../torch/live.js';

setThreads(1); // tensors this small gain nothing from more, and test files run side by side

const SIZE = 16;

/** Pictures of a bright square on noise, in the corner that is their class. */
function corners(count: number, seed: number, channels: 1 | 3 = 1): MemorySource {
  const each = SIZE * SIZE * channels;
  const pixels = new Uint8Array(count * each);
  const noise = key(seed, 'test');
  const labels = Array.from({ length: count }, (_, i) => integer(noise, i, each, 3));
  for (let i = 0; i < count; i++)
    for (let at = 0; at < each; at++) {
      const [row, column] = [Math.floor(at / channels / SIZE), Math.floor(at / channels) % SIZE];
      const bright = row < 8 === (labels[i] as number) < 2 && column < 8 === (labels[i] === 0);
      pixels[i * each + at] = (bright ? 160 : 20) + integer(noise, i, at, 60);
    }
  return new MemorySource(
    { name: `corners ${seed}`, size: SIZE, channels, classes: ['a', 'b', 'c'] },
    pixels,
    labels,
    (i) => `corner ${i}`,
  );
}

const MODEL: ModelConfig = {
  ...{
    width: 32,
    depth: 2,
    heads: 2,
    hidden: 32,
    image: SIZE,
    channels: 1,
    patch: 4,
    latent: 5,
    classes: 3,
    latentNorm: true,
    prototypes: 8,
  },
};

test('the classifier learns, gives the same for a seed, and judges each picture by itself', async () => {
  const [train, heldOut] = [corners(90, 1), corners(30, 2)];
  const before = await liveTensors();
  const options = { device: 'cpu', seed: 5, steps: 16, batch: 24 } as const;
  const steps: number[] = [];
  const classifier = await Classifier.train(train, { ...options, progress: (step) => steps.push(step) });
  assert.deepEqual(steps.at(-1), 16);
  const real = await describe(classifier, heldOut);
  assert.ok(real.accuracy > 0.9, `accuracy ${real.accuracy}`);
  assert.deepEqual(real.features.shape, [30, FEATURES]);

  const short = async (seed: number) => {
    const trained = await Classifier.train(train, { ...options, seed, steps: 2 });
    const { features } = await describe(trained, heldOut);
    const values = features.toArray();
    features.dispose();
    trained.dispose();
    return values;
  };
  const first = await short(5);
  assert.deepEqual(await short(5), first);
  assert.notDeepEqual(await short(6), first);

  scope(() => {
    const one = classifier.features(tensor(heldOut.peek(7), [1, SIZE, SIZE, 1], { dtype: 'uint8' })).toArray() as Float32Array;
    const row = real.features.select(0, 7).toArray() as Float32Array;
    for (const [i, value] of one.entries()) assert.ok(Math.abs(value - (row[i] as number)) < 1e-5);
    const labels = classifier.classify(tensor(heldOut.peek(7), [1, SIZE, SIZE, 1], { dtype: 'uint8' })).toArray() as BigInt64Array;
    assert.deepEqual([...labels], [BigInt(heldOut.label(7))]);
  });
  for (const thing of [classifier, real.features]) thing.dispose();
  assert.equal(memory().live, before, 'all is freed');
});

test('colour pictures are classified too, and one class is refused', async () => {
  const classifier = await Classifier.train(corners(8, 3, 3), { device: 'cpu', seed: 1, steps: 1, batch: 4 });
  const found = await describe(classifier, corners(5, 4, 3));
  assert.equal(found.features.shape[0], 5);
  const single = new MemorySource({ name: 'one', size: 4, channels: 1, classes: ['only'] }, new Uint8Array(16), [0], () => 'x');
  await assert.rejects(
    Classifier.train(single, { device: 'cpu', seed: 1 }),
    (error: Error) => error instanceof UsageError && /at least two classes, and one has 1/.test(error.message),
  );
  classifier.dispose();
  found.features.dispose();
});

test('PCA of all components is exact up to rounding, and more components are better', async () => {
  const [train, heldOut] = [corners(40, 5), corners(10, 6)];
  const of = (components: number) => pcaPsnr(train, heldOut, { patch: 4, components });
  const [one, five, all] = [await of(1), await of(5), await of(16)];
  assert.ok(one < five && five < 60 && all > 120, `${one} ${five} ${all}`);
  await assert.rejects(of(17), UsageError);
  await assert.rejects(pcaPsnr(train, heldOut, { patch: 5, components: 2 }), UsageError);
});

const input = (changes: Partial<EvaluateInput> = {}): EvaluateInput => {
  const model = Model.init(MODEL, 1, { device: 'cpu' });
  return {
    ...{ denoiser: model, coder: model, weights: 'average', data: { train: corners(40, 1), heldOut: corners(30, 2) } },
    sampler: { solver: 'euler', steps: 3, interval: [0.1, 1], shift: 0.71, target: 'clean' },
    ...{
      guidances: [1, 2],
      count: 20,
      batch: 8,
      device: 'cpu',
      dtype: 'float32',
      seed: 9,
      labels: 'balanced',
      classifier: { steps: 4, batch: 16 },
    },
    ...changes,
  };
};

test('an evaluation gives every figure with its protocol, and frees what it made', async () => {
  const asked = input();
  const before = await liveTensors();
  const drawn = new Map<number, number[][]>();
  const stages = new Set<string>();
  const report = await evaluate({
    ...asked,
    progress: (stage) => stages.add(stage),
    onSamples: (guidance, first, pixels, labels) => {
      assert.equal(pixels.length, labels.length * SIZE * SIZE);
      drawn.set(guidance, [...(drawn.get(guidance) ?? []), [first, ...labels]]);
    },
  });
  assert.equal(memory().live, before);
  assert.deepEqual(
    drawn.get(2),
    [
      [0, 0, 1, 2, 0, 1, 2, 0, 1],
      [8, 2, 0, 1, 2, 0, 1, 2, 0],
      [16, 1, 2, 0, 1],
    ],
    'labels are balanced',
  );
  assert.deepEqual(drawn.get(1), drawn.get(2));
  assert.deepEqual([...stages].sort(), ['classifier', 'reconstruction', 'reference', 'samples']);

  assert.deepEqual(
    report.samples.map(({ guidance, count }) => [guidance, count]),
    [
      [1, 20],
      [2, 20],
    ],
  );
  for (const scores of report.samples)
    for (const value of [scores.accuracy, scores.precision, scores.recall]) assert.ok((value as number) >= 0 && (value as number) <= 1);
  const untrained = (report.samples[0]?.frechet ?? 0) / report.floor.frechet;
  assert.ok(untrained > 3, `samples of an untrained model are far from real ones, beside ${report.floor.frechet}: ${untrained} times`);
  assert.ok(
    Number.isFinite(report.reconstruction.psnr) && report.pcaPsnr > report.reconstruction.psnr,
    'an untrained model does not reach PCA',
  );
  assert.equal(report.reconstruction.pictures, 30);
  assert.ok(report.reconstruction.latent.effectiveRank > 1 && report.reconstruction.latent.effectiveRank <= 4.0001);
  assert.equal(report.reconstruction.latent.tokens, 30 * 16);
  assert.equal(report.floor.count, 20);
  const { protocol } = report;
  assert.equal(protocol.frechet.startsWith('FD-classifier'), true);
  assert.deepEqual(
    [protocol.samples, protocol.seed, protocol.reference, protocol.extractor.steps],
    [20, 9, { source: 'corners 2', count: 30 }, 4],
  );
  assert.match(report.warnings.join(), /20 pictures for 256 features/);
  assert.equal(JSON.stringify(report).includes('null'), false, 'all of it can be saved as JSON');
});

test('samples that are pictures of the class asked for score well, and those of another class do not', async () => {
  const asked = input({ guidances: [1, 1], count: 30, batch: 30, classifier: { steps: 30, batch: 24 } });
  const { heldOut } = asked.data;
  const shown = (label: number) =>
    heldOut.peek(Array.from({ length: 30 }, (_, i) => i).find((i) => heldOut.label(i) === label) as number) as Uint8Array;
  // A model that has learnt one picture of each class by heart, and in the second set takes each class for the next.
  let turn = 0;
  let wanted: number[] | undefined;
  const rote: Model = Object.create(asked.denoiser, {
    denoise: {
      value: (z: Tensor, _t: Tensor, y: Tensor) => {
        wanted = [...(y.toArray() as BigInt64Array)].map((label) => (Number(label) + turn) % 3);
        return { prediction: z.mul(0.5) };
      },
    },
    decode: {
      value: (z: Tensor) => {
        if (!wanted) return asked.denoiser.decode(z);
        return fromPixels(tensor(Buffer.concat(wanted.map(shown)), [wanted.length, SIZE, SIZE, 1], { dtype: 'uint8' }));
      },
    },
  });
  const report = await evaluate({ ...asked, denoiser: rote, coder: rote, onSamples: () => void turn++ });
  const [right, wrong] = report.samples;
  assert.ok((right?.accuracy as number) > 0.9 && report.realAccuracy > 0.9, `${right?.accuracy} ${report.realAccuracy}`);
  assert.ok((wrong?.accuracy as number) < 0.1, `${wrong?.accuracy}`);
  assert.equal(right?.precision, 1);
  assert.ok((right?.recall as number) < 0.2, 'three pictures cover little, however right they are');
});

test('the latent before its norm is measured apart', async () => {
  const model = Model.init(MODEL, 4, { device: 'cpu' });
  const [source, options] = [corners(10, 7), { device: 'cpu', dtype: 'float32', batch: 4 } as const];
  const before = await measureReconstruction(model, source, options);
  model.weights.get('latent_out.weight').mul_(3);
  const after = await measureReconstruction(model, source, options);
  assert.ok(Math.abs(after.rawLatent.deviation / before.rawLatent.deviation - 3) < 1e-3);
  assert.ok(Math.abs(after.latent.deviation / before.latent.deviation - 1) < 1e-2);
  assert.ok(Math.abs(after.psnr - before.psnr) < 0.1);
  const three = await measureReconstruction(model, source, { ...options, count: 3 });
  assert.deepEqual([three.pictures, three.latent.tokens], [3, 48]);
});

test('the batch changes nothing but rounding', async () => {
  const asked = input({ guidances: [2] });
  const collect = async (batch: number) => {
    const parts: Uint8Array[] = [];
    await evaluate({ ...asked, batch, onSamples: (_guidance, _first, pixels) => parts.push(pixels.slice()) });
    return Buffer.concat(parts);
  };
  const [a, b] = [await collect(20), await collect(7)];
  assert.equal(a.length, b.length);
  for (const [i, value] of a.entries()) assert.ok(Math.abs(value - (b[i] as number)) <= 1);
});

test('a model without labels is sampled with the null class and has no accuracy', async () => {
  const labels: number[] = [];
  const report = await evaluate(
    input({ labels: 'none', guidances: [1], count: 8, onSamples: (_g, _f, _p, given) => labels.push(...given) }),
  );
  assert.deepEqual(labels, Array(8).fill(3));
  assert.equal(report.samples[0]?.accuracy, undefined);
  await assert.rejects(evaluate(input({ labels: 'none', guidances: [2] })), UsageError);
});

test('what does not fit is refused before any work', async () => {
  const refused = (message: RegExp, changes: Partial<EvaluateInput>) =>
    assert.rejects(
      evaluate(input({ ...changes, progress: () => assert.fail('it worked') })),
      (error: Error) => error instanceof UsageError && message.test(error.message),
    );
  await refused(/made for pictures of 16 px with 1 channels, and corners 2 has 16 px with 3/, {
    data: { train: corners(4, 1, 3), heldOut: corners(4, 2, 3) },
  });
  const other = Model.init({ ...MODEL, classes: 4 }, 1, { device: 'cpu' });
  await refused(/knows 4 classes, and corners 2 has 3/, { denoiser: other, coder: other });
  await refused(/more than 3 samples, got 3/, { count: 3 });
  await refused(/whole number from 1, got 0/, { batch: 0 });
});

test('an evaluation that is stopped frees what it made', async () => {
  const asked = input();
  const before = await liveTensors();
  for (const stopped of ['classifier', 'reference', 'reconstruction', 'samples']) {
    const failing = evaluate({
      ...asked,
      progress: (stage) => {
        if (stage === stopped) throw new Error('stop');
      },
    });
    await assert.rejects(failing, /stop/);
    assert.equal(memory().live, before, stopped);
  }
});

test('a part of a source is spread over it', () => {
  assert.deepEqual(spread(10, 10), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assert.deepEqual(spread(10, 4), [0, 2, 5, 7]);
  assert.equal(new Set(spread(1787, 1000)).size, 1000);
});
