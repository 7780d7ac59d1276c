/** The running means of a run between two log lines, kept on the device and read once a line. */
import { FailureError } from '../core/errors.js';
import { type LatentHealth, latentHealth } from '../eval/rank.js';
import { noGrad, scope, type Tensor } from '../torch/index.js';
import type { StepOutput } from './step.js';

/** A line of metrics.jsonl. Losses are means over the steps since the line before, unweighted; `total` is their weighted sum. */
export interface LogLine {
  readonly kind: 'train';
  /** Pictures trained on so far. */
  readonly images: number;
  readonly losses: Readonly<Record<string, number>>;
  readonly gradientNorm: number;
  readonly learningRate: number;
  /** Effective rank of the last batch's latent, and of the same before LayerNorm (method.md section 4). */
  readonly effectiveRank: number;
  readonly effectiveRankRaw: number;
  /** Standard deviation of the latent before LayerNorm, about each channel's mean: it shows a scale that vanishes or runs away. */
  readonly latentDeviation: number;
  readonly imagesPerSecond: number;
  /** Model FLOP/s: matrix products and attention of `passes` forward passes a picture. */
  readonly flopsPerSecond: number;
  readonly passes: number;
  /** Share of the time in which the step waited for pictures. */
  readonly dataWait: number;
  readonly memoryMiB: number;
  readonly secondsLeft: number;
  /** Steps not applied since the start, because their gradient was not finite. */
  readonly skipped: number;
}

/** Undefined where a latent has no rank: that of a step that was skipped may be no numbers, and then the count of skipped steps says why. */
function health(latent: Tensor | undefined): LatentHealth | undefined {
  try {
    return latent && latentHealth(latent);
  } catch (error) {
    if (error instanceof FailureError) return undefined;
    throw error;
  }
}

/** Means over steps of values that stay on the device until they are asked for. */
export class Accumulator {
  private readonly sums = new Map<string, Tensor>();
  private steps = 0;
  /** Steps with a gradient that is not finite: in all, and in a row up to now. */
  private skipped: Tensor | undefined;
  private row: Tensor | undefined;
  private latent: Tensor | undefined;
  private raw: Tensor | undefined;

  /** Takes what a step returned and disposes of it, but for the latents, which replace the ones before. */
  add(output: StepOutput): void {
    for (const [name, value] of [...Object.entries(output.terms), ['gradientNorm', output.gradientNorm] as const])
      this.accumulate(name, value);
    noGrad(() => {
      const bad = scope(() => output.gradientNorm.isfinite().logicalNot().to({ dtype: 'float32' }));
      if (this.skipped && this.row) {
        this.skipped.add_(bad);
        this.row.add_(1).mul_(bad);
        bad.dispose();
      } else {
        this.skipped = bad;
        this.row = bad.clone();
      }
    });
    for (const value of [...Object.values(output.terms), output.gradientNorm]) value.dispose();
    this.latent?.dispose();
    this.raw?.dispose();
    this.latent = output.latent;
    this.raw = output.rawLatent;
    this.steps++;
  }

  private accumulate(name: string, value: Tensor): void {
    const sum = this.sums.get(name);
    if (sum) noGrad(() => sum.add_(value));
    else this.sums.set(name, value.clone());
  }

  /** Reads the means and starts anew. This waits for the device. */
  read(): {
    losses: Record<string, number>;
    gradientNorm: number;
    skipped: number;
    row: number;
    rank: number;
    rawRank: number;
    deviation: number;
  } {
    const means = new Map([...this.sums].map(([name, sum]) => [name, Number(sum.item()) / this.steps]));
    for (const sum of this.sums.values()) sum.dispose();
    this.sums.clear();
    this.steps = 0;
    const gradientNorm = means.get('gradientNorm') ?? Number.NaN;
    means.delete('gradientNorm');
    const [latent, raw] = [health(this.latent), health(this.raw)];
    return {
      losses: Object.fromEntries(means),
      gradientNorm,
      skipped: Number(this.skipped?.item() ?? 0),
      row: Number(this.row?.item() ?? 0),
      rank: latent?.effectiveRank ?? Number.NaN,
      rawRank: raw?.effectiveRank ?? Number.NaN,
      deviation: raw?.deviation ?? Number.NaN,
    };
  }
}
