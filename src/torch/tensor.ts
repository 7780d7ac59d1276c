/**
 * The tensor. Methods are PyTorch's, in camelCase, with its meaning of every argument; each is one call of an operator and names it. A
 * number as an operand is a double (an integer tensor plus 2 is float32); a bigint is an integer.
 *
 * All methods throw an Error that names the operator and the shapes where libtorch refuses, and a TypeError for an argument of the wrong
 * kind, a disposed tensor among them.
 */
import { defineTensor, dispose, engine, h, isTensor, Op, optional, wrap } from './call.js';
import { type Device, type DType, dtypeName, optionalCode } from './dtype.js';
import type { Handle, TypedArray } from './native.js';

export type Scalar = number | bigint;
/** One dimension, several, or all if left out. Negative ones count from the end. */
export type Dims = number | readonly number[];
/** A shape as an array or as arguments. */
type Sizes = readonly number[] | [readonly number[]];

const dims = (dim: Dims | undefined): readonly number[] | null => (dim === undefined ? null : typeof dim === 'number' ? [dim] : dim);
const sizes = (shape: Sizes): readonly number[] => (Array.isArray(shape[0]) ? (shape[0] as readonly number[]) : (shape as readonly number[]));

/** Operators of a tensor and a tensor or number: `aten::add.Tensor` and `aten::add.Scalar`. */
class Binary {
  private readonly tensor: Op;
  private readonly scalar: Op;
  constructor(name: string, tensor = 'Tensor', scalar = 'Scalar') {
    this.tensor = new Op(`aten::${name}.${tensor}`);
    this.scalar = new Op(`aten::${name}.${scalar}`);
  }
  one(self: Tensor, other: Tensor | Scalar): Tensor {
    return isTensor(other) ? this.tensor.one(self.handle, other.handle) : this.scalar.one(self.handle, other);
  }
  change(self: Tensor, other: Tensor | Scalar): Tensor {
    if (isTensor(other)) this.tensor.call(self.handle, other.handle);
    else this.scalar.call(self.handle, other);
    return self;
  }
}

const aten = (name: string): Op => new Op(`aten::${name}`);
const [ADD, SUB, MUL, DIV] = [new Binary('add'), new Binary('sub'), new Binary('mul'), new Binary('div')];
const [ADD_, SUB_, MUL_, DIV_] = [new Binary('add_'), new Binary('sub_'), new Binary('mul_'), new Binary('div_')];
const POW = new Binary('pow', 'Tensor_Tensor', 'Tensor_Scalar');
const REMAINDER = new Binary('remainder');
const [LT, LE, GT, GE, EQ, NE] = [new Binary('lt'), new Binary('le'), new Binary('gt'), new Binary('ge'), new Binary('eq'), new Binary('ne')];
const MASKED_FILL = [aten('masked_fill.Tensor'), aten('masked_fill.Scalar')] as const;
const LERP = [aten('lerp.Tensor'), aten('lerp.Scalar')] as const;
const LERP_ = [aten('lerp_.Tensor'), aten('lerp_.Scalar')] as const;
const FILL_ = [aten('fill_.Tensor'), aten('fill_.Scalar')] as const;
const NEG = aten('neg');
const EXP = aten('exp');
const LOG = aten('log');
const SQRT = aten('sqrt');
const RSQRT = aten('rsqrt');
const ABS = aten('abs');
const SQUARE = aten('square');
const SIGN = aten('sign');
const ROUND = aten('round');
const FLOOR = aten('floor');
const ERF = aten('erf');
const ERFINV = aten('erfinv');
const SIGMOID = aten('sigmoid');
const SILU = aten('silu');
const GELU = aten('gelu');
const RELU = aten('relu');
const TANH = aten('tanh');
const COS = aten('cos');
const SIN = aten('sin');
const ISFINITE = aten('isfinite');
const NOT = aten('logical_not');
const AND = aten('logical_and');
const OR = aten('logical_or');
const SOFTMAX = aten('softmax.int');
const LOG_SOFTMAX = aten('log_softmax.int');
const LOGSUMEXP = aten('logsumexp');
const MATMUL = aten('matmul');
const SUM = aten('sum.dim_IntList');
const MEAN = aten('mean.dim');
const STD = aten('std.correction');
const VAR = aten('var.correction');
const NORM = aten('linalg_vector_norm');
const ALL = aten('all');
const ANY = aten('any');
const MAX = [aten('max'), aten('max.dim')] as const;
const MIN = [aten('min'), aten('min.dim')] as const;
const AMAX = aten('amax');
const AMIN = aten('amin');
const ARGMAX = aten('argmax');
const ARGMIN = aten('argmin');
const ARGSORT = aten('argsort');
const SORT = aten('sort');
const TOPK = aten('topk');
const CLAMP = aten('clamp');
const CUMSUM = aten('cumsum');
const VIEW = aten('view');
const RESHAPE = aten('reshape');
const PERMUTE = aten('permute');
const TRANSPOSE = aten('transpose.int');
const FLATTEN = aten('flatten.using_ints');
const UNSQUEEZE = aten('unsqueeze');
const SQUEEZE = [aten('squeeze'), aten('squeeze.dim')] as const;
const EXPAND = aten('expand');
const REPEAT = aten('repeat');
const REPEAT_INTERLEAVE = aten('repeat_interleave.self_int');
const NARROW = aten('narrow');
const SELECT = aten('select.int');
const SLICE = aten('slice.Tensor');
const INDEX = aten('index.Tensor');
const INDEX_SELECT = aten('index_select');
const GATHER = aten('gather');
const CHUNK = aten('chunk');
const SPLIT = [aten('split.Tensor'), aten('split_with_sizes')] as const;
const UNBIND = aten('unbind.int');
const FLIP = aten('flip');
const TRIL = aten('tril');
const DIAGONAL = aten('diagonal');
const CONTIGUOUS = aten('contiguous');
const CLONE = aten('clone');
const DETACH = aten('detach');
const TO = aten('to.dtype_layout');
const ITEM = aten('item');
const REQUIRES_GRAD_ = aten('requires_grad_');
const COPY_ = aten('copy_');
const ZERO_ = aten('zero_');
const CLAMP_ = aten('clamp_');

export class Tensor {
  private cachedShape: readonly number[] | undefined;
  private cachedDtype: DType | undefined;

  /** For this room: tensors are made by `tensor`, `zeros` and the like. The handle is the addon's. */
  constructor(readonly handle: Handle) {}

  // What it is.

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
    dispose(this);
  }
  toString(): string {
    return this.disposed ? 'Tensor(disposed)' : `Tensor(${this.dtype}[${this.shape.join(', ')}] ${this.device})`;
  }

  // Values out of the engine. Each waits for the device.

  /** The one element: a number, a bigint beyond 2^53, or a boolean. @throws Error if there are more. */
  item(): number | bigint | boolean {
    return ITEM.call(this.handle) as number | bigint | boolean;
  }
  /** A copy, row-major. bfloat16 and float16 come as Float32Array, bool as Uint8Array, int64 as BigInt64Array. At most 2 GiB. */
  toArray(): TypedArray {
    return engine().toData(this.handle);
  }

  // Conversions.

  /** Another dtype or device; shares memory if nothing changes. */
  to(options: { dtype?: DType | undefined; device?: Device | undefined; copy?: boolean }): Tensor {
    return TO.one(this.handle, optionalCode(options.dtype), undefined, options.device, undefined, undefined, options.copy);
  }
  /** The same values, without history. Shares memory. */
  detach(): Tensor {
    return DETACH.one(this.handle);
  }
  clone(): Tensor {
    return CLONE.one(this.handle);
  }
  contiguous(): Tensor {
    return CONTIGUOUS.one(this.handle);
  }
  /** Whether gradients are wanted. @throws Error for integers, or for a tensor with history. */
  requiresGrad_(on = true): this {
    REQUIRES_GRAD_.call(this.handle, on);
    return this;
  }

  // Arithmetic, element by element, shapes broadcast.

  add(other: Tensor | Scalar): Tensor {
    return ADD.one(this, other);
  }
  sub(other: Tensor | Scalar): Tensor {
    return SUB.one(this, other);
  }
  mul(other: Tensor | Scalar): Tensor {
    return MUL.one(this, other);
  }
  div(other: Tensor | Scalar): Tensor {
    return DIV.one(this, other);
  }
  pow(exponent: Tensor | Scalar): Tensor {
    return POW.one(this, exponent);
  }
  /** The sign of the divisor, as in Python. */
  remainder(other: Tensor | Scalar): Tensor {
    return REMAINDER.one(this, other);
  }
  neg(): Tensor {
    return NEG.one(this.handle);
  }
  exp(): Tensor {
    return EXP.one(this.handle);
  }
  log(): Tensor {
    return LOG.one(this.handle);
  }
  sqrt(): Tensor {
    return SQRT.one(this.handle);
  }
  rsqrt(): Tensor {
    return RSQRT.one(this.handle);
  }
  abs(): Tensor {
    return ABS.one(this.handle);
  }
  square(): Tensor {
    return SQUARE.one(this.handle);
  }
  sign(): Tensor {
    return SIGN.one(this.handle);
  }
  /** Halves to even. */
  round(): Tensor {
    return ROUND.one(this.handle);
  }
  floor(): Tensor {
    return FLOOR.one(this.handle);
  }
  erf(): Tensor {
    return ERF.one(this.handle);
  }
  erfinv(): Tensor {
    return ERFINV.one(this.handle);
  }
  sigmoid(): Tensor {
    return SIGMOID.one(this.handle);
  }
  silu(): Tensor {
    return SILU.one(this.handle);
  }
  /** The exact one, or its tanh approximation. */
  gelu(approximate: 'none' | 'tanh' = 'none'): Tensor {
    return GELU.one(this.handle, approximate);
  }
  relu(): Tensor {
    return RELU.one(this.handle);
  }
  tanh(): Tensor {
    return TANH.one(this.handle);
  }
  cos(): Tensor {
    return COS.one(this.handle);
  }
  sin(): Tensor {
    return SIN.one(this.handle);
  }
  /** One of the limits may be left out. */
  clamp(min?: number, max?: number): Tensor {
    return CLAMP.one(this.handle, min, max);
  }
  /** self + weight (end - self). */
  lerp(end: Tensor, weight: Tensor | number): Tensor {
    return isTensor(weight) ? LERP[0].one(this.handle, h(end), weight.handle) : LERP[1].one(this.handle, h(end), weight);
  }
  isfinite(): Tensor {
    return ISFINITE.one(this.handle);
  }
  lt(other: Tensor | Scalar): Tensor {
    return LT.one(this, other);
  }
  le(other: Tensor | Scalar): Tensor {
    return LE.one(this, other);
  }
  gt(other: Tensor | Scalar): Tensor {
    return GT.one(this, other);
  }
  ge(other: Tensor | Scalar): Tensor {
    return GE.one(this, other);
  }
  eq(other: Tensor | Scalar): Tensor {
    return EQ.one(this, other);
  }
  ne(other: Tensor | Scalar): Tensor {
    return NE.one(this, other);
  }
  logicalAnd(other: Tensor): Tensor {
    return AND.one(this.handle, h(other));
  }
  logicalOr(other: Tensor): Tensor {
    return OR.one(this.handle, h(other));
  }
  logicalNot(): Tensor {
    return NOT.one(this.handle);
  }
  maskedFill(mask: Tensor, value: Tensor | Scalar): Tensor {
    return isTensor(value) ? MASKED_FILL[0].one(this.handle, h(mask), value.handle) : MASKED_FILL[1].one(this.handle, h(mask), value);
  }

  // Products and reductions. No dimension: over all.

  matmul(other: Tensor): Tensor {
    return MATMUL.one(this.handle, h(other));
  }
  softmax(dim: number): Tensor {
    return SOFTMAX.one(this.handle, dim);
  }
  logSoftmax(dim: number): Tensor {
    return LOG_SOFTMAX.one(this.handle, dim);
  }
  logsumexp(dim: Dims, keepdim = false): Tensor {
    return LOGSUMEXP.one(this.handle, dims(dim), keepdim);
  }
  sum(dim?: Dims, keepdim = false): Tensor {
    return SUM.one(this.handle, dims(dim), keepdim);
  }
  mean(dim?: Dims, keepdim = false): Tensor {
    return MEAN.one(this.handle, dims(dim), keepdim);
  }
  /** Divides by n - correction. */
  std(dim?: Dims, keepdim = false, correction = 1): Tensor {
    return STD.one(this.handle, dims(dim), correction, keepdim);
  }
  var(dim?: Dims, keepdim = false, correction = 1): Tensor {
    return VAR.one(this.handle, dims(dim), correction, keepdim);
  }
  /** (sum |x|^p)^(1/p). */
  norm(p = 2, dim?: Dims, keepdim = false): Tensor {
    return NORM.one(this.handle, p, dims(dim), keepdim);
  }
  all(): Tensor {
    return ALL.one(this.handle);
  }
  any(): Tensor {
    return ANY.one(this.handle);
  }
  /** The largest of all, or [values, indices] along a dimension. */
  max(): Tensor;
  max(dim: number, keepdim?: boolean): [Tensor, Tensor];
  max(dim?: number, keepdim = false): Tensor | [Tensor, Tensor] {
    return dim === undefined ? MAX[0].one(this.handle) : (MAX[1].many(this.handle, dim, keepdim) as [Tensor, Tensor]);
  }
  /** The smallest of all, or [values, indices] along a dimension. */
  min(): Tensor;
  min(dim: number, keepdim?: boolean): [Tensor, Tensor];
  min(dim?: number, keepdim = false): Tensor | [Tensor, Tensor] {
    return dim === undefined ? MIN[0].one(this.handle) : (MIN[1].many(this.handle, dim, keepdim) as [Tensor, Tensor]);
  }
  amax(dim?: Dims, keepdim = false): Tensor {
    return AMAX.one(this.handle, dims(dim) ?? [], keepdim);
  }
  amin(dim?: Dims, keepdim = false): Tensor {
    return AMIN.one(this.handle, dims(dim) ?? [], keepdim);
  }
  argmax(dim?: number, keepdim = false): Tensor {
    return ARGMAX.one(this.handle, dim, keepdim);
  }
  argmin(dim?: number, keepdim = false): Tensor {
    return ARGMIN.one(this.handle, dim, keepdim);
  }
  argsort(dim = -1, descending = false): Tensor {
    return ARGSORT.one(this.handle, dim, descending);
  }
  /** [values, indices] */
  sort(dim = -1, descending = false): [Tensor, Tensor] {
    return SORT.many(this.handle, dim, descending) as [Tensor, Tensor];
  }
  /** [values, indices] of the k largest (or smallest), sorted. */
  topk(k: number, dim = -1, largest = true): [Tensor, Tensor] {
    return TOPK.many(this.handle, k, dim, largest) as [Tensor, Tensor];
  }
  cumsum(dim: number): Tensor {
    return CUMSUM.one(this.handle, dim);
  }

  // Shapes. Those that can be views of the same memory are.

  view(...shape: Sizes): Tensor {
    return VIEW.one(this.handle, sizes(shape));
  }
  reshape(...shape: Sizes): Tensor {
    return RESHAPE.one(this.handle, sizes(shape));
  }
  permute(...order: Sizes): Tensor {
    return PERMUTE.one(this.handle, sizes(order));
  }
  transpose(dim0: number, dim1: number): Tensor {
    return TRANSPOSE.one(this.handle, dim0, dim1);
  }
  flatten(start = 0, end = -1): Tensor {
    return FLATTEN.one(this.handle, start, end);
  }
  unsqueeze(dim: number): Tensor {
    return UNSQUEEZE.one(this.handle, dim);
  }
  squeeze(dim?: number): Tensor {
    return dim === undefined ? SQUEEZE[0].one(this.handle) : SQUEEZE[1].one(this.handle, dim);
  }
  /** -1 keeps a size. */
  expand(...shape: Sizes): Tensor {
    return EXPAND.one(this.handle, sizes(shape));
  }
  repeat(...times: Sizes): Tensor {
    return REPEAT.one(this.handle, sizes(times));
  }
  repeatInterleave(times: number, dim?: number): Tensor {
    return REPEAT_INTERLEAVE.one(this.handle, times, dim);
  }
  narrow(dim: number, start: number, length: number): Tensor {
    return NARROW.one(this.handle, dim, start, length);
  }
  select(dim: number, index: number): Tensor {
    return SELECT.one(this.handle, dim, index);
  }
  /** Elements start to end (left out: to the last) along a dimension. */
  slice(dim: number, start?: number, end?: number, step = 1): Tensor {
    return SLICE.one(this.handle, dim, start, end, step);
  }
  /** Advanced indexing: one index tensor (int64 or bool) for each leading dimension, null for all of it. */
  index(indices: readonly (Tensor | null)[]): Tensor {
    return INDEX.one(this.handle, Array.isArray(indices) ? indices.map((index: Tensor | null) => optional(index) ?? null) : null);
  }
  indexSelect(dim: number, index: Tensor): Tensor {
    return INDEX_SELECT.one(this.handle, dim, h(index));
  }
  gather(dim: number, index: Tensor): Tensor {
    return GATHER.one(this.handle, dim, h(index));
  }
  chunk(chunks: number, dim = 0): Tensor[] {
    return CHUNK.many(this.handle, chunks, dim);
  }
  /** Pieces of one size, or of the sizes given. */
  split(size: Dims, dim = 0): Tensor[] {
    return typeof size === 'number' ? SPLIT[0].many(this.handle, size, dim) : SPLIT[1].many(this.handle, size, dim);
  }
  unbind(dim = 0): Tensor[] {
    return UNBIND.many(this.handle, dim);
  }
  flip(...order: Sizes): Tensor {
    return FLIP.one(this.handle, sizes(order));
  }
  tril(diagonal = 0): Tensor {
    return TRIL.one(this.handle, diagonal);
  }
  diagonal(offset = 0, dim0 = 0, dim1 = 1): Tensor {
    return DIAGONAL.one(this.handle, offset, dim0, dim1);
  }

  // In place. Each returns the tensor itself.

  add_(other: Tensor | Scalar): this {
    ADD_.change(this, other);
    return this;
  }
  sub_(other: Tensor | Scalar): this {
    SUB_.change(this, other);
    return this;
  }
  mul_(other: Tensor | Scalar): this {
    MUL_.change(this, other);
    return this;
  }
  div_(other: Tensor | Scalar): this {
    DIV_.change(this, other);
    return this;
  }
  /** Copies values, shape broadcast, dtype and device converted. */
  copy_(from: Tensor): this {
    COPY_.call(this.handle, h(from));
    return this;
  }
  zero_(): this {
    ZERO_.call(this.handle);
    return this;
  }
  fill_(value: Tensor | Scalar): this {
    isTensor(value) ? FILL_[0].call(this.handle, value.handle) : FILL_[1].call(this.handle, value);
    return this;
  }
  clamp_(min?: number, max?: number): this {
    CLAMP_.call(this.handle, min, max);
    return this;
  }
  lerp_(end: Tensor, weight: Tensor | number): this {
    isTensor(weight) ? LERP_[0].call(this.handle, h(end), weight.handle) : LERP_[1].call(this.handle, h(end), weight);
    return this;
  }
}

defineTensor(Tensor);
