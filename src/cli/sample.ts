/** `dsd sample`: new pictures from a trained model, as a grid, a folder of PNGs, or arrays. */
import { setImmediate as turn } from 'node:timers/promises';
import { UsageError } from '../core/errors.js';
import { key } from '../core/random.js';
import { Sampler, toPixels } from '../dsd/generate.js';
import type { SamplerOptions } from '../dsd/sampler.js';
import { noGrad, randn, scope, tensor } from '../torch/index.js';
import { samplerOptions } from '../train/config.js';
import type { Loaded } from '../train/weights.js';
import { defineCommand } from './command.js';
import { ENGINE, type Engine, inBatches, openEngine } from './engine.js';
import { findClass, openModel } from './model.js';
import { freePath, OVERWRITE, print, printJson, RESULT } from './output.js';
import { openProgress } from './progress.js';
import { openSink } from './sink.js';
import { count, counted, duration, figure } from './text.js';

export const sample = defineCommand({
  name: 'sample',
  about:
    'Draws new pictures from a trained model. Sample i is a function of weights, seed, class and i alone: not of the batch, nor of how many are drawn. The grids in a run folder are drawn from noise of their own, so these are other pictures.',
  operands: { names: 'RUN|WEIGHTS', min: 1, max: 1 },
  flags: {
    class: {
      kind: 'text',
      value: 'NAME|NUMBER',
      repeat: true,
      about: "what to draw; 'none' for no class in particular. By default all classes, taken in turn",
    },
    count: { kind: 'whole', value: 'N', min: 1, about: 'how many pictures; by default a grid of 8 rows' },
    out: {
      kind: 'text',
      value: 'PATH',
      about:
        'NAME.png: one grid. NAME.npz: arr_0, uint8 (N, H, W, 3), grey repeated to three, and arr_1, the classes (none: the number after the last). Any other name without an extension: a folder of PNGs. By default samples.png',
    },
    overwrite: OVERWRITE,
    guidance: { kind: 'number', value: 'S', min: 0, max: 1000, about: "strength of the class, 1 for none; by default the run's" },
    interval: {
      kind: 'numbers',
      value: 'A,B',
      min: 0,
      max: 1,
      about: 'guidance is applied for times from A (noise is 0) to B (a picture is 1)',
    },
    steps: { kind: 'whole', value: 'N', min: 1, max: 100_000, about: 'steps of the solver' },
    solver: { kind: 'choice', of: ['heun', 'euler'], about: 'heun asks the network twice a step' },
    seed: { kind: 'whole', value: 'N', about: 'the noise is a function of it; 0 by default' },
    batch: { kind: 'whole', value: 'N', min: 1, about: 'pictures drawn at a time, 64 by default; it changes nothing but memory and speed' },
    ...ENGINE,
    ...RESULT,
  },
  examples: [
    ['dsd sample runs/demo', 'a grid of all classes'],
    ['dsd sample runs/demo --class flags --class food-drink --count 16 --guidance 3 --out some.png', 'two classes'],
    ['dsd sample runs/fashion --count 10000 --out samples.npz', 'a balanced set for an evaluator'],
  ],
  run: async (flags, [path = '']) => {
    if (flags.interval && (flags.interval.length !== 2 || (flags.interval[0] as number) > (flags.interval[1] as number)))
      throw new UsageError('--interval wants two times, low then high: --interval 0.1,1');
    const out = flags.out ?? freePath('samples', '.png');
    const progress = openProgress(flags);
    const engine = openEngine(flags);
    const loaded = openModel(path, engine.device, ['generate']);
    const wanted = classesOf(flags.class, loaded);
    const defaults = samplerOptions(loaded.config);
    const options: SamplerOptions = {
      ...defaults,
      ...(flags.guidance === undefined ? {} : { guidance: flags.guidance }),
      ...(flags.steps === undefined ? {} : { steps: flags.steps }),
      ...(flags.solver === undefined ? {} : { solver: flags.solver }),
      ...(flags.interval === undefined ? {} : { interval: flags.interval as readonly number[] as readonly [number, number] }),
    };
    const seed = flags.seed ?? 0;
    const total = flags.count ?? 8 * Math.min(10, wanted.length);
    const { image: size, channels } = loaded.model;
    const sink = openSink(out, {
      total,
      size,
      channels,
      classes: loaded.classes,
      columns: columnsOf(total, wanted.length),
      overwrite: flags.overwrite,
    });

    const began = performance.now();
    const batch = flags.batch ?? 64;
    progress.update(`0/${count(total)}`);
    await inBatches(batch, async () => {
      const sampler = new Sampler(loaded.denoiser, loaded.autoencoder, engine.compute);
      for (let first = 0; first < total; first += batch) {
        const labels = Array.from({ length: Math.min(batch, total - first) }, (_, i) => wanted[(first + i) % wanted.length] as number);
        await sink.add(first, draw(sampler, loaded, engine, options, seed, first, labels), labels);
        const done = first + labels.length;
        const rate = done / ((performance.now() - began) / 1000);
        progress.update(
          `${count(done)}/${count(total)}`,
          `${Math.floor((100 * done) / total)} %`,
          `${figure(rate)} img/s`,
          `ETA ${duration((total - done) / rate)}`,
        );
        await turn();
      }
      sampler.dispose();
    });
    await sink.end();
    progress.clear();
    const seconds = (performance.now() - began) / 1000;
    const result = {
      out,
      count: total,
      classes: wanted.map((label) => (label < loaded.classes.length ? label : null)), // null: none
      seed,
      ...options,
      weights: loaded.kind,
      images: loaded.images,
      device: engine.device,
      compute: engine.compute,
      seconds,
    };
    if (flags.json) printJson(result);
    else print(`${out}: ${counted(total, 'picture')} in ${duration(seconds)}, ${figure(total / seconds)} img/s`, protocol(result));
  },
});

/** The classes to draw in turn; the null class of a model that knows none. @throws UsageError for a class that the model does not have */
function classesOf(names: readonly string[], { classes, config }: Loaded): number[] {
  if (!config.objective.labels) {
    if (names.length > 0 && names.some((name) => name !== 'none'))
      throw new UsageError('this model was trained without labels and knows no classes: leave --class out');
    return [classes.length];
  }
  return names.length === 0 ? classes.map((_, i) => i) : names.map((name) => findClass(name, classes));
}

/** A class keeps to its columns where classes are few; else about a square. */
function columnsOf(total: number, classes: number): number {
  if (classes <= 16) return classes * Math.max(1, Math.floor(8 / classes));
  return Math.max(8, Math.ceil(Math.sqrt(total)));
}

/** Samples first, first + 1, ... of these classes: uint8 (B, H, W, ch). */
function draw(
  sampler: Sampler,
  { denoiser }: Loaded,
  { device }: Engine,
  options: SamplerOptions,
  seed: number,
  first: number,
  labels: readonly number[],
): Uint8Array {
  return noGrad(() =>
    scope(() => {
      const noise = randn(key(seed, 'sample'), first, denoiser.latentShape(labels.length), { device });
      const y = tensor(BigInt64Array.from(labels, BigInt), [labels.length], { dtype: 'int64', device });
      return toPixels(sampler.draw({ noise, labels: y, options })).toArray() as Uint8Array;
    }),
  );
}

/** What a reader must know to compare (ARCHITECTURE.md, The method: evaluation). */
function protocol(of: SamplerOptions & { seed: number; weights: string; images: number; compute: string }): string {
  const guidance = of.guidance === 1 ? 'no guidance' : `guidance ${of.guidance} on [${of.interval.join(', ')}]`;
  return `${of.solver}, ${counted(of.steps, 'step')}, ${guidance}, seed ${of.seed}, ${of.weights === 'average' ? 'averaged' : 'raw'} weights of ${counted(of.images, 'picture')}, ${of.compute}`;
}
