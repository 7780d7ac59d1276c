/** Named configurations. Each states what it costs and what to expect; figures are measured ones, with the machine, or say that they are not. */
import { nearest, UsageError } from '../core/errors.js';
import { SIZES, type Size } from '../dsd/sizes.js';
import { merge, type RunSettings } from './config.js';

export interface Preset {
  readonly about: string;
  readonly cost: string;
  readonly expect: string;
  readonly settings: RunSettings;
}

/** What every preset shares. ARCHITECTURE.md, The method: training, sampling. */
const base: RunSettings = {
  data: { flip: true, workers: 2, broken: 'error' },
  model: { latentNorm: true, prototypes: 1024 },
  objective: {
    paradigm: 'dsd',
    gradientIntoInput: 1,
    mask: 0.25,
    passes: 1,
    time: { mean: 0, std: 1, shift: 0.71, weighting: 0 },
    decoderNoise: { probability: 0.5, from: 0.7 },
    dropClass: 0.1,
    labels: true,
    weights: { reconstruction: 1, squared: 1, perceptual: 0, denoise: 0.3, align: 0.5, represent: 0.25, classify: 0.1 },
  },
  train: {
    optimizer: 'muon',
    microBatch: 0,
    decay: 1,
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    weightDecay: 0,
    clip: 1,
    targetDecay: 0.999,
    averageDecay: 0.999,
    seed: 0,
    dtype: 'auto',
    deterministic: false,
    graph: true,
  },
  checkpoint: { minutes: 5, keep: 2, onError: 'continue' },
  sample: { solver: 'heun', steps: 25, guidance: 2, interval: [0.1, 1], rows: 8 },
};

const preset = (about: string, cost: string, expect: string, settings: RunSettings): Preset => ({
  about,
  cost,
  expect,
  settings: merge(base, settings),
});

const imagenet = (name: 'S' | 'M' | 'B', batch: number, learningRate: number): Preset =>
  preset(
    `ImageNet 256 x 256, size ${name}, class-conditional: the paper's setting with our shapes; --data names a folder of class folders`,
    'days on one H100 (50 epochs are 64 million pictures); not run by us',
    'not trained by us; the paper reports FID 13.44 / 6.38 / 4.25 for its 42M / 118M / 205M networks after 50 epochs, without guidance',
    {
      data: { source: 'imagenet', image: 256, workers: 12, broken: 'skip' },
      model: { ...SIZES[name], patch: 16, latent: 32 },
      train: {
        images: 64_000_000,
        batch,
        microBatch: 64,
        learningRate,
        warmup: 1_000_000,
        decay: 0.2,
        targetDecay: 0.9999,
        averageDecay: 0.9999,
      },
      log: { every: 2_048, evaluate: 512_000, save: 512_000 },
      sample: { steps: 50, rows: 1 },
    },
  );

const small = (size: Size, latent: number): RunSettings['model'] => ({ ...size, patch: 4, latent });

export const PRESETS = {
  demo: preset(
    'openmoji, 1,914 colour pictures in 9 groups at 32 px, without auxiliary losses: to see it work on a CPU',
    '2.5 minutes on 2 cores of an AMD EPYC with AVX512-BF16; about 6 in float32',
    'PSNR 31.8 dB on held-out pictures (per-patch PCA of equal width: 26.0 dB), effective rank 13.3 of 15; samples with colours and outlines, not details',
    {
      data: { source: 'openmoji', image: 32 },
      model: small(SIZES.demo, 16),
      objective: { weights: { align: 0, represent: 0, classify: 0 } },
      train: { images: 25_000, batch: 32, learningRate: 2e-3, warmup: 960, targetDecay: 0.99, averageDecay: 0.97 },
      log: { every: 640, evaluate: 3200, save: 6400 },
      sample: { guidance: 3 },
    },
  ),
  'fashion-mnist': preset(
    'Fashion-MNIST, 60,000 grey pictures in 10 classes at 32 px; of the auxiliary losses only classification',
    '6:14 on one H100',
    'PSNR 28.3 dB on test pictures (per-patch PCA of equal width: 23.5 dB); at guidance 2, 97 % of samples in the asked class by the classifier of `dsd eval`',
    {
      data: { source: 'fashion-mnist', image: 32, flip: false },
      model: small(SIZES.T, 6),
      objective: { weights: { align: 0, represent: 0 } },
      train: { images: 1_280_000, batch: 512, learningRate: 1e-3, warmup: 51_200, targetDecay: 0.995, averageDecay: 0.998 },
      log: { every: 12_800, evaluate: 128_000, save: 320_000 },
    },
  ),
  'imagenet-256-S': imagenet('S', 1024, 4e-4),
  'imagenet-256-M': imagenet('M', 1024, 4e-4),
  'imagenet-256-B': imagenet('B', 1024, 2e-4),
  toy: preset('a network of 51,000 weights on openmoji: for tests and for trying flags', 'seconds', 'nothing worth looking at', {
    data: { source: 'openmoji', image: 16 },
    model: small(SIZES.toy, 8),
    train: { images: 3200, batch: 32, learningRate: 1e-3, warmup: 320, targetDecay: 0.99, averageDecay: 0.99 },
    log: { every: 320, evaluate: 1600, save: 1600 },
    sample: { steps: 8, rows: 2 },
  }),
} as const satisfies Record<string, Preset>;

/** @throws UsageError naming the known presets and the nearest. */
export function findPreset(name: string): Preset {
  const found = Object.entries(PRESETS).find(([known]) => known === name);
  if (found) return { ...found[1], settings: merge(found[1].settings, { preset: name }) };
  const guess = nearest(name, Object.keys(PRESETS));
  throw new UsageError(
    `there is no preset '${name}'${guess ? `; did you mean '${guess}'?` : '.'} Known presets: ${Object.keys(PRESETS).join(', ')}`,
  );
}
