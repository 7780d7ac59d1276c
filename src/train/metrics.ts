/** The running means of a run between two log lines, kept on the device and read once a line. */
import { FailureError } from '../core/errors.js';
import { type LatentHealth, latentHealth } from '../eval/rank.js';
import { cat, noGrad, scope, type Tensor } from '../torch/index.js';
import type { StepOutput } from './step.js';

/** A line of metrics.jsonl. Losses are means over the steps since the line before, unweighted; `total` is their weighted sum. */
export interface LogLine {
  readonly kind: 'train';
  /** Pictures trained on so far. */
  readonly images: number;
  readonly losses: Readonly<Record<string, number>>;
  readonly gradientNorm: number;
  readonly learningRate: number;
  /** Effective rank of the last batch's latent, and of the same before LayerNorm (ARCHITECTURE.md, The method: effective rank). */
  readonly effectiveRank: number;
  readonly effectiveRankRaw: number;
  /** Standard deviation of the latent before LayerNorm, about each channel's mean: it shows a scale that vanishes or runs away. */
  readonly latentDeviation: number;
  readonly imagesPerSecond: number;
  /** Model FLOP/s: matrix products and attention of `passes` forward passes a picture. */
  readonly flopsPerSecond: number;
  readonly passes: number;
  /** Share of the time, at most, in which the device had nothing to do but wait for pictures. */
  readonly dataWait: number;
  readonly memoryMiB: number;
  readonly secondsLeft: number;
  /** Steps not applied since the start, because their gradient was not finite. */
  readonly skipped: number;
}

/** A measurement on held-out pictures with the averaged weights. */
export interface Evaluation {
  readonly kind: 'evaluate';
  readonly images: number;
  /** Of reconstructions, by pooled squared error, dB. NaN in a run without decoder. */
  readonly psnr: number;
  readonly effectiveRank: number;
  readonly latentDeviation: number;
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

/** What the steps since the last line come to. */
export interface Means {
  readonly losses: Readonly<Record<string, number>>;
  readonly gradientNorm: number;
  /** Of each step since the last line, in order: whether its gradient was not finite, so that it was not applied. */
  readonly bad: readonly boolean[];
  readonly rank: number;
  readonly rawRank: number;
  readonly deviation: number;
}

/** Means over steps of values that stay on the device until they are asked for. */
export class Accumulator {
  private readonly sums = new Map<string, Tensor>();
  /** 0-d, or one vector of those that a checkpoint brought. */
  private flags: Tensor[] = [];
  private latent: Tensor | undefined;
  private raw: Tensor | undefined;

  /** Steps since the last line. */
  steps = 0;

  /** Takes what a step returned and disposes of it, but for the latents, which replace the ones before. */
  add(output: StepOutput): void {
    for (const [name, value] of [...Object.entries(output.terms), ['gradientNorm', output.gradientNorm] as const])
      this.accumulate(name, value);
    this.flags.push(noGrad(() => scope(() => output.gradientNorm.isfinite().logicalNot().to({ dtype: 'float32' }))));
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
  read(): Means {
    const means = new Map([...this.sums].map(([name, sum]) => [name, Number(sum.item()) / this.steps]));
    const bad = this.readFlags();
    this.clear();
    const gradientNorm = means.get('gradientNorm') ?? Number.NaN;
    means.delete('gradientNorm');
    const [latent, raw] = [health(this.latent), health(this.raw)];
    return {
      ...{ losses: Object.fromEntries(means), gradientNorm, bad },
      rank: latent?.effectiveRank ?? Number.NaN,
      rawRank: raw?.effectiveRank ?? Number.NaN,
      deviation: raw?.deviation ?? Number.NaN,
    };
  }

  private readFlags(): boolean[] {
    if (this.flags.length === 0) return [];
    const all = scope(() => cat(this.flags.map((flag) => flag.reshape(-1))));
    const read = [...(all.toArray() as Float32Array)].map((flag) => flag > 0);
    all.dispose();
    return read;
  }

  /** The sums so far, for a checkpoint between two lines; with `flags`, one a step. The caller's own. */
  state(): Map<string, Tensor> {
    const sums = [...this.sums].map(([name, sum]) => [`sum.${name}`, sum.clone()] as const);
    if (this.steps === 0) return new Map();
    return new Map([...sums, ['flags', scope(() => cat(this.flags.map((flag) => flag.reshape(-1))))]]);
  }

  /** Goes on where `state` was taken. Takes the tensors over. */
  restore(state: ReadonlyMap<string, Tensor>): void {
    this.clear();
    for (const [name, value] of state) {
      if (name !== 'flags') this.sums.set(name.slice('sum.'.length), value);
      else {
        this.flags = [value];
        this.steps = value.numel;
      }
    }
  }

  private clear(): void {
    for (const value of [...this.sums.values(), ...this.flags]) value.dispose();
    this.sums.clear();
    this.flags = [];
    this.steps = 0;
  }

  dispose(): void {
    this.clear();
    this.latent?.dispose();
    this.raw?.dispose();
  }
}
