/**
 * The tensor. Methods are PyTorch's, in camelCase, with its meaning of every argument; each is one call of an operator and names it. A
 * number as an operand is a double (an integer tensor plus 2 is float32); a bigint is an integer.
 *
 * All methods throw an Error that names the operator and the shapes where libtorch refuses, and a TypeError for an argument of the wrong
 * kind, a disposed tensor among them.
 */
import { defineTensor, engine, h, isTensor, optional } from './call.js';
import { type Device, type DType, optionalCode } from './dtype.js';
import { TensorIdentity } from './identity.js';
import type { TypedArray } from './native.js';
import * as op from './operators.js';
import { dims, sizes } from './operators.js';

export type Scalar = number | bigint;
/** One dimension, several, or all if left out. Negative ones count from the end. */
export type Dims = number | readonly number[];
/** A shape as an array or as arguments. */
export type Sizes = readonly number[] | [readonly number[]];

export class Tensor extends TensorIdentity {
  // Values out of the engine. Each waits for the device.

  /** The one element: a number, a bigint beyond 2^53, or a boolean. @throws Error if there are more. */
  item(): number | bigint | boolean {
    return op.ITEM.call(this.handle) as number | bigint | boolean;
  }
  /** A copy, row-major. bfloat16 and float16 come as Float32Array, bool as Uint8Array, int64 as BigInt64Array. At most 2 GiB. */
  toArray(): TypedArray {
    return engine().toData(this.handle);
  }

  // Conversions.

  /** Another dtype or device; shares memory if nothing changes. */
  to(options: { dtype?: DType | undefined; device?: Device | undefined; copy?: boolean }): Tensor {
    return op.TO.one(this.handle, optionalCode(options.dtype), undefined, options.device, undefined, undefined, options.copy);
  }
  /** The same values, without history. Shares memory. */
  detach(): Tensor {
    return op.DETACH.one(this.handle);
  }
  clone(): Tensor {
    return op.CLONE.one(this.handle);
  }
  contiguous(): Tensor {
    return op.CONTIGUOUS.one(this.handle);
  }
  /** Whether gradients are wanted. @throws Error for integers, or for a tensor with history. */
  requiresGrad_(on = true): this {
    op.REQUIRES_GRAD_.call(this.handle, on);
    return this;
  }

  // Arithmetic, element by element, shapes broadcast.

  add(other: Tensor | Scalar): Tensor {
    return op.ADD.one(this, other);
  }
  sub(other: Tensor | Scalar): Tensor {
    return op.SUB.one(this, other);
  }
  mul(other: Tensor | Scalar): Tensor {
    return op.MUL.one(this, other);
  }
  div(other: Tensor | Scalar): Tensor {
    return op.DIV.one(this, other);
  }
  pow(exponent: Tensor | Scalar): Tensor {
    return op.POW.one(this, exponent);
  }
  /** The sign of the divisor, as in Python. */
  remainder(other: Tensor | Scalar): Tensor {
    return op.REMAINDER.one(this, other);
  }
  neg(): Tensor {
    return op.NEG.one(this.handle);
  }
  exp(): Tensor {
    return op.EXP.one(this.handle);
  }
  log(): Tensor {
    return op.LOG.one(this.handle);
  }
  sqrt(): Tensor {
    return op.SQRT.one(this.handle);
  }
  rsqrt(): Tensor {
    return op.RSQRT.one(this.handle);
  }
  abs(): Tensor {
    return op.ABS.one(this.handle);
  }
  square(): Tensor {
    return op.SQUARE.one(this.handle);
  }
  sign(): Tensor {
    return op.SIGN.one(this.handle);
  }
  /** Halves to even. */
  round(): Tensor {
    return op.ROUND.one(this.handle);
  }
  floor(): Tensor {
    return op.FLOOR.one(this.handle);
  }
  erf(): Tensor {
    return op.ERF.one(this.handle);
  }
  erfinv(): Tensor {
    return op.ERFINV.one(this.handle);
  }
  sigmoid(): Tensor {
    return op.SIGMOID.one(this.handle);
  }
  silu(): Tensor {
    return op.SILU.one(this.handle);
  }
  /** The exact one, or its tanh approximation. */
  gelu(approximate: 'none' | 'tanh' = 'none'): Tensor {
    return op.GELU.one(this.handle, approximate);
  }
  relu(): Tensor {
    return op.RELU.one(this.handle);
  }
  tanh(): Tensor {
    return op.TANH.one(this.handle);
  }
  cos(): Tensor {
    return op.COS.one(this.handle);
  }
  sin(): Tensor {
    return op.SIN.one(this.handle);
  }
  /** One of the limits may be left out. */
  clamp(min?: number, max?: number): Tensor {
    return op.CLAMP.one(this.handle, min, max);
  }
  /** self + weight (end - self). */
  lerp(end: Tensor, weight: Tensor | number): Tensor {
    return isTensor(weight) ? op.LERP[0].one(this.handle, h(end), weight.handle) : op.LERP[1].one(this.handle, h(end), weight);
  }
  isfinite(): Tensor {
    return op.ISFINITE.one(this.handle);
  }
  lt(other: Tensor | Scalar): Tensor {
    return op.LT.one(this, other);
  }
  le(other: Tensor | Scalar): Tensor {
    return op.LE.one(this, other);
  }
  gt(other: Tensor | Scalar): Tensor {
    return op.GT.one(this, other);
  }
  ge(other: Tensor | Scalar): Tensor {
    return op.GE.one(this, other);
  }
  eq(other: Tensor | Scalar): Tensor {
    return op.EQ.one(this, other);
  }
  ne(other: Tensor | Scalar): Tensor {
    return op.NE.one(this, other);
  }
  logicalAnd(other: Tensor): Tensor {
    return op.AND.one(this.handle, h(other));
  }
  logicalOr(other: Tensor): Tensor {
    return op.OR.one(this.handle, h(other));
  }
  logicalNot(): Tensor {
    return op.NOT.one(this.handle);
  }
  maskedFill(mask: Tensor, value: Tensor | Scalar): Tensor {
    return isTensor(value) ? op.MASKED_FILL[0].one(this.handle, h(mask), value.handle) : op.MASKED_FILL[1].one(this.handle, h(mask), value);
  }

  // Products and reductions. No dimension: over all.

  matmul(other: Tensor): Tensor {
    return op.MATMUL.one(this.handle, h(other));
  }
  softmax(dim: number): Tensor {
    return op.SOFTMAX.one(this.handle, dim);
  }
  logSoftmax(dim: number): Tensor {
    return op.LOG_SOFTMAX.one(this.handle, dim);
  }
  logsumexp(dim: Dims, keepdim = false): Tensor {
    return op.LOGSUMEXP.one(this.handle, dims(dim), keepdim);
  }
  sum(dim?: Dims, keepdim = false): Tensor {
    return op.SUM.one(this.handle, dims(dim), keepdim);
  }
  mean(dim?: Dims, keepdim = false): Tensor {
    return op.MEAN.one(this.handle, dims(dim), keepdim);
  }
  /** Divides by n - correction. */
  std(dim?: Dims, keepdim = false, correction = 1): Tensor {
    return op.STD.one(this.handle, dims(dim), correction, keepdim);
  }
  var(dim?: Dims, keepdim = false, correction = 1): Tensor {
    return op.VAR.one(this.handle, dims(dim), correction, keepdim);
  }
  /** (sum |x|^p)^(1/p). */
  norm(p = 2, dim?: Dims, keepdim = false): Tensor {
    return op.NORM.one(this.handle, p, dims(dim), keepdim);
  }
  all(): Tensor {
    return op.ALL.one(this.handle);
  }
  any(): Tensor {
    return op.ANY.one(this.handle);
  }
  /** The largest of all, or [values, indices] along a dimension. */
  max(): Tensor;
  max(dim: number, keepdim?: boolean): [Tensor, Tensor];
  max(dim?: number, keepdim = false): Tensor | [Tensor, Tensor] {
    return dim === undefined ? op.MAX[0].one(this.handle) : (op.MAX[1].many(this.handle, dim, keepdim) as [Tensor, Tensor]);
  }
  /** The smallest of all, or [values, indices] along a dimension. */
  min(): Tensor;
  min(dim: number, keepdim?: boolean): [Tensor, Tensor];
  min(dim?: number, keepdim = false): Tensor | [Tensor, Tensor] {
    return dim === undefined ? op.MIN[0].one(this.handle) : (op.MIN[1].many(this.handle, dim, keepdim) as [Tensor, Tensor]);
  }
  amax(dim?: Dims, keepdim = false): Tensor {
    return op.AMAX.one(this.handle, dims(dim) ?? [], keepdim);
  }
  amin(dim?: Dims, keepdim = false): Tensor {
    return op.AMIN.one(this.handle, dims(dim) ?? [], keepdim);
  }
  argmax(dim?: number, keepdim = false): Tensor {
    return op.ARGMAX.one(this.handle, dim, keepdim);
  }
  argmin(dim?: number, keepdim = false): Tensor {
    return op.ARGMIN.one(this.handle, dim, keepdim);
  }
  argsort(dim = -1, descending = false): Tensor {
    return op.ARGSORT.one(this.handle, dim, descending);
  }
  /** [values, indices] */
  sort(dim = -1, descending = false): [Tensor, Tensor] {
    return op.SORT.many(this.handle, dim, descending) as [Tensor, Tensor];
  }
  /** [values, indices] of the k largest (or smallest), sorted. */
  topk(k: number, dim = -1, largest = true): [Tensor, Tensor] {
    return op.TOPK.many(this.handle, k, dim, largest) as [Tensor, Tensor];
  }
  cumsum(dim: number): Tensor {
    return op.CUMSUM.one(this.handle, dim);
  }

  // Shapes. Those that can be views of the same memory are.

  view(...shape: Sizes): Tensor {
    return op.VIEW.one(this.handle, sizes(shape));
  }
  reshape(...shape: Sizes): Tensor {
    return op.RESHAPE.one(this.handle, sizes(shape));
  }
  permute(...order: Sizes): Tensor {
    return op.PERMUTE.one(this.handle, sizes(order));
  }
  transpose(dim0: number, dim1: number): Tensor {
    return op.TRANSPOSE.one(this.handle, dim0, dim1);
  }
  flatten(start = 0, end = -1): Tensor {
    return op.FLATTEN.one(this.handle, start, end);
  }
  unsqueeze(dim: number): Tensor {
    return op.UNSQUEEZE.one(this.handle, dim);
  }
  squeeze(dim?: number): Tensor {
    return dim === undefined ? op.SQUEEZE[0].one(this.handle) : op.SQUEEZE[1].one(this.handle, dim);
  }
  /** -1 keeps a size. */
  expand(...shape: Sizes): Tensor {
    return op.EXPAND.one(this.handle, sizes(shape));
  }
  repeat(...times: Sizes): Tensor {
    return op.REPEAT.one(this.handle, sizes(times));
  }
  repeatInterleave(times: number, dim?: number): Tensor {
    // libtorch 1.13 multiplies without a look at overflow, and then writes where there is nothing.
    if (!this.disposed && this.shape.reduce((product, size) => product * Math.max(1, size), Number(times)) > Number.MAX_SAFE_INTEGER)
      throw new TypeError(`aten::repeat_interleave: argument 'repeats' makes too many elements of [${this.shape.join(', ')}]: ${times}`);
    return op.REPEAT_INTERLEAVE.one(this.handle, times, dim);
  }
  narrow(dim: number, start: number, length: number): Tensor {
    return op.NARROW.one(this.handle, dim, start, length);
  }
  select(dim: number, index: number): Tensor {
    return op.SELECT.one(this.handle, dim, index);
  }
  /** Elements start to end (left out: to the last) along a dimension. */
  slice(dim: number, start?: number, end?: number, step = 1): Tensor {
    return op.SLICE.one(this.handle, dim, start, end, step);
  }
  /** Advanced indexing: one index tensor (int64 or bool) for each leading dimension, null for all of it. */
  index(indices: readonly (Tensor | null)[]): Tensor {
    return op.INDEX.one(this.handle, Array.isArray(indices) ? indices.map((index: Tensor | null) => optional(index) ?? null) : null);
  }
  indexSelect(dim: number, index: Tensor): Tensor {
    return op.INDEX_SELECT.one(this.handle, dim, h(index));
  }
  gather(dim: number, index: Tensor): Tensor {
    return op.GATHER.one(this.handle, dim, h(index));
  }
  chunk(chunks: number, dim = 0): Tensor[] {
    return op.CHUNK.many(this.handle, chunks, dim);
  }
  /** Pieces of one size, or of the sizes given. */
  split(size: Dims, dim = 0): Tensor[] {
    return typeof size === 'number' ? op.SPLIT[0].many(this.handle, size, dim) : op.SPLIT[1].many(this.handle, size, dim);
  }
  unbind(dim = 0): Tensor[] {
    return op.UNBIND.many(this.handle, dim);
  }
  flip(...order: Sizes): Tensor {
    return op.FLIP.one(this.handle, sizes(order));
  }
  tril(diagonal = 0): Tensor {
    return op.TRIL.one(this.handle, diagonal);
  }
  diagonal(offset = 0, dim0 = 0, dim1 = 1): Tensor {
    return op.DIAGONAL.one(this.handle, offset, dim0, dim1);
  }

  // In place. Each returns the tensor itself.

  add_(other: Tensor | Scalar): this {
    op.ADD_.change(this, other);
    return this;
  }
  sub_(other: Tensor | Scalar): this {
    op.SUB_.change(this, other);
    return this;
  }
  mul_(other: Tensor | Scalar): this {
    op.MUL_.change(this, other);
    return this;
  }
  div_(other: Tensor | Scalar): this {
    op.DIV_.change(this, other);
    return this;
  }
  /**
   * Takes new values from an array of its own type and length, which is free to change afterwards: on a CUDA device nothing waits, and they are there
   * for what follows. @throws TypeError when they do not fit
   */
  upload(data: TypedArray): this {
    engine().upload(this.handle, data);
    return this;
  }
  /** Copies values, shape broadcast, dtype and device converted. */
  copy_(from: Tensor): this {
    op.COPY_.call(this.handle, h(from));
    return this;
  }
  zero_(): this {
    op.ZERO_.call(this.handle);
    return this;
  }
  fill_(value: Tensor | Scalar): this {
    isTensor(value) ? op.FILL_[0].call(this.handle, value.handle) : op.FILL_[1].call(this.handle, value);
    return this;
  }
  clamp_(min?: number, max?: number): this {
    op.CLAMP_.call(this.handle, min, max);
    return this;
  }
  lerp_(end: Tensor, weight: Tensor | number): this {
    isTensor(weight) ? op.LERP_[0].call(this.handle, h(end), weight.handle) : op.LERP_[1].call(this.handle, h(end), weight);
    return this;
  }
}

defineTensor(Tensor);
