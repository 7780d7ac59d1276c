/**
 * `dsd bench`: what the engine, a training step, sampling and the loader cost on this machine, beside the same work in Python's PyTorch. Ratios
 * of one run: two runs, or two machines, tell less. It measures and judges nothing. The parts are in bench/.
 */
import { loadavg } from 'node:os';
import { UsageError } from '../core/errors.js';
import { DATA_NAMES } from '../data/open.js';
import { SIZES } from '../dsd/sizes.js';
import { cudaAvailable } from '../torch/index.js';
import { PEER_MODES } from './bench/against.js';
import { benchCpu } from './bench/cpu.js';
import { benchLoader } from './bench/loader.js';
import { benchOperators } from './bench/operators.js';
import { benchSample } from './bench/sample.js';
import { benchSave } from './bench/save.js';
import { benchTrain, RECIPES } from './bench/train.js';
import { DEFAULT_PRESET } from './bench/work.js';
import { defineCommand } from './command.js';
import { ENGINE } from './engine.js';
import { RESULT } from './output.js';

const PARTS = ['ops', 'step', 'all', 'save', 'train', 'sample', 'data'] as const;
type Part = (typeof PARTS)[number];

/** What the parts that take a network have in common. */
const NETWORK = ['preset', 'network', 'set', 'batch', 'device', 'dtype', 'peak', 'deterministic'] as const;
/** Flags by the parts that they are for; those of every part are not here. */
const FLAGS: Readonly<Record<Part, readonly string[]>> = {
  all: ['steps'],
  step: ['steps'],
  ops: ['steps', ...NETWORK],
  save: ['preset', 'batch', 'device', 'dtype'],
  train: [...NETWORK, 'steps', 'recipe', 'against', 'peer-compile', 'profile', 'data'],
  sample: [...NETWORK, 'steps', 'against', 'peer-compile', 'profile'],
  data: ['data', 'size', 'workers', 'batch'],
};

export const bench = defineCommand({
  name: 'bench',
  about:
    "Measures. Without a word, or by ops or step, on the CPU: calls of operators against libtorch's own time, matrix products, and a training step of the demo model against the same step in Python's PyTorch (python3, or $PYTHON, if it has torch). On any device: training (train), sampling (sample), the parts of a block each beside its floor (ops), what a checkpoint costs (save). And the loader alone (data).",
  operands: { names: `[${PARTS.join('|')}]`, min: 0, max: 1 },
  flags: {
    preset: {
      kind: 'text',
      value: 'NAME',
      about: `whose network and recipe; ${DEFAULT_PRESET} by default, for save demo. With it, ops measures the parts of its block on a CPU too`,
    },
    network: {
      kind: 'choice',
      of: Object.keys(SIZES) as (keyof typeof SIZES)[],
      about: "widths and depth of another size instead of the preset's",
    },
    set: { kind: 'text', value: 'NAME=VALUE', repeat: true, about: 'change a setting of the preset: data.image=128' },
    batch: {
      kind: 'whole',
      value: 'N',
      min: 1,
      max: 65_536,
      about: 'pictures a step, a draw, or a batch of the loader; by default what the preset has at a time, for save 64',
    },
    device: ENGINE.device,
    dtype: ENGINE.dtype,
    steps: {
      kind: 'whole',
      value: 'N',
      min: 1,
      max: 10_000,
      about: 'step, train: steps timed, 12 or 20; sample: steps of the solver, 50; ops: calls, 20',
    },
    recipe: {
      kind: 'choice',
      of: RECIPES,
      about:
        "train: peer, what the program in Python does (k = 1, no mask, no auxiliary losses, AdamW), or preset, the preset's own; both by default",
    },
    deterministic: { kind: 'switch', about: 'only kernels that give the same bits every time' },
    against: {
      kind: 'text',
      value: 'FILE',
      about: 'train, sample: run bench/peer/dsd_torch.py, or another that takes its flags, before, and print the ratio',
    },
    'peer-compile': {
      kind: 'choice',
      of: PEER_MODES,
      repeat: true,
      about: "torch.compile's mode for it, or graph: the whole step in one CUDA graph; by default default, on a CPU none",
    },
    profile: { kind: 'switch', about: 'train, sample: share of the time by group of kernels, and the longest (CUDA)' },
    peak: {
      kind: 'number',
      value: 'TFLOPS',
      min: 0.001,
      max: 1e9,
      about: "what MFU is a share of; by default the device's own in bfloat16, where known",
    },
    data: {
      kind: 'text',
      value: 'DATA',
      about: `data: what is loaded: a folder, ${DATA_NAMES.join(' or ')}; train: train on it instead of noise`,
    },
    size: { kind: 'whole', value: 'N', min: 8, max: 1024, about: 'data: pixels a side, 256 by default' },
    workers: { kind: 'whole', value: 'N', max: 64, about: 'data: decoding processes; by default one a core, 16 at most' },
    threads: ENGINE.threads,
    ...RESULT,
  },
  examples: [
    ['dsd bench', 'everything on the CPU, about two minutes'],
    ['dsd bench step --steps 40 --json', 'training steps only, for a program'],
    ['dsd bench train --preset imagenet-256-B --batch 64 --against bench/peer/dsd_torch.py', 'the 205M network on a GPU, beside PyTorch'],
    ['dsd bench train --preset imagenet-256-S --batch 128 --profile', 'where the time of a step goes'],
    ['dsd bench sample --preset imagenet-256-B --batch 64', '50 Euler steps with guidance, and one picture alone'],
    ['dsd bench ops --preset imagenet-256-B --batch 64', 'each part of a block: its floor by bytes and FLOPs, and how far from it'],
    ['dsd bench data --data ~/pictures --size 256', 'pictures a second of the loader alone'],
    ['dsd bench save --preset imagenet-256-B --device cuda', 'what a checkpoint of the 205M network costs'],
  ],
  run: async (flags, [word = 'all']) => {
    const [loadBefore = 0] = loadavg();
    const part = PARTS.find((one) => one === word);
    if (part === undefined) throw new UsageError(`dsd bench wants ${PARTS.slice(0, -1).join(', ')} or ${PARTS.at(-1)}; found '${word}'`);
    checkFlags(part, flags);
    // Before what --quiet keeps back: figures that are wrong should not look right.
    const warning = loadWarning(loadBefore);
    if (warning !== undefined) process.stderr.write(`${warning}\n`);
    switch (part) {
      case 'save':
        return benchSave(flags, loadBefore);
      case 'train':
        return benchTrain(flags, loadBefore);
      case 'sample':
        return benchSample(flags, loadBefore);
      case 'data':
        return benchLoader(flags, loadBefore);
      case 'ops':
        if (flags.preset ?? flags.network ?? (flags.device === undefined ? cudaAvailable() : flags.device !== 'cpu'))
          return benchOperators(flags, loadBefore);
        return benchCpu(part, flags, loadBefore);
      default:
        return benchCpu(part, flags, loadBefore);
    }
  },
});

/** @throws UsageError for a flag that would do nothing */
function checkFlags(part: Part, flags: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(flags)) {
    const owners = PARTS.filter((other) => FLAGS[other].includes(name));
    const given = Array.isArray(value) ? value.length > 0 : value !== undefined && value !== false;
    if (given && owners.length > 0 && !owners.includes(part)) throw new UsageError(`--${name} is for dsd bench ${owners.join(', ')}`);
  }
}

/** @param load average number of threads that ran or waited in the last minute; 0 on systems that do not tell */
export const loadWarning = (load: number): string | undefined =>
  load > 0.5
    ? `warning: other programs are running, or did a moment ago (the load of the last minute is ${load.toFixed(1)}, and should be below 0.5): the figures will be off`
    : undefined;
