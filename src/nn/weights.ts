/**
 * Parameters as plain data: a network here is a function of its weights, so the online network, its average, a frozen one and a
 * lower-precision copy are the same code over different maps.
 */
import { FailureError } from '../core/errors.js';
import { type Device, type DType, scope, type Tensor } from '../torch/index.js';

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
