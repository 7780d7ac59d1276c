/**
 * The random numbers of a training step, each a function of (seed, purpose, global image index, element): see core/random.ts.
 * A batch and its micro-batches draw the same, and a resumed run draws what the uninterrupted one would have.
 */
import { key } from '../core/random.js';
import { type Device, type DType, rand, randn, type Tensor } from '../torch/index.js';
import { type ModelConfig, tokens } from './sizes.js';

/** Raw draws, before the objective shapes them; k is the number of denoising passes for one encoding. */
export interface Draws {
  readonly noise: Tensor; // (B, k, N, C) normal: eps
  readonly time: Tensor; // (B, k) normal in float64, becomes t, whose rounding timeFeatures would magnify
  readonly drop: Tensor; // (B, k) uniform: below the drop rate the class is dropped
  readonly mask: Tensor; // (B, N) uniform: below the mask's share the patch is hidden
  readonly decodeNoise: Tensor; // (B, N, C) normal
  readonly decodeLevel: Tensor; // (B, 2) uniform: whether, and how far, the decoder's input is noised
}

/** Draws for pictures firstImage, firstImage + 1, ...; where that is a 0-d int64 tensor on the device, it is read when the draws are made. */
export function draw(
  config: ModelConfig,
  seed: number,
  firstImage: number | Tensor,
  batch: number,
  passes: number,
  options: { dtype: DType; device: Device },
): Draws {
  const [N, C] = [tokens(config), config.latent];
  const normal = (purpose: string, ...shape: number[]) => randn(key(seed, purpose), firstImage, [batch, ...shape], options);
  const uniform = (purpose: string, ...shape: number[]) => rand(key(seed, purpose), firstImage, [batch, ...shape], options);
  return {
    noise: normal('noise', passes, N, C),
    time: normal('time', passes).to({ dtype: 'float64' }),
    drop: uniform('drop', passes),
    mask: uniform('mask', N),
    decodeNoise: normal('decode-noise', N, C),
    decodeLevel: uniform('decode-level', 2),
  };
}
