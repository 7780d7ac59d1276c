/** Three sizes of the same network: the same pictures, epochs, seeds, recipe and evaluation. The paper reports quality that rises with size. */
import { SIZES, type Size } from '../../dsd/sizes.js';
import { PRESETS } from '../../train/presets.js';
import { PARADIGM_PRESETS } from './paradigms.js';
import { asStudied, type CompareCase, type ComparePreset } from './plan.js';
import { PSNR } from './summary.js';
import type { Comparison } from './verdict.js';

export interface ScalingPreset extends ComparePreset {
  /** From the smallest. */
  readonly sizes: readonly [Size, Size, Size];
}

const NAMES = ['small', 'medium', 'large'] as const;

export const scalingCases = ({ sizes }: Pick<ScalingPreset, 'sizes'>): readonly CompareCase[] =>
  NAMES.map((name, i) => {
    const { width, depth, heads, hidden } = sizes[i] as Size;
    return {
      name,
      label: `${name} (${width} wide, ${depth} blocks)`,
      about: `${width} wide, ${depth} blocks, ${heads} heads of ${width / heads}`,
      stages: (resolve) => [{ name: 'dsd', config: resolve({ model: { width, depth, heads, hidden } }) }],
    };
  });

/** Whether each distance falls with each size, in words. @param comparisons of a size with the one below it */
export function fallsWithSize(comparisons: readonly Comparison[]): string[] {
  const distances = new Set(comparisons.map(({ measure }) => measure).filter((measure) => measure !== PSNR.key));
  return [...distances].flatMap((measure) => {
    const steps = comparisons.filter((comparison) => comparison.measure === measure);
    if (steps.length < NAMES.length - 1) return [];
    const named = (wanted: (step: Comparison) => boolean): string =>
      steps
        .filter(wanted)
        .map((step) => `${step.case} against ${step.against}`)
        .join(', ');
    const rises = named(({ difference }) => difference >= 0);
    const overlap = named(({ order }) => order === 'undecided');
    const title = steps[0]?.title;
    if (rises !== '') return `- ${title} does not fall with each size: ${rises}.`;
    return overlap === ''
      ? `- ${title} falls with each size.`
      : `- ${title} falls with each size in the mean, but seeds overlap: ${overlap}.`;
  });
}

const { gpu } = PARADIGM_PRESETS;

export const SCALING_PRESETS = {
  cpu: {
    about: 'networks of 0.06M, 0.25M and 1.3M weights on openmoji at 16 px',
    cost: 'a seed of a fifth of the length, with 64 samples, in 4 minutes on one core of an AMD EPYC with AVX512-BF16',
    expect: 'of that, two seeds: FD-nsfwjs-mixed7 without guidance 1.9, 1.4, 0.93 from small to large; PSNR 21.6, 25.5, 27.6 dB',
    settings: asStudied(PRESETS.toy.settings, {
      preset: 'scaling-cpu',
      data: { workers: 0 },
      model: { latent: 16 },
      objective: { weights: { align: 0, represent: 0, classify: 0 } },
      train: { images: 64_000, batch: 32, learningRate: 2e-3, warmup: 960, targetDecay: 0.99, averageDecay: 0.98 },
      log: { every: 640, evaluate: 10_000 },
      sample: { steps: 25, guidance: 2 },
    }),
    judging: {
      features: ['classifier', 'nsfwjs-mixed7'],
      ...{ samples: 256, real: 128, probed: 10_000, classifierSteps: 200, seed: 0, shown: 18 },
    },
    sizes: [{ width: 32, depth: 3, heads: 1, hidden: 80 }, { width: 64, depth: 4, heads: 2, hidden: 160 }, SIZES.demo],
  },
  gpu: {
    ...gpu,
    about:
      "networks of 1.3M, 6.8M and 41M weights by the recipe of `dsd study paradigms`, 300,000 pictures a run; --data names a folder with Fashion-MNIST's IDX files",
    cost: 'a seed in six and a half minutes on one H200, beside another study',
    expect: 'one seed: FD-nsfwjs-mixed7 0.165, 0.094, 0.065 from small to large; FD-classifier 0.95, 0.41, 0.18',
    settings: asStudied(gpu.settings, { preset: 'scaling-gpu' }),
    sizes: [SIZES.demo, SIZES.T, SIZES.S],
  },
} as const satisfies Record<string, ScalingPreset>;
