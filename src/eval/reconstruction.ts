/** How well a model encodes and decodes pictures that it was not trained on, and the health of their latents. */
import type { ImageSource } from '../data/source.js';
import { fromPixels, toPixels } from '../dsd/generate.js';
import type { Model } from '../dsd/model.js';
import { type Device, type DType, noGrad, scope, type Tensor } from '../torch/index.js';
import { batches, pictures, spread } from './pictures.js';
import { PsnrMeter } from './psnr.js';
import { type LatentHealth, RankMeter } from './rank.js';
import { SsimMeter } from './ssim.js';

export interface Reconstruction {
  /** Decibels, by the squared error pooled over all pictures. */
  readonly psnr: number;
  /** Structural similarity, where it was asked for. */
  readonly ssim?: number;
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
  /** Measure SSIM too, which costs as much as a small network. */
  readonly ssim?: boolean;
  readonly progress?: (done: number, total: number) => void;
  /** Sees the reconstructions as they would be saved, (B, H, H, ch) uint8, in order. */
  readonly onPictures?: (pixels: Tensor) => void;
}

/** Encodes and decodes pictures of a source, each once. @throws FailureError for a latent that is not finite, PictureError */
export async function measureReconstruction(coder: Model, source: ImageSource, options: ReconstructionOptions): Promise<Reconstruction> {
  const { device, dtype, batch, progress, onPictures } = options;
  const count = Math.min(options.count ?? source.length, source.length);
  const [psnr, rank, rawRank] = [new PsnrMeter(), new RankMeter(), new RankMeter()];
  const ssim = options.ssim ? new SsimMeter() : undefined;
  let done = 0;
  try {
    for (const indices of batches(spread(source.length, count), batch)) {
      const pixels = await pictures(source, indices, device);
      try {
        noGrad(() =>
          scope(() => {
            const model = coder.in(dtype);
            const x = fromPixels(pixels);
            const { z, raw } = scope(() => model.encode(x));
            rank.add(z);
            rawRank.add(raw);
            const decoded = model.decode(z);
            psnr.add(x, decoded);
            ssim?.add(x, decoded);
            onPictures?.(toPixels(decoded));
          }),
        );
      } finally {
        pixels.dispose();
      }
      done += indices.length;
      progress?.(done, count);
    }
    return {
      psnr: psnr.decibels(),
      ...(ssim ? { ssim: ssim.value() } : {}),
      latent: rank.read(),
      rawLatent: rawRank.read(),
      pictures: count,
    };
  } finally {
    for (const meter of [psnr, rank, rawRank, ssim]) meter?.dispose();
  }
}
