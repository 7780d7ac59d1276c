/** The comparing studies' parts: budgets, orders, reports. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { FailureError, InterruptedError, UsageError } from '../../src/core/errors.js';
import type { DataSet } from '../../src/data/source.js';
import { countParameters, forwardFlops } from '../../src/dsd/sizes.js';
import { toSvg } from '../../src/eval/plot.js';
import { divide, lengths, stageFlops, TOLERANCE, trainedImages } from '../../src/study/compare/budget.js';
import { drawCases, drawSizes } from '../../src/study/compare/figure.js';
import { type CompareResult, outcome } from '../../src/study/compare/outcome.js';
import { PARADIGM_PRESETS, paradigmCases } from '../../src/study/compare/paradigms.js';
import { planRuns } from '../../src/study/compare/plan.js';
import { reportCompare } from '../../src/study/compare/report.js';
import { fallsWithSize, SCALING_PRESETS, scalingCases } from '../../src/study/compare/scaling.js';
import { measuresOf, summarize } from '../../src/study/compare/summary.js';
import { trainedIn, trainStage } from '../../src/study/compare/train-stage.js';
import { compareAll, order } from '../../src/study/compare/verdict.js';
import { setThreads } from '../../src/torch/index.js';
import { modelConfig, type RunSettings, resolveConfig } from '../../src/train/config.js';
import { findPreset } from '../../src/train/presets.js';
import { passes } from '../../src/train/schedule.js';
import { readWeights } from '../../src/train/weights.js';
import { workplace } from '../cli/harness.js';
import { discs } from '../train/synthetic.js';
import { compared, diverged, SIZE } from './compared.js';

setThreads(1);
const { folder, remove } = workplace();
after(remove);

const CASES = paradigmCases(0.5);
const one = { seeds: [1], settings: [], judging: {}, scale: 1 };
const near = (actual: number, expected: number): void =>
  assert.ok(Math.abs(actual / expected - 1) <= TOLERANCE, `${actual} is not within ${TOLERANCE} of ${expected}`);

// A masked view is encoded beside the whole picture.
for (const [name, preset, shape, forwards] of [
  ['cpu', PARADIGM_PRESETS.cpu, { channels: 1, classes: 10 }, 11.5],
  ['gpu', PARADIGM_PRESETS.gpu, { channels: 1, classes: 10 }, 10],
] as const)
  test(`two stages have the parameters and the training of one: preset ${name}`, () => {
    for (const split of [0.25, 0.5, 0.75]) {
      const runs = planRuns({ ...one, preset, cases: paradigmCases(split) });
      const stages = (which: string) => runs.find((run) => run.case === which)!.settings.stages;
      const dsd = stages('dsd')[0]!.config;
      const model = (config: Parameters<typeof modelConfig>[0]) => modelConfig(config, shape);
      const forward = (config: Parameters<typeof modelConfig>[0]) => forwardFlops(model(config));
      const { depth } = dsd.model;
      for (const [which, first] of [
        ['two-stage', depth / 2],
        ['two-stage-deep', depth / 4],
      ] as const) {
        const both = stages(which);
        const [a, b] = both.map(({ config }) => config) as [typeof dsd, typeof dsd];
        assert.deepEqual([a.model.depth, b.model.depth], [first, depth - first]);
        near(countParameters(model(a)).model + countParameters(model(b)).model, countParameters(model(dsd)).model);
        // By hand: an autoencoder encodes and decodes, forward and backward; a denoiser denoises so, and has a frozen encoder's pass.
        const costs = [trainedImages(a) * 6 * forward(a), trainedImages(b) * (3 * forward(b) + forward(a))] as const;
        const whole = trainedImages(dsd) * forwards * forward(dsd);
        near(costs[0] + costs[1], whole);
        near(costs[0] / whole, split);
        assert.deepEqual([stageFlops(both, 0), stageFlops(both, 1)], costs);
        assert.equal(stageFlops(stages('dsd'), 0), whole);
      }
      assert.equal(passes(dsd.objective), forwards);
    }
  });

test('what a case is of is in its settings, and the rest is the same', () => {
  const runs = planRuns({ ...one, preset: PARADIGM_PRESETS.cpu, cases: CASES });
  const settings = new Map(runs.map((run) => [run.case, run.settings.stages[0]!.config]));
  assert.deepEqual([...settings.keys()], ['dsd', 'label-free', 'naive', 'naive-norm', 'two-stage', 'two-stage-deep', 'self-distillation']);
  assert.deepEqual(
    [...settings.values()].map(({ objective, model }) => [objective.paradigm, objective.labels, model.latentNorm]),
    [
      ['dsd', true, true],
      ['dsd', false, true],
      ['naive', true, false],
      ['naive', true, true],
      ['autoencoder', true, true],
      ['autoencoder', true, true],
      ['self-distillation', false, true],
    ],
  );
  for (const { data, sample, train } of settings.values()) {
    assert.deepEqual([data, sample], [settings.get('dsd')!.data, settings.get('dsd')!.sample]);
    assert.deepEqual({ ...train, images: 0 }, { ...settings.get('dsd')!.train, images: 0 });
  }
  const sizes = planRuns({ ...one, preset: SCALING_PRESETS.gpu, cases: scalingCases(SCALING_PRESETS.gpu) });
  const parameters = sizes.map(
    ({ settings: { stages } }) => countParameters(modelConfig(stages[0]!.config, { channels: 1, classes: 10 })).model,
  );
  assert.deepEqual(
    parameters.map((count) => (count / 1e6).toFixed(1)),
    ['1.3', '6.8', '41.0'],
  );
});

test('settings that a case cannot have are refused by its name, and those that none can have without', () => {
  const plan = (cases: typeof CASES, settings: RunSettings) => () =>
    planRuns({ ...one, preset: PARADIGM_PRESETS.cpu, cases, settings: [settings] });
  const preconditioned = { objective: { preconditioned: true } };
  assert.throws(plan(CASES, preconditioned), /^UsageError: case 'naive': objective\.preconditioned .* leave the case out with --cases$/s);
  const naive = CASES.filter(({ name }) => name === 'naive');
  assert.throws(plan(naive, preconditioned), /^UsageError: case 'naive': (?!.*--cases)/s);
  assert.throws(plan(CASES, { train: { images: 1 } }), /^UsageError: train\.images 1 is less/);
});

test('a budget that cannot be met is refused, with what to change', () => {
  const config = (over: RunSettings) => resolveConfig(findPreset('toy').settings, over);
  assert.throws(
    () => divide(config({ model: { width: 32, depth: 1, hidden: 16 } }), 0.5),
    (error: Error) =>
      error instanceof UsageError &&
      /no two networks of 1 and 1 blocks have together the [\d,]+ parameters.*model\.depth/.test(error.message),
  );
  const long = config({ train: { images: 512, batch: 512 } });
  const first = config({ objective: { paradigm: 'autoencoder' }, train: { images: 512, batch: 512 } });
  assert.throws(() => lengths(long, first, first, 0.4), /come to [\d.]+ % of the operations.*lower train\.batch, or raise train\.images/);
});

test('an order is claimed only where no two seeds contradict it', () => {
  assert.equal(order([1, 2], [3, 4]), 'lower');
  assert.equal(order([5, 6], [3, 4]), 'higher');
  assert.equal(order([1, 3], [3, 4]), 'undecided');
  assert.equal(order([1, 5], [3, 4]), 'undecided');
  const results = [
    compared('dsd', 1, 8),
    compared('dsd', 2, 9),
    compared('two-stage', 1, 10),
    compared('two-stage', 2, 12),
    compared('naive', 1, 8.5, 20),
  ];
  const measures = measuresOf(results);
  const of = (pairs: [string, string][]) => compareAll(summarize(results, CASES, measures), pairs, measures);
  const [fd] = of([['dsd', 'two-stage']]).filter(({ measure }) => measure === 'FD-nsfwjs-mixed7@1');
  assert.deepEqual([fd?.order, fd?.values, fd?.others], ['lower', { 1: 8, 2: 9 }, { 1: 10, 2: 12 }]);
  assert.ok(Math.abs(fd!.difference - (8.5 / 11 - 1)) < 1e-12);
  assert.equal(
    fd?.words,
    'FD-nsfwjs-mixed7: DSD 8.50 (seed 1 8.00, seed 2 9.00) against 11.0 (seed 1 10.0, seed 2 12.0) of two-stage latent diffusion: 22.7 % lower, whichever seeds are compared.',
  );
  const naive = of([['dsd', 'naive']]);
  assert.match(
    naive.find(({ measure }) => measure === 'FD-nsfwjs-mixed7@1')?.words ?? '',
    /0\.0 % higher, by one seed, whose spread is unknown\.$/,
  );
  assert.match(naive.find(({ measure }) => measure === 'psnr')?.words ?? '', /: 10\.00 dB higher/);
  const back = of([['two-stage', 'dsd']]).find(({ measure }) => measure === 'FD-nsfwjs-mixed7@2');
  assert.equal(back?.order, 'higher');
  assert.deepEqual(of([['dsd', 'label-free']]), [], 'what has no results is compared with nothing');
});

test('a distance falls with each size, or the report says where it does not', () => {
  const step = (name: string, against: string, difference: number, found: 'lower' | 'undecided' | 'higher', measure = 'FD@1') =>
    ({ case: name, against, difference, order: found, measure, title: 'FD' }) as Parameters<typeof fallsWithSize>[0][number];
  const small = step('medium', 'small', -0.3, 'lower');
  assert.deepEqual(fallsWithSize([small, step('large', 'medium', -0.2, 'lower')]), ['- FD falls with each size.']);
  assert.deepEqual(fallsWithSize([small, step('large', 'medium', -0.1, 'undecided')]), [
    '- FD falls with each size in the mean, but seeds overlap: large against medium.',
  ]);
  for (const found of ['undecided', 'higher'] as const)
    assert.deepEqual(fallsWithSize([small, step('large', 'medium', 0.1, found)]), [
      '- FD does not fall with each size: large against medium.',
    ]);
  assert.deepEqual(fallsWithSize([small, step('medium', 'small', 0.1, 'higher', 'psnr')]), [], 'of two sizes nothing is concluded');
});

test('a report has every case, every seed, what was compared and how it was judged; a run that diverged is named', async () => {
  const results = [
    ...[1, 2].flatMap((seed) => [
      compared('dsd', seed, 7 + seed),
      compared('label-free', seed, 20),
      compared('two-stage', seed, 12 + seed),
    ]),
    ...[compared('self-distillation', 1, 1), diverged('naive', 1)],
  ];
  for (const result of results) assert.deepEqual(outcome.parse(JSON.parse(JSON.stringify(result))), outcome.parse(result));
  const reporting = {
    ...{ study: 'paradigms', cases: CASES, whole: 'dsd', pairs: [['dsd', 'two-stage']] as const },
    draw: (...of: Parameters<typeof drawCases> extends [string, ...infer Rest] ? Rest : never) => drawCases('title', ...of),
  };
  mkdirSync(join(folder, 'report'));
  const { files, table, summaries } = await reportCompare(reporting, join(folder, 'report'), results, { planned: 10, interim: false });
  const text = table.join('\n');
  assert.match(
    text,
    /^\| two-stage latent diffusion +\| autoencoder 1k \+ denoiser 1k +\| 1,000 \(100\.0 %\) +\| 640 \+ 640 +\| 1\.000e12 \(100\.0 %\) +\| 5\.505e8 \(38\.9 %\)/m,
    'budgets, and what a sample costs',
  );
  assert.doesNotMatch(text, /judged by one classifier/);
  assert.match(text, /^\| DSD +\| 30\.0 ± 0\.0 +\| 12\.5 ± 0\.0 +\| 50\.0 ± 0\.0 % .*\| 8\.50 ± 0\.71 +\| 4\.25 ± 0\.35/m);
  assert.match(text, /^\| floor +\| +\| +\| 20\.0 % +\| 20\.0 % +\| 1\.00 +\| 1\.00 +\| 90\.0 %/m);
  assert.match(text, /^- FD-nsfwjs-mixed7: DSD 8\.50 .*: 37\.0 % lower, whichever seeds are compared\.$/m);
  assert.match(text, /^- naive, seed 1, diverged: the gradient was not finite\.$/m);
  assert.match(text, /^- averaged weights, float32 on a processor, 1 thread, libtorch 1\.13\.1$/m, 'all share it');
  assert.match(text, /^- dsd, two-stage: samples: heun, 25 steps, guidance 2 on \[0\.1, 1\]/m);
  assert.match(text, /^- self-distillation: no decoder: latents of 100 pictures/m);
  assert.match(text, /^Not finished: 2 of 10 runs/m);
  assert.equal(text.match(/^\| DSD +\| [12] /gm)?.length, 2, 'a row a seed');
  const by = (digest: string | undefined, { drawing, ...result }: CompareResult): CompareResult => {
    const classifier = { steps: 1, batch: 1, trainedOn: 'emoji', ...(digest === undefined ? {} : { digest }) };
    return { ...result, ...(drawing ? { drawing: { ...drawing, protocol: { ...drawing.protocol, classifier } } } : {}) };
  };
  for (const [one, other] of [
    ['a', 'b'],
    [undefined, 'b'],
  ]) {
    const judged = results.map((result, i) => by(i === 0 ? one : other, result));
    const told = (await reportCompare(reporting, join(folder, 'report'), judged, { planned: 8, interim: false })).table.join('\n');
    assert.match(told, /^- Not all runs were judged by one classifier/m);
  }
  assert.equal(summaries.length, 5);
  const data = 'fashion-mnist-32px';
  assert.deepEqual(files, [`figure-${data}.svg`, `figure-${data}.png`, `samples-${data}.png`, 'table.md', 'study.json']);
  const document = JSON.parse(readFileSync(join(folder, 'report', 'study.json'), 'utf8')) as {
    runs: object[];
    comparisons: { order: string }[];
  };
  assert.ok(document.runs.length === 8 && document.runs.every((run) => !('drawn' in run)));
  assert.equal(document.comparisons.length, 3);
  // Every seed is a dot, in each of three panels; the label-free one has no guidance.
  const svg = readFileSync(join(folder, 'report', `figure-${data}.svg`), 'utf8');
  assert.equal(svg.match(/<circle /g)?.length, 6 + 4 + 6);
  assert.doesNotMatch(svg, /NaN|undefined|Infinity/);
  for (const name of ['dsd', 'label-free', 'two-stage']) assert.match(svg, new RegExp(`>${name}</text>`));
  const { default: sharp } = await import('sharp');
  const sheet = await sharp(join(folder, 'report', `samples-${data}.png`))
    .removeAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  const cell = SIZE * 4;
  assert.ok(sheet.info.width >= 4 * cell && sheet.info.height >= 5 * cell, 'three rows, and two with guidance');
  // The first row is of the first seed, whose pictures are all of one grey.
  const at = (x: number, y: number) => [...sheet.data.subarray((y * sheet.info.width + x) * 3, (y * sheet.info.width + x) * 3 + 3)];
  assert.deepEqual(at(20 + 210 + 10, 20 + 36 + 10), [40, 40, 40]);
});

test('sizes lie on a logarithmic axis, with a line for each seed and their mean', () => {
  const results = [1, 2].flatMap((seed) => ['dsd', 'naive'].map((name, i) => compared(name, seed, 10 + i)));
  const measures = measuresOf(results).filter(({ key }) => key.startsWith('FD'));
  const summaries = summarize(results, CASES, measures).map((summary, i) => ({ ...summary, parameters: 10 ** (6 + i) }));
  const svg = toSvg(drawSizes('sizes', results, summaries, measures));
  assert.doesNotMatch(svg, /NaN|undefined|Infinity/);
  for (const line of ['0', '1', 'mean']) assert.equal(svg.match(new RegExp(`data-line="${line}"`, 'g'))?.length, 2, line);
  const xs = [...svg.matchAll(/<circle cx="([\d.]+)"/g)].slice(0, 2).map(([, x]) => Number(x));
  assert.ok(xs[1]! - xs[0]! > 200, 'a factor of ten is most of the axis');
});

const TOY: RunSettings = {
  model: { width: 16, depth: 2, heads: 1, hidden: 16, prototypes: 2 },
  train: { images: 128, batch: 16, warmup: 16, dtype: 'float32' },
  log: { every: 16, evaluate: 1000, save: 1000 },
  checkpoint: { minutes: 5 },
};

test('a stage that was interrupted goes on, one that is finished is left alone, and one of other settings is refused', async () => {
  const data: DataSet = { train: discs(48, 16), heldOut: discs(12, 16) };
  const config = (over: RunSettings = {}) => resolveConfig(findPreset('toy').settings, TOY, over);
  const at = (name: string): string => join(folder, name);
  const stage = async (name: string, over: RunSettings = {}, stopAt = Number.POSITIVE_INFINITY): Promise<number> => {
    const stop = new AbortController();
    let steps = 0;
    const onLine = ({ images }: { images: number }): void => {
      steps++;
      if (images >= stopAt) stop.abort();
    };
    const options = { data, device: 'cpu', compute: 'float32', signal: stop.signal, scale: 1, onLine } as const;
    await trainStage(at(name), config(over), options);
    return steps;
  };
  const weights = (name: string): Buffer => readFileSync(join(at(name), 'model.safetensors'));
  assert.equal(await stage('whole'), 8);
  await assert.rejects(stage('parts', {}, 64), InterruptedError);
  assert.equal(readWeights(at('parts')).info.images, 64);
  await assert.rejects(
    stage('parts', { train: { learningRate: 0.5 } }),
    /'.*parts' is of other settings: train\.learningRate 0\.001, wanted 0\.5\. .*remove that folder/,
  );
  assert.equal(await stage('parts'), 4, 'the rest only');
  assert.deepEqual(weights('parts'), weights('whole'));
  assert.ok(!existsSync(join(at('parts'), 'checkpoints')) && !existsSync(join(at('whole'), 'checkpoints')));
  const { mtimeMs } = statSync(join(at('parts'), 'model.safetensors'));
  assert.equal(await stage('parts'), 0);
  assert.equal(statSync(join(at('parts'), 'model.safetensors')).mtimeMs, mtimeMs);
  const { seconds, skipped } = trainedIn(at('parts'));
  assert.ok(seconds > 0 && seconds < 60 && skipped === 0);
  await assert.rejects(stage('parts', { model: { width: 32 } }), UsageError);
  // Weights alone, of which the rest is gone, are no run to go on with.
  mkdirSync(join(at('empty'), 'grids'), { recursive: true });
  assert.equal(await stage('empty'), 8);
  // What a run without a norm begins with is the scale asked for, up to a step of training.
  const naive: RunSettings = { objective: { paradigm: 'naive' }, model: { latentNorm: false }, train: { images: 16, learningRate: 1e-9 } };
  await stage('naive', naive);
  const line = readFileSync(join(at('naive'), 'metrics.jsonl'), 'utf8')
    .split('\n')
    .map((text) => (text ? JSON.parse(text) : {}))
    .find(({ kind }) => kind === 'evaluate');
  assert.ok(Math.abs((line as { latentDeviation: number }).latentDeviation - 1) < 0.01, JSON.stringify(line));
  await assert.rejects(stage('broken', { train: { learningRate: 1e30, warmup: 0, images: 320 } }), FailureError);
});
