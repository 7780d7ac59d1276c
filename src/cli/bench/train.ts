/** `dsd bench train`: training steps of a preset's network on this device, by recipe, beside the same work in PyTorch. */
import { type Batch, Loader } from '../../data/loader.js';
import { openData } from '../../data/open.js';
import type { DataSet } from '../../data/source.js';
import { countParameters, forwardFlops } from '../../dsd/sizes.js';
import { memory, profile, scope } from '../../torch/index.js';
import type { RunSettings } from '../../train/config.js';
import { deviceWaited, pace } from '../../train/pace.js';
import { passes } from '../../train/schedule.js';
import { Stepper } from '../../train/step.js';
import type { Engine } from '../engine.js';
import { noisePictures } from '../measure.js';
import { print, printJson } from '../output.js';
import { count } from '../text.js';
import { NO_PEER, type PeerAnswers, type PeerMode, type PeerResult, runPeer } from './against.js';
import { type StepProfile, showProfile, stepProfile } from './kernels.js';
import { gibibytes, markdown, percent, shown, spread } from './report.js';
import {
  type Captured,
  capturedOf,
  clock,
  describeModel,
  describePeak,
  findWork,
  mfuOf,
  openBench,
  peakOf,
  resetMemory,
  type Times,
  timesOf,
  type Work,
  type WorkFlags,
  waitFor,
} from './work.js';

export interface TrainFlags extends WorkFlags {
  readonly steps: number | undefined;
  readonly recipe: Recipe | undefined;
  readonly against: string | undefined;
  readonly 'peer-compile': readonly PeerMode[];
  readonly profile: boolean;
  readonly data: string | undefined;
}

export const RECIPES = ['peer', 'preset'] as const;
export type Recipe = (typeof RECIPES)[number];

/** What the program in Python does: one denoising pass, no mask, AdamW, and of the losses the two that make a DSD. */
const PEER_RECIPE: RunSettings = {
  train: { optimizer: 'adamw' },
  objective: {
    ...{ mask: 0, passes: 1, dropClass: 0, decoderNoise: { probability: 0 } },
    weights: { reconstruction: 1, squared: 0, perceptual: 0, denoise: 1, align: 0, represent: 0, classify: 0 },
  },
};

const STEPS = 20;
/** As many as the peer's. Kernels are compiled, memory is had, and a graph is captured in them. */
const WARM_UP = 5;
/** A profile keeps every launch in memory. */
const PROFILED = 5;

export interface TrainRow {
  readonly recipe: Recipe;
  readonly deterministic: boolean;
  readonly batch: number;
  /** Pictures of a forward and backward pass; less than the batch where that was asked for, or where memory ran out. */
  readonly microBatch: number;
  /** Of steps that each begin on an idle device. */
  readonly times: Times;
  readonly imagesPerSecond: number;
  /** Of as many steps without a wait between them, as training has them. */
  readonly backToBack: number;
  /** Through the trunk, in forward passes a picture (a backward counts two). */
  readonly passes: number;
  readonly mfu: number | null;
  /** Bytes of tensors on the device at most, from before the network was made; null on a CPU. */
  readonly memory: number | null;
  /** What the process holds of the device: also the memory of a captured step, which no peak of tensors shows. */
  readonly reserved: number | null;
  /** Whether the timed steps were replays of a captured one, or why not; null on a CPU. */
  readonly captured: Captured;
  readonly parameters: number;
  /** Seconds from the start of this process, less what the peer took, to the end of the first step; of the first row only. */
  readonly first: number | null;
  /** Share of the time, steps back to back, in which at most the device waited for pictures; null without --data. */
  readonly dataWait: number | null;
  readonly loss: number;
  readonly profile: StepProfile | null;
}

export async function benchTrain(flags: TrainFlags, loadBefore: number): Promise<void> {
  const say = (text: string): unknown => !flags.quiet && process.stderr.write(`${text}\n`);
  const engine = openBench(flags);
  const set = flags.data === undefined ? undefined : await openPictures(flags, flags.data);
  const found = set && { channels: set.train.channels, classes: set.train.classes.length };
  const work = (recipe: Recipe): Work => findWork(flags, recipe === 'peer' ? PEER_RECIPE : {}, found);
  const peak = peakOf(engine, flags.peak);
  const steps = flags.steps ?? STEPS;

  const same = work('peer');
  const peerBatch = batchOf(same, 'peer', flags.batch);
  const modes = flags['peer-compile'].length > 0 ? flags['peer-compile'] : ([engine.device === 'cpu' ? 'none' : 'default'] as const);
  // The peer goes first: what this process has once taken of the device's memory it keeps.
  const before = performance.now();
  const peers = flags.against
    ? await runPeer({ file: flags.against, modes, work: same, batch: peerBatch, engine, steps, sample: 0, say })
    : NO_PEER;
  const aside = performance.now() - before;

  const rows: TrainRow[] = [];
  for (const recipe of flags.recipe ? [flags.recipe] : RECIPES) {
    say(`training steps: ${title(recipe, work(recipe))}`);
    rows.push(await measure(work(recipe), recipe, { engine, steps, flags, set, peak, aside: rows.length === 0 ? aside : undefined }));
  }
  if (flags.json)
    return printJson({
      engine: engine.about,
      loadBefore,
      preset: same.preset,
      network: same.network,
      model: same.model,
      parameters: countParameters(same.model),
      forwardFlops: forwardFlops(same.model),
      peak: peak ?? null,
      rows,
      peers: peers.results.map((peer) => ({ ...peer, mfu: peerMfu(peer, same, peak), ratio: ratio(rows, peer) })),
      peerFailures: peers.failures,
    });
  show({ engine, work: same, rows, peers, peak });
}

const title = (recipe: Recipe, { preset, network }: Work): string =>
  recipe === 'peer' ? `the peer's recipe, ${network}` : `recipe of ${preset}${network === preset ? '' : `, ${network}`}`;

/** Pictures of one step: those asked for, else of the peer's recipe what the preset has in memory at a time, and of the preset's own its batch. */
const batchOf = ({ config: { train } }: Work, recipe: Recipe, wanted: number | undefined): number =>
  wanted ?? (recipe === 'peer' ? train.microBatch || train.batch : train.batch);

const openPictures = (flags: TrainFlags, data: string): Promise<DataSet> => {
  const { config } = findWork(flags);
  return openData(data, { size: config.data.image, broken: config.data.broken, workers: config.data.workers });
};

interface Measured {
  readonly engine: Engine;
  readonly steps: number;
  readonly flags: TrainFlags;
  readonly set: DataSet | undefined;
  readonly peak: number | undefined;
  /** Milliseconds of this process that its first step did not wait for; undefined where that is over. */
  readonly aside: number | undefined;
}

async function measure(work: Work, recipe: Recipe, { engine, steps, flags, set, peak, aside }: Measured): Promise<TrainRow> {
  const { device, compute } = engine;
  const batch = batchOf(work, recipe, flags.batch);
  const own = work.config.train;
  // A batch that was asked for is one pass, if it fits; the preset's own is cut as the preset says.
  const train = { ...own, batch, microBatch: batch === own.batch ? own.microBatch : 0 };
  const config = { ...work.config, train };
  if (device !== 'cpu') resetMemory();
  const stepper = new Stepper(config, work.model, device, compute);
  // As training has it.
  const { flip, workers } = config.data;
  const loader = set && new Loader(set.train, { batch, seed: train.seed, flip, workers, prefetch: 4, lend: true });
  const noise = noisePictures(batch, work.model.image, work.model.classes, work.model.channels);
  let images = 0;
  const next = async (): Promise<Batch> => (loader ? loader.next() : { ...noise, firstImage: images });
  let loss = Number.NaN;
  const step = (pictures: Batch, last = false): void =>
    scope(() => {
      const { terms } = stepper.step(pictures, images);
      pictures.release?.();
      images += batch;
      if (last) loss = Number(terms.total?.item());
    });
  try {
    step(await next());
    waitFor(device);
    const first = aside === undefined ? null : (performance.now() - aside) / 1000;
    for (let i = 1; i < WARM_UP; i++) step(await next());

    const milliseconds: number[] = [];
    for (let i = 0; i < steps; i++) {
      const pictures = await next();
      milliseconds.push(clock(device, () => step(pictures)));
    }
    // While a step was clocked nobody asked for pictures, so the first steps after that find none made ahead.
    let waited = 0;
    let began = performance.now();
    for (let i = -WARM_UP; i < steps; i++) {
      if (i === 0) {
        waitFor(device);
        waited = 0;
        began = performance.now();
      }
      const pictures = await next();
      waited += deviceWaited(pictures);
      step(pictures);
      await pace();
    }
    waitFor(device);
    const took = performance.now() - began;
    step(await next(), true);
    const { cudaPeak, cudaReserved } = memory();

    const times = timesOf(milliseconds);
    const rate = (batch / times.median) * 1000;
    const of = passes(config.objective);
    const profiled = flags.profile ? await profileSteps(next, step) : undefined;
    return {
      ...{ recipe, deterministic: flags.deterministic, batch, microBatch: stepper.micro, times, imagesPerSecond: rate },
      ...{ backToBack: (batch * steps * 1000) / took, passes: of, mfu: mfuOf(rate, of, forwardFlops(work.model), peak) },
      ...(device === 'cpu' ? { memory: null, reserved: null } : { memory: cudaPeak, reserved: cudaReserved }),
      captured: capturedOf(device, stepper, train.graph),
      ...{ parameters: countParameters(work.model).model, first, dataWait: set ? waited / took : null, loss },
      profile: profiled ? stepProfile(profiled, PROFILED, took / steps) : null,
    };
  } finally {
    stepper.dispose();
    await loader?.close();
  }
}

async function profileSteps(next: () => Promise<Batch>, step: (pictures: Batch) => void): Promise<ReturnType<typeof profile>> {
  const batches: Batch[] = [];
  for (let i = 0; i < PROFILED; i++) batches.push(await next());
  return profile(() => batches.forEach((pictures) => void step(pictures)));
}

/** A peer did what rows of its recipe do. */
const ratio = (rows: readonly TrainRow[], peer: PeerResult): number | null => {
  const ours =
    rows.find(({ recipe, deterministic }) => recipe === 'peer' && !deterministic) ?? rows.find(({ recipe }) => recipe === 'peer');
  return ours ? ours.imagesPerSecond / peer.imagesPerSecond : null;
};

const peerMfu = (peer: PeerResult, work: Work, peak: number | undefined): number | null =>
  mfuOf(peer.imagesPerSecond, passes(work.config.objective), forwardFlops(work.model), peak);

interface Shown {
  readonly engine: Engine;
  readonly work: Work;
  readonly rows: readonly TrainRow[];
  readonly peers: PeerAnswers;
  readonly peak: number | undefined;
}

function show({ engine, work, rows, peers, peak }: Shown): void {
  print(
    `training steps on ${engine.about}; ${describePeak(peak, engine.compute)}`,
    `${work.network}: ${describeModel(work.model)}`,
    '',
    ...markdown(
      [
        '',
        'batch',
        'images/s',
        'passes',
        'MFU',
        'ms a step (smallest to largest)',
        'images/s back to back',
        'peak memory',
        'held',
        'first step',
      ],
      [
        ...rows.map((row) => [
          `${title(row.recipe, work)}${row.deterministic ? ', --deterministic' : ''}`,
          `${count(row.batch)}${row.microBatch < row.batch ? ` by ${count(row.microBatch)}` : ''}`,
          ...[shown(row.imagesPerSecond), String(row.passes), percent(row.mfu), spread(row.times.median, row.times.range)],
          ...[shown(row.backToBack), gibibytes(row.memory), gibibytes(row.reserved), shown(row.first, ' s')],
        ]),
        ...peers.results.map((peer) => [
          ...[`PyTorch ${peer.torch}, ${peer.mode}`, count(peer.batch), shown(peer.imagesPerSecond), String(passes(work.config.objective))],
          ...[percent(peerMfu(peer, work, peak)), spread(peer.times.median, peer.times.range), '', gibibytes(peer.memory), ''],
          shown(peer.first, ' s'),
        ]),
      ],
      [1, 2, 3, 4, 5, 6, 7, 8, 9],
    ),
  );
  for (const peer of peers.results) print(`ours / PyTorch, ${peer.mode}: ${shown(ratio(rows, peer))}`);
  for (const { mode, failure } of peers.failures) print(`PyTorch, ${mode}: ${failure}`);
  for (const { captured, dataWait, profile: found, recipe } of rows) {
    if (typeof captured === 'string') print(`${title(recipe, work)}: its steps were not captured in a graph: ${captured}`);
    if (dataWait !== null) print(`${title(recipe, work)}: the device waited for pictures in at most ${percent(dataWait)} of the time`);
    if (found) print('', `${title(recipe, work)}:`, '', ...showProfile(found));
  }
}
