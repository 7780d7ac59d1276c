/**
 * The paradigms of figure 1 of arXiv 2511.14716 (ARCHITECTURE.md, The method: paradigms) side by side: the same pictures, seeds, recipe and evaluation.
 * What is not said by a case is the preset's.
 */
import type { RunSettings } from '../../train/config.js';
import { PRESETS } from '../../train/presets.js';
import { halve, lengths } from './budget.js';
import { asStudied, type CompareCase, type ComparePreset, type Resolve, type Stage } from './plan.js';

/** The losses beside reconstruction and the paradigm's own. */
const alone = { align: 0, represent: 0, classify: 0 };

const one =
  (name: string, settings: RunSettings): CompareCase['stages'] =>
  (resolve) => [{ name, config: resolve(settings) }];

/** The name of the first stage's weights in the configuration of the second: where they lie is known when they are used. */
export const FIRST_STAGE = 'the first stage';

/**
 * An autoencoder, then a denoiser on its frozen latents: two networks that together have DSD's parameters, and are trained with DSD's operations.
 * @param split share of the operations for the autoencoder
 */
export function twoStages(resolve: Resolve, split: number): Stage[] {
  const dsd = resolve();
  const model = halve(dsd);
  const autoencoder: RunSettings = { objective: { paradigm: 'autoencoder' }, model };
  const denoiser: RunSettings = { objective: { paradigm: 'latent-diffusion', frozen: FIRST_STAGE }, model };
  const [first, second] = lengths(dsd, resolve(autoencoder), resolve(denoiser), split);
  return [
    { name: 'autoencoder', config: resolve(autoencoder, { train: { images: first } }) },
    { name: 'denoiser', config: resolve(denoiser, { train: { images: second } }) },
  ];
}

/** @param split as of twoStages */
export const paradigmCases = (split: number): readonly CompareCase[] => [
  {
    name: 'dsd',
    label: 'DSD',
    about: 'Diffusion as Self-Distillation, with labels',
    stages: one('dsd', {}),
  },
  {
    name: 'label-free',
    label: 'DSD, label-free',
    about: 'the same without a label anywhere: no classification, and samples of no class',
    stages: one('dsd', { objective: { labels: false } }),
  },
  {
    name: 'naive',
    label: 'naive joint',
    about: 'velocity target with gradient into it, no norm on the latent and no auxiliary losses, which would hide what it does',
    stages: one('naive', { objective: { paradigm: 'naive', weights: alone }, model: { latentNorm: false } }),
  },
  {
    name: 'naive-norm',
    label: 'naive joint, latent norm',
    about: "the same behind our latent norm, with the preset's auxiliary losses; run when it is named",
    extra: true,
    stages: one('naive', { objective: { paradigm: 'naive' } }),
  },
  {
    name: 'two-stage',
    label: 'two-stage latent diffusion',
    about: "an autoencoder, then a separate denoiser on its frozen latents: together DSD's parameters and training FLOPs",
    stages: (resolve) => twoStages(resolve, split),
  },
  {
    name: 'self-distillation',
    label: 'self-distillation alone',
    about: 'no decoder, no noise and no labels: what is reported is its latent and what its encoder knows',
    stages: one('self-distillation', { objective: { paradigm: 'self-distillation', labels: false, weights: alone } }),
  },
];

/** Half for each stage: neither is starved. */
export const SPLIT = 0.5;

export const PARADIGM_PRESETS = {
  cpu: {
    about: 'networks of 0.25M weights on openmoji at 16 px',
    cost: 'a seed in 17 minutes on one core of an AMD EPYC with AVX512-BF16, beside other work',
    expect:
      'one seed, FD-nsfwjs-mixed7 of 256 samples without guidance: DSD 0.73, label-free 0.70, two-stage 0.82, naive joint 1.21, real pictures 0.49',
    settings: asStudied(PRESETS.toy.settings, {
      preset: 'paradigms-cpu',
      data: { workers: 0 },
      model: { width: 64, depth: 4, heads: 2, hidden: 160, latent: 16 },
      objective: { weights: alone },
      train: { images: 64_000, batch: 32, learningRate: 2e-3, warmup: 960, targetDecay: 0.99, averageDecay: 0.98 },
      log: { every: 640, evaluate: 10_000 },
      sample: { steps: 25, guidance: 2 },
    }),
    judging: {
      features: ['classifier', 'nsfwjs-mixed7'],
      ...{ samples: 256, real: 128, probed: 10_000, classifierSteps: 200, seed: 0, shown: 18 },
    },
  },
  gpu: {
    about:
      "the network and recipe of `dsd train --preset fashion-mnist` (6.8M weights), 600,000 pictures a run; --data names a folder with Fashion-MNIST's IDX files",
    cost: 'of half the length a run trains in 20 to 25 s and is judged in 30 to 50 s, on one H100',
    expect:
      'of half the length, one seed, FD-nsfwjs-mixed7 without guidance: two-stage 0.24, DSD 0.50, real pictures 0.006: here the two stages are ahead',
    settings: asStudied(PRESETS['fashion-mnist'].settings, {
      preset: 'paradigms-gpu',
      data: { workers: 4 },
      train: { images: 600_000 },
    }),
    judging: {
      features: ['classifier', 'nsfwjs-mixed7'],
      ...{ samples: 10_000, real: 10_000, probed: 100_000, classifierSteps: 600, seed: 0, shown: 20 },
    },
  },
} as const satisfies Record<string, ComparePreset>;
