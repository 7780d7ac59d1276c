/**
 * Parameters as plain data: a network here is a function of its weights, so the online network, its average, a frozen one and a
 * lower-precision copy are the same code over different maps.
 */
import { FailureError } from '../core/errors.js';
import { type Device, type DType, noGrad, scope, type Tensor } from '../torch/index.js';

/** A linear layer's weight (out, in) and, where it has one, bias (out). */
export interface Linear {
  readonly weight: Tensor;
  readonly bias?: Tensor;
}

/** A named set of tensors and a place in it: `at('trunk')` sees `trunk.x` as `x`. */
export class Weights {
  constructor(
    readonly tensors: ReadonlyMap<string, Tensor>,
    private readonly prefix = '',
  ) {}

  /** @throws FailureError when there is no such tensor. */
  get(name: string): Tensor {
    const found = this.tensors.get(this.prefix + name);
    if (!found) throw new FailureError(`the weights have no tensor '${this.prefix}${name}'`);
    return found;
  }

  has(name: string): boolean {
    return this.tensors.has(this.prefix + name);
  }

  at(name: string): Weights {
    return new Weights(this.tensors, `${this.prefix}${name}.`);
  }

  linear(name: string): Linear {
    return this.has(`${name}.bias`)
      ? { weight: this.get(`${name}.weight`), bias: this.get(`${name}.bias`) }
      : { weight: this.get(`${name}.weight`) };
  }

  list(): Tensor[] {
    return [...this.tensors.values()];
  }

  /** A new set with each tensor replaced by what `make` returns for it. */
  map(make: (tensor: Tensor, name: string) => Tensor): Weights {
    return new Weights(new Map([...this.tensors].map(([name, tensor]) => [name, make(tensor, name)])));
  }

  /** Independent copies, without gradient. */
  clone(options: { dtype?: DType; device?: Device } = {}): Weights {
    return this.map((tensor) => scope(() => tensor.detach().to(options).clone()));
  }

  dispose(): void {
    for (const tensor of this.tensors.values()) tensor.dispose();
  }
}

/**
 * Copies of some weights in another type, for a network to compute with: leaves of their own, so that no step casts anything and gradients come out in
 * that type. The optimizer keeps them equal to the weights; whoever else sets those calls `refresh`.
 */
export class Copies {
  /** By the names of the weights that they copy. */
  readonly tensors: ReadonlyMap<string, Tensor>;
  /** All that they were made of, each copy in the place of its weight. */
  readonly weights: Weights;

  constructor(
    private readonly of: Weights,
    names: Iterable<string>,
    dtype: DType,
  ) {
    this.tensors = new Map([...names].map((name) => [name, noGrad(() => scope(() => of.get(name).detach().to({ dtype, copy: true })))]));
    this.weights = of.map((weight, name) => this.tensors.get(name) ?? weight);
  }

  /** Makes them again of what the weights are now. */
  refresh(): void {
    noGrad(() => {
      for (const [name, copy] of this.tensors) copy.copy_(this.of.get(name));
    });
  }

  dispose(): void {
    for (const copy of this.tensors.values()) copy.dispose();
  }
}
