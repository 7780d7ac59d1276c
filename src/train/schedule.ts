/** Lengths and rates, all counted in pictures. */
import { forwardFlops, type ModelConfig } from '../dsd/sizes.js';
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

/**
 * Operations of a picture's passes through the trunk: see forwardFlops and passes.
 * @param frozen the shapes of the network that encodes, where a frozen one does: by default its own
 */
export function flopsPerPicture(objective: RunConfig['objective'], own: ModelConfig, frozen: ModelConfig = own): number {
  const others = objective.targetEncoder === 'frozen' ? 1 : 0;
  return (passes(objective) - others) * forwardFlops(own) + others * forwardFlops(frozen);
}
