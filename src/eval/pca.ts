/**
 * Per-patch principal components: the best linear code of a patch with as many numbers as the latent has, and so the floor for
 * reconstruction. ARCHITECTURE.md, The method: evaluation.
 */
import { UsageError } from '../core/errors.js';
import { type ImageSource, pictureBytes } from '../data/source.js';
import { fromPixels } from '../dsd/generate.js';
import { type Device, keep, noGrad, scope, type Tensor, tensor } from '../torch/index.js';
import { eigen } from './eigen.js';
import { Moments, type Statistics } from './moments.js';
import { batches, pictures, spread } from './pictures.js';
import { PsnrMeter } from './psnr.js';

/** A mean and the first components of patches of V values. */
export class PatchPca {
  private readonly mean: Tensor; // (V) float64
  private readonly components: Tensor; // (V, C) float64, orthonormal columns

  /** @throws UsageError for a number of components outside 1 to V */
  constructor({ mean, covariance }: Statistics, components: number, device: Device = 'cpu') {
    const V = mean.length;
    if (!Number.isInteger(components) || components < 1 || components > V)
      throw new UsageError(`per-patch PCA needs between 1 and ${V} components, the values of a patch; got ${components}`);
    const made = scope(() => ({
      mean: tensor(mean, [V], { dtype: 'float64', device }),
      components: eigen(covariance)
        .vectors.narrow(1, V - components, components)
        .contiguous()
        .to({ device }),
    }));
    this.mean = keep(made.mean);
    this.components = keep(made.components);
  }

  /** Patches (..., V) from their first components, in float64. */
  reconstruct(patches: Tensor): Tensor {
    return noGrad(() =>
      scope(() => {
        const codes = patches.to({ dtype: 'float64' }).sub(this.mean).matmul(this.components); // (..., C)
        return codes.matmul(this.components.transpose(0, 1)).add(this.mean);
      }),
    );
  }

  dispose(): void {
    this.mean.dispose();
    this.components.dispose();
  }
}

export interface PcaOptions {
  /** Side of a patch in pixels; it divides the pictures'. */
  readonly patch: number;
  readonly components: number;
  readonly device?: Device;
  /** At most so many training pictures are fitted, evenly spread over the source: a patch's covariance needs no more. */
  readonly fitted?: number;
  /** Called before each piece of the work with pictures done and of how many; what it throws stops the measurement. */
  readonly progress?: (done: number, total: number) => void;
}

export const PCA_FITTED = 20_000;
/** Pixel values handled at once: 64 MiB of float64. */
const VALUES = 2 ** 23;

/**
 * PSNR in decibels of held-out pictures by the components of training pictures; values are clamped to [-1, 1], as the model's
 * are (which is worth 0.4 to 0.6 dB, so PSNR of unclamped PCA is a lower floor).
 * @throws UsageError for a patch or number of components that does not fit
 */
export async function pcaPsnr(train: ImageSource, heldOut: ImageSource, options: PcaOptions): Promise<number> {
  const { patch, components, device = 'cpu', fitted = PCA_FITTED } = options;
  const moments = new Moments();
  const meter = new PsnrMeter();
  let pca: PatchPca | undefined;
  const first = Math.min(fitted, train.length);
  const told = (before: number) => (done: number) => options.progress?.(before + done, first + heldOut.length);
  try {
    for await (const part of patchesOf(train, first, patch, device, told(0))) moments.add(part);
    pca = new PatchPca(moments.read(), components, device);
    for await (const part of patchesOf(heldOut, heldOut.length, patch, device, told(first))) {
      const approximation = pca.reconstruct(part);
      meter.add(part, approximation);
      approximation.dispose();
    }
    return meter.decibels();
  } finally {
    moments.dispose();
    meter.dispose();
    pca?.dispose();
  }
}

/** Patches (M, V) of pictures spread over the source, in [-1, 1], a bounded number at a time; each is freed when the next is asked for. */
async function* patchesOf(
  source: ImageSource,
  count: number,
  patch: number,
  device: Device,
  progress: (done: number) => void,
): AsyncGenerator<Tensor> {
  const { size, channels } = source;
  if (size % patch !== 0) throw new UsageError(`pictures of ${size} px cannot be cut into patches of ${patch} px`);
  const n = size / patch;
  let done = 0;
  for (const indices of batches(spread(source.length, count), Math.max(1, Math.floor(VALUES / pictureBytes(source))))) {
    progress(done);
    done += indices.length;
    const pixels = await pictures(source, indices, device);
    const patches = scope(() => {
      const x = fromPixels(pixels).view(-1, n, patch, n, patch, channels);
      return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, patch * patch * channels);
    });
    pixels.dispose();
    try {
      yield patches;
    } finally {
      patches.dispose();
    }
  }
}
