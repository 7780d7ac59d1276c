/**
 * What became of a run's latent, by a rule that is stated here and printed with every study. The thresholds are ours. They were chosen on shorter trial
 * runs of seed 0, which no study has, before any run of the first table; that "collapsed" is asked before "variance-suppressed" was settled when three of
 * its 24 runs were known, whose verdicts are the same either way. No result changes them.
 *
 * The unit of scale is the noise eps, of deviation 1: of a latent far below it z_t says little, and the noise can be read off z_t; one far above it is
 * hardly noised. A rank alone does not tell: what is left of a latent that says nothing any more may have a high one. Hence reconstruction is asked too,
 * against the error of one and the same picture for all (blank.ts). A latent that is small and still decodes well is variance-suppressed; one that says
 * nothing has collapsed at whatever scale, and such runs swing between scales.
 */
import { median } from '../../eval/median.js';
import type { Curve, Point } from './train-case.js';

export const THRESHOLDS = {
  /** The part of a curve, from its end, over which medians are taken. */
  window: 0.25,
  /** Collapsed: an effective rank below this: hardly more than one direction. */
  rank: 2,
  /** Collapsed too: a reconstruction error above this share of the blank's. */
  blank: 0.75,
  /** Variance-suppressed: a deviation below this, a sixteenth of the noise's power. */
  small: 0.25,
  /** Runaway scale: a deviation above this, sixteen times the noise's power. */
  large: 4,
  /** Low rank: an effective rank below this share of the latent's channels. */
  share: 0.5,
} as const;

export const VERDICTS = ['healthy', 'low rank', 'runaway scale', 'variance-suppressed', 'collapsed', 'diverged'] as const;
export type Verdict = (typeof VERDICTS)[number];

/** The rule in words, with its numbers. */
export function ruleInWords(): string[] {
  const { window, rank, small, large, blank, share } = THRESHOLDS;
  return [
    `Verdicts, by medians over the last ${100 * window} % of a run (the noise has deviation 1), the first that holds:`,
    '- diverged: latents or gradients stopped being finite;',
    `- collapsed: effective rank before LayerNorm below ${rank}, or L1 above ${blank} of that of a blank, the training pictures' median;`,
    `- variance-suppressed: deviation of the latent, as it is denoised, below ${small};`,
    `- runaway scale: deviation above ${large};`,
    `- low rank: effective rank below ${share} of the channels;`,
    '- healthy: none of these.',
  ];
}

/** Medians over the window, which a verdict and a table are of. */
export interface Ending {
  readonly effectiveRank: number;
  readonly deviation: number;
  readonly latentDeviation: number;
  readonly predictionRank: number;
  readonly l1: number;
  /** Of `latentDeviation`: at the end over that at half of the run; above 1 it grows. NaN where there is no half. */
  readonly growth: number;
}

/** @param points of a curve in order, at least one */
export function ending(points: readonly Point[]): Ending {
  const last = points.at(-1)!;
  const from = last.images * (1 - THRESHOLDS.window);
  const late = points.filter(({ images }) => images >= from);
  const of = (name: 'effectiveRank' | 'deviation' | 'latentDeviation' | 'predictionRank' | 'l1'): number =>
    median(late.map((point) => point[name]));
  const half = points.findLast(({ images }) => images > 0 && images <= last.images / 2);
  return {
    effectiveRank: of('effectiveRank'),
    deviation: of('deviation'),
    latentDeviation: of('latentDeviation'),
    predictionRank: of('predictionRank'),
    l1: of('l1'),
    growth: half ? last.latentDeviation / half.latentDeviation : Number.NaN,
  };
}

/** What a curve is judged against. */
export interface Yardstick {
  /** Channels of the latent. */
  readonly channels: number;
  /** Reconstruction error of a blank (blank.ts). */
  readonly blank: number;
}

export function verdict(curve: Pick<Curve, 'points' | 'diverged'>, { channels, blank }: Yardstick): Verdict {
  if (curve.diverged !== undefined) return 'diverged';
  const { effectiveRank, latentDeviation, l1 } = ending(curve.points);
  if (effectiveRank < THRESHOLDS.rank || l1 > THRESHOLDS.blank * blank) return 'collapsed';
  if (latentDeviation < THRESHOLDS.small) return 'variance-suppressed';
  if (latentDeviation > THRESHOLDS.large) return 'runaway scale';
  return effectiveRank < THRESHOLDS.share * channels ? 'low rank' : 'healthy';
}
