/**
 * The cases of the collapse study: from naive joint training to the cured one, one change at a time. ARCHITECTURE.md, The method: collapse and its
 * cures; the order is that of figure 2 of arXiv 2511.14716, as far as its caption tells.
 */
import type { RunSettings } from '../../train/config.js';
import type { Named } from '../study.js';

export interface StudyCase extends Named {
  /** The switches that make it; all else is the same in every case. */
  readonly settings: RunSettings;
}

const joint = (
  target: 'clean' | 'velocity',
  stopGradient: boolean,
  targetEncoder: 'online' | 'ema' = 'online',
  mask = 0,
  latentNorm = false,
): RunSettings => ({ objective: { paradigm: 'dsd', target, stopGradient, targetEncoder, mask }, model: { latentNorm } });

export const CASES: readonly StudyCase[] = [
  {
    name: 'autoencoder',
    label: 'autoencoder alone (control)',
    about: 'reconstruction only, no diffusion loss: what the latent would be if nothing pulled at it',
    settings: {
      objective: { paradigm: 'autoencoder', weights: { denoise: 0, align: 0, represent: 0, classify: 0 } },
      model: { latentNorm: false },
    },
  },
  {
    name: 'naive',
    label: 'naive: velocity',
    about: 'velocity target, the gradient flows into it: naive joint training',
    settings: joint('velocity', false),
  },
  {
    name: 'velocity-sg',
    label: 'velocity + stop-gradient',
    about: 'cure 1 alone: velocity target behind a stop-gradient',
    settings: joint('velocity', true),
  },
  { name: 'clean', label: 'clean', about: 'cure 2 alone: clean target, the gradient flows into it', settings: joint('clean', false) },
  {
    name: 'clean-sg',
    label: 'clean + stop-gradient',
    about: 'both cures, target by the online encoder itself',
    settings: joint('clean', true),
  },
  {
    name: 'ema',
    label: 'both + EMA target',
    about: 'both cures, target by the average of the encoder',
    settings: joint('clean', true, 'ema'),
  },
  {
    name: 'mask',
    label: 'both + EMA + mask',
    about: 'and an augmented view: a quarter of the patches of every second picture is masked',
    settings: joint('clean', true, 'ema', 0.25),
  },
  {
    name: 'norm',
    label: 'both + EMA + mask + latent norm',
    about: 'and a LayerNorm on the latent, which fixes its scale: the recipe of `dsd train`, less its auxiliary losses',
    settings: joint('clean', true, 'ema', 0.25, true),
  },
];
