/** What a tensor is, apart from what can be computed with it: its handle, shape, type, place and life. */
import { dispose, engine, wrap } from './call.js';
import { type Device, type DType, dtypeName } from './dtype.js';
import type { Handle } from './native.js';
import type { Tensor } from './tensor.js';

export abstract class TensorIdentity {
  private cachedShape: readonly number[] | undefined;
  private cachedDtype: DType | undefined;

  /** For this room: tensors are made by `tensor`, `zeros` and the like. The handle is the addon's. */
  constructor(readonly handle: Handle) {}

  get shape(): readonly number[] {
    this.cachedShape ??= engine().shape(this.handle);
    return this.cachedShape;
  }
  get ndim(): number {
    return this.shape.length;
  }
  /** Number of elements. */
  get numel(): number {
    return this.shape.reduce((product, size) => product * size, 1);
  }
  /** The size of one dimension; negative ones count from the end. */
  size(dim: number): number {
    const size = this.shape.at(dim);
    if (size === undefined) throw new RangeError(`size: a tensor of shape [${this.shape.join(', ')}] has no dimension ${dim}`);
    return size;
  }
  get dtype(): DType {
    this.cachedDtype ??= dtypeName(engine().dtype(this.handle));
    return this.cachedDtype;
  }
  /** 'cpu', or 'cuda:0' with its index. */
  get device(): Device {
    return engine().device(this.handle) as Device;
  }
  get requiresGrad(): boolean {
    return engine().requiresGrad(this.handle);
  }
  /** Whether no recorded operator made it. */
  get isLeaf(): boolean {
    return engine().isLeaf(this.handle);
  }
  /** The gradient that `backward` left on a leaf; null before. */
  get grad(): Tensor | null {
    const handle = engine().gradient(this.handle);
    return handle === null ? null : wrap(handle);
  }
  /** Whether dispose() was called, or the scope that owned it ended. */
  get disposed(): boolean {
    return !engine().alive(this.handle);
  }
  /** Frees it now. Doing it twice is harmless; other views of the same memory live on. */
  dispose(): void {
    dispose(this as unknown as Tensor);
  }
  toString(): string {
    return this.disposed ? 'Tensor(disposed)' : `Tensor(${this.dtype}[${this.shape.join(', ')}] ${this.device})`;
  }
}
