/**
 * The health of a latent space: effective rank and standard deviation. ARCHITECTURE.md, The method: effective rank; Roy and
 * Vetterli, "The effective rank", EUSIPCO 2007.
 *
 * Effective rank is exp(entropy(p)), p_i = s_i / sum s, with s the singular values of the centred matrix of tokens (M, C). They are the
 * roots of the eigenvalues of its (C, C) scatter matrix, which needs no decomposition of the tall one and can be accumulated. Squaring costs
 * accuracy only in small values: an eigenvalue is off by about e = 1e-16 of the largest, so a singular value by at most sqrt(e) = 1e-8 of
 * the largest, and each moves the entropy by p log p of that, less than 3e-7: nothing beside the 0.1 to which ranks are read.
 */
import { DivergedError, FailureError } from '../core/errors.js';
import type { Tensor } from '../torch/index.js';
import { eigenvalues } from './eigen.js';
import { Moments, type Statistics } from './moments.js';

export interface LatentHealth {
  /** From 1 (one direction) to C, or C - 1 after LayerNorm, which takes a dimension away; 0 if the latent is constant. */
  readonly effectiveRank: number;
  /**
   * Root of the mean over channels of the variance about the channel's own mean. A vector that is the same in every token counts nothing,
   * so a collapsed latent shows as 0 even behind a LayerNorm, where the deviation of all values together is always 1.
   */
  readonly deviation: number;
  /**
   * Standard deviations along the principal directions, largest first: C of them. A direction that is not used shows as (almost) 0. Below about
   * 1e-8 of the first they are rounding.
   */
  readonly spectrum: readonly number[];
  /** Rows it was computed from. */
  readonly tokens: number;
}

/** Accumulates latents (B, N, C) or (M, C) on their device, in float64. */
export class RankMeter {
  private readonly moments = new Moments();

  /** Does not wait for the device. */
  add(latents: Tensor): void {
    this.moments.add(latents);
  }

  /** Reads, frees what was held and starts anew. @throws FailureError for fewer than two tokens, DivergedError for values that are not finite */
  read(): LatentHealth {
    try {
      return health(this.moments.read());
    } catch (cause) {
      if (!(cause instanceof FailureError)) throw cause;
      const what = `the latents have no effective rank: ${cause.message}`;
      if (this.moments.count < 2) throw new FailureError(`${what}: use smaller patches, or more pictures`, { cause });
      const mend = 'the network has diverged. Train it with a lower train.learningRate, or with --dtype float32';
      throw new DivergedError(`${what}: ${mend}`, { cause });
    } finally {
      this.dispose();
    }
  }

  /** Frees what is held without reading it. */
  dispose(): void {
    this.moments.dispose();
  }
}

/** Of latents at hand, (B, N, C) or (M, C). Waits for the device. @throws FailureError as RankMeter.read */
export function latentHealth(latents: Tensor): LatentHealth {
  const meter = new RankMeter();
  meter.add(latents);
  return meter.read();
}

/** The effective rank of latents at hand, (B, N, C) or (M, C). Waits for the device. @throws FailureError as RankMeter.read */
export function effectiveRank(latents: Tensor): number {
  return latentHealth(latents).effectiveRank;
}

function health({ count, covariance }: Statistics): LatentHealth {
  const values = eigenvalues(covariance);
  const variance = values.reduce((sum, value) => sum + value, 0) / values.length;
  const spectrum = [...values.map((value) => Math.sqrt(Math.max(0, value)))].reverse();
  return { effectiveRank: spectrumRank(values), deviation: Math.sqrt(Math.max(0, variance)), spectrum, tokens: count };
}

/** exp(entropy) of the singular values that belong to these eigenvalues. */
function spectrumRank(eigenvalues: Float64Array): number {
  const s = eigenvalues.map((value) => Math.sqrt(Math.max(0, value)));
  const total = s.reduce((sum, value) => sum + value, 0);
  if (total === 0) return 0;
  return Math.exp(s.reduce((entropy, value) => (value > 0 ? entropy - (value / total) * Math.log(value / total) : entropy), 0));
}
