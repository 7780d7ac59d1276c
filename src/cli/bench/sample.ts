/** `dsd bench sample`: drawing pictures, many at a time and one alone, beside the same work in PyTorch. */
import { key } from '../../core/random.js';
import { Sampler } from '../../dsd/generate.js';
import { Model } from '../../dsd/model.js';
import type { SamplerOptions } from '../../dsd/sampler.js';
import { forwardFlops } from '../../dsd/sizes.js';
import { memory, noGrad, profile, randn, scope, tensor } from '../../torch/index.js';
import type { Engine } from '../engine.js';
import { print, printJson } from '../output.js';
import { count, counted } from '../text.js';
import { NO_PEER, type PeerMode, runPeer } from './against.js';
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
  type WorkFlags,
} from './work.js';

export interface SampleFlags extends WorkFlags {
  readonly steps: number | undefined;
  readonly against: string | undefined;
  readonly 'peer-compile': readonly PeerMode[];
  readonly profile: boolean;
}

const STEPS = 50;
const BATCH = 64;
const [WARM_UP, DRAWS] = [2, 5];

export interface SampleRow {
  readonly batch: number;
  /** Of a draw, from noise on the device to pictures on the device. */
  readonly times: Times;
  readonly imagesPerSecond: number;
  readonly mfu: number | null;
  /** Most bytes of tensors on the device, and what the process held in the end; null on a CPU. */
  readonly memory: number | null;
  readonly reserved: number | null;
  /** Whether the network's calls were replays of captured ones, or why not; null on a CPU. */
  readonly captured: Captured;
  readonly profile: StepProfile | null;
}

export async function benchSample(flags: SampleFlags, loadBefore: number): Promise<void> {
  const say = (text: string): unknown => !flags.quiet && process.stderr.write(`${text}\n`);
  const engine = openBench(flags);
  const peak = peakOf(engine, flags.peak);
  const work = findWork(flags);
  const steps = flags.steps ?? STEPS;
  const batch = flags.batch ?? BATCH;
  // Guidance in every step and an even grid, as the peer has them.
  const options: SamplerOptions = { solver: 'euler', steps, guidance: 2, interval: [0, 1], shift: 1, target: 'clean' };
  const passes = 2 * steps + 1;
  const modes = flags['peer-compile'].length > 0 ? flags['peer-compile'] : ([engine.device === 'cpu' ? 'none' : 'default'] as const);
  const peers = flags.against
    ? await runPeer({ file: flags.against, modes, work, batch, engine, steps: DRAWS, sample: steps, say })
    : NO_PEER;

  const { device, compute } = engine;
  const rows: SampleRow[] = [];
  const model = Model.init(work.model, 0, { device });
  for (const size of new Set([batch, 1])) {
    say(`draws of ${counted(size, 'picture')}`);
    if (device !== 'cpu') resetMemory();
    const sampler = new Sampler(model, model, compute);
    const draw = drawer(sampler, model, size, engine, options);
    for (let i = 0; i < WARM_UP; i++) draw();
    const times = timesOf(Array.from({ length: DRAWS }, () => clock(device, draw)));
    const rate = (size / times.median) * 1000;
    const { cudaPeak, cudaReserved } = memory();
    rows.push({
      ...{ batch: size, times, imagesPerSecond: rate, mfu: mfuOf(rate, passes, forwardFlops(work.model), peak) },
      ...(device === 'cpu' ? { memory: null, reserved: null } : { memory: cudaPeak, reserved: cudaReserved }),
      captured: capturedOf(device, sampler),
      profile: flags.profile ? stepProfile(profile(draw), 1, times.median) : null,
    });
    sampler.dispose();
  }
  model.dispose();
  const answers = peers.results.map((peer) => ({
    ...peer,
    mfu: mfuOf(peer.imagesPerSecond, passes, forwardFlops(work.model), peak),
    ratio: (rows[0] as SampleRow).imagesPerSecond / peer.imagesPerSecond,
  }));
  if (flags.json)
    return printJson({
      ...{ engine: engine.about, loadBefore, preset: work.preset, network: work.network, model: work.model, sampler: options, passes },
      ...{ forwardFlops: forwardFlops(work.model), peak: peak ?? null, rows, peers: answers },
      peerFailures: peers.failures,
    });
  print(
    `${counted(steps, 'Euler step')} with guidance, then decoding (${passes} forward passes a picture), on ${engine.about}; ${describePeak(peak, compute)}`,
    `${work.network}: ${describeModel(work.model)}`,
    '',
    ...markdown(
      ['', 'pictures', 'images/s', 'MFU', 'ms a draw (smallest to largest)', 'peak memory', 'held'],
      [
        ...rows.map((row) => [
          ...['ours', count(row.batch), shown(row.imagesPerSecond), percent(row.mfu)],
          ...[spread(row.times.median, row.times.range), gibibytes(row.memory), gibibytes(row.reserved)],
        ]),
        ...answers.map((peer) => [
          ...[`PyTorch ${peer.torch}, ${peer.mode}`, count(peer.batch), shown(peer.imagesPerSecond), percent(peer.mfu)],
          ...[spread(peer.times.median, peer.times.range), gibibytes(peer.memory)],
        ]),
      ],
      [1, 2, 3, 4, 5, 6],
    ),
  );
  for (const peer of answers) print(`ours / PyTorch, ${peer.mode}: ${shown(peer.ratio)}`);
  for (const { mode, failure } of peers.failures) print(`PyTorch, ${mode}: ${failure}`);
  for (const { batch: size, captured, profile: found } of rows) {
    if (typeof captured === 'string')
      print(`${counted(size, 'picture')} at a time: the network's calls were not captured in a graph: ${captured}`);
    if (found) print('', `${counted(size, 'picture')} at a time:`, '', ...showProfile(found));
  }
}

/** Draws so many pictures of classes in turn, and frees them. */
function drawer(sampler: Sampler, model: Model, batch: number, { device }: Engine, options: SamplerOptions): () => void {
  const labels = BigInt64Array.from({ length: batch }, (_, i) => BigInt(i % Math.max(1, model.config.classes)));
  return () =>
    noGrad(() =>
      scope(() => {
        const noise = randn(key(0, 'bench'), 0, model.latentShape(batch), { device });
        sampler.draw({ noise, labels: tensor(labels, [batch], { dtype: 'int64', device }), options });
      }),
    );
}
