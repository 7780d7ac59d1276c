import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { FailureError, UsageError } from '../../src/core/errors.js';
import { integer, key } from '../../src/core/random.js';
import type { Picture } from '../../src/data/picture.js';
import { MemorySource } from '../../src/data/source.js';
import { fromPixels } from '../../src/dsd/generate.js';
import { Model } from '../../src/dsd/model.js';
import type { ModelConfig } from '../../src/dsd/sizes.js';
import { Classifier, FEATURES } from '../../src/eval/classifier.js';
import { describe } from '../../src/eval/describe.js';
import { type EvaluateInput, type EvaluationReport, evaluate, judgePictures } from '../../src/eval/evaluate.js';
import { ofClassifier } from '../../src/eval/extractors.js';
import { pcaPsnr } from '../../src/eval/pca.js';
import { spread } from '../../src/eval/pictures.js';
import { measureReconstruction } from '../../src/eval/reconstruction.js';
import { ofSource } from '../../src/eval/sets.js';
import { readSafetensors, writeSafetensors } from '../../src/io/safetensors.js';
import { memory, scope, setThreads, type Tensor, tensor } from '../../src/torch/index.js';
import { workplace } from '../cli/harness.js';
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
  const pooled = async (judge: Classifier, source: MemorySource): Promise<Tensor> => {
    const all = spread(source.length, source.length);
    const [found] = await describe(ofSource(source, all), [ofClassifier(judge)], { device: 'cpu', batch: 7 });
    return found!.pooled;
  };
  const real = await pooled(classifier, heldOut);
  const found = scope(() => classifier.labelsOf(real).toArray());
  const accuracy = [...found].filter((label, i) => Number(label) === heldOut.label(i)).length / 30;
  assert.ok(accuracy > 0.9, `accuracy ${accuracy}`);
  assert.deepEqual(real.shape, [30, FEATURES]);

  const short = async (seed: number) => {
    const trained = await Classifier.train(train, { ...options, seed, steps: 2 });
    const features = await pooled(trained, heldOut);
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
    const row = real.select(0, 7).toArray() as Float32Array;
    for (const [i, value] of one.entries()) assert.ok(Math.abs(value - (row[i] as number)) < 1e-5);
    const labels = classifier.classify(tensor(heldOut.peek(7), [1, SIZE, SIZE, 1], { dtype: 'uint8' })).toArray() as BigInt64Array;
    assert.deepEqual([...labels], [BigInt(heldOut.label(7))]);
  });
  for (const thing of [classifier, real]) thing.dispose();
  assert.equal(memory().live, before, 'all is freed');
});

test('colour pictures are classified too, and one class is refused', async () => {
  const classifier = await Classifier.train(corners(8, 3, 3), { device: 'cpu', seed: 1, steps: 1, batch: 4 });
  const [found] = await describe(ofSource(corners(5, 4, 3), [0, 2, 4]), [ofClassifier(classifier)], { device: 'cpu' });
  assert.equal(found?.pooled.shape[0], 3);
  const single = new MemorySource({ name: 'one', size: 4, channels: 1, classes: ['only'] }, new Uint8Array(16), [0], () => 'x');
  await assert.rejects(
    Classifier.train(single, { device: 'cpu', seed: 1 }),
    (error: Error) => error instanceof UsageError && /at least two classes, and one has 1/.test(error.message),
  );
  classifier.dispose();
  found?.pooled.dispose();
});

test('PCA of all components is exact up to rounding, and more components are better', async () => {
  const [train, heldOut] = [corners(40, 5), corners(10, 6)];
  const of = (components: number) => pcaPsnr(train, heldOut, { patch: 4, components });
  const [one, five, all] = [await of(1), await of(5), await of(16)];
  assert.ok(one < five && five < 60 && all > 120, `${one} ${five} ${all}`);
  await assert.rejects(of(17), UsageError);
  await assert.rejects(pcaPsnr(train, heldOut, { patch: 5, components: 2 }), UsageError);
});

const SAMPLER = { solver: 'euler', steps: 3, interval: [0.1, 1], shift: 0.71, target: 'clean', guidance: 1 } as const;
const guided = (...scales: number[]) => scales.map((guidance) => ({ ...SAMPLER, guidance }));

const input = (changes: Partial<EvaluateInput> = {}): EvaluateInput => {
  const model = Model.init(MODEL, 1, { device: 'cpu' });
  return {
    ...{ denoiser: model, coder: model, weights: 'average', data: { train: corners(40, 1), heldOut: corners(30, 2) } },
    ...{ settings: guided(1, 2), features: ['classifier'], files: [], against: 'held-out', real: 100 },
    ...{ count: 20, batch: 8, device: 'cpu', dtype: 'float32', seed: 9, labels: 'balanced', classifier: { steps: 4, batch: 16 } },
    ...changes,
  };
};
const first = (report: EvaluationReport, set = 0) => report.samples[set]!.distances[0]!;

test('an evaluation gives every figure with its protocol, and frees what it made', async () => {
  const asked = input();
  const before = await liveTensors();
  const seen: number[][] = [];
  const stages = new Set<string>();
  const shown: Picture[] = [];
  const report = await evaluate({
    ...asked,
    probed: 25,
    neighbours: { shown: 4, searched: 40, write: async (picture) => void shown.push(picture) },
    progress: (stage) => stages.add(stage),
    onSamples: (set, at, pixels) => {
      assert.deepEqual(pixels.shape.slice(1), [SIZE, SIZE, 1]);
      seen.push([set, at, pixels.shape[0] as number]);
    },
  });
  assert.equal(memory().live, before);
  const pieces = [
    [0, 8],
    [8, 8],
    [16, 4],
  ];
  assert.deepEqual(
    seen,
    [0, 1].flatMap((set) => pieces.map((piece) => [set, ...piece])),
  );
  assert.deepEqual(
    [...stages],
    ['classifier', 'training', 'reference', 'encoding', 'probe', 'reconstruction', 'components', 'samples'],
    'the floor is of training pictures that were described',
  );

  assert.deepEqual(
    report.samples.map(({ sampler, count }) => [sampler.guidance, count]),
    [
      [1, 20],
      [2, 20],
    ],
  );
  for (const { accuracy, distances } of report.samples) {
    const [only] = distances;
    for (const value of [accuracy, only?.precision, only?.recall]) assert.ok((value as number) >= 0 && (value as number) <= 1);
    assert.deepEqual([only?.extractor, only?.name, only?.kid?.size], ['classifier', 'FD-classifier', 20]);
    assert.deepEqual([only?.spatialFrechet, only?.inceptionScore], [undefined, undefined], 'it has no such features');
  }
  const floor = report.floor![0]!;
  const untrained = first(report).frechet / floor.frechet;
  assert.ok(untrained > 3, `samples of an untrained model are far from real ones, beside ${floor.frechet}: ${untrained} times`);
  assert.ok((first(report).kid?.mean as number) > (floor.kid?.mean as number));
  const { reconstruction } = report;
  assert.ok(Number.isFinite(reconstruction.psnr) && reconstruction.pcaPsnr > reconstruction.psnr, 'an untrained model does not reach PCA');
  assert.ok((reconstruction.ssim as number) > -1 && (reconstruction.ssim as number) < 0.5);
  assert.deepEqual(
    reconstruction.frechet.map(({ name }) => name),
    ['FD-classifier'],
  );
  assert.ok((reconstruction.frechet[0]?.frechet as number) > floor.frechet);
  assert.equal(reconstruction.pictures, 30);
  assert.ok(reconstruction.latent.effectiveRank > 1 && reconstruction.latent.effectiveRank <= 4.0001);
  assert.equal(reconstruction.latent.tokens, 30 * 16);
  assert.equal(floor.count, 20);
  assert.deepEqual([report.probes?.protocol.train.count, report.probes?.protocol.heldOut.count], [25, 25]);
  assert.deepEqual([shown.length, report.neighbours?.samples.length, report.neighbours?.searched.count], [1, 4, 40]);
  const { protocol } = report;
  const [judge] = protocol.judges;
  assert.deepEqual(
    [protocol.samples, protocol.seed, judge?.reference, judge?.floor, protocol.classifier?.steps],
    [20, 9, { source: 'corners 2', count: 30 }, { source: 'corners 1', count: 20 }, 4],
  );
  assert.match(report.warnings.join(), /^FD-classifier: 20 pictures for 256 features/);
  assert.equal(JSON.stringify(report).includes('null'), false, 'all of it can be saved as JSON');
});

test('samplers of several settings in bfloat16 leave nothing behind', async () => {
  const asked = input({ dtype: 'bfloat16', settings: guided(1, 1.5, 2) });
  const before = await liveTensors();
  await evaluate(asked);
  assert.equal(memory().live, before);
});

test('a classifier is kept in a file, and one of other settings is refused', async () => {
  const { folder, remove } = workplace();
  const file = join(folder, 'classifier.safetensors');
  const [train, heldOut] = [corners(20, 1), corners(6, 2)];
  const options = { device: 'cpu', seed: 5, steps: 2, batch: 8 } as const;
  const before = await liveTensors();
  const judged = async (classifier: Classifier): Promise<[unknown, unknown]> => {
    const [found] = await describe(ofSource(heldOut, spread(6, 6)), [ofClassifier(classifier)], { device: 'cpu' });
    const values = found?.pooled.toArray();
    const labels = scope(() => classifier.labelsOf(found?.pooled as Tensor).toArray());
    for (const thing of [found?.pooled, classifier]) thing?.dispose();
    return [values, labels];
  };
  try {
    const first = await judged(await Classifier.kept(file, train, options));
    let steps = 0;
    assert.deepEqual(await judged(await Classifier.kept(file, train, { ...options, progress: () => steps++ })), first);
    assert.equal(steps, 0, 'it is read, not trained');
    const refused = (source: MemorySource, settings: object, pattern: RegExp, type: typeof UsageError | typeof FailureError = UsageError) =>
      assert.rejects(
        Classifier.kept(file, source, { ...options, ...settings }),
        (error: Error) => error instanceof type && pattern.test(error.message) && /remove this file/.test(error.message),
      );
    await refused(train, { seed: 6 }, /trained with other settings: .*"seed":5.* wanted .*"seed":6/);
    await refused(train, { steps: 3 }, /trained with other settings/);
    await refused(corners(20, 3), {}, /trained on other pictures than corners 3/);
    const { tensors, metadata } = readSafetensors(file);
    writeSafetensors(file, new Map([...tensors].slice(1)), metadata);
    await refused(train, {}, /is damaged: its tensor .* is missing/, FailureError);
    await assert.rejects(Classifier.checkKept(file, train, options), FailureError);
    writeSafetensors(file, tensors);
    await refused(train, {}, /holds no classifier of ours/, FailureError);
    assert.equal(memory().live, before);
  } finally {
    remove();
  }
});

test('real pictures are compared with the part that is asked for', async () => {
  const data = { train: corners(40, 1), heldOut: corners(30, 2) };
  const judged = async (changes: Partial<EvaluateInput>) => {
    const asked = { ...input({ data, ...changes }), count: 25 };
    const report = await judgePictures(asked, ofSource(data.heldOut, spread(30, 25)));
    return { report, found: report.samples.distances[0]!, judge: report.protocol.judges[0]! };
  };
  const held = await judged({});
  assert.deepEqual(
    [held.found.precision, held.report.samples.accuracy],
    [1, held.report.realAccuracy],
    'they are 25 of the 30 of the reference',
  );
  const train = await judged({ against: 'train', real: 33 });
  assert.deepEqual(train.judge.reference, { source: 'corners 1', count: 33 });
  assert.deepEqual(train.judge.floor, { source: 'corners 2', count: 25 });
  const [floor] = train.report.floor!;
  assert.ok(Math.abs((floor?.frechet as number) - train.found.frechet) < 1e-9, 'the floor is of the very pictures that were judged');
  const all = await judged({ against: 'all', real: 1000 });
  assert.deepEqual(all.judge.reference, { source: 'corners 1; corners 2', count: 70 });
  assert.deepEqual(all.judge.floor, { source: 'corners 2, against the 40 of corners 1 alone', count: 25 });
  assert.equal(all.report.floor?.[0]?.count, 25, 'as many as are judged');
  assert.equal(all.found.precision, 1);

  const strange = await judgePictures(
    { ...input({ data }), count: 25 },
    { ...ofSource(data.heldOut, spread(30, 25)), labels: Array(25).fill(7) },
  );
  assert.equal(strange.samples.accuracy, undefined);
  assert.match(strange.warnings.join('\n'), /^pictures have the class 7, and the data's classes are 0 to 2: no accuracy is given$/m);
});

test('samples that are pictures of the class asked for score well, and those of another class do not', async () => {
  const asked = input({ settings: guided(1, 1), count: 30, batch: 30, classifier: { steps: 30, batch: 24 } });
  const heldOut = asked.data.heldOut;
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
  assert.ok((right?.accuracy as number) > 0.9 && (report.realAccuracy as number) > 0.9, `${right?.accuracy} ${report.realAccuracy}`);
  assert.ok((wrong?.accuracy as number) < 0.1, `${wrong?.accuracy}`);
  assert.equal(first(report).precision, 1);
  assert.ok((first(report).recall as number) < 0.2, 'three pictures cover little, however right they are');
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
  const asked = input({ settings: guided(2) });
  const collect = async (batch: number) => {
    const parts: Uint8Array[] = [];
    await evaluate({ ...asked, batch, onSamples: (_set, _first, pixels) => parts.push(pixels.toArray() as Uint8Array) });
    return Buffer.concat(parts);
  };
  const [a, b] = [await collect(20), await collect(7)];
  assert.equal(a.length, b.length);
  for (const [i, value] of a.entries()) assert.ok(Math.abs(value - (b[i] as number)) <= 1);
});

test('a model without labels is sampled with the null class and has no accuracy', async () => {
  const asked = input({ labels: 'none', settings: guided(1), count: 8 });
  const labels: number[] = [];
  const denoise = asked.denoiser.denoise.bind(asked.denoiser);
  const watched: Model = Object.create(asked.denoiser, {
    denoise: {
      value: (z: Tensor, t: Tensor, y: Tensor) => {
        labels.push(...[...(y.toArray() as BigInt64Array)].map(Number));
        return denoise(z, t, y);
      },
    },
  });
  const report = await evaluate({ ...asked, denoiser: watched });
  assert.deepEqual(new Set(labels), new Set([3]));
  assert.equal(report.samples[0]?.accuracy, undefined);
  await assert.rejects(evaluate(input({ labels: 'none', settings: guided(2) })), UsageError);
});

test('labels are balanced', async () => {
  const asked = input({ settings: guided(2), count: 7, batch: 4 });
  const given: number[][] = [];
  const denoise = asked.denoiser.denoise.bind(asked.denoiser);
  const watched: Model = Object.create(asked.denoiser, {
    denoise: {
      value: (z: Tensor, t: Tensor, y: Tensor) => {
        given.push([...(y.toArray() as BigInt64Array)].map(Number));
        return denoise(z, t, y);
      },
    },
  });
  await evaluate({ ...asked, denoiser: watched });
  assert.deepEqual(
    [given[0], given[3]],
    [
      [0, 1, 2, 0],
      [1, 2, 0],
    ],
  );
  assert.deepEqual(given[1], [0, 1, 2, 0, 3, 3, 3, 3], 'inside the interval both are asked for');
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
  await refused(/more than 3 real pictures, got 2/, { real: 2 });
  await refused(/whole number of steps from 1, got 0/, { settings: [{ ...SAMPLER, steps: 0 }] });
  await refused(/low then high; got \[0.5, 0.2\]/, { settings: [{ ...SAMPLER, interval: [0.5, 0.2] }] });
  const part = (count: number) => corners(count, 1);
  await refused(/more than 3 pictures in each part, and corners 1 has 2/, { data: { train: part(2), heldOut: part(9) } });
});

test('an evaluation that is stopped frees what it made', async () => {
  const asked = input();
  const before = await liveTensors();
  for (const stopped of ['classifier', 'reference', 'floor', 'reconstruction', 'components', 'samples']) {
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
