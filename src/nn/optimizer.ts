/**
 * The optimizer of a whole network: AdamW (Loshchilov and Hutter, arXiv 1711.05101), with Muon for the matrices it is told of; clipping by the
 * global norm; a step whose gradient is not finite is skipped. Nothing in it waits for the device.
 */
import { adamw_, type DType, gradNorm, lerpList_, noGrad, scope, type Tensor, zeros, zerosLike } from '../torch/index.js';
import { MuonGroup, type Stacked } from './muon.js';
import { type Copies, Weights } from './weights.js';

export interface OptimizerOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  /** Global gradient norm above which gradients are scaled down to it. */
  readonly clip: number;
  /** Parameters that Muon updates, with the number of matrices that lie in each one under the other. */
  readonly muon: ReadonlyMap<string, number>;
  /** Type in which Muon multiplies. */
  readonly compute: DType;
}

/** What is kept up with the weights, in the pass that updates them. */
export interface Followers {
  readonly target?: Average | undefined;
  readonly average?: Average | undefined;
  /** Of the weights, and of the target. */
  readonly copies?: Copies | undefined;
  readonly targetCopies?: Copies | undefined;
}

export class Optimizer {
  /** AdamW's moments, of the parameters that are its own. */
  readonly first: Weights;
  readonly second: Weights;
  /** Steps that AdamW has taken, which skipped ones do not advance: 0-d float32 on the device. */
  readonly step: Tensor;
  readonly groups: readonly MuonGroup[];
  private readonly names: readonly string[];
  private readonly own: Weights;

  constructor(
    weights: Weights,
    private readonly options: OptimizerOptions,
    private readonly followers: Followers = {},
  ) {
    this.names = [...weights.tensors.keys()];
    this.own = new Weights(new Map([...weights.tensors].filter(([name]) => !options.muon.has(name))));
    this.first = this.own.map((w) => zerosLike(w));
    this.second = this.own.map((w) => zerosLike(w));
    this.step = zeros([], { device: (weights.list()[0] as Tensor).device });
    const byShape = new Map<string, [Stacked[], number, number]>();
    for (const [name, count] of options.muon) {
      const weight = weights.get(name);
      const [r, q] = [(weight.shape[0] as number) / count, weight.shape[1] as number];
      const group = byShape.get(`${r} x ${q}`) ?? [[], r, q];
      group[0].push({ name, weight, count });
      byShape.set(`${r} x ${q}`, group);
    }
    this.groups = [...byShape.values()].map(([members, r, q]) => new MuonGroup(members, r, q, options.compute));
  }

  /**
   * One step from gradients in the order of the weights, of their type or of their copies' (null: no gradient, left as it is). `rates` (3), on the
   * device and float32 or float64, is what changes from step to step: the learning rate, and the shares by which target and average move towards the
   * weights (Average.share). Where the gradient is not finite, weights and moments stay as they are, and the averages move as always.
   * Returns the norm before clipping, 0-d, unread.
   */
  update(given: readonly (Tensor | null)[], rates: Tensor): Tensor {
    const { beta1, beta2, epsilon, weightDecay, clip } = this.options;
    return noGrad(() =>
      scope(() => {
        const learningRate = rates.select(0, 0);
        const gradients = given.map((gradient) => (gradient?.dtype === 'bfloat16' ? gradient.to({ dtype: 'float32' }) : gradient));
        const norm = gradNorm(gradients);
        const finite = norm.isfinite();
        const gradScale = norm.add(1e-6).div(clip).clamp(1); // gradients are divided by it; 1e-6 as in PyTorch
        const of = new Map(this.names.map((name, i) => [name, gradients[i] ?? null]));
        adamw_(
          this.own.list(),
          [...this.own.tensors.keys()].map((name) => of.get(name) ?? null),
          this.first.list(),
          this.second.list(),
          this.step,
          {
            lr: learningRate,
            beta1,
            beta2,
            eps: epsilon,
            weightDecay,
            gradScale: gradScale.to({ dtype: 'float32' }),
            foundInf: finite.logicalNot().to({ dtype: 'float32' }),
          },
        );
        for (const group of this.groups) {
          // A block is used whole or not at all, so that a group has all of its gradients or none.
          const found = group.members.flatMap(({ name }) => of.get(name) ?? []);
          if (found.length === group.members.length) group.update(found, { learningRate, weightDecay, scale: gradScale, finite });
        }
        const { target, average, copies, targetCopies } = this.followers;
        for (const [i, each] of [target, average].entries()) each?.follow(rates.select(0, i + 1));
        copies?.refresh();
        targetCopies?.refresh();
        return norm;
      }),
    );
  }

  /** All that an update reads beside weights and gradients, by name: what a checkpoint keeps. The tensors themselves, not copies. */
  state(): Map<string, Tensor> {
    return new Map([
      ['step', this.step],
      ...[...this.first.tensors].map(([name, value]) => [`first.${name}`, value] as const),
      ...[...this.second.tensors].map(([name, value]) => [`second.${name}`, value] as const),
      ...this.groups.map(({ momentum }) => [`momentum.${momentum.shape.slice(1).join('x')}`, momentum] as const),
    ]);
  }

  dispose(): void {
    for (const set of [this.first, this.second]) set.dispose();
    for (const group of this.groups) group.momentum.dispose();
    this.step.dispose();
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
   * The share by which it moves towards the weights after update number n (from 0): 1 - d, d = min(decay, (1 + n) / (10 + n)), so that a short run's
   * average is not held back by its first, untrained weights.
   */
  share(n: number): number {
    return 1 - Math.min(this.decay, (1 + n) / (10 + n));
  }

  /** theta_bar += share (theta - theta_bar). */
  follow(share: Tensor): void {
    noGrad(() => lerpList_(this.weights.list(), this.of.list(), share));
  }
}
