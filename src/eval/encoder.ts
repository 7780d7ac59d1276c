/** What can be said of a network that draws no pictures (self-distillation has no decoder): its latent, and what its encoder knows of classes. */
import { UsageError } from '../core/errors.js';
import type { DataSet, ImageSource } from '../data/source.js';
import { fromPixels } from '../dsd/generate.js';
import type { Model } from '../dsd/model.js';
import { mostRank } from '../dsd/sizes.js';
import { type Device, type DType, noGrad, scope } from '../torch/index.js';
import { batches, pictures, spread } from './pictures.js';
import { type Probes, probe } from './probes.js';
import { type LatentHealth, RankMeter } from './rank.js';

export interface EncoderInput {
  readonly coder: Model;
  readonly data: Pick<DataSet, 'train' | 'heldOut'>;
  /** Which weights these are. */
  readonly weights: 'average' | 'raw';
  readonly device: Device;
  /** Type that token-wise layers compute in. */
  readonly dtype: DType;
  /** Pictures at a time; it changes nothing but speed and memory. */
  readonly batch: number;
  /** The most held-out pictures that the latent is measured on, evenly spread. */
  readonly measured: number;
  /** As of EvaluateInput. */
  readonly probed?: number | undefined;
  readonly progress?: ((stage: 'latents' | 'encoding' | 'probe', done: number, total: number) => void) | undefined;
}

export interface EncoderReport {
  readonly latent: LatentHealth;
  /** The same before its LayerNorm. */
  readonly rawLatent: LatentHealth;
  /** The highest effective rank that the latent can have. */
  readonly mostRank: number;
  readonly probes?: Probes;
  readonly protocol: {
    readonly weights: 'average' | 'raw';
    readonly precision: DType;
    readonly device: Device;
    readonly latent: { readonly source: string; readonly count: number };
  };
}

/** @throws UsageError for pictures that are not the model's; FailureError for values that are not finite; PictureError */
export async function evaluateEncoder(input: EncoderInput): Promise<EncoderReport> {
  const { coder, data, weights, device, dtype, batch, measured, probed, progress } = input;
  const { image, channels } = coder.config;
  const { size, channels: found, name } = data.heldOut;
  if (size !== image || found !== channels)
    throw new UsageError(
      `the model was made for pictures of ${image} px with ${channels} channels, and ${name} has ${size} px with ${found}`,
    );
  const count = Math.min(measured, data.heldOut.length);
  const latents = await measureLatents(input, data.heldOut, count);
  const probes =
    probed === undefined ? undefined : await probe({ coder, data, device, dtype, batch, most: probed, ...(progress ? { progress } : {}) });
  return {
    ...latents,
    mostRank: mostRank(coder.config),
    ...(probes ? { probes } : {}),
    protocol: { weights, precision: dtype, device, latent: { source: name, count } },
  };
}

async function measureLatents(
  { coder, device, dtype, batch, progress }: EncoderInput,
  source: ImageSource,
  count: number,
): Promise<Pick<EncoderReport, 'latent' | 'rawLatent'>> {
  const [rank, rawRank] = [new RankMeter(), new RankMeter()];
  let done = 0;
  try {
    for (const indices of batches(spread(source.length, count), batch)) {
      const pixels = await pictures(source, indices, device);
      noGrad(() =>
        scope(() => {
          const { z, raw } = coder.in(dtype).encode(fromPixels(pixels));
          rank.add(z);
          rawRank.add(raw);
        }),
      );
      pixels.dispose();
      done += indices.length;
      progress?.('latents', done, count);
    }
    return { latent: rank.read(), rawLatent: rawRank.read() };
  } finally {
    for (const meter of [rank, rawRank]) meter.dispose();
  }
}
