/**
 * The optimizer of a whole network: AdamW (Loshchilov and Hutter, arXiv 1711.05101), with Muon for the matrices it is told of; clipping by the
 * global norm; a step whose gradient is not finite is skipped. Nothing in it waits for the device.
 */
import { type DType, gradNorm, noGrad, scope, stepNumbers, type Tensor, type Updated, update_, zeros, zerosLike } from '../torch/index.js';
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
  /** Steps taken, skipped ones not counted: 0-d float32 on the device. */
  readonly step: Tensor;
  readonly groups: readonly MuonGroup[];
  private readonly parameters: readonly Updated[];
  /** Where the members of each group stand among the parameters. */
  private readonly places: readonly (readonly number[])[];

  constructor(
    weights: Weights,
    private readonly options: OptimizerOptions,
    { target, average, copies, targetCopies }: Followers = {},
  ) {
    const names = [...weights.tensors.keys()];
    const own = new Weights(new Map([...weights.tensors].filter(([name]) => !options.muon.has(name))));
    this.first = own.map((w) => zerosLike(w));
    this.second = own.map((w) => zerosLike(w));
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
    this.places = this.groups.map(({ members }) => members.map(({ name }) => names.indexOf(name)));
    const scales = new Map(this.groups.flatMap(({ members, scale }) => members.map(({ name }) => [name, scale])));
    this.parameters = names.map((name) => ({
      weight: weights.get(name),
      moments: own.has(name) ? [this.first.get(name), this.second.get(name)] : undefined,
      scale: scales.get(name),
      target: target?.weights.get(name),
      average: average?.weights.get(name),
      copy: copies?.tensors.get(name),
      targetCopy: targetCopies?.tensors.get(name),
    }));
  }

  /**
   * One step from gradients in the order of the weights, of their type or of their copies' (null: no gradient, left as it is). `rates` (3), on the
   * device and float32 or float64, is what changes from step to step: the learning rate, and the shares by which target and average move towards the
   * weights (Average.share). Where the gradient is not finite, weights and moments stay as they are, and the averages move as always.
   * Returns the norm before clipping, 0-d, unread.
   */
  update(gradients: readonly (Tensor | null)[], rates: Tensor): Tensor {
    return noGrad(() =>
      scope(() => {
        const norm = gradNorm(gradients);
        const numbers = stepNumbers(norm, this.step, rates, this.options);
        const given = [...gradients];
        for (const [i, group] of this.groups.entries()) {
          const places = this.places[i] as readonly number[];
          // A block is used whole or not at all, so that a group has all of its gradients or none.
          const found = places.flatMap((place) => gradients[place] ?? []);
          const directions = found.length === places.length ? group.directions(found, numbers) : [];
          for (const [member, place] of places.entries()) given[place] = directions[member] ?? null;
        }
        const { beta1, beta2, epsilon } = this.options;
        update_(this.parameters, given, numbers, { beta1, beta2, eps: epsilon });
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

/** An exponential moving average of weights, which the optimizer moves. */
export class Average {
  readonly weights: Weights;

  constructor(
    of: Weights,
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
}
