/** `dsd bench save`: what a checkpoint costs training, and how its writing compares with a plain copy of the same bytes. */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { median } from '../../eval/median.js';
import { disk, piecesOf } from '../../io/disk.js';
import { type Device, type DType, emptyCache, engineInfo, scope, setDeterministic, synchronize } from '../../torch/index.js';
import { type CheckpointState, Checkpoints, type Snapshot } from '../../train/checkpoints.js';
import { modelConfig, resolveConfig } from '../../train/config.js';
import { Accumulator } from '../../train/metrics.js';
import { findPreset } from '../../train/presets.js';
import { Saver } from '../../train/saver.js';
import { takeSnapshot } from '../../train/snapshot.js';
import { Stepper } from '../../train/step.js';
import { type EngineFlags, openEngine } from '../engine.js';
import { noisePictures, type Range, range } from '../measure.js';
import { print, printJson } from '../output.js';
import { figure, short, table } from '../text.js';
import { spread } from './report.js';
import { type Captured, capturedOf } from './work.js';

export interface Saving {
  readonly bytes: number;
  /** Seconds, medians. */
  readonly step: number;
  readonly stepRange: Range;
  /** A step with kernels that give the same bits every time: on a GPU a price, on a CPU the same kernels. */
  readonly stepDeterministic: number;
  readonly stepDeterministicRange: Range;
  /** Whether the timed steps were replays of a captured one, or why not; null on a CPU. */
  readonly captured: Captured;
  /** Training stands still while the state is copied into memory. */
  readonly held: number;
  /** A checkpoint written while nothing else is done, and the same files copied and synced. */
  readonly write: number;
  readonly copy: number;
  /** A checkpoint written while training goes on, and what the steps meanwhile took beyond their usual time. */
  readonly writeBeside: number;
  readonly slowed: number;
}

export interface SavingOptions {
  readonly preset: string;
  readonly batch: number;
  readonly device: Device;
  readonly compute: DType;
  /** A folder on the disk to measure. */
  readonly folder: string;
  readonly repeats: number;
  readonly say: (text: string) => unknown;
}

const CLASSES = 1000;

export interface SaveFlags extends EngineFlags {
  readonly preset: string | undefined;
  readonly batch: number | undefined;
  readonly json: boolean;
  readonly quiet: boolean;
}

/** Minutes between checkpoints that costs are stated for: the presets' own. */
const MINUTES = 5;

export async function benchSave(flags: SaveFlags, loadBefore: number): Promise<void> {
  const engine = openEngine(flags);
  const preset = flags.preset ?? 'demo';
  const say = (text: string): unknown => !flags.quiet && process.stderr.write(`${text}\n`);
  const found = await measureSaving({
    ...{ preset, batch: flags.batch ?? 64, device: engine.device, compute: engine.compute, folder: '.', repeats: 3, say },
  });
  // Steps that happened to be faster than usual give nothing back.
  const share = (found.held + Math.max(0, found.slowed)) / (MINUTES * 60);
  if (flags.json) return printJson({ preset, compute: engine.about, loadBefore, ...found, shareAtFiveMinutes: share });
  print(
    `${preset} on ${engine.about}: a checkpoint has ${short(found.bytes, ' ')}B; a training step takes ${spread(found.step * 1000, inMilliseconds(found.stepRange))} ms, with --deterministic ${spread(found.stepDeterministic * 1000, inMilliseconds(found.stepDeterministicRange))} ms`,
    ...table([
      ['training stands still for it', `${figure(found.held)} s`],
      ['written in', `${figure(found.write)} s`],
      ['the same bytes copied and synced in', `${figure(found.copy)} s; written / copied ${figure(found.write / found.copy)}`],
      ['written while training goes on in', `${figure(found.writeBeside)} s, which slows the steps by ${figure(found.slowed)} s in all`],
      [`one every ${MINUTES} minutes costs`, `${figure(100 * share)} % of training time`],
    ]),
    ...(typeof found.captured === 'string' ? [`the steps were not captured in a graph: ${found.captured}`] : []),
  );
}

const inMilliseconds = ([from, to]: Range): Range => [from * 1000, to * 1000];

export async function measureSaving({ preset, batch, device, compute, folder, repeats, say }: SavingOptions): Promise<Saving> {
  const config = resolveConfig(findPreset(preset).settings, { train: { batch, microBatch: 0, images: 1_000_000 } });
  say(`making ${preset}`);
  const model = modelConfig(config, { channels: 3, classes: CLASSES });
  let stepper: Stepper | undefined;
  const accumulator = new Accumulator();
  const place = mkdtempSync(join(folder, '.dsd-bench-'));
  const saver = new Saver(place, 1);
  let images = 0;
  // Made once: making them takes as long as a step on a GPU, and would hide what is measured.
  const pictures = noisePictures(batch, config.data.image, CLASSES);
  const step = (of: Stepper): number => {
    const began = performance.now();
    scope(() => void of.step({ ...pictures, firstImage: images }, images));
    images += batch;
    if (device !== 'cpu') synchronize();
    return (performance.now() - began) / 1000;
  };
  const state = (of: Stepper): CheckpointState => ({
    ...{ images, steps: of.steps, skipped: 0, row: 0, unlogged: 0, classes: [], pictures: { train: 1, heldOut: 1 }, pcaPsnr: 0 },
    evaluation: null,
    ranOn: { libtorch: engineInfo().version, device, compute: compute === 'bfloat16' ? 'bfloat16' : 'float32', threads: 1, micro: batch },
    saved: new Date().toISOString(),
    config,
  });
  /** Writing needs new arrays each time: they go to the thread. */
  const snapshot = (of: Stepper): { taken: Snapshot; seconds: number } => {
    const began = performance.now();
    const taken = takeSnapshot(of, accumulator, state(of));
    return { taken, seconds: (performance.now() - began) / 1000 };
  };
  try {
    say('training steps');
    // Its own stepper: one that had captured its steps would go on with the kernels that were captured. One at a time, for the memory.
    const time = (deterministic: boolean): { timed: Stepper; seconds: number[] } => {
      stepper?.dispose();
      stepper = undefined;
      emptyCache();
      setDeterministic(deterministic);
      const timed = new Stepper(config, model, device, compute);
      stepper = timed;
      for (let i = 0; i < 3; i++) step(timed);
      return { timed, seconds: Array.from({ length: 8 }, () => step(timed)) };
    };
    // In this order, since cuBLAS takes its settings from the first use.
    const { seconds: sameBits } = time(true);
    const { timed, seconds: anyBits } = time(false);
    const usual = median(anyBits);
    const [held, writes, copies]: [number[], number[], number[]] = [[], [], []];
    let bytes = 0;
    for (let i = 0; i < repeats; i++) {
      say(`checkpoint ${i + 1} of ${repeats}: written, and copied`);
      // A checkpoint is named by it; by a whole batch, since a captured step holds for first pictures of one parity.
      images += batch;
      const { taken, seconds } = snapshot(timed);
      held.push(seconds);
      saver.save(taken);
      const written = await saver.settle();
      if (!written) throw new Error('a checkpoint was not written');
      ({ bytes } = written);
      writes.push(written.milliseconds / 1000);
      copies.push(copy(written.path, join(place, 'copy')));
    }
    say('a checkpoint while training goes on');
    images += batch;
    saver.save(snapshot(timed).taken);
    let slowed = 0;
    while (saver.busy) {
      slowed += step(timed) - usual;
      await turn();
    }
    const beside = await saver.settle();
    return {
      ...{ step: usual, stepRange: range(anyBits), stepDeterministic: median(sameBits), stepDeterministicRange: range(sameBits) },
      ...{ bytes, held: median(held), write: median(writes), copy: median(copies) },
      captured: capturedOf(device, timed, config.train.graph),
      ...{ writeBeside: (beside?.milliseconds ?? Number.NaN) / 1000, slowed },
    };
  } finally {
    await saver.close();
    stepper?.dispose();
    accumulator.dispose();
    for (const { path } of new Checkpoints(place).list()) disk.remove(path);
    disk.remove(place);
  }
}

/** Seconds to copy the files of a folder and sync each. */
function copy(from: string, to: string): number {
  disk.remove(to);
  disk.mkdir(to);
  const began = performance.now();
  for (const name of disk.list(from)) {
    const file = disk.open(join(from, name));
    disk.writeNew(join(to, name), piecesOf(file, file.size));
    file.close();
  }
  const seconds = (performance.now() - began) / 1000;
  disk.remove(to);
  return seconds;
}
