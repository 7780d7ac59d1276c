/**
 * Captured training steps and captured sampling against the same work done operator by operator: equal to the bit. Without a CUDA device the captures are
 * tapes (../torch/tape.ts).
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Loader } from '../../src/data/loader.js';
import { LATENTS, Sampler } from '../../src/dsd/generate.js';
import { Model } from '../../src/dsd/model.js';
import { type SamplerOptions, sample } from '../../src/dsd/sampler.js';
import {
  cudaAvailable,
  type DType,
  full,
  memory,
  noGrad,
  randn,
  scope,
  setDeterministic,
  setThreads,
  type Tensor,
  tensor,
} from '../../src/torch/index.js';
import { modelConfig, type RunConfig, type RunSettings, resolveConfig } from '../../src/train/config.js';
import type { Inputs } from '../../src/train/inputs.js';
import { Accumulator } from '../../src/train/metrics.js';
import { findPreset } from '../../src/train/presets.js';
import { Stepper } from '../../src/train/step.js';
import { liveTensors } from '../torch/live.js';
import { withTapes } from '../torch/tape.js';
import { discs } from './synthetic.js';

const device = cudaAvailable() ? 'cuda' : 'cpu';
const captured = (name: string, run: () => Promise<void>) => void test(name, () => (cudaAvailable() ? run() : withTapes(run)));
setDeterministic(true);
setThreads(1);

const BATCH = 16;
const STEPS = 12;
const source = discs(48, 16);
const configOf = (settings: RunSettings): RunConfig =>
  resolveConfig(findPreset('toy').settings, { train: { batch: BATCH, images: 1000 * BATCH } }, settings);
const make = (config: RunConfig, compute: DType = 'float32', Made = Stepper): Stepper =>
  new Made(config, modelConfig(config, { channels: 3, classes: source.classes.length }), device, compute);

/** What a run comes to: losses and norms in sums over all steps and of the last, and every tensor of its state. */
interface Outcome {
  readonly lines: readonly unknown[];
  readonly state: ReadonlyMap<string, ArrayLike<number | bigint>>;
}

const stateOf = (stepper: Stepper): Outcome['state'] =>
  new Map(
    [...stepper.state()].flatMap(([file, tensors]) => [...tensors].map(([name, value]) => [`${file} ${name}`, value.toArray()] as const)),
  );

/**
 * Trains STEPS steps, reading metrics only at every fourth; with `stopAt`, another stepper goes on from that step with the state of the one before, as a
 * resumed run does.
 */
async function run(config: RunConfig, compute: DType, stopAt = Number.NaN): Promise<Outcome & { uncaptured: string | undefined }> {
  let stepper = make(config, compute);
  const accumulator = new Accumulator();
  const loader = new Loader(source, { batch: BATCH, seed: config.train.seed, flip: true, workers: 0 });
  const lines: unknown[] = [];
  for (let step = 0; step < STEPS; step++) {
    if (step === stopAt) {
      const next = make(config, compute);
      for (const [file, tensors] of next.state())
        for (const [name, value] of tensors) noGrad(() => value.copy_(stepper.state().get(file)?.get(name) as Tensor));
      next.refresh();
      next.steps = stepper.steps;
      stepper.dispose();
      stepper = next;
    }
    accumulator.add(stepper.step(await loader.next(), step * BATCH));
    if (step % 4 === 3) lines.push(accumulator.read());
  }
  const outcome = { lines, state: stateOf(stepper), uncaptured: stepper.uncaptured };
  await loader.close();
  accumulator.dispose();
  stepper.dispose();
  return outcome;
}

function assertSame(found: Outcome, wanted: Outcome, what: string): void {
  assert.deepEqual(found.lines, wanted.lines, `${what}: metrics`);
  for (const [name, values] of wanted.state) assert.deepEqual(found.state.get(name), values, `${what}: ${name}`);
}

describe('a captured step is the step', () => {
  const cases: [string, RunSettings, DType][] = [
    ['float32', {}, 'float32'],
    ['bfloat16', {}, 'bfloat16'],
    ['micro-batches', { train: { microBatch: 4 } }, 'float32'],
    ['AdamW', { train: { optimizer: 'adamw', weightDecay: 0.1 } }, 'float32'],
    ['several passes', { objective: { passes: 3 } }, 'float32'],
    ['naive', { objective: { paradigm: 'naive' } }, 'float32'],
    ['self-distillation', { objective: { paradigm: 'self-distillation' } }, 'float32'],
  ];
  for (const [name, settings, compute] of cases)
    captured(name, async () => {
      const before = await liveTensors();
      const without = await run(configOf({ ...settings, train: { ...settings.train, graph: false } }), compute);
      const found = await run(configOf(settings), compute);
      assert.equal(found.uncaptured, undefined);
      assertSame(found, without, 'captured');
      assertSame(await run(configOf(settings), compute, 7), without, 'captured, stopped and gone on with');
      assert.equal(await liveTensors(), before);
    });

  captured('a step that is not finite changes nothing when it is replayed either', async () => {
    const stepper = make(configOf({}));
    const loader = new Loader(source, { batch: BATCH, seed: 0, workers: 0 });
    const accumulator = new Accumulator();
    const bias = stepper.target.weights.get('patch_in.bias');
    for (let step = 0; step < 8; step++) {
      const kept = step === 5 ? bias.clone() : undefined;
      const states = kept && stateOf(stepper);
      if (kept) noGrad(() => bias.fill_(Number.NaN));
      accumulator.add(stepper.step(await loader.next(), step * BATCH));
      if (!kept) continue;
      noGrad(() => bias.copy_(kept));
      for (const [name, values] of stateOf(stepper))
        if (/^(online|optimizer) /.test(name)) assert.deepEqual(values, states?.get(name), name);
    }
    assert.deepEqual(
      accumulator.read().bad,
      Array.from({ length: 8 }, (_, step) => step === 5),
    );
    await loader.close();
    accumulator.dispose();
    stepper.dispose();
  });

  captured('batches of another size or parity, and other parts of a batch, are captured anew or run as they are', async () => {
    const config = configOf({});
    const [a, b] = [make(config), make(configOf({ train: { graph: false } }))];
    const batches = [16, 16, 16, 16, 8, 8, 8, 8, 7, 7, 7, 7, 16, 16, 16, 16];
    let first = 0;
    for (const [i, size] of batches.entries()) {
      if (i === 14) a.micro = b.micro = 4;
      const loader = new Loader(source, { batch: size, seed: 0, workers: 0, start: first });
      const batch = await loader.next();
      await loader.close();
      const [x, y] = [a, b].map((stepper) => scope(() => Number(stepper.step(batch, first).terms.total?.item())));
      assert.equal(x, y, `batch ${i} of ${size}`);
      first += size;
    }
    a.dispose();
    b.dispose();
  });

  /** The total loss of each step. */
  async function totals(stepper: Stepper, onStep: (step: number) => void = () => {}, size = BATCH): Promise<number[]> {
    const loader = new Loader(source, { batch: size, seed: 0, workers: 0 });
    const found: number[] = [];
    for (let step = 0; step < STEPS; step++) {
      onStep(step);
      const batch = await loader.next();
      found.push(scope(() => Number(stepper.step(batch, step * size).terms.total?.item())));
    }
    await loader.close();
    stepper.dispose();
    return found;
  }

  captured('a step that cannot be captured runs as it is, and says why', async () => {
    class Reading extends Stepper {
      protected override microBatch(...args: Parameters<Stepper['microBatch']>): ReturnType<Stepper['microBatch']> {
        const part = super.microBatch(...args);
        part.losses.total.toArray();
        return part;
      }
    }
    const wanted = await totals(make(configOf({ train: { graph: false } })));
    const reading = make(configOf({}), 'float32', Reading);
    assert.deepEqual(await totals(reading), wanted);
    assert.match(String(reading.uncaptured), /captur/);
  });

  captured('memory that runs out in a capture leaves the batch whole: steps of its size had fitted', async () => {
    let calls = 0;
    class Cramped extends Stepper {
      protected override microBatch(inputs: Inputs, start: number, end: number): ReturnType<Stepper['microBatch']> {
        if (++calls === 3) throw Object.assign(new Error('CUDA out of memory'), { code: 'ERR_TORCH_MEMORY' });
        return super.microBatch(inputs, start, end);
      }
    }
    const wanted = await totals(make(configOf({ train: { graph: false } })));
    const cramped = make(configOf({}), 'float32', Cramped);
    assert.deepEqual(await totals(cramped), wanted);
    assert.equal(cramped.micro, BATCH);
    assert.match(String(cramped.uncaptured), /memory does not suffice .* 16 pictures at a time; try --set train\.microBatch=8/);
    assert.equal(calls, STEPS + 1, 'once captured in vain');
  });

  captured('a captured step that is released is captured again after the usual steps', async () => {
    let calls = 0;
    class Counting extends Stepper {
      protected override microBatch(...args: Parameters<Stepper['microBatch']>): ReturnType<Stepper['microBatch']> {
        calls++;
        return super.microBatch(...args);
      }
    }
    const wanted = await totals(make(configOf({ train: { graph: false } })));
    const stepper = make(configOf({}), 'float32', Counting);
    const released: boolean[] = [];
    const found = await totals(stepper, (step) => {
      if (step === 1 || step === 6 || step === 7) released.push(stepper.release());
    });
    assert.deepEqual(found, wanted);
    assert.deepEqual(released, [false, true, false]);
    assert.equal(calls, 1 + 3 + 1 + 3);
  });

  captured('steps of an odd number of pictures are captured where none is masked; where some are, it is said that none is', async () => {
    const take = async (settings: RunSettings): Promise<{ totals: number[]; uncaptured: string | undefined; calls: number }> => {
      let calls = 0;
      class Counting extends Stepper {
        protected override microBatch(...args: Parameters<Stepper['microBatch']>): ReturnType<Stepper['microBatch']> {
          calls++;
          return super.microBatch(...args);
        }
      }
      const config = configOf({ ...settings, train: { ...settings.train, batch: 15, images: 15_000 } });
      const stepper = make(config, 'float32', Counting);
      return { totals: await totals(stepper, () => {}, 15), uncaptured: stepper.uncaptured, calls };
    };
    for (const mask of [0, 0.5]) {
      const wanted = await take({ objective: { mask }, train: { graph: false } });
      const found = await take({ objective: { mask } });
      assert.equal(wanted.uncaptured, undefined);
      assert.deepEqual(found.totals, wanted.totals);
      assert.equal(found.calls, mask > 0 ? STEPS : 3);
      if (mask > 0) assert.match(String(found.uncaptured), /batches of 15, an odd number.*even train\.batch/);
      else assert.equal(found.uncaptured, undefined);
    }
  });

  captured('memory is flat over replays, and given back', async () => {
    const before = await liveTensors();
    const stepper = make(configOf({}));
    const accumulator = new Accumulator();
    const loader = new Loader(source, { batch: BATCH, seed: 0, workers: 0 });
    const batch = await loader.next();
    const at: number[] = [];
    for (let step = 0; step < 30; step++) {
      accumulator.add(stepper.step({ ...batch, firstImage: step * BATCH }, step * BATCH));
      at.push(memory().live);
    }
    // A flag for each step since the last line is all that is added.
    assert.equal((at[29] as number) - (at[9] as number), 20);
    await loader.close();
    accumulator.dispose();
    stepper.dispose();
    assert.equal(await liveTensors(), before);
  });
});

describe('captured sampling', () => {
  const options: SamplerOptions = { solver: 'heun', steps: 9, guidance: 3, interval: [0.2, 0.9], shift: 0.71, target: 'clean' };
  const config = modelConfig(configOf({}), { channels: 3, classes: 4 });

  /** The same solver, with every operator called. */
  function eager(model: Model, noise: Tensor, labels: Tensor, settings: SamplerOptions): Tensor {
    return scope(() => {
      const solver = sample(LATENTS, noise, settings);
      let turn = solver.next();
      while (!turn.done) {
        const { z, t, guided } = turn.value;
        const rows = z.shape[0] as number;
        const own = labels.toArray() as BigInt64Array;
        const asked = guided ? BigInt64Array.from([...own, ...own.map(() => BigInt(config.classes))]) : own;
        turn = solver.next(model.denoise(z, full([rows], t, { device }), tensor(asked, [rows], { device })).prediction);
      }
      return model.decode(turn.value).clamp(-1, 1);
    });
  }

  for (const [name, settings] of [
    ['Heun', {}],
    ['Euler', { solver: 'euler' }],
    ['velocity', { target: 'velocity' }],
    ['no guidance', { guidance: 1 }],
    ['one step', { steps: 1 }],
  ] as const)
    captured(`${name}: batch after batch, of another size last`, async () => {
      const model = Model.init(config, 3, { device });
      const before = await liveTensors();
      noGrad(() =>
        scope(() => {
          const sampler = new Sampler(model, model, 'bfloat16');
          for (const [batch, size] of [6, 6, 6, 2].entries()) {
            const noise = randn({ lo: batch, hi: 0 }, 0, model.latentShape(size), { device });
            const labels = tensor(
              BigInt64Array.from({ length: size }, (_, i) => BigInt((batch + i) % 4)),
              [size],
              { device },
            );
            const chosen = { ...options, ...settings };
            const found = sampler.draw({ noise, labels, options: chosen });
            assert.deepEqual(found.toArray(), eager(model.in('bfloat16'), noise, labels, chosen).toArray(), `batch ${batch}`);
          }
          sampler.dispose();
        }),
      );
      assert.equal(await liveTensors(), before);
      model.dispose();
    });
});
