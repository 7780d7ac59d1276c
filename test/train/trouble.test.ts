/** What training does when a gradient is not finite, a disk takes nothing, or memory runs out. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { FailureError } from '../../src/core/errors.js';
import { type Batch, Loader } from '../../src/data/loader.js';
import type { DataSet } from '../../src/data/source.js';
import { DiskError } from '../../src/io/disk.js';
import { readSafetensors } from '../../src/io/safetensors.js';
import { noGrad, setThreads, tensor } from '../../src/torch/index.js';
import { Checkpoints } from '../../src/train/checkpoints.js';
import { modelConfig, type RunSettings, resolveConfig } from '../../src/train/config.js';
import type { Inputs } from '../../src/train/inputs.js';
import { type LoopEvent, TrainingLoop } from '../../src/train/loop.js';
import { Accumulator, type LogLine } from '../../src/train/metrics.js';
import { findPreset } from '../../src/train/presets.js';
import { RunFolder } from '../../src/train/run.js';
import { Stepper } from '../../src/train/step.js';
import { workplace } from '../cli/harness.js';
import { discs } from './synthetic.js';

setThreads(1);
const { folder, remove } = workplace();
after(remove);

const BATCH = 8;

interface Trouble {
  readonly settings?: RunSettings;
  /** Called before each batch is handed out. */
  readonly onBatch?: (batch: Batch, stepper: Stepper) => void;
  readonly onEvent?: (event: LoopEvent, run: string) => void;
  readonly stepper?: typeof Stepper;
}

async function run(name: string, { settings = {}, onBatch, onEvent, stepper: Made = Stepper }: Trouble) {
  const config = resolveConfig(
    findPreset('toy').settings,
    {
      train: { images: 20 * BATCH, batch: BATCH },
      log: { every: 5 * BATCH, evaluate: 10_000, save: 10_000 },
      checkpoint: { minutes: 1000 },
      sample: { steps: 2 },
    },
    settings,
  );
  const data: DataSet = { train: discs(24, config.data.image), heldOut: discs(8, config.data.image) };
  const model = modelConfig(config, { channels: 3, classes: data.train.classes.length });
  const stepper = new Made(config, model, 'cpu', 'float32');
  const path = join(folder, name);
  const runFolder = RunFolder.create(path);
  const loader = new Loader(data.train, { batch: BATCH, seed: config.train.seed, workers: 0 });
  const events: LoopEvent[] = [];
  const accumulator = new Accumulator();
  const loop = new TrainingLoop({
    ...{ config, model, data, folder: runFolder, stepper, accumulator, device: 'cpu', compute: 'float32' },
    machine: { libtorch: 'this', threads: 1, device: 'cpu' },
    pcaPsnr: 20,
    signal: new AbortController().signal,
    loader: {
      next: async () => {
        const batch = await loader.next();
        onBatch?.(batch, stepper);
        return batch;
      },
    },
    report: (event) => {
      events.push(event);
      onEvent?.(event, path);
    },
  });
  let error: unknown;
  try {
    await loop.run();
  } catch (thrown) {
    error = thrown;
  }
  await loader.close();
  stepper.dispose();
  accumulator.dispose();
  runFolder.close();
  const metrics = join(path, 'metrics.jsonl');
  const text = existsSync(metrics) ? readFileSync(metrics, 'utf8') : '';
  const lines = text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { kind: string });
  return { events, error, path, lines };
}

/** Spoils the teacher's weights for the batches that `when` says, by its first picture, and mends them after. */
function poison(when: (firstImage: number) => boolean): (batch: Batch, stepper: Stepper) => void {
  let sound: Float32Array | undefined;
  return ({ firstImage }, stepper) => {
    const bias = stepper.target.weights.get('patch_in.bias');
    if (when(firstImage)) {
      sound ??= bias.toArray() as Float32Array;
      noGrad(() => bias.fill_(Number.NaN));
    } else if (sound) {
      const whole = sound;
      noGrad(() => bias.copy_(tensor(whole)));
      sound = undefined;
    }
  };
}

test('a batch whose gradient is not finite is not applied, and is logged with its pictures', async () => {
  const bad = 7 * BATCH;
  const { error, events, lines } = await run('once', { onBatch: poison((first) => first === bad) });
  assert.equal(error, undefined);
  const told = events.filter((event) => event.kind === 'skipped');
  assert.equal(told.length, 1);
  const [skipped] = told;
  assert.ok(skipped?.kind === 'skipped');
  assert.equal(skipped.firstImage, bad);
  assert.equal(skipped.pictures.length, BATCH);
  assert.match(skipped.paths.join(), /disc/);
  // The very pictures that the loader gave.
  const source = discs(24, 16);
  const loader = new Loader(source, { batch: BATCH, seed: 0, workers: 0, start: bad });
  assert.deepEqual(skipped.pictures, [...(await loader.next()).indices]);
  await loader.close();
  assert.deepEqual(
    lines.filter(({ kind }) => kind === 'skipped'),
    [JSON.parse(JSON.stringify(skipped))],
  );
  const last = events.filter((event): event is LogLine => event.kind === 'train').at(-1);
  assert.equal(last?.skipped, 1);
  assert.ok(Number.isFinite(last?.losses.total), 'and the steps after it are sound');
});

test('ten in a row stop the run, and the last good checkpoint stands', async () => {
  const { error, path } = await run('stuck', {
    onBatch: poison((first) => first >= 8 * BATCH),
    settings: { checkpoint: { minutes: 0, keep: 3 } },
  });
  assert.ok(error instanceof FailureError, String(error));
  assert.match(error.message, /not finite in 10 steps in a row.*The checkpoint of \d+ pictures is in '.*'\. Lower train\.learningRate/);
  const checkpoints = new Checkpoints(path);
  const newest = checkpoints.newest();
  assert.ok(newest && newest.images <= 8 * BATCH, `a checkpoint of spoilt tensors was made: ${newest?.images}`);
});

/** Holds this thread up, in milliseconds. */
const pause = (time: number): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, time);

test('a disk that takes no checkpoint does not stop training; at the end it is an error, unless room was made', async () => {
  // A file where the folder of checkpoints should be: every write fails, as on a full disk.
  const block = (path: string): void => writeFileSync(join(path, 'checkpoints'), '');
  let blocked = false;
  const onEvent = (mend: boolean) => (event: LoopEvent, path: string) => {
    if (event.kind === 'train' && !blocked) {
      rmSync(join(path, 'checkpoints'), { recursive: true, force: true, maxRetries: 9 }); // the thread may be writing there
      block(path);
      blocked = true;
    }
    if (mend && event.kind === 'problem') rmSync(join(path, 'checkpoints'), { force: true });
  };
  const often = { settings: { checkpoint: { minutes: 0 } } };
  const mended = await run('mended', { ...often, onEvent: onEvent(true) });
  assert.equal(mended.error, undefined);
  const problem = mended.events.find((event) => event.kind === 'problem');
  assert.match(problem?.kind === 'problem' ? problem.message : '', /^checkpoint: cannot .*checkpoints.*Training goes on and tries again$/);
  assert.equal(new Checkpoints(mended.path).newest()?.images, 20 * BATCH);
  blocked = false;
  const never = await run('never', { ...often, onEvent: onEvent(false) });
  assert.ok(never.error instanceof DiskError, String(never.error));
  blocked = false;
  const stop = await run('stop', {
    settings: { checkpoint: { minutes: 0, onError: 'stop' } },
    onEvent: (event, path) => {
      onEvent(false)(event, path);
      pause(100); // the thread that writes shall have failed before the run is over, on a busy machine too
    },
  });
  assert.ok(stop.error instanceof DiskError, String(stop.error));
  assert.ok(stop.lines.length < never.lines.length, 'by the other policy it stops at once');
});

test('metrics that the disk does not take wait for the next line, in order', async () => {
  let blocked = false;
  const { error, lines } = await run('waiting', {
    onEvent: (event, path) => {
      const file = join(path, 'metrics.jsonl');
      if (event.kind === 'train' && !blocked) {
        blocked = true;
        mkdirSync(file); // a folder where the file should be
      }
      if (event.kind === 'problem') rmdirSync(file);
    },
  });
  assert.equal(error, undefined);
  assert.deepEqual(
    lines.map((line) => (line as { images?: number }).images),
    [5, 10, 15, 20, 20].map((steps) => steps * BATCH),
  );
});

test('a batch that cannot be had ends the run with what was trained before it kept', async () => {
  const broken = new FailureError('a picture is broken');
  const at = (first: number) => ({
    onBatch: (batch: Batch): void => {
      if (batch.firstImage === first) throw broken;
    },
  });
  const { error, path } = await run('broken', at(7 * BATCH));
  assert.equal(error, broken);
  assert.equal(new Checkpoints(path).newest()?.images, 7 * BATCH);
  const first = await run('broken at once', at(0));
  assert.equal(first.error, broken);
  assert.deepEqual(new Checkpoints(first.path).list(), []);
});

test('a checkpoint that fails for another reason than the disk does not stop training either', async () => {
  // Folders where the checkpoints of the next steps should be.
  const block = (path: string): void => {
    for (let step = 6; step < 100; step++) mkdirSync(new Checkpoints(path).path(step * BATCH), { recursive: true });
  };
  const often = (name: string, onError: 'continue' | 'stop') =>
    run(name, {
      settings: { train: { images: 100 * BATCH }, checkpoint: { minutes: 0, onError } },
      onEvent: (event, path) => {
        if (event.kind === 'train' && event.images === 5 * BATCH) block(path);
      },
    });
  const { error, events, path } = await often('in the way', 'continue');
  assert.equal(error, undefined);
  assert.equal(new Checkpoints(path).newest()?.images, 100 * BATCH);
  const problem = events.find((event) => event.kind === 'problem');
  assert.match(problem?.kind === 'problem' ? problem.message : '', /it exists, and a bundle is never written over.*Training goes on/);
  assert.ok((await often('in the way, stop', 'stop')).error instanceof FailureError);
});

test('an average that is no number takes the place of no published weights', async () => {
  const { error, events, path } = await run('published', {
    settings: { log: { save: 5 * BATCH } },
    onBatch: ({ firstImage }, stepper) => {
      if (firstImage === 7 * BATCH) noGrad(() => stepper.average.weights.get('patch_in.bias').fill_(Number.NaN));
    },
  });
  assert.ok(error instanceof FailureError, String(error));
  assert.deepEqual(
    events.flatMap((event) => (event.kind === 'saved' ? [event.images] : [])),
    [5 * BATCH],
  );
  assert.ok(events.some((event) => event.kind === 'problem' && /^weights and grids: .*no longer finite/.test(event.message)));
  const { tensors } = readSafetensors(join(path, 'model.safetensors'));
  assert.ok(new Float32Array(tensors.get('patch_in.bias')?.data.buffer as ArrayBuffer).every(Number.isFinite));
});

class CrampedAtTheEnd extends Stepper {
  protected override output(...args: Parameters<Stepper['output']>): ReturnType<Stepper['output']> {
    super.output(...args);
    throw Object.assign(new Error('DefaultCPUAllocator: out of memory'), { code: 'ERR_TORCH_MEMORY' });
  }
}

test('memory that runs out when a step has been applied does not have it applied once more', async () => {
  const { error, events } = await run('cramped at the end', { stepper: CrampedAtTheEnd });
  assert.ok(error instanceof FailureError, String(error));
  assert.match(error.message, /out of memory while the weights were updated/);
  assert.deepEqual(events, []);
});

class Cramped extends Stepper {
  protected override microBatch(inputs: Inputs, start: number, end: number) {
    if (end - start > 2) throw Object.assign(new Error('DefaultCPUAllocator: out of memory'), { code: 'ERR_TORCH_MEMORY' });
    return super.microBatch(inputs, start, end);
  }
}

test('where memory runs out the batch is cut until it fits, to the same losses', async () => {
  const losses = (events: readonly LoopEvent[]) =>
    events.flatMap((event) => (event.kind === 'train' ? [event.losses.total as number] : []));
  const whole = await run('roomy', {});
  const cut = await run('cramped', { stepper: Cramped });
  assert.equal(cut.error, undefined);
  const problem = cut.events.find((event) => event.kind === 'problem');
  assert.match(
    problem?.kind === 'problem' ? problem.message : '',
    /memory ran out with 8 pictures at a time: going on with 2, which gives the same/,
  );
  for (const [i, loss] of losses(whole.events).entries())
    assert.ok(Math.abs(loss - (losses(cut.events)[i] as number)) < 1e-4 * Math.abs(loss), `line ${i}`);
  const given = await run('given', { stepper: Cramped, settings: { train: { microBatch: 4 } } });
  assert.ok(
    given.error instanceof FailureError && /4 pictures at a time: try --set train\.microBatch=2/.test(given.error.message),
    String(given.error),
  );
});

/** Where evaluation and grids do not fit beside the captured step. */
class Full extends Stepper {
  private full = true;
  constructor(...args: ConstructorParameters<typeof Stepper>) {
    super(...args);
    const { averaged } = this;
    const own = averaged.in.bind(averaged);
    averaged.in = (dtype) => {
      if (this.full) throw Object.assign(new Error('CUDA out of memory'), { code: 'ERR_TORCH_MEMORY' });
      return own(dtype);
    };
  }
  override step(...args: Parameters<Stepper['step']>): ReturnType<Stepper['step']> {
    this.full = true;
    return super.step(...args);
  }
  override release(): boolean {
    super.release();
    const before = this.full;
    this.full = this.hopeless;
    return before && !this.hopeless;
  }
  protected readonly hopeless: boolean = false;
}

class Hopeless extends Full {
  protected override readonly hopeless = true;
}

test('what does not fit beside a captured step is done without it; what does not fit at all is an error', async () => {
  const settings = { log: { evaluate: 5 * BATCH, save: 10 * BATCH } };
  const { error, events } = await run('full', { stepper: Full, settings });
  assert.equal(error, undefined);
  assert.equal(events.filter(({ kind }) => kind === 'evaluate').length, 4);
  assert.equal(events.filter(({ kind }) => kind === 'saved').length, 2);
  const hopeless = await run('hopeless', { stepper: Hopeless, settings });
  assert.match(String(hopeless.error), /out of memory/);
});
