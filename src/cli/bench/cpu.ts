/** `dsd bench`, and its parts ops and step: calls, matrix products and the demo's training step on the CPU, beside the same in Python's PyTorch. */
import { availableParallelism, cpus } from 'node:os';
import { median } from '../../eval/median.js';
import { cat, type DType, type EngineInfo, engineInfo, noGrad, ones, scope, setThreads, type Tensor, timeCall } from '../../torch/index.js';
import { modelConfig, type RunSettings, resolveConfig } from '../../train/config.js';
import { findPreset } from '../../train/presets.js';
import { Stepper } from '../../train/step.js';
import { callTime, noisePictures, product, type Range, range } from '../measure.js';
import { print, printJson } from '../output.js';
import { findPeer, Peer, type PeerPython, sameVersion } from '../peer.js';
import { counted, figure, table } from '../text.js';
import { spread } from './report.js';

/** One thing measured. */
interface Row {
  readonly name: string;
  readonly ours: number;
  /** The same in Python's PyTorch; null where there is none. */
  readonly peer: number | null;
  /** ours / peer. */
  readonly ratio: number | null;
}
/** Nanoseconds. */
interface CallRow extends Row {
  /** libtorch's own time, called from C++. */
  readonly libtorch: number;
}
/** Milliseconds, medians. */
interface StepRow extends Row {
  /** Smallest and largest: far apart where something else was at work. */
  readonly range: Range;
  readonly peerRange: Range | null;
  /** Of ours. */
  readonly imagesPerSecond: number;
}
interface Results {
  readonly calls?: readonly CallRow[];
  /** GFLOP/s. */
  readonly products?: readonly Row[];
  readonly steps?: readonly StepRow[];
  /** How many times faster a step is in bfloat16 than in float32. */
  readonly bfloat16Gain?: Row;
}

type Say = (text: string) => void;

const DTYPES = ['float32', 'bfloat16'] as const satisfies readonly DType[];
/** Of the demo's data. */
const CLASSES = 9;
const PEER_BATCH = 64;
/** The recipe that the program in Python has: AdamW, no mask, L1 and the clean-latent loss. */
const PEER_RECIPE: RunSettings = { train: { optimizer: 'adamw', batch: PEER_BATCH }, objective: { mask: 0, weights: { squared: 0 } } };
/** Steps of one side before the other's turn, so that both see the machine in the same mood. */
const TURN = 2;
const WARM_UP = 3;

export interface CpuFlags {
  readonly steps: number | undefined;
  readonly threads: number | undefined;
  readonly json: boolean;
  readonly quiet: boolean;
}

/** @param loadBefore average number of threads that ran or waited in the minute before */
export async function benchCpu(
  part: 'ops' | 'step' | 'all',
  { steps = 12, threads, json, quiet }: CpuFlags,
  loadBefore: number,
): Promise<void> {
  if (threads !== undefined) setThreads(threads);
  const info = engineInfo();
  const say: Say = (text) => !quiet && process.stderr.write(`${text}\n`);
  const found = findPeer(info.version);
  const peer = found && startPeer(found, info.threads);
  try {
    const results: Results = {
      ...(part === 'step' ? {} : { calls: await calls(peer, say), products: await products(peer, say) }),
      ...(part === 'ops' ? {} : await trainingSteps(peer, steps, say)),
    };
    if (json) printJson({ engine: info, processor: processor(), loadBefore, peer: found ?? null, ...results });
    else show(info, found, results);
  } finally {
    peer?.close();
  }
}

function startPeer(python: PeerPython, threads: number): Peer {
  const { data, model } = resolveConfig(findPreset('demo').settings);
  const { width, depth, heads, hidden, patch, latent } = model;
  const sizes = { width, depth, heads, hidden, patch, latent, image: data.image, classes: CLASSES };
  return new Peer(python, ['--threads', `${threads}`, '--batch', `${PEER_BATCH}`, '--model', JSON.stringify(sizes)]);
}

const compare = (name: string, ours: number, peer: number | undefined): Row => ({
  name,
  ours,
  peer: peer ?? null,
  ratio: peer === undefined ? null : ours / peer,
});

/** Calls on one number, where the work itself costs next to nothing. */
async function calls(peer: Peer | undefined, say: Say): Promise<CallRow[]> {
  say('calls of operators');
  const x = ones([1]);
  const tracked = ones([1], { requiresGrad: true });
  const four = [x, x, x, x];
  const cases: readonly (readonly [
    name: string,
    peer: string,
    ours: () => Tensor,
    operator: string,
    args: Parameters<typeof timeCall>[1],
  ])[] = [
    ['add', 'add', () => x.add(x), 'aten::add.Tensor', [x, x]],
    ['add, recorded for gradients', 'tracked', () => tracked.add(tracked), 'aten::add.Tensor', [tracked, tracked]],
    ['view', 'view', () => x.view(1, 1), 'aten::view', [x, [1, 1]]],
    ['cat of four', 'cat', () => cat(four), 'aten::cat', [four]],
  ];
  const rows: CallRow[] = [];
  for (const [name, asked, ours, operator, args] of cases) {
    const time = callTime(ours);
    const libtorch = Math.min(...Array.from({ length: 20 }, () => timeCall(operator, args, 1000)));
    rows.push({ ...compare(name, time, await peer?.ask<number>('call', asked)), libtorch });
  }
  return rows;
}

async function products(peer: Peer | undefined, say: Say): Promise<Row[]> {
  say('matrix products');
  const rows: Row[] = [];
  for (const dtype of DTYPES)
    rows.push(
      compare(
        dtype,
        noGrad(() => product(dtype)),
        await peer?.ask<number>('product', dtype),
      ),
    );
  return rows;
}

/** The step that the peer takes too, in both precisions, then the demo's own recipe. */
async function trainingSteps(peer: Peer | undefined, count: number, say: Say): Promise<Pick<Results, 'steps' | 'bfloat16Gain'>> {
  const rows: StepRow[] = [];
  for (const [title, settings] of [
    ['same recipe', PEER_RECIPE],
    ["the demo's own", {}],
  ] as const) {
    for (const dtype of DTYPES) {
      const { batch, step, dispose } = stepper(settings, dtype);
      const name = `${title}, batch ${batch}, ${dtype}`;
      say(`training steps: ${name}`);
      const other = settings === PEER_RECIPE ? peer : undefined;
      const warmUp = Math.min(WARM_UP, count);
      for (let i = 0; i < warmUp; i++) step();
      await other?.ask('step', dtype, warmUp);
      const [ours, theirs]: [number[], number[]] = [[], []];
      while (ours.length < count) {
        const turn = Math.min(TURN, count - ours.length);
        for (let i = 0; i < turn; i++) ours.push(step());
        theirs.push(...((await other?.ask<number[]>('step', dtype, turn)) ?? []));
      }
      dispose();
      const time = median(ours);
      rows.push({
        ...compare(name, time, other && median(theirs)),
        ...{ range: range(ours), peerRange: other ? range(theirs) : null, imagesPerSecond: (batch / time) * 1000 },
      });
    }
  }
  const [wide, narrow] = rows as [StepRow, StepRow];
  const gain = wide.peer !== null && narrow.peer !== null ? wide.peer / narrow.peer : undefined;
  return { steps: rows, bfloat16Gain: compare('bfloat16 over float32', wide.ours / narrow.ours, gain) };
}

/** A training step on pictures of noise; `step` returns its milliseconds. */
function stepper(settings: RunSettings, dtype: DType): { batch: number; step: () => number; dispose: () => void } {
  const config = resolveConfig(findPreset('demo').settings, settings);
  const { batch } = config.train;
  const trainer = new Stepper(config, modelConfig(config, { channels: 3, classes: CLASSES }), 'cpu', dtype);
  let seen = 0;
  const pictures = noisePictures(batch, config.data.image, CLASSES);
  const step = (): number => {
    const begun = performance.now();
    scope(() => void trainer.step({ ...pictures, firstImage: seen }, seen));
    seen += batch;
    return performance.now() - begun;
  };
  return { batch, step, dispose: () => trainer.dispose() };
}

const processor = (): string => `${cpus()[0]?.model.trim() ?? 'unknown'}, ${counted(availableParallelism(), 'core')}`;

function show(info: EngineInfo, peer: PeerPython | undefined, { calls, products, steps, bfloat16Gain }: Results): void {
  print(
    `${processor()}; ${counted(info.threads, 'thread')}`,
    `ours: libtorch ${info.version}, ${info.blas || 'its own BLAS'}`,
    peer
      ? `peer: PyTorch ${peer.torch} of ${peer.python}${sameVersion(peer.torch, info.version) ? '' : ', ANOTHER VERSION than ours: ratios compare the two engines too'}`
      : 'peer: none, since neither $PYTHON nor python3 has torch (Debian, Ubuntu: apt-get install python3-torch)',
  );
  const shown = (x: number | null): string => (x === null ? '-' : figure(x));
  const section = (head: readonly string[], rows: readonly (readonly string[])[]): void =>
    print('', ...table([head, ...rows], [1, 2, 3, 4, 5]));
  if (calls) {
    section(
      ['nanoseconds a call', 'ours', "libtorch's own", 'over it', 'peer', 'ours / peer'],
      calls.map((row) => [row.name, ...[row.ours, row.libtorch, row.ours - row.libtorch, row.peer, row.ratio].map(shown)]),
    );
  }
  if (products) {
    section(
      ['GFLOP/s, matrix product', 'ours', 'peer', 'ours / peer'],
      products.map((row) => [row.name, ...[row.ours, row.peer, row.ratio].map(shown)]),
    );
  }
  if (steps && bfloat16Gain) {
    section(
      ['milliseconds a training step (smallest to largest)', 'ours', 'peer', 'ours / peer', 'our images/s'],
      steps.map((row) => [
        row.name,
        spread(row.ours, row.range),
        row.peer !== null && row.peerRange ? spread(row.peer, row.peerRange) : '-',
        ...[row.ratio, row.imagesPerSecond].map(shown),
      ]),
    );
    const { name, ours, peer: theirs } = bfloat16Gain;
    print(`${name}, same recipe: ${figure(ours)} times as fast${theirs === null ? '' : `; peer ${figure(theirs)}`}`);
  }
}
