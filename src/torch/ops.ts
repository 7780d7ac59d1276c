/** Functions on tensors: factories, joins, layers and losses. Names and meanings are PyTorch's; optional arguments come as objects. */
import { engine, h, list, Op, optional, wrap } from './call.js';
import { type Device, type DType, dtypeCode, isFloating, optionalCode, type TensorOptions } from './dtype.js';
import type { Handle, TypedArray } from './native.js';
import { type Reduction, reductionCode } from './reduction.js';
import type { Scalar, Tensor } from './tensor.js';

const aten = (name: string): Op => new Op(`aten::${name}`);
type Pair = number | readonly [number, number];

// Factories.

const dtypeOf = (data: TypedArray): DType => {
  if (data instanceof Float32Array) return 'float32';
  if (data instanceof Float64Array) return 'float64';
  if (data instanceof BigInt64Array) return 'int64';
  if (data instanceof Int32Array) return 'int32';
  if (data instanceof Int16Array) return 'int16';
  return data instanceof Int8Array ? 'int8' : 'uint8';
};

/**
 * A tensor with a copy of the data, row-major. Numbers in a plain array become float32; a typed array keeps its type unless `dtype` says
 * otherwise (bfloat16 and float16 are made from Float32Array, bool from Uint8Array).
 * @throws TypeError when the shape does not fit.
 */
export function tensor(data: TypedArray | readonly number[], shape?: readonly number[], options: TensorOptions = {}): Tensor {
  const array = ArrayBuffer.isView(data) ? (data as TypedArray) : numbers(data as readonly number[]);
  const dtype = options.dtype ?? (ArrayBuffer.isView(data) ? dtypeOf(array) : 'float32');
  const size = shape ?? [array.length];
  return wrap(engine().fromData(array, size, dtypeCode(dtype), options.device ?? 'cpu', options.requiresGrad ?? false));
}

/** Float64Array.from would make NaN of what is no number: of nested arrays, which PyTorch takes, or of text. */
function numbers(data: readonly number[]): Float64Array {
  if (!Array.isArray(data)) throw new TypeError(`tensor: data must be an array of numbers or a typed array, found ${kindOf(data)}`);
  const wrong = data.findIndex((value) => typeof value !== 'number');
  if (wrong >= 0)
    throw new TypeError(
      `tensor: data must be one flat array of numbers, with the shape beside it; found ${kindOf(data[wrong])} at ${wrong}`,
    );
  return Float64Array.from(data);
}

const kindOf = (value: unknown): string => (Array.isArray(value) ? 'an array' : value === null ? 'null' : typeof value);

const EMPTY = aten('empty.memory_format');
const ZEROS = aten('zeros');
const ONES = aten('ones');
const FULL = aten('full');
const ARANGE = aten('arange.start_step');
const LINSPACE = aten('linspace');
const EYE = aten('eye');

const made = (result: Tensor, options: TensorOptions): Tensor => (options.requiresGrad ? result.requiresGrad_(true) : result);

/** Not initialised. */
export function empty(shape: readonly number[], options: TensorOptions = {}): Tensor {
  return made(EMPTY.one(shape, optionalCode(options.dtype), undefined, options.device), options);
}
export function zeros(shape: readonly number[], options: TensorOptions = {}): Tensor {
  return made(ZEROS.one(shape, optionalCode(options.dtype), undefined, options.device), options);
}
export function ones(shape: readonly number[], options: TensorOptions = {}): Tensor {
  return made(ONES.one(shape, optionalCode(options.dtype), undefined, options.device), options);
}
/** float32 unless said, whatever the value. */
export function full(shape: readonly number[], value: Scalar, options: TensorOptions = {}): Tensor {
  return made(FULL.one(shape, value, dtypeCode(options.dtype ?? 'float32'), undefined, options.device), options);
}
/** 0 to end (not included), or start to end by step. float32 unless said. */
export function arange(end: number, options?: TensorOptions): Tensor;
export function arange(start: number, end: number, step?: number, options?: TensorOptions): Tensor;
export function arange(first: number, second?: number | TensorOptions, step = 1, last: TensorOptions = {}): Tensor {
  const ranged = typeof second === 'number';
  const options = (ranged ? last : second) ?? {};
  const [start, end] = ranged ? [first, second] : [0, first];
  if (!isFloating(options.dtype ?? 'float32')) checkWhole(start, end, step);
  return made(ARANGE.one(start, end, step, dtypeCode(options.dtype ?? 'float32'), undefined, options.device), options);
}

/** libtorch 1.13 divides the range by the step as integers before it looks at either: by zero, or the least integer by -1, ends the process. */
function checkWhole(start: number, end: number, step: number): void {
  const named = Object.entries({ start, end, step }).find(([, value]) => Math.abs(Number(value)) > Number.MAX_SAFE_INTEGER);
  if (named) throw new TypeError(`aten::arange.start_step: argument '${named[0]}' is beyond the safe integers: ${named[1]}`);
  if (Math.trunc(Number(step)) === 0)
    throw new TypeError(`aten::arange.start_step: argument 'step' must not be 0 as an integer, found ${step}`);
}

/** Both ends included. */
export function linspace(start: number, end: number, steps: number, options: TensorOptions = {}): Tensor {
  return made(LINSPACE.one(start, end, steps, optionalCode(options.dtype), undefined, options.device), options);
}
export function eye(n: number, options: TensorOptions = {}): Tensor {
  return made(EYE.one(n, optionalCode(options.dtype), undefined, options.device), options);
}

const ZEROS_LIKE = aten('zeros_like');
const ONES_LIKE = aten('ones_like');
const FULL_LIKE = aten('full_like');

export function zerosLike(like: Tensor, options: { dtype?: DType; device?: Device } = {}): Tensor {
  return ZEROS_LIKE.one(h(like), optionalCode(options.dtype), undefined, options.device);
}
export function onesLike(like: Tensor, options: { dtype?: DType; device?: Device } = {}): Tensor {
  return ONES_LIKE.one(h(like), optionalCode(options.dtype), undefined, options.device);
}
export function fullLike(like: Tensor, value: Scalar, options: { dtype?: DType; device?: Device } = {}): Tensor {
  return FULL_LIKE.one(h(like), value, optionalCode(options.dtype), undefined, options.device);
}

// Joins and choices.

const CAT = aten('cat');
const STACK = aten('stack');
const WHERE = aten('where.self');
const FULL_SCALAR = aten('scalar_tensor');
const MINIMUM = aten('minimum');
const MAXIMUM = aten('maximum');
const ADDCMUL = aten('addcmul');
const ONE_HOT = aten('one_hot');
const EINSUM = aten('einsum');

export function cat(tensors: readonly Tensor[], dim = 0): Tensor {
  return CAT.one(list(tensors), dim);
}
export function stack(tensors: readonly Tensor[], dim = 0): Tensor {
  return STACK.one(list(tensors), dim);
}
/** A number takes the dtype of the other choice; of two numbers, float32. */
export function where(condition: Tensor, yes: Tensor | number, no: Tensor | number): Tensor {
  const like = typeof yes === 'number' ? no : yes;
  const options = typeof like === 'number' ? undefined : like;
  const side = (value: Tensor | number) =>
    typeof value === 'number'
      ? (FULL_SCALAR.call(value, dtypeCode(options?.dtype ?? 'float32'), undefined, options?.device ?? condition.device) as number)
      : h(value);
  const a = side(yes);
  let b: Handle | undefined;
  try {
    b = side(no);
    return WHERE.one(h(condition), a, b);
  } finally {
    if (typeof yes === 'number') engine().dispose(a);
    if (typeof no === 'number' && b !== undefined) engine().dispose(b);
  }
}
export function minimum(a: Tensor, b: Tensor): Tensor {
  return MINIMUM.one(h(a), h(b));
}
export function maximum(a: Tensor, b: Tensor): Tensor {
  return MAXIMUM.one(h(a), h(b));
}
/** a + value b c. */
export function addcmul(a: Tensor, b: Tensor, c: Tensor, value = 1): Tensor {
  return value === 1 ? ADDCMUL.one(h(a), h(b), h(c)) : ADDCMUL.one(h(a), h(b), h(c), value);
}
/** int64 classes to rows of 0 and 1, int64. */
export function oneHot(classes: Tensor, count: number): Tensor {
  return ONE_HOT.one(h(classes), count);
}
export function einsum(equation: string, tensors: readonly Tensor[]): Tensor {
  return EINSUM.one(equation, list(tensors));
}

// Layers.

const LINEAR = aten('linear');
const EMBEDDING = aten('embedding');
const LAYER_NORM = aten('layer_norm');
const CONV2D = aten('conv2d');
const CONVOLUTION = aten('_convolution');
const BATCH_NORM = aten('batch_norm');
const AVG_POOL = aten('avg_pool2d');
const ADAPTIVE_POOL = aten('adaptive_avg_pool2d');
const MAX_POOL = aten('max_pool2d');
const UPSAMPLE = aten('upsample_bilinear2d');

/** x (..., in), weight (out, in), bias (out): x weight^T + bias. */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor | null): Tensor {
  return LINEAR.one(h(x), h(weight), optional(bias));
}
/** Rows of the weight (n, d) at int64 or int32 indices (...): (..., d). @throws Error for an index outside [0, n). */
export function embedding(weight: Tensor, indices: Tensor): Tensor {
  return EMBEDDING.one(h(weight), h(indices));
}
/** Over the trailing dimensions `shape`, with affine weight and bias where given. */
export function layerNorm(x: Tensor, shape: readonly number[], weight?: Tensor | null, bias?: Tensor | null, eps = 1e-5): Tensor {
  return LAYER_NORM.one(h(x), shape, optional(weight), optional(bias), eps);
}
/** x (B, in, H, W), weight (out, in / groups, kh, kw). */
export function conv2d(
  x: Tensor,
  weight: Tensor,
  bias?: Tensor | null,
  stride: Pair = 1,
  padding: Pair = 0,
  dilation: Pair = 1,
  groups = 1,
): Tensor {
  // libtorch goes on with the low 32 bits, and divides by them.
  if (Math.abs(Number(groups)) >= 2 ** 31) throw new TypeError(`aten::conv2d: argument 'groups' is beyond 32 bits: ${groups}`);
  return CONV2D.one(h(x), h(weight), optional(bias), stride, padding, dilation, groups);
}
/** The same in all of float32, where CUDA's default rounds the factors to 10 bits (TF32); the same input gives the same bits. For measuring. */
export function exactConv2d(x: Tensor, weight: Tensor, bias: Tensor | null, stride: Pair = 1, padding: Pair = 0): Tensor {
  const [benchmark, deterministic, cudnn, tf32] = [false, true, true, false];
  const pair = (value: Pair): Pair => (typeof value === 'number' ? [value, value] : value);
  return CONVOLUTION.one(
    ...([h(x), h(weight), optional(bias), pair(stride)] as const),
    ...[pair(padding), [1, 1], false, [0, 0], 1, benchmark, deterministic, cudnn, tf32],
  );
}
/** Over (B, H, W) of x (B, C, ...); in training the running statistics are moved towards the batch's. */
export function batchNorm(
  x: Tensor,
  runningMean: Tensor | null,
  runningVar: Tensor | null,
  weight?: Tensor | null,
  bias?: Tensor | null,
  training = false,
  momentum = 0.1,
  eps = 1e-5,
): Tensor {
  return BATCH_NORM.one(h(x), optional(weight), optional(bias), optional(runningMean), optional(runningVar), training, momentum, eps, true);
}
/** Whether the zeros around a picture count in the mean is `countPadding`. */
export function avgPool2d(x: Tensor, kernel: Pair, stride: Pair = kernel, padding: Pair = 0, countPadding = true): Tensor {
  return AVG_POOL.one(h(x), kernel, stride, padding, false, countPadding);
}
export function adaptiveAvgPool2d(x: Tensor, size: Pair): Tensor {
  return ADAPTIVE_POOL.one(h(x), size);
}
export function maxPool2d(x: Tensor, kernel: Pair, stride: Pair = kernel, padding: Pair = 0): Tensor {
  return MAX_POOL.one(h(x), kernel, stride, padding);
}
/** Bilinear, corners not aligned. */
export function upsampleBilinear2d(x: Tensor, size: readonly [number, number]): Tensor {
  return UPSAMPLE.one(h(x), size, false);
}

// Losses.

const CROSS_ENTROPY = aten('cross_entropy_loss');
const L1 = aten('l1_loss');
const COSINE = aten('cosine_similarity');

/** logits (B, K), target int64 (B). */
export function crossEntropy(logits: Tensor, target: Tensor, options: { reduction?: Reduction; labelSmoothing?: number } = {}): Tensor {
  return CROSS_ENTROPY.one(
    h(logits),
    h(target),
    undefined,
    reductionCode('crossEntropy', options.reduction ?? 'mean'),
    undefined,
    options.labelSmoothing,
  );
}
export function l1Loss(x: Tensor, target: Tensor, reduction: Reduction = 'mean'): Tensor {
  return L1.one(h(x), h(target), reductionCode('l1Loss', reduction));
}
/** Along a dimension, which goes away. What `eps` does to vectors shorter than it differs between versions of libtorch. */
export function cosineSimilarity(a: Tensor, b: Tensor, dim = 1, eps = 1e-8): Tensor {
  return COSINE.one(h(a), h(b), dim, eps);
}

// Linear algebra.

const SVDVALS = aten('linalg_svdvals');
const EIGH = aten('linalg_eigh');
const CDIST = aten('cdist');

/** Singular values, largest first. */
export function svdvals(matrix: Tensor): Tensor {
  return SVDVALS.one(h(matrix));
}
/** [eigenvalues, ascending; eigenvectors, in columns] of a symmetric matrix, of which the lower half is read. */
export function eigh(matrix: Tensor): [Tensor, Tensor] {
  return EIGH.many(h(matrix)) as [Tensor, Tensor];
}
/** Euclidean distances between rows of a (n, d) and b (m, d): (n, m). */
export function cdist(a: Tensor, b: Tensor): Tensor {
  return CDIST.one(h(a), h(b));
}
