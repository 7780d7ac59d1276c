/**
 * Draws that are a function of (key, image, element): see core/random.ts, which computes the same. They need no generator and no state, so a
 * batch draws what its micro-batches or its ranks would.
 */
import type { Key } from '../core/random.js';
import { h, isTensor, Op } from './call.js';
import { type Device, type DType, dtypeCode } from './dtype.js';
import type { Tensor } from './tensor.js';

const RAND = new Op('dsd::rand');
const RANDN = new Op('dsd::randn');

export interface DrawOptions {
  readonly dtype?: DType;
  readonly device?: Device;
}

function draw(op: Op, key: Key, firstImage: number | Tensor, shape: readonly number[], options: DrawOptions): Tensor {
  const [first, base] = isTensor(firstImage) ? [0, h(firstImage)] : [firstImage, undefined];
  return op.one(key.lo, key.hi, first, shape, dtypeCode(options.dtype ?? 'float32'), options.device ?? 'cpu', base);
}

/**
 * Standard normal numbers. `shape[0]` images from `firstImage` on; an element's number is its row-major index within its image. Drawn in
 * float32, then converted. `firstImage` as a 0-d int64 tensor on the device is read when the operator runs, so that a CUDA graph can replay it.
 */
export function randn(key: Key, firstImage: number | Tensor, shape: readonly number[], options: DrawOptions = {}): Tensor {
  return draw(RANDN, key, firstImage, shape, options);
}

/** Uniform numbers in [0, 1), multiples of 2^-24; otherwise as `randn`. */
export function rand(key: Key, firstImage: number | Tensor, shape: readonly number[], options: DrawOptions = {}): Tensor {
  return draw(RAND, key, firstImage, shape, options);
}
