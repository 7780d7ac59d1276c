/** One point of a curve: the latent and the reconstructions of held-out pictures, and the rank of what the network predicts. */
import type { ImageSource } from '../../data/source.js';
import { draw } from '../../dsd/draws.js';
import { fromPixels } from '../../dsd/generate.js';
import type { Model } from '../../dsd/model.js';
import { precondition } from '../../dsd/sampler.js';
import { batches, pictures, spread } from '../../eval/pictures.js';
import { RankMeter } from '../../eval/rank.js';
import { type Device, type DType, full, noGrad, scope, type Tensor } from '../../torch/index.js';

export interface Measured {
  /** Of the latent before its LayerNorm, where it has one; from 1 to C. */
  readonly effectiveRank: number;
  /** Standard deviation of the same about each channel's mean (rank.ts). */
  readonly deviation: number;
  /** Deviation of the latent that is denoised and decoded: behind a LayerNorm at most 1, else the same as `deviation`. */
  readonly latentDeviation: number;
  /** Of what the denoiser predicts (the clean latent, or the velocity) for latents noised to t = 1/2: the predictor's side of rank differentiation. */
  readonly predictionRank: number;
  /** Mean absolute error of the reconstructions, on a scale of 2. */
  readonly l1: number;
}

export interface MeasureOptions {
  readonly device: Device;
  /** Type that token-wise layers compute in. */
  readonly compute: DType;
  /** Pictures, evenly spread over the source. */
  readonly count: number;
  /** See ObjectiveConfig. */
  readonly preconditioned: boolean;
}

const BATCH = 128;
/** Noise of the measurement: the same in all cases and at all times, and none of a training step's. */
const SEED = 2 ** 31 - 1;
const TIME = 0.5;

/** Measures a model with the weights that it has now. @throws FailureError for latents or predictions that are not finite, PictureError */
export async function measure(model: Model, source: ImageSource, options: MeasureOptions): Promise<Measured> {
  const { device, compute, count, preconditioned } = options;
  const [raw, latent, prediction] = [new RankMeter(), new RankMeter(), new RankMeter()];
  let error = 0;
  try {
    const wanted = spread(source.length, Math.min(count, source.length));
    let first = 0;
    for (const indices of batches(wanted, BATCH)) {
      const pixels = await pictures(source, indices, device);
      error += noGrad(() =>
        scope(() => {
          const net = model.in(compute);
          const x = fromPixels(pixels);
          const encoded = net.encode(x);
          raw.add(encoded.raw);
          latent.add(encoded.z);
          prediction.add(predict(net, encoded.z, first, preconditioned));
          return Number(net.decode(encoded.z).sub(x).abs().mean().item()) * indices.length;
        }),
      );
      pixels.dispose();
      first += indices.length;
    }
    const [before, after] = [raw.read(), latent.read()];
    return {
      effectiveRank: before.effectiveRank,
      deviation: before.deviation,
      latentDeviation: after.deviation,
      predictionRank: prediction.read().effectiveRank,
      l1: error / wanted.length,
    };
  } finally {
    for (const meter of [raw, latent, prediction]) meter.dispose();
  }
}

/** What the denoiser says of latents z (B, N, C) half noised, without a class. */
function predict(model: Model, z: Tensor, first: number, preconditioned: boolean): Tensor {
  const { device } = z;
  const B = z.shape[0] as number;
  const { noise } = draw(model.config, SEED, first, B, 1, { dtype: 'float32', device });
  const noised = z.mul(TIME).add(noise.reshape(...z.shape).mul(1 - TIME));
  const time = full([B], TIME, { device });
  const none = full([B], model.config.classes, { dtype: 'int64', device });
  const { prediction } = model.denoise(noised, time, none);
  if (!preconditioned) return prediction;
  const { skip, out } = precondition(TIME);
  return noised.mul(skip).add(prediction.mul(out));
}
