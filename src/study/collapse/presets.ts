/** The sizes at which the collapse study is run. */
import { SIZES } from '../../dsd/sizes.js';
import { merge, type RunSettings } from '../../train/config.js';
import { PRESETS } from '../../train/presets.js';
import { NOISE_SCALE } from '../scale.js';
import type { PresetText } from '../study.js';

export interface CollapsePreset extends PresetText {
  /** One for each set of pictures, with what is fitted to it: each is a study of its own, with its own figure. */
  readonly data: readonly RunSettings[];
  /** Held-out pictures that each point is measured on. */
  readonly measured: number;
  /** Deviation that the untrained latent is brought to, before its LayerNorm where it has one; 0: as the first values make it. */
  readonly scale: number;
}

/**
 * What all cases share. Of the losses only the mean absolute error of reconstructions and the diffusion loss, at its usual weight; no auxiliary
 * losses, which help a latent; the decoder's input is not noised, since that would keep the latent's scale up. AdamW for all parameters, since the
 * question is of objectives; a constant learning rate after the warm-up, so that what moves at the end of a curve is still moving.
 */
const shared: RunSettings = {
  data: { flip: false, broken: 'error' },
  objective: {
    decoderNoise: { probability: 0 },
    weights: { reconstruction: 1, squared: 0, perceptual: 0, denoise: 0.3, align: 0, represent: 0, classify: 0 },
  },
  train: { optimizer: 'adamw', decay: 0 },
};

const study = (settings: RunSettings): RunSettings => merge(merge(PRESETS.toy.settings, shared), settings);

const small = { width: 64, depth: 4, heads: 2, hidden: 160 };
const S: RunSettings['model'] = { ...SIZES.S, patch: 8, latent: 16 };
const gpuTrain: RunSettings['train'] = { images: 51_200, batch: 64, learningRate: 4e-4, warmup: 6_400, targetDecay: 0.995 };

export const COLLAPSE_PRESETS = {
  cpu: {
    about: 'a network of 0.2M weights on openmoji at 16 px',
    cost: 'a seed in less than 15 minutes on 2 cores',
    expect:
      'naive joint training suppresses the latent, a stop-gradient alone collapses it, both cures with EMA let its scale run away, and the latent norm makes it healthy',
    measured: 256,
    scale: NOISE_SCALE,
    data: [
      study({
        preset: 'study-cpu',
        data: { source: 'openmoji', image: 16, workers: 0 },
        model: { ...small, patch: 4, latent: 16 },
        train: { images: 64_000, batch: 64, learningRate: 1e-3, warmup: 3200, targetDecay: 0.99 },
        log: { evaluate: 1600 },
      }),
    ],
  },
  gpu: {
    about: "width and depth of the paper's 42M network, on Fashion-MNIST at 32 px and openmoji at 64 px",
    cost: '10 minutes for three seeds of both on one H100: 10 to 16 s a run',
    expect:
      'as the cpu preset, but seeds of a stop-gradient alone disagree, and of the autoencoder alone the deviation is about 4, where the line of "runaway scale" is',
    measured: 1024,
    scale: NOISE_SCALE,
    data: [
      study({
        preset: 'study-gpu',
        data: { source: 'fashion-mnist', image: 32, workers: 4 },
        model: S,
        train: gpuTrain,
        log: { evaluate: 2560 },
      }),
      study({
        preset: 'study-gpu',
        data: { source: 'openmoji', image: 64, workers: 4 },
        model: S,
        train: gpuTrain,
        log: { evaluate: 2560 },
      }),
    ],
  },
} as const satisfies Record<string, CollapsePreset>;
