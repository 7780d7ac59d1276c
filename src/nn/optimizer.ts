/**
 * AdamW over a whole set of parameters, with clipping and a finite-or-stop rule, none of which waits for the device.
 * Loshchilov and Hutter, arXiv 1711.05101.
 */
import { adamw_, gradNorm, lerpList_, noGrad, scope, type Tensor, zeros, zerosLike } from '../torch/index.js';
import type { Weights } from './weights.js';

export interface AdamWOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  /** Global gradient norm above which gradients are scaled down to it. */
  readonly clip: number;
}

/** The state of AdamW: both moments of every parameter and the number of steps taken, which skipped steps do not advance. */
export class AdamW {
  readonly first: Weights;
  readonly second: Weights;
  readonly step: Tensor; // 0-d float32 on the device

  constructor(
    private readonly weights: Weights,
    private readonly options: AdamWOptions,
  ) {
    this.first = weights.map((w) => zerosLike(w));
    this.second = weights.map((w) => zerosLike(w));
    this.step = zeros([], { device: (weights.list()[0] as Tensor).device });
  }

  /**
   * One step from gradients in the order of the weights (null: no gradient, left as it is). Clips by the global norm; a step whose norm is not
   * finite is skipped. Returns the norm before clipping, 0-d, unread.
   */
  update(gradients: readonly (Tensor | null)[], learningRate: number): Tensor {
    const { beta1, beta2, epsilon, weightDecay, clip } = this.options;
    return noGrad(() =>
      scope(() => {
        const weights = this.weights.list();
        const norm = gradNorm(gradients);
        adamw_(weights, gradients, this.first.list(), this.second.list(), this.step, {
          lr: learningRate,
          beta1,
          beta2,
          eps: epsilon,
          weightDecay,
          gradScale: norm.add(1e-6).div(clip).clamp(1), // gradients are divided by it; 1e-6 as in PyTorch
          foundInf: norm.isfinite().logicalNot().to({ dtype: 'float32' }),
        });
        return norm;
      }),
    );
  }
}

/** An exponential moving average of weights. */
export class Average {
  readonly weights: Weights;

  constructor(
    private readonly of: Weights,
    private readonly decay: number,
  ) {
    this.weights = of.clone();
  }

  /**
   * After update number n (from 0): theta_bar += (1 - d) (theta - theta_bar), with d = min(decay, (1 + n) / (10 + n)), so that a short run's
   * average is not held back by its first, untrained weights.
   */
  update(n: number): void {
    const decay = Math.min(this.decay, (1 + n) / (10 + n));
    noGrad(() => lerpList_(this.weights.list(), this.of.list(), 1 - decay));
  }
}
