/** Lengths and rates, all counted in pictures. */
import type { RunConfig } from './config.js';

/** Learning rate when `images` of the run's pictures have been seen: linear warm-up, constant, linear to 0 over the last share. */
export function learningRate(train: RunConfig['train'], images: number): number {
  const { learningRate: peak, warmup, decay } = train;
  const up = warmup > 0 ? (images + train.batch) / warmup : 1;
  const down = decay > 0 ? (train.images - images) / (decay * train.images) : 1;
  return peak * Math.min(1, up, down);
}

/** Whether a cadence of `every` pictures falls into the step that goes from `before` to `after`. */
export const due = (every: number, before: number, after: number): boolean => Math.floor(after / every) > Math.floor(before / every);

/**
 * Passes through the trunk for each picture of a step, in units of one forward pass (a backward counts two): what the FLOPs in logs are
 * computed from. 10 for DSD at k = 1 without mask.
 */
export function passes(objective: RunConfig['objective']): number {
  const { weights, targetEncoder } = objective;
  const denoise = weights.denoise > 0 || weights.align > 0 ? 3 * objective.passes : 0;
  const decode = weights.reconstruction > 0 || weights.squared > 0 || weights.perceptual > 0 ? 3 : 0;
  const online = targetEncoder === 'frozen' ? 0 : 3 + (objective.mask > 0 ? 1.5 : 0);
  const teacher = targetEncoder !== 'online' && (denoise > 0 || weights.represent > 0) ? 1 : 0;
  return denoise + decode + online + teacher;
}
