/** First values of parameters, as a function of (seed, name): adding a parameter moves no other's. */
import { key } from '../core/random.js';
import { type Device, type DType, full, noGrad, rand, scope, type Tensor } from '../torch/index.js';

/**
 * Normal of standard deviation `std`, cut at two standard deviations, by the inverse of its distribution function (no rejection, so the
 * draw stays a function of the element's index).
 */
export function truncatedNormal(
  seed: number,
  name: string,
  shape: readonly number[],
  std: number,
  options: { dtype: DType; device: Device },
): Tensor {
  // P(|N| < 2) = erf(sqrt(2)) = 0.9545; erfinv maps u in (-0.9545, 0.9545) onto the cut normal over sqrt(2).
  const inside = 0.954499736103642;
  return noGrad(() =>
    scope(() => {
      const size = shape.reduce((product, side) => product * side, 1);
      const u = rand(key(seed, `init/${name}`), 0, [1, size], { device: options.device }).view(...shape);
      return u
        .mul(2 * inside)
        .sub(inside)
        .erfinv()
        .mul(Math.SQRT2 * std)
        .to({ dtype: options.dtype });
    }),
  );
}

/** A constant tensor. */
export function constant(shape: readonly number[], value: number, options: { dtype: DType; device: Device }): Tensor {
  return full([...shape], value, options);
}
