/**
 * Bilinear resizing as TensorFlow 1 did it (`tf.image.resize_bilinear`), which is part of two feature networks' definition: pixels are points
 * at whole coordinates, and a picture that shrinks is not smoothed. Distances move when it is done otherwise (arXiv 2104.11222). To the bit
 * TensorFlow's order of float32 operations: along rows, then between rows.
 */
import { scope, type Tensor, tensor } from '../torch/index.js';

/**
 * Where the pixels of the result lie. `origin`: pixel i at i * in / out, so that only the first ones fall together: TensorFlow's default.
 * `corners`: at i * (in - 1) / (out - 1), so that the last ones do too: its `align_corners`.
 */
export type Grid = 'origin' | 'corners';

/** @param pixels (B, H, W, ch), uint8 or float32 @returns (B, side, side, ch) float32 on the same device, the same range of values */
export function resizeBilinear(pixels: Tensor, side: number, grid: Grid): Tensor {
  return scope(() => between(between(pixels, 2, side, grid), 1, side, grid));
}

/** One dimension of x to length `size`. */
function between(x: Tensor, dim: 1 | 2, size: number, grid: Grid): Tensor {
  const { lower, upper, share } = taps(x.size(dim), size, grid);
  const { device } = x;
  const pick = (at: BigInt64Array): Tensor => x.indexSelect(dim, tensor(at, [size], { dtype: 'int64', device })).to({ dtype: 'float32' });
  const first = pick(lower);
  const weight = tensor(share, dim === 1 ? [size, 1, 1] : [size, 1], { device });
  return pick(upper).sub_(first).mul_(weight).add_(first);
}

/** For each place of the result the two pixels that it lies between, and how far it is from the lower one, in [0, 1). */
function taps(from: number, to: number, grid: Grid): { lower: BigInt64Array; upper: BigInt64Array; share: Float32Array } {
  // TensorFlow computes the places in float32, and near a pixel that decides which one it is.
  const scale = Math.fround(grid === 'corners' && to > 1 ? (from - 1) / (to - 1) : from / to);
  const places = Array.from({ length: to }, (_, i) => Math.fround(i * scale));
  const lower = places.map(Math.floor);
  return {
    lower: BigInt64Array.from(lower, BigInt),
    upper: BigInt64Array.from(lower, (at) => BigInt(Math.min(at + 1, from - 1))),
    share: Float32Array.from(places, (place, i) => place - lower[i]!),
  };
}
