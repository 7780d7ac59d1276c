/** Samples of a model as a set to judge. */
import { UsageError } from '../core/errors.js';
import { key } from '../core/random.js';
import { Sampler, toPixels } from '../dsd/generate.js';
import type { Model } from '../dsd/model.js';
import type { SamplerOptions } from '../dsd/sampler.js';
import { type Device, type DType, noGrad, randn, scope, tensor } from '../torch/index.js';
import type { PictureSet } from './sets.js';

export interface DrawInput {
  /** Answers the solver, and decodes: one model, but for latent diffusion. */
  readonly denoiser: Model;
  readonly coder: Model;
  readonly count: number;
  readonly device: Device;
  /** Type that the models' token-wise layers compute in. */
  readonly dtype: DType;
  readonly seed: number;
  /** `balanced`: sample i is of class i mod K. `none`: the null class, for models trained without labels. */
  readonly labels: 'balanced' | 'none';
}

/** Samples are drawn when they are read. Sample i is a function of (weights, seed, i, its class, options), whatever the batch, up to rounding. */
export function drawn(input: DrawInput, options: SamplerOptions): PictureSet {
  const { denoiser, coder, count, device, dtype, seed } = input;
  const { image, channels, classes } = denoiser.config;
  const label = (i: number): number => (input.labels === 'none' ? classes : i % classes);
  let sampler: Sampler | undefined;
  const read = async (first: number, some: number): Promise<Uint8Array> =>
    noGrad(() =>
      scope(() => {
        const wanted = BigInt64Array.from({ length: some }, (_, i) => BigInt(label(first + i)));
        const labels = tensor(wanted, [some], { dtype: 'int64', device });
        const wide = denoiser.weights.get('trunk.role.weight').dtype;
        const noise = randn(key(seed, 'sample'), first, denoiser.latentShape(some), { device, dtype: wide });
        sampler ??= new Sampler(denoiser, coder, dtype);
        return toPixels(sampler.draw({ noise, labels, options })).toArray() as Uint8Array;
      }),
    );
  return {
    ...{ name: 'samples', count, height: image, width: image, channels: channels as 1 | 3 },
    labels: input.labels === 'none' ? undefined : Array.from({ length: count }, (_, i) => label(i)),
    read,
    close: () => {
      sampler?.dispose();
      sampler = undefined;
    },
  };
}

/** @throws UsageError when the models do not fit each other, or settings do not fit the model */
export function checkDraw({ denoiser, coder, labels }: DrawInput, settings: readonly SamplerOptions[]): void {
  if (
    coder.config.image !== denoiser.config.image ||
    coder.config.latent !== denoiser.config.latent ||
    coder.config.patch !== denoiser.config.patch
  )
    throw new UsageError('the model that decodes has another latent than the one that denoises');
  if (labels === 'none' && settings.some(({ guidance }) => guidance !== 1))
    throw new UsageError('guidance needs classes: a model sampled without labels is evaluated at guidance 1');
  for (const { steps, interval } of settings) {
    if (!Number.isInteger(steps) || steps < 1) throw new UsageError(`a solver needs a whole number of steps from 1, got ${steps}`);
    if (!(interval[0] >= 0 && interval[0] <= interval[1] && interval[1] <= 1))
      throw new UsageError(`guidance is applied on an interval of times from 0 to 1, low then high; got [${interval.join(', ')}]`);
  }
}
