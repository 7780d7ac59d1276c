/** How well a model encodes and decodes pictures that it was not trained on, and the health of their latents. */
import type { ImageSource } from '../data/source.js';
import { fromPixels } from '../dsd/generate.js';
import type { Model } from '../dsd/model.js';
import { type Device, type DType, noGrad, scope } from '../torch/index.js';
import { batches, pictures, spread } from './pictures.js';
import { PsnrMeter } from './psnr.js';
import { type LatentHealth, RankMeter } from './rank.js';

export interface Reconstruction {
  /** Decibels, by the squared error pooled over all pictures. */
  readonly psnr: number;
  /** Of the latent that is denoised and decoded. */
  readonly latent: LatentHealth;
  /** Of the same before its LayerNorm: there a scale that vanishes or runs away shows. */
  readonly rawLatent: LatentHealth;
  readonly pictures: number;
}

export interface ReconstructionOptions {
  readonly device: Device;
  /** Type that token-wise layers compute in. */
  readonly dtype: DType;
  readonly batch: number;
  /** Pictures to measure, evenly spread over the source; all if not given. */
  readonly count?: number;
  readonly progress?: (done: number, total: number) => void;
}

/** Encodes and decodes pictures of a source, each once. @throws FailureError for a latent that is not finite, PictureError */
export async function measureReconstruction(coder: Model, source: ImageSource, options: ReconstructionOptions): Promise<Reconstruction> {
  const { device, dtype, batch, progress } = options;
  const count = Math.min(options.count ?? source.length, source.length);
  const [psnr, rank, rawRank] = [new PsnrMeter(), new RankMeter(), new RankMeter()];
  let done = 0;
  try {
    for (const indices of batches(spread(source.length, count), batch)) {
      const pixels = await pictures(source, indices, device);
      noGrad(() =>
        scope(() => {
          const model = coder.in(dtype);
          const x = fromPixels(pixels);
          const { z, raw } = scope(() => model.encode(x));
          rank.add(z);
          rawRank.add(raw);
          psnr.add(x, model.decode(z));
        }),
      );
      pixels.dispose();
      done += indices.length;
      progress?.(done, count);
    }
    return { psnr: psnr.decibels(), latent: rank.read(), rawLatent: rawRank.read(), pictures: count };
  } finally {
    for (const meter of [psnr, rank, rawRank]) meter.dispose();
  }
}
